//! The virtio block device (VIRTIO 1.4, 5.2).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Feature bits (5.2.3), as masks.
pub mod feature {
    /// VIRTIO_BLK_F_SIZE_MAX: size_max is valid.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// VIRTIO_BLK_F_SEG_MAX: seg_max is valid.
    pub const SEG_MAX: u64 = 1 << 2;
    /// VIRTIO_BLK_F_GEOMETRY: geometry is valid.
    pub const GEOMETRY: u64 = 1 << 4;
    /// VIRTIO_BLK_F_RO: read-only.
    pub const RO: u64 = 1 << 5;
    /// VIRTIO_BLK_F_BLK_SIZE: blk_size is valid.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// VIRTIO_BLK_F_FLUSH: the flush command.
    pub const FLUSH: u64 = 1 << 9;
    /// VIRTIO_BLK_F_TOPOLOGY: topology is valid.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// VIRTIO_BLK_F_CONFIG_WCE: writeback can be read and written.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// VIRTIO_BLK_F_MQ: num_queues is valid.
    pub const MQ: u64 = 1 << 12;
    /// VIRTIO_BLK_F_DISCARD.
    pub const DISCARD: u64 = 1 << 13;
    /// VIRTIO_BLK_F_WRITE_ZEROES.
    pub const WRITE_ZEROES: u64 = 1 << 14;
    /// VIRTIO_BLK_F_LIFETIME.
    pub const LIFETIME: u64 = 1 << 15;
    /// VIRTIO_BLK_F_SECURE_ERASE.
    pub const SECURE_ERASE: u64 = 1 << 16;
    /// VIRTIO_BLK_F_ZONED.
    pub const ZONED: u64 = 1 << 17;
}

/// Device configuration (5.2.4).
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
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Config {
    /// In sectors of 512 bytes.
    pub capacity: U64,
    pub size_max: U32,
    pub seg_max: U32,
    pub geometry: Geometry,
    /// In bytes.
    pub blk_size: U32,
    pub topology: Topology,
    /// 1 for writeback, 0 for writethrough.
    pub writeback: u8,
    unused0: u8,
    pub num_queues: U16,
    pub max_discard_sectors: U32,
    pub max_discard_seg: U32,
    pub discard_sector_alignment: U32,
    pub max_write_zeroes_sectors: U32,
    pub max_write_zeroes_seg: U32,
    pub write_zeroes_may_unmap: u8,
    unused1: [u8; 3],
    pub max_secure_erase_sectors: U32,
    pub max_secure_erase_seg: U32,
    pub secure_erase_sector_alignment: U32,
}

/// Legacy disk geometry, in [`Config`].
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
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Geometry {
    pub cylinders: U16,
    pub heads: u8,
    pub sectors: u8,
}

/// Topology, in [`Config`].
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
pub struct Topology {
    /// Logical blocks per physical block, as log2.
    pub physical_block_exp: u8,
    /// Offset of the first aligned logical block.
    pub alignment_offset: u8,
    /// Suggested minimum I/O size, in logical blocks.
    pub min_io_size: U16,
    /// Optimal sustained I/O size, in logical blocks.
    pub opt_io_size: U32,
}

/// The header that each request starts with (5.2.6).
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
pub struct RequestHeader {
    /// `request::*`.
    pub kind: U32,
    reserved: U32,
    /// First sector, of 512 bytes.
    pub sector: U64,
}

impl RequestHeader {
    /// A header.
    pub const fn new(kind: u32, sector: u64) -> Self {
        Self { kind: U32::new(kind), reserved: U32::new(0), sector: U64::new(sector) }
    }
}

/// One range of a discard, secure erase or write zeroes request (5.2.6).
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
pub struct RangeSegment {
    /// First sector.
    pub sector: U64,
    /// Sectors.
    pub num_sectors: U32,
    /// [`RANGE_F_UNMAP`] and reserved bits.
    pub flags: U32,
}

/// Range flag: the device may deallocate, for write zeroes.
pub const RANGE_F_UNMAP: u32 = 1;

/// Request types (5.2.6).
pub mod request {
    /// VIRTIO_BLK_T_IN.
    pub const IN: u32 = 0;
    /// VIRTIO_BLK_T_OUT.
    pub const OUT: u32 = 1;
    /// VIRTIO_BLK_T_FLUSH.
    pub const FLUSH: u32 = 4;
    /// VIRTIO_BLK_T_GET_ID.
    pub const GET_ID: u32 = 8;
    /// VIRTIO_BLK_T_GET_LIFETIME.
    pub const GET_LIFETIME: u32 = 10;
    /// VIRTIO_BLK_T_DISCARD.
    pub const DISCARD: u32 = 11;
    /// VIRTIO_BLK_T_WRITE_ZEROES.
    pub const WRITE_ZEROES: u32 = 13;
    /// VIRTIO_BLK_T_SECURE_ERASE.
    pub const SECURE_ERASE: u32 = 14;
}

/// Request status, the last byte of each request (5.2.6).
pub mod status {
    /// VIRTIO_BLK_S_OK.
    pub const OK: u8 = 0;
    /// VIRTIO_BLK_S_IOERR.
    pub const IOERR: u8 = 1;
    /// VIRTIO_BLK_S_UNSUPP.
    pub const UNSUPP: u8 = 2;
}

/// Bytes in a sector, the unit of every address here.
pub const SECTOR_SIZE: u64 = 512;
/// Bytes of the identification that GET_ID returns.
pub const ID_LEN: usize = 20;

const _: () = assert!(size_of::<Config>() == 72 && size_of::<RequestHeader>() == 16);
