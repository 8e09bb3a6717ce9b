//! What others have for a lane.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::task::Order;

/// Orders of task management, and word that another's COMPARE AND WRITE is over.
///
/// The eventfd is written under the lock, so that who has taken what is here can quiet it for good.
pub(crate) struct Mailbox {
    /// Orders that there have been, those that the lane has taken among them.
    posted: AtomicU64,
    /// A turn may have come.
    called: AtomicBool,
    orders: Mutex<Vec<Order>>,
    event: EventFd,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            posted: AtomicU64::new(0),
            called: AtomicBool::new(false),
            orders: Mutex::default(),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn post(&self, order: Order) {
        let mut orders = self.lock();
        orders.push(order);
        self.posted.fetch_add(1, Ordering::Release);
        self.ring();
    }

    /// Says that a turn may have come.
    pub(crate) fn call(&self) {
        let _guard = self.lock();
        self.called.store(true, Ordering::Release);
        self.ring();
    }

    fn ring(&self) {
        // It can fail only by being full, and then it is readable anyway.
        let _ = self.event.write(1);
    }

    /// Orders that there have been.
    pub(super) fn posted(&self) -> u64 {
        self.posted.load(Ordering::Acquire)
    }

    /// The oldest `count` orders.
    pub(super) fn take(&self, count: u64) -> Vec<Order> {
        let mut orders = self.lock();
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(orders.len());
        orders.drain(..count).collect()
    }

    /// Whether a call is to be answered.
    pub(super) fn has_call(&self) -> bool {
        self.called.load(Ordering::Acquire)
    }

    /// Whether there was a call, which is answered now.
    pub(super) fn called(&self) -> bool {
        if !self.has_call() {
            return false;
        }
        let _guard = self.lock();
        self.called.swap(false, Ordering::Relaxed)
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
