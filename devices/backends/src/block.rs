//! Block backends.
//!
//! A [`BlockBackend`] is an image that any number of queues use at once; a [`BlockQueue`] is one
//! worker's way to it. Nothing here blocks the caller: operations are submitted with a token and
//! their completions collected later, in any order.
//!
//! # The contract
//! - *Range*: the device checks an operation against the capacity and answers a bad one itself. A
//!   backend checks again and fails what lies outside with [`BlockError::OutOfRange`].
//! - *Alignment*: offsets and lengths are multiples of the logical block size; the device sees to it.
//! - *Tokens* are the caller's; a backend only gives them back. Each operation that was accepted
//!   completes exactly once.
//! - *Ordering*: none, except that a flush covers all writes that completed before it was submitted.
//! - *Transfers* are whole or failed. Short ones are carried on inside the backend; what cannot be
//!   carried on is an error, and the buffers' contents are then undefined.
//! - *Durability*: a completed write is durable once a flush that was submitted after its completion
//!   has completed without error, or at once if it was a forced unit access write. After a flush
//!   has failed, no later flush of the same image succeeds unless what was lost has been written
//!   again: the failure is not forgotten.
//! - *Memory*: the buffers are guest memory, used in place. A queue gives them up with the
//!   completion. Dropping a queue waits for its operations, so that no guest memory is written
//!   afterwards.

mod file;
mod immediate;
mod limited;
mod memory;
mod null;
#[cfg(any(test, feature = "test-utils"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Sources};

pub use file::{CacheMode, Engine, FileBackend, FileOptions, OpenError};
pub use limited::LimitedBackend;
pub use memory::{MemoryBackend, MemoryOptions};
pub use null::{NullBackend, NullOptions};

/// What an image is like. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Size, a multiple of `logical_block`.
    pub capacity: u64,
    /// Smallest unit of an operation, a power of two from 512 to 65536.
    pub logical_block: u32,
    /// Unit that is written without reading it first, a power of two, at least `logical_block`.
    pub physical_block: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Completed writes may be lost until they are flushed.
    pub volatile_cache: bool,
    /// Discard is supported; granularity in bytes, 0 if not.
    pub discard_granularity: u32,
    /// Write zeroes is supported.
    pub write_zeroes: bool,
    /// Write zeroes may deallocate.
    pub write_zeroes_unmap: bool,
    /// Secure erase is supported: what was there cannot be read back from this image by any means of
    /// the host's file system, though a medium below may keep copies.
    pub secure_erase: bool,
    /// Identification, as the guest is to see it (serial number), at most 20 bytes of it.
    pub id: String,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOp {
    /// Fill the buffers.
    Read,
    /// Store the buffers; with `fua`, durably.
    Write {
        /// Forced unit access: durable when it completes.
        fua: bool,
    },
    /// Make completed writes durable.
    Flush,
    /// The range's contents do not matter any more.
    Discard,
    /// The range reads as zeroes from now on; with `unmap`, its space may be given back.
    WriteZeroes {
        /// Whether deallocating is allowed.
        unmap: bool,
    },
    /// The range's contents must be gone.
    SecureErase,
}

/// One operation.
#[derive(Debug)]
pub struct BlockRequest {
    /// The caller's.
    pub token: u64,
    /// What to do.
    pub op: BlockOp,
    /// First byte; 0 for a flush.
    pub offset: u64,
    /// Bytes; for reads and writes what `buffers` hold, 0 for a flush.
    pub len: u64,
    /// Guest memory, for reads and writes.
    pub buffers: DmaBuffers,
}

/// How an operation ended.
#[derive(Debug)]
pub struct BlockCompletion {
    /// The request's token.
    pub token: u64,
    /// All of it was done, or it failed.
    pub result: Result<(), BlockError>,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The range lies outside the image.
    #[error("outside the image")]
    OutOfRange,
    /// The image is read-only.
    #[error("read-only")]
    ReadOnly,
    /// The image cannot do that.
    #[error("not supported")]
    Unsupported,
    /// No space left on the host for a write or an allocation.
    #[error("no space left on the host")]
    NoSpace,
    /// Its [`cancel`](BlockQueue::cancel) ended it.
    #[error("cancelled")]
    Cancelled,
    /// A host error.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Io(error),
        }
    }
}

/// An image.
pub trait BlockBackend: Send + Sync {
    /// What it is like now. The capacity may change while it is in use; the rest stays.
    fn info(&self) -> BlockInfo;

    /// Opens a queue for up to `depth` operations in flight (at least 1).
    ///
    /// # Errors
    /// When the host lacks the resources.
    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>>;
}

impl<B: BlockBackend + ?Sized> BlockBackend for Arc<B> {
    fn info(&self) -> BlockInfo {
        (**self).info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        (**self).open_queue(depth)
    }
}

/// One worker's operations on an image.
pub trait BlockQueue: Send {
    /// Takes an operation, unless `depth` are in flight already: then gives it back. It may be held
    /// until [`commit`](Self::commit).
    ///
    /// # Errors
    /// The request itself, if there is no room for it.
    #[expect(clippy::result_large_err, reason = "the refused request is handed back whole")]
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest>;

    /// Starts what was submitted, in one go. Without effect if nothing is held.
    fn commit(&mut self);

    /// Appends what has completed to `completions`. Does not wait.
    fn complete(&mut self, completions: &mut Vec<BlockCompletion>);

    /// What rings when there may be completions. None for a queue whose operations complete in
    /// `submit` or `commit`. They stay the same.
    fn sources(&self) -> Sources;

    /// Operations accepted and not yet returned by `complete`.
    fn in_flight(&self) -> usize;

    /// Asks that the operation of this token (or all of them, if several have it) end soon, done or
    /// not. It completes exactly once all the same: as it would have, or with
    /// [`BlockError::Cancelled`], and then some of it may have been done. Without effect if the token
    /// is not known, or the backend cannot stop what it has begun.
    fn cancel(&mut self, _token: u64) {}

    /// Its worker is to stop: what is held back for the sake of a [limit](crate::limit) goes now, at
    /// the next [`commit`](Self::commit), unless the limit is overdrawn by ten seconds already. Without
    /// effect on a queue that holds nothing back.
    fn hurry(&mut self) {}

    /// Bytes that were copied between guest memory and host memory by this process (for a bounce
    /// buffer, or because the image is in memory), since the queue was opened.
    fn copied_bytes(&self) -> u64 {
        0
    }
}

/// What every backend checks of a request before anything else.
fn check(request: &BlockRequest, capacity: u64, read_only: bool) -> Result<(), BlockError> {
    let direction = match request.op {
        BlockOp::Flush => return Ok(()),
        BlockOp::Read => Some(Direction::FromDevice),
        BlockOp::Write { .. } => Some(Direction::ToDevice),
        BlockOp::Discard | BlockOp::WriteZeroes { .. } | BlockOp::SecureErase => None,
    };
    if read_only && request.op != BlockOp::Read {
        return Err(BlockError::ReadOnly);
    }
    if request.offset.checked_add(request.len).is_none_or(|end| end > capacity) {
        return Err(BlockError::OutOfRange);
    }
    let fits = |direction| {
        request.buffers.direction() == direction
            && u64::try_from(request.buffers.len()) == Ok(request.len)
    };
    if direction.is_none_or(fits) {
        Ok(())
    } else {
        Err(BlockError::Io(io::ErrorKind::InvalidInput.into()))
    }
}

/// Whether `logical_block` and `capacity` obey [`BlockInfo`].
fn check_geometry(capacity: u64, logical_block: u32) -> io::Result<()> {
    let problem = if !logical_block.is_power_of_two() || !(512..=65536).contains(&logical_block) {
        format!("block size {logical_block} is not a power of two from 512 to 65536")
    } else if capacity == 0 || !capacity.is_multiple_of(logical_block.into()) {
        format!("capacity {capacity} is not a positive multiple of the block size {logical_block}")
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}
