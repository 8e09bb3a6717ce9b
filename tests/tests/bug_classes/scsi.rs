//! What SCSI host adapters are to a test that does not care which it is, and commands for them.

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::block::BlockBackend;
use paraslot_scsi::Bus;
use paraslot_spec::scsi::{opcode, status};
use paraslot_tests::bench::Bench;
use paraslot_tests::scsi::one_disk;

use crate::support::{Random, SECTORS, image_byte};

/// Bytes of guest memory.
pub(crate) const MEMORY: usize = 1 << 20;
/// Of a command: what the adapter reads of it, its answer or sense data, and lists. One place for each
/// of 16.
pub(crate) const PLACES: u64 = 0x4_0000;
pub(crate) const PLACE_LEN: u64 = 0x1000;
pub(crate) const ANSWER: u64 = 0x200;
pub(crate) const LIST: u64 = 0x400;
/// And its data.
pub(crate) const DATA: u64 = 0x8_0000;
pub(crate) const DATA_LEN: u64 = 0x4000;
/// Most commands that can be pending.
pub(crate) const MOST: usize = 12;
/// Bytes of sense data that there is room for.
pub(crate) const SENSE: u32 = 96;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    None,
    /// To the guest.
    In,
    Out,
}

/// A command.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) target: u8,
    pub(crate) lun: u8,
    pub(crate) cdb: [u8; 16],
    pub(crate) way: Way,
    /// Address and length of each piece.
    pub(crate) data: Vec<(u64, u32)>,
}

impl Command {
    pub(crate) fn new(cdb: [u8; 16], way: Way, data: &[(u64, u32)]) -> Self {
        Self { target: 0, lun: 0, cdb, way, data: data.to_vec() }
    }

    /// A read of sectors to one place.
    pub(crate) fn read(lba: u64, count: u16, place: u64) -> Self {
        let data = [(place, 512 * u32::from(count))];
        Self::new(blocks(opcode::READ_10, lba, count.into()), Way::In, &data)
    }

    /// Bytes of data.
    pub(crate) fn len(&self) -> u64 {
        self.data.iter().map(|(_, len)| u64::from(*len)).sum()
    }

    pub(crate) fn is_read(&self) -> bool {
        matches!(self.cdb[0], opcode::READ_10 | opcode::READ_16)
    }

    /// The first byte of the image that it reads.
    pub(crate) fn offset(&self) -> u64 {
        let [_, _, a, b, c, d, e, f, g, h, ..] = self.cdb;
        512 * match self.cdb[0] {
            opcode::READ_10 => u32::from_be_bytes([a, b, c, d]).into(),
            _ => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        }
    }
}

/// The CDB of a command on blocks, of 10 or 16 bytes.
pub(crate) fn blocks(code: u8, lba: u64, count: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = code;
    if code < 0x80 {
        cdb[2..6].copy_from_slice(&u32::try_from(lba).expect("32 bits").to_be_bytes());
        cdb[7..9].copy_from_slice(&u16::try_from(count).expect("16 bits").to_be_bytes());
    } else {
        cdb[2..10].copy_from_slice(&lba.to_be_bytes());
        cdb[10..14].copy_from_slice(&count.to_be_bytes());
    }
    cdb
}

/// The list of UNMAP with these ranges.
pub(crate) fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let len = u16::try_from(16 * ranges.len()).expect("small");
    let mut list = vec![0; 8];
    list[..2].copy_from_slice(&(len + 6).to_be_bytes());
    list[2..4].copy_from_slice(&len.to_be_bytes());
    for (lba, count) in ranges {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&count.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

/// A command that was put.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) tag: u64,
    pub(crate) command: Command,
    /// Where its answer goes: address, length.
    pub(crate) answer: (u64, u64),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) tag: u64,
    /// The unit's status, or the adapter's reason why there is none.
    pub(crate) status: Result<u8, u16>,
    /// Bytes of data that are said to be moved.
    pub(crate) moved: u64,
    pub(crate) sense: Vec<u8>,
    /// Bytes of its answer's place that were written.
    pub(crate) answered: u64,
}

impl Done {
    pub(crate) fn is_good(&self) -> bool {
        self.status == Ok(status::GOOD)
    }

    /// The sense key, if there is one: descriptor or fixed format.
    pub(crate) fn key(&self) -> Option<u8> {
        let first = *self.sense.first()?;
        self.sense.get(if first & 0x7f >= 0x72 { 1 } else { 2 }).map(|key| key & 0xf)
    }
}

/// A guest's adapter, up and running.
pub(crate) trait Hba: Sized {
    /// Its name in messages.
    const NAME: &str;

    /// In front of `bus`; resets wait for so long.
    fn make(bus: Bus, patience: Duration) -> Self;
    fn bench(&mut self) -> &mut Bench;
    fn into_bench(self) -> Bench;
    /// Resets it, with nothing in flight, and brings it up.
    fn start(&mut self);
    /// A place that no pending command has, 0 to 15: where the next one goes.
    fn free(&self) -> u64;
    /// Puts a command there, without a notification.
    fn put(&mut self, command: &Command) -> Pending;
    fn kick(&mut self);
    /// The next command that is over.
    fn take(&mut self) -> Option<Done>;
    /// Where the adapter itself may write: address, length.
    fn own(&self) -> Vec<(u64, u64)>;
    /// Resets a unit, and waits for the answer.
    fn reset_unit(&mut self, target: u8);

    /// In front of one disk.
    fn of(backend: Arc<dyn BlockBackend>) -> Self {
        Self::make(one_disk(backend), Duration::from_secs(5))
    }

    /// The workers, to their rest.
    fn run(&mut self) {
        assert!(self.bench().executor.run(2000), "{}: the workers do not come to rest", Self::NAME);
    }

    /// Carries out a command.
    fn carry_out(&mut self, command: &Command) -> Done {
        let pending = self.put(command);
        self.kick();
        self.run();
        let done = self.take().unwrap_or_else(|| panic!("{}: no answer", Self::NAME));
        assert_eq!(done.tag, pending.tag);
        assert_eq!(self.take(), None, "{}: answered again", Self::NAME);
        done
    }

    /// Any command, which is pending then. Its data is in the place that belongs to it.
    fn put_any(&mut self, several: bool, random: &mut Random) -> Pending {
        let place = DATA + self.free() * DATA_LEN;
        let command = any_command(self.bench(), place, several, random);
        self.put(&command)
    }

    /// Has the unit say what it has to say first.
    fn hear(&mut self) {
        let unit_ready = Command::new([opcode::TEST_UNIT_READY; 16], Way::None, &[]);
        for _ in 0..4 {
            if self.carry_out(&unit_ready).is_good() {
                return;
            }
        }
        panic!("{}: the unit is not ready", Self::NAME);
    }

    /// Reads sectors 3 and 4, which succeeds after at most `failures`; attentions and faults are.
    fn reads_within(&mut self, failures: u32) {
        let place = DATA + 15 * DATA_LEN;
        for _ in 0..=failures {
            let done = self.carry_out(&Command::read(3, 2, place));
            if !done.is_good() {
                continue;
            }
            assert_eq!(done.moved, 1024);
            let mut data = [0; 1024];
            self.bench().peek(place, &mut data);
            assert!((3 * 512..).zip(data).all(|(at, byte)| byte == image_byte(at)));
            return;
        }
        panic!("{}: no read succeeds", Self::NAME);
    }

    /// It works: a read succeeds, after the attentions that there may be.
    fn works(&mut self) {
        self.reads_within(3);
    }
}

/// A command of any kind that is right in all its parts. Reads are of the first half of the image,
/// everything that changes it is in the second. With `several`, also those that a unit carries out in
/// several operations.
pub(crate) fn any_command(
    bench: &Bench,
    place: u64,
    several: bool,
    random: &mut Random,
) -> Command {
    let half = SECTORS / 2;
    let count = u32::try_from(1 + random.below(8)).expect("small");
    let low = random.below(half - 8);
    let high = half + low;
    let bytes = 512 * count;
    let (cdb, way, len) = match random.below(if several { 13 } else { 9 }) {
        0 | 1 => (blocks(opcode::READ_10, low, count), Way::In, bytes),
        2 => (blocks(opcode::READ_16, low, count), Way::In, bytes),
        3 => (blocks(opcode::WRITE_10, high, count), Way::Out, bytes),
        4 => (blocks(opcode::WRITE_16, high, count), Way::Out, bytes),
        5 => (blocks(opcode::SYNCHRONIZE_CACHE_10, 0, 0), Way::None, 0),
        6 => {
            let mut cdb = [0; 16];
            (cdb[0], cdb[4]) = (opcode::INQUIRY, 96);
            (cdb, Way::In, 96)
        }
        7 => {
            let mut cdb = [0; 16];
            (cdb[0], cdb[2], cdb[4]) = (opcode::MODE_SENSE_6, 0x3f, 192);
            (cdb, Way::In, 192)
        }
        8 => {
            let mut cdb = [0; 16];
            (cdb[0], cdb[9]) = (opcode::REPORT_LUNS, 64);
            (cdb, Way::In, 64)
        }
        9 => (blocks(opcode::WRITE_SAME_16, high, count), Way::Out, 512),
        10 => {
            let mut cdb = [0; 16];
            (cdb[0], cdb[8]) = (opcode::UNMAP, 40);
            (cdb, Way::Out, 40)
        }
        11 => {
            let mut cdb = blocks(opcode::VERIFY_10, high, count);
            cdb[1] = 2;
            (cdb, Way::Out, bytes)
        }
        _ => {
            let mut cdb = blocks(opcode::COMPARE_AND_WRITE, high, 0);
            cdb[13] = 1;
            (cdb, Way::Out, 1024)
        }
    };
    // Cut into pieces with gaps between them.
    let (mut data, mut address, mut left) = (Vec::new(), place, u64::from(len));
    while left != 0 {
        let part = (16 * (1 + random.below(64))).min(left);
        data.push((address, u32::try_from(part).expect("small")));
        address += part + random.below(40);
        left -= part;
    }
    if cdb[0] == opcode::UNMAP {
        scatter(bench, &data, &unmap_list(&[(high, count), (half, 1)]));
    }
    Command::new(cdb, way, &data)
}

/// Writes bytes to pieces of memory.
pub(crate) fn scatter(bench: &Bench, pieces: &[(u64, u32)], mut bytes: &[u8]) {
    for (address, len) in pieces {
        let (now, then) = bytes.split_at(bytes.len().min(usize::try_from(*len).expect("small")));
        bench.poke(*address, now);
        bytes = then;
    }
}

/// The first of 16 places that none of the pending commands has.
pub(crate) fn free_place<'a>(pending: impl Iterator<Item = &'a Pending> + Clone) -> u64 {
    let used = |slot: u64| PLACES + slot * PLACE_LEN + ANSWER;
    (0..16)
        .find(|slot| pending.clone().all(|pending| pending.answer.0 != used(*slot)))
        .unwrap_or_else(|| panic!("{} commands are pending", pending.count()))
}

/// Where the data of the pending commands goes that write to the guest.
pub(crate) fn data_of(pending: &[Pending]) -> Vec<(u64, u32)> {
    let reads = pending.iter().filter(|pending| pending.command.way == Way::In);
    reads.flat_map(|pending| pending.command.data.clone()).collect()
}
