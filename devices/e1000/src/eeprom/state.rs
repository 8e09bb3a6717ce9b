//! The EEPROM, saved.

use paraslot_device::StateError;
use paraslot_spec::e1000::Eecd;
use paraslot_spec::e1000::eeprom::{WORDS, microwire};
use serde::{Deserialize, Serialize};

use super::{DRIVEN, Eeprom, INSTRUCTION, State};
use crate::state::require;

/// The EEPROM's state. What its data output shows follows from the rest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EepromState {
    /// Its words, each with its low byte first, in hexadecimal digits.
    #[serde(with = "hex")]
    words: Vec<u8>,
    /// EECD, as far as software drives it.
    pins: u32,
    writable: bool,
    at: At,
}

/// Where in an instruction the part is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum At {
    Start,
    Instruction { bits: u16, count: u32 },
    Reading { address: u16, bit: u32 },
    Writing { address: Option<u16>, data: u16, count: u32 },
    Done,
}

impl Eeprom {
    pub(crate) fn save(&self) -> EepromState {
        let Self { words, pins, state, writable, output: _ } = self;
        let narrow = |address: usize| u16::try_from(address).unwrap_or(0);
        let at = match *state {
            State::Start => At::Start,
            State::Instruction { bits, count } => At::Instruction { bits, count },
            State::Reading { address, bit } => At::Reading { address: narrow(address), bit },
            State::Writing { address, data, count } => {
                At::Writing { address: address.map(narrow), data, count }
            }
            State::Done => At::Done,
        };
        EepromState {
            words: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            pins: pins.bits(),
            writable: *writable,
            at,
        }
    }
}

/// Whether `bits` are what has come after `count` bits.
fn came(bits: u16, count: u32) -> bool {
    bits.checked_shr(count).is_none_or(|more| more == 0)
}

impl EepromState {
    /// The EEPROM, if it can be like that.
    pub(crate) fn check(&self) -> Result<Eeprom, StateError> {
        let Self { words: bytes, pins, writable, at } = self;
        let (pairs, rest) = bytes.as_chunks::<2>();
        let all = pairs.len() == WORDS && rest.is_empty();
        require(all, "an EEPROM of another size")?;
        let mut words = [0; WORDS];
        for (word, pair) in words.iter_mut().zip(pairs) {
            *word = u16::from_le_bytes(*pair);
        }
        let pins = Eecd::from_bits(*pins).filter(|pins| DRIVEN.contains(*pins));
        let pins = pins.ok_or_else(|| StateError::impossible("EECD"))?;
        let there = |address: u16| usize::from(address) < WORDS;
        let (state, right) = match *at {
            At::Start => (State::Start, true),
            At::Instruction { bits, count } => {
                // The start bit is the first that came.
                let started = (1..INSTRUCTION).contains(&count) && bits >> (count - 1) == 1;
                (State::Instruction { bits, count }, started)
            }
            At::Reading { address, bit } => {
                let right = there(address) && bit <= microwire::DATA_BITS;
                (State::Reading { address: address.into(), bit }, right)
            }
            At::Writing { address, data, count } => {
                let right =
                    address.is_none_or(there) && count < microwire::DATA_BITS && came(data, count);
                (State::Writing { address: address.map(usize::from), data, count }, right)
            }
            At::Done => (State::Done, true),
        };
        let selected = pins.contains(Eecd::CS) || state == State::Start;
        require(right && selected, "the EEPROM is in the middle of no instruction")?;
        let mut eeprom = Eeprom { words, pins, state, writable: *writable, output: true };
        if let State::Reading { address, bit } = state {
            // Before the first bit there is a zero.
            eeprom.output = bit < microwire::DATA_BITS && eeprom.word(address) >> bit & 1 != 0;
        }
        Ok(eeprom)
    }
}
