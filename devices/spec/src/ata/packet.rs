//! The PACKET command, and the devices that implement it (ATA8-ACS 4.3 and 7.23; ACS-4 4.20 and 7.16).

/// Bytes of a command packet of a device whose IDENTIFY PACKET DEVICE says
/// [`LEN_12`](super::identify::PACKET_LEN_12).
pub const LEN: usize = 12;
/// Most bytes of a command packet.
pub const LEN_MAX: usize = 16;

/// Features of PACKET.
pub mod features {
    /// DMA: data is moved by DMA, not by PIO.
    pub const DMA: u8 = 1 << 0;
    /// DMADIR: the direction of DMA, 1 to the host; for devices behind a bridge that has to be told.
    pub const DMADIR: u8 = 1 << 2;
}

/// Count, on the way back: why the device interrupts.
pub mod reason {
    /// C/D: a command packet is to be moved, or (with [`IO`]) none: the command is over.
    pub const CD: u8 = 1 << 0;
    /// I/O: the data goes to the host.
    pub const IO: u8 = 1 << 1;
    /// The command is over.
    pub const OVER: u8 = CD | IO;
}

/// Error, of a PACKET that failed.
pub mod error {
    /// ILI: the length is not the block's.
    pub const ILI: u8 = 1 << 0;
    /// EOM: the end of the medium.
    pub const EOM: u8 = 1 << 1;
    /// ABRT: command aborted.
    pub const ABRT: u8 = 1 << 2;
    /// Shift of the sense key, bits 7:4.
    pub const SENSE_KEY_SHIFT: u8 = 4;
}

/// LBA, bits 23:8: most bytes that PIO moves at a time; on the way back, how many it is to move now.
pub const BYTE_COUNT_SHIFT: u32 = 8;
/// What a byte count limit of FFFFh means.
pub const BYTE_COUNT_MAX: u16 = 0xfffe;
/// LBA of the signature of a device that implements PACKET.
pub const SIGNATURE_LBA: u64 = 0xeb_1401;
