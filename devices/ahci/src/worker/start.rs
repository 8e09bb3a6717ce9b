//! Fetching commands and starting them. All of a command (its header, its FIS and every PRD entry) is
//! read from guest memory once.

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace, Memory};
use paraslot_spec::ahci::fis::RegisterH2d;
use paraslot_spec::ahci::{COMMAND_FIS, CommandHeader, PortInterrupt, header};
use paraslot_spec::ata::error;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromZeros, IntoBytes};

use super::{Attached, Batch, Command, End, MOST_ENTRIES, PortWorker, bit, place};
use crate::command::{Failure, Protocol, Then};
use crate::prdt::{Data, PrdError, gather};

/// A command as it was fetched.
pub(crate) struct Fetched {
    /// Address of its header.
    header: u64,
    /// Bits of [`header`].
    pub(crate) flags: u32,
    /// Address of its table.
    pub(crate) table: u64,
    pub(crate) fis: RegisterH2d,
}

impl Fetched {
    /// PRD entries in the table.
    pub(crate) fn entries(&self) -> u32 {
        (self.flags & header::PRDTL) >> header::PRDTL_SHIFT
    }
}

fn fetch<A: DmaSpace>(memory: &Memory<A>, list: u64, slot: u32) -> Option<Fetched> {
    let at = list.checked_add(u64::from(slot) * size_of::<CommandHeader>() as u64)?;
    let mut header = CommandHeader::new_zeroed();
    memory.read_slice(header.as_mut_bytes(), GuestAddress(at)).ok()?;
    let table = header.table();
    let mut fis = RegisterH2d::new_zeroed();
    let flags = header.flags.get();
    let words = usize::try_from(flags & header::CFL).unwrap_or(0);
    // What the FIS is too short for reads as zeroes; what is longer than any command is not looked at.
    let len = (words * 4).min(size_of::<RegisterH2d>());
    let place = fis.as_mut_bytes().get_mut(..len)?;
    memory.read_slice(place, GuestAddress(table.checked_add(COMMAND_FIS)?)).ok()?;
    Some(Fetched { header: at, flags, table, fis })
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

impl<A: DmaSpace, D: Attached> PortWorker<A, D> {
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
        let queued = D::is_queued(&fis);
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

    /// Has the device do a command; returns true if it is not over yet.
    fn perform(
        &mut self,
        memory: &Memory<A>,
        fetched: &Fetched,
        slot: u32,
        command: &mut Command,
    ) -> Result<bool, Failure> {
        if self.queued != 0 && command.protocol != Protocol::Queued {
            // Any other command ends all queued ones (ACS-4, NCQ feature set).
            let failure = Failure::ABORTED;
            self.device.queued_failed(None, &fetched.fis, &failure);
            return Err(failure);
        }
        self.device.perform(memory, fetched, slot, command)
    }
}

/// The data buffers of a command that moves `len` bytes.
pub(crate) fn gather_for<A: DmaSpace>(
    memory: &Memory<A>,
    fetched: &Fetched,
    len: u64,
    direction: Direction,
    command: &mut Command,
) -> Result<DmaBuffers, Failure> {
    let data = gather(memory, fetched.table, fetched.entries(), len, direction)?;
    let Data { buffers, entries, interrupt, cut: _ } = data;
    command.bytes = u32::try_from(len).unwrap_or(u32::MAX);
    command.entries = entries;
    command.interrupt = interrupt.is_some();
    Ok(buffers)
}
