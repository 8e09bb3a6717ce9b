//! Guest memory that another version of vm-memory has mapped.

#![expect(
    unsafe_code,
    reason = "host mappings come by address, since their owner's types are not ours"
)]

use std::sync::Arc;

use paraslot_device::page::PAGE_SIZE;
use vm_memory::bitmap::{AtomicBitmap, NewBitmap};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

/// A range of guest memory, as its owner has mapped it into this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRange {
    /// Guest physical address.
    pub guest: u64,
    /// Address in this process.
    pub host: *mut u8,
    /// Bytes, a multiple of the page size.
    pub len: usize,
}

/// Guest memory over the mappings of another. It has a dirty bitmap of its own, since what devices write
/// through it the other does not see.
#[derive(Clone, Debug)]
pub struct BorrowedMemory(Arc<GuestMemoryMmap<AtomicBitmap>>);

/// Why ranges are no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A range is empty, too long, or not of whole pages.
    #[error("guest memory at {0:#x}: not a mapping")]
    Mapping(u64),
    /// Ranges overlap, or are not in the order of their addresses.
    #[error("guest memory: {0}")]
    Ranges(String),
}

/// Guest memory for devices over mappings that exist already: what a host gives them whose own types are of
/// a vm-memory that is not ours. Pass [`BorrowedMemory::space`] as
/// [`Host::memory`](paraslot_device::Host::memory).
///
/// # Errors
/// When the ranges cannot be guest memory.
///
/// # Safety
/// Each range is one mapping of this process, readable and writable, that stays until every device that was
/// given this memory is gone and its executor has stopped its workers. It is accessed by others as guest
/// memory is: not as Rust objects.
pub unsafe fn borrowed_memory(
    ranges: impl IntoIterator<Item = HostRange>,
) -> Result<BorrowedMemory, MemoryError> {
    let mut regions = Vec::new();
    for HostRange { guest, host, len } in ranges {
        let none = || MemoryError::Mapping(guest);
        if len == 0 || !len.is_multiple_of(PAGE_SIZE) || !host.addr().is_multiple_of(PAGE_SIZE) {
            return Err(none());
        }
        let builder = MmapRegionBuilder::new_with_bitmap(len, AtomicBitmap::with_len(len));
        let builder = builder.with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE).with_mmap_flags(0);
        // SAFETY: the caller has a mapping of this length there, which stays; it is not unmapped by the
        // region that is built of it, which does not own it.
        let region = unsafe { builder.with_raw_mmap_pointer(host) }.build().map_err(|_| none())?;
        regions.push(GuestRegionMmap::new(region, GuestAddress(guest)).ok_or_else(none)?);
    }
    let memory = GuestMemoryMmap::from_regions(regions)
        .map_err(|error| MemoryError::Ranges(error.to_string()))?;
    Ok(BorrowedMemory(Arc::new(memory)))
}

impl BorrowedMemory {
    /// For [`Host::memory`](paraslot_device::Host::memory).
    pub fn space(&self) -> Arc<GuestMemoryMmap<AtomicBitmap>> {
        self.0.clone()
    }

    /// What devices have written since the last call, as guest physical addresses and lengths in bytes, whole
    /// pages each: for a live migration to add to its own bitmap.
    pub fn take_dirty(&self) -> Vec<(u64, usize)> {
        let mut dirty: Vec<(u64, usize)> = Vec::new();
        for region in self.0.iter() {
            let start = region.start_addr().raw_value();
            let words = MmapRegion::bitmap(region).get_and_reset();
            let bits = words.iter().enumerate().flat_map(|(index, word)| {
                (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| index * 64 + bit)
            });
            for page in bits {
                let address = start + (page * PAGE_SIZE) as u64;
                match dirty.last_mut() {
                    Some((last, len)) if *last + *len as u64 == address => *len += PAGE_SIZE,
                    _ => dirty.push((address, PAGE_SIZE)),
                }
            }
        }
        dirty
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    /// Whole pages, twice as many as are needed, so that some are aligned.
    fn pages(count: usize) -> (Vec<u8>, *mut u8) {
        let mut bytes = vec![0; (count + 1) * PAGE_SIZE];
        let start = bytes.as_mut_ptr();
        let aligned = start.map_addr(|address| address.next_multiple_of(PAGE_SIZE));
        (bytes, aligned)
    }

    fn borrow(ranges: &[(u64, *mut u8, usize)]) -> Result<BorrowedMemory, MemoryError> {
        let ranges = ranges.iter().map(|&(guest, host, len)| HostRange { guest, host, len });
        // SAFETY: the tests' pages outlive the memory, and are accessed by it alone.
        unsafe { borrowed_memory(ranges) }
    }

    #[test]
    fn devices_see_the_owners_memory_and_leave_traces() {
        let (low_pages, low) = pages(3);
        let (high_pages, high) = pages(2);
        let gib = 1 << 30;
        let memory = borrow(&[(0, low, 3 * PAGE_SIZE), (gib, high, 2 * PAGE_SIZE)]).unwrap();
        let space = memory.space();
        assert!(memory.take_dirty().is_empty());
        space.write_slice(&[1; 2], GuestAddress(PAGE_SIZE as u64 * 2 - 1)).unwrap();
        space.write_slice(&[2], GuestAddress(gib + PAGE_SIZE as u64)).unwrap();
        let pages = PAGE_SIZE as u64;
        assert_eq!(memory.take_dirty(), [(pages, 2 * PAGE_SIZE), (gib + pages, PAGE_SIZE)]);
        assert!(memory.take_dirty().is_empty());
        assert!(space.read_obj::<u8>(GuestAddress(3 * pages)).is_err());
        drop(space);
        drop(memory);
        assert_eq!(low_pages.iter().filter(|byte| **byte == 1).count(), 2);
        assert_eq!(high_pages.iter().filter(|byte| **byte == 2).count(), 1);
    }

    #[test]
    fn what_is_no_memory_is_refused() {
        let (_bytes, start) = pages(2);
        let odd = start.wrapping_add(8);
        for ranges in [
            &[(0, start, 0)][..],
            &[(0, start, 100)],
            &[(0, odd, PAGE_SIZE)],
            &[(u64::MAX - 4095, start, 2 * PAGE_SIZE)],
            &[(0, start, 2 * PAGE_SIZE), (4096, start, PAGE_SIZE)],
            &[],
        ] {
            assert!(borrow(ranges).is_err(), "{ranges:?}");
        }
    }
}
