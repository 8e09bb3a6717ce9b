//! Sense data (SPC-4, 4.5).

use core::array;
use core::mem::offset_of;

use paraslot_spec::scsi::sense::{
    DescriptorHeader, Fixed, KEY, SKSV, VALID, code, descriptor, key, response,
};

/// What a unit says of a command that ended with CHECK CONDITION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code and its qualifier.
    pub code: (u8, u8),
    /// It is about an earlier command, not about this one.
    pub deferred: bool,
    /// INFORMATION, if it is valid: of most errors the logical block.
    pub information: Option<u64>,
    /// SENSE KEY SPECIFIC, if it is valid (SKSV): all three bytes of it. Of ILLEGAL REQUEST, where the
    /// field is that was not accepted (4.5.2.4.2).
    pub specific: Option<[u8; 3]>,
}

/// The big-endian number of so many bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// SENSE KEY SPECIFIC, if it is valid.
fn specific(field: [u8; 3]) -> Option<[u8; 3]> {
    let [first, ..] = field;
    (first & SKSV != 0).then_some(field)
}

impl Sense {
    /// What `bytes` say, in fixed or descriptor format; `None` if they are neither. What is cut off
    /// is taken for zero.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
        let first = at(0);
        let code = first & !VALID;
        let deferred = matches!(code, response::FIXED_DEFERRED | response::DESCRIPTOR_DEFERRED);
        match code {
            response::FIXED | response::FIXED_DEFERRED => {
                // Fields beyond what ADDITIONAL SENSE LENGTH says are not there.
                let additional = offset_of!(Fixed, additional);
                let end = additional + 1 + usize::from(at(additional));
                let field = |index: usize| if index < end { at(index) } else { 0 };
                let information = offset_of!(Fixed, information);
                let information = bytes.get(information..information + 4).map(number);
                Some(Self {
                    key: at(offset_of!(Fixed, key)) & KEY,
                    code: (field(offset_of!(Fixed, asc)), field(offset_of!(Fixed, ascq))),
                    deferred,
                    information: information.filter(|_| first & VALID != 0),
                    specific: specific(array::from_fn(|at| {
                        field(offset_of!(Fixed, specific) + at)
                    })),
                })
            }
            response::DESCRIPTOR | response::DESCRIPTOR_DEFERRED => Some(Self {
                key: at(offset_of!(DescriptorHeader, key)) & KEY,
                code: (
                    at(offset_of!(DescriptorHeader, asc)),
                    at(offset_of!(DescriptorHeader, ascq)),
                ),
                deferred,
                information: Self::information(bytes),
                specific: Self::descriptor(bytes, descriptor::SENSE_KEY_SPECIFIC)
                    .and_then(|body| body.get(2..)?.first_chunk().copied())
                    .and_then(specific),
            }),
            _ => None,
        }
    }

    /// INFORMATION, from its descriptor.
    fn information(bytes: &[u8]) -> Option<u64> {
        let [valid, _, field @ ..] = Self::descriptor(bytes, descriptor::INFORMATION)? else {
            return None;
        };
        field.get(..8).filter(|_| valid & VALID != 0).map(number)
    }

    /// What comes after the length of the first descriptor of this type.
    fn descriptor(bytes: &[u8], wanted: u8) -> Option<&[u8]> {
        let start = size_of::<DescriptorHeader>();
        let len = usize::from(*bytes.get(offset_of!(DescriptorHeader, additional))?);
        let mut rest = bytes.get(start..)?;
        rest = rest.get(..len).unwrap_or(rest);
        // Each round leaves less.
        while let [kind, len, body @ ..] = rest {
            if *kind == wanted {
                return Some(body);
            }
            rest = body.get(usize::from(*len)..)?;
        }
        None
    }

    /// Whether the unit does not know the command, or a field of it.
    pub(super) fn is_unsupported(&self) -> bool {
        const UNKNOWN: [(u8, u8); 3] =
            [code::INVALID_OPCODE, code::INVALID_FIELD_IN_CDB, code::INVALID_FIELD_IN_PARAMETERS];
        self.key == key::ILLEGAL_REQUEST && UNKNOWN.contains(&self.code)
    }
}
