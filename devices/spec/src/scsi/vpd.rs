//! Vital product data pages (SPC-4, 7.8; SBC-3).

/// Page codes.
pub mod page {
    /// Supported VPD Pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Unit Serial Number.
    pub const SERIAL: u8 = 0x80;
    /// Device Identification.
    pub const IDENTIFICATION: u8 = 0x83;
    /// Extended INQUIRY Data.
    pub const EXTENDED_INQUIRY: u8 = 0x86;
    /// Block Limits.
    pub const BLOCK_LIMITS: u8 = 0xb0;
    /// Block Device Characteristics.
    pub const BLOCK_CHARACTERISTICS: u8 = 0xb1;
    /// Logical Block Provisioning.
    pub const PROVISIONING: u8 = 0xb2;
}

/// Bytes before a page's own: peripheral, page code, two bytes of page length.
pub const HEADER: usize = 4;

/// Designation descriptors of page 83h: code set, type, reserved, length, designator.
pub mod designator {
    /// Code set, bits 3:0 of byte 0: binary.
    pub const BINARY: u8 = 1;
    /// Code set: ASCII.
    pub const ASCII: u8 = 2;
    /// Code set: UTF-8.
    pub const UTF8: u8 = 3;
    /// Type, bits 3:0 of byte 1: T10 vendor ID based.
    pub const T10: u8 = 1;
    /// Type: NAA.
    pub const NAA: u8 = 3;
    /// Association, bits 5:4 of byte 1: the logical unit.
    pub const LOGICAL_UNIT: u8 = 0 << 4;
}

/// Extended INQUIRY Data, from the start of the page.
pub mod extended_inquiry {
    /// PAGE LENGTH, always.
    pub const LEN: u16 = 0x3c;
    /// Byte of HEADSUP, ORDSUP, SIMPSUP and others.
    pub const TASK_ATTRIBUTES: usize = 5;
    /// Simple commands are supported.
    pub const SIMPSUP: u8 = 1 << 0;
    /// Ordered commands are supported.
    pub const ORDSUP: u8 = 1 << 1;
    /// Head of queue commands are supported.
    pub const HEADSUP: u8 = 1 << 2;
    /// Byte of V_SUP and others.
    pub const CACHE: usize = 6;
    /// There is a volatile cache.
    pub const V_SUP: u8 = 1 << 0;
    /// Byte of LUICLR and others.
    pub const LUICLR: usize = 7;
}

/// Block Limits, from the start of the page.
pub mod block_limits {
    /// PAGE LENGTH.
    pub const LEN: u16 = 0x3c;
    /// Byte of WSNZ.
    pub const FLAGS: usize = 4;
    /// WRITE SAME of no blocks is refused (it would mean all).
    pub const WSNZ: u8 = 1 << 0;
    /// MAXIMUM COMPARE AND WRITE LENGTH, one byte.
    pub const MAX_COMPARE_AND_WRITE: usize = 5;
    /// OPTIMAL TRANSFER LENGTH GRANULARITY, two bytes.
    pub const GRANULARITY: usize = 6;
    /// MAXIMUM TRANSFER LENGTH, four bytes.
    pub const MAX_TRANSFER: usize = 8;
    /// OPTIMAL TRANSFER LENGTH, four bytes.
    pub const OPTIMAL_TRANSFER: usize = 12;
    /// MAXIMUM PREFETCH LENGTH, four bytes.
    pub const MAX_PREFETCH: usize = 16;
    /// MAXIMUM UNMAP LBA COUNT, four bytes.
    pub const MAX_UNMAP_BLOCKS: usize = 20;
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT, four bytes.
    pub const MAX_UNMAP_DESCRIPTORS: usize = 24;
    /// OPTIMAL UNMAP GRANULARITY, four bytes.
    pub const UNMAP_GRANULARITY: usize = 28;
    /// UGAVALID in the top bit, UNMAP GRANULARITY ALIGNMENT, four bytes.
    pub const UNMAP_ALIGNMENT: usize = 32;
    /// The unmap granularity alignment is valid.
    pub const UGAVALID: u32 = 1 << 31;
    /// MAXIMUM WRITE SAME LENGTH, eight bytes.
    pub const MAX_WRITE_SAME: usize = 36;
}

/// Block Device Characteristics, from the start of the page.
pub mod block_characteristics {
    /// PAGE LENGTH, always.
    pub const LEN: u16 = 0x3c;
    /// MEDIUM ROTATION RATE, two bytes.
    pub const ROTATION: usize = 4;
    /// No rotating medium.
    pub const NON_ROTATING: u16 = 1;
    /// Byte of FUAB and VBULS.
    pub const FLAGS: usize = 8;
    /// VERIFY of unmapped blocks is supported.
    pub const VBULS: u8 = 1 << 0;
    /// SYNCHRONIZE CACHE and FUA are as SBC-3 has them.
    pub const FUAB: u8 = 1 << 1;
}

/// Logical Block Provisioning, from the start of the page.
pub mod provisioning {
    /// PAGE LENGTH without a provisioning group descriptor.
    pub const LEN: u16 = 4;
    /// THRESHOLD EXPONENT, one byte.
    pub const THRESHOLD: usize = 4;
    /// Byte of LBPU, LBPWS and others.
    pub const FLAGS: usize = 5;
    /// UNMAP is supported.
    pub const LBPU: u8 = 1 << 7;
    /// WRITE SAME (16) with UNMAP is supported.
    pub const LBPWS: u8 = 1 << 6;
    /// WRITE SAME (10) with UNMAP is supported.
    pub const LBPWS10: u8 = 1 << 5;
    /// Unmapped blocks read as zeroes.
    pub const LBPRZ: u8 = 1 << 2;
    /// Anchored blocks are supported.
    pub const ANC_SUP: u8 = 1 << 1;
    /// Byte of PROVISIONING TYPE, bits 2:0.
    pub const TYPE: usize = 6;
    /// Fully provisioned, or it is not said.
    pub const TYPE_FULL: u8 = 0;
    /// Resource provisioned.
    pub const TYPE_RESOURCE: u8 = 1;
    /// Thin provisioned.
    pub const TYPE_THIN: u8 = 2;
}
