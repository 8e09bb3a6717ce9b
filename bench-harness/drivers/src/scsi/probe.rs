//! Finding a disk, and what it is like: as Linux's mid layer and `sd` do it.

use core::mem::offset_of;

use paraslot_spec::scsi::block::{CAPACITY_10_MORE, Capacity10, Capacity16, LBPME};
use paraslot_spec::scsi::inquiry::{STANDARD_MIN, Standard, device_type, qualifier};
use paraslot_spec::scsi::sense::{code, key};
use paraslot_spec::scsi::vpd::{self, block_limits, provisioning};
use paraslot_spec::scsi::{lun, mode, opcode};

use super::ending::Medium;
use super::unit::Discard;
use super::{
    Address, Buffer, COMMAND_MS, Cdb, Data, Direction, Ended, MAX_RETRIES, Outcome, Request, Sense,
    Unit,
};
use crate::error::{cycles, delay, wait_until};
use crate::{DmaRegion, Error, Platform};

/// Bytes of memory for what a probe reads.
const PROBE_LEN: usize = 4096;
/// Where in it the LUNs of a target go, and how much room they have.
const LUNS: usize = PROBE_LEN / 2;
const LUNS_LEN: usize = PROBE_LEN - LUNS;
/// Bytes of other data that are asked for at most: what one byte of allocation length can say.
const DATA_LEN: u8 = 252;
/// How long a disk may take to become ready, in milliseconds.
const READY_MS: u64 = 10_000;
/// How long is waited before it is looked at again, in microseconds.
const READY_LOOK_US: u64 = 100_000;
/// Additional sense code: no medium, whatever the qualifier.
const NO_MEDIUM: u8 = code::NO_MEDIUM.0;
/// Pages of vital product data that are looked at in the list of them.
const LISTED: usize = 64;
/// Bytes of the header of MODE SENSE (6)'s data: what is specific to the device type, and how many
/// bytes of block descriptors come before the page.
const MODE_SPECIFIC: usize = 2;
const MODE_DESCRIPTORS: usize = 3;
/// Blocks of an UNMAP or WRITE SAME (16) whose limit is not known: Linux's choice.
const USUAL_RANGE: u32 = 0x7f_ffff;
/// Most bytes of a read or write of any disk.
const MAX_TRANSFER: u32 = 1 << 30;

/// The way to units: what a probe needs of a transport.
pub(crate) trait Host {
    /// The machine.
    type Platform: Platform;

    /// The machine.
    fn platform(&self) -> &Self::Platform;

    /// Has a command carried out, while nothing else is in flight, and waits for it.
    fn run(&mut self, address: Address, request: &Request) -> Result<Ended, Error>;

    /// The same with a command whose data is where the caller has it.
    fn execute(&mut self, address: Address, cdb: &Cdb, data: Data<'_>) -> Result<Ended, Error> {
        self.run(address, &Request { cdb: *cdb, buffer: Buffer::of(data)? })
    }
}

/// Waits for the only command in flight: `next` gives the next one that has ended, and its tag.
pub(crate) fn wait_for(
    platform: &impl Platform,
    mut next: impl FnMut() -> Result<Option<(u16, Ended)>, Error>,
) -> Result<(u16, Ended), Error> {
    let mut ended = Ok(None);
    wait_until(platform, COMMAND_MS, "command", || {
        ended = next();
        !matches!(ended, Ok(None))
    })?;
    ended?.ok_or(Error::Timeout("command"))
}

/// What a probe read: no more than was moved.
struct Answer {
    memory: DmaRegion,
    len: usize,
}

impl Answer {
    /// A byte; zero if it was not moved.
    fn byte(&self, at: usize) -> u8 {
        if at < self.len { self.memory.read8(at) } else { 0 }
    }

    /// A number of `len` bytes, big-endian. What was not moved is zero.
    fn number(&self, at: usize, len: usize) -> u64 {
        (at..at + len).fold(0, |number, at| number << 8 | u64::from(self.byte(at)))
    }

    /// The same, of four bytes.
    fn number32(&self, at: usize) -> u32 {
        (at..at + 4).fold(0, |number, at| number << 8 | u32::from(self.byte(at)))
    }

    /// Bytes, all of which were moved.
    fn bytes<const LEN: usize>(&self, at: usize) -> Option<[u8; LEN]> {
        let mut bytes = [0; LEN];
        (at + LEN <= self.len).then(|| self.memory.read_bytes(at, &mut bytes))?;
        Some(bytes)
    }
}

struct Probe<'h, H> {
    host: &'h mut H,
    memory: DmaRegion,
}

/// The first disk: of the first of the targets below `targets` that has one, the first in the order
/// of its REPORT LUNS. `max_transfer` is the most that the host can move at once, in bytes.
pub(crate) fn find_disk<H: Host>(
    host: &mut H,
    targets: u16,
    max_transfer: u64,
) -> Result<Unit, Error> {
    let memory = host.platform().allocate(PROBE_LEN).ok_or(Error::NoMemory)?;
    let mut probe = Probe { host, memory };
    for target in (0..=u8::MAX).take(targets.into()) {
        let luns = probe.luns(target)?;
        // A target that does not know the command has a unit 0, if it has any.
        let count = luns.as_ref().map_or(1, |luns| {
            let listed = luns.number(0, 4).min((LUNS_LEN - lun::REPORT_HEADER) as u64);
            usize::try_from(listed).unwrap_or(0) / lun::LEN
        });
        for index in 0..count {
            let lun = match &luns {
                Some(luns) => {
                    let at = lun::REPORT_HEADER + lun::LEN * index;
                    luns.bytes(at).and_then(lun::decode)
                }
                None => Some(0),
            };
            // Other forms are of hierarchies, or of well known units.
            let Some(lun) = lun else { continue };
            if let Some(unit) = probe.examine(Address { target, lun }, max_transfer)? {
                return Ok(unit);
            }
        }
    }
    Err(Error::NotFound)
}

impl<H: Host> Probe<'_, H> {
    fn run(&mut self, address: Address, cdb: Cdb, buffer: Buffer) -> Result<Ended, Error> {
        let request = Request { cdb, buffer };
        let mut ended = self.host.run(address, &request)?;
        for _ in 0..MAX_RETRIES {
            if !ended.is_passing(Medium::Any) {
                break;
            }
            ended = self.host.run(address, &request)?;
        }
        Ok(ended)
    }

    /// Has data read to `offset`, up to `len` bytes of it; `None` if it is not to be had.
    fn read_to(
        &mut self,
        offset: usize,
        len: usize,
        address: Address,
        cdb: Cdb,
    ) -> Result<Result<Answer, Ended>, Error> {
        let memory = self.memory.part(offset, len);
        // What the device says that it has moved, and has not, is not what was there before.
        memory.fill_pattern(0, len, 0, 0);
        let len = u32::try_from(len).unwrap_or(0);
        let ended = self.run(address, cdb, Buffer::new(&memory, len, Direction::In))?;
        let moved = usize::try_from(ended.moved.min(len)).unwrap_or(0);
        Ok(if ended.is_done() { Ok(Answer { memory, len: moved }) } else { Err(ended) })
    }

    fn read(&mut self, len: u8, address: Address, cdb: Cdb) -> Result<Option<Answer>, Error> {
        Ok(self.read_to(0, len.into(), address, cdb)?.ok())
    }

    /// The units of a target: its answer to REPORT LUNS, or none if it does not know that. Of a target
    /// that is not there an empty one.
    fn luns(&mut self, target: u8) -> Result<Option<Answer>, Error> {
        let address = Address { target, lun: 0 };
        let len = u32::try_from(LUNS_LEN).unwrap_or(0);
        let answer = self.read_to(LUNS, LUNS_LEN, address, Cdb::report_luns(len))?;
        Ok(match answer {
            Ok(answer) => Some(answer),
            Err(Ended { outcome: Outcome::Absent, .. }) => {
                Some(Answer { memory: self.memory.clone(), len: 0 })
            }
            Err(_) => None,
        })
    }

    /// What the unit is like; `None` if it is no disk.
    fn examine(&mut self, address: Address, max_transfer: u64) -> Result<Option<Unit>, Error> {
        let len = const { byte(STANDARD_MIN) };
        let inquiry = self.read(len, address, Cdb::inquiry(None, len.into()))?;
        let Some(inquiry) = inquiry.filter(|inquiry| inquiry.len != 0) else { return Ok(None) };
        if inquiry.byte(offset_of!(Standard, peripheral))
            != device_type::DISK | qualifier::CONNECTED
        {
            return Ok(None);
        }
        let cut = Error::Protocol("its INQUIRY data is cut off");
        let vendor = inquiry.bytes(offset_of!(Standard, vendor)).ok_or(cut)?;
        let product = inquiry.bytes(offset_of!(Standard, product)).ok_or(cut)?;
        self.wait_until_ready(address)?;
        let (capacity, block_size, managed) = self.capacity(address)?;
        let (writable, write_cache) = self.mode(address)?;
        let mut unit = Unit {
            address,
            capacity,
            block_size,
            max_transfer: 0,
            writable,
            write_cache,
            discard: None,
            max_unmap: USUAL_RANGE,
            max_write_same: USUAL_RANGE,
            zeroes: None,
            vendor,
            product,
        };
        self.limits(&mut unit, managed, max_transfer)?;
        Ok(Some(unit))
    }

    fn wait_until_ready(&mut self, address: Address) -> Result<(), Error> {
        let platform = self.host.platform();
        let (limit, start) = (cycles(platform.tsc_hz(), READY_MS), platform.tsc());
        let mut started = false;
        loop {
            let late = self.host.platform().tsc().wrapping_sub(start) > limit;
            let ended = self.run(address, Cdb::test_unit_ready(), Buffer::default())?;
            if ended.is_done() {
                return Ok(());
            }
            match ended.outcome {
                Outcome::Check(Some(Sense { key: key::NOT_READY, code, .. })) => match code {
                    (NO_MEDIUM, _) => return Err(Error::Unsupported("reads without a medium")),
                    code::NOT_READY_START if !started => {
                        started = true;
                        self.run(address, Cdb::start_unit(), Buffer::default())?;
                    }
                    _ => {}
                },
                _ if ended.is_passing(Medium::Any) => {}
                _ => return Err(Error::Protocol("its disk does not become ready")),
            }
            if late {
                return Err(Error::Timeout("disk ready"));
            }
            delay(self.host.platform(), READY_LOOK_US);
        }
    }

    /// Bytes of the disk and of a block, and whether logical block provisioning is managed.
    fn capacity(&mut self, address: Address) -> Result<(u64, u32, bool), Error> {
        let len = const { byte(size_of::<Capacity16>()) };
        let long = self.read(len, address, Cdb::read_capacity_16(len.into()))?;
        let (last, block, flags) = match long {
            Some(long) => {
                let last = long.number(offset_of!(Capacity16, last), 8);
                let flags = long.number(offset_of!(Capacity16, alignment), 2);
                (last, long.number32(offset_of!(Capacity16, block)), flags)
            }
            None => {
                let len = const { byte(size_of::<Capacity10>()) };
                let short = self.read(len, address, Cdb::read_capacity_10())?;
                let short = short.ok_or(Error::Protocol("its disk does not say its capacity"))?;
                let last = short.number32(offset_of!(Capacity10, last));
                if last == CAPACITY_10_MORE {
                    return Err(Error::Unsupported("READ CAPACITY (16)"));
                }
                (last.into(), short.number32(offset_of!(Capacity10, block)), 0)
            }
        };
        if !block.is_power_of_two() || !(512..=65536).contains(&block) {
            return Err(Error::Protocol("its block size makes no sense"));
        }
        let blocks = last.checked_add(1);
        let capacity = blocks.and_then(|blocks| blocks.checked_mul(block.into()));
        let capacity = capacity.ok_or(Error::Protocol("its capacity makes no sense"))?;
        Ok((capacity, block, flags & u64::from(LBPME) != 0))
    }

    /// Whether it can be written, and whether its write cache is in use. A disk that does not say can
    /// be, and has none: so does `sd` see it.
    fn mode(&mut self, address: Address) -> Result<(bool, bool), Error> {
        let cdb = Cdb::mode_sense(mode::page::CACHING, DATA_LEN);
        let Some(answer) = self.read(DATA_LEN, address, cdb)? else { return Ok((true, false)) };
        let writable = answer.byte(MODE_SPECIFIC) & mode::WP == 0;
        let page = mode::HEADER_6 + usize::from(answer.byte(MODE_DESCRIPTORS));
        let caching = answer.byte(page) & mode::page::MASK == mode::page::CACHING;
        let flags = answer.byte(page + mode::caching::FLAGS);
        Ok((writable, caching && flags & mode::caching::WCE != 0))
    }

    /// A page of vital product data, of those that are `listed`.
    fn page(&mut self, listed: &[u8], address: Address, page: u8) -> Result<Option<Answer>, Error> {
        if !listed.contains(&page) {
            return Ok(None);
        }
        let answer = self.read(DATA_LEN, address, Cdb::inquiry(Some(page), DATA_LEN.into()))?;
        let answer = answer.filter(|answer| answer.byte(1) == page);
        Ok(answer.map(|answer| {
            let len = usize::try_from(answer.number(2, 2)).unwrap_or(0) + vpd::HEADER;
            Answer { len: len.min(answer.len), ..answer }
        }))
    }

    /// How much it does at once, and what it does besides reading and writing.
    fn limits(&mut self, unit: &mut Unit, managed: bool, host: u64) -> Result<(), Error> {
        let address = unit.address;
        let mut listed = [0; LISTED];
        let pages = self.page(&[vpd::page::SUPPORTED], address, vpd::page::SUPPORTED)?;
        if let Some(pages) = pages {
            for (at, page) in listed.iter_mut().enumerate() {
                *page = pages.byte(vpd::HEADER + at);
            }
        }
        let mut limit = None;
        let block = u64::from(unit.block_size);
        if let Some(limits) = self.page(&listed, address, vpd::page::BLOCK_LIMITS)? {
            let above_zero = |number: u64| (number != 0).then_some(number);
            let range = |at, len| {
                let blocks = above_zero(limits.number(at, len))?;
                Some(u32::try_from(blocks).unwrap_or(u32::MAX))
            };
            limit = above_zero(limits.number(block_limits::MAX_TRANSFER, 4));
            unit.max_unmap = range(block_limits::MAX_UNMAP_BLOCKS, 4).unwrap_or(USUAL_RANGE);
            unit.max_write_same = range(block_limits::MAX_WRITE_SAME, 8).unwrap_or(USUAL_RANGE);
        }
        let bytes = limit.map_or(u64::MAX, |blocks| blocks.saturating_mul(block));
        let most = bytes.min(host).min(MAX_TRANSFER.into()) / block * block;
        unit.max_transfer = u32::try_from(most).unwrap_or(MAX_TRANSFER);
        if unit.max_transfer == 0 {
            return Err(Error::Unsupported("transfers of a block"));
        }
        if let Some(page) =
            self.page(&listed, address, vpd::page::PROVISIONING)?.filter(|_| managed)
        {
            let flags = page.byte(provisioning::FLAGS);
            unit.discard = match flags {
                _ if flags & provisioning::LBPU != 0 => Some(Discard::Unmap),
                _ if flags & provisioning::LBPWS != 0 => Some(Discard::WriteSame),
                _ => None,
            };
        }
        if unit.discard == Some(Discard::WriteSame) || self.knows(address, opcode::WRITE_SAME_16)? {
            let zeroes = self.host.platform().allocate(usize::try_from(block).unwrap_or(0));
            unit.zeroes = Some(zeroes.ok_or(Error::NoMemory)?);
        }
        Ok(())
    }

    /// Whether the unit says that it knows a command.
    fn knows(&mut self, address: Address, code: u8) -> Result<bool, Error> {
        let cdb = Cdb::report_supported(code, DATA_LEN.into());
        let answer = self.read(DATA_LEN, address, cdb)?;
        let support = answer.map_or(0, |answer| answer.byte(opcode::supported::SUPPORT));
        let support = support & opcode::supported::SUPPORT_MASK;
        Ok(matches!(support, opcode::supported::STANDARD | opcode::supported::VENDOR))
    }
}

/// A length below 256.
const fn byte(len: usize) -> u8 {
    assert!(len < 256);
    len.to_le_bytes()[0]
}
