//! One queue of an interface, and what rings for one of its halves.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use paraslot_device::{Progress, Source};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::sys::{self, Readiness};
use crate::net::{NetError, Offloads};

/// A queue.
pub(super) struct Queue {
    fd: Arc<OwnedFd>,
    /// Offloads that the kernel does itself.
    pub(super) native: Offloads,
    sending: AtomicBool,
    receiving: AtomicBool,
}

impl Queue {
    pub(super) fn new(fd: Arc<OwnedFd>, native: Offloads) -> Arc<Self> {
        let (sending, receiving) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { fd, native, sending, receiving })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Which half of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Sending,
    Receiving,
}

/// The right to use one half of a queue, which one has at a time; and what wakes who has it.
///
/// What rings is an epoll set of its own that holds the descriptor only from the moment that waiting
/// was asked for until it is taken back. Whoever watches the descriptor itself, level-triggered,
/// would not come to rest while there are frames that nobody can take; and an interface that was
/// removed is in error for good.
pub(super) struct Lease {
    pub(super) queue: Arc<Queue>,
    half: Half,
    bell: Epoll,
    armed: bool,
}

impl Lease {
    /// # Errors
    /// When the half is in use, or the host has no more descriptors.
    pub(super) fn new(queue: Arc<Queue>, half: Half) -> io::Result<Self> {
        let bell = Epoll::new()?;
        if queue.in_use(half).swap(true, Ordering::AcqRel) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(Self { queue, half, bell, armed: false })
    }

    pub(super) fn source(&self) -> Source {
        Source::Readable(self.bell.as_raw_fd())
    }

    pub(super) fn readiness(&self) -> Readiness {
        let events = match self.half {
            Half::Sending => libc::POLLOUT,
            Half::Receiving => libc::POLLIN,
        };
        sys::readiness(self.queue.fd(), events)
    }

    /// Has the source ring when the queue is ready, or in error. [`Progress::More`] if that is not
    /// possible.
    pub(super) fn arm(&mut self) -> Progress {
        if !self.armed {
            let events = match self.half {
                Half::Sending => EventSet::OUT,
                Half::Receiving => EventSet::IN,
            };
            let fd = self.queue.fd().as_raw_fd();
            let added = self.bell.ctl(ControlOperation::Add, fd, EpollEvent::new(events, 0));
            if added.is_err() {
                // Without memory for it the caller goes on asking, rather than never hear again.
                return Progress::More;
            }
            self.armed = true;
        }
        Progress::Idle
    }

    /// Has the source be quiet.
    pub(super) fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            let fd = self.queue.fd().as_raw_fd();
            // The descriptor is in the set, and a set gives one up in any case.
            let _ = self.bell.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.queue.in_use(self.half).store(false, Ordering::Release);
    }
}

impl Queue {
    fn in_use(&self, half: Half) -> &AtomicBool {
        match half {
            Half::Sending => &self.sending,
            Half::Receiving => &self.receiving,
        }
    }
}

/// What a system call's error means for the frame.
pub(super) fn net_error(error: io::Error) -> NetError {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => NetError::Busy,
        Some(libc::ENOBUFS | libc::ENOMEM) => NetError::NoBuffers,
        // Set down, removed, or detached by someone else.
        Some(libc::EIO | libc::ENETDOWN | libc::EBADFD | libc::ENODEV | libc::ENXIO) => {
            NetError::Down
        }
        Some(libc::EMSGSIZE) => NetError::TooLong,
        Some(libc::EINVAL) => NetError::Invalid,
        _ => NetError::Io(error),
    }
}
