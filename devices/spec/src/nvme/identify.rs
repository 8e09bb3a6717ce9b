//! What Identify tells (5.15.2). Of its pages, what drivers need.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of each of its data structures.
pub const IDENTIFY_LEN: usize = 4096;

/// The start of the controller's data structure (5.15.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentifyController {
    /// VID: PCI vendor ID.
    pub vendor: U16,
    /// SSVID: PCI subsystem vendor ID.
    pub subsystem_vendor: U16,
    /// SN: serial number, padded by spaces.
    pub serial: [u8; 20],
    /// MN: model, padded by spaces.
    pub model: [u8; 40],
    /// FR: firmware revision, padded by spaces.
    pub firmware: [u8; 8],
    reserved0: [u8; 5],
    /// MDTS: most bytes of data of a command, as a power of two times CAP.MPSMIN; 0 for no limit.
    pub max_transfer: u8,
    /// CNTLID: controller ID.
    pub controller: U16,
    /// VER: version, as in the register VS.
    pub version: U32,
    reserved1: [u8; 428],
    /// SQES: required, in bits 3:0, and largest entries of submission queues, log2 of bytes.
    pub submission_entry: u8,
    /// CQES: the same of completion queues.
    pub completion_entry: u8,
    /// MAXCMD: most commands in flight in a queue; 0 if not said.
    pub max_commands: U16,
    /// NN: the highest namespace ID.
    pub namespaces: U32,
    /// ONCS: [`Oncs`].
    pub commands: U16,
    reserved2: [u8; 3],
    /// VWC: bit 0 says that there is a volatile write cache.
    pub write_cache: u8,
}

bitflags! {
    /// Optional commands of the NVM command set (5.15.2.2, ONCS).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Oncs: u16 {
        /// Compare.
        const COMPARE = 1 << 0;
        /// Write Uncorrectable.
        const WRITE_UNCORRECTABLE = 1 << 1;
        /// Dataset Management.
        const DATASET_MANAGEMENT = 1 << 2;
        /// Write Zeroes.
        const WRITE_ZEROES = 1 << 3;
    }
}

/// Formats that a namespace can have since version 2.0; before, there were 16.
pub const MAX_FORMATS: usize = 64;

/// The start of a namespace's data structure (5.15.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// NSZE: blocks.
    pub blocks: U64,
    /// NCAP: blocks that can be allocated at a time.
    pub capacity: U64,
    /// NUSE: blocks that are.
    pub used: U64,
    /// NSFEAT: features.
    pub features: u8,
    /// NLBAF: formats, 0's based.
    pub formats: u8,
    /// FLBAS: the format in use; see [`format_index`](Self::format_index).
    pub format: u8,
    reserved: [u8; 101],
    /// LBAF0 and on: the formats.
    pub format_list: [LbaFormat; MAX_FORMATS],
}

impl IdentifyNamespace {
    /// The index of the format in use. Bits 6:5 are its upper half since version 2.0, and only where
    /// there are more than 16 formats.
    pub const fn format_index(format: u8, formats: u8) -> usize {
        let low = format & 0xf;
        let high = if formats < 16 { 0 } else { format >> 5 & 0b11 };
        (high << 4 | low) as usize
    }
}

/// An LBA format (5.15.2.1, figure "LBA Format Data Structure").
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LbaFormat {
    /// MS: bytes of metadata for each block.
    pub metadata: U16,
    /// LBADS: log2 of a block's bytes, 9 at least.
    pub block_shift: u8,
    /// RP: relative performance.
    pub performance: u8,
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(IdentifyController, max_transfer) == 77);
    assert!(offset_of!(IdentifyController, version) == 80);
    assert!(offset_of!(IdentifyController, submission_entry) == 512);
    assert!(offset_of!(IdentifyController, namespaces) == 516);
    assert!(offset_of!(IdentifyController, commands) == 520);
    assert!(offset_of!(IdentifyController, write_cache) == 525);
    assert!(offset_of!(IdentifyNamespace, format) == 26);
    assert!(offset_of!(IdentifyNamespace, format_list) == 128);
    assert!(size_of::<IdentifyNamespace>() == 128 + 4 * MAX_FORMATS);
    assert!(size_of::<IdentifyController>() <= IDENTIFY_LEN);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_in_use_has_six_bits_only_where_there_are_that_many() {
        assert_eq!(IdentifyNamespace::format_index(0x1f, 0), 15);
        assert_eq!(IdentifyNamespace::format_index(0x63, 15), 3);
        assert_eq!(IdentifyNamespace::format_index(0x63, 16), 0x33);
        assert_eq!(IdentifyNamespace::format_index(0xff, 0xff), 63);
    }
}
