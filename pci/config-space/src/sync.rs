//! What [`crate::gate`] is built on. Its model test puts a model checker's versions in their place.

use std::time::Duration;

pub(crate) use std::sync::atomic::{AtomicU32, Ordering};

/// Lets another thread get on, after `looks` looks at what it is to do. Soon sleeps, rather than
/// yields, since the other thread may have a lower real-time priority and share the core.
pub(crate) fn relax(looks: u64) {
    if looks < 64 {
        std::hint::spin_loop();
    } else {
        std::thread::sleep(Duration::from_micros(10));
    }
}
