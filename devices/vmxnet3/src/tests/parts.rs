//! What the machine of the tests is made of.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use paraslot_device::{IntxLine, MsiMessage, MsiSink};
use paraslot_spec::vmxnet3::*;
use vmm_sys_util::eventfd::EventFd;

use super::BUFFER;

/// Messages and line.
#[derive(Default)]
pub(super) struct Board {
    pub(super) sent: Mutex<Vec<u16>>,
    pub(super) level: AtomicBool,
    pub(super) rises: AtomicUsize,
}

impl MsiSink for Board {
    fn update(&self, _vector: u16, _message: MsiMessage, _masked: bool) {}

    fn trigger(&self, vector: u16) {
        self.sent.lock().unwrap().push(vector);
    }

    fn event(&self, _vector: u16) -> Option<EventFd> {
        None
    }
}

impl IntxLine for Board {
    fn set_level(&self, asserted: bool) {
        self.level.store(asserted, Ordering::SeqCst);
        self.rises.fetch_add(usize::from(asserted), Ordering::SeqCst);
    }
}

/// One ring as a driver keeps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) base: u64,
    pub(super) size: u32,
    pub(super) next: u32,
    pub(super) lap: bool,
}

impl Side {
    pub(super) fn new(base: u64, size: u32) -> Self {
        Self { base, size, next: 0, lap: true }
    }

    pub(super) fn at(&self) -> u64 {
        self.base + 16 * u64::from(self.next)
    }

    pub(super) fn step(&mut self) {
        self.next += 1;
        if self.next == self.size {
            self.next = 0;
            self.lap = !self.lap;
        }
    }
}

/// What a driver sets up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) tx: usize,
    pub(super) rx: usize,
    pub(super) features: Features,
    pub(super) mode: RxMode,
    pub(super) mtu: u32,
    pub(super) revision: u32,
    pub(super) messages: bool,
    pub(super) level: u8,
    pub(super) auto_mask: bool,
    /// Bytes of an entry of the receive data rings.
    pub(super) data_ring: u16,
    pub(super) most_buffers: u16,
    /// The first ring has so many body buffers behind each head buffer.
    pub(super) bodies: u32,
    /// Bytes of buffers.
    pub(super) buffer: u32,
    pub(super) express: bool,
    pub(super) queues: u16,
    pub(super) link: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            tx: 1,
            rx: 1,
            features: Features::RXCSUM,
            mode: RxMode::UCAST | RxMode::BCAST,
            mtu: 1500,
            revision: REVISION_3,
            messages: true,
            level: IML_NONE,
            auto_mask: true,
            data_ring: 0,
            most_buffers: 18,
            bodies: 0,
            buffer: BUFFER as u32,
            express: true,
            queues: 1,
            link: true,
        }
    }
}

/// A packet that the guest was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) bytes: Vec<u8>,
    /// All of its completions.
    pub(super) completions: Vec<RxCompDesc>,
}

impl Got {
    pub(super) fn first(&self) -> RxCompDesc {
        self.completions[0]
    }

    pub(super) fn last(&self) -> RxCompDesc {
        self.completions[self.completions.len() - 1]
    }

    /// What the last completion says the packet is.
    pub(super) fn flags(&self) -> u32 {
        self.last().flags.get() & 0x00ff_0000
    }
}
