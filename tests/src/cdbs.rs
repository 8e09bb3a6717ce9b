//! Commands and task management straight on lanes: any CDB, any data, two initiators that share a disk
//! and a drive, and a backend that holds operations back.

use std::sync::Arc;

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_backends::block::{MemoryBackend, MemoryOptions};
use paraslot_device::dma::Direction;
use paraslot_device::{BusMaster, Dma};
use paraslot_scsi::{
    Address, Attribute, Bus, BusOptions, Cdb, CdromOptions, Command, Completion, DiskOptions,
    Function, Initiator, Lane, LogicalUnit, Outcome, Status, Ticket,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::fuzz::{Backing, Input};

const MEMORY: usize = 256 << 10;
const DISK: u64 = 1 << 20;
const DEPTH: u8 = 16;
/// Rounds after which everything must have ended that nothing holds up.
const ROUNDS: usize = 20_000;
/// What memory holds before anything is moved there.
const POISON: u8 = 0xa5;

/// An initiator: its bus, one lane, and what it waits for.
struct Side {
    bus: Bus,
    lane: Lane,
    /// Bytes of data of each command under way, and which way they go, by token.
    under_way: Vec<Option<(usize, Direction, u64)>>,
    completions: Vec<Completion>,
}

struct World {
    dma: Dma<Arc<GuestMemoryMmap>>,
    gate: Gate,
    disk: Arc<LogicalUnit>,
    drive: Arc<LogicalUnit>,
    sides: [Side; 2],
    tickets: Vec<Ticket>,
}

fn image() -> MemoryBackend {
    MemoryBackend::new(DISK, MemoryOptions::default()).expect("memory")
}

impl World {
    fn new(autosense: bool) -> Self {
        let held = GatedBackend::new(image());
        let gate = held.gate();
        let mut drive = CdromOptions::new(Some(Arc::new(image())));
        drive.identity.serial = "1".into();
        let disk = LogicalUnit::disk(DiskOptions::new(Arc::new(held))).expect("a disk");
        let drive = LogicalUnit::cdrom(drive).expect("a drive");
        let side = |name: &str| {
            let initiator = Initiator(name.into());
            let bus = Bus::new(BusOptions { initiator, max_target: 3, max_lun: 3, autosense });
            let at = |lun| Address { target: 0, lun };
            bus.attach(at(0), disk.clone()).expect("it is free");
            bus.attach(at(1), drive.clone()).expect("it is free");
            let lane = bus.open_lane(DEPTH.into()).expect("a lane");
            Side { bus, lane, under_way: vec![None; DEPTH.into()], completions: Vec::new() }
        };
        let sides = [side("one"), side("other")];
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
        memory.write_slice(&[POISON; MEMORY], GuestAddress(0)).expect("it is memory");
        let gate_of_dma = BusMaster::default();
        gate_of_dma.set(true);
        let dma = Dma::new(Arc::new(memory), gate_of_dma);
        Self { dma, gate, disk, drive, sides, tickets: Vec::new() }
    }

    fn submit(&mut self, side: usize, input: &mut Input<'_>) {
        let place = self.sides[side].under_way.iter().position(Option::is_none);
        let Some(token) = place else { return };
        let mut cdb = input.bytes::<16>();
        if input.u8() & 3 != 0 {
            // Most operation codes are nobody's.
            cdb[0] = CODES[usize::from(cdb[0]) % CODES.len()];
        }
        if input.u8() & 3 != 0 {
            // So that blocks are within the disk, and few.
            for byte in [2, 3, 4, 6, 7, 8, 10, 11, 12] {
                cdb[byte] = 0;
            }
        }
        let kind = input.u8();
        let direction = if kind & 1 == 0 { Direction::FromDevice } else { Direction::ToDevice };
        let len = match kind >> 1 & 3 {
            0 => 0,
            1 => 512 * usize::from(input.u8() & 15),
            _ => usize::from(input.u16() & 0x1fff),
        };
        // Each command has a place of its own.
        let start = (side * usize::from(DEPTH) + token) as u64 * 0x2000;
        let memory = self.dma.memory().expect("the bus is mastered");
        let parameters = input.slice(usize::from(kind >> 3).min(len));
        let data = match direction {
            Direction::ToDevice => parameters,
            Direction::FromDevice => &[],
        };
        memory.write_slice(&vec![POISON; len], GuestAddress(start)).expect("it is memory");
        memory.write_slice(data, GuestAddress(start)).expect("it is memory");
        let cut = if len == 0 { 0 } else { usize::from(input.u16()) % len };
        let segments = [(GuestAddress(start), cut), (GuestAddress(start + cut as u64), len - cut)];
        let data = memory.buffers(segments, direction).expect("it is memory");
        let at = input.u8();
        let address = match at & 15 {
            0 => Address { target: 1, lun: 0 },
            1 => Address { target: 0, lun: 2 },
            low if low & 3 == 0 => Address { target: 0, lun: 1 },
            _ => Address::default(),
        };
        let attribute = if at >> 4 == 15 { Attribute::Aca } else { Attribute::Simple };
        self.sides[side].under_way[token] = Some((len, direction, start));
        self.sides[side].lane.submit(Command {
            token: token as u64,
            tag: token as u64 & 7,
            address,
            cdb: Cdb::new(&cdb),
            attribute,
            data,
        });
    }

    fn manage(&mut self, side: usize, input: &mut Input<'_>) {
        let address = Address { target: input.u8() & 1, lun: u16::from(input.u8() & 1) };
        let tag = u64::from(input.u8() & 7);
        let function = match input.u8() % 9 {
            0 | 1 => Function::AbortTask { address, tag },
            2 => Function::AbortTaskSet(address),
            3 => Function::ClearTaskSet(address),
            4 => Function::LogicalUnitReset(address),
            5 => Function::NexusReset { target: address.target },
            6 => Function::ResetAll,
            7 => Function::QueryTask { address, tag },
            _ => Function::QueryTaskSet(address),
        };
        if self.tickets.len() < 64 {
            let ticket = self.sides[side].bus.manage(function, None);
            self.tickets.push(ticket);
        }
    }

    /// A worker's round.
    fn round(&mut self, side: usize) {
        let memory = self.dma.memory().expect("the bus is mastered");
        let this = &mut self.sides[side];
        let _ = this.lane.ordered();
        this.lane.obey();
        this.lane.commit();
        this.lane.complete(&mut this.completions);
        for Completion { token, outcome, moved } in this.completions.drain(..) {
            let token = usize::try_from(token).expect("a token of ours");
            let (len, direction, start) = this.under_way[token].take().expect("it was under way");
            let moved = usize::try_from(moved).expect("it fits");
            assert!(moved <= len, "{moved} of {len}");
            let Outcome::Ended { status, sense } = outcome else { continue };
            assert_eq!(status == Status::CheckCondition, sense.is_some());
            if let Some(sense) = sense {
                let (_, len) = sense.encode(Default::default());
                assert!((8..=252).contains(&len) && sense.key < 16);
            }
            if status == Status::Good && direction == Direction::FromDevice {
                let mut rest = vec![0; len - moved];
                memory.read_slice(&mut rest, GuestAddress(start + moved as u64)).expect("memory");
                assert!(rest.iter().all(|byte| *byte == POISON), "more was moved than is said");
            }
        }
        this.lane.settle();
    }

    /// Lets go of everything, and sees all of it end.
    fn end(&mut self) {
        self.gate.settle();
        for _ in 0..ROUNDS {
            for side in 0..2 {
                self.round(side);
            }
            let idle = self.sides.iter().all(|side| side.lane.in_flight() == 0);
            if idle && self.tickets.iter().all(|ticket| ticket.response().is_some()) {
                break;
            }
        }
        for side in &mut self.sides {
            assert_eq!(side.lane.in_flight(), 0);
            assert!(side.under_way.iter().all(Option::is_none));
            assert!(!side.lane.prepare_to_wait(), "there is nothing to do");
        }
        assert!(self.tickets.iter().all(|ticket| ticket.response().is_some()));
    }
}

/// Operation codes that a unit knows, and a few that none does.
const CODES: [u8; 66] = [
    0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x28, 0x2a, 0x2b,
    0x2e, 0x2f, 0x34, 0x35, 0x41, 0x42, 0x43, 0x44, 0x46, 0x4a, 0x4d, 0x51, 0x52, 0x55, 0x56, 0x57,
    0x5a, 0x5e, 0x5f, 0x7f, 0x88, 0x89, 0x8a, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0x9b, 0x9e, 0x9f, 0xa0,
    0xa3, 0xa4, 0xa8, 0xaa, 0xac, 0xad, 0xae, 0xaf, 0xb9, 0xbb, 0xbd, 0xbe, 0x04, 0x3b, 0x3c, 0x83,
    0x84, 0xff,
];

/// Does to two initiators and their units what `data` says.
///
/// # Panics
/// When a command does not end once, or moves what it should not, or task management does not end.
pub fn examine(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.u8() & 1 == 0);
    while !input.is_empty() {
        let what = input.u8();
        let side = usize::from(what >> 7);
        match what % 16 {
            0..8 => world.submit(side, &mut input),
            8..11 => world.round(side),
            11 => world.gate.act(&mut input),
            12 => world.manage(side, &mut input),
            13 => {
                let medium = (input.u8() & 1 == 0).then(image);
                let medium = medium.map(|medium| Arc::new(medium) as _);
                world.drive.change_medium(medium).expect("it is a drive");
            }
            14 => {
                let side = &mut world.sides[side];
                let bus = &side.bus;
                let spare = Address { target: 1, lun: 0 };
                match bus.detach(spare) {
                    Some(ticket) => world.tickets.push(ticket),
                    // A ticket may still be out for the address.
                    None => drop(bus.attach(spare, world.disk.clone())),
                }
            }
            _ => {
                let _ = world.sides[side].lane.prepare_to_wait();
            }
        }
    }
    world.end();
}
