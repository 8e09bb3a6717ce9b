//! What wakes a worker, and what is opened once at a time.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use paraslot_device::{Progress, Source};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Locks; a panic elsewhere does not spread.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rings only while someone waits, once each time.
#[derive(Debug)]
pub(super) struct Bell {
    state: Mutex<State>,
    event: EventFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Quiet,
    Waiting,
    Rung,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::new(State::Quiet), event: EventFd::new(EFD_NONBLOCK)? })
    }

    pub(super) fn source(&self) -> Source {
        Source::Event(self.event.as_raw_fd())
    }

    /// Waits from now on, unless there is something `ready`.
    ///
    /// Whoever makes something ready does so before it [`ring`](Self::ring)s: it takes the lock
    /// either after this, and sees that someone waits, or before, and then `ready` sees what it did.
    pub(super) fn wait_unless(&self, ready: impl FnOnce() -> bool) -> Progress {
        let mut state = lock(&self.state);
        if ready() {
            self.silence(&mut state);
            return Progress::More;
        }
        *state = State::Waiting;
        Progress::Idle
    }

    pub(super) fn ring(&self) {
        self.ring_if(|| true);
    }

    /// Rings if `still` holds once it is known whether someone waits. Returns whether it held.
    pub(super) fn ring_if(&self, still: impl FnOnce() -> bool) -> bool {
        let mut state = lock(&self.state);
        let still = still();
        if still && *state == State::Waiting {
            *state = State::Rung;
            // Fails only when it was rung 2⁶⁴ times already.
            let _ = self.event.write(1);
        }
        still
    }

    /// Nobody waits, and nothing has rung.
    pub(super) fn stop(&self) {
        self.silence(&mut lock(&self.state));
    }

    fn silence(&self, state: &mut State) {
        if std::mem::replace(state, State::Quiet) == State::Rung {
            // Fails if whoever woke has read it.
            let _ = self.event.read();
        }
    }
}

/// Half a queue, which one at a time may have.
#[derive(Debug, Default)]
pub(super) struct Claim(AtomicBool);

impl Claim {
    /// Takes it.
    ///
    /// # Errors
    /// When someone has it.
    pub(super) fn take(&self) -> io::Result<()> {
        if self.0.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the queue is open already"));
        }
        Ok(())
    }

    /// Gives it back.
    pub(super) fn release(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The queue `index` of `queues`.
///
/// # Errors
/// When there is none.
pub(super) fn queue<T>(queues: &[T], index: u16) -> io::Result<&T> {
    let none = || io::Error::new(io::ErrorKind::InvalidInput, "no such queue");
    queues.get(usize::from(index)).ok_or_else(none)
}

/// As many as `count` of what `make` makes, at least one.
///
/// # Errors
/// When it is none, or `make` fails.
pub(super) fn several<T>(
    count: u16,
    make: impl FnMut(u16) -> io::Result<T>,
) -> io::Result<Box<[T]>> {
    if count == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a port needs a queue"));
    }
    (0..count).map(make).collect()
}
