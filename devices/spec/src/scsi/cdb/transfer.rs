//! Commands about a range of blocks.

use crate::scsi::opcode;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// READ (6), WRITE (6).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct ReadWrite6 {
    /// Operation code.
    pub opcode: u8,
    /// LBA, bits 20:16 in the low five bits of the first byte.
    pub lba: [u8; 3],
    /// Blocks; 0 means [`RW6_MAX`](super::RW6_MAX).
    pub blocks: u8,
    /// Control.
    pub control: u8,
}

/// READ (10), WRITE (10), VERIFY (10), SYNCHRONIZE CACHE (10), WRITE SAME (10) and others.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct ReadWrite10 {
    /// Operation code.
    pub opcode: u8,
    /// Byte 1.
    pub flags: u8,
    /// First logical block.
    pub lba: U32,
    /// Group number in bits 4:0.
    pub group: u8,
    /// Logical blocks.
    pub blocks: U16,
    /// Control.
    pub control: u8,
}

/// READ (12), WRITE (12), VERIFY (12).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct ReadWrite12 {
    /// Operation code.
    pub opcode: u8,
    /// Byte 1.
    pub flags: u8,
    /// First logical block.
    pub lba: U32,
    /// Logical blocks.
    pub blocks: U32,
    /// Group number in bits 4:0.
    pub group: u8,
    /// Control.
    pub control: u8,
}

/// READ (16), WRITE (16), VERIFY (16), SYNCHRONIZE CACHE (16), WRITE SAME (16) and others.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct ReadWrite16 {
    /// Operation code.
    pub opcode: u8,
    /// Byte 1.
    pub flags: u8,
    /// First logical block.
    pub lba: U64,
    /// Logical blocks.
    pub blocks: U32,
    /// Group number in bits 4:0.
    pub group: u8,
    /// Control.
    pub control: u8,
}

/// COMPARE AND WRITE.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct CompareAndWrite {
    /// Operation code.
    pub opcode: u8,
    /// Byte 1.
    pub flags: u8,
    /// First logical block.
    pub lba: U64,
    reserved: [u8; 3],
    /// Logical blocks; the data is twice as much.
    pub blocks: u8,
    /// Group number in bits 4:0.
    pub group: u8,
    /// Control.
    pub control: u8,
}

impl CompareAndWrite {
    /// Compares and writes `blocks` logical blocks from `lba`, with these [`FUA`](super::FUA) and [`DPO`](super::DPO).
    pub const fn new(flags: u8, lba: u64, blocks: u8) -> Self {
        Self {
            opcode: opcode::COMPARE_AND_WRITE,
            flags,
            lba: U64::new(lba),
            reserved: [0; 3],
            blocks,
            group: 0,
            control: 0,
        }
    }
}

const _: () = {
    assert!(size_of::<ReadWrite6>() == 6);
    assert!(size_of::<ReadWrite10>() == 10);
    assert!(size_of::<ReadWrite12>() == 12);
    assert!(size_of::<ReadWrite16>() == 16);
    assert!(size_of::<CompareAndWrite>() == 16);
};
