//! A virtio device for unit tests, which does what a test says, by the rules or against them, and the
//! machine it is in.

extern crate std;

use core::cell::RefCell;
use core::ops::Range;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use paraslot_protocol::Phase;

use crate::testing::Fake;
use crate::{Bdf, DmaRegion, MsiMessage, Platform};

const BAR: u64 = 0xe000_0000;
const COMMON: u64 = 0;
const CONFIG: u64 = 0x1000;
const NOTIFY: u64 = 0x2000;
const MSIX: u64 = 0x3000;
const BAR_SIZE: u64 = 0x4000;

/// What a queue was set up with, and how far the device is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) size: u16,
    pub(crate) vector: u16,
    pub(crate) enabled: bool,
    desc: u64,
    avail: u64,
    used: u64,
    next_avail: u16,
    next_used: u16,
}

/// A buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) write: bool,
}

/// A chain that the driver has made available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) indirect: bool,
}

/// The transport's side of the device.
pub(crate) struct Device {
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) config: Vec<u8>,
    /// Entries that queues have after a reset.
    pub(crate) size: u16,
    pub(crate) vectors: u16,
    pub(crate) queues: Vec<Queue>,
    pub(crate) status: u8,
    pub(crate) notified: Vec<u16>,
    pub(crate) config_vector: u16,
    table: BTreeMap<u64, u32>,
    select: u32,
    feature_select: [u32; 2],
}

/// The machine, and what is behind the transport.
pub(crate) struct Machine<S> {
    pub(crate) fake: Fake,
    pub(crate) device: RefCell<Device>,
    pub(crate) state: RefCell<S>,
    /// What the device does whenever a driver waits for it.
    work: fn(&Self),
}

impl<S> Machine<S> {
    /// A machine with a device of `device_type` that offers `offered` and has so many queues.
    pub(crate) fn with(
        device_type: u16,
        offered: u64,
        config: Vec<u8>,
        queues: usize,
        state: S,
        work: fn(&Self),
    ) -> Self {
        let fake = Fake::new();
        fake.add(2, 0, 0);
        fake.bar(2, 0, BAR_SIZE, false, BAR);
        {
            let mut functions = fake.functions.borrow_mut();
            let words = &mut functions.get_mut(&(2, 0)).unwrap().words;
            words[0] = u32::from(0x1040 + device_type) << 16 | 0x1af4;
            words[1] = 1 << 20;
            words[0x34 / 4] = 0x40;
            let len = u32::try_from(config.len()).unwrap();
            let places = [(1, COMMON, 64), (2, NOTIFY, 0x100), (4, CONFIG, len)];
            let mut at = 0x40;
            for (kind, offset, len) in places {
                let next = if kind == 4 { 0xa0 } else { at + 0x20 };
                words[at / 4] = 0x09 | u32::try_from(next).unwrap() << 8 | 20 << 16 | kind << 24;
                words[at / 4 + 2] = u32::try_from(offset).unwrap();
                words[at / 4 + 3] = len;
                words[at / 4 + 4] = 2;
                at = next;
            }
        }
        let queue = Queue { size: 256, ..Queue::default() };
        let device = Device {
            offered,
            accepted: 0,
            config,
            size: 256,
            vectors: 0,
            queues: vec![queue; queues],
            status: 0,
            notified: Vec::new(),
            config_vector: 0,
            table: BTreeMap::new(),
            select: 0,
            feature_select: [0; 2],
        };
        let (device, state) = (RefCell::new(device), RefCell::new(state));
        let this = Self { fake, device, state, work };
        this.set_vectors(8);
        this
    }

    /// Gives it so many MSI-X vectors, or none.
    pub(crate) fn set_vectors(&self, vectors: u16) {
        self.device.borrow_mut().vectors = vectors;
        let mut functions = self.fake.functions.borrow_mut();
        let words = &mut functions.get_mut(&(2, 0)).unwrap().words;
        words[0xa0 / 4] = if vectors == 0 { 0 } else { 0x11 | u32::from(vectors - 1) << 16 };
        words[0xa0 / 4 + 1] = u32::try_from(MSIX).unwrap();
    }

    /// The message of an unmasked vector.
    pub(crate) fn message(&self, vector: u16) -> Option<u32> {
        let device = self.device.borrow();
        let entry = MSIX + 16 * u64::from(vector);
        let word = |at| device.table.get(&(entry + at)).copied().unwrap_or(0);
        (device.table.contains_key(&entry) && word(12) == 0).then(|| word(8))
    }

    /// Doorbells since the last time.
    pub(crate) fn doorbells(&self) -> Vec<u16> {
        core::mem::take(&mut self.device.borrow_mut().notified)
    }

    fn at(&self, physical: u64) -> (DmaRegion, usize) {
        self.fake.at(physical)
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let (region, offset) = self.at(address);
        let mut bytes = vec![0; len];
        region.read_bytes(offset, &mut bytes);
        bytes
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        let (region, offset) = self.at(address);
        region.write_bytes(offset, bytes);
    }

    fn read_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address, 2).try_into().unwrap())
    }

    fn descriptor(&self, address: u64) -> (Buffer, u16, u16) {
        let bytes = self.read(address, 16);
        let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        let buffer = Buffer {
            address: u64::from_le_bytes(bytes[..8].try_into().unwrap()),
            len: u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
            write: half(12) & 2 != 0,
        };
        (buffer, half(12), half(14))
    }

    /// Takes the next chain of a queue.
    pub(crate) fn next(&self, queue: usize) -> Option<Chain> {
        let state = self.device.borrow().queues[queue].clone();
        if !state.enabled || self.read_u16(state.avail + 2) == state.next_avail {
            return None;
        }
        let entry = u64::from(state.next_avail % state.size);
        let head = self.read_u16(state.avail + 4 + 2 * entry);
        {
            let mut device = self.device.borrow_mut();
            let state = &mut device.queues[queue];
            state.next_avail = state.next_avail.wrapping_add(1);
        }
        let mut chain = Chain { head, buffers: Vec::new(), indirect: false };
        let (mut table, mut index) = (state.desc, head);
        let mut entries = u32::from(state.size);
        loop {
            let (buffer, flags, next) = self.descriptor(table + 16 * u64::from(index));
            if flags & 4 != 0 {
                assert_eq!((flags, buffer.len % 16, chain.indirect), (4, 0, false));
                (table, index, chain.indirect) = (buffer.address, 0, true);
                entries = buffer.len / 16;
                continue;
            }
            assert!(u32::from(index) < entries);
            chain.buffers.push(buffer);
            if flags & 1 == 0 {
                return Some(chain);
            }
            index = next;
        }
    }

    /// Chains that the driver has made available so far.
    pub(crate) fn available(&self, queue: usize) -> u16 {
        let state = self.device.borrow().queues[queue].clone();
        self.read_u16(state.avail + 2)
    }

    /// Has the driver notify when it makes the next chain available.
    pub(crate) fn wish_notification(&self, queue: usize) {
        let state = self.device.borrow().queues[queue].clone();
        let event = state.used + 4 + 8 * u64::from(state.size);
        self.write(event, &self.available(queue).to_le_bytes());
    }

    /// Gives chains back at once, and interrupts if the driver wants that.
    pub(crate) fn give_back(&self, queue: usize, chains: &[(u32, u32)]) {
        let state = self.device.borrow().queues[queue].clone();
        let old = state.next_used;
        let mut index = old;
        for (id, len) in chains {
            let entry = state.used + 4 + 8 * u64::from(index % state.size);
            self.write(entry, &id.to_le_bytes());
            self.write(entry + 4, &len.to_le_bytes());
            index = index.wrapping_add(1);
        }
        self.write(state.used + 2, &index.to_le_bytes());
        self.device.borrow_mut().queues[queue].next_used = index;
        let event_idx = self.device.borrow().accepted & 1 << 29 != 0;
        let wanted = match event_idx {
            true => {
                let event = self.read_u16(state.avail + 4 + 2 * u64::from(state.size));
                usize::from(event.wrapping_sub(old)) < chains.len()
            }
            false => self.read_u16(state.avail) & 1 == 0,
        };
        if wanted && state.vector != u16::MAX {
            self.fake.interrupts.set(self.fake.interrupts.get() + 1);
        }
    }
}

impl Device {
    fn queue(&mut self) -> &mut Queue {
        let index = self.select as usize;
        if index >= self.queues.len() {
            self.queues.push(Queue::default());
            return self.queues.last_mut().unwrap();
        }
        &mut self.queues[index]
    }

    fn read_register(&mut self, offset: u64, len: usize) -> u64 {
        if (CONFIG..CONFIG + self.config.len() as u64).contains(&offset) {
            let at = usize::try_from(offset - CONFIG).unwrap();
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(&self.config[at..at + len]);
            return u64::from_le_bytes(bytes);
        }
        let half = |word: u64, select: u32| word >> (32 * select) & 0xffff_ffff;
        match offset {
            0x04 => half(self.offered, self.feature_select[0]),
            0x0c => half(self.accepted, self.feature_select[1]),
            0x10 => self.config_vector.into(),
            0x12 => self.queues.len() as u64,
            0x14 => self.status.into(),
            0x15 => 0,
            0x18 => self.queue().size.into(),
            0x1a => self.queue().vector.into(),
            0x1c => self.queue().enabled.into(),
            0x1e => self.select.into(),
            0x3a => 0,
            _ => panic!("a read of {offset:#x}"),
        }
    }

    fn write_register(&mut self, offset: u64, value: u32, len: usize) {
        let half = u16::try_from(value & 0xffff).unwrap();
        match offset {
            0x00 => self.feature_select[0] = value,
            0x08 => self.feature_select[1] = value,
            0x0c => {
                let shift = 32 * self.feature_select[1];
                self.accepted = self.accepted & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            0x10 => self.config_vector = half,
            0x14 => {
                self.status = value.to_le_bytes()[0];
                if value == 0 {
                    self.accepted = 0;
                    for queue in &mut self.queues {
                        *queue = Queue { size: self.size, ..Queue::default() };
                    }
                }
            }
            0x16 => self.select = value,
            0x18 => self.queue().size = half,
            0x1a => self.queue().vector = half,
            0x1c => self.queue().enabled = true,
            0x20..0x38 => {
                let field = match offset & !7 {
                    0x20 => &mut self.queue().desc,
                    0x28 => &mut self.queue().avail,
                    _ => &mut self.queue().used,
                };
                let shift = if offset & 4 == 0 { 0 } else { 32 };
                *field = *field & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            0x3a => {
                let size = self.queue().size;
                *self.queue() = Queue { size, ..Queue::default() };
            }
            CONFIG..NOTIFY => {
                let at = usize::try_from(offset - CONFIG).unwrap();
                self.config[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            }
            NOTIFY..MSIX => {
                assert_eq!((len, NOTIFY + 2 * u64::from(value)), (2, offset));
                self.notified.push(half);
            }
            MSIX.. => {
                self.table.insert(offset, value);
            }
            _ => panic!("a write to {offset:#x}"),
        }
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, address: u64) -> $type {
            let value = self.device.borrow_mut().read_register(address - BAR, size_of::<$type>());
            <$type>::try_from(value).unwrap()
        }
        fn $write(&self, address: u64, value: $type) {
            let (offset, len) = (address - BAR, size_of::<$type>());
            self.device.borrow_mut().write_register(offset, value.into(), len);
        }
    };
}

impl<S> Platform for Machine<S> {
    fn config_read(&self, function: Bdf, offset: u16) -> u32 {
        self.fake.config_read(function, offset)
    }
    fn config_write(&self, function: Bdf, offset: u16, value: u32) {
        self.fake.config_write(function, offset, value);
    }
    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
    fn bar_space(&self) -> Range<u64> {
        self.fake.bar_space()
    }
    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        self.fake.allocate(len)
    }
    fn tsc(&self) -> u64 {
        self.fake.tsc()
    }
    fn tsc_hz(&self) -> u64 {
        self.fake.tsc_hz()
    }
    fn relax(&self) {
        self.fake.pass(1000);
        (self.work)(self);
    }
    fn interrupt_message(&self, index: u8) -> MsiMessage {
        self.fake.interrupt_message(index)
    }
    fn interrupts_taken(&self, index: u8) -> u64 {
        self.fake.interrupts_taken(index)
    }
    fn wait_for_interrupt(&self, index: u8, seen: u64) {
        self.fake.wait_for_interrupt(index, seen);
    }
    fn phase(&self, phase: Phase) {
        self.fake.phase(phase);
    }
}
