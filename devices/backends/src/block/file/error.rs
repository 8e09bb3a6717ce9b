//! What can be wrong with an image, for whoever named it.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image cannot be opened, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file.
    #[error("image {path:?} does not exist; create it, for example with `truncate -s 1G {path:?}`")]
    Missing {
        /// The image.
        path: PathBuf,
    },
    /// Something else than a file or a block device.
    #[error("image {path:?} is {what}; name a regular file or a block device")]
    NotAnImage {
        /// The image.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// No permission.
    #[error("image {path:?} cannot be opened: {error}; {advice}")]
    Permission {
        /// The image.
        path: PathBuf,
        /// As the host puts it.
        error: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// Someone else has locked it.
    #[error("image {path:?} is in use {by}; stop that first, or use a copy")]
    Locked {
        /// The image.
        path: PathBuf,
        /// By whom.
        by: &'static str,
    },
    /// The file system has no locks.
    #[error("image {path:?} cannot be locked: {error}; if nobody else uses it, turn locking off")]
    NoLock {
        /// The image.
        path: PathBuf,
        /// As the host puts it.
        error: io::Error,
    },
    /// The block size is not one.
    #[error("image {path:?}: block size {block} is not a power of two from 512 to 65536")]
    Block {
        /// The image.
        path: PathBuf,
        /// In bytes.
        block: u32,
    },
    /// The size is not a multiple of the block size.
    #[error(
        "image {path:?} has {size} bytes, which is not a positive multiple of its block size, \
         {block}; extend it with `truncate -s {next} {path:?}`"
    )]
    Size {
        /// The image.
        path: PathBuf,
        /// In bytes.
        size: u64,
        /// In bytes.
        block: u32,
        /// The next size that would do, in bytes.
        next: u64,
    },
    /// The file system has no direct I/O.
    #[error("image {path:?}: its file system does not support direct I/O; turn it off")]
    NoDirect {
        /// The image.
        path: PathBuf,
    },
    /// Direct I/O needs larger blocks.
    #[error(
        "image {path:?}: direct I/O needs blocks of {block} bytes here; set the block size to \
         {block}, or turn direct I/O off"
    )]
    Direct {
        /// The image.
        path: PathBuf,
        /// In bytes.
        block: u32,
    },
    /// There is no io_uring.
    #[error("image {path:?}: this host has no io_uring ({error}); choose threads, or auto")]
    NoUring {
        /// The image.
        path: PathBuf,
        /// As the host puts it.
        error: io::Error,
    },
    /// Anything else.
    #[error("image {path:?}: {error}")]
    Io {
        /// The image.
        path: PathBuf,
        /// As the host puts it.
        error: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.into(), error }
    }

    pub(super) fn open(path: &Path, read_only: bool, error: io::Error) -> Self {
        let path = path.into();
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                let advice = if read_only {
                    "let this user read it"
                } else {
                    "let this user write it, or open it read-only"
                };
                Self::Permission { path, error, advice }
            }
            _ => Self::Io { path, error },
        }
    }

    pub(super) fn lock(path: &Path, read_only: bool, error: io::Error) -> Self {
        let path = path.into();
        let by = if read_only { "by someone who writes it" } else { "by someone else" };
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Self::Locked { path, by },
            _ => Self::NoLock { path, error },
        }
    }

    pub(super) fn uring(path: &Path, error: &io::Error) -> Self {
        let error = error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error);
        Self::NoUring { path: path.into(), error }
    }
}
