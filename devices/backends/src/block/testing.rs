//! Backends for tests, each around another: one that holds operations back, one that fails them, one
//! that records them; and the test that every backend must pass.
//!
//! Panics on misuse, as tests do.

mod conformance;
mod fault;
mod gated;
mod guest;
mod recording;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use conformance::{conformance, finish};
pub use fault::FaultBackend;
pub use gated::{Gate, GatedBackend};
pub use guest::GuestPages;
pub(crate) use guest::plain;
pub use recording::{Event, Log, RecordingBackend};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
