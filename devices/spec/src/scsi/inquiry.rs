//! Standard INQUIRY data (SPC-4, INQUIRY command).

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Peripheral device types, bits 4:0 of byte 0.
pub mod device_type {
    /// Mask of the type.
    pub const MASK: u8 = 0x1f;
    /// Direct access block device.
    pub const DISK: u8 = 0x00;
    /// CD/DVD device.
    pub const CDROM: u8 = 0x05;
    /// Unknown, or none.
    pub const UNKNOWN: u8 = 0x1f;
}

/// Peripheral qualifiers, bits 7:5 of byte 0, shifted.
pub mod qualifier {
    /// A unit is there, as far as the target can say.
    pub const CONNECTED: u8 = 0 << 5;
    /// There could be a unit of this type, and there is none.
    pub const NOT_CONNECTED: u8 = 1 << 5;
    /// There cannot be a unit.
    pub const NOT_CAPABLE: u8 = 3 << 5;
}

/// Byte 0 for a LUN that is not there (SPC-4, INQUIRY command): qualifier 3, type 1Fh.
pub const NO_UNIT: u8 = qualifier::NOT_CAPABLE | device_type::UNKNOWN;
/// Byte 1: removable medium.
pub const RMB: u8 = 1 << 7;
/// Byte 2: SPC-3.
pub const VERSION_SPC3: u8 = 0x05;
/// Byte 2: SPC-4.
pub const VERSION_SPC4: u8 = 0x06;
/// Byte 3, bits 3:0: response data format, 2 always.
pub const RESPONSE_FORMAT: u8 = 0x02;
/// Byte 3: LUNs are hierarchical.
pub const HISUP: u8 = 1 << 4;
/// Byte 3: NACA is supported.
pub const NORMACA: u8 = 1 << 5;
/// Byte 7: the unit takes more than one command at once.
pub const CMDQUE: u8 = 1 << 1;

/// Version descriptors (SPC-4, annex on numeric codes).
pub mod version {
    /// SAM-5, no version claimed.
    pub const SAM_5: u16 = 0x00a0;
    /// SPC-4, no version claimed.
    pub const SPC_4: u16 = 0x0460;
    /// SBC-3, no version claimed.
    pub const SBC_3: u16 = 0x04c0;
    /// MMC-6, no version claimed.
    pub const MMC_6: u16 = 0x04e0;
}

/// Standard INQUIRY data up to the version descriptors.
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
pub struct Standard {
    /// `qualifier::*` and `device_type::*`.
    pub peripheral: u8,
    /// [`RMB`].
    pub removable: u8,
    /// `VERSION_*`.
    pub version: u8,
    /// [`RESPONSE_FORMAT`], [`HISUP`], [`NORMACA`].
    pub format: u8,
    /// Bytes after this one.
    pub additional: u8,
    /// Byte 5: SCCS, ACC, TPGS, 3PC, PROTECT.
    pub flags5: u8,
    /// Byte 6: ENCSERV, MULTIP.
    pub flags6: u8,
    /// Byte 7: [`CMDQUE`].
    pub flags7: u8,
    /// T10 vendor identification, ASCII, padded with spaces.
    pub vendor: [u8; 8],
    /// Product identification, ASCII, padded with spaces.
    pub product: [u8; 16],
    /// Product revision level, ASCII, padded with spaces.
    pub revision: [u8; 4],
    /// Vendor specific.
    pub specific: [u8; 20],
    /// Clocking, QAS and IUS of the parallel interface.
    pub spi: u8,
    reserved0: u8,
    /// `version::*`, as many as there are.
    pub versions: [U16; 8],
    reserved1: [u8; 22],
}

impl Standard {
    /// A unit of this `qualifier::*` and `device_type::*` by SPC-4, with a name of spaces.
    pub const fn new(peripheral: u8) -> Self {
        Self {
            peripheral,
            removable: 0,
            version: VERSION_SPC4,
            format: RESPONSE_FORMAT,
            additional: 91,
            flags5: 0,
            flags6: 0,
            flags7: 0,
            vendor: [b' '; 8],
            product: [b' '; 16],
            revision: [b' '; 4],
            specific: [0; 20],
            spi: 0,
            reserved0: 0,
            versions: [U16::ZERO; 8],
            reserved1: [0; 22],
        }
    }
}

/// Bytes of standard INQUIRY data that every unit has.
pub const STANDARD_MIN: usize = 36;

const _: () = assert!(size_of::<Standard>() == 96);
