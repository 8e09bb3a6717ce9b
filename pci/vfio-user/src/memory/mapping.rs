//! One range of the client's memory, mapped.

#![expect(unsafe_code, reason = "memory is mapped, taken away and unmapped by hand")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestRegionMmap, VolatileSlice};
use vmm_sys_util::eventfd::EventFd;

use super::sigbus::{self, Watched};
use super::{DmaError, Range, Written};
use crate::version::PAGE;

/// Pages of the client's. They can be taken away at any time: then there are zeroes in their place, so
/// that whoever has an address of them still has memory.
pub(crate) struct Mapping {
    address: NonNull<u8>,
    len: usize,
    /// Before the memory is unmapped, nobody must take its addresses for ours.
    watched: Option<Watched>,
}

// SAFETY: the memory is owned and stays where it is until drop. It is accessed by way of vm-memory only,
// as memory that others may change.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps part of a file. `lost` is written if it turns out later that the file has no such part any
    /// more.
    pub(super) fn new(fd: OwnedFd, range: Range, lost: &Arc<EventFd>) -> Result<Self, DmaError> {
        let Range { offset, size, writable, .. } = range;
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|error| DmaError::from_io(&error))?;
        let end = offset.checked_add(size).ok_or(DmaError::Malformed)?;
        // Nothing but a file: hardware's registers, say, are no memory.
        if !metadata.file_type().is_file() || end > metadata.size() {
            return Err(DmaError::Malformed);
        }
        let page = page_size(&file).map_err(|error| DmaError::from_io(&error))?;
        if !offset.is_multiple_of(page) || !size.is_multiple_of(page) {
            return Err(DmaError::Malformed);
        }
        let len = usize::try_from(size).map_err(|_| DmaError::Malformed)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| DmaError::Malformed)?;
        let protection =
            if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), offset)
        };
        if address == libc::MAP_FAILED {
            return Err(DmaError::from_io(&io::Error::last_os_error()));
        }
        let address = NonNull::new(address.cast::<u8>()).ok_or(DmaError::Malformed)?;
        let mut mapping = Self { address, len, watched: None };
        let start = address.addr().get();
        mapping.watched = Some(sigbus::watch(start, len, lost.clone()).ok_or(DmaError::TooMany)?);
        Ok(mapping)
    }

    /// Maps pages of this process, all zeroes.
    pub(super) fn anonymous(size: u64) -> Result<Self, DmaError> {
        let len = usize::try_from(size).map_err(|_| DmaError::Malformed)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(DmaError::from_io(&io::Error::last_os_error()));
        }
        // One page that is used is to take one page, not two megabytes. A kernel without huge pages refuses.
        // SAFETY: the range was just mapped; only how its pages come is changed.
        unsafe { libc::madvise(address, len, libc::MADV_NOHUGEPAGE) };
        let address = NonNull::new(address.cast::<u8>()).ok_or(DmaError::Malformed)?;
        Ok(Self { address, len, watched: None })
    }

    /// The memory, of which nobody notes what is written.
    pub(super) fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: `len` bytes from `address` on are mapped until `self` is dropped, which the slice borrows; all
        // access is by way of vm-memory.
        unsafe { VolatileSlice::new(self.address.as_ptr(), self.len) }
    }

    /// The memory as vm-memory has it, at `start` of the client's addresses; what is written is noted in
    /// `written`.
    ///
    /// Whoever has it must keep `self`.
    pub(super) fn region(&self, start: u64, written: Written) -> Option<GuestRegionMmap<Written>> {
        let builder = MmapRegionBuilder::new_with_bitmap(self.len, written)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE);
        // SAFETY: `len` bytes from `address` on are mapped until `self` is dropped, which outlives the
        // region: the two are kept together, in `ClientMemory`.
        let region = unsafe { builder.with_raw_mmap_pointer(self.address.as_ptr()) }.build();
        GuestRegionMmap::new(region.ok()?, GuestAddress(start))
    }

    /// Takes the client's pages away, for good.
    pub(crate) fn revoke(&self) {
        // A failure leaves the pages; they go with the mapping then.
        let _ = replace(self.address.addr().get(), self.len);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.watched = None;
        // SAFETY: unmaps what `new` mapped; nobody has it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

/// Puts zeroes in the place of `len` bytes from `start` on, which are a mapping of ours or part of one.
/// Says whether it could. Async-signal-safe.
pub(super) fn replace(start: usize, len: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    let at = std::ptr::without_provenance_mut(start);
    // SAFETY: the range is all ours. What was there is memory that others may change at any time, so to
    // find zeroes there is nothing new, and it stays mapped.
    let address = unsafe { libc::mmap(at, len, protection, flags, -1, 0) };
    address != libc::MAP_FAILED
}

/// Bytes that the file's memory comes in.
fn page_size(file: &File) -> io::Result<u64> {
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `stat` has room for what the call writes.
    if unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroes are a valid `statfs`, and the call has succeeded besides.
    let stat = unsafe { stat.assume_init() };
    if stat.f_type != libc::HUGETLBFS_MAGIC {
        return Ok(PAGE);
    }
    u64::try_from(stat.f_bsize).map_err(io::Error::other)
}
