//! No image at all: what a device costs without its storage.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::immediate::{Execute, ImmediateQueue};
use super::{
    BlockBackend, BlockError, BlockInfo, BlockOp, BlockQueue, BlockRequest, check, check_geometry,
};

/// How a [`NullBackend`] behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NullOptions {
    /// Bytes in a logical block.
    pub logical_block: u32,
    /// Fill the buffers of reads with zeroes. Without, they are left as they are, which takes the
    /// copy out of a measurement, and with it the device's promise to have filled them: for
    /// measurements only.
    pub read_zeroes: bool,
    /// Serial number. Disks of one guest need one each: multipath takes equal ones for the same disk.
    pub id: String,
}

impl Default for NullOptions {
    fn default() -> Self {
        Self { logical_block: 512, read_zeroes: true, id: "null".into() }
    }
}

struct Image {
    capacity: AtomicU64,
    options: NullOptions,
}

/// A backend of any size that stores nothing: writes are dropped, reads are zeroes or, if so
/// configured, nothing. Every operation succeeds at once.
#[derive(Clone)]
pub struct NullBackend(Arc<Image>);

impl NullBackend {
    /// A disk of `capacity` bytes.
    ///
    /// # Errors
    /// When the capacity is not a positive multiple of the block size, or that is not a power of two
    /// from 512 to 65536.
    pub fn new(capacity: u64, options: NullOptions) -> io::Result<Self> {
        check_geometry(capacity, options.logical_block)?;
        Ok(Self(Arc::new(Image { capacity: capacity.into(), options })))
    }

    /// Changes the capacity (bytes) while in use.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn resize(&self, capacity: u64) -> io::Result<()> {
        check_geometry(capacity, self.0.options.logical_block)?;
        self.0.capacity.store(capacity, Ordering::Release);
        Ok(())
    }
}

impl BlockBackend for NullBackend {
    fn info(&self) -> BlockInfo {
        let NullOptions { logical_block, id, .. } = self.0.options.clone();
        BlockInfo {
            capacity: self.0.capacity.load(Ordering::Acquire),
            logical_block,
            physical_block: logical_block,
            read_only: false,
            volatile_cache: false,
            discard_granularity: logical_block,
            write_zeroes: true,
            write_zeroes_unmap: true,
            secure_erase: true,
            id,
        }
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        Ok(Box::new(ImmediateQueue::new(self.0.clone(), depth)))
    }
}

impl Execute for Image {
    fn execute(&self, request: &BlockRequest) -> Result<u64, BlockError> {
        const ZEROES: [u8; 4096] = [0; 4096];
        check(request, self.capacity.load(Ordering::Acquire), false)?;
        if request.op != BlockOp::Read || !self.options.read_zeroes {
            return Ok(0);
        }
        for slice in request.buffers.slices() {
            let mut done = 0;
            while done < slice.len() {
                let Ok(rest) = slice.offset(done) else { break };
                let count = rest.len().min(ZEROES.len());
                rest.copy_from(&ZEROES[..count]);
                done += count;
            }
        }
        request.buffers.mark_written(request.buffers.len());
        Ok(request.len)
    }
}
