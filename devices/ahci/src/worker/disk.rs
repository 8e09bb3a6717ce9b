//! The ATA disk behind a port, and its operations at the backend.

use paraslot_backends::block::{BlockCompletion, BlockError, BlockOp, BlockQueue, BlockRequest};
use paraslot_device::dma::Direction;
use paraslot_device::{DeviceError, DmaBuffers, DmaSpace, Memory, Progress, Sources, StateError};
use paraslot_spec::ahci::fis::RegisterH2d;
use paraslot_spec::ahci::{PortInterrupt, SIGNATURE_ATA};
use paraslot_spec::ata::{SECTOR, dsm, error, status};

use super::{Attached, Command, Commands, End, Fetched, bit, gather_for, place};
use crate::command::{Action, Failure, Output, Protocol, SIGNATURE, Then, is_queued};
use crate::disk::{Disk, DiskState, NcqError, READY, TRIM_BLOCKS, Trim};
use crate::log::{Buffer, MOST_PAGES};
use crate::options::DiskOptions;

/// Operations that a disk keeps in flight at most: one for each slot, or trimming's ranges.
const QUEUE_DEPTH: u32 = 32;

/// A disk, and its image's queue.
pub(crate) struct DiskDevice {
    disk: Disk,
    queue: Box<dyn BlockQueue>,
    trim: Trimming,
    completions: Vec<BlockCompletion>,
}

/// The ranges of the one DATA SET MANAGEMENT command that can be in progress, in bytes.
#[derive(Default)]
struct Trimming {
    /// Still to be submitted, the next one last.
    ranges: Vec<(u64, u64)>,
    outstanding: u32,
}

impl DiskDevice {
    /// # Errors
    /// When the backend cannot be opened.
    pub(crate) fn new(options: DiskOptions) -> Result<Self, DeviceError> {
        let queue = options.backend.open_queue(QUEUE_DEPTH).map_err(DeviceError::Backend)?;
        let (trim, completions) = (Trimming::default(), Vec::new());
        Ok(Self { disk: Disk::new(options), queue, trim, completions })
    }

    /// An operation of the command in `slot` has ended; says whether the command has.
    fn completed(
        &mut self,
        commands: &mut Commands,
        slot: u32,
        result: Result<(), BlockError>,
    ) -> bool {
        let Some(Some(command)) = commands.get_mut(place(slot)) else { return false };
        if let Err(error) = result {
            command.end = End::Failed(failure(command, &error));
        }
        if self.trim.outstanding != 0 {
            self.trim.outstanding -= 1;
            if command.end != End::Success {
                self.trim.ranges.clear();
            }
            self.submit_trims(slot);
            self.queue.commit();
            if self.trim.outstanding != 0 {
                return false;
            }
            // A queue that refuses a range though it holds nothing fails the trim.
            if !self.trim.ranges.is_empty() {
                self.trim.ranges.clear();
                command.end = End::Failed(Failure::ABORTED);
            }
        }
        true
    }

    /// Hands ranges of a trim to the backend, as many as it takes.
    fn submit_trims(&mut self, slot: u32) {
        let op = self.disk.geometry.trim.unwrap_or(Trim::Discard).op();
        while self.trim.outstanding < QUEUE_DEPTH
            && let Some((offset, len)) = self.trim.ranges.pop()
        {
            let buffers = DmaBuffers::empty(Direction::ToDevice);
            let request = BlockRequest { token: slot.into(), op, offset, len, buffers };
            if self.queue.submit(request).is_err() {
                self.trim.ranges.push((offset, len));
                return;
            }
            self.trim.outstanding += 1;
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

impl Attached for DiskDevice {
    const SIGNATURE: Output = SIGNATURE;
    const PXSIG: u32 = SIGNATURE_ATA;

    fn is_queued(fis: &RegisterH2d) -> bool {
        is_queued(fis)
    }

    type Saved = DiskState;

    fn save(&self) -> Result<DiskState, StateError> {
        // Nothing is at the backend, so that nothing is left to be trimmed.
        let Self { disk, queue: _, trim: _, completions: _ } = self;
        Ok(disk.save())
    }

    fn check(&self, saved: &DiskState) -> Result<(), StateError> {
        self.disk.check(saved)
    }

    fn restore(&mut self, saved: DiskState) -> Result<(), StateError> {
        self.disk.restore(saved);
        Ok(())
    }

    fn has(&self, protocol: Protocol, then: Then) -> bool {
        if then == Then::DisableWriteCache && !self.disk.geometry.volatile_cache {
            return false;
        }
        match protocol {
            Protocol::PioIn(block) => block != 0,
            Protocol::Packet(_) => false,
            Protocol::Queued | Protocol::Dma | Protocol::PioOut | Protocol::NonData => true,
        }
    }

    fn sources(&self) -> Sources {
        self.queue.sources()
    }

    fn hurry(&mut self) {
        self.queue.hurry();
        self.queue.commit();
    }

    fn perform<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        fetched: &Fetched,
        slot: u32,
        command: &mut Command,
    ) -> Result<bool, Failure> {
        let fis = &fetched.fis;
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

    fn commit(&mut self) {
        self.queue.commit();
    }

    fn complete(&mut self, commands: &mut Commands) -> (u32, Progress) {
        let mut completions = std::mem::take(&mut self.completions);
        self.queue.complete(&mut completions);
        let progress = if completions.is_empty() { Progress::Idle } else { Progress::More };
        let mut ended = 0;
        for BlockCompletion { token, result } in completions.drain(..) {
            let Ok(slot) = u32::try_from(token) else { continue };
            if self.completed(commands, slot, result) {
                ended |= bit(slot);
            }
        }
        self.completions = completions;
        (ended, progress)
    }

    fn apply(&mut self, then: Then) {
        match then {
            Then::Nothing => {}
            Then::SetPower(power) => self.disk.power = power,
            Then::DisableWriteCache => self.disk.settings.write_cache = false,
            Then::CountRead(sectors) => {
                self.disk.smart.sectors_read =
                    self.disk.smart.sectors_read.wrapping_add(sectors.into());
            }
            Then::CountWritten(sectors) => {
                self.disk.smart.sectors_written =
                    self.disk.smart.sectors_written.wrapping_add(sectors.into());
            }
        }
    }

    fn queued_failed(&mut self, slot: Option<u32>, fis: &RegisterH2d, failure: &Failure) {
        self.disk.ncq_error.get_or_insert(ncq_error(slot, fis, failure));
    }

    fn hard_reset(&mut self) {
        self.disk.hard_reset();
    }
}

/// What the device says when the backend failed.
fn failure(command: &Command, error: &BlockError) -> Failure {
    let lba = command.fis.lba48();
    let causes = PortInterrupt::empty();
    match (error, command.then) {
        (BlockError::OutOfRange, _) => Failure { lba: Some(lba), ..Failure::device(error::IDNF) },
        (BlockError::Io(_), Then::CountRead(_)) => {
            Failure { lba: Some(lba), ..Failure::device(error::UNC) }
        }
        (BlockError::Io(_) | BlockError::NoSpace, _) => {
            let status = READY | status::DF | status::ERR;
            Failure { status, error: error::ABRT, lba: None, causes }
        }
        _ => Failure::ABORTED,
    }
}

/// What the NCQ command error log is to tell of a failure.
fn ncq_error(tag: Option<u32>, fis: &RegisterH2d, failure: &Failure) -> NcqError {
    NcqError {
        tag: tag.and_then(|tag| u8::try_from(tag).ok()),
        status: failure.status,
        error: failure.error,
        lba: failure.lba.unwrap_or(fis.lba48()),
        device: fis.device,
        count: fis.count.get(),
    }
}
