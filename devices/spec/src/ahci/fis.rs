//! Frame information structures (Serial ATA 3.3, 10.5), as they lie in memory.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Type of [`RegisterH2d`].
pub const TYPE_REGISTER_H2D: u8 = 0x27;
/// Type of [`RegisterD2h`].
pub const TYPE_REGISTER_D2H: u8 = 0x34;
/// Type of [`DmaSetup`].
pub const TYPE_DMA_SETUP: u8 = 0x41;
/// Type of [`PioSetup`].
pub const TYPE_PIO_SETUP: u8 = 0x5f;
/// Type of [`SetDeviceBits`].
pub const TYPE_SET_DEVICE_BITS: u8 = 0xa1;

/// Flags, the second byte: port multiplier port.
pub const FLAG_PMP: u8 = 0x0f;
/// Flags of [`PioSetup`] and [`DmaSetup`]: the data goes to the host.
pub const FLAG_DIRECTION: u8 = 1 << 5;
/// Flags: interrupt.
pub const FLAG_INTERRUPT: u8 = 1 << 6;
/// Flags of [`RegisterH2d`]: this is a command, not a change of device control.
pub const FLAG_COMMAND: u8 = 1 << 7;
/// Flags of [`SetDeviceBits`]: asynchronous notification.
pub const FLAG_NOTIFICATION: u8 = 1 << 7;
/// Flags of [`DmaSetup`]: activate at once.
pub const FLAG_AUTO_ACTIVATE: u8 = 1 << 7;

/// Device control: software reset.
pub const CONTROL_SRST: u8 = 1 << 2;
/// Device control: interrupts disabled.
pub const CONTROL_NIEN: u8 = 1 << 1;

/// Register FIS, host to device (10.5.5).
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
pub struct RegisterH2d {
    pub fis_type: u8,
    /// `FLAG_*`.
    pub flags: u8,
    pub command: u8,
    /// Features, bits 7:0.
    pub features: u8,
    /// LBA, bits 23:0.
    pub lba: [u8; 3],
    pub device: u8,
    /// LBA, bits 47:24.
    pub lba_exp: [u8; 3],
    /// Features, bits 15:8.
    pub features_exp: u8,
    /// Count, bits 15:0.
    pub count: U16,
    /// Isochronous command completion.
    pub icc: u8,
    /// Device control, `CONTROL_*`.
    pub control: u8,
    pub auxiliary: U32,
}

impl RegisterH2d {
    /// A command without parameters.
    pub fn command(command: u8) -> Self {
        Self { fis_type: TYPE_REGISTER_H2D, flags: FLAG_COMMAND, command, ..Self::default() }
    }

    /// Sets the 48-bit LBA; bits above are lost.
    pub fn set_lba(&mut self, lba: u64) {
        let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
        self.lba = [a, b, c];
        self.lba_exp = [d, e, f];
    }

    /// The 48-bit LBA.
    pub fn lba48(&self) -> u64 {
        let [a, b, c] = self.lba;
        let [d, e, f] = self.lba_exp;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// The 28-bit LBA, of which the device register has bits 27:24.
    pub fn lba28(&self) -> u32 {
        let [a, b, c] = self.lba;
        u32::from_le_bytes([a, b, c, self.device & 0xf])
    }

    /// All 16 bits of features.
    pub fn features16(&self) -> u16 {
        u16::from_le_bytes([self.features, self.features_exp])
    }
}

/// Register FIS, device to host (10.5.6).
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
pub struct RegisterD2h {
    pub fis_type: u8,
    /// `FLAG_*`.
    pub flags: u8,
    pub status: u8,
    pub error: u8,
    /// LBA, bits 23:0.
    pub lba: [u8; 3],
    pub device: u8,
    /// LBA, bits 47:24.
    pub lba_exp: [u8; 3],
    pub reserved0: u8,
    pub count: U16,
    pub reserved1: [u8; 6],
}

/// PIO setup FIS (10.5.11).
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
pub struct PioSetup {
    pub fis_type: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Status at the start of the transfer.
    pub status: u8,
    pub error: u8,
    /// LBA, bits 23:0.
    pub lba: [u8; 3],
    pub device: u8,
    /// LBA, bits 47:24.
    pub lba_exp: [u8; 3],
    pub reserved0: u8,
    pub count: U16,
    pub reserved1: u8,
    /// Status at the end of the transfer.
    pub e_status: u8,
    /// Bytes that follow, an even number.
    pub transfer_count: U16,
    pub reserved2: [u8; 2],
}

/// DMA setup FIS (10.5.8).
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
pub struct DmaSetup {
    pub fis_type: u8,
    /// `FLAG_*`.
    pub flags: u8,
    pub reserved0: [u8; 2],
    /// The tag, in bits 4:0 of the low half.
    pub buffer_id: [U32; 2],
    pub reserved1: U32,
    pub buffer_offset: U32,
    pub transfer_count: U32,
    pub reserved2: U32,
}

/// Set device bits FIS (10.5.7).
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
pub struct SetDeviceBits {
    pub fis_type: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Status without BSY (bit 7) and DRQ (bit 3), which it does not change.
    pub status: u8,
    pub error: u8,
    /// SActive: ones for the tags that have ended.
    pub s_active: U32,
}

/// Bits of the status register that a set device bits FIS carries.
pub const SDB_STATUS: u8 = 0x77;

const _: () = assert!(size_of::<RegisterH2d>() == 20 && size_of::<RegisterD2h>() == 20);
const _: () = assert!(size_of::<PioSetup>() == 20 && size_of::<DmaSetup>() == 28);
const _: () = assert!(size_of::<SetDeviceBits>() == 8);
