//! What goes wrong when there is nobody to tell.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::VfioError;

/// What the kernel refused after a function was opened, when the guest did something that has no answer.
///
/// The function goes on without: an interrupt may be missing, or registers read as ones. This is a handle:
/// it is had before the function is plugged in, and tells of it wherever that is, and afterwards.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    first: Option<VfioError>,
    count: u64,
}

impl Faults {
    /// The first since the last call. Those that follow it are often of the same cause, and only
    /// [counted](Self::count).
    pub fn take(&self) -> Option<VfioError> {
        self.log().first.take()
    }

    /// How many there were, all in all.
    pub fn count(&self) -> u64 {
        self.log().count
    }

    pub(crate) fn check(&self, what: &'static str, result: io::Result<()>) {
        if let Err(error) = result {
            let mut log = self.log();
            log.count = log.count.saturating_add(1);
            log.first.get_or_insert(VfioError::Kernel { what, error });
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
