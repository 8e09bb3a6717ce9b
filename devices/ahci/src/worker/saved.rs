//! Commands that have ended and could not be reported, because bus mastering was off: saved.

use paraslot_device::{DmaSpace, StateError};
use paraslot_spec::ahci::fis::RegisterH2d;
use paraslot_spec::ahci::{CommandHeader, MAX_SLOTS, header};
use paraslot_spec::ata::{LBA_48_END, status};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes};

use super::{Attached, Command, End, PortWorker, bit, place, slots};
use crate::command::{Failure, Output, Protocol, Then};
use crate::registers::CAUSES;

/// A command that has ended.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandState {
    slot: u32,
    /// In hexadecimal digits.
    #[serde(with = "hex")]
    fis: Vec<u8>,
    header: u64,
    protocol: Protocol,
    bytes: u32,
    entries: u32,
    interrupt: bool,
    then: Then,
    end: End,
}

impl CommandState {
    /// The bit of its slot.
    pub(crate) fn bit(&self) -> u32 {
        bit(self.slot)
    }
}

impl<A: DmaSpace, D: Attached> PortWorker<A, D> {
    /// The device's state, and the commands that the host has not been told of. For a worker that is
    /// quiet.
    pub(crate) fn save(&self) -> Result<(D::Saved, Vec<CommandState>), StateError> {
        let Self {
            port: _,
            irq: _,
            dma: _,
            device,
            commands,
            in_flight,
            finished,
            // These follow from the commands.
            queued: _,
            exclusive: _,
            entries: _,
            // They have been told to the port, which knows them.
            released: _,
            accepted: _,
            epoch: _,
            draining: _,
            look: _,
        } = self;
        if *in_flight != 0 {
            return Err(StateError::Busy("a command has not ended"));
        }
        let ended = slots(*finished).filter_map(|slot| {
            let command = commands.get(place(slot)).and_then(Option::as_ref)?;
            let Command { epoch: _, fis, header, protocol, bytes, entries, interrupt, then, end } =
                command;
            Some(CommandState {
                slot,
                fis: fis.as_bytes().to_vec(),
                header: *header,
                protocol: *protocol,
                bytes: *bytes,
                entries: *entries,
                interrupt: *interrupt,
                then: *then,
                end: *end,
            })
        });
        Ok((device.save()?, ended.collect()))
    }

    /// Whether [`restore`](Self::restore) would take these.
    pub(crate) fn check(
        &self,
        device: &D::Saved,
        commands: &[CommandState],
    ) -> Result<(), StateError> {
        if self.in_flight | self.finished != 0 {
            return Err(StateError::Busy("a command from before has not ended"));
        }
        self.device.check(device)?;
        let mut seen = 0;
        let mut exclusive = 0;
        for command in commands {
            let bit = command.bit();
            if bit == 0 || seen & bit != 0 || !command.is_possible(&self.device) {
                return Err(StateError::impossible("a command that does not end like this"));
            }
            seen |= bit;
            exclusive += u32::from(command.protocol != Protocol::Queued);
        }
        if exclusive > 1 {
            return Err(StateError::impossible("two commands that are not queued"));
        }
        Ok(())
    }

    /// Takes over what was checked. Of the commands, those that have not been overtaken are of the
    /// port's epoch `current`.
    pub(crate) fn restore(
        &mut self,
        device: D::Saved,
        commands: Vec<CommandState>,
        current: u32,
        overtaken: bool,
    ) -> Result<(), StateError> {
        self.epoch = if overtaken { current.wrapping_sub(1) } else { current };
        for state in commands {
            let CommandState { slot, fis, header, protocol, bytes, entries, interrupt, then, end } =
                state;
            let Ok(fis) = RegisterH2d::read_from_bytes(&fis) else { continue };
            let Some(place) = self.commands.get_mut(place(slot)) else { continue };
            let epoch = self.epoch;
            *place = Some(Command {
                epoch,
                fis,
                header,
                protocol,
                bytes,
                entries,
                interrupt,
                then,
                end,
            });
            self.finished |= bit(slot);
            if protocol == Protocol::Queued {
                self.queued |= bit(slot);
            } else {
                self.exclusive = Some(slot);
            }
            self.entries = self.entries.saturating_add(entries);
        }
        self.draining = overtaken;
        self.look = true;
        self.device.restore(device)
    }
}

impl CommandState {
    /// Whether a command of such a device can have ended so.
    fn is_possible(&self, device: &impl Attached) -> bool {
        /// Entries that a table can have.
        const MOST_ENTRIES: u32 = header::PRDTL >> header::PRDTL_SHIFT;
        const BUSY: u8 = status::BSY | status::DRQ;
        let end = match self.end {
            End::Success | End::Accepted | End::Signature | End::Hang => true,
            End::Output(Output { status, lba, .. }) => status & BUSY == 0 && lba < LBA_48_END,
            End::Failed(Failure { status, error: _, lba, causes }) => {
                status & BUSY == 0
                    && lba.is_none_or(|lba| lba < LBA_48_END)
                    && CAUSES.contains(causes)
            }
        };
        let header = self.header.checked_add(size_of::<CommandHeader>() as u64);
        end && usize::try_from(self.slot).is_ok_and(|slot| slot < MAX_SLOTS)
            && self.fis.len() == size_of::<RegisterH2d>()
            && header.is_some()
            && device.has(self.protocol, self.then)
            && self.entries <= MOST_ENTRIES
    }
}
