//! Fetching commands and starting them. All of a command (its header, its FIS and every PRD entry) is
//! read from guest memory once.

use paraslot_backends::block::{BlockOp, BlockRequest};
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace, Memory};
use paraslot_spec::ahci::fis::RegisterH2d;
use paraslot_spec::ahci::{COMMAND_FIS, CommandHeader, PortInterrupt, header};
use paraslot_spec::ata::{SECTOR, dsm, error};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromZeros, IntoBytes};

use super::{Batch, Command, End, MOST_ENTRIES, PortWorker, bit, place};
use crate::command::{Action, Failure, Protocol, Then, is_queued};
use crate::disk::{NcqError, TRIM_BLOCKS};
use crate::log::{Buffer, MOST_PAGES};
use crate::prdt::{Data, PrdError, gather};

/// A command as it was fetched.
struct Fetched {
    /// Address of its header.
    header: u64,
    /// Address of its table.
    table: u64,
    /// PRD entries in the table.
    entries: u32,
    fis: RegisterH2d,
}

fn fetch<A: DmaSpace>(memory: &Memory<A>, list: u64, slot: u32) -> Option<Fetched> {
    let at = list.checked_add(u64::from(slot) * size_of::<CommandHeader>() as u64)?;
    let mut header = CommandHeader::new_zeroed();
    memory.read_slice(header.as_mut_bytes(), GuestAddress(at)).ok()?;
    let table = header.table();
    let mut fis = RegisterH2d::new_zeroed();
    let words = usize::try_from(header.flags.get() & header::CFL).unwrap_or(0);
    // What the FIS is too short for reads as zeroes; what is longer than any command is not looked at.
    let len = (words * 4).min(size_of::<RegisterH2d>());
    let place = fis.as_mut_bytes().get_mut(..len)?;
    memory.read_slice(place, GuestAddress(table.checked_add(COMMAND_FIS)?)).ok()?;
    let entries = (header.flags.get() & header::PRDTL) >> header::PRDTL_SHIFT;
    Some(Fetched { header: at, table, entries, fis })
}

impl From<PrdError> for Failure {
    fn from(error: PrdError) -> Self {
        match error {
            // The device is stopped in the middle of its data.
            PrdError::Short => Self { causes: PortInterrupt::OFS, ..Failure::device(error::ABRT) },
            PrdError::Inaccessible => Failure::host(PortInterrupt::HBFS),
            PrdError::Odd => Failure::host(PortInterrupt::HBDS),
        }
    }
}

impl<A: DmaSpace> PortWorker<A> {
    /// Starts the commands of `batch` in turn, up to and including the first that is not queued, or
    /// that fails.
    pub(super) fn start(&mut self, memory: &Memory<A>, batch: &Batch) {
        let mut left = batch.slots;
        for offset in 0..u32::BITS {
            let slot = (batch.first + offset) % u32::BITS;
            if left == 0 || self.entries >= MOST_ENTRIES {
                break;
            }
            if left & bit(slot) == 0 {
                continue;
            }
            left &= !bit(slot);
            let failed = self.start_slot(memory, batch.list, slot);
            if failed || self.exclusive.is_some() {
                break;
            }
        }
        self.released |= left;
    }

    /// Starts one command; says whether it has failed.
    fn start_slot(&mut self, memory: &Memory<A>, list: u64, slot: u32) -> bool {
        let fetched = fetch(memory, list, slot);
        let (header, fis) = fetched
            .as_ref()
            .map_or((0, RegisterH2d::new_zeroed()), |fetched| (fetched.header, fetched.fis));
        let queued = is_queued(&fis);
        let mut command = Command {
            epoch: self.epoch,
            fis,
            header,
            protocol: if queued { Protocol::Queued } else { Protocol::NonData },
            bytes: 0,
            entries: 0,
            interrupt: false,
            then: Then::Nothing,
            end: End::Success,
        };
        let started = match fetched {
            Some(fetched) => self.perform(memory, &fetched, slot, &mut command),
            None => Err(Failure::host(PortInterrupt::HBFS)),
        };
        match started {
            Ok(true) => self.in_flight |= bit(slot),
            Ok(false) => self.finished |= bit(slot),
            Err(failure) => {
                command.end = End::Failed(failure);
                self.finished |= bit(slot);
            }
        }
        if queued {
            self.queued |= bit(slot);
            if !started.is_err_and(|failure| failure.is_host()) {
                self.accepted |= bit(slot);
            }
        } else {
            self.exclusive = Some(slot);
        }
        self.entries = self.entries.saturating_add(command.entries);
        if let Some(place) = self.commands.get_mut(place(slot)) {
            *place = Some(command);
        }
        started.is_err()
    }

    /// Decodes a command and does it, or has the backend do it: then returns true.
    fn perform(
        &mut self,
        memory: &Memory<A>,
        fetched: &Fetched,
        slot: u32,
        command: &mut Command,
    ) -> Result<bool, Failure> {
        let fis = &fetched.fis;
        if self.queued != 0 && command.protocol != Protocol::Queued {
            // Any other command ends all queued ones (ACS-4, NCQ feature set).
            let failure = Failure::ABORTED;
            self.disk.ncq_error.get_or_insert(ncq_error(None, fis, &failure));
            return Err(failure);
        }
        let mut data: Buffer = [0; MOST_PAGES * SECTOR];
        match self.disk.decode(fis, slot, &mut data)? {
            Action::Transfer { op, lba, sectors, protocol } => {
                let size = u64::from(self.disk.geometry.sector_size);
                let len = size * u64::from(sectors);
                let direction = match op {
                    BlockOp::Read => Direction::FromDevice,
                    _ => Direction::ToDevice,
                };
                command.protocol = protocol;
                command.then = match op {
                    BlockOp::Read => Then::CountRead(sectors),
                    _ => Then::CountWritten(sectors),
                };
                let buffers = gather_for(memory, fetched, len, direction, command)?;
                let offset = lba.saturating_mul(size);
                self.submit(BlockRequest { token: slot.into(), op, offset, len, buffers })
            }
            Action::Flush(then) => {
                command.then = then;
                let buffers = DmaBuffers::empty(Direction::ToDevice);
                let op = BlockOp::Flush;
                self.submit(BlockRequest { token: slot.into(), op, offset: 0, len: 0, buffers })
            }
            Action::Trim { blocks } => {
                command.protocol = Protocol::Dma;
                let len = u64::from(blocks) * SECTOR as u64;
                let buffers = gather_for(memory, fetched, len, Direction::ToDevice, command)?;
                self.begin_trim(slot, &buffers)
            }
            Action::Reply { len, protocol } => {
                command.protocol = protocol;
                let direction = Direction::FromDevice;
                let buffers = gather_for(memory, fetched, len as u64, direction, command)?;
                buffers.copy_from(data.get(..len).unwrap_or_default());
                Ok(false)
            }
            Action::Done(output) => {
                command.end = End::Output(output);
                Ok(false)
            }
            Action::Accepted => {
                command.end = End::Accepted;
                Ok(false)
            }
            Action::Signature => {
                command.end = End::Signature;
                Ok(false)
            }
            Action::Hang => {
                command.end = End::Hang;
                Ok(false)
            }
        }
    }

    fn submit(&mut self, request: BlockRequest) -> Result<bool, Failure> {
        // A slot has one operation, so there is room.
        self.queue.submit(request).map(|()| true).map_err(|_| Failure::ABORTED)
    }

    /// Reads a list of ranges. All are checked before the first is trimmed; neighbours become one.
    fn begin_trim(&mut self, slot: u32, list: &DmaBuffers) -> Result<bool, Failure> {
        let mut bytes = [0; TRIM_BLOCKS as usize * SECTOR];
        let len = list.copy_to(&mut bytes);
        let size = u64::from(self.disk.geometry.sector_size);
        let ranges = &mut self.trim.ranges;
        ranges.clear();
        for entry in bytes.get(..len).unwrap_or_default().chunks_exact(dsm::ENTRY_LEN) {
            let (lba, sectors) = dsm::range(entry.try_into().unwrap_or_default());
            if sectors == 0 {
                continue;
            }
            if !self.disk.geometry.holds(lba, sectors.into()) {
                ranges.clear();
                let lba = Some(lba.max(self.disk.geometry.sectors));
                return Err(Failure { lba, ..Failure::device(error::IDNF | error::ABRT) });
            }
            let (offset, len) = (lba.saturating_mul(size), u64::from(sectors) * size);
            match ranges.last_mut() {
                Some((start, length)) if start.checked_add(*length) == Some(offset) => {
                    *length = length.saturating_add(len);
                }
                _ => ranges.push((offset, len)),
            }
        }
        ranges.reverse();
        self.submit_trims(slot);
        if self.trim.outstanding == 0 && !self.trim.ranges.is_empty() {
            self.trim.ranges.clear();
            return Err(Failure::ABORTED);
        }
        Ok(self.trim.outstanding != 0)
    }
}

/// The data buffers of a command that moves `len` bytes.
fn gather_for<A: DmaSpace>(
    memory: &Memory<A>,
    fetched: &Fetched,
    len: u64,
    direction: Direction,
    command: &mut Command,
) -> Result<DmaBuffers, Failure> {
    let Fetched { table, entries, .. } = *fetched;
    let Data { buffers, entries, interrupt } = gather(memory, table, entries, len, direction)?;
    command.bytes = u32::try_from(len).unwrap_or(u32::MAX);
    command.entries = entries;
    command.interrupt = interrupt;
    Ok(buffers)
}

/// What the NCQ command error log is to tell of a failure.
pub(super) fn ncq_error(tag: Option<u32>, fis: &RegisterH2d, failure: &Failure) -> NcqError {
    NcqError {
        tag: tag.and_then(|tag| u8::try_from(tag).ok()),
        status: failure.status,
        error: failure.error,
        lba: failure.lba.unwrap_or(fis.lba48()),
        device: fis.device,
        count: fis.count.get(),
    }
}
