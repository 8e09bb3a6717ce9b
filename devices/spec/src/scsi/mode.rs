//! Mode parameters (SPC-4, 7.5; SBC-3; MMC-6).

/// Page codes, bits 5:0 of a page's first byte.
pub mod page {
    /// Mask of the code.
    pub const MASK: u8 = 0x3f;
    /// Read-Write Error Recovery.
    pub const ERROR_RECOVERY: u8 = 0x01;
    /// Rigid Disk Geometry, obsolete.
    pub const RIGID_GEOMETRY: u8 = 0x04;
    /// Caching.
    pub const CACHING: u8 = 0x08;
    /// Control.
    pub const CONTROL: u8 = 0x0a;
    /// CD Audio Control.
    pub const CD_AUDIO: u8 = 0x0e;
    /// Power Condition.
    pub const POWER: u8 = 0x1a;
    /// Informational Exceptions Control.
    pub const EXCEPTIONS: u8 = 0x1c;
    /// CD/DVD Capabilities and Mechanical Status, of MMC-3.
    pub const CAPABILITIES: u8 = 0x2a;
    /// All pages.
    pub const ALL: u8 = 0x3f;
}

/// Subpage codes.
pub mod subpage {
    /// No subpage: the page in its short form.
    pub const NONE: u8 = 0x00;
    /// All subpages.
    pub const ALL: u8 = 0xff;
}

/// Page control of MODE SENSE, bits 7:6 of byte 2.
pub mod control {
    /// Shift of it.
    pub const SHIFT: u8 = 6;
    /// Current values.
    pub const CURRENT: u8 = 0;
    /// Changeable values, as a mask.
    pub const CHANGEABLE: u8 = 1;
    /// Default values.
    pub const DEFAULT: u8 = 2;
    /// Saved values.
    pub const SAVED: u8 = 3;
}

/// First byte of a page: it can be saved.
pub const PS: u8 = 1 << 7;
/// First byte of a page: it is a subpage, with four bytes of header.
pub const SPF: u8 = 1 << 6;
/// Bytes of the header of MODE SENSE (6)'s and MODE SELECT (6)'s data: length, medium type, device
/// specific, bytes of block descriptors.
pub const HEADER_6: usize = 4;
/// Bytes of the header of MODE SENSE (10)'s and MODE SELECT (10)'s data: two bytes of length, medium
/// type, device specific, LONGLBA, reserved, two bytes counting those of block descriptors.
pub const HEADER_10: usize = 8;
/// Byte 4 of the long header: block descriptors have 16 bytes.
pub const LONGLBA: u8 = 1 << 0;
/// Bytes of a short block descriptor: blocks (4), reserved, bytes of a block (3).
pub const BLOCK_DESCRIPTOR: usize = 8;
/// Bytes of a long block descriptor: blocks (8), reserved (4), bytes of a block (4).
pub const LONG_BLOCK_DESCRIPTOR: usize = 16;
/// Device specific parameter of disks: DPO and FUA are supported.
pub const DPOFUA: u8 = 1 << 4;
/// Device specific parameter of disks: write protected.
pub const WP: u8 = 1 << 7;

/// Read-Write Error Recovery, from the start of the page.
pub mod error_recovery {
    /// PAGE LENGTH.
    pub const LEN: u8 = 0x0a;
}

/// Caching, from the start of the page.
pub mod caching {
    /// PAGE LENGTH.
    pub const LEN: u8 = 0x12;
    /// Byte of WCE, RCD and others.
    pub const FLAGS: usize = 2;
    /// Read cache disable.
    pub const RCD: u8 = 1 << 0;
    /// Write cache enable.
    pub const WCE: u8 = 1 << 2;
}

/// Control, from the start of the page.
pub mod control_page {
    /// PAGE LENGTH.
    pub const LEN: u8 = 0x0a;
    /// Byte of TST, D_SENSE, GLTSD and others.
    pub const FLAGS: usize = 2;
    /// Sense data has descriptor format.
    pub const D_SENSE: u8 = 1 << 2;
    /// Byte of QUEUE ALGORITHM MODIFIER, bits 7:4, and QERR, bits 2:1.
    pub const QUEUE: usize = 3;
    /// Commands may be reordered at will.
    pub const UNRESTRICTED: u8 = 1 << 4;
    /// Byte of SWP, UA_INTLCK_CTRL and others.
    pub const PROTECT: usize = 4;
    /// Software write protect.
    pub const SWP: u8 = 1 << 3;
    /// Byte of TAS, ATO and others.
    pub const ABORT: usize = 5;
    /// Commands that another initiator aborts end with TASK ABORTED.
    pub const TAS: u8 = 1 << 6;
    /// BUSY TIMEOUT PERIOD, two bytes, 100 ms each.
    pub const BUSY_TIMEOUT: usize = 8;
    /// EXTENDED SELF-TEST COMPLETION TIME, two bytes, seconds.
    pub const SELF_TEST_TIME: usize = 10;
}

/// Informational Exceptions Control, from the start of the page.
pub mod exceptions {
    /// PAGE LENGTH.
    pub const LEN: u8 = 0x0a;
    /// Byte of DEXCPT and others.
    pub const FLAGS: usize = 2;
    /// Exceptions are not reported.
    pub const DEXCPT: u8 = 1 << 3;
}

/// CD/DVD Capabilities and Mechanical Status, from the start of the page.
pub mod capabilities {
    /// PAGE LENGTH, without write speed descriptors.
    pub const LEN: u8 = 0x1a;
    /// Byte of what discs can be read.
    pub const READ: usize = 2;
    /// CD-R.
    pub const READ_CD_R: u8 = 1 << 0;
    /// CD-RW.
    pub const READ_CD_RW: u8 = 1 << 1;
    /// DVD-ROM.
    pub const READ_DVD_ROM: u8 = 1 << 3;
    /// DVD-R.
    pub const READ_DVD_R: u8 = 1 << 4;
    /// Byte of what discs can be written.
    pub const WRITE: usize = 3;
    /// Byte of what can be played.
    pub const FEATURES: usize = 4;
    /// Mode 2 form 1.
    pub const MODE_2_FORM_1: u8 = 1 << 4;
    /// Mode 2 form 2.
    pub const MODE_2_FORM_2: u8 = 1 << 5;
    /// Several sessions.
    pub const MULTISESSION: u8 = 1 << 6;
    /// Byte of audio commands and others.
    pub const FEATURES_2: usize = 5;
    /// Byte of the mechanism.
    pub const MECHANISM: usize = 6;
    /// PREVENT ALLOW MEDIUM REMOVAL locks the drive.
    pub const LOCK: u8 = 1 << 0;
    /// It is locked now.
    pub const LOCK_STATE: u8 = 1 << 1;
    /// START STOP UNIT ejects.
    pub const EJECT: u8 = 1 << 3;
    /// Loading mechanism, bits 7:5: a tray.
    pub const TRAY: u8 = 1 << 5;
    /// Maximum speed, two bytes, kB/s, obsolete.
    pub const MAX_SPEED: usize = 8;
    /// Volume levels, two bytes.
    pub const VOLUME_LEVELS: usize = 10;
    /// Buffer size, two bytes, KiB.
    pub const BUFFER: usize = 12;
    /// Current speed, two bytes, kB/s, obsolete.
    pub const SPEED: usize = 14;
}
