//! An image in memory.

#![expect(unsafe_code, reason = "advice on memory has no safe interface")]

use std::io;
use std::sync::Arc;

use vm_memory::{MmapRegion, VolatileMemory};

use super::immediate::{Execute, ImmediateQueue};
use super::{
    BlockBackend, BlockError, BlockInfo, BlockOp, BlockQueue, BlockRequest, check, check_geometry,
};

/// How a [`MemoryBackend`] presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Bytes in a logical block.
    pub logical_block: u32,
    /// Refuse writes.
    pub read_only: bool,
    /// Claim a volatile write cache, for devices and drivers that behave differently with one.
    pub volatile_cache: bool,
    /// Ask the host for huge pages. Random access to a large image then costs the processor less to
    /// find its way, and each place that is written takes up to 2 MiB rather than 4 KiB.
    pub huge_pages: bool,
    /// Serial number. Disks of one guest need one each: multipath takes equal ones for the same disk.
    pub id: String,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            logical_block: 512,
            read_only: false,
            volatile_cache: false,
            huge_pages: false,
            id: "memory".into(),
        }
    }
}

/// Granularity of giving memory back. A larger page size only makes it less effective.
const PAGE: usize = 4096;

struct Image {
    memory: MmapRegion<()>,
    capacity: u64,
    options: MemoryOptions,
}

/// An image in this process's memory, gone when its last clone and queue are.
///
/// It takes memory only where it has been written, and gives whole pages back on a discard, on write
/// zeroes with `unmap` and on a secure erase. Operations on different queues may overlap in time;
/// where they overlap in the image, too, either's bytes may win, byte by byte, as on a disk.
#[derive(Clone)]
pub struct MemoryBackend(Arc<Image>);

impl MemoryBackend {
    /// An image of `capacity` bytes, all zero.
    ///
    /// # Errors
    /// When the capacity is not a positive multiple of the block size, the block size is not a power
    /// of two from 512 to 65536, or there is not so much address space.
    pub fn new(capacity: u64, options: MemoryOptions) -> io::Result<Self> {
        check_geometry(capacity, options.logical_block)?;
        let size = usize::try_from(capacity).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let memory = MmapRegion::new(size).map_err(io::Error::other)?;
        if options.huge_pages {
            // SAFETY: the range is the mapping that was just made. It is advice: a host that has no
            // huge pages refuses, and nothing else changes.
            unsafe { libc::madvise(memory.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
        }
        Ok(Self(Arc::new(Image { memory, capacity, options })))
    }

    /// An image that starts as `contents`.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_contents(contents: &[u8], options: MemoryOptions) -> io::Result<Self> {
        let capacity = u64::try_from(contents.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let this = Self::new(capacity, options)?;
        this.write_at(0, contents)?;
        Ok(this)
    }

    /// Reads the image behind the device's back.
    ///
    /// # Errors
    /// When the range (bytes) is not inside it.
    pub fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let slice = self.0.range(offset, data.len() as u64).map_err(io::Error::other)?;
        slice.copy_to(data);
        Ok(())
    }

    /// Writes the image behind the device's back, even if it is read-only for the device.
    ///
    /// # Errors
    /// When the range (bytes) is not inside it.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let slice = self.0.range(offset, data.len() as u64).map_err(io::Error::other)?;
        slice.copy_from(data);
        Ok(())
    }
}

impl BlockBackend for MemoryBackend {
    fn info(&self) -> BlockInfo {
        let Image { capacity, options, .. } = &*self.0;
        BlockInfo {
            capacity: *capacity,
            logical_block: options.logical_block,
            physical_block: options.logical_block,
            read_only: options.read_only,
            volatile_cache: options.volatile_cache,
            discard_granularity: options.logical_block,
            write_zeroes: true,
            write_zeroes_unmap: true,
            secure_erase: true,
            id: options.id.clone(),
        }
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        Ok(Box::new(ImmediateQueue::new(self.0.clone(), depth)))
    }
}

type Slice<'a> = vm_memory::VolatileSlice<'a>;

impl Image {
    fn range(&self, offset: u64, len: u64) -> Result<Slice<'_>, BlockError> {
        let range = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        range
            .and_then(|(offset, len)| self.memory.get_slice(offset, len).ok())
            .ok_or(BlockError::OutOfRange)
    }

    /// Makes a range read as zeroes, and gives its whole pages back.
    fn clear(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        let slice = self.range(offset, len)?;
        let start = slice.ptr_guard().as_ptr().addr();
        // The mapping starts at a page, so pages of the image are pages of memory.
        let head = (start.next_multiple_of(PAGE) - start).min(slice.len());
        let pages = (slice.len() - head) / PAGE * PAGE;
        let zeroes = [0; PAGE];
        for (from, count) in [(0, head), (head + pages, slice.len() - head - pages)] {
            if let Ok(edge) = slice.subslice(from, count) {
                edge.copy_from(&zeroes[..count]);
            }
        }
        let Ok(pages) = slice.subslice(head, pages) else { return Ok(()) };
        if pages.is_empty() {
            return Ok(());
        }
        // SAFETY: the range lies in this image's private anonymous mapping, which is accessed only
        // volatilely and has no meaning beyond its bytes; afterwards they are zeroes.
        let result = unsafe {
            libc::madvise(pages.ptr_guard_mut().as_ptr().cast(), pages.len(), libc::MADV_DONTNEED)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
    }
}

impl Execute for Image {
    fn execute(&self, request: &BlockRequest) -> Result<u64, BlockError> {
        check(request, self.capacity, self.options.read_only)?;
        let reading = match request.op {
            BlockOp::Read => true,
            BlockOp::Write { .. } => false,
            BlockOp::Flush => return Ok(0),
            BlockOp::Discard | BlockOp::WriteZeroes { .. } | BlockOp::SecureErase => {
                return self.clear(request.offset, request.len).map(|()| 0);
            }
        };
        let image = self.range(request.offset, request.len)?;
        let mut done = 0;
        for guest in request.buffers.slices() {
            let part = image.subslice(done, guest.len()).map_err(|_| BlockError::OutOfRange)?;
            if reading {
                part.copy_to_volatile_slice(guest);
            } else {
                guest.copy_to_volatile_slice(part);
            }
            done += guest.len();
        }
        if reading {
            request.buffers.mark_written(done);
        }
        Ok(request.len)
    }
}
