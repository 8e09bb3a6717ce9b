//! A vmxnet3 adapter after what Linux's driver expects of one, as much of it as this driver uses. It
//! does nothing of its own accord.

extern crate std;

use core::cell::{Cell, RefCell};
use core::mem::offset_of;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use paraslot_spec::vmxnet3::{
    COMP_GEN, CoalesceScheme, DriverShared, Events, LINK_SPEED_SHIFT, LINK_UP, MAX_INTRS,
    REV1_MAGIC, RSSConf, RxQueueDesc, TxQueueDesc, command, completion, interrupt, rcd, registers,
    rxd, txd,
};
use zerocopy::FromBytes;

use crate::DmaRegion;
use crate::testing::{Fake, Registers};

/// Where its registers are, and its MSI-X table.
pub(super) const PT: u64 = 0xe000_0000;
pub(super) const VD: u64 = 0xe000_1000;
pub(super) const TABLE: u64 = 0xe000_2000;
pub(super) const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

/// What it can do wrong, or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// Every register reads as ones.
    Gone,
    /// It knows no revision.
    NoRevision,
    /// It knows no version of UPT.
    NoUpt,
    /// It has a group's address.
    GroupAddress,
    /// It has no address.
    NoAddress,
    /// It does not start.
    Refuses,
    /// It does not coalesce as it is told.
    Coalesces,
    /// It does not stop.
    Runs,
    /// The link stays down.
    NoLink,
}

/// An access to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Of a doorbell or a mask.
    ReadPt(u64),
    WritePt(u64, u32),
    /// Of another.
    ReadVd(u64),
    WriteVd(u64, u32),
}

/// A transmit descriptor's address, length word and flags.
pub(super) type Descriptor = (u64, u32, u32);

/// A packet as it came off the ring.
#[derive(Clone, Debug, Default)]
pub(super) struct Packet {
    pub(super) descriptors: Vec<Descriptor>,
    pub(super) bytes: Vec<u8>,
    /// The index of its last descriptor.
    pub(super) last: u32,
}

/// A place on a ring: the index, and how often it went round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) index: u32,
    laps: u32,
}

impl Place {
    pub(super) fn lap(self) -> bool {
        self.laps.is_multiple_of(2)
    }

    fn advance(&mut self, size: u32) {
        self.index += 1;
        if self.index == size {
            *self = Self { index: 0, laps: self.laps + 1 };
        }
    }
}

/// What is in a buffer that is completed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Words {
    pub(super) index: u32,
    pub(super) hash: u32,
    pub(super) len: u32,
    pub(super) flags: u32,
}

#[derive(Default)]
struct Places {
    transmit: Place,
    transmitted: Place,
    rings: [[Place; 2]; 8],
    received: [Place; 8],
}

pub(super) struct Model {
    pub(super) fault: Cell<Fault>,
    /// Revisions offered.
    pub(super) revisions: Cell<u32>,
    pub(super) revision: Cell<u32>,
    /// What GET_CONF_INTR and GET_TXDATA_DESC_SIZE answer.
    pub(super) conf_intr: Cell<u32>,
    pub(super) data_size: Cell<u32>,
    /// What it sets as it starts.
    pub(super) threshold: Cell<u32>,
    pub(super) update_rx_prod: Cell<bool>,
    pub(super) registers: RefCell<BTreeMap<u64, u32>>,
    pub(super) table: RefCell<BTreeMap<u64, u32>>,
    pub(super) trace: RefCell<Vec<Access>>,
    pub(super) commands: RefCell<Vec<u32>>,
    pub(super) masked: RefCell<[bool; MAX_INTRS]>,
    pub(super) raised: RefCell<[u32; MAX_INTRS]>,
    pending: RefCell<[bool; MAX_INTRS]>,
    pub(super) cause: Cell<u32>,
    pub(super) active: Cell<bool>,
    /// How packets are to be gathered, if the driver has said so.
    pub(super) scheme: Cell<Option<CoalesceScheme>>,
    answer: Cell<u32>,
    places: RefCell<Places>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            fault: Cell::default(),
            revisions: Cell::new(0b111),
            revision: Cell::new(0),
            conf_intr: Cell::new(interrupt::IT_AUTO | interrupt::IMM_AUTO << interrupt::IMM_SHIFT),
            data_size: Cell::new(128),
            threshold: Cell::new(0),
            update_rx_prod: Cell::new(false),
            registers: RefCell::default(),
            table: RefCell::default(),
            trace: RefCell::default(),
            commands: RefCell::default(),
            masked: RefCell::new([true; MAX_INTRS]),
            raised: RefCell::default(),
            pending: RefCell::default(),
            cause: Cell::default(),
            active: Cell::default(),
            scheme: Cell::default(),
            answer: Cell::default(),
            places: RefCell::default(),
        }
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap()
}

impl Model {
    fn get(&self, register: u64) -> u32 {
        self.registers.borrow().get(&register).copied().unwrap_or(0)
    }

    pub(super) fn take_trace(&self) -> Vec<Access> {
        core::mem::take(&mut self.trace.borrow_mut())
    }

    fn base(&self) -> u64 {
        u64::from(self.get(registers::DSAH)) << 32 | u64::from(self.get(registers::DSAL))
    }

    /// What the driver has written.
    pub(super) fn shared(&self, fake: &Fake) -> DriverShared {
        read(fake, self.base())
    }

    pub(super) fn transmit_queue(&self, fake: &Fake) -> (DmaRegion, usize) {
        fake.at(self.shared(fake).dev_read.misc.queue_desc_pa.get())
    }

    pub(super) fn transmit_conf(&self, fake: &Fake) -> TxQueueDesc {
        read(fake, self.shared(fake).dev_read.misc.queue_desc_pa.get())
    }

    pub(super) fn receive_queue(&self, fake: &Fake, queue: u8) -> (DmaRegion, usize) {
        let misc = self.shared(fake).dev_read.misc;
        fake.at(misc.queue_desc_pa.get() + 256 * u64::from(misc.num_tx_queues + queue))
    }

    pub(super) fn receive_conf(&self, fake: &Fake, queue: u8) -> RxQueueDesc {
        let (memory, at) = self.receive_queue(fake, queue);
        read(fake, memory.physical(at))
    }

    pub(super) fn rss(&self, fake: &Fake) -> RSSConf {
        read(fake, self.shared(fake).dev_read.rss_conf_desc.conf_pa.get())
    }

    /// Something happens.
    pub(super) fn happen(&self, fake: &Fake, events: Events) {
        let (memory, at) = fake.at(self.base());
        memory.write32(at + offset_of!(DriverShared, ecr), events.bits());
        self.raise(fake, self.shared(fake).dev_read.intr_conf.event_intr_idx);
    }

    /// Raises an interrupt, unless it is masked; then it is when it no longer is.
    pub(super) fn raise(&self, fake: &Fake, interrupt: u8) {
        let index = usize::from(interrupt);
        if self.masked.borrow()[index] {
            self.pending.borrow_mut()[index] = true;
            return;
        }
        self.raised.borrow_mut()[index] += 1;
        self.cause.set(1);
        if self.shared(fake).dev_read.intr_conf.auto_mask != 0 {
            self.masked.borrow_mut()[index] = true;
        }
    }

    pub(super) fn take_raised(&self) -> Vec<u32> {
        core::mem::take(&mut *self.raised.borrow_mut())[..4].to_vec()
    }

    /// Takes the next packet off the transmit ring.
    pub(super) fn fetch(&self, fake: &Fake) -> Option<Packet> {
        let conf = self.transmit_conf(fake).conf;
        let mut packet = Packet::default();
        let place = &mut self.places.borrow_mut().transmit;
        loop {
            let address = conf.tx_ring_base_pa.get() + 16 * u64::from(place.index);
            let (ring, at) = fake.at(address);
            let (buffer, len, flags) = (ring.read64(at), ring.read32(at + 8), ring.read32(at + 12));
            if (len & txd::GEN != 0) != place.lap() {
                assert!(packet.descriptors.is_empty(), "a packet that is not all there");
                return None;
            }
            let bytes = match len & txd::LEN {
                0 => 16384,
                bytes => usize::try_from(bytes).unwrap(),
            };
            let (memory, at) = fake.at(buffer);
            let mut data = vec![0; bytes];
            memory.read_bytes(at, &mut data);
            packet.bytes.extend(data);
            packet.descriptors.push((buffer, len & !txd::GEN, flags));
            packet.last = place.index;
            place.advance(conf.tx_ring_size.get());
            if flags & txd::EOP != 0 {
                assert!(flags & txd::CQ != 0, "nobody would know");
                return Some(packet);
            }
        }
    }

    /// Completes the packet that ends with this descriptor.
    pub(super) fn report(&self, fake: &Fake, last: u32) {
        let conf = self.transmit_conf(fake).conf;
        let place = &mut self.places.borrow_mut().transmitted;
        let words = Words { index: last, ..Words::default() };
        write(fake, conf.comp_ring_base_pa.get(), *place, words);
        place.advance(conf.comp_ring_size.get());
    }

    /// The next descriptor of a receive ring: its index, buffer and length word; `None` if it has not
    /// been given it.
    pub(super) fn next_buffer(&self, fake: &Fake, queue: u8, ring: u8) -> Option<(u32, u64, u32)> {
        let conf = self.receive_conf(fake, queue).conf;
        let (queue, ring) = (usize::from(queue), usize::from(ring));
        let place = self.places.borrow().rings[queue][ring];
        let address = conf.rx_ring_base_pa[ring].get() + 16 * u64::from(place.index);
        let (memory, at) = fake.at(address);
        let word = memory.read32(at + 8);
        ((word & rxd::GEN != 0) == place.lap()).then(|| (place.index, memory.read64(at), word))
    }

    /// Uses it up.
    pub(super) fn use_buffer(&self, fake: &Fake, queue: u8, ring: u8) {
        let conf = self.receive_conf(fake, queue).conf;
        let (queue, ring) = (usize::from(queue), usize::from(ring));
        self.places.borrow_mut().rings[queue][ring].advance(conf.rx_ring_size[ring].get());
    }

    /// How many buffers of a ring it has.
    pub(super) fn owned(&self, fake: &Fake, queue: u8, ring: u8) -> u32 {
        let before = self.places.borrow().rings[usize::from(queue)][usize::from(ring)];
        let mut count = 0;
        while self.next_buffer(fake, queue, ring).is_some() {
            self.use_buffer(fake, queue, ring);
            count += 1;
        }
        self.places.borrow_mut().rings[usize::from(queue)][usize::from(ring)] = before;
        count
    }

    /// Writes a receive queue's next completion.
    pub(super) fn complete(&self, fake: &Fake, queue: u8, words: Words) {
        let conf = self.receive_conf(fake, queue).conf;
        let place = &mut self.places.borrow_mut().received[usize::from(queue)];
        write(fake, conf.comp_ring_base_pa.get(), *place, words);
        place.advance(conf.comp_ring_size.get());
    }

    /// Puts a frame where it belongs, with these flags in its last completion. Returns whether there
    /// was room.
    pub(super) fn arrive(&self, fake: &Fake, queue: u8, frame: &[u8], flags: u32) -> bool {
        self.deliver(fake, queue, frame, Words { flags, ..Words::default() })
    }

    /// As [`arrive`](Self::arrive), with bits of all words.
    pub(super) fn deliver(&self, fake: &Fake, queue: u8, frame: &[u8], words: Words) -> bool {
        let queues = self.shared(fake).dev_read.misc.num_rx_queues;
        let conf = self.receive_conf(fake, queue).conf;
        let entry = conf.rx_data_ring_desc_size.get();
        let short = self.revision.get() >= 0b100 && frame.len() <= entry.into();
        let mut rest = frame;
        let mut first = true;
        loop {
            let body = |word: u32| word & rxd::BTYPE_BODY != 0;
            let second =
                !first && self.next_buffer(fake, queue, 0).is_none_or(|next| !body(next.2));
            let ring = u8::from(second);
            let Some((index, address, word)) = self.next_buffer(fake, queue, ring) else {
                assert!(first, "a model has enough buffers, or none");
                return false;
            };
            self.use_buffer(fake, queue, ring);
            if first && body(word) {
                // Not a place for a frame to start.
                continue;
            }
            let room = usize::try_from(word & rxd::LEN).unwrap();
            let (data, after) = rest.split_at(room.min(rest.len()));
            rest = after;
            let (kind, address) = match first && short {
                true => {
                    let at = u64::from(index) * u64::from(entry);
                    (2, conf.rx_data_ring_base_pa.get() + at)
                }
                false => (u32::from(ring), address),
            };
            let (memory, at) = fake.at(address);
            memory.write_bytes(at, data);
            let number = u32::from(queue) + kind * u32::from(queues);
            let sop = if first { rcd::SOP | words.index } else { 0 };
            let eop = if rest.is_empty() { rcd::EOP | words.index } else { 0 };
            let last = if rest.is_empty() { words.len } else { 0 };
            let flags = if rest.is_empty() { words.flags } else { 0 };
            let len = u32::try_from(data.len()).unwrap();
            let index = index | number << rcd::RQID_SHIFT | sop | eop;
            let flags = flags | completion::RXCOMP << completion::TYPE_SHIFT;
            let hash = if first { words.hash } else { 0 };
            self.complete(fake, queue, Words { index, hash, len: len | last, flags });
            if rest.is_empty() {
                return true;
            }
            first = false;
        }
    }

    fn obey(&self, fake: &Fake, command: u32) {
        self.commands.borrow_mut().push(command);
        let fault = self.fault.get();
        let answer = match command {
            command::ACTIVATE_DEV if fault == Fault::Refuses => 1,
            command::ACTIVATE_DEV => {
                assert_eq!(self.shared(fake).magic.get(), REV1_MAGIC);
                self.active.set(true);
                let (queue, at) = self.transmit_queue(fake);
                queue.write32(at + 4, self.threshold.get());
                for number in 0..self.shared(fake).dev_read.misc.num_rx_queues {
                    self.ask_for_doorbells(fake, number, self.update_rx_prod.get());
                }
                0
            }
            command::QUIESCE_DEV if fault == Fault::Runs => 1,
            command::QUIESCE_DEV | command::RESET_DEV => {
                self.active.set(false);
                *self.places.borrow_mut() = Places::default();
                *self.pending.borrow_mut() = [false; MAX_INTRS];
                0
            }
            command::SET_COALESCE => {
                let place = self.shared(fake).cmd_info.var_conf;
                assert_eq!((place.conf_ver.get(), place.conf_len.get()), (1, 16));
                let scheme: CoalesceScheme = read(fake, place.conf_pa.get());
                self.scheme.set(Some(scheme));
                u32::from(fault == Fault::Coalesces)
            }
            command::GET_LINK if fault == Fault::NoLink => 0,
            command::GET_LINK => 10_000 << LINK_SPEED_SHIFT | LINK_UP,
            command::GET_CONF_INTR => self.conf_intr.get(),
            command::GET_TXDATA_DESC_SIZE => {
                assert!(self.revision.get() >= 0b100, "that is of revision 3");
                self.data_size.get()
            }
            _ => 0,
        };
        self.answer.set(answer);
    }

    /// Asks for doorbells of a receive queue, or no longer.
    pub(super) fn ask_for_doorbells(&self, fake: &Fake, queue: u8, on: bool) {
        let (memory, at) = self.receive_queue(fake, queue);
        memory.write8(at, on.into());
    }
}

/// Reads a structure from guest memory.
fn read<T: FromBytes>(fake: &Fake, address: u64) -> T {
    let (memory, at) = fake.at(address);
    let mut bytes = vec![0; size_of::<T>()];
    memory.read_bytes(at, &mut bytes);
    T::read_from_bytes(&bytes).unwrap()
}

/// Writes a completion.
fn write(fake: &Fake, base: u64, place: Place, words: Words) {
    let (ring, at) = fake.at(base + 16 * u64::from(place.index));
    ring.write32(at, words.index);
    ring.write32(at + 4, words.hash);
    ring.write32(at + 8, words.len);
    let lap = if place.lap() { COMP_GEN } else { 0 };
    ring.write32(at + 12, words.flags & !COMP_GEN | lap);
}

/// The doorbells and masks.
pub(super) struct PtBar(pub(super) Rc<Model>);

impl Registers for PtBar {
    fn read(&self, _fake: &Fake, offset: u64) -> u32 {
        self.0.trace.borrow_mut().push(Access::ReadPt(offset));
        u32::MAX
    }

    fn write(&self, fake: &Fake, offset: u64, value: u32) {
        let model = &self.0;
        model.trace.borrow_mut().push(Access::WritePt(offset, value));
        if offset < registers::TXPROD {
            let interrupt = usize::try_from(offset / registers::STRIDE).unwrap();
            model.masked.borrow_mut()[interrupt] = value != 0;
            if value == 0 && core::mem::take(&mut model.pending.borrow_mut()[interrupt]) {
                model.raise(fake, u8::try_from(interrupt).unwrap());
            }
        }
    }
}

/// The other registers.
pub(super) struct VdBar(pub(super) Rc<Model>);

impl Registers for VdBar {
    fn read(&self, _fake: &Fake, offset: u64) -> u32 {
        let model = &self.0;
        model.trace.borrow_mut().push(Access::ReadVd(offset));
        let mac = match model.fault.get() {
            Fault::Gone => return u32::MAX,
            Fault::GroupAddress => [1, 0, 0, 0, 0, 1],
            Fault::NoAddress => [0; 6],
            _ => MAC,
        };
        match offset {
            registers::VRRS if model.fault.get() == Fault::NoRevision => 0b1000,
            registers::VRRS => model.revisions.get(),
            registers::UVRS if model.fault.get() == Fault::NoUpt => 0b10,
            registers::UVRS => 0b1,
            registers::CMD => model.answer.get(),
            registers::MACL => {
                low(u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], 0, 0, 0, 0]))
            }
            registers::MACH => u32::from_le_bytes([mac[4], mac[5], 0, 0]),
            registers::ICR => model.cause.take(),
            _ => 0,
        }
    }

    fn write(&self, fake: &Fake, offset: u64, value: u32) {
        let model = &self.0;
        model.trace.borrow_mut().push(Access::WriteVd(offset, value));
        model.registers.borrow_mut().insert(offset, value);
        match offset {
            registers::VRRS => model.revision.set(value),
            registers::CMD => model.obey(fake, value),
            registers::ECR => {
                let (memory, at) = fake.at(model.base());
                let at = at + offset_of!(DriverShared, ecr);
                memory.write32(at, memory.read32(at) & !value);
            }
            _ => {}
        }
    }
}

/// MSI-X's table.
pub(super) struct Table(pub(super) Rc<Model>);

impl Registers for Table {
    fn read(&self, _fake: &Fake, offset: u64) -> u32 {
        self.0.table.borrow().get(&offset).copied().unwrap_or(0)
    }

    fn write(&self, _fake: &Fake, offset: u64, value: u32) {
        self.0.table.borrow_mut().insert(offset, value);
    }
}
