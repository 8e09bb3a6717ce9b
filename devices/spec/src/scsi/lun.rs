//! LUNs (SAM-5, 4.7) and REPORT LUNS.

/// Bytes of a LUN.
pub const LEN: usize = 8;

/// SELECT REPORT of REPORT LUNS.
pub mod select {
    /// Units that are no well known ones.
    pub const ADDRESSABLE: u8 = 0x00;
    /// Well known logical units alone.
    pub const WELL_KNOWN: u8 = 0x01;
    /// All.
    pub const ALL: u8 = 0x02;
}

/// Bytes before the first LUN of REPORT LUNS' data; the first four count the bytes of the LUNs.
pub const REPORT_HEADER: usize = 8;
/// Smallest allocation length that REPORT LUNS takes.
pub const REPORT_MIN_ALLOCATION: u32 = 16;

/// Addressing methods, bits 7:6 of the first byte (4.7.7.2 to 4.7.7.4).
pub mod method {
    /// Mask of the method.
    pub const MASK: u8 = 3 << 6;
    /// Peripheral device addressing: a bus, 0 for this level, and 8 bits of LUN.
    pub const PERIPHERAL: u8 = 0 << 6;
    /// Flat space addressing: 14 bits of LUN.
    pub const FLAT: u8 = 1 << 6;
    /// Logical unit addressing: bus, target and LUN.
    pub const LOGICAL: u8 = 2 << 6;
    /// Extended addressing.
    pub const EXTENDED: u8 = 3 << 6;
}

/// Most that flat space addressing can name.
pub const FLAT_MAX: u16 = 0x3fff;
/// The well known logical unit REPORT LUNS (SPC-4, Well known logical units).
pub const WELL_KNOWN_REPORT_LUNS: [u8; LEN] = [0xc1, 1, 0, 0, 0, 0, 0, 0];

/// `lun`, at most [`FLAT_MAX`], as a single level LUN: by peripheral device addressing up to 255, by
/// flat space addressing beyond.
pub const fn encode(lun: u16) -> [u8; LEN] {
    let [high, low] = (lun & FLAT_MAX).to_be_bytes();
    let method = if high == 0 { method::PERIPHERAL } else { method::FLAT };
    [method | high, low, 0, 0, 0, 0, 0, 0]
}

/// What [`encode`] makes, and the first 256 by flat space addressing as well; `None` for other forms.
pub const fn decode(lun: [u8; LEN]) -> Option<u16> {
    let [first, low, rest @ ..] = lun;
    let mut at = 0;
    while at < rest.len() {
        if rest[at] != 0 {
            return None;
        }
        at += 1;
    }
    match (first & method::MASK, first & !method::MASK) {
        (method::PERIPHERAL, 0) => Some(u16::from_be_bytes([0, low])),
        (method::FLAT, high) => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

const _: () = {
    assert!(matches!(decode(encode(0)), Some(0)));
    assert!(matches!(decode(encode(255)), Some(255)));
    assert!(matches!(decode(encode(256)), Some(256)));
    assert!(matches!(decode(encode(FLAT_MAX)), Some(FLAT_MAX)));
    assert!(decode(WELL_KNOWN_REPORT_LUNS).is_none());
};
