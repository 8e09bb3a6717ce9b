//! What the driver has set up.

use std::mem::offset_of;
use std::sync::Mutex;

use paraslot_backends::net::Offloads;
use paraslot_device::{DmaSpace, Memory};
use paraslot_spec::vmxnet3::{DriverShared, Events, Features, MAX_INTRS};
use vm_memory::{Bytes, GuestAddress};

use crate::filter::Filter;
use crate::irq::{Irq, Policy, Scheme, Work};
use crate::receive::RxQueue;
use crate::rss::Rss;
use crate::shared::lock;
use crate::transmit::TxQueue;

/// What the workers look at for each round of work. While a worker works it holds the lock for
/// reading, so a command is carried out between rounds, and nothing of what was before is under way
/// when it is done.
#[derive(Default)]
pub(crate) struct State {
    /// `None` while the device is not active.
    pub(crate) active: Option<Active>,
}

/// An active device.
pub(crate) struct Active {
    /// Tells this activation from all others.
    pub(crate) epoch: u64,
    /// Where `DriverShared` is.
    pub(crate) shared: u64,
    /// Where the queue descriptors are.
    pub(crate) queues: u64,
    /// The revision that the driver has selected: its bit of VRRS.
    pub(crate) revision: u32,
    pub(crate) features: Features,
    /// Bytes of the longest frame that has not been put together of several.
    pub(crate) longest: usize,
    /// Most buffers of a received packet that has.
    pub(crate) most_buffers: usize,
    /// The interrupt of events.
    pub(crate) event_intr: u8,
    /// The interrupts' moderation levels.
    pub(crate) levels: [Policy; MAX_INTRS],
    pub(crate) scheme: Scheme,
    pub(crate) filter: Filter,
    pub(crate) rss: Option<Rss>,
    pub(crate) tx: Box<[Mutex<TxQueue>]>,
    pub(crate) rx: Box<[Mutex<RxQueue>]>,
    /// ECR.
    pub(crate) events: Mutex<Events>,
}

impl Active {
    /// How each interrupt is moderated.
    pub(crate) fn policies(&self) -> [Policy; MAX_INTRS] {
        self.levels.map(|level| self.scheme.policy(level))
    }

    /// Whether received frames may be several segments' worth: if the driver asks for that, and goes by
    /// what it is told of checksums. The one in such a frame is not filled in, for nobody has cut it.
    pub(crate) fn takes_large(&self) -> bool {
        self.features.contains(Features::LRO | Features::RXCSUM)
    }

    /// What a received frame may have left to be done.
    pub(crate) fn offloads(&self) -> Offloads {
        if self.takes_large() {
            Offloads::CHECKSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN
        } else {
            Offloads::empty()
        }
    }

    /// Whether received frames that find no buffer wait for one: when they could not go to any other
    /// queue.
    pub(crate) fn waits_for_buffers(&self) -> bool {
        self.rss.is_none() || self.rx.len() <= 1
    }

    /// Tells the driver that something has happened.
    pub(crate) fn tell<A: DmaSpace>(&self, memory: &Memory<A>, irq: &Irq, events: Events) -> bool {
        let mut set = lock(&self.events);
        *set |= events;
        self.write_events(memory, *set);
        irq.raise(self.event_intr, Work { urgent: true, ..Work::default() })
    }

    /// The driver has seen events.
    pub(crate) fn acknowledge<A: DmaSpace>(&self, memory: &Memory<A>, events: Events) {
        let mut set = lock(&self.events);
        set.remove(events);
        self.write_events(memory, *set);
    }

    fn write_events<A: DmaSpace>(&self, memory: &Memory<A>, events: Events) {
        let place = self.shared.wrapping_add(offset_of!(DriverShared, ecr) as u64);
        // What is not memory any more tells nobody anything.
        let _ = memory.write_slice(&events.bits().to_le_bytes(), GuestAddress(place));
    }
}
