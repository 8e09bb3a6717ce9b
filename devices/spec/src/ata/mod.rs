//! The ATA command set: what a disk and its driver share, whatever host adapter is between them.
//!
//! Source: ATA/ATAPI Command Set 4 (ACS-4). Commands are in its clause 7 under the names given
//! here, outputs in clause 6, logs in clause 9.

pub mod identify;
pub mod log;
pub mod packet;
pub mod smart;

/// Bytes in a sector of data that is not user data (IDENTIFY, logs), and the unit of DSM's list.
pub const SECTOR: usize = 512;
/// Commands that NCQ keeps in flight at most (4.14).
pub const NCQ_DEPTH: u8 = 32;
/// Sectors that a 28-bit count of 0 means.
pub const COUNT_28_MAX: u32 = 256;
/// Sectors that a 48-bit count of 0 means.
pub const COUNT_48_MAX: u32 = 65_536;
/// Sectors that 28-bit commands can address: the highest capacity words 60 and 61 may say.
pub const LBA_28_MAX: u32 = 0x0fff_ffff;
/// First sector beyond those that 48-bit commands can address.
pub const LBA_48_END: u64 = 1 << 48;

/// Command codes (clause 7, annex B).
pub mod command {
    /// NOP.
    pub const NOP: u8 = 0x00;
    /// DATA SET MANAGEMENT.
    pub const DATA_SET_MANAGEMENT: u8 = 0x06;
    /// DEVICE RESET, of ATAPI devices.
    pub const DEVICE_RESET: u8 = 0x08;
    /// READ SECTOR(S).
    pub const READ_SECTORS: u8 = 0x20;
    /// READ SECTOR(S) EXT.
    pub const READ_SECTORS_EXT: u8 = 0x24;
    /// READ DMA EXT.
    pub const READ_DMA_EXT: u8 = 0x25;
    /// READ NATIVE MAX ADDRESS EXT, of the obsolete HPA feature set.
    pub const READ_NATIVE_MAX_ADDRESS_EXT: u8 = 0x27;
    /// READ MULTIPLE EXT.
    pub const READ_MULTIPLE_EXT: u8 = 0x29;
    /// READ LOG EXT.
    pub const READ_LOG_EXT: u8 = 0x2f;
    /// WRITE SECTOR(S).
    pub const WRITE_SECTORS: u8 = 0x30;
    /// WRITE SECTOR(S) EXT.
    pub const WRITE_SECTORS_EXT: u8 = 0x34;
    /// WRITE DMA EXT.
    pub const WRITE_DMA_EXT: u8 = 0x35;
    /// WRITE MULTIPLE EXT.
    pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
    /// WRITE DMA FUA EXT.
    pub const WRITE_DMA_FUA_EXT: u8 = 0x3d;
    /// WRITE LOG EXT.
    pub const WRITE_LOG_EXT: u8 = 0x3f;
    /// READ VERIFY SECTOR(S).
    pub const READ_VERIFY_SECTORS: u8 = 0x40;
    /// READ VERIFY SECTOR(S) EXT.
    pub const READ_VERIFY_SECTORS_EXT: u8 = 0x42;
    /// READ LOG DMA EXT.
    pub const READ_LOG_DMA_EXT: u8 = 0x47;
    /// READ FPDMA QUEUED.
    pub const READ_FPDMA_QUEUED: u8 = 0x60;
    /// WRITE FPDMA QUEUED.
    pub const WRITE_FPDMA_QUEUED: u8 = 0x61;
    /// NCQ NON-DATA.
    pub const NCQ_NON_DATA: u8 = 0x63;
    /// SEND FPDMA QUEUED.
    pub const SEND_FPDMA_QUEUED: u8 = 0x64;
    /// RECEIVE FPDMA QUEUED.
    pub const RECEIVE_FPDMA_QUEUED: u8 = 0x65;
    /// EXECUTE DEVICE DIAGNOSTIC.
    pub const EXECUTE_DEVICE_DIAGNOSTIC: u8 = 0x90;
    /// INITIALIZE DEVICE PARAMETERS, obsolete.
    pub const INITIALIZE_DEVICE_PARAMETERS: u8 = 0x91;
    /// PACKET, of ATAPI devices.
    pub const PACKET: u8 = 0xa0;
    /// IDENTIFY PACKET DEVICE, of ATAPI devices.
    pub const IDENTIFY_PACKET_DEVICE: u8 = 0xa1;
    /// SMART; the subcommand is in features.
    pub const SMART: u8 = 0xb0;
    /// READ MULTIPLE.
    pub const READ_MULTIPLE: u8 = 0xc4;
    /// WRITE MULTIPLE.
    pub const WRITE_MULTIPLE: u8 = 0xc5;
    /// SET MULTIPLE MODE.
    pub const SET_MULTIPLE_MODE: u8 = 0xc6;
    /// READ DMA.
    pub const READ_DMA: u8 = 0xc8;
    /// WRITE DMA.
    pub const WRITE_DMA: u8 = 0xca;
    /// WRITE MULTIPLE FUA EXT.
    pub const WRITE_MULTIPLE_FUA_EXT: u8 = 0xce;
    /// STANDBY IMMEDIATE.
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    /// IDLE IMMEDIATE.
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    /// STANDBY.
    pub const STANDBY: u8 = 0xe2;
    /// IDLE.
    pub const IDLE: u8 = 0xe3;
    /// READ BUFFER.
    pub const READ_BUFFER: u8 = 0xe4;
    /// CHECK POWER MODE.
    pub const CHECK_POWER_MODE: u8 = 0xe5;
    /// SLEEP.
    pub const SLEEP: u8 = 0xe6;
    /// FLUSH CACHE.
    pub const FLUSH_CACHE: u8 = 0xe7;
    /// WRITE BUFFER.
    pub const WRITE_BUFFER: u8 = 0xe8;
    /// FLUSH CACHE EXT.
    pub const FLUSH_CACHE_EXT: u8 = 0xea;
    /// IDENTIFY DEVICE.
    pub const IDENTIFY_DEVICE: u8 = 0xec;
    /// SET FEATURES; the subcommand is in features.
    pub const SET_FEATURES: u8 = 0xef;
    /// SECURITY FREEZE LOCK.
    pub const SECURITY_FREEZE_LOCK: u8 = 0xf5;
    /// READ NATIVE MAX ADDRESS, of the obsolete HPA feature set.
    pub const READ_NATIVE_MAX_ADDRESS: u8 = 0xf8;
}

/// Status register (6.2).
pub mod status {
    /// ERR: the command failed; the error register says why.
    pub const ERR: u8 = 1 << 0;
    /// CHK: the same bit, of PACKET.
    pub const CHK: u8 = ERR;
    /// DRQ: data is to be moved.
    pub const DRQ: u8 = 1 << 3;
    /// DSC, obsolete; SDB FISes and old hosts know it as "seek complete".
    pub const DSC: u8 = 1 << 4;
    /// DF: device fault.
    pub const DF: u8 = 1 << 5;
    /// DRDY: ready for commands.
    pub const DRDY: u8 = 1 << 6;
    /// BSY: busy.
    pub const BSY: u8 = 1 << 7;
}

/// Error register (6.3).
pub mod error {
    /// ABRT: command aborted.
    pub const ABRT: u8 = 1 << 2;
    /// IDNF: the address is not there.
    pub const IDNF: u8 = 1 << 4;
    /// UNC: data cannot be read or written.
    pub const UNC: u8 = 1 << 6;
    /// WP: media write protected; the same bit as UNC, obsolete.
    pub const WP: u8 = 1 << 6;
    /// ICRC: an interface CRC error.
    pub const ICRC: u8 = 1 << 7;
    /// After a reset or diagnostic, the code that says device 0 passed.
    pub const DIAGNOSTIC_PASSED: u8 = 0x01;
}

/// Device register (5.2.3, 7.1).
pub mod device {
    /// LBA: set in commands that address sectors.
    pub const LBA: u8 = 1 << 6;
    /// FUA: forced unit access, in READ and WRITE FPDMA QUEUED.
    pub const FUA: u8 = 1 << 7;
}

/// READ FPDMA QUEUED and WRITE FPDMA QUEUED.
pub mod ncq {
    /// Shift of the tag in count.
    pub const TAG_SHIFT: u16 = 3;
    /// The tag in count, bits 7:3.
    pub const TAG: u16 = 0x1f << TAG_SHIFT;
}

/// SET FEATURES subcommands.
pub mod set_features {
    /// Enable the volatile write cache.
    pub const ENABLE_WRITE_CACHE: u8 = 0x02;
    /// Set the transfer mode, given in count.
    pub const TRANSFER_MODE: u8 = 0x03;
    /// Enable advanced power management.
    pub const ENABLE_APM: u8 = 0x05;
    /// Enable use of a SATA feature, given in count.
    pub const ENABLE_SATA_FEATURE: u8 = 0x10;
    /// Disable read look-ahead.
    pub const DISABLE_LOOK_AHEAD: u8 = 0x55;
    /// Keep settings over a software reset.
    pub const DISABLE_REVERT: u8 = 0x66;
    /// Disable the volatile write cache.
    pub const DISABLE_WRITE_CACHE: u8 = 0x82;
    /// Disable advanced power management.
    pub const DISABLE_APM: u8 = 0x85;
    /// Disable use of a SATA feature, given in count.
    pub const DISABLE_SATA_FEATURE: u8 = 0x90;
    /// Enable read look-ahead.
    pub const ENABLE_LOOK_AHEAD: u8 = 0xaa;
    /// Forget settings at a software reset.
    pub const ENABLE_REVERT: u8 = 0xcc;

    /// Transfer modes, in count's bits 7:3, and the mode's number in bits 2:0.
    pub mod transfer {
        /// PIO default mode (also with bit 0: without IORDY).
        pub const PIO_DEFAULT: u8 = 0x00;
        /// PIO flow control mode n.
        pub const PIO: u8 = 0x08;
        /// Multiword DMA mode n.
        pub const MULTIWORD_DMA: u8 = 0x20;
        /// Ultra DMA mode n.
        pub const ULTRA_DMA: u8 = 0x40;
    }
}

/// CHECK POWER MODE's answers, in count.
pub mod power_mode {
    /// Standby.
    pub const STANDBY: u8 = 0x00;
    /// Idle.
    pub const IDLE: u8 = 0x80;
    /// Active or idle.
    pub const ACTIVE: u8 = 0xff;
}

/// DATA SET MANAGEMENT.
pub mod dsm {
    /// Features: the blocks list the sectors to trim.
    pub const TRIM: u8 = 1 << 0;
    /// Bytes of an entry: LBA in bits 47:0, sectors in bits 63:48. An entry of no sectors is void.
    pub const ENTRY_LEN: usize = 8;
    /// Entries in a 512-byte block.
    pub const ENTRIES: usize = 64;

    /// An entry for `sectors` sectors from `lba`, which has 48 bits.
    pub const fn entry(lba: u64, sectors: u16) -> [u8; ENTRY_LEN] {
        (lba & 0xffff_ffff_ffff | (sectors as u64) << 48).to_le_bytes()
    }

    /// An entry's LBA and sectors.
    pub const fn range(entry: [u8; ENTRY_LEN]) -> (u64, u16) {
        let [a, b, c, d, e, f, g, h] = entry;
        (u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), u16::from_le_bytes([g, h]))
    }
}

const _: () = {
    let (lba, sectors) = dsm::range(dsm::entry(0x1234_5678_9abc, 0xdef0));
    assert!(lba == 0x1234_5678_9abc && sectors == 0xdef0);
    assert!(dsm::ENTRIES * dsm::ENTRY_LEN == SECTOR);
};
