//! Guest memory that stays mapped.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::{BuildError, GuestRam};
use crate::sys;

fn failed(error: impl std::fmt::Display) -> BuildError {
    BuildError::Memory(error.to_string())
}

/// `len` bytes at `base`, in a file if they are to be shared. They are mapped for good; the file's descriptor
/// goes with the memory.
pub(super) fn map(base: u64, len: usize, shared: bool) -> Result<GuestRam, BuildError> {
    let file = shared.then(|| sys::memory_file(len as u64)).transpose().map_err(failed)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let (flags, fd) = match &file {
        Some(file) => (libc::MAP_SHARED, file.file().as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    let flags = flags | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, where the kernel likes.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(failed(io::Error::last_os_error()));
    }
    let mut builder = MmapRegionBuilder::new(len).with_mmap_prot(protection).with_mmap_flags(flags);
    if let Some(file) = file {
        builder = builder.with_file_offset(file);
    }
    // SAFETY: the mapping was just made, is `len` bytes long, and is never unmapped: not by the region either,
    // which does not own it.
    let builder = unsafe { builder.with_raw_mmap_pointer(start.cast()) };
    let region = GuestRegionMmap::new(builder.build().map_err(failed)?, GuestAddress(base));
    let region = region.ok_or_else(|| failed("too high"))?;
    Ok(Arc::new(GuestMemoryMmap::from_regions(vec![region]).map_err(failed)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

    #[test]
    fn memory_outlives_its_machine_and_its_file_does_not() {
        let memory = map(5 << 30, 0x2000, true).unwrap();
        let region = memory.iter().next().unwrap();
        let (host, file) = (region.as_ptr(), region.file_offset().unwrap().arc().clone());
        memory.write_obj(7_u32, GuestAddress((5 << 30) + 0x1004)).unwrap();
        let mut data = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut data, 0x1004).unwrap();
        assert_eq!(data, [7, 0, 0, 0]);
        drop(memory);
        assert_eq!(Arc::strong_count(&file), 1, "nobody else has it");
        // SAFETY: it stays mapped, which is what is tested.
        assert_eq!(unsafe { host.add(0x1004).read_volatile() }, 7);
        let private = map(0, 0x1000, false).unwrap();
        assert!(private.iter().next().unwrap().file_offset().is_none());
    }
}
