//! What the guest and the harness say to each other.
//!
//! The harness gives the guest its [`Job`] as the kernel command line. The guest writes [`port`]s:
//! phase marks, so that the harness can count exits and CPU time of the measured part alone, and
//! frames of bytes ([`frame`]), the last of which is its [`Outcome`]. All of it works under any
//! virtual machine monitor with a PVH loader, a debug console at port 0xe9 and a debug exit device.
#![no_std]

pub mod frame;
mod histogram;
mod job;
mod outcome;
pub mod traffic;

pub use histogram::{BUCKETS, Histogram, bucket_of, bucket_range};
pub use job::{
    Access, Class, Completion, Device, DiskJob, Job, JobError, MAX_BATCH, NetJob, Traffic,
};
pub use outcome::{Header, Outcome, OutcomeError, Status};

/// I/O ports that the guest writes.
pub mod port {
    /// Frames, a byte at a time: QEMU's `isa-debugcon`.
    pub const CONSOLE: u16 = 0xe9;
    /// Phase marks, 32 bits: a [`super::Phase`]. Nothing is there under other monitors.
    pub const PHASE: u16 = 0x5c0;
    /// Ends the guest, 32 bits: 0 for success. QEMU's `isa-debug-exit` at this address leaves with
    /// twice the value plus one.
    pub const EXIT: u16 = 0xf4;
}

/// What the guest is about to do; written to [`port::PHASE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Runs, unmeasured.
    WarmUp = 1,
    /// The measured part starts with the next instruction.
    Measure = 2,
    /// The measured part is over.
    Done = 3,
}

impl Phase {
    /// The phase that a guest wrote.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::WarmUp),
            2 => Some(Self::Measure),
            3 => Some(Self::Done),
            _ => None,
        }
    }
}

/// The contents that every block of a test image has before anybody writes to it, and the contents
/// that writes give it: word `i` (64 bits, little-endian) of the block that starts at byte `offset`
/// is `pattern_base(offset, generation)` plus `i` times [`PATTERN_STEP`], wrapping.
///
/// A block is 4096 bytes. Generation 0 is what the harness fills the image with; each write raises
/// it by one.
pub const PATTERN_BLOCK: usize = 4096;

/// What two neighbouring words of a block differ by. Odd, so that no word repeats in a block.
pub const PATTERN_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The first word of a block; see [`PATTERN_BLOCK`].
pub const fn pattern_base(offset: u64, generation: u32) -> u64 {
    // Any mixing will do that sets neighbouring blocks and generations far apart.
    let mixed = offset ^ ((generation as u64) << 48) ^ 0x5061_7261_736c_6f74;
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
