//! IDENTIFY DEVICE and IDENTIFY PACKET DEVICE: 256 words of 16 bits, by number (ACS-4, of the same
//! names).
//!
//! Strings have the first character of each pair in the high byte and are padded with spaces.

/// Words.
pub const WORDS: usize = 256;

/// Word numbers.
pub mod word {
    /// General configuration.
    pub const GENERAL: usize = 0;
    /// Cylinders, obsolete.
    pub const CYLINDERS: usize = 1;
    /// Specific configuration.
    pub const SPECIFIC: usize = 2;
    /// Heads, obsolete.
    pub const HEADS: usize = 3;
    /// Sectors per track, obsolete.
    pub const SECTORS_PER_TRACK: usize = 6;
    /// Serial number, 20 characters.
    pub const SERIAL: usize = 10;
    /// Firmware revision, 8 characters.
    pub const FIRMWARE: usize = 23;
    /// Model number, 40 characters.
    pub const MODEL: usize = 27;
    /// Bits 7:0: most sectors that READ and WRITE MULTIPLE move in a block; bits 15:8 are 80h.
    pub const MULTIPLE_MAX: usize = 47;
    /// Capabilities.
    pub const CAPABILITIES: usize = 49;
    /// Capabilities, more.
    pub const CAPABILITIES_2: usize = 50;
    /// Which later words are valid.
    pub const FIELD_VALIDITY: usize = 53;
    /// Current cylinders, obsolete.
    pub const CURRENT_CYLINDERS: usize = 54;
    /// Current heads, obsolete.
    pub const CURRENT_HEADS: usize = 55;
    /// Current sectors per track, obsolete.
    pub const CURRENT_SECTORS_PER_TRACK: usize = 56;
    /// Current capacity in sectors, two words, obsolete.
    pub const CURRENT_CAPACITY: usize = 57;
    /// Bits 7:0: sectors in a block of READ and WRITE MULTIPLE; bit 8: they are valid.
    pub const MULTIPLE: usize = 59;
    /// Sectors that 28-bit commands can address, two words.
    pub const SECTORS_28: usize = 60;
    /// Of packet devices: which way to say the direction of DMA.
    pub const DMADIR: usize = 62;
    /// Multiword DMA modes: supported in bits 2:0, selected in bits 10:8.
    pub const MULTIWORD_DMA: usize = 63;
    /// PIO modes 3 and 4.
    pub const PIO_MODES: usize = 64;
    /// Shortest multiword DMA cycle, nanoseconds.
    pub const MWDMA_CYCLE_MIN: usize = 65;
    /// Recommended multiword DMA cycle, nanoseconds.
    pub const MWDMA_CYCLE: usize = 66;
    /// Shortest PIO cycle without flow control, nanoseconds.
    pub const PIO_CYCLE: usize = 67;
    /// Shortest PIO cycle with IORDY, nanoseconds.
    pub const PIO_CYCLE_IORDY: usize = 68;
    /// Additional supported.
    pub const ADDITIONAL: usize = 69;
    /// Bits 4:0: queue depth minus one.
    pub const QUEUE_DEPTH: usize = 75;
    /// SATA capabilities.
    pub const SATA_CAPABILITIES: usize = 76;
    /// SATA capabilities, more; bits 3:1 the current speed.
    pub const SATA_CAPABILITIES_2: usize = 77;
    /// SATA features supported.
    pub const SATA_FEATURES: usize = 78;
    /// SATA features enabled.
    pub const SATA_FEATURES_ENABLED: usize = 79;
    /// Major version: one bit for each standard complied with.
    pub const MAJOR_VERSION: usize = 80;
    /// Minor version.
    pub const MINOR_VERSION: usize = 81;
    /// Commands and feature sets supported, three words.
    pub const SUPPORTED: usize = 82;
    /// Commands and feature sets enabled, three words.
    pub const ENABLED: usize = 85;
    /// Ultra DMA modes: supported in bits 6:0, selected in bits 14:8.
    pub const ULTRA_DMA: usize = 88;
    /// Advanced power management level.
    pub const APM_LEVEL: usize = 91;
    /// Hardware reset result; 0 for SATA.
    pub const HARDWARE_RESET: usize = 93;
    /// Sectors, four words.
    pub const SECTORS_48: usize = 100;
    /// Blocks of 512 bytes that one DATA SET MANAGEMENT may have, 0 if not said.
    pub const DSM_BLOCKS: usize = 105;
    /// Physical sector size / logical sector size.
    pub const SECTOR_SIZE: usize = 106;
    /// World wide name, four words.
    pub const WORLD_WIDE_NAME: usize = 108;
    /// Logical sector size in words of 16 bits, two words.
    pub const LOGICAL_SECTOR_WORDS: usize = 117;
    /// Commands and feature sets supported, further.
    pub const SUPPORTED_2: usize = 119;
    /// Commands and feature sets enabled, further.
    pub const ENABLED_2: usize = 120;
    /// Of packet devices: what a byte count limit of 0 does.
    pub const BYTE_COUNT_ZERO: usize = 125;
    /// DATA SET MANAGEMENT support.
    pub const DSM: usize = 169;
    /// Where logical sector 0 lies in its physical sector.
    pub const ALIGNMENT: usize = 209;
    /// Nominal media rotation rate.
    pub const ROTATION_RATE: usize = 217;
    /// Transport major version.
    pub const TRANSPORT_MAJOR: usize = 222;
    /// Signature A5h and checksum.
    pub const INTEGRITY: usize = 255;
}

/// Characters of the serial number.
pub const SERIAL_LEN: usize = 20;
/// Characters of the firmware revision.
pub const FIRMWARE_LEN: usize = 8;
/// Characters of the model number.
pub const MODEL_LEN: usize = 40;

/// Word 0 of packet devices: bits 15:14.
pub const GENERAL_PACKET: u16 = 0b10 << 14;
/// Word 0 of packet devices: shift of the peripheral device type, bits 12:8.
pub const GENERAL_TYPE_SHIFT: u16 = 8;
/// Word 0: the medium can be removed.
pub const GENERAL_REMOVABLE: u16 = 1 << 7;
/// Word 0 of packet devices, bits 6:5: DRQ comes within 50 microseconds after PACKET.
pub const GENERAL_DRQ_50_US: u16 = 0b10 << 5;
/// Word 0 of packet devices, bits 1:0: packets of 12 bytes.
pub const PACKET_LEN_12: u16 = 0b00;
/// Word 0 of packet devices, bits 1:0: packets of 16 bytes.
pub const PACKET_LEN_16: u16 = 0b01;
/// Word 49: DMA is supported.
pub const CAPABILITY_DMA: u16 = 1 << 8;
/// Word 49: LBA is supported.
pub const CAPABILITY_LBA: u16 = 1 << 9;
/// Word 49: IORDY may be disabled.
pub const CAPABILITY_IORDY_DISABLE: u16 = 1 << 10;
/// Word 49: IORDY is supported.
pub const CAPABILITY_IORDY: u16 = 1 << 11;
/// Word 50, 83, 84, 87, 106, 119, 120, 209: bits 15:14 of a valid word.
pub const VALID: u16 = 1 << 14;
/// Word 53: words 54 to 58 are valid.
pub const VALID_54_58: u16 = 1 << 0;
/// Word 53: words 64 to 70 are valid.
pub const VALID_64_70: u16 = 1 << 1;
/// Word 53: word 88 is valid.
pub const VALID_88: u16 = 1 << 2;
/// Word 59: the count of sectors in a block is valid.
pub const MULTIPLE_VALID: u16 = 1 << 8;
/// Word 69: trimmed sectors read as zeroes.
pub const ADDITIONAL_RZAT: u16 = 1 << 5;
/// Word 69: trimmed sectors read the same each time.
pub const ADDITIONAL_DRAT: u16 = 1 << 14;
/// Word 76: generation 1 speed.
pub const SATA_GEN1: u16 = 1 << 1;
/// Word 76: generation 2 speed.
pub const SATA_GEN2: u16 = 1 << 2;
/// Word 76: generation 3 speed.
pub const SATA_GEN3: u16 = 1 << 3;
/// Word 76: native command queuing.
pub const SATA_NCQ: u16 = 1 << 8;
/// Word 76: READ LOG DMA EXT may stand for READ LOG EXT.
pub const SATA_READ_LOG_DMA: u16 = 1 << 15;
/// Word 77: shift of the current speed.
pub const SATA_SPEED_SHIFT: u16 = 1;
/// Word 80: ATA8-ACS.
pub const MAJOR_ATA8: u16 = 1 << 8;
/// Word 80: ACS-2.
pub const MAJOR_ACS2: u16 = 1 << 9;
/// Word 80: ACS-3.
pub const MAJOR_ACS3: u16 = 1 << 10;
/// Word 80: ACS-4.
pub const MAJOR_ACS4: u16 = 1 << 11;
/// Words 82 and 85: SMART.
pub const SUPPORTED_SMART: u16 = 1 << 0;
/// Words 82 and 85: power management.
pub const SUPPORTED_POWER: u16 = 1 << 3;
/// Words 82 and 85: PACKET.
pub const SUPPORTED_PACKET: u16 = 1 << 4;
/// Words 82 and 85: volatile write cache.
pub const SUPPORTED_WRITE_CACHE: u16 = 1 << 5;
/// Words 82 and 85: read look-ahead.
pub const SUPPORTED_LOOK_AHEAD: u16 = 1 << 6;
/// Words 82 and 85: DEVICE RESET.
pub const SUPPORTED_DEVICE_RESET: u16 = 1 << 9;
/// Words 82 and 85: WRITE BUFFER.
pub const SUPPORTED_WRITE_BUFFER: u16 = 1 << 12;
/// Words 82 and 85: READ BUFFER.
pub const SUPPORTED_READ_BUFFER: u16 = 1 << 13;
/// Words 82 and 85: NOP.
pub const SUPPORTED_NOP: u16 = 1 << 14;
/// Words 83 and 86: 48-bit addresses.
pub const SUPPORTED_LBA48: u16 = 1 << 10;
/// Words 83 and 86: FLUSH CACHE.
pub const SUPPORTED_FLUSH: u16 = 1 << 12;
/// Words 83 and 86: FLUSH CACHE EXT.
pub const SUPPORTED_FLUSH_EXT: u16 = 1 << 13;
/// Word 86: words 119 and 120 are valid.
pub const ENABLED_119_VALID: u16 = 1 << 15;
/// Words 84 and 87: SMART error logging.
pub const SUPPORTED_SMART_ERROR_LOG: u16 = 1 << 0;
/// Words 84 and 87: SMART self-test.
pub const SUPPORTED_SMART_SELF_TEST: u16 = 1 << 1;
/// Words 84 and 87: general purpose logging.
pub const SUPPORTED_GPL: u16 = 1 << 5;
/// Words 84 and 87: WRITE DMA FUA EXT and WRITE MULTIPLE FUA EXT.
pub const SUPPORTED_FUA: u16 = 1 << 6;
/// Words 84 and 87: world wide name.
pub const SUPPORTED_WWN: u16 = 1 << 8;
/// Word 106: logical sectors are longer than 256 words.
pub const SECTOR_LOGICAL_LONG: u16 = 1 << 12;
/// Word 106: a physical sector has more than one logical sector; log2 of how many in bits 3:0.
pub const SECTOR_MULTIPLE: u16 = 1 << 13;
/// Words 119 and 120: READ LOG DMA EXT and WRITE LOG DMA EXT.
pub const SUPPORTED_2_LOG_DMA: u16 = 1 << 3;
/// Word 169: TRIM.
pub const DSM_TRIM: u16 = 1 << 0;
/// Word 217: no rotating medium.
pub const ROTATION_NONE: u16 = 1;
/// Word 222: bits 15:12, serial transport.
pub const TRANSPORT_SERIAL: u16 = 1 << 12;
/// Word 222: SATA 3.0; one bit for each revision complied with.
pub const TRANSPORT_SATA_3_0: u16 = 1 << 5;
/// Word 255, bits 7:0.
pub const INTEGRITY_SIGNATURE: u8 = 0xa5;
