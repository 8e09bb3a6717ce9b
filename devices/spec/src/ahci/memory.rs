//! Structures in memory (4.2).

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Alignment of a command list and its size, in bytes (4.2.2).
pub const COMMAND_LIST_LEN: usize = 32 * 32;
/// Alignment of a command table in bytes (4.2.2).
pub const COMMAND_TABLE_ALIGN: u64 = 128;
/// Offset of the command FIS in a command table (4.2.3.1), up to 64 bytes.
pub const COMMAND_FIS: u64 = 0x00;
/// Offset of the ATAPI command in a command table (4.2.3.2), 12 or 16 bytes.
pub const ATAPI_COMMAND: u64 = 0x40;
/// Offset of the PRD table in a command table (4.2.3.3).
pub const PRD_TABLE: u64 = 0x80;
/// Alignment of a received FIS area and its size, in bytes (4.2.1).
pub const RECEIVED_FIS_LEN: usize = 256;

/// Offsets in a received FIS area (4.2.1).
pub mod received {
    /// DSFIS: the last DMA setup FIS.
    pub const DMA_SETUP: u64 = 0x00;
    /// PSFIS: the last PIO setup FIS.
    pub const PIO_SETUP: u64 = 0x20;
    /// RFIS: the last D2H register FIS.
    pub const REGISTER: u64 = 0x40;
    /// SDBFIS: the last set device bits FIS.
    pub const SET_DEVICE_BITS: u64 = 0x58;
    /// UFIS: an unknown FIS.
    pub const UNKNOWN: u64 = 0x60;
}

/// An entry of the command list (4.2.2).
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
pub struct CommandHeader {
    /// Bits of [`header`].
    pub flags: U32,
    /// PRDBC: bytes moved so far; written by the HBA.
    pub prdbc: U32,
    /// CTBA: the command table's address, 128-byte aligned.
    pub ctba: U32,
    /// CTBAU: its upper half.
    pub ctbau: U32,
    reserved: [U32; 4],
}

impl CommandHeader {
    /// A header of `flags` for the command table at `table`, PRDBC 0.
    pub fn new(flags: u32, table: u64) -> Self {
        let [low, high] = halves(table);
        Self { flags: U32::new(flags), ctba: low, ctbau: high, ..Self::default() }
    }

    /// The command table's address, its low bits zero.
    pub fn table(&self) -> u64 {
        (u64::from(self.ctbau.get()) << 32 | u64::from(self.ctba.get()))
            & !(COMMAND_TABLE_ALIGN - 1)
    }
}

/// Fields of [`CommandHeader::flags`] (4.2.2).
pub mod header {
    /// CFL: length of the command FIS in 32-bit words, 2 to 16.
    pub const CFL: u32 = 0x1f;
    /// A: an ATAPI command.
    pub const ATAPI: u32 = 1 << 5;
    /// W: data goes to the device.
    pub const WRITE: u32 = 1 << 6;
    /// P: PRDs may be fetched ahead.
    pub const PREFETCHABLE: u32 = 1 << 7;
    /// R: part of a software reset.
    pub const RESET: u32 = 1 << 8;
    /// B: a BIST FIS.
    pub const BIST: u32 = 1 << 9;
    /// C: clear BSY once the FIS was sent.
    pub const CLEAR_BUSY: u32 = 1 << 10;
    /// PMP: port multiplier port.
    pub const PMP: u32 = 0xf << 12;
    /// PRDTL: entries in the PRD table.
    pub const PRDTL: u32 = 0xffff << 16;
    /// Shift of PRDTL.
    pub const PRDTL_SHIFT: u32 = 16;
}

/// An entry of the PRD table (4.2.3.3): a physical region, its descriptor.
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
pub struct Prd {
    /// DBA: the data's address, a multiple of 2.
    pub dba: U32,
    /// DBAU: its upper half.
    pub dbau: U32,
    reserved: U32,
    /// DBC in bits 21:0, bytes minus one and so odd; bit 31 asks for an interrupt.
    pub dbc: U32,
}

impl Prd {
    /// DBC: bytes minus one.
    pub const DBC: u32 = 0x3f_ffff;
    /// I: interrupt when this region has been used up.
    pub const INTERRUPT: u32 = 1 << 31;
    /// Most bytes of one region.
    pub const MAX_LEN: u32 = Self::DBC + 1;

    /// A region of `len` bytes, an even number from 2 to [`Prd::MAX_LEN`], at an even address.
    pub fn new(address: u64, len: u32) -> Self {
        let [low, high] = halves(address);
        let dbc = U32::new(len.wrapping_sub(1) & Self::DBC);
        Self { dba: low, dbau: high, reserved: U32::new(0), dbc }
    }

    /// The data's address as written, low bit included.
    pub fn address(&self) -> u64 {
        u64::from(self.dbau.get()) << 32 | u64::from(self.dba.get())
    }

    /// Bytes, 1 to [`Prd::MAX_LEN`].
    pub fn len(&self) -> u32 {
        (self.dbc.get() & Self::DBC) + 1
    }

    /// Never: zero bytes cannot be said.
    pub fn is_empty(&self) -> bool {
        false
    }
}

fn halves(value: u64) -> [U32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [U32::from_bytes([a, b, c, d]), U32::from_bytes([e, f, g, h])]
}

const _: () = assert!(size_of::<CommandHeader>() == 32 && size_of::<Prd>() == 16);
