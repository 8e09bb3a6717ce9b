//! The driver's side of a split virtqueue (VIRTIO 1.4, 2.7).

use core::sync::atomic::{Ordering, fence};

use paraslot_spec::virtio::split::{
    AVAIL_F_NO_INTERRUPT, USED_F_NO_NOTIFY, avail_ring_len, descriptor_table_len, used_ring_len,
};

use crate::{DmaRegion, Error, Platform};

/// Where a queue is, for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// Entries.
    pub size: u16,
    /// Bus address of the descriptor table.
    pub descriptors: u64,
    /// Bus address of the available ring.
    pub avail: u64,
    /// Bus address of the used ring.
    pub used: u64,
}

/// A chain that the device has given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain.
    pub head: u16,
    /// Bytes that the device wrote to it.
    pub len: u32,
}

/// A split virtqueue. Its descriptors are the caller's: chains that were set up once can be made
/// available again and again.
///
/// Nothing is told to the device before [`publish`](Self::publish), so that a batch costs one store
/// of the index and at most one notification.
pub struct SplitQueue {
    memory: DmaRegion,
    size: u16,
    avail: usize,
    used: usize,
    event_idx: bool,
    /// Index of the next entry of the available ring.
    next_avail: u16,
    /// The same, as the device was last told.
    published: u16,
    /// Index of the next entry of the used ring.
    next_used: u16,
    /// Index up to which the device had used buffers, as last seen. It writes to that cache line, so
    /// it is not looked at again before all those were taken.
    seen_used: u16,
    /// Whether the device is to interrupt.
    interrupts: bool,
    /// The last used_event that was set to keep it from interrupting.
    suppressed_at: u16,
}

/// Offset of the index in either ring; the flags come before it.
const INDEX: usize = 2;
/// Offset of the entries in either ring.
const ENTRIES: usize = 4;
/// Alignment of the rings: each on cache lines of its own, since the two sides write to one each.
const RING_ALIGN: usize = 128;
/// Entries after which used_event is moved on while interrupts are suppressed. Together with the
/// chains in flight it must stay below the 32768 by which used_event is ahead.
const SUPPRESS_STRIDE: u16 = 16384;

/// Whether the other side's index passed `event` on its way from `old` to `new` (2.7.10).
pub(super) fn passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

fn ring_offsets(size: u16) -> (usize, usize, usize) {
    let avail = descriptor_table_len(size).next_multiple_of(RING_ALIGN);
    let used = (avail + avail_ring_len(size)).next_multiple_of(RING_ALIGN);
    (avail, used, used + used_ring_len(size))
}

impl SplitQueue {
    /// A queue of `size` entries, a power of two up to 16384, with interrupts suppressed. `event_idx`
    /// says whether EVENT_IDX was negotiated.
    ///
    /// # Errors
    /// When the platform has no memory for it.
    pub fn new<P: Platform>(platform: &P, size: u16, event_idx: bool) -> Result<Self, Error> {
        if !size.is_power_of_two() || size > SUPPRESS_STRIDE {
            return Err(Error::Unsupported("the virtqueue's size"));
        }
        let (avail, used, len) = ring_offsets(size);
        let memory = platform.allocate(len).ok_or(Error::NoMemory)?;
        let mut queue = Self {
            memory,
            size,
            avail,
            used,
            event_idx,
            next_avail: 0,
            published: 0,
            next_used: 0,
            seen_used: 0,
            interrupts: true,
            suppressed_at: 0,
        };
        queue.clear();
        Ok(queue)
    }

    /// Back to how it was made, descriptors apart. The device must have been reset, or the queue.
    pub fn clear(&mut self) {
        for offset in (self.avail..self.memory.len()).step_by(2) {
            self.memory.write16(offset, 0);
        }
        (self.next_avail, self.published) = (0, 0);
        (self.next_used, self.seen_used) = (0, 0);
        self.interrupts = true;
        self.suppress_interrupts();
    }

    /// Where it is.
    pub fn layout(&self) -> QueueLayout {
        QueueLayout {
            size: self.size,
            descriptors: self.memory.physical(0),
            avail: self.memory.physical(self.avail),
            used: self.memory.physical(self.used),
        }
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Sets descriptor `index`, which is below the size.
    pub fn set_descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        write_descriptor(&self.memory, 16 * usize::from(index), address, len, flags, next);
    }

    /// Puts the chain that starts at `head` on the available ring. There must be no more chains
    /// there, and with the device, than the queue has entries.
    pub fn push(&mut self, head: u16) {
        let entry = usize::from(self.next_avail & (self.size - 1));
        self.memory.write16(self.avail + ENTRIES + 2 * entry, head);
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Tells the device of what was pushed, and says whether it must be notified.
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_avail);
        if old == new {
            return false;
        }
        self.memory.store16(self.avail + INDEX, new);
        self.published = new;
        // The index must be out before the device's wish is read, or both sides could miss the
        // other's store (2.7.13.4.1).
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.used + ENTRIES + 8 * usize::from(self.size);
            passed(self.memory.read16(event), old, new)
        } else {
            self.memory.read16(self.used) & USED_F_NO_NOTIFY == 0
        }
    }

    /// Chains that the device has been told of and that were not taken back.
    pub fn given(&self) -> u16 {
        self.published.wrapping_sub(self.next_used)
    }

    /// The next chain that the device has given back.
    ///
    /// # Errors
    /// When the device claims to have used more than it was given, or names a head that does not
    /// exist.
    pub fn pop(&mut self) -> Result<Option<Used>, Error> {
        if self.seen_used == self.next_used {
            let index = self.memory.load16(self.used + INDEX);
            if index == self.next_used {
                return Ok(None);
            }
            if index.wrapping_sub(self.next_used) > self.given() {
                return Err(Error::Protocol("more used buffers than were made available"));
            }
            self.seen_used = index;
        }
        let entry = usize::from(self.next_used & (self.size - 1));
        let offset = self.used + ENTRIES + 8 * entry;
        let id = self.memory.read32(offset);
        let len = self.memory.read32(offset + 4);
        let head = u16::try_from(id)
            .ok()
            .filter(|head| *head < self.size)
            .ok_or(Error::Protocol("a used buffer's ID is outside the queue"))?;
        self.next_used = self.next_used.wrapping_add(1);
        if self.event_idx
            && !self.interrupts
            && self.next_used.wrapping_sub(self.suppressed_at) >= SUPPRESS_STRIDE
        {
            self.move_used_event_away();
        }
        Ok(Some(Used { head, len }))
    }

    /// Asks the device not to interrupt.
    pub fn suppress_interrupts(&mut self) {
        if !self.interrupts {
            return;
        }
        self.interrupts = false;
        if self.event_idx {
            self.move_used_event_away();
        } else {
            self.memory.write16(self.avail, AVAIL_F_NO_INTERRUPT);
        }
    }

    /// Sets used_event to an index that the device will not come by soon. With EVENT_IDX that is the
    /// only way to ask for silence; the flag must stay 0 (2.7.7.1).
    fn move_used_event_away(&mut self) {
        self.suppressed_at = self.next_used;
        self.set_used_event(self.next_used.wrapping_add(0x8000));
    }

    fn set_used_event(&self, event: u16) {
        self.memory.write16(self.avail + ENTRIES + 2 * usize::from(self.size), event);
    }

    /// Asks the device to interrupt when it gives back the next chain, once: until this is called
    /// again it gives back further ones in silence, if EVENT_IDX is in use. Returns whether it has
    /// given back some already, for which no interrupt may come.
    pub fn request_interrupt(&mut self) -> bool {
        self.request_interrupt_after(0)
    }

    /// As [`request_interrupt`](Self::request_interrupt), but where EVENT_IDX is in use, not before
    /// the device has given back three quarters of the chains that it has: for chains that nobody
    /// waits for, as long as they come back. Returns whether it has given back as many already.
    pub fn request_late_interrupt(&mut self) -> bool {
        let given = u32::from(self.given());
        self.request_interrupt_after(u16::try_from(given * 3 / 4).unwrap_or(0))
    }

    /// Asks for an interrupt when `count` chains and one more have been given back; without EVENT_IDX
    /// for each one.
    fn request_interrupt_after(&mut self, count: u16) -> bool {
        if self.event_idx {
            self.set_used_event(self.next_used.wrapping_add(count));
        } else if !self.interrupts {
            self.memory.write16(self.avail, 0);
        }
        self.interrupts = true;
        // As in `publish`: the wish must be out before the index is read.
        fence(Ordering::SeqCst);
        let used = self.memory.load16(self.used + INDEX).wrapping_sub(self.next_used);
        used > if self.event_idx { count } else { 0 }
    }
}

/// Writes a descriptor at `offset` of `memory`: into a queue's table or an indirect one.
pub(crate) fn write_descriptor(
    memory: &DmaRegion,
    offset: usize,
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
) {
    memory.write64(offset, address);
    memory.write32(offset + 8, len);
    memory.write16(offset + 12, flags);
    memory.write16(offset + 14, next);
}

#[cfg(test)]
mod tests;
