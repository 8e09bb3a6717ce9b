//! An open image, shared by its queues.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::gate::SyncGate;

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
}
