//! Task management by the adapter's commands, and what it has to tell.

use core::mem::offset_of;

use paraslot_spec::pvscsi::{AbortCmd, MessageDescriptor, ResetDevice, command, message};
use paraslot_spec::scsi::lun;
use zerocopy::little_endian::{U32, U64};

use super::Pvscsi;
use crate::scsi::Address;
use crate::{Completions, Error, Platform};

/// A message of the adapter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A unit has appeared.
    Added(Address),
    /// A unit is gone.
    Removed(Address),
    /// Some other message, of this type, or about a unit that cannot be named here.
    Other(u32),
}

/// Requests that these functions end fail with [`Failed::Aborted`](crate::Failed::Aborted), which the
/// next look for completions finds. Before each of them the adapter is told of all that was submitted,
/// as by [`kick`](crate::Disk::kick).
impl<P: Platform> Pvscsi<'_, P> {
    /// Has the request with this tag aborted. It may have completed before.
    ///
    /// # Errors
    /// When there is no request with this tag.
    pub fn abort(&mut self, tag: u16) -> Result<(), Error> {
        if self.requests.tags.request(tag).is_none() {
            return Err(Error::Request("a tag that is not in use"));
        }
        self.requests.flush();
        let mut descriptor = AbortCmd::default();
        descriptor.context = U64::new(u64::from(tag) + 1);
        descriptor.target = U32::new(self.unit.address().target.into());
        self.requests.hardware.command_with(command::ABORT_CMD, &descriptor);
        Ok(())
    }

    /// Resets the disk.
    pub fn reset_device(&mut self) {
        let address = self.unit.address();
        self.requests.flush();
        let descriptor =
            ResetDevice { target: U32::new(address.target.into()), lun: lun::encode(address.lun) };
        self.requests.hardware.command_with(command::RESET_DEVICE, &descriptor);
    }

    /// Resets all disks of the adapter.
    pub fn reset_bus(&mut self) {
        self.requests.flush();
        self.requests.hardware.command(command::RESET_BUS);
    }

    /// Resets the adapter and sets it up anew. What was in flight has either completed or failed with
    /// [`Failed::Aborted`](crate::Failed::Aborted), and is added to `completions`; messages are lost.
    ///
    /// # Errors
    /// When the adapter misbehaves.
    pub fn reset_adapter(&mut self, completions: &mut Completions) -> Result<(), Error> {
        self.requests.flush();
        self.requests.hardware.reset();
        // Only now, as completions may have come until then; the adapter touches no memory any more.
        let result = self.requests.abandon(completions);
        self.requests.set_up()?;
        self.set_mask();
        result
    }

    /// Looks for messages, and hands those that are there to `visit`. There are none where the adapter
    /// does not know the message ring.
    ///
    /// # Errors
    /// When the adapter misbehaves.
    pub fn messages(&mut self, mut visit: impl FnMut(Message)) -> Result<(), Error> {
        self.requests.rings.messages(|ring, at| {
            let mut bytes = [0; lun::LEN];
            ring.read_bytes(at + offset_of!(MessageDescriptor, lun), &mut bytes);
            let kind = ring.read32(at + offset_of!(MessageDescriptor, kind));
            let bus = ring.read32(at + offset_of!(MessageDescriptor, bus));
            let target = u8::try_from(ring.read32(at + offset_of!(MessageDescriptor, target)));
            let address = match (bus, target, lun::decode(bytes)) {
                (0, Ok(target), Some(lun)) => Some(Address { target, lun }),
                _ => None,
            };
            visit(match (kind, address) {
                (message::DEVICE_ADDED, Some(address)) => Message::Added(address),
                (message::DEVICE_REMOVED, Some(address)) => Message::Removed(address),
                _ => Message::Other(kind),
            });
        })
    }
}
