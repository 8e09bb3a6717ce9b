//! What the vCPUs' accesses, the worker, and those who change the bus share.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paraslot_device::{Bell, StateError};
use paraslot_pci::Interrupts;
use paraslot_scsi::{Address, Bus, BusEvent, Listener};
use serde::{Deserialize, Serialize};

use crate::interrupt::Irq;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What needs no lock of the engine's.
pub(crate) struct Shared {
    pub(crate) bell: Bell,
    pub(crate) irq: Irq,
    /// The driver has to take completions before there can be more: the worker wants to know when it
    /// may have done so.
    pub(crate) crowded: AtomicBool,
    news: Mutex<News>,
    /// There may be news.
    pending: AtomicBool,
}

/// What has happened on the bus and the driver has not been told of.
#[derive(Default)]
struct News {
    /// Whether it will be.
    wanted: bool,
    queue: VecDeque<Change>,
}

/// A unit came, or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) address: Address,
    pub(crate) attached: bool,
}

/// A [`Change`], saved.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeState {
    target: u8,
    lun: u16,
    attached: bool,
}

impl From<Change> for ChangeState {
    fn from(change: Change) -> Self {
        let Change { address: Address { target, lun }, attached } = change;
        Self { target, lun, attached }
    }
}

impl From<ChangeState> for Change {
    fn from(state: ChangeState) -> Self {
        let ChangeState { target, lun, attached } = state;
        Self { address: Address { target, lun }, attached }
    }
}

impl Shared {
    pub(crate) fn new(interrupts: Arc<Interrupts>) -> io::Result<Self> {
        Ok(Self {
            bell: Bell::new()?,
            irq: Irq::new(interrupts)?,
            crowded: AtomicBool::new(false),
            news: Mutex::default(),
            pending: AtomicBool::new(false),
        })
    }

    /// From now on changes are kept, or not any more. What was kept is forgotten.
    pub(crate) fn want_news(&self, wanted: bool) {
        let mut news = lock(&self.news);
        news.wanted = wanted;
        news.queue.clear();
        self.pending.store(false, Ordering::Release);
    }

    /// Whether there may be a change to be told.
    pub(crate) fn has_news(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// The changes that the driver has not been told of.
    pub(crate) fn news(&self) -> Vec<ChangeState> {
        lock(&self.news).queue.iter().map(|&change| change.into()).collect()
    }

    /// Takes over what the driver has not been told of. `bus` is as it was then.
    pub(crate) fn restore_news(
        &self,
        wanted: bool,
        saved: &[ChangeState],
        bus: &Bus,
    ) -> Result<(), StateError> {
        let limits = bus.limits();
        let mut last = BTreeMap::new();
        for &saved in saved {
            let Change { address, attached } = saved.into();
            // It came; or it went, and then perhaps another came.
            let follows = match last.insert(address, attached) {
                None => true,
                Some(before) => attached && !before,
            };
            if address.target > limits.target || address.lun > limits.lun || !follows {
                return Err(StateError::impossible("units that came and went in no order"));
            }
        }
        let now = bus.addresses();
        if !saved.is_empty() && !wanted
            || last.iter().any(|(address, attached)| now.contains(address) != *attached)
        {
            return Err(StateError::impossible("news of a unit that is not so"));
        }
        let mut news = lock(&self.news);
        news.wanted = wanted;
        news.queue = saved.iter().map(|&saved| saved.into()).collect();
        self.pending.store(!news.queue.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Takes the oldest change.
    pub(crate) fn next_news(&self) -> Option<Change> {
        let mut news = lock(&self.news);
        let change = news.queue.pop_front();
        self.pending.store(!news.queue.is_empty(), Ordering::Release);
        change
    }
}

impl News {
    /// Keeps a change. Of each address there are at most two: that the unit went, and that another
    /// came. One that came and went before anybody was told never was there.
    fn push(&mut self, change: Change) {
        if !change.attached {
            let same = |kept: &Change| kept.address == change.address;
            if let Some(last) = self.queue.iter().rposition(same)
                && self.queue.get(last).is_some_and(|kept| kept.attached)
            {
                self.queue.remove(last);
                return;
            }
        }
        self.queue.push_back(change);
    }
}

impl Listener for Shared {
    fn event(&self, address: Address, event: BusEvent) {
        let attached = match event {
            BusEvent::Attached => true,
            BusEvent::Detached => false,
            // The unit has a unit attention for it, and the adapter no message.
            BusEvent::Changed { .. } => return,
        };
        let mut news = lock(&self.news);
        if !news.wanted {
            return;
        }
        news.push(Change { address, attached });
        self.pending.store(!news.queue.is_empty(), Ordering::Release);
        drop(news);
        self.bell.ring();
    }
}

/// The owner's hand on an adapter that a host has taken over.
#[derive(Clone)]
pub struct Control(pub(crate) Bus);

impl Control {
    /// The bus whose units the adapter shows. To [`attach`](Bus::attach) or [`detach`](Bus::detach) one while
    /// the adapter is in use is to plug it in or out: a driver that has set up a message ring is told, and
    /// Linux's probes or removes it.
    ///
    /// The adapter has no message for a disk whose capacity has changed ([`Bus::resize`]): its next command
    /// ends with a unit attention. Linux passes that on to user space, and takes note of the capacity when it is
    /// told to scan the disk again.
    pub fn bus(&self) -> &Bus {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_an_address_is_bounded() {
        let mut news = News::default();
        let change = |target, attached| Change { address: Address { target, lun: 0 }, attached };
        // A unit that was there is exchanged over and over again.
        for _ in 0..100 {
            news.push(change(1, false));
            news.push(change(1, true));
            news.push(change(2, true));
            news.push(change(2, false));
        }
        assert_eq!(news.queue, [change(1, false), change(1, true)]);
        news.push(change(1, false));
        assert_eq!(news.queue, [change(1, false)]);
    }
}
