//! SMART (ACS-4, SMART, and clause 9 for its logs).

/// Subcommands, in features.
pub mod subcommand {
    /// SMART READ DATA.
    pub const READ_DATA: u8 = 0xd0;
    /// SMART READ ATTRIBUTE THRESHOLDS, obsolete but expected.
    pub const READ_THRESHOLDS: u8 = 0xd1;
    /// SMART ENABLE/DISABLE ATTRIBUTE AUTOSAVE.
    pub const ATTRIBUTE_AUTOSAVE: u8 = 0xd2;
    /// SMART EXECUTE OFF-LINE IMMEDIATE.
    pub const EXECUTE_OFFLINE: u8 = 0xd4;
    /// SMART READ LOG.
    pub const READ_LOG: u8 = 0xd5;
    /// SMART WRITE LOG.
    pub const WRITE_LOG: u8 = 0xd6;
    /// SMART ENABLE OPERATIONS.
    pub const ENABLE: u8 = 0xd8;
    /// SMART DISABLE OPERATIONS.
    pub const DISABLE: u8 = 0xd9;
    /// SMART RETURN STATUS.
    pub const RETURN_STATUS: u8 = 0xda;
}

/// What LBA bits 23:8 must hold in every SMART command, and hold after RETURN STATUS if all is well.
pub const SIGNATURE: [u8; 2] = [0x4f, 0xc2];
/// LBA bits 23:8 after RETURN STATUS if a threshold was exceeded.
pub const SIGNATURE_FAILING: [u8; 2] = [0xf4, 0x2c];

/// Tests of EXECUTE OFF-LINE IMMEDIATE, in LBA bits 7:0.
pub mod test {
    /// Off-line data collection.
    pub const OFFLINE: u8 = 0x00;
    /// Short self-test in off-line mode.
    pub const SHORT: u8 = 0x01;
    /// Extended self-test in off-line mode.
    pub const EXTENDED: u8 = 0x02;
    /// Abort the self-test.
    pub const ABORT: u8 = 0x7f;
    /// Short self-test in captive mode.
    pub const SHORT_CAPTIVE: u8 = 0x81;
    /// Extended self-test in captive mode.
    pub const EXTENDED_CAPTIVE: u8 = 0x82;
}

/// Offsets in SMART READ DATA's structure, 512 bytes.
pub mod data {
    /// Revision of the attribute list, two bytes; the attributes follow.
    pub const REVISION: usize = 0;
    /// First attribute, of 12 bytes each.
    pub const ATTRIBUTES: usize = 2;
    /// Off-line data collection status.
    pub const OFFLINE_STATUS: usize = 362;
    /// Self-test execution status.
    pub const SELF_TEST_STATUS: usize = 363;
    /// Seconds to complete off-line data collection, two bytes.
    pub const OFFLINE_SECONDS: usize = 364;
    /// Off-line data collection capability.
    pub const OFFLINE_CAPABILITY: usize = 367;
    /// SMART capability, two bytes.
    pub const CAPABILITY: usize = 368;
    /// Error logging capability.
    pub const ERROR_LOG_CAPABILITY: usize = 370;
    /// Minutes a short self-test takes.
    pub const SHORT_MINUTES: usize = 372;
    /// Minutes an extended self-test takes.
    pub const EXTENDED_MINUTES: usize = 373;
    /// Checksum of this and every such structure: all bytes add up to 0.
    pub const CHECKSUM: usize = 511;
}
