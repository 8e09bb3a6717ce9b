//! The EEPROM: 64 words of 16 bits, behind EERD and, as a Microwire part, behind EECD (5).

/// Words (5.2).
pub const WORDS: usize = 64;
/// What all words add up to, modulo 2¹⁶ (5.6.34).
pub const SUM: u16 = 0xbaba;

/// The words that matter here (5.6).
pub mod word {
    /// The Ethernet address, three words, its first byte in the first word's low byte (5.6.1).
    pub const ADDRESS: usize = 0x00;
    /// Software compatibility (5.6.2).
    pub const COMPATIBILITY: usize = 0x03;
    /// LED settings (5.6.2).
    pub const LED_SETTINGS: usize = 0x04;
    /// Version (5.6.3).
    pub const VERSION: usize = 0x05;
    /// The board's part number, two words (5.6.4).
    pub const PBA: usize = 0x08;
    /// Initialization control 1: [`super::control1`] (5.6.5).
    pub const CONTROL1: usize = 0x0a;
    /// Subsystem ID (5.6.6).
    pub const SUBSYSTEM: usize = 0x0b;
    /// Subsystem vendor ID (5.6.7).
    pub const SUBSYSTEM_VENDOR: usize = 0x0c;
    /// Device ID (5.6.8).
    pub const DEVICE: usize = 0x0d;
    /// Vendor ID (5.6.9).
    pub const VENDOR: usize = 0x0e;
    /// Initialization control 2: [`super::control2`] (5.6.10).
    pub const CONTROL2: usize = 0x0f;
    /// The checksum: makes the sum of all words [`super::SUM`] (5.6.34).
    pub const CHECKSUM: usize = 0x3f;
}

/// Initialization control 1 (5.6.5).
pub mod control1 {
    /// Signature, bits 15:14: the EEPROM is valid.
    pub const VALID: u16 = 0b01 << 14;
    /// Bits that are reserved as ones.
    pub const RESERVED: u16 = 1 << 13;
    /// FD: CTRL.FD after reset.
    pub const FULL_DUPLEX: u16 = 1 << 10;
    /// The subsystem IDs come from the EEPROM.
    pub const LOAD_SUBSYSTEM: u16 = 1 << 1;
    /// The vendor and device IDs come from the EEPROM.
    pub const LOAD_IDS: u16 = 1 << 0;
}

/// Initialization control 2 (5.6.10).
pub mod control2 {
    /// PAUSE capability, of the symmetric kind.
    pub const PAUSE: u16 = 1 << 12;
    /// PAUSE capability, asymmetric direction.
    pub const ASM_DIR: u16 = 1 << 13;
    /// ANE: autonegotiation.
    pub const ANE: u16 = 1 << 11;
}

/// The Microwire instructions of a part of 64 words: a start bit, two bits of opcode, six of address,
/// the most significant first (5.3).
pub mod microwire {
    /// Bits of opcode, start bit included.
    pub const OPCODE_BITS: u32 = 3;
    /// Bits of address.
    pub const ADDRESS_BITS: u32 = 6;
    /// Bits of data.
    pub const DATA_BITS: u32 = 16;
    /// Read, start bit included.
    pub const READ: u16 = 0b110;
    /// Write.
    pub const WRITE: u16 = 0b101;
    /// Erase.
    pub const ERASE: u16 = 0b111;
    /// The extended instructions; the two highest bits of the address tell which.
    pub const EXTENDED: u16 = 0b100;
    /// Of those: erase and write enable.
    pub const ENABLE: u16 = 0b11;
    /// Of those: erase and write disable.
    pub const DISABLE: u16 = 0b00;
    /// Of those: erase all.
    pub const ERASE_ALL: u16 = 0b10;
    /// Of those: write all.
    pub const WRITE_ALL: u16 = 0b01;
}
