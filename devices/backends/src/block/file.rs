//! An image in a file or on a block device of the host.

mod gate;
mod image;
mod plan;
mod sys;
mod threads;
mod uring;

mod error;
#[cfg(test)]
mod tests;

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{BlockBackend, BlockInfo, BlockQueue, check_geometry};
use gate::SyncGate;
use image::Image;
use threads::{Pool, ThreadsQueue};
use uring::UringQueue;

pub use error::OpenError;

/// When a write is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// When it has been flushed.
    #[default]
    Writeback,
    /// When it has completed.
    Writethrough,
}

/// Who makes the system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// io_uring where the host has it, else threads. [`FileBackend::engine`] says which.
    #[default]
    Auto,
    /// io_uring, with a ring for each queue.
    IoUring,
    /// A pool of threads for the image.
    Threads,
}

/// Which image, and how to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// A regular file or a block device. It is neither created nor changed by opening it.
    pub path: PathBuf,
    /// Open it for reading only, and refuse writes.
    pub read_only: bool,
    /// Go around the host's page cache (O_DIRECT).
    pub direct: bool,
    /// When a write is durable.
    pub cache: CacheMode,
    /// Bytes in a logical block, a power of two from 512 to 65536. The size must be a multiple.
    pub logical_block: u32,
    /// Who makes the system calls.
    pub engine: Engine,
    /// How many threads, for that engine: 1 to 64.
    pub threads: usize,
    /// Lock it, for writing against everyone and for reading against writers, for as long as it is
    /// open. The lock is advisory (an open file description lock on the whole file), so it keeps out
    /// those who take it, too: other virtual machine monitors, for one.
    pub lock: bool,
    /// Serial number; without, the file's name.
    pub id: Option<String>,
}

impl FileOptions {
    /// `path` with defaults: for writing, through the page cache, 512-byte blocks, locked, io_uring
    /// if there is one.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_only: false,
            direct: false,
            cache: CacheMode::default(),
            logical_block: 512,
            engine: Engine::default(),
            threads: 8,
            lock: true,
            id: None,
        }
    }
}

/// An image in a file or on a block device.
///
/// # Operations
/// - *Reads and writes* are vectored and go straight to and from guest memory. With `direct`, a list
///   that is not aligned as the host wants it goes through a buffer, in pieces, and is counted in
///   [`copied_bytes`](BlockQueue::copied_bytes).
/// - *Discard* punches a hole. Where the file system cannot, it does nothing, and succeeds: it is a
///   hint.
/// - *Write zeroes* with `unmap` punches a hole, without it zeroes the range but keeps its space; what
///   the file system cannot do is done by writing zeroes, 1 MiB at a time.
/// - *Secure erase* overwrites the range with zeroes and waits until they are on the medium, so that
///   what was there cannot be read from the image any more, even after a power failure. Snapshots,
///   journals and worn-out flash blocks below the file are out of reach. The space is kept.
/// - *Flush* is fdatasync. Forced unit access writes are synchronous writes (RWF_DSYNC).
/// - *Cancel*: what has not begun is not begun. With io_uring, of an operation that takes several
///   system calls no further one is made, and the one that has begun ends early if the kernel can have
///   it do so (which it cannot once a disk has it); with threads, what has begun goes on to its end.
///
/// # Lost writes
/// The kernel tells of a write that could not be brought to the medium once, and forgets it. So after
/// a flush or a synchronous write has failed, every later flush fails, for as long as the image is
/// open.
///
/// # Cost
/// With io_uring, two descriptors, the ring, and about 400 bytes for each operation of a queue's depth; with
/// threads, the threads, for all queues. A queue takes up to 128 KiB more for each operation (with
/// threads: each thread) that ever needed the buffer for lists that are not aligned.
pub struct FileBackend {
    image: Arc<Image>,
    info: BlockInfo,
    path: PathBuf,
    pool: Option<Arc<Pool>>,
    no_uring: Option<io::Error>,
}

impl FileBackend {
    /// Opens an image. Nothing is created, and nothing is changed.
    ///
    /// # Errors
    /// In one line, what is wrong and what to do about it.
    pub fn open(options: &FileOptions) -> Result<Self, OpenError> {
        Self::with_file(open_image(options)?, options)
    }

    /// As [`open`](Self::open), of a file that is open already and may have no name: the options' path
    /// is for messages then. It must have been opened for writing unless `read_only`, and with O_DIRECT
    /// if `direct`. Its offset is not used. With `lock`, the lock is that of its open file description:
    /// duplicates of a descriptor do not lock each other out.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn with_file(file: File, options: &FileOptions) -> Result<Self, OpenError> {
        let path = &options.path;
        let failed = |error| OpenError::io(path, error);
        check_kind(path, file.metadata().map_err(failed)?.file_type())?;
        if options.lock {
            sys::lock(&file, !options.read_only)
                .map_err(|error| OpenError::lock(path, options.read_only, error))?;
        }
        let capacity = size(&file).map_err(failed)?;
        check_size(path, capacity, options.logical_block)?;
        let alignment = sys::alignment(&file).map_err(failed)?;
        if options.direct && alignment.direct > options.logical_block {
            return Err(OpenError::Direct { path: path.clone(), block: alignment.direct });
        }
        let physical = if alignment.physical.is_power_of_two() { alignment.physical } else { 4096 };
        let id = options
            .id
            .clone()
            .unwrap_or_else(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let info = BlockInfo {
            capacity,
            logical_block: options.logical_block,
            physical_block: physical.clamp(options.logical_block, 65536.max(options.logical_block)),
            read_only: options.read_only,
            volatile_cache: options.cache == CacheMode::Writeback,
            discard_granularity: physical.max(options.logical_block),
            write_zeroes: true,
            write_zeroes_unmap: true,
            secure_erase: true,
            id,
        };
        let buffer_alignment =
            if options.direct { usize::try_from(alignment.direct).unwrap_or(4096) } else { 0 };
        let image = Arc::new(Image {
            file,
            capacity: AtomicU64::new(capacity),
            read_only: options.read_only,
            writethrough: options.cache == CacheMode::Writethrough,
            buffer_alignment,
            can_punch: AtomicBool::new(true),
            can_zero: AtomicBool::new(true),
            lost: AtomicBool::new(false),
            sync: SyncGate::default(),
            locked: options.lock,
        });
        let no_uring = match options.engine {
            Engine::Threads => None,
            _ => uring::available().err(),
        };
        let threads = match (options.engine, &no_uring) {
            (Engine::IoUring, Some(error)) => return Err(OpenError::uring(path, error)),
            (Engine::Threads, _) | (_, Some(_)) => options.threads.clamp(1, 64),
            (_, None) => 0,
        };
        let pool = if threads == 0 {
            None
        } else {
            Some(Arc::new(Pool::new(image.clone(), threads).map_err(failed)?))
        };
        Ok(Self { image, info, path: path.clone(), pool, no_uring })
    }

    /// Who makes the system calls: never [`Engine::Auto`].
    pub fn engine(&self) -> Engine {
        if self.pool.is_some() { Engine::Threads } else { Engine::IoUring }
    }

    /// Why it is not io_uring, if that was wanted but could not be had.
    pub fn fallback_reason(&self) -> Option<&io::Error> {
        self.no_uring.as_ref()
    }

    /// Looks at the file's size again, after it was changed on the host, and returns the capacity in
    /// bytes. The device has to be told, too.
    ///
    /// # Errors
    /// When the size cannot be read, or is not a multiple of the block size; the capacity then stays.
    pub fn refresh(&self) -> Result<u64, OpenError> {
        let capacity = size(&self.image.file).map_err(|error| OpenError::io(&self.path, error))?;
        check_size(&self.path, capacity, self.info.logical_block)?;
        self.image.capacity.store(capacity, Ordering::Release);
        Ok(capacity)
    }
}

/// Opens the file, once it is sure to be one that is not changed by that and does not block.
fn open_image(options: &FileOptions) -> Result<File, OpenError> {
    let path = &options.path;
    let failed = |error| OpenError::open(path, options.read_only, error);
    check_kind(path, std::fs::metadata(path).map_err(failed)?.file_type())?;
    let direct = if options.direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new()
        .read(true)
        .write(!options.read_only)
        .custom_flags(direct | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) if options.direct => OpenError::NoDirect { path: path.clone() },
            _ => failed(error),
        })
}

fn check_kind(path: &Path, kind: FileType) -> Result<(), OpenError> {
    let what = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else {
        "neither a regular file nor a block device"
    };
    Err(OpenError::NotAnImage { path: path.into(), what })
}

/// In bytes, of a file or a block device.
fn size(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

fn check_size(path: &Path, size: u64, block: u32) -> Result<(), OpenError> {
    if !block.is_power_of_two() || !(512..=65536).contains(&block) {
        return Err(OpenError::Block { path: path.into(), block });
    }
    check_geometry(size, block).map_err(|_| OpenError::Size {
        path: path.into(),
        size,
        block,
        next: size.max(1).next_multiple_of(block.into()),
    })
}

impl BlockBackend for FileBackend {
    fn info(&self) -> BlockInfo {
        let capacity = self.image.capacity.load(Ordering::Acquire);
        BlockInfo { capacity, ..self.info.clone() }
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        Ok(match &self.pool {
            Some(pool) => Box::new(ThreadsQueue::new(pool.clone(), depth)?),
            None => Box::new(UringQueue::new(self.image.clone(), depth)?),
        })
    }
}
