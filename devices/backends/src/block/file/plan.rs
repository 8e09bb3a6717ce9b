//! An operation as a sequence of system calls, whoever makes them.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;
use vm_memory::{MmapRegion, VolatileMemory};

use super::gate::Entry;
use super::image::Image;
use super::sys::{IoVecs, ZEROES_MAX};
use crate::block::{BlockCompletion, BlockError, BlockOp, BlockRequest, check};

/// Bytes of the buffer that stands in for guest memory that is not aligned.
const BOUNCE: usize = 128 << 10;

/// How often one step is tried again without any progress.
const RETRIES: u32 = 64;

/// What a step needs besides its operation. Belongs to whoever makes the calls, and is used again
/// for the next operation.
#[derive(Default)]
pub(super) struct Workspace {
    pub(super) iov: IoVecs,
    bounce: Option<MmapRegion<()>>,
}

/// The next system call.
#[derive(Debug)]
pub(super) enum Step {
    /// Read into the workspace's vectors.
    Read { at: u64 },
    /// Write the workspace's vectors; `durable`, to the medium.
    Write { at: u64, durable: bool },
    /// Change how a range is allocated.
    Fallocate { mode: libc::c_int, at: u64, len: u64 },
    /// Bring everything to the medium.
    Sync,
    /// None: it is over.
    Done(Result<(), BlockError>),
}

impl Step {
    /// How it passes the image's gate, if it must.
    pub(super) fn entry(&self) -> Option<Entry> {
        match self {
            Self::Write { durable: true, .. } => Some(Entry::Shared),
            Self::Sync => Some(Entry::Alone),
            _ => None,
        }
    }
}

enum Stage {
    Transfer { bounced: bool },
    Punch,
    ZeroRange,
    Zeroing,
    Sync,
    Done(Result<(), BlockError>),
}

/// An operation on its way.
pub(super) struct Plan {
    token: u64,
    op: BlockOp,
    stage: Stage,
    /// Where the rest begins.
    at: u64,
    /// Bytes of the rest.
    left: u64,
    buffers: DmaBuffers,
    retries: u32,
    copied: u64,
    /// No further step is to be made.
    cancelled: bool,
}

impl Plan {
    pub(super) fn new(request: BlockRequest, image: &Image) -> Self {
        let checked = check(&request, image.capacity.load(Relaxed), image.read_only);
        let BlockRequest { token, op, offset, len, buffers } = request;
        let bounced = image.buffer_alignment != 0 && !buffers.is_aligned(image.buffer_alignment);
        let stage = match (checked, op) {
            (Err(error), _) => Stage::Done(Err(error)),
            (Ok(()), BlockOp::Flush) => Stage::Sync,
            (Ok(()), _) if len == 0 => Stage::Done(Ok(())),
            (Ok(()), BlockOp::Read | BlockOp::Write { .. }) => Stage::Transfer { bounced },
            (Ok(()), BlockOp::Discard | BlockOp::WriteZeroes { unmap: true }) => Stage::Punch,
            (Ok(()), BlockOp::WriteZeroes { unmap: false }) => Stage::ZeroRange,
            (Ok(()), BlockOp::SecureErase) => Stage::Zeroing,
        };
        let (retries, copied, cancelled) = (0, 0, false);
        Self { token, op, stage, at: offset, left: len, buffers, retries, copied, cancelled }
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// Has it end with what has been done. What it was going to end with already, it still does.
    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// The next step; the same again until its result is in.
    pub(super) fn step(&mut self, image: &Image, work: &mut Workspace) -> Step {
        if self.cancelled && !matches!(self.stage, Stage::Done(_)) {
            self.stage = Stage::Done(Err(BlockError::Cancelled));
        }
        loop {
            match &mut self.stage {
                Stage::Transfer { bounced } => {
                    if !*bounced {
                        work.iov.set_buffers(&self.buffers);
                    } else if let Err(error) = self.bounce(work) {
                        self.stage = Stage::Done(Err(error.into()));
                        continue;
                    }
                    return match self.op {
                        BlockOp::Write { fua } => {
                            Step::Write { at: self.at, durable: fua || image.writethrough }
                        }
                        _ => Step::Read { at: self.at },
                    };
                }
                Stage::Punch if !image.can_punch.load(Relaxed) => self.cannot_punch(),
                Stage::Punch => {
                    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                    return Step::Fallocate { mode, at: self.at, len: self.left };
                }
                Stage::ZeroRange if !image.can_zero.load(Relaxed) => self.stage = Stage::Zeroing,
                Stage::ZeroRange => {
                    let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
                    return Step::Fallocate { mode, at: self.at, len: self.left };
                }
                Stage::Zeroing => {
                    let len = usize::try_from(self.left).unwrap_or(usize::MAX);
                    work.iov.set_zeroes(len.min(ZEROES_MAX));
                    return Step::Write { at: self.at, durable: false };
                }
                Stage::Sync if image.lost.load(Relaxed) => {
                    self.stage = Stage::Done(Err(lost()));
                }
                Stage::Sync => return Step::Sync,
                Stage::Done(result) => return Step::Done(std::mem::replace(result, Ok(()))),
            }
        }
    }

    /// How the last step ended: for a transfer, after how many bytes.
    pub(super) fn result(&mut self, image: &Image, work: &Workspace, result: io::Result<u64>) {
        let error = match result {
            Ok(count) => {
                self.retries = 0;
                return self.succeeded(image, work, count);
            }
            Err(error) => error,
        };
        // How much was written all the same is not known, nor whether it is tried again.
        if self.buffers.direction() == Direction::FromDevice {
            self.buffers.mark_written(self.buffers.len());
        }
        let code = error.raw_os_error().unwrap_or_default();
        if matches!(code, libc::EINTR | libc::EAGAIN | libc::ECANCELED) {
            if self.cancelled {
                self.stage = Stage::Done(Err(BlockError::Cancelled));
                return;
            }
            if self.retries < RETRIES {
                self.retries += 1;
                return;
            }
        }
        match self.stage {
            Stage::Punch | Stage::ZeroRange if is_unsupported(code) => {
                let punch = matches!(self.stage, Stage::Punch);
                // What is merely wrong with this range may be right with another.
                if code != libc::EINVAL {
                    let can = if punch { &image.can_punch } else { &image.can_zero };
                    can.store(false, Relaxed);
                }
                if punch { self.cannot_punch() } else { self.stage = Stage::Zeroing }
            }
            _ => {
                let synchronous = match self.op {
                    BlockOp::Write { fua } => fua || image.writethrough,
                    _ => matches!(self.stage, Stage::Sync),
                };
                if synchronous {
                    // It may have been another write that was lost, and nobody will be told again.
                    image.lost.store(true, Relaxed);
                }
                self.stage = Stage::Done(Err(error.into()));
            }
        }
    }

    fn succeeded(&mut self, image: &Image, work: &Workspace, count: u64) {
        match self.stage {
            Stage::Transfer { bounced } => {
                let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.buffers.len());
                let reading = self.op == BlockOp::Read;
                if count == 0 {
                    // The file has become shorter than the image.
                    let kind = io::ErrorKind::UnexpectedEof;
                    self.stage = Stage::Done(Err(BlockError::Io(kind.into())));
                    return;
                }
                if bounced {
                    if reading {
                        self.copy(work, count, true);
                    }
                    self.copied = self.copied.wrapping_add(count as u64);
                }
                if reading {
                    self.buffers.mark_written(count);
                }
                self.buffers.advance(count);
                self.advance(count as u64);
                if self.left == 0 {
                    self.stage = Stage::Done(Ok(()));
                }
            }
            Stage::Zeroing => {
                if count == 0 {
                    let kind = io::ErrorKind::WriteZero;
                    self.stage = Stage::Done(Err(BlockError::Io(kind.into())));
                    return;
                }
                self.advance(count);
                if self.left == 0 {
                    self.zeroed(image);
                }
            }
            Stage::Punch | Stage::ZeroRange => match self.op {
                BlockOp::Discard => self.stage = Stage::Done(Ok(())),
                _ => self.zeroed(image),
            },
            Stage::Sync => {
                let result = if image.lost.load(Relaxed) { Err(lost()) } else { Ok(()) };
                self.stage = Stage::Done(result);
            }
            Stage::Done(_) => {}
        }
    }

    /// The range reads as zeroes; does that have to be durable now?
    fn zeroed(&mut self, image: &Image) {
        let durable = image.writethrough || self.op == BlockOp::SecureErase;
        self.stage = if durable { Stage::Sync } else { Stage::Done(Ok(())) };
    }

    /// Does without a hole: a discard was only a hint, and zeroes can be written.
    fn cannot_punch(&mut self) {
        self.stage = match self.op {
            BlockOp::WriteZeroes { .. } => Stage::ZeroRange,
            _ => Stage::Done(Ok(())),
        };
    }

    fn advance(&mut self, count: u64) {
        let count = count.min(self.left);
        self.left -= count;
        self.at = self.at.saturating_add(count);
    }

    /// Puts the bounce buffer in the place of the next part of the guest's.
    fn bounce(&mut self, work: &mut Workspace) -> io::Result<()> {
        if work.bounce.is_none() {
            work.bounce = Some(MmapRegion::new(BOUNCE).map_err(io::Error::other)?);
        }
        let count = self.buffers.len().min(BOUNCE);
        if self.op != BlockOp::Read {
            self.copy(work, count, false);
        }
        if let Some(bounce) = &work.bounce {
            work.iov.set_region(bounce, count);
        }
        Ok(())
    }

    /// Copies between the bounce buffer and the start of the guest's.
    fn copy(&self, work: &Workspace, count: usize, to_guest: bool) {
        let Some(bounce) = &work.bounce else { return };
        let mut done = 0;
        for guest in self.buffers.slices() {
            let len = guest.len().min(count - done);
            let Ok(part) = bounce.get_slice(done, len) else { break };
            if to_guest {
                part.copy_to_volatile_slice(guest);
            } else {
                guest.copy_to_volatile_slice(part);
            }
            done += len;
            if done == count {
                break;
            }
        }
    }

    /// Bytes copied so far.
    pub(super) fn copied(&self) -> u64 {
        self.copied
    }

    /// Gives up the buffers and tells the caller.
    pub(super) fn complete(self, result: Result<(), BlockError>) -> BlockCompletion {
        BlockCompletion { token: self.token, result }
    }
}

fn is_unsupported(code: i32) -> bool {
    matches!(code, libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::EINVAL)
}

fn lost() -> BlockError {
    BlockError::Io(io::Error::from_raw_os_error(libc::EIO))
}
