//! What the device has to tell, by the event queue (5.6.6.3).

use core::mem::offset_of;

use paraslot_spec::virtio::split::DESC_F_WRITE;
use paraslot_spec::virtio_scsi::{Event as Layout, Lun, event};

use super::{Queue, VirtioScsi};
use crate::scsi::Address;
use crate::virtio::Transport;
use crate::{DmaRegion, Error, Platform};

/// Buffers that the device has for events, as many as Linux gives it.
pub(super) const COUNT: u16 = 8;

/// Bytes of an event.
pub(super) const LAYOUT_LEN: u32 = 16;

/// Something has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What: `paraslot_spec::virtio_scsi::event::*`.
    pub event: u32,
    /// Events were lost before this one, as there was no buffer.
    pub missed: bool,
    /// To which unit; none if the event is about none.
    pub address: Option<Address>,
    /// More about it, depending on the event.
    pub reason: u32,
}

/// The queue and its buffers.
pub(super) struct Events {
    queue: Queue,
    memory: DmaRegion,
    len: u32,
    /// Those that the device has, a bit for each.
    given: u16,
}

impl Events {
    /// With buffers of `len` bytes.
    pub(super) fn new<P: Platform>(
        transport: &Transport<'_, P>,
        queue: Queue,
        len: u32,
    ) -> Result<Self, Error> {
        let size = usize::from(queue.ring.size()) * usize::try_from(len).unwrap_or(0);
        let memory = transport.platform().allocate(size).ok_or(Error::NoMemory)?;
        let this = Self { queue, memory, len, given: 0 };
        for index in 0..this.queue.ring.size() {
            let address = this.memory.physical(this.offset(index));
            this.queue.ring.set_descriptor(index, address, len, DESC_F_WRITE, 0);
        }
        Ok(this)
    }

    fn offset(&self, index: u16) -> usize {
        usize::from(index) * usize::try_from(self.len).unwrap_or(0)
    }

    /// Gives the device all buffers, which it has none of.
    pub(super) fn fill<P: Platform>(&mut self, transport: &Transport<'_, P>) {
        for index in 0..self.queue.ring.size() {
            self.queue.ring.push(index);
            self.given |= 1 << index;
        }
        self.queue.kick(transport);
    }

    /// The next event, and the buffer that it is in.
    fn next(&mut self) -> Result<Option<(u16, Event)>, Error> {
        let Some(used) = self.queue.ring.pop()? else { return Ok(None) };
        let bit = 1 << used.head;
        if self.given & bit == 0 {
            return Err(Error::Protocol("a buffer that it was not given"));
        }
        self.given &= !bit;
        if !(LAYOUT_LEN..=self.len).contains(&used.len) {
            return Err(Error::Protocol("an event of a length that it cannot have"));
        }
        let at = self.offset(used.head);
        let what = self.memory.read32(at + offset_of!(Layout, event));
        let mut lun = [0; 8];
        self.memory.read_bytes(at + offset_of!(Layout, lun), &mut lun);
        let event = Event {
            event: what & !event::MISSED,
            missed: what & event::MISSED != 0,
            address: address(lun),
            reason: self.memory.read32(at + offset_of!(Layout, reason)),
        };
        Ok(Some((used.head, event)))
    }
}

/// The unit that an address of the device's names.
fn address(lun: [u8; 8]) -> Option<Address> {
    let [Lun::TARGET, target, high, low, 0, 0, 0, 0] = lun else { return None };
    let lun = paraslot_spec::scsi::lun::decode([high, low, 0, 0, 0, 0, 0, 0])?;
    Some(Address { target, lun })
}

impl<P: Platform> VirtioScsi<'_, P> {
    /// Looks for events, hands them to `visit`, and gives their buffers back. There are none where the
    /// device offers neither HOTPLUG nor CHANGE.
    ///
    /// # Errors
    /// When the device misbehaves.
    pub fn events(&mut self, mut visit: impl FnMut(Event)) -> Result<(), Error> {
        let Some(events) = &mut self.events else { return Ok(()) };
        // The device hears of buffers that are given back at the end, so this ends, and until then
        // they are none that it could use.
        let mut returned = 0;
        while let Some((index, event)) = events.next()? {
            visit(event);
            events.queue.ring.push(index);
            returned |= 1 << index;
        }
        events.given |= returned;
        events.queue.kick(self.requests.transport());
        Ok(())
    }
}

const _: () = assert!(COUNT <= 16 && size_of::<Layout>() == LAYOUT_LEN as usize);
