//! The system calls on image files that the standard library does not have.

#![expect(unsafe_code, reason = "system calls that the standard library does not have")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

use paraslot_device::DmaBuffers;
use vm_memory::MmapRegion;

/// Most buffers that one system call takes.
pub(super) const IOV_MAX: usize = 1024;

/// Addresses and lengths for one system call.
///
/// Whoever fills it keeps what it points to alive until the call, or the operation that it started,
/// is over.
#[derive(Default)]
pub(super) struct IoVecs(Vec<libc::iovec>);

// SAFETY: the addresses are only handed to the kernel; nothing is accessed through them here.
unsafe impl Send for IoVecs {}

impl IoVecs {
    /// The first pieces of `buffers`, as many as one call takes.
    pub(super) fn set_buffers(&mut self, buffers: &DmaBuffers) {
        self.0.clear();
        self.0.extend(
            buffers
                .host_ranges()
                .take(IOV_MAX)
                .map(|(host, len)| libc::iovec { iov_base: host.as_ptr().cast(), iov_len: len }),
        );
    }

    /// The first `len` bytes of `region`.
    pub(super) fn set_region(&mut self, region: &MmapRegion<()>, len: usize) {
        self.0.clear();
        self.0.push(libc::iovec {
            iov_base: region.as_ptr().cast(),
            iov_len: len.min(region.size()),
        });
    }

    /// `len` bytes of zeroes, [`ZEROES_MAX`] at most, to be written.
    pub(super) fn set_zeroes(&mut self, len: usize) {
        self.0.clear();
        let mut left = len.min(ZEROES_MAX);
        while left != 0 {
            let count = left.min(ZEROES.0.len());
            self.0.push(libc::iovec {
                iov_base: ZEROES.0.as_ptr().cast_mut().cast(),
                iov_len: count,
            });
            left -= count;
        }
    }

    pub(super) fn as_slice(&self) -> &[libc::iovec] {
        &self.0
    }

    fn count(&self) -> libc::c_int {
        libc::c_int::try_from(self.0.len()).unwrap_or(libc::c_int::MAX)
    }
}

#[repr(align(4096))]
struct Zeroes([u8; 64 << 10]);

static ZEROES: Zeroes = Zeroes([0; 64 << 10]);

/// Most zeroes that are written at once, in bytes.
pub(super) const ZEROES_MAX: usize = 1 << 20;

fn offset(value: u64) -> io::Result<libc::off64_t> {
    libc::off64_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn count(result: isize) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads into `iov`; returns how many bytes.
pub(super) fn preadv(file: &File, iov: &IoVecs, at: u64) -> io::Result<u64> {
    // SAFETY: the vectors point to live memory that may be written, by the contract of `IoVecs`.
    count(unsafe { libc::preadv64(file.as_raw_fd(), iov.0.as_ptr(), iov.count(), offset(at)?) })
}

/// Writes from `iov`, with `durable` to the medium; returns how many bytes.
pub(super) fn pwritev(file: &File, iov: &IoVecs, at: u64, durable: bool) -> io::Result<u64> {
    let flags = if durable { libc::RWF_DSYNC } else { 0 };
    // SAFETY: the vectors point to live memory, by the contract of `IoVecs`.
    count(unsafe {
        libc::pwritev2(file.as_raw_fd(), iov.0.as_ptr(), iov.count(), offset(at)?, flags)
    })
}

/// Changes how a range is allocated, without changing the file's size.
pub(super) fn fallocate(file: &File, mode: libc::c_int, at: u64, len: u64) -> io::Result<()> {
    // SAFETY: no memory is involved.
    done(unsafe { libc::fallocate64(file.as_raw_fd(), mode, offset(at)?, offset(len)?) })
}

/// Takes a lock on the whole file that lasts as long as the open file; `exclusive` against everyone,
/// else against those who take it exclusively.
pub(super) fn lock(file: &File, exclusive: bool) -> io::Result<()> {
    set_lock(file, if exclusive { libc::F_WRLCK } else { libc::F_RDLCK })
}

/// Gives the lock up.
pub(super) fn unlock(file: &File) -> io::Result<()> {
    set_lock(file, libc::F_UNLCK)
}

fn set_lock(file: &File, kind: libc::c_int) -> io::Result<()> {
    let lock = libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: `lock` is a valid flock structure for the call.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) })
}

/// What a file's transfers should look like, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Unit of offsets and lengths of direct transfers.
    pub(super) direct: u32,
    /// Unit that is written without reading it first.
    pub(super) physical: u32,
}

/// Finds out, or falls back to what every file system takes.
pub(super) fn alignment(file: &File) -> io::Result<Alignment> {
    const PAGE: u32 = 4096;
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() {
        let mut logical: libc::c_int = 0;
        let mut physical: libc::c_uint = 0;
        // SAFETY: BLKSSZGET stores one int.
        let first = unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &raw mut logical) };
        // SAFETY: BLKPBSZGET stores one unsigned int.
        let second = unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKPBSZGET, &raw mut physical) };
        if first != 0 || second != 0 {
            return Ok(Alignment { direct: PAGE, physical: PAGE });
        }
        let logical = u32::try_from(logical).unwrap_or(PAGE);
        return Ok(Alignment { direct: logical, physical: physical.max(logical) });
    }
    // SAFETY: an all-zero statx structure is valid.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is empty, so it is the descriptor's file; `stat` is valid for writes.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut stat,
        )
    };
    let known =
        result == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align != 0;
    let direct = if known { stat.stx_dio_offset_align.max(stat.stx_dio_mem_align) } else { PAGE };
    let block = std::os::unix::fs::MetadataExt::blksize(&metadata);
    Ok(Alignment { direct, physical: u32::try_from(block).unwrap_or(PAGE) })
}
