//! CD-ROM and DVD-ROM drives (MMC-6).

/// Bytes of a block of user data.
pub const BLOCK: u32 = 2048;
/// Frames (blocks) a second, in MSF addresses.
pub const FRAMES: u32 = 75;
/// What an MSF address has more than the LBA: two seconds.
pub const MSF_OFFSET: u32 = 150;
/// Blocks of the longest CD (80 minutes) and then some: a disc of more is a DVD (99:59:74).
pub const CD_MAX_BLOCKS: u32 = (99 * 60 + 59) * FRAMES + 74 - MSF_OFFSET;

/// Profiles (GET CONFIGURATION).
pub mod profile {
    /// No disc.
    pub const NONE: u16 = 0x0000;
    /// CD-ROM.
    pub const CD_ROM: u16 = 0x0008;
    /// DVD-ROM.
    pub const DVD_ROM: u16 = 0x0010;
}

/// Features (GET CONFIGURATION): code in two bytes, version and PERSISTENT and CURRENT, bytes after.
pub mod feature {
    /// Profile List.
    pub const PROFILE_LIST: u16 = 0x0000;
    /// Core.
    pub const CORE: u16 = 0x0001;
    /// Morphing.
    pub const MORPHING: u16 = 0x0002;
    /// Removable Medium.
    pub const REMOVABLE: u16 = 0x0003;
    /// Random Readable.
    pub const RANDOM_READABLE: u16 = 0x0010;
    /// Multi-read.
    pub const MULTI_READ: u16 = 0x001d;
    /// CD Read.
    pub const CD_READ: u16 = 0x001e;
    /// DVD Read.
    pub const DVD_READ: u16 = 0x001f;
    /// Power Management.
    pub const POWER: u16 = 0x0100;
    /// Timeout.
    pub const TIMEOUT: u16 = 0x0105;
    /// Third byte: current.
    pub const CURRENT: u8 = 1 << 0;
    /// Third byte: always current.
    pub const PERSISTENT: u8 = 1 << 1;
    /// Third byte: shift of the version.
    pub const VERSION_SHIFT: u8 = 2;
}

/// RT of GET CONFIGURATION, bits 1:0 of byte 1.
pub mod requested {
    /// All features.
    pub const ALL: u8 = 0;
    /// Those that are current.
    pub const CURRENT: u8 = 1;
    /// One.
    pub const ONE: u8 = 2;
}

/// Formats of READ TOC/PMA/ATIP, bits 3:0 of byte 2.
pub mod toc {
    /// Formatted TOC.
    pub const TOC: u8 = 0;
    /// Session information.
    pub const SESSION: u8 = 1;
    /// Full TOC.
    pub const FULL: u8 = 2;
    /// ADR 1 and CONTROL 4: a data track.
    pub const DATA_TRACK: u8 = 0x14;
    /// Track number of the lead-out.
    pub const LEAD_OUT: u8 = 0xaa;
    /// POINT of the first track, in the full TOC.
    pub const POINT_FIRST: u8 = 0xa0;
    /// POINT of the last track, in the full TOC.
    pub const POINT_LAST: u8 = 0xa1;
    /// POINT of the lead-out, in the full TOC.
    pub const POINT_LEAD_OUT: u8 = 0xa2;
}

/// GET EVENT STATUS NOTIFICATION.
pub mod event {
    /// Byte 1: polled. Asynchronous operation is not for drives of today.
    pub const POLLED: u8 = 1 << 0;
    /// Notification class: operational change.
    pub const OPERATIONAL: u8 = 1;
    /// Notification class: power management.
    pub const POWER: u8 = 2;
    /// Notification class: external request.
    pub const EXTERNAL: u8 = 3;
    /// Notification class: media.
    pub const MEDIA: u8 = 4;
    /// Notification class: multiple hosts.
    pub const MULTI_HOST: u8 = 5;
    /// Notification class: device busy.
    pub const BUSY: u8 = 6;
    /// Byte 2 of the header: no class that was asked for is supported.
    pub const NEA: u8 = 1 << 7;
    /// Bytes of the header: length of what follows it (2), class, classes supported.
    pub const HEADER: usize = 4;

    /// Media events, bits 3:0 of the first byte.
    pub mod media {
        /// No change.
        pub const NONE: u8 = 0;
        /// The user wants it out.
        pub const EJECT_REQUEST: u8 = 1;
        /// A new medium.
        pub const NEW: u8 = 2;
        /// It was taken out.
        pub const REMOVAL: u8 = 3;
        /// Second byte: the tray is open.
        pub const TRAY_OPEN: u8 = 1 << 0;
        /// Second byte: there is a medium.
        pub const PRESENT: u8 = 1 << 1;
    }
}

/// READ CD.
pub mod read_cd {
    /// Expected sector type, bits 4:2 of byte 1: shift.
    pub const TYPE_SHIFT: u8 = 2;
    /// Expected sector type: any.
    pub const TYPE_ANY: u8 = 0;
    /// Expected sector type: mode 1.
    pub const TYPE_MODE_1: u8 = 2;
    /// Byte 9: sync.
    pub const SYNC: u8 = 1 << 7;
    /// Byte 9: shift of the headers wanted, two bits.
    pub const HEADER_SHIFT: u8 = 5;
    /// Byte 9: user data.
    pub const USER_DATA: u8 = 1 << 4;
    /// Byte 9: EDC and ECC.
    pub const EDC_ECC: u8 = 1 << 3;
    /// Byte 9: mask of C2 errors.
    pub const C2: u8 = 3 << 1;
    /// Byte 10: mask of sub-channel data.
    pub const SUB_CHANNEL: u8 = 7;
}

/// READ DISC STRUCTURE.
pub mod structure {
    /// Format: physical format information of a DVD.
    pub const PHYSICAL: u8 = 0x00;
    /// Format: what structures there are.
    pub const LIST: u8 = 0xff;
    /// Bytes of the header: length of what follows this field (2), reserved (2).
    pub const HEADER: usize = 4;
    /// Bytes of a physical format information.
    pub const PHYSICAL_LEN: usize = 2048;
    /// First physical sector of a DVD's data.
    pub const DVD_FIRST: u32 = 0x03_0000;
}

/// READ DISC INFORMATION.
pub mod disc {
    /// Disc status, bits 1:0 of byte 2: complete.
    pub const COMPLETE: u8 = 2;
    /// State of the last session, bits 3:2 of byte 2: complete.
    pub const SESSION_COMPLETE: u8 = 3 << 2;
    /// Bytes of the standard disc information.
    pub const LEN: usize = 34;
}
