//! How a run ends, and that it has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::LinuxEnd;
use crate::VmError;

type End = Result<LinuxEnd, VmError>;

/// The first reason to end counts.
#[derive(Default)]
pub(super) struct Ending {
    set: AtomicBool,
    end: Mutex<Option<End>>,
    changed: Condvar,
}

impl Ending {
    fn lock(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the run. Without effect if it has ended.
    pub(super) fn set(&self, end: End) {
        let mut place = self.lock();
        if !self.set.swap(true, Ordering::AcqRel) {
            *place = Some(end);
        }
        self.changed.notify_all();
    }

    /// Whether the run has ended. Costs a load.
    pub(super) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Waits for the end; `None` if it does not come within `limit`.
    pub(super) fn wait(&self, limit: Option<Duration>) -> Option<End> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut place = self.lock();
        loop {
            if let Some(end) = place.take() {
                return Some(end);
            }
            place = match deadline {
                None => self.changed.wait(place).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = self.changed.wait_timeout(place, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Forgets the end; there may be another run.
    pub(super) fn clear(&self) {
        *self.lock() = None;
        self.set.store(false, Ordering::Release);
    }
}

/// Ends the run when it is dropped by a panic.
pub(super) struct OnPanic<'a>(pub(super) &'a Ending);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set(Err(VmError::Poisoned));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts_until_it_is_forgotten() {
        let ending = Ending::default();
        assert!(!ending.is_set());
        assert!(ending.wait(Some(Duration::ZERO)).is_none());
        ending.set(Ok(LinuxEnd::Reset));
        ending.set(Ok(LinuxEnd::Stopped));
        assert!(ending.is_set());
        assert!(matches!(ending.wait(None), Some(Ok(LinuxEnd::Reset))));
        ending.clear();
        assert!(!ending.is_set());
        ending.set(Ok(LinuxEnd::Stopped));
        assert!(matches!(ending.wait(None), Some(Ok(LinuxEnd::Stopped))));
    }

    #[test]
    fn who_waits_is_woken() {
        let ending = Ending::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| ending.wait(None));
            ending.set(Ok(LinuxEnd::PowerOff));
            assert!(matches!(waiting.join().unwrap(), Some(Ok(LinuxEnd::PowerOff))));
        });
    }

    #[test]
    fn a_panic_ends_the_run() {
        let ending = Ending::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = OnPanic(&ending);
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && ending.is_set());
    }
}
