//! What the registers hold, saved.

use std::collections::BTreeMap;

use paraslot_device::StateError;
use paraslot_device::register::Register;
use paraslot_spec::e1000::eeprom::WORDS;
use paraslot_spec::e1000::registers::{EERD, MDIC, PBA};
use paraslot_spec::e1000::{Mdic, eerd, phy};

use super::{ARRAYS, Bank, REGISTERS, transmit_share};

/// Registers by their names, those of arrays with their number; without those that hold what they do
/// after power-on.
pub(crate) type BankState = BTreeMap<String, u32>;

/// All registers that have storage here.
fn all() -> impl Iterator<Item = (String, Register)> {
    let single = REGISTERS.iter().map(|register| (register.name.to_owned(), *register));
    let arrays = ARRAYS.iter().flat_map(|&(name, first, count, distance, writable)| {
        let offsets = (first..).step_by(usize::try_from(distance).unwrap_or(4)).take(count);
        offsets.enumerate().map(move |(index, offset)| {
            (format!("{name}{index}"), Register::read_write(name, offset, 0, writable))
        })
    });
    single.chain(arrays)
}

impl Bank {
    pub(crate) fn save(&self) -> BankState {
        let held = all().map(|(name, register)| (name, register, self.get(register.offset)));
        held.filter(|(_, register, value)| *value != register.reset)
            .map(|(name, _, value)| (name, value))
            .collect()
    }

    /// Takes over what was saved: values that a guest can write.
    pub(crate) fn restore(&self, state: &BankState) -> Result<(), StateError> {
        let mut known = 0;
        for (name, register) in all() {
            let value = match state.get(&name) {
                Some(value) => {
                    known += 1;
                    *value
                }
                None => register.reset,
            };
            if !is_possible(&register, value) {
                return Err(StateError::impossible(format!("{name} does not hold {value:#x}")));
            }
            self.set(register.offset, value);
        }
        if known != state.len() {
            return Err(StateError::impossible("a register that is not there"));
        }
        Ok(())
    }
}

/// Whether a register can hold `value`.
fn is_possible(register: &Register, value: u32) -> bool {
    match register.offset {
        EERD => {
            let [_, _, data @ ..] = value.to_le_bytes();
            let data = u16::from_le_bytes(data);
            let word = usize::try_from((value & eerd::ADDRESS) >> eerd::ADDRESS_SHIFT);
            let read = value & eerd::DONE != 0 && word.is_ok_and(|word| word < WORDS);
            const { assert!(eerd::DATA_SHIFT == 16) };
            value & 0xffff & !(eerd::ADDRESS | eerd::DONE) == 0 && (read || data == 0)
        }
        MDIC => {
            let operation = Mdic::from_bits_truncate(value);
            let kept = Mdic::all().bits() | Mdic::DATA | Mdic::REGISTER | Mdic::PHY;
            let one = operation.contains(Mdic::READ) != operation.contains(Mdic::WRITE);
            let here = (value & Mdic::PHY) >> Mdic::PHY_SHIFT == phy::ADDRESS;
            let failed = operation.contains(Mdic::READY) && !(one && here);
            value & !kept == 0 && operation.contains(Mdic::ERROR) == failed
        }
        PBA => {
            let receive = value & register.writable;
            value == transmit_share(receive) | receive
        }
        _ => (value ^ register.reset) & !register.writable == 0,
    }
}
