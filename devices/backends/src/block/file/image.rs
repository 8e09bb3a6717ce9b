//! An open image, shared by its queues.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::gate::SyncGate;
use super::sys;

/// An open file, and what has been learnt about it.
pub(super) struct Image {
    pub(super) file: File,
    /// Bytes.
    pub(super) capacity: AtomicU64,
    pub(super) read_only: bool,
    /// Every write is brought to the medium before it completes.
    pub(super) writethrough: bool,
    /// Buffers must start and end at multiples of this; 0 if anywhere will do.
    pub(super) buffer_alignment: usize,
    /// As far as is known, holes can be punched.
    pub(super) can_punch: AtomicBool,
    /// As far as is known, ranges can be zeroed without writing them.
    pub(super) can_zero: AtomicBool,
    /// A write that had completed could not be brought to the medium.
    pub(super) lost: AtomicBool,
    pub(super) sync: SyncGate,
    /// This process has locked it.
    pub(super) locked: bool,
}

#[cfg(test)]
impl Image {
    /// Whatever `file` is, as an image of `capacity` bytes.
    pub(super) fn of(file: File, capacity: u64) -> Self {
        Self {
            file,
            capacity: AtomicU64::new(capacity),
            read_only: false,
            writethrough: false,
            buffer_alignment: 0,
            can_punch: AtomicBool::new(true),
            can_zero: AtomicBool::new(true),
            lost: AtomicBool::new(false),
            sync: SyncGate::default(),
            locked: false,
        }
    }
}

impl Drop for Image {
    /// Unlocks it by hand: closing the file does so only when the kernel has let go of it, too, which
    /// can be later.
    fn drop(&mut self) {
        if self.locked {
            // It can only fail for a file that has no locks.
            let _ = sys::unlock(&self.file);
        }
    }
}
