//! Descriptor chains: walked strictly, each descriptor read once.

#[cfg(test)]
mod tests;

use paraslot_spec::virtio::{feature, split};
use smallvec::SmallVec;
use vm_memory::bitmap::BS;
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions, VolatileSlice};
use zerocopy::{FromZeros, IntoBytes};

use super::{QueueConfig, QueueError};

/// Longest chain that is accepted, in descriptors, of a queue with fewer entries than this.
///
/// A driver must not make chains longer than the queue (2.7.5.3.1), but Linux does so with indirect
/// descriptors when the queue is smaller than the device's own limit on segments; 1024 is what the
/// drivers in use have always been able to count on. Chains of direct descriptors alone cannot be
/// longer than the queue.
pub const MAX_CHAIN: u16 = 1024;

/// Entries of an indirect table beyond this cannot be reached, since `next` has 16 bits.
const MAX_TABLE: u32 = 1 << 16;

/// One buffer of a chain: guest address and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address.
    pub address: GuestAddress,
    /// Bytes.
    pub len: u32,
}

/// A descriptor chain, read once and checked: every descriptor is in range, device-readable ones
/// come before device-writable ones (2.7.4.2), there is no loop, no buffer wraps around the address
/// space, and the lengths add up to at most 2³² bytes (2.7.5).
///
/// Buffers of no bytes are left out: a chain means its bytes, not how they are cut up (2.7.4).
/// Whether the buffers are guest memory is not known before they are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Index of the first descriptor; give it back with [`Queue::push_used`](crate::Queue::push_used).
    pub head: u16,
    /// What the device reads.
    pub readable: SmallVec<[Segment; 4]>,
    /// What the device writes.
    pub writable: SmallVec<[Segment; 4]>,
}

impl Chain {
    /// A chain without buffers.
    pub(super) fn empty(head: u16) -> Self {
        Self { head, readable: SmallVec::new(), writable: SmallVec::new() }
    }
}

/// Walks the chains of one queue.
pub(super) struct Walker<'m, M: GuestMemory + ?Sized> {
    memory: &'m M,
    size: u16,
    table: u64,
    indirect: bool,
}

impl<'m, M: GuestMemory + ?Sized> Walker<'m, M> {
    pub(super) fn new(memory: &'m M, config: &QueueConfig) -> Self {
        Self {
            memory,
            size: config.size,
            table: config.descriptor_table,
            indirect: config.features & feature::INDIRECT_DESC != 0,
        }
    }

    /// Fills in `chain`, which is empty, from the chain at its head. (In place: a chain is large.)
    pub(super) fn walk(&self, chain: &mut Chain) -> Result<(), QueueError> {
        let head = chain.head;
        let malformed = QueueError::Chain { head };
        let mut bytes = 0u64;
        let mut table = Table::new(self.memory, self.table, self.size.into());
        let mut unreadable = QueueError::Rings;
        let mut in_table = false;
        let mut writing = false;
        let mut index = head;
        // Descriptors that this table may still contribute: a chain that wants more has a loop.
        let mut left = u32::from(self.size);
        // Descriptors that the chain may still have in all.
        let mut limit = u32::from(self.size.max(MAX_CHAIN));
        loop {
            if left == 0 || limit == 0 || u32::from(index) >= table.entries {
                return Err(malformed);
            }
            let descriptor = table.read(index).ok_or(unreadable)?;
            let flags = descriptor.flags.get();
            let (addr, len) = (descriptor.addr.get(), descriptor.len.get());
            // The last byte, if there is one, must have an address.
            if addr.checked_add(u64::from(len.saturating_sub(1))).is_none() {
                return Err(malformed);
            }

            if flags & split::DESC_F_INDIRECT != 0 {
                // WRITE means nothing here (2.7.5.3.2); NEXT and nesting are not allowed (2.7.5.3.1).
                let entries = len / 16;
                if !self.indirect
                    || in_table
                    || flags & split::DESC_F_NEXT != 0
                    || len % 16 != 0
                    || !(1..=MAX_TABLE).contains(&entries)
                {
                    return Err(malformed);
                }
                table = Table::new(self.memory, addr, entries);
                unreadable = malformed;
                in_table = true;
                index = 0;
                left = entries;
                continue;
            }

            left -= 1;
            limit -= 1;
            bytes += u64::from(len);
            if bytes > 1 << 32 {
                return Err(malformed);
            }
            let segment = Segment { address: GuestAddress(addr), len };
            if flags & split::DESC_F_WRITE != 0 {
                writing = true;
            } else if writing {
                return Err(malformed);
            }
            if len != 0 {
                let side = if writing { &mut chain.writable } else { &mut chain.readable };
                side.push(segment);
            }
            if flags & split::DESC_F_NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next.get();
        }
    }
}

/// A table of descriptors, looked up in the memory map once where it lies in one piece of it.
struct Table<'m, M: GuestMemory + ?Sized> {
    memory: &'m M,
    base: u64,
    entries: u32,
    slice: Option<VolatileSlice<'m, BS<'m, M::Bitmap>>>,
}

impl<'m, M: GuestMemory + ?Sized> Table<'m, M> {
    fn new(memory: &'m M, base: u64, entries: u32) -> Self {
        let len = usize::try_from(u64::from(entries) * 16).unwrap_or(usize::MAX);
        let slice = memory
            .get_slices(GuestAddress(base), len, Permissions::Read)
            .ok()
            .and_then(|mut slices| slices.next()?.ok())
            .filter(|slice| slice.len() == len);
        Self { memory, base, entries, slice }
    }

    fn read(&self, index: u16) -> Option<split::Descriptor> {
        let mut descriptor = split::Descriptor::new_zeroed();
        let offset = u64::from(index) * 16;
        match &self.slice {
            Some(slice) => {
                slice.read_slice(descriptor.as_mut_bytes(), usize::try_from(offset).ok()?).ok()?
            }
            None => {
                let address = GuestAddress(self.base.checked_add(offset)?);
                self.memory.read_slice(descriptor.as_mut_bytes(), address).ok()?;
            }
        }
        Some(descriptor)
    }
}
