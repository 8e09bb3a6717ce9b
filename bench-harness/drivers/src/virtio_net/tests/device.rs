//! A device that does what a test says, by the rules or against them, and the machine it is in.

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
pub(super) struct Queue {
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    desc: u64,
    avail: u64,
    used: u64,
    next_avail: u16,
    next_used: u16,
}

/// A buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) write: bool,
}

/// A chain that the driver has made available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) head: u16,
    pub(super) buffers: Vec<Buffer>,
    pub(super) indirect: bool,
}

/// What the device answers to control commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This, and so many bytes written besides.
    Ack(u8, u32),
    Nothing,
}

pub(super) struct Device {
    pub(super) offered: u64,
    pub(super) accepted: u64,
    pub(super) config: [u8; 28],
    pub(super) vectors: u16,
    pub(super) queues: Vec<Queue>,
    pub(super) status: u8,
    pub(super) answer: Answer,
    /// What commands read, and what they had room for.
    pub(super) commands: Vec<(Vec<u8>, usize)>,
    pub(super) notified: Vec<u16>,
    pub(super) config_vector: u16,
    table: BTreeMap<u64, u32>,
    select: u32,
    feature_select: [u32; 2],
}

/// The machine.
pub(super) struct Machine {
    pub(super) fake: Fake,
    pub(super) device: RefCell<Device>,
}

impl Machine {
    /// A machine with a device that offers `offered` and has queues for so many pairs.
    pub(super) fn new(offered: u64, pairs: u16) -> Self {
        let fake = Fake::new();
        fake.add(2, 0, 0);
        fake.bar(2, 0, BAR_SIZE, false, BAR);
        {
            let mut functions = fake.functions.borrow_mut();
            let words = &mut functions.get_mut(&(2, 0)).unwrap().words;
            words[0] = 0x1041_1af4;
            words[1] = 1 << 20;
            words[0x34 / 4] = 0x40;
            let places = [(1, COMMON, 64), (2, NOTIFY, 0x100), (4, CONFIG, 28)];
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
        let mut config = [0; 28];
        config[..6].copy_from_slice(&[0x52, 0x54, 0, 1, 2, 3]);
        config[6..8].copy_from_slice(&1_u16.to_le_bytes());
        config[8..10].copy_from_slice(&pairs.to_le_bytes());
        config[10..12].copy_from_slice(&1500_u16.to_le_bytes());
        let queue = Queue { size: 256, ..Queue::default() };
        let device = Device {
            offered,
            accepted: 0,
            config,
            vectors: 0,
            queues: vec![queue; 2 * usize::from(pairs) + 1],
            status: 0,
            answer: Answer::Ack(0, 0),
            commands: Vec::new(),
            notified: Vec::new(),
            config_vector: 0,
            table: BTreeMap::new(),
            select: 0,
            feature_select: [0; 2],
        };
        let this = Self { fake, device: RefCell::new(device) };
        this.set_vectors(8);
        this
    }

    /// Gives it so many MSI-X vectors, or none.
    pub(super) fn set_vectors(&self, vectors: u16) {
        self.device.borrow_mut().vectors = vectors;
        let mut functions = self.fake.functions.borrow_mut();
        let words = &mut functions.get_mut(&(2, 0)).unwrap().words;
        words[0xa0 / 4] = if vectors == 0 { 0 } else { 0x11 | u32::from(vectors - 1) << 16 };
        words[0xa0 / 4 + 1] = u32::try_from(MSIX).unwrap();
    }

    /// The message of an unmasked vector.
    pub(super) fn message(&self, vector: u16) -> Option<u32> {
        let device = self.device.borrow();
        let entry = MSIX + 16 * u64::from(vector);
        let word = |at| device.table.get(&(entry + at)).copied().unwrap_or(0);
        (device.table.contains_key(&entry) && word(12) == 0).then(|| word(8))
    }

    /// Doorbells since the last time.
    pub(super) fn doorbells(&self) -> Vec<u16> {
        core::mem::take(&mut self.device.borrow_mut().notified)
    }

    fn at(&self, physical: u64) -> (DmaRegion, usize) {
        self.fake.at(physical)
    }

    pub(super) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let (region, offset) = self.at(address);
        let mut bytes = vec![0; len];
        region.read_bytes(offset, &mut bytes);
        bytes
    }

    fn write(&self, address: u64, bytes: &[u8]) {
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
    pub(super) fn next(&self, queue: usize) -> Option<Chain> {
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
        loop {
            let (buffer, flags, next) = self.descriptor(table + 16 * u64::from(index));
            if flags & 4 != 0 {
                assert_eq!((flags, buffer.len), (4, 32));
                (table, index, chain.indirect) = (buffer.address, 0, true);
                continue;
            }
            chain.buffers.push(buffer);
            if flags & 1 == 0 {
                return Some(chain);
            }
            index = next;
        }
    }

    /// Chains that the driver has made available so far.
    pub(super) fn available(&self, queue: usize) -> u16 {
        let state = self.device.borrow().queues[queue].clone();
        self.read_u16(state.avail + 2)
    }

    /// Has the driver notify when it makes the next chain available.
    pub(super) fn wish_notification(&self, queue: usize) {
        let state = self.device.borrow().queues[queue].clone();
        let event = state.used + 4 + 8 * u64::from(state.size);
        self.write(event, &self.available(queue).to_le_bytes());
    }

    /// Gives chains back at once, and interrupts if the driver wants that.
    pub(super) fn give_back(&self, queue: usize, chains: &[(u32, u32)]) {
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
                (old..).take(chains.len()).any(|index| index == event)
            }
            false => self.read_u16(state.avail) & 1 == 0,
        };
        if wanted && state.vector != u16::MAX {
            self.fake.interrupts.set(self.fake.interrupts.get() + 1);
        }
    }

    /// Takes everything off a transmit queue: header and frame in one, without having it back.
    pub(super) fn take_frames(&self, queue: usize) -> Vec<(Chain, Vec<u8>)> {
        let chains = core::iter::from_fn(|| self.next(queue));
        chains
            .map(|chain| {
                assert!(chain.buffers.iter().all(|buffer| !buffer.write));
                let bytes = |buffer: &Buffer| self.read(buffer.address, buffer.len as usize);
                let bytes = chain.buffers.iter().flat_map(bytes).collect();
                (chain, bytes)
            })
            .collect()
    }

    /// Puts bytes, header included, into receive buffers, and gives back what `lie` makes of the IDs
    /// and lengths.
    pub(super) fn deliver(
        &self,
        queue: usize,
        bytes: &[u8],
        lie: impl FnOnce(&mut Vec<(u32, u32)>),
    ) {
        let mut used = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let chain = self.next(queue).expect("there are buffers");
            let [buffer] = chain.buffers[..] else { panic!("a buffer of several parts") };
            assert!(buffer.write);
            let (now, later) = rest.split_at(rest.len().min(buffer.len as usize));
            self.write(buffer.address, now);
            used.push((u32::from(chain.head), u32::try_from(now.len()).unwrap()));
            rest = later;
        }
        lie(&mut used);
        self.give_back(queue, &used);
    }

    /// Does what the control queue asks for.
    pub(super) fn control(&self) {
        let queue = self.device.borrow().queues.len() - 1;
        while let Some(chain) = self.next(queue) {
            let (out, room): (Vec<&Buffer>, Vec<&Buffer>) =
                chain.buffers.iter().partition(|buffer| !buffer.write);
            let command: Vec<u8> = out
                .iter()
                .flat_map(|buffer| self.read(buffer.address, buffer.len as usize))
                .collect();
            let len: u32 = room.iter().map(|buffer| buffer.len).sum();
            let fill = len as usize - 1;
            self.device.borrow_mut().commands.push((command, fill));
            let Answer::Ack(ack, more) = self.device.borrow().answer else { continue };
            if let [first, _] = room[..] {
                let bytes: Vec<u8> = (1..=8).collect();
                self.write(first.address, &bytes[..fill]);
            }
            let last = room.last().unwrap();
            self.write(last.address + u64::from(last.len) - 1, &[ack]);
            self.give_back(queue, &[(u32::from(chain.head), len + more)]);
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
        if (CONFIG..CONFIG + 28).contains(&offset) {
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
                        *queue = Queue { size: 256, ..Queue::default() };
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

impl Platform for Machine {
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
        self.control();
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
