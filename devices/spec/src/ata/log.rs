//! Logs (ACS-4, clause 9), read by READ LOG EXT, READ LOG DMA EXT and SMART READ LOG.

/// Log addresses.
pub mod address {
    /// Log directory.
    pub const DIRECTORY: u8 = 0x00;
    /// Summary SMART error log, by SMART only.
    pub const SUMMARY_SMART_ERROR: u8 = 0x01;
    /// Comprehensive SMART error log, by SMART only.
    pub const COMPREHENSIVE_SMART_ERROR: u8 = 0x02;
    /// Extended comprehensive SMART error log, by READ LOG only.
    pub const EXT_COMPREHENSIVE_SMART_ERROR: u8 = 0x03;
    /// SMART self-test log, by SMART only.
    pub const SMART_SELF_TEST: u8 = 0x06;
    /// Extended SMART self-test log, by READ LOG only.
    pub const EXT_SMART_SELF_TEST: u8 = 0x07;
    /// NCQ command error log, by READ LOG only.
    pub const NCQ_COMMAND_ERROR: u8 = 0x10;
    /// IDENTIFY DEVICE data log.
    pub const IDENTIFY_DEVICE_DATA: u8 = 0x30;
}

/// Version of the log directory, its first word.
pub const DIRECTORY_VERSION: u16 = 1;

/// Offsets in the NCQ command error log, one page.
pub mod ncq_error {
    /// Bit 7 NQ: the failing command was not queued; bits 4:0 its tag.
    pub const TAG: usize = 0;
    /// NQ in [`TAG`].
    pub const NOT_QUEUED: u8 = 1 << 7;
    /// Status.
    pub const STATUS: usize = 2;
    /// Error.
    pub const ERROR: usize = 3;
    /// LBA, bits 23:0.
    pub const LBA: usize = 4;
    /// Device.
    pub const DEVICE: usize = 7;
    /// LBA, bits 47:24.
    pub const LBA_EXP: usize = 8;
    /// Count, two bytes.
    pub const COUNT: usize = 12;
    /// Sense key, additional sense code and its qualifier.
    pub const SENSE: usize = 14;
    /// Checksum: all bytes of the page add up to 0.
    pub const CHECKSUM: usize = 511;
}

/// Pages of the IDENTIFY DEVICE data log.
pub mod identify_page {
    /// List of supported pages.
    pub const LIST: u8 = 0x00;
    /// Copy of IDENTIFY DEVICE data.
    pub const COPY: u8 = 0x01;
    /// Capacity.
    pub const CAPACITY: u8 = 0x02;
    /// Supported capabilities.
    pub const SUPPORTED_CAPABILITIES: u8 = 0x03;
    /// Serial ATA.
    pub const SERIAL_ATA: u8 = 0x08;

    /// Bit of each page's quadwords that says that they are valid.
    pub const VALID: u64 = 1 << 63;
    /// Revision of the pages' headers.
    pub const REVISION: u16 = 1;
}
