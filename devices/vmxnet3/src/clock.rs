//! Time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use paraslot_device::{Clock, Timer};

/// A clock that has been going for a while when it begins: so what happened [`WHILE`] before an adapter
/// was restored has its time there too, however new its clock.
pub(crate) struct Aged(pub(crate) Arc<dyn Clock>);

/// Further back nothing matters.
pub(crate) const WHILE: Duration = Duration::from_millis(20);

impl Clock for Aged {
    fn now(&self) -> Duration {
        self.0.now().saturating_add(WHILE)
    }

    fn timer(&self) -> io::Result<Box<dyn Timer>> {
        self.0.timer()
    }
}
