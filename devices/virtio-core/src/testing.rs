//! A driver's side of a queue, for the tests of devices and transports.
//!
//! Unlike a real driver, [`DriverRing`] can also do everything wrong. It panics when the memory that
//! it was given is too small; that is the test author's mistake.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use paraslot_device::{BusMaster, Dma, DmaSpace, Interrupt};
use paraslot_spec::virtio::{feature, split};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::{FromZeros, IntoBytes};

use crate::{Queue, QueueConfig, TransportSignals};

#[cfg(test)]
pub(crate) mod logged;

/// Counts how often it was triggered.
#[derive(Debug, Default)]
pub struct CountingInterrupt(AtomicUsize);

impl CountingInterrupt {
    /// Times it was triggered.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Interrupt for CountingInterrupt {
    fn trigger(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts what a device or queue signals.
#[derive(Debug, Default)]
pub struct CountingSignals {
    config_changes: AtomicUsize,
    resets: AtomicUsize,
}

impl CountingSignals {
    /// Times the configuration was said to have changed.
    pub fn config_changes(&self) -> usize {
        self.config_changes.load(Ordering::SeqCst)
    }

    /// Times a reset was asked for.
    pub fn resets(&self) -> usize {
        self.resets.load(Ordering::SeqCst)
    }
}

impl TransportSignals for CountingSignals {
    fn config_changed(&self) {
        self.config_changes.fetch_add(1, Ordering::SeqCst);
    }

    fn needs_reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
}

/// A buffer of a chain to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest physical address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// Whether the device writes it; else it reads it.
    pub writable: bool,
}

impl Buffer {
    /// A buffer that the device reads.
    pub fn readable(address: u64, len: u32) -> Self {
        Self { address, len, writable: false }
    }

    /// A buffer that the device writes.
    pub fn writable(address: u64, len: u32) -> Self {
        Self { address, len, writable: true }
    }

    fn flags(&self) -> u16 {
        if self.writable { split::DESC_F_WRITE } else { 0 }
    }
}

/// A device's side made by [`DriverRing::queue`], with everything that it talks to.
pub struct TestQueue<A: DmaSpace> {
    /// The queue. Its doorbell is a clone of `doorbell`.
    pub queue: Queue<A>,
    /// What it raises.
    pub interrupt: Arc<CountingInterrupt>,
    /// What it signals.
    pub signals: Arc<CountingSignals>,
    /// What wakes it.
    pub doorbell: EventFd,
    /// Its bus-master gate, on.
    pub bus_master: BusMaster,
}

/// A split queue in guest memory, seen from the driver.
#[derive(Debug)]
pub struct DriverRing<A> {
    space: A,
    size: u16,
    base: u64,
    avail_idx: u16,
    last_used: u16,
    free: Vec<u16>,
    chains: HashMap<u16, Vec<u16>>,
}

impl<A: DmaSpace> DriverRing<A> {
    /// An empty ring of `size` entries (a power of two) at `base` (a multiple of 16), all zeroes.
    pub fn new(space: A, base: u64, size: u16) -> Self {
        let ring = Self {
            space,
            size,
            base,
            avail_idx: 0,
            last_used: 0,
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
        };
        let len = usize::try_from(ring.end() - base).unwrap();
        ring.write(base, &vec![0; len]);
        ring
    }

    /// Address of the descriptor table.
    pub fn descriptor_table(&self) -> u64 {
        self.base
    }

    /// Address of the available ring.
    pub fn avail_ring(&self) -> u64 {
        self.base + split::descriptor_table_len(self.size) as u64
    }

    /// Address of the used ring.
    pub fn used_ring(&self) -> u64 {
        (self.avail_ring() + split::avail_ring_len(self.size) as u64)
            .next_multiple_of(split::USED_ALIGN)
    }

    /// First address after the rings.
    pub fn end(&self) -> u64 {
        self.used_ring() + split::used_ring_len(self.size) as u64
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// What the driver tells the device of the ring.
    pub fn config(&self, features: u64) -> QueueConfig {
        QueueConfig {
            size: self.size,
            descriptor_table: self.descriptor_table(),
            avail_ring: self.avail_ring(),
            used_ring: self.used_ring(),
            features: features | feature::VERSION_1,
        }
    }

    /// The device's side, with bus mastering on.
    pub fn queue(&self, features: u64) -> TestQueue<A> {
        let interrupt = Arc::new(CountingInterrupt::default());
        let signals = Arc::new(CountingSignals::default());
        let doorbell = EventFd::new(EFD_NONBLOCK).unwrap();
        let bus_master = BusMaster::default();
        bus_master.set(true);
        let dma = Dma::new(self.space.clone(), bus_master.clone());
        let queue = Queue::new(
            self.config(features),
            dma,
            interrupt.clone(),
            doorbell.try_clone().unwrap(),
            signals.clone(),
        );
        TestQueue { queue, interrupt, signals, doorbell, bus_master }
    }

    /// Writes to guest memory.
    pub fn write(&self, address: u64, data: &[u8]) {
        self.space.memory().write_slice(data, GuestAddress(address)).unwrap();
    }

    /// Reads from guest memory.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.space.memory().read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }

    fn load16(&self, address: u64) -> u16 {
        let memory = self.space.memory();
        memory.load::<u16>(GuestAddress(address), Ordering::SeqCst).map(u16::from_le).unwrap()
    }

    fn store16(&self, address: u64, value: u16) {
        let memory = self.space.memory();
        memory.store(value.to_le(), GuestAddress(address), Ordering::SeqCst).unwrap();
    }

    /// Makes a chain available and publishes it; returns its head.
    ///
    /// # Panics
    /// When there are not enough free descriptors, or `buffers` is empty.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let at = self.free.len().checked_sub(buffers.len()).expect("descriptors left");
        let taken: Vec<u16> = self.free.drain(at..).rev().collect();
        for (position, (buffer, index)) in buffers.iter().zip(&taken).enumerate() {
            let next = taken.get(position + 1).copied();
            let flags = buffer.flags() | next.map_or(0, |_| split::DESC_F_NEXT);
            self.set_descriptor(*index, buffer.address, buffer.len, flags, next.unwrap_or(0));
        }
        let head = *taken.first().expect("a buffer");
        self.chains.insert(head, taken);
        self.publish(head);
        head
    }

    /// Makes a chain available by way of a table at `table`, which has 16 bytes for each buffer.
    ///
    /// # Panics
    /// When there is no free descriptor.
    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        self.set_table(table, buffers);
        let head = self.free.pop().expect("a descriptor left");
        let len = u32::try_from(buffers.len() * 16).unwrap();
        self.set_descriptor(head, table, len, split::DESC_F_INDIRECT, 0);
        self.chains.insert(head, vec![head]);
        self.publish(head);
        head
    }

    /// Fills an indirect table.
    pub fn set_table(&self, table: u64, buffers: &[Buffer]) {
        for (index, buffer) in (0u16..).zip(buffers) {
            let last = usize::from(index) + 1 == buffers.len();
            let flags = buffer.flags() | if last { 0 } else { split::DESC_F_NEXT };
            let next = if last { 0 } else { index + 1 };
            self.set_entry(table, index, buffer.address, buffer.len, flags, next);
        }
    }

    /// Fills one descriptor of the ring.
    pub fn set_descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.set_entry(self.descriptor_table(), index, address, len, flags, next);
    }

    /// Fills one descriptor of any table.
    pub fn set_entry(&self, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let descriptor = split::Descriptor {
            addr: address.into(),
            len: len.into(),
            flags: flags.into(),
            next: next.into(),
        };
        self.write(table + 16 * u64::from(index), descriptor.as_bytes());
    }

    /// Puts a head, valid or not, into the available ring and publishes it.
    pub fn publish(&mut self, head: u16) {
        let slot = u64::from(self.avail_idx % self.size);
        self.store16(self.avail_ring() + 4 + 2 * slot, head);
        self.set_avail_idx(self.avail_idx.wrapping_add(1));
    }

    /// Sets the available index, right or wrong.
    pub fn set_avail_idx(&mut self, idx: u16) {
        self.avail_idx = idx;
        self.store16(self.avail_ring() + 2, idx);
    }

    /// Sets the flags of the available ring.
    pub fn set_avail_flags(&self, flags: u16) {
        self.store16(self.avail_ring(), flags);
    }

    /// Sets used_event, for EVENT_IDX.
    pub fn set_used_event(&self, idx: u16) {
        self.store16(self.avail_ring() + 4 + 2 * u64::from(self.size), idx);
    }

    /// The device's used index.
    pub fn used_idx(&self) -> u16 {
        self.load16(self.used_ring() + 2)
    }

    /// The flags of the used ring.
    pub fn used_flags(&self) -> u16 {
        self.load16(self.used_ring())
    }

    /// The device's avail_event, for EVENT_IDX.
    pub fn avail_event(&self) -> u16 {
        self.load16(self.used_ring() + 4 + 8 * u64::from(self.size))
    }

    /// The next chain that the device has given back (head, bytes written), if any. Its descriptors
    /// are free again.
    pub fn used(&mut self) -> Option<(u16, u32)> {
        if self.used_idx() == self.last_used {
            return None;
        }
        let slot = u64::from(self.last_used % self.size);
        let bytes = self.read(self.used_ring() + 4 + 8 * slot, 8);
        let mut element = split::UsedElem::new_zeroed();
        element.as_mut_bytes().copy_from_slice(&bytes);
        self.last_used = self.last_used.wrapping_add(1);
        let head = u16::try_from(element.id.get()).unwrap();
        self.free.extend(self.chains.remove(&head).into_iter().flatten().rev());
        Some((head, element.len.get()))
    }
}
