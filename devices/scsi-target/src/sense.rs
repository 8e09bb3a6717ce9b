//! Sense data (SPC-4, 4.5).

use paraslot_backends::block::BlockError;
use paraslot_spec::scsi::sense::{
    BPV, CD, DescriptorHeader, Fixed, SKSV, VALID, code, descriptor, key,
};
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use crate::plan::Ending;

/// Why a command ended with CHECK CONDITION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sense {
    /// Sense key (4.5.6).
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
    /// The INFORMATION field, if it is valid: an LBA, or an offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub information: Option<u64>,
    /// SENSE KEY SPECIFIC, if it is valid: the three bytes, SKSV included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub specific: Option<[u8; 3]>,
}

/// How it is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenseFormat {
    /// Response code 70h (4.5.3): 18 bytes.
    #[default]
    Fixed,
    /// Response code 72h (4.5.2).
    Descriptor,
}

/// Bytes of an INFORMATION descriptor (4.5.2.2).
const INFORMATION_LEN: u8 = 12;
/// Bytes of a sense key specific descriptor (4.5.2.4).
const SPECIFIC_LEN: u8 = 8;

impl Sense {
    /// Most bytes that [`encode`](Self::encode) makes.
    pub const MAX: usize = 64;

    /// Lays it out in `format` (the control mode page's D_SENSE says which the unit uses); returns the
    /// bytes, and how many there are.
    ///
    /// INFORMATION of more than 32 bits has no room in the fixed format: it is not valid there.
    pub fn encode(&self, format: SenseFormat) -> ([u8; Self::MAX], usize) {
        let mut out = Encoded { bytes: [0; Self::MAX], len: 0 };
        match format {
            SenseFormat::Fixed => {
                let information = self.information.and_then(|value| u32::try_from(value).ok());
                let valid = if information.is_some() { VALID } else { 0 };
                let mut fixed = Fixed::new(self.key, (self.asc, self.ascq));
                fixed.response |= valid;
                fixed.information.set(information.unwrap_or_default());
                fixed.specific = self.specific.unwrap_or_default();
                out.push(fixed.as_bytes());
            }
            SenseFormat::Descriptor => {
                let information = if self.information.is_some() { INFORMATION_LEN } else { 0 };
                let specific = if self.specific.is_some() { SPECIFIC_LEN } else { 0 };
                let code = (self.asc, self.ascq);
                let header = DescriptorHeader::new(self.key, code, information + specific);
                out.push(header.as_bytes());
                if let Some(value) = self.information {
                    out.push(&[descriptor::INFORMATION, INFORMATION_LEN - 2, VALID, 0]);
                    out.push(&value.to_be_bytes());
                }
                if let Some([a, b, c]) = self.specific {
                    let kind = descriptor::SENSE_KEY_SPECIFIC;
                    out.push(&[kind, SPECIFIC_LEN - 2, 0, 0, a, b, c, 0]);
                }
            }
        }
        (out.bytes, out.len)
    }

    /// Whether a unit could have given it, as far as that can be told: for one that was saved.
    pub fn is_possible(&self) -> bool {
        (1..=key::MISCOMPARE).contains(&self.key)
            && self.specific.is_none_or(|[first, ..]| first & SKSV != 0)
    }

    /// A sense key, and an additional sense code with its qualifier.
    pub(crate) const fn new(key: u8, (asc, ascq): (u8, u8)) -> Self {
        Self { key, asc, ascq, information: None, specific: None }
    }

    /// ILLEGAL REQUEST, without a pointer to the field.
    pub(crate) const fn illegal(code: (u8, u8)) -> Self {
        Self::new(key::ILLEGAL_REQUEST, code)
    }

    /// INVALID FIELD IN CDB: byte `byte`, and its bit `bit` (that of a field's highest bit).
    pub(crate) const fn invalid_cdb(byte: u16, bit: Option<u8>) -> Self {
        let mut sense = Self::illegal(code::INVALID_FIELD_IN_CDB);
        sense.specific = Some(pointer(CD, byte, bit));
        sense
    }

    /// INVALID FIELD IN PARAMETER LIST: byte `byte` of it, and its bit `bit`.
    pub(crate) const fn invalid_parameter(byte: u16, bit: Option<u8>) -> Self {
        let mut sense = Self::illegal(code::INVALID_FIELD_IN_PARAMETERS);
        sense.specific = Some(pointer(0, byte, bit));
        sense
    }

    /// LOGICAL BLOCK ADDRESS OUT OF RANGE, and which one.
    pub(crate) const fn out_of_range(lba: u64) -> Self {
        let mut sense = Self::illegal(code::LBA_OUT_OF_RANGE);
        sense.information = Some(lba);
        sense
    }
}

/// A field pointer (4.5.2.4.2).
const fn pointer(which: u8, byte: u16, bit: Option<u8>) -> [u8; 3] {
    let [high, low] = byte.to_be_bytes();
    let bit = match bit {
        Some(bit) => BPV | bit & 7,
        None => 0,
    };
    [SKSV | which | bit, high, low]
}

struct Encoded {
    bytes: [u8; Sense::MAX],
    len: usize,
}

impl Encoded {
    fn push(&mut self, data: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(data) {
            *to = *from;
        }
        self.len = (self.len + data.len()).min(Sense::MAX);
    }
}

/// How a command ends whose backend failed: `lba` is the first block of what failed, if that is known.
pub(crate) fn backend_error(error: &BlockError, writing: bool, lba: Option<u64>) -> Ending {
    let mut sense = match error {
        BlockError::OutOfRange => Sense::illegal(code::LBA_OUT_OF_RANGE),
        BlockError::ReadOnly => Sense::new(key::DATA_PROTECT, code::WRITE_PROTECTED),
        // Known only now: a file system below that cannot deallocate.
        BlockError::Unsupported => return Ending::Check(Sense::illegal(code::INVALID_OPCODE)),
        BlockError::NoSpace => Sense::new(key::DATA_PROTECT, code::SPACE_ALLOCATION_FAILED),
        BlockError::Cancelled => Sense::new(key::ABORTED_COMMAND, code::TERMINATED),
        _ if writing => Sense::new(key::MEDIUM_ERROR, code::WRITE_ERROR),
        _ => Sense::new(key::MEDIUM_ERROR, code::READ_ERROR),
    };
    sense.information = lba;
    Ending::Check(sense)
}

/// How a command ends that has compared: `offset` is that of the first byte that differs, in the
/// data-out buffer (SBC-3, COMPARE AND WRITE and VERIFY commands).
pub(crate) fn miscompare(offset: u64) -> Ending {
    let mut sense = Sense::new(key::MISCOMPARE, code::MISCOMPARE);
    sense.information = Some(offset);
    Ending::Check(sense)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(sense: Sense, format: SenseFormat) -> Vec<u8> {
        let (bytes, len) = sense.encode(format);
        bytes[..len].to_vec()
    }

    #[test]
    fn fixed_format_has_18_bytes() {
        let sense = Sense::out_of_range(0x1234_5678);
        let bytes = encode(sense, SenseFormat::Fixed);
        assert_eq!(
            bytes,
            [0xf0, 0, 5, 0x12, 0x34, 0x56, 0x78, 10, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0]
        );
        let bytes = encode(Sense::invalid_cdb(2, Some(7)), SenseFormat::Fixed);
        assert_eq!(bytes, [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcf, 0, 2]);
        let bytes = encode(Sense::invalid_parameter(0x102, None), SenseFormat::Fixed);
        assert_eq!(bytes, [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x26, 0, 0, 0x80, 1, 2]);
    }

    #[test]
    fn information_beyond_32_bits_is_not_valid_in_fixed_format() {
        let sense = Sense::out_of_range(0x1_0000_0000);
        let bytes = encode(sense, SenseFormat::Fixed);
        assert_eq!(bytes[..8], [0x70, 0, 5, 0, 0, 0, 0, 10]);
        let bytes = encode(sense, SenseFormat::Descriptor);
        let expected = [0x72, 5, 0x21, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn descriptors_follow_each_other() {
        let sense = Sense { information: Some(7), ..Sense::invalid_parameter(9, Some(3)) };
        let expected = [
            0x72, 5, 0x26, 0, 0, 0, 0, 20, // header
            0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 7, // information
            2, 6, 0, 0, 0x8b, 0, 9, 0, // sense key specific
        ];
        assert_eq!(encode(sense, SenseFormat::Descriptor), expected);
        assert_eq!(encode(Sense::illegal((0x20, 0)), SenseFormat::Descriptor).len(), 8);
    }

    #[test]
    fn each_failure_of_a_backend_has_its_sense() {
        let sense = |error: BlockError, writing| match backend_error(&error, writing, Some(5)) {
            Ending::Check(sense) => (sense.key, sense.asc, sense.ascq, sense.information),
            Ending::Status(status) => panic!("{status:?}"),
        };
        let io = || BlockError::Io(std::io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(sense(io(), false), (3, 0x11, 0, Some(5)));
        assert_eq!(sense(io(), true), (3, 0x0c, 0, Some(5)));
        assert_eq!(sense(BlockError::OutOfRange, true), (5, 0x21, 0, Some(5)));
        assert_eq!(sense(BlockError::ReadOnly, true), (7, 0x27, 0, Some(5)));
        assert_eq!(sense(BlockError::NoSpace, true), (7, 0x27, 7, Some(5)));
        assert_eq!(sense(BlockError::Cancelled, true), (0xb, 0, 6, Some(5)));
        assert_eq!(sense(BlockError::Unsupported, true), (5, 0x20, 0, None));
        let Ending::Check(sense) = miscompare(513) else { panic!("no sense data") };
        assert_eq!((sense.key, sense.asc, sense.information), (0xe, 0x1d, Some(513)));
    }
}
