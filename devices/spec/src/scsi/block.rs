//! Data of block commands (SBC-3).

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// READ CAPACITY (10)'s data.
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
pub struct Capacity10 {
    /// The last logical block; [`CAPACITY_10_MORE`] if READ CAPACITY (16) has to be asked.
    pub last: U32,
    /// Bytes of a logical block.
    pub block: U32,
}

/// The last block is beyond what READ CAPACITY (10) can say.
pub const CAPACITY_10_MORE: u32 = 0xffff_ffff;

/// READ CAPACITY (16)'s data.
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
pub struct Capacity16 {
    /// The last logical block.
    pub last: U64,
    /// Bytes of a logical block.
    pub block: U32,
    /// P_TYPE and PROT_EN.
    pub protection: u8,
    /// Bits 3:0: logical blocks per physical block, as log2.
    pub exponent: u8,
    /// [`LBPME`], [`LBPRZ`], and in bits 13:0 the lowest aligned logical block.
    pub alignment: U16,
    reserved: [u8; 16],
}

impl Capacity16 {
    /// `last` is the last logical block of `block` bytes.
    pub const fn new(last: u64, block: u32, exponent: u8, alignment: u16) -> Self {
        Self {
            last: U64::new(last),
            block: U32::new(block),
            protection: 0,
            exponent,
            alignment: U16::new(alignment),
            reserved: [0; 16],
        }
    }
}

/// [`Capacity16::alignment`]: logical block provisioning is managed (UNMAP may be used).
pub const LBPME: u16 = 1 << 15;
/// [`Capacity16::alignment`]: unmapped blocks read as zeroes.
pub const LBPRZ: u16 = 1 << 14;

/// UNMAP's parameter list: the header; descriptors follow.
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
pub struct UnmapHeader {
    /// Bytes after this field.
    pub len: U16,
    /// Bytes of descriptors, a multiple of 16.
    pub descriptors: U16,
    reserved: [u8; 4],
}

impl UnmapHeader {
    /// For `count` descriptors.
    pub const fn new(count: u16) -> Self {
        let bytes = count * 16;
        Self { len: U16::new(bytes + 6), descriptors: U16::new(bytes), reserved: [0; 4] }
    }
}

/// One range of UNMAP's parameter list.
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
pub struct UnmapDescriptor {
    /// First logical block.
    pub lba: U64,
    /// Logical blocks.
    pub blocks: U32,
    reserved: [u8; 4],
}

impl UnmapDescriptor {
    /// `blocks` logical blocks from `lba`.
    pub const fn new(lba: u64, blocks: u32) -> Self {
        Self { lba: U64::new(lba), blocks: U32::new(blocks), reserved: [0; 4] }
    }
}

const _: () = {
    assert!(size_of::<Capacity10>() == 8);
    assert!(size_of::<Capacity16>() == 32);
    assert!(size_of::<UnmapHeader>() == 8);
    assert!(size_of::<UnmapDescriptor>() == 16);
};
