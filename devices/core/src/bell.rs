//! How a vCPU calls a worker.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{Progress, Source};

/// Writes its eventfd only when the worker has gone to sleep, so that a register write costs its exit
/// and nothing else while the worker is awake. It is rung at first.
#[derive(Debug)]
pub struct Bell {
    rung: AtomicBool,
    asleep: AtomicBool,
    event: EventFd,
}

impl Bell {
    /// A bell, rung.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        Ok(Self { rung: AtomicBool::new(true), asleep: AtomicBool::new(false), event })
    }

    /// Has the worker look.
    pub fn ring(&self) {
        // One total order with `sleep`: either this sees the worker asleep, or it sees the ring.
        self.rung.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            // It can fail only by being full, and then the worker is about to be woken.
            let _ = self.event.write(1);
        }
    }

    /// The worker is awake: forgets that it was rung, before it looks at what it was rung for. Says
    /// whether it was.
    pub fn answer(&self) -> bool {
        if self.asleep.load(Ordering::Relaxed) {
            self.asleep.store(false, Ordering::SeqCst);
        }
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::SeqCst)
    }

    /// The worker goes to sleep; says whether it must not after all.
    pub fn sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let rung = self.rung.load(Ordering::SeqCst);
        if rung {
            self.asleep.store(false, Ordering::SeqCst);
        }
        rung
    }

    /// The worker goes to sleep unless it was rung, or `look` finds something to do. `look` comes after
    /// everyone knows that it has to be rung: what it does not see, rings.
    pub fn sleep_unless(&self, look: impl FnOnce() -> Progress) -> Progress {
        if self.sleep() {
            return Progress::More;
        }
        let progress = look();
        if progress == Progress::More {
            self.stay();
        }
        progress
    }

    /// The worker does not sleep after all.
    pub fn stay(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// What wakes the worker.
    pub fn source(&self) -> Source {
        Source::Event(self.event.as_raw_fd())
    }

    /// The eventfd itself, for a test that looks whether it was written.
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A ring is never lost: it keeps the worker from going to sleep, or wakes it.
    #[test]
    fn it_rings_those_who_sleep_and_keeps_others_awake() {
        let bell = Bell::new().unwrap();
        let woken = || bell.event().read().unwrap_or(0);
        assert!(bell.answer(), "it is rung at first");
        assert!(!bell.answer());
        bell.ring();
        assert_eq!(woken(), 0, "it was awake");
        assert!(bell.sleep(), "it must look first");
        bell.answer();
        assert!(!bell.sleep());
        bell.ring();
        bell.ring();
        assert_eq!(woken(), 1);
        bell.answer();
        assert!(!bell.sleep());
        bell.stay();
        bell.ring();
        assert_eq!(woken(), 0);
        assert!(bell.sleep());
    }

    #[test]
    fn the_last_look_is_after_everyone_knows() {
        let bell = Bell::new().unwrap();
        let woken = || bell.event().read().unwrap_or(0);
        let never = || panic!("it was rung");
        assert_eq!(bell.sleep_unless(never), Progress::More);
        bell.answer();
        assert_eq!(bell.sleep_unless(|| Progress::More), Progress::More);
        bell.ring();
        assert_eq!(woken(), 0, "it stayed awake");
        bell.answer();
        let look = || {
            bell.ring();
            Progress::Idle
        };
        assert_eq!((bell.sleep_unless(look), woken()), (Progress::Idle, 1));
    }
}
