//! What the vCPUs' accesses, the workers and the owner share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use paraslot_backends::net::{NetCounters, NetStatistics};
use paraslot_device::{Bell, Clock};
use paraslot_pci::Interrupts;
use paraslot_spec::vmxnet3::Events;

use crate::filter::Mac;
use crate::irq::Irq;
use crate::state::State;
use crate::statistics::Statistics;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything but the workers' own.
pub(crate) struct Shared {
    pub(crate) irq: Irq,
    pub(crate) statistics: Statistics,
    pub(crate) counters: NetCounters,
    /// What wakes each worker.
    bells: Box<[Bell]>,
    link: AtomicBool,
    /// The station address, its first byte in the lowest bits.
    mac: AtomicU64,
    /// Events that the first worker is to tell the driver of.
    news: AtomicU32,
    /// Interrupts that are held back, of which the first worker is to take care.
    held: AtomicU32,
    state: RwLock<State>,
}

impl Shared {
    pub(crate) fn new(
        interrupts: Arc<Interrupts>,
        clock: Arc<dyn Clock>,
        lanes: u16,
        link: bool,
    ) -> io::Result<Self> {
        let bells: io::Result<Box<[_]>> = (0..lanes).map(|_| Bell::new()).collect();
        Ok(Self {
            irq: Irq::new(interrupts, clock),
            statistics: Statistics::default(),
            counters: NetCounters::default(),
            bells: bells?,
            link: AtomicBool::new(link),
            mac: AtomicU64::new(0),
            news: AtomicU32::new(0),
            held: AtomicU32::new(0),
            state: RwLock::new(State::default()),
        })
    }

    /// The state, as it stays for a round of work.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to change it. No worker is in the middle of a round of work then: a bounded wait.
    pub(crate) fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bell of a worker.
    pub(crate) fn bell(&self, lane: usize) -> Option<&Bell> {
        self.bells.get(lane)
    }

    /// The worker that looks after a queue.
    pub(crate) fn lane_of(&self, queue: usize) -> usize {
        queue.checked_rem(self.bells.len()).unwrap_or(0)
    }

    pub(crate) fn lanes(&self) -> usize {
        self.bells.len()
    }

    /// Has the worker of a queue look.
    pub(crate) fn ring(&self, queue: usize) {
        if let Some(bell) = self.bell(self.lane_of(queue)) {
            bell.ring();
        }
    }

    /// Has all workers look.
    pub(crate) fn ring_all(&self) {
        self.bells.iter().for_each(Bell::ring);
    }

    pub(crate) fn link_up(&self) -> bool {
        self.link.load(Ordering::Acquire)
    }

    pub(crate) fn mac(&self) -> Mac {
        let [a, b, c, d, e, f, _, _] = self.mac.load(Ordering::Acquire).to_le_bytes();
        [a, b, c, d, e, f]
    }

    pub(crate) fn set_mac(&self, [a, b, c, d, e, f]: Mac) {
        self.mac.store(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), Ordering::Release);
    }

    /// Has the first worker tell the driver of events.
    pub(crate) fn announce(&self, events: Events) {
        self.news.fetch_or(events.bits(), Ordering::AcqRel);
        self.ring(0);
    }

    /// What the first worker is to tell of, without taking it.
    pub(crate) fn news(&self) -> Events {
        Events::from_bits_truncate(self.news.load(Ordering::Acquire))
    }

    /// Sets the link, of which the driver knows.
    pub(crate) fn set_link(&self, up: bool) {
        self.link.store(up, Ordering::Release);
    }

    /// What the first worker is to tell of.
    pub(crate) fn take_news(&self) -> Events {
        if self.news.load(Ordering::Relaxed) == 0 {
            return Events::empty();
        }
        Events::from_bits_truncate(self.news.swap(0, Ordering::AcqRel))
    }

    /// Has the first worker take care of interrupts that are held back.
    pub(crate) fn hold(&self, interrupts: u32) {
        if interrupts != 0 {
            self.held.fetch_or(interrupts, Ordering::AcqRel);
            self.ring(0);
        }
    }

    /// What the first worker is to take care of.
    pub(crate) fn take_held(&self) -> u32 {
        if self.held.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.held.swap(0, Ordering::AcqRel)
    }

    /// Forgets what was to be told.
    pub(crate) fn forget(&self) {
        self.news.store(0, Ordering::Release);
        self.held.store(0, Ordering::Release);
    }
}

/// The owner's hand on a [`Vmxnet3`](crate::Vmxnet3). Clones are for the same adapter; they may outlive
/// it, and then have no effect.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Shared>);

impl Control {
    /// Has the link go up or down: the driver is told by an event. While it is down nothing is
    /// received, and what the guest transmits is lost.
    pub fn set_link(&self, up: bool) {
        if self.0.link.swap(up, Ordering::AcqRel) != up {
            self.0.announce(Events::LINK);
            self.0.ring_all();
        }
    }

    /// Whether the link is up.
    pub fn link(&self) -> bool {
        self.0.link_up()
    }

    /// What has become of the frames so far, since the adapter was built.
    pub fn statistics(&self) -> NetStatistics {
        self.0.counters.get()
    }
}
