//! One device on a bench: guest memory that is watched, workers stepped by hand, time that stands
//! still until it is moved, interrupts counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use paraslot_device::{Host, IntxLine, ManualClock, ManualExecutor, MsiMessage, MsiSink};
use paraslot_pci::PciDevice;
use paraslot_spec::pci::{Command, header};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::WatchedMemory;

/// Counts interrupts of all kinds.
#[derive(Default)]
pub struct Counter {
    messages: AtomicU64,
    edges: AtomicU64,
    asserted: AtomicBool,
}

impl Counter {
    /// Messages sent so far.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Level changes of the INTx line so far.
    pub fn edges(&self) -> u64 {
        self.edges.load(Ordering::Relaxed)
    }

    /// Whether the INTx line is asserted.
    pub fn asserted(&self) -> bool {
        self.asserted.load(Ordering::Relaxed)
    }
}

impl MsiSink for Counter {
    fn update(&self, _vector: u16, _message: MsiMessage, _masked: bool) {}
    fn trigger(&self, _vector: u16) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }
    fn event(&self, _vector: u16) -> Option<EventFd> {
        None
    }
}

impl IntxLine for Counter {
    fn set_level(&self, asserted: bool) {
        self.edges.fetch_add(1, Ordering::Relaxed);
        self.asserted.store(asserted, Ordering::Relaxed);
    }
}

/// Where the bench puts BAR `n`: at this address times `n` plus one. The device never sees it.
const BAR_BASE: u32 = 0x1000_0000;

/// The device and all it was given.
pub struct Bench {
    /// Guest memory.
    pub memory: Arc<WatchedMemory>,
    /// Runs the workers when told to.
    pub executor: ManualExecutor,
    /// The device's time.
    pub clock: ManualClock,
    /// Where its interrupts go.
    pub interrupts: Arc<Counter>,
    /// The device.
    pub device: Box<dyn PciDevice>,
}

impl Bench {
    /// Makes guest memory of `memory` bytes and has `make` build a device for it, which knows no time.
    pub fn new<D: PciDevice + 'static>(
        memory: usize,
        make: impl FnOnce(Host<Arc<WatchedMemory>>) -> D,
    ) -> Self {
        Self::timed(memory, |host, _| make(host))
    }

    /// The same for a device that is to be given the time.
    pub fn timed<D: PciDevice + 'static>(
        memory: usize,
        make: impl FnOnce(Host<Arc<WatchedMemory>>, ManualClock) -> D,
    ) -> Self {
        let memory = Arc::new(WatchedMemory::new(memory));
        let executor = ManualExecutor::new();
        let clock = ManualClock::new();
        let interrupts = Arc::new(Counter::default());
        let host = Host {
            memory: memory.clone(),
            msi: interrupts.clone(),
            intx: interrupts.clone(),
            executor: Arc::new(executor.clone()),
        };
        let device = make(host, clock.clone());
        Self { memory, executor, clock, interrupts, device: Box::new(device) }
    }

    /// Assigns the BARs and turns on memory decoding and bus mastering, as firmware and a driver do.
    pub fn enable(&mut self) {
        for index in 0..6u8 {
            let offset = header::BAR0 + 4 * u16::from(index);
            let base = BAR_BASE * (u32::from(index) + 1);
            self.device.config_write(offset, &base.to_le_bytes());
        }
        // Upper halves of 64-bit BARs were written as if they were BARs of their own.
        for index in 0..6 {
            let bars = self.device.layout().bars;
            let wide = bars[index].is_some_and(|bar| bar.kind == paraslot_pci::BarKind::Memory64);
            if wide {
                let offset = header::BAR0 + 4 * u16::try_from(index + 1).expect("small");
                self.device.config_write(offset, &[0; 4]);
            }
        }
        let command = Command::MEMORY | Command::IO | Command::BUS_MASTER;
        self.device.config_write(header::COMMAND, &command.bits().to_le_bytes());
    }

    /// Reads 32 bits of a BAR.
    pub fn read32(&mut self, bar: u8, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.device.bar_read(bar, offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes 32 bits of a BAR.
    pub fn write32(&mut self, bar: u8, offset: u64, value: u32) {
        self.device.bar_write(bar, offset, &value.to_le_bytes());
    }

    /// Writes guest memory, as the guest: not counted. Bytes that do not fit are dropped.
    pub fn poke(&self, address: u64, data: &[u8]) {
        let _ = self.memory.inner().write(data, GuestAddress(address));
    }

    /// Reads guest memory, as the guest. Bytes that are not there read as zeroes.
    pub fn peek(&self, address: u64, data: &mut [u8]) {
        data.fill(0);
        let _ = self.memory.inner().read(data, GuestAddress(address));
    }
}
