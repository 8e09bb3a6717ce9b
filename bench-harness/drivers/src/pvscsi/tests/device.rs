//! An adapter that does what a test says, by the rules or against them, and the machine it is in.

extern crate std;

use core::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use crate::Disk;
use crate::scsi::Address;
use crate::scsi::testing::{Reply, Units};
use crate::testing::{Fake, Registers};

pub(super) const BAR: u64 = 0xe000_0000;
pub(super) const COMMAND: u64 = 0;
pub(super) const DATA: u64 = 4;
pub(super) const STATUS: u64 = 8;
pub(super) const INTR_STATUS: u64 = 0x100c;
pub(super) const INTR_MASK: u64 = 0x2010;
pub(super) const KICK_NON_RW: u64 = 0x3014;
pub(super) const KICK_RW: u64 = 0x4018;
const MSIX: u64 = 0x6000;

/// Where the capabilities are, in words of configuration space.
pub(super) const MSIX_CAPABILITY: usize = 0x40 / 4;
pub(super) const MSI_CAPABILITY: usize = 0x60 / 4;

/// Offsets in the rings' state.
mod state {
    pub(super) const REQUEST_PRODUCER: u64 = 0;
    pub(super) const REQUEST_CONSUMER: u64 = 4;
    pub(super) const REQUEST_LOG2: u64 = 8;
    pub(super) const COMPLETION_PRODUCER: u64 = 12;
    pub(super) const COMPLETION_CONSUMER: u64 = 16;
    pub(super) const COMPLETION_LOG2: u64 = 20;
    pub(super) const THRESHOLD: u64 = 24;
    pub(super) const MESSAGE_PRODUCER: u64 = 128;
    pub(super) const MESSAGE_CONSUMER: u64 = 132;
    pub(super) const MESSAGE_LOG2: u64 = 136;
}

/// The adapter.
pub(super) struct Adapter {
    pub(super) units: Units,
    /// Requests are left where they are.
    pub(super) idle: bool,
    /// Revisions before the second have none.
    pub(super) has_messages: bool,
    /// What the threshold is, if there is any.
    pub(super) threshold: Option<u32>,
    /// What the controller's page says, if there is one.
    pub(super) phys: Option<u32>,
    /// What is added to the sizes of rings that it sees.
    pub(super) error: u32,
    /// Commands, with the words of their descriptors.
    pub(super) commands: Vec<(u32, Vec<u32>)>,
    /// Registers that were written, and what; the MSI-X table's apart.
    pub(super) writes: Vec<(u64, u32)>,
    pub(super) reads: Vec<u64>,
    pub(super) table: Vec<(u64, u32)>,
    pub(super) mask: u32,
    pub(super) causes: u32,
    status: u32,
    state: u64,
    requests: Vec<u64>,
    completions: Vec<u64>,
    messages: u64,
    /// Requests taken, completions and messages given.
    taken: u32,
    given: u32,
    told: u32,
}

/// A request that the adapter has taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) context: u64,
    pub(super) data: u64,
    pub(super) len: u64,
    pub(super) sense: u64,
    pub(super) flags: u32,
    pub(super) cdb: Vec<u8>,
    pub(super) address: Address,
    /// The descriptor as it is.
    pub(super) bytes: Vec<u8>,
}

/// A completion that the adapter gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) context: u64,
    pub(super) len: u64,
    pub(super) sense: u32,
    pub(super) host: u16,
    pub(super) status: u16,
}

/// The machine with the adapter in it.
pub(super) struct Bench {
    pub(super) fake: Fake,
    pub(super) adapter: Rc<RefCell<Adapter>>,
}

fn read(fake: &Fake, address: u64, len: usize) -> Vec<u8> {
    let (region, at) = fake.at(address);
    let mut bytes = vec![0; len];
    region.read_bytes(at, &mut bytes);
    bytes
}

fn write(fake: &Fake, address: u64, bytes: &[u8]) {
    let (region, at) = fake.at(address);
    region.write_bytes(at, bytes);
}

fn word(fake: &Fake, address: u64) -> u32 {
    u32::from_le_bytes(read(fake, address, 4).try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Adapter {
    fn new(units: Units) -> Self {
        Self {
            units,
            idle: false,
            has_messages: true,
            threshold: Some(0),
            phys: Some(8),
            error: 0,
            commands: Vec::new(),
            writes: Vec::new(),
            reads: Vec::new(),
            table: Vec::new(),
            mask: 0xff,
            causes: 0,
            status: 0,
            state: 0,
            requests: Vec::new(),
            completions: Vec::new(),
            messages: 0,
            taken: 0,
            given: 0,
            told: 0,
        }
    }

    /// Words of a command's descriptor; none if there is no such command.
    fn words(&self, command: u32) -> Option<usize> {
        match command {
            1 | 4 => Some(0),
            3 => Some(132),
            5 => Some(3),
            6 => Some(4),
            7 => Some(6),
            8 => self.has_messages.then_some(34),
            10 => self.threshold.map(|_| 1),
            _ => None,
        }
    }

    fn state_word(&self, fake: &Fake, offset: u64) -> u32 {
        word(fake, self.state + offset)
    }

    fn set_state(&self, fake: &Fake, offset: u64, value: u32) {
        write(fake, self.state + offset, &value.to_le_bytes());
    }

    /// Carries out the last command if its descriptor is complete.
    fn carry_out(&mut self, fake: &Fake) {
        let (command, words) = self.commands.last().cloned().unwrap();
        let Some(len) = self.words(command) else {
            self.status = u32::MAX;
            return;
        };
        if words.len() < len {
            self.status = u32::try_from(len).unwrap();
            return;
        }
        let number = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        let pages = |at: usize, count: u32| -> Vec<u64> {
            assert!(count.is_power_of_two());
            let pages = (0..32).map(|index| number(at + 2 * index)).collect::<Vec<_>>();
            assert!(pages[count as usize..].iter().all(|page| *page == 0));
            pages[..count as usize].iter().map(|page| page << 12).collect()
        };
        self.status = 0;
        match command {
            1 => {
                (self.state, self.mask, self.causes) = (0, 0, 0);
                (self.taken, self.given, self.told) = (0, 0, 0);
            }
            3 => {
                self.state = number(2) << 12;
                self.requests = pages(4, words[0]);
                self.completions = pages(68, words[1]);
                let log2 = |count: u32| count.ilog2() + self.error;
                self.set_state(fake, state::REQUEST_LOG2, log2(32 * words[0]));
                self.set_state(fake, state::COMPLETION_LOG2, log2(128 * words[1]));
            }
            7 => {
                assert_eq!((number(2), words[4], words[5]), (0x2120 << 32, 0x1958, 0));
                if let Some(phys) = self.phys {
                    let mut page = vec![0; 480];
                    page[472..476].copy_from_slice(&phys.to_le_bytes());
                    write(fake, number(0), &page);
                }
            }
            8 => {
                assert_eq!(words[..2], [1, 0]);
                self.messages = number(2) << 12;
                self.set_state(fake, state::MESSAGE_LOG2, 5);
            }
            10 => {
                self.set_state(fake, state::THRESHOLD, self.threshold.unwrap_or(0));
                self.status = words[0];
            }
            _ => {}
        }
    }

    fn take(&mut self, fake: &Fake) -> Option<Taken> {
        if self.state == 0 || self.state_word(fake, state::REQUEST_PRODUCER) == self.taken {
            return None;
        }
        let index = self.taken as usize % (32 * self.requests.len());
        let address = self.requests[index / 32] + 128 * (index as u64 % 32);
        self.taken = self.taken.wrapping_add(1);
        self.set_state(fake, state::REQUEST_CONSUMER, self.taken);
        let bytes = read(fake, address, 128);
        let lun = paraslot_spec::scsi::lun::decode(bytes[57..65].try_into().unwrap()).unwrap();
        assert_eq!((long(&bytes, 32) & 0xffff_ffff, bytes[65], bytes[66]), (96, 0x20, 0));
        assert!(bytes[68..].iter().all(|byte| *byte == 0));
        Some(Taken {
            context: long(&bytes, 0),
            data: long(&bytes, 8),
            len: long(&bytes, 16),
            sense: long(&bytes, 24),
            flags: u32::try_from(long(&bytes, 32) >> 32).unwrap(),
            cdb: bytes[40..40 + usize::from(bytes[56])].to_vec(),
            address: Address { target: bytes[67], lun },
            bytes,
        })
    }

    fn give(&mut self, fake: &Fake, completion: Completion) {
        let index = self.given as usize % (128 * self.completions.len());
        let address = self.completions[index / 128] + 32 * (index as u64 % 128);
        let mut bytes = completion.context.to_le_bytes().to_vec();
        bytes.extend(completion.len.to_le_bytes());
        bytes.extend(completion.sense.to_le_bytes());
        bytes.extend(completion.host.to_le_bytes());
        bytes.extend(completion.status.to_le_bytes());
        write(fake, address, &bytes);
        self.given = self.given.wrapping_add(1);
        self.set_state(fake, state::COMPLETION_PRODUCER, self.given);
        self.causes |= 1;
        if self.mask & 1 != 0 {
            fake.interrupts.set(fake.interrupts.get() + 1);
        }
    }

    /// The pieces of a request's data.
    fn pieces(fake: &Fake, taken: &Taken) -> Vec<(u64, u32)> {
        if taken.flags & 1 == 0 {
            return vec![(taken.data, u32::try_from(taken.len).unwrap())];
        }
        let (mut pieces, mut left, mut at) = (Vec::new(), taken.len, taken.data);
        while left != 0 {
            let bytes = read(fake, at, 16);
            let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            assert_eq!(bytes[12..], [0; 4]);
            assert_eq!(at >> 12, taken.data >> 12, "a list crosses a page");
            pieces.push((long(&bytes, 0), len));
            left -= u64::from(len);
            at += 16;
        }
        pieces
    }

    fn complete(&mut self, fake: &Fake, taken: &Taken, reply: &Reply) {
        let mut rest = &reply.data[..reply.data.len().min(usize::try_from(taken.len).unwrap())];
        let mut len = rest.len() as u64;
        if taken.flags & 8 != 0 {
            for (address, piece) in Self::pieces(fake, taken) {
                let (now, later) = rest.split_at(rest.len().min(piece as usize));
                write(fake, address, now);
                rest = later;
            }
        } else if reply.status == 0 {
            len = taken.len;
        }
        write(fake, taken.sense, &reply.sense);
        let host = match reply.absent {
            true => 0x11,
            false if reply.status == 0 && len < taken.len => 0x0c,
            false => 0,
        };
        let sense = u32::try_from(reply.sense.len()).unwrap();
        let status = reply.status.into();
        self.give(fake, Completion { context: taken.context, len, sense, host, status });
    }

    fn serve(&mut self, fake: &Fake) {
        while let Some(taken) = self.take(fake) {
            let mut out = Vec::new();
            if taken.flags & 16 != 0 {
                for (address, len) in Self::pieces(fake, &taken) {
                    out.extend(read(fake, address, len as usize));
                }
            }
            let mut cdb = taken.cdb.clone();
            cdb.resize(16, 0);
            let reply = self.units.command(taken.address, &cdb, &out);
            self.complete(fake, &taken, &reply);
        }
    }
}

impl Registers for RefCell<Adapter> {
    fn read(&self, _fake: &Fake, offset: u64) -> u32 {
        let mut adapter = self.borrow_mut();
        adapter.reads.push(offset);
        match offset {
            STATUS => adapter.status,
            INTR_STATUS => adapter.causes,
            _ => panic!("a read of {offset:#x}"),
        }
    }

    fn write(&self, fake: &Fake, offset: u64, value: u32) {
        let mut adapter = self.borrow_mut();
        if offset >= MSIX {
            adapter.table.push((offset - MSIX, value));
            return;
        }
        adapter.writes.push((offset, value));
        match offset {
            COMMAND => {
                adapter.commands.push((value, Vec::new()));
                adapter.carry_out(fake);
            }
            DATA => {
                adapter.commands.last_mut().unwrap().1.push(value);
                adapter.carry_out(fake);
            }
            INTR_STATUS => adapter.causes &= !value,
            INTR_MASK => adapter.mask = value,
            KICK_NON_RW | KICK_RW => {
                if !adapter.idle {
                    adapter.serve(fake);
                }
            }
            _ => panic!("a write to {offset:#x}"),
        }
    }
}

impl Bench {
    pub(super) fn new(units: Units) -> Self {
        let fake = Fake::new();
        fake.add(3, 0, 0);
        fake.bar(3, 0, 0x8000, false, BAR);
        {
            let mut functions = fake.functions.borrow_mut();
            let config = functions.get_mut(&(3, 0)).unwrap();
            config.words[0] = 0x07c0_15ad;
            config.words[1] = 1 << 20;
            config.words[0x34 / 4] = 0x40;
            config.words[MSIX_CAPABILITY] = 0x6011;
            config.writable[MSIX_CAPABILITY] = 0xc000_0000;
            config.words[MSIX_CAPABILITY + 1] = 0x6000;
            config.words[MSI_CAPABILITY] = 0x0080_0005;
            config.writable[MSI_CAPABILITY] = 1 << 16;
            for word in 1..4 {
                config.writable[MSI_CAPABILITY + word] = u32::MAX;
            }
        }
        let adapter = Rc::new(RefCell::new(Adapter::new(units)));
        fake.attach(BAR, 0x8000, adapter.clone());
        Self { fake, adapter }
    }

    /// With one disk.
    pub(super) fn usual() -> Self {
        Self::new(Units::one())
    }

    pub(super) fn config(&self, word: usize) -> u32 {
        self.fake.functions.borrow().get(&(3, 0)).unwrap().words[word]
    }

    /// Changes a word of configuration space behind the driver's back.
    pub(super) fn set_config(&self, word: usize, value: u32) {
        self.fake.functions.borrow_mut().get_mut(&(3, 0)).unwrap().words[word] = value;
    }

    /// Takes the next request.
    pub(super) fn take(&self) -> Option<Taken> {
        self.adapter.borrow_mut().take(&self.fake)
    }

    /// Completes a request.
    pub(super) fn complete(&self, taken: &Taken, reply: &Reply) {
        self.adapter.borrow_mut().complete(&self.fake, taken, reply);
    }

    /// Gives any completion.
    pub(super) fn give(&self, completion: Completion) {
        self.adapter.borrow_mut().give(&self.fake, completion);
    }

    /// Carries out all requests.
    pub(super) fn serve(&self) {
        self.adapter.borrow_mut().serve(&self.fake);
    }

    /// Says that so many completions were given, whatever was.
    pub(super) fn claim(&self, completions: u32) {
        let adapter = self.adapter.borrow();
        adapter.set_state(&self.fake, state::COMPLETION_PRODUCER, completions);
    }

    /// Completions that the driver says that it has taken.
    pub(super) fn released(&self) -> u32 {
        self.adapter.borrow().state_word(&self.fake, state::COMPLETION_CONSUMER)
    }

    /// The pieces of a request's data.
    pub(super) fn pieces(&self, taken: &Taken) -> Vec<(u64, u32)> {
        Adapter::pieces(&self.fake, taken)
    }

    /// Tells something.
    pub(super) fn tell(&self, kind: u32, bus: u32, target: u32, lun: [u8; 8]) {
        let mut adapter = self.adapter.borrow_mut();
        let mut bytes: Vec<u8> =
            [kind, bus, target].into_iter().flat_map(u32::to_le_bytes).collect();
        bytes.extend(lun);
        write(&self.fake, adapter.messages + 128 * u64::from(adapter.told % 32), &bytes);
        adapter.told += 1;
        adapter.set_state(&self.fake, state::MESSAGE_PRODUCER, adapter.told);
    }

    /// Says that so many messages were given, whatever was.
    pub(super) fn claim_messages(&self, messages: u32) {
        self.adapter.borrow().set_state(&self.fake, state::MESSAGE_PRODUCER, messages);
    }

    /// Messages that the driver says that it has taken.
    pub(super) fn heard(&self) -> u32 {
        self.adapter.borrow().state_word(&self.fake, state::MESSAGE_CONSUMER)
    }

    /// Writes since the last time.
    pub(super) fn writes(&self) -> Vec<(u64, u32)> {
        core::mem::take(&mut self.adapter.borrow_mut().writes)
    }

    /// Commands since the last time.
    pub(super) fn commands(&self) -> Vec<(u32, Vec<u32>)> {
        core::mem::take(&mut self.adapter.borrow_mut().commands)
    }

    /// Forgets what has happened, and leaves requests where they are from now on.
    pub(super) fn rest(&self) {
        let mut adapter = self.adapter.borrow_mut();
        adapter.idle = true;
        adapter.writes.clear();
        adapter.reads.clear();
        adapter.commands.clear();
        adapter.units.seen.clear();
    }

    /// Accesses that `work` makes: registers read, and those written.
    pub(super) fn accesses<D: Disk>(
        &self,
        disk: &mut D,
        work: impl FnOnce(&mut D),
    ) -> (Vec<u64>, Vec<u64>) {
        let before = disk.accesses();
        self.adapter.borrow_mut().reads.clear();
        self.adapter.borrow_mut().writes.clear();
        work(disk);
        let adapter = self.adapter.borrow();
        let cost = disk.accesses().since(before);
        assert_eq!(cost.reads, adapter.reads.len() as u64);
        assert_eq!(cost.writes, adapter.writes.len() as u64);
        let writes: Vec<u64> = adapter.writes.iter().map(|(offset, _)| *offset).collect();
        let kicks = writes.iter().filter(|offset| matches!(**offset, KICK_RW | KICK_NON_RW));
        assert_eq!(cost.doorbells, kicks.count() as u64);
        (adapter.reads.clone(), writes)
    }
}
