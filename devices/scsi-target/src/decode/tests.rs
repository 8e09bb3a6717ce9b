//! What commands come to.

mod block;
mod cdrom;
mod checks;
mod inquiry;
mod mode;
mod probes;
mod random;
mod report;
mod reserve;
mod unmap;

use std::io;
use std::sync::Arc;

use paraslot_backends::block::testing::GuestPages;
use paraslot_backends::block::{BlockBackend, BlockInfo, BlockQueue};
use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::{absent, decode};
use crate::bus::Address;
use crate::command::{Cdb, Status};
use crate::nexus::Nexus;
use crate::plan::{Ending, Plan};
use crate::sense::Sense;
use crate::unit::{CdromOptions, DiskOptions, Identity, LogicalUnit};

/// Blocks of the disk of most tests.
const BLOCKS: u64 = 0x1000;

/// An image that is never read: all that decoding needs of it is what it says.
struct Said(BlockInfo);

impl BlockBackend for Said {
    fn info(&self) -> BlockInfo {
        self.0.clone()
    }

    fn open_queue(&self, _: u32) -> io::Result<Box<dyn BlockQueue>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// An image that can do everything, with blocks of 512 bytes.
fn said() -> BlockInfo {
    BlockInfo {
        capacity: BLOCKS * 512,
        logical_block: 512,
        physical_block: 4096,
        read_only: false,
        volatile_cache: true,
        discard_granularity: 4096,
        write_zeroes: true,
        write_zeroes_unmap: true,
        secure_erase: false,
        id: "serial".into(),
    }
}

fn image(change: impl FnOnce(&mut BlockInfo)) -> Arc<dyn BlockBackend> {
    let mut info = said();
    change(&mut info);
    Arc::new(Said(info))
}

/// An initiator, with the guest memory of its commands.
struct Initiator {
    nexus: Arc<Nexus>,
    pages: GuestPages,
}

fn unit(change: impl FnOnce(&mut BlockInfo)) -> Arc<LogicalUnit> {
    LogicalUnit::disk(DiskOptions::new(image(change))).unwrap()
}

/// A disk without attentions.
fn disk() -> Initiator {
    Initiator::ready(&unit(|_| {}), "one")
}

fn disk_with(change: impl FnOnce(&mut BlockInfo)) -> Initiator {
    Initiator::ready(&unit(change), "one")
}

fn cdrom_identity() -> Identity {
    Identity {
        vendor: "PARASLOT".into(),
        product: "CD-ROM".into(),
        revision: "1".into(),
        serial: String::new(),
        world_wide_name: None,
    }
}

/// A drive with a disc of so many blocks, or without one.
fn drive(blocks: Option<u64>) -> Initiator {
    let medium = blocks.map(disc);
    let options = CdromOptions { medium, identity: cdrom_identity() };
    Initiator::ready(&LogicalUnit::cdrom(options).unwrap(), "one")
}

fn disc(blocks: u64) -> Arc<dyn BlockBackend> {
    image(|info| info.capacity = blocks * 2048)
}

fn luns() -> Vec<u16> {
    vec![0, 1, 256]
}

impl Initiator {
    fn new(unit: &Arc<LogicalUnit>, name: &str) -> Self {
        let nexus = Nexus::alone(unit, name, Address::default());
        Self { nexus, pages: GuestPages::new(0x4000) }
    }

    /// Without the attention of power-on.
    fn ready(unit: &Arc<LogicalUnit>, name: &str) -> Self {
        let this = Self::new(unit, name);
        assert_eq!(this.attention(), Some((0x29, 0x00)));
        this
    }

    fn unit(&self) -> &Arc<LogicalUnit> {
        &self.nexus.unit
    }

    fn decode(&self, cdb: &[u8], data: &DmaBuffers) -> Plan {
        decode(&self.nexus, &Cdb::new(cdb), data, &luns)
    }

    /// A command without data-out.
    fn run(&self, cdb: &[u8]) -> Plan {
        self.decode(cdb, &DmaBuffers::empty(Direction::FromDevice))
    }

    /// A command with data-out, and how much of it was taken.
    fn send(&self, cdb: &[u8], data: &[u8]) -> (u64, Plan) {
        self.pages.write(0, data);
        match self.decode(cdb, &self.pages.buffers(&[(0, data.len())], Direction::ToDevice)) {
            Plan::Took { len, then } => (len, *then),
            plan => (0, plan),
        }
    }

    fn good(&self, cdb: &[u8]) {
        assert!(is_status(&self.run(cdb), Status::Good), "{cdb:x?}");
    }

    fn reply(&self, cdb: &[u8]) -> Vec<u8> {
        reply(self.run(cdb))
    }

    fn sense(&self, cdb: &[u8]) -> Sense {
        sense(self.run(cdb))
    }

    fn conflicts(&self, cdb: &[u8]) {
        assert!(is_status(&self.run(cdb), Status::ReservationConflict), "{cdb:x?}");
    }

    /// The attention that TEST UNIT READY reports.
    fn attention(&self) -> Option<(u8, u8)> {
        match self.run(&[0; 6]) {
            Plan::End(Ending::Check(Sense { key: 6, asc, ascq, .. })) => Some((asc, ascq)),
            _ => None,
        }
    }
}

#[track_caller]
fn reply(plan: Plan) -> Vec<u8> {
    match plan {
        Plan::Reply(data) => data,
        other => panic!("no data-in: {other:?}"),
    }
}

#[track_caller]
fn sense(plan: Plan) -> Sense {
    match plan {
        Plan::End(Ending::Check(sense)) => sense,
        other => panic!("no CHECK CONDITION: {other:?}"),
    }
}

fn is_status(plan: &Plan, wanted: Status) -> bool {
    matches!(plan, Plan::End(Ending::Status(status)) if *status == wanted)
}

/// ILLEGAL REQUEST of this code, without more.
fn illegal(asc: u8, ascq: u8) -> Sense {
    Sense::illegal((asc, ascq))
}

/// INVALID FIELD IN CDB, its pointer spelled out.
fn bad_cdb(byte: u8, bit: Option<u8>) -> Sense {
    let first = 0xc0 | bit.map_or(0, |bit| 8 | bit);
    Sense { specific: Some([first, 0, byte]), ..illegal(0x24, 0) }
}

/// INVALID FIELD IN PARAMETER LIST.
fn bad_parameter(byte: u8, bit: Option<u8>) -> Sense {
    let first = 0x80 | bit.map_or(0, |bit| 8 | bit);
    Sense { specific: Some([first, 0, byte]), ..illegal(0x26, 0) }
}

/// A command with 32 bits of LBA at 2 and 16 bits of length at 7.
fn ten(opcode: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let [a, b, c, d] = lba.to_be_bytes();
    let [e, f] = blocks.to_be_bytes();
    [opcode, flags, a, b, c, d, 0, e, f, 0]
}

/// A command with 64 bits of LBA at 2 and 32 bits of length at 10.
fn sixteen(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// A command with 32 bits of LBA at 2 and 32 bits of length at 6.
fn twelve(opcode: u8, flags: u8, lba: u32, blocks: u32) -> [u8; 12] {
    let mut cdb = [0; 12];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[6..10].copy_from_slice(&blocks.to_be_bytes());
    cdb
}
