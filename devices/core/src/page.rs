//! Registers that a guest can read without an exit.

#![expect(unsafe_code, reason = "memory that is shared with a guest is mapped by hand")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// Bytes in a page, the granularity at which hosts map memory into a guest.
pub const PAGE_SIZE: usize = 4096;

/// Memory of this process that a host may map into a guest.
///
/// # Safety
/// Implementors promise that `byte_len` bytes from `host_address` on are mapped, begin at a page, are a
/// whole number of pages, and stay where they are as long as the value lives.
pub unsafe trait HostPages: Send + Sync {
    /// Where the pages are in this process.
    fn host_address(&self) -> NonNull<u8>;
    /// Bytes, a multiple of the page size.
    fn byte_len(&self) -> usize;
}

// SAFETY: the mapping is owned, is as long as it says, and lasts until drop.
unsafe impl HostPages for SharedPage {
    fn host_address(&self) -> NonNull<u8> {
        self.memory.cast()
    }
    fn byte_len(&self) -> usize {
        self.len
    }
}

/// Pages that hold a device's registers, so that a host may map them, read-only, over the BAR.
///
/// Good for registers without read side effects: the guest's reads then cost a memory access instead
/// of an exit, while its writes still reach the device. The device is the only writer. A host that
/// does not map it loses nothing but time, since `bar_read` answers the same.
pub struct SharedPage {
    memory: NonNull<AtomicU32>,
    len: usize,
    file: File,
    file_offset: u64,
}

// SAFETY: the mapping is owned, stays where it is until drop, and is only accessed as atomics.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// Zeroed memory of at least `len` bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// When the kernel has no memory file or mapping to give.
    pub fn new(len: usize) -> io::Result<Self> {
        Self::in_bar(0, len)
    }

    /// The same for pages that are at `offset` of a BAR, a multiple of the page size: they are there in
    /// the memory file, too, so that a host in another process finds them by their offset. The file
    /// has no memory before them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_bar(offset: u32, len: usize) -> io::Result<Self> {
        let len = len.max(1).next_multiple_of(PAGE_SIZE);
        let file_offset = u64::from(offset);
        let flags = libc::MFD_CLOEXEC;
        // SAFETY: the name is a C string; the call has no other memory argument.
        let fd = unsafe { libc::memfd_create(c"paraslot-registers".as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and belongs to nobody else.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(file_offset + len as u64)?;
        Self::map(file, file_offset, len, libc::MAP_SHARED)
    }

    /// The pages of another process, at `file_offset` of the memory file that it has sent. What is stored
    /// here is not seen there, and hides what is stored there.
    ///
    /// # Errors
    /// When the file has no such pages, or they cannot be mapped.
    pub fn of_other(file: File, file_offset: u64, len: usize) -> io::Result<Self> {
        let end = file_offset.checked_add(len as u64);
        let whole = file_offset.is_multiple_of(PAGE_SIZE as u64) && len.is_multiple_of(PAGE_SIZE);
        if len == 0 || !whole || end.is_none_or(|end| file.metadata().is_ok_and(|m| m.len() < end))
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Private, so that a store needs no more than a file that can be read.
        Self::map(file, file_offset, len, libc::MAP_PRIVATE)
    }

    fn map(file: File, file_offset: u64, len: usize, kind: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::off_t::try_from(file_offset).map_err(io::Error::other)?;
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, kind, fd, at) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { memory, len, file, file_offset })
    }

    /// Bytes, a multiple of the page size.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The 32-bit words. The guest sees a store as soon as it is made.
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping is `len` bytes long, page-aligned, zero-initialised and lives as long
        // as `self`; nothing but atomic accesses is made to it on this side.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len / 4) }
    }

    /// The memory file, for a host in another process.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the pages are in the memory file.
    pub fn file_offset(&self) -> u64 {
        self.file_offset
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` mapped; no reference into it outlives `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_is_stored_is_seen_through_the_file() {
        let page = SharedPage::new(100).unwrap();
        assert_eq!((page.len(), page.words().len()), (4096, 1024));
        page.words()[2].store(0x0403_0201, Ordering::Release);
        let mut bytes = Vec::new();
        page.file().try_clone().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.len(), &bytes[7..13]), (4096, [0, 1, 2, 3, 4, 0].as_slice()));
    }

    #[test]
    fn another_process_finds_the_pages_where_they_are_in_the_bar() {
        let page = SharedPage::in_bar(0x2000, 4096).unwrap();
        assert_eq!((page.len(), page.file_offset()), (4096, 0x2000));
        let other =
            |at, len| SharedPage::of_other(page.file().try_clone().unwrap(), at, len).map(|_| ());
        let (file, at) = (page.file().try_clone().unwrap(), page.file_offset());
        let seen = SharedPage::of_other(file, at, page.len()).unwrap();
        page.words()[1].store(7, Ordering::Release);
        assert_eq!(seen.words()[1].load(Ordering::Acquire), 7);
        seen.words()[1].store(8, Ordering::Release);
        assert_eq!(page.words()[1].load(Ordering::Acquire), 7);
        for (at, len) in [(0x2000, 0x2000), (0x2001, 4096), (0, 0), (0, 100), (!0xfff, 4096)] {
            assert!(other(at, len).is_err(), "{at:#x} {len:#x}");
        }
    }
}
