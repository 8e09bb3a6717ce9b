use paraslot_spec::e1000::eeprom::{SUM, WORDS, microwire, word};
use paraslot_spec::e1000::{Eecd, eerd};

use super::*;

impl Machine {
    fn eerd(&mut self, address: u32) -> u16 {
        self.write(EERD, address << eerd::ADDRESS_SHIFT | eerd::START);
        let value = self.read(EERD);
        assert_eq!(value & 0xffff, address << eerd::ADDRESS_SHIFT | eerd::DONE);
        (value >> eerd::DATA_SHIFT) as u16
    }

    /// Drives the pins; returns the EEPROM's output.
    fn pins(&mut self, pins: Eecd) -> bool {
        self.write(EECD, (pins | Eecd::REQ).bits());
        self.read(EECD) & Eecd::DO.bits() != 0
    }

    fn shift_out(&mut self, value: u16, count: u32) {
        for bit in (0..count).rev() {
            let mut pins = Eecd::CS;
            pins.set(Eecd::DI, value >> bit & 1 != 0);
            self.pins(pins);
            self.pins(pins | Eecd::SK);
            self.pins(pins);
        }
    }

    fn shift_in(&mut self) -> u16 {
        (0..16).fold(0, |value, _| {
            let bit = self.pins(Eecd::CS | Eecd::SK);
            self.pins(Eecd::CS);
            value << 1 | u16::from(bit)
        })
    }

    fn instruct(&mut self, opcode: u16, address: u16) {
        self.pins(Eecd::empty());
        self.pins(Eecd::CS);
        self.shift_out(opcode, 3);
        self.shift_out(address, 6);
    }

    fn write_word(&mut self, address: u16, value: u16) {
        self.instruct(microwire::WRITE, address);
        self.shift_out(value, 16);
        self.pins(Eecd::empty());
        assert!(self.pins(Eecd::CS), "ready");
    }
}

fn sum(words: impl Iterator<Item = u16>) -> u16 {
    words.fold(0, u16::wrapping_add)
}

#[test]
fn it_holds_what_drivers_look_for() {
    let mut machine = Machine::off();
    let words: Vec<u16> = (0..64).map(|address| machine.eerd(address)).collect();
    assert_eq!(words[..3], [0x1102, 0x3322, 0x5544]);
    assert_eq!(words[word::CONTROL1] >> 14, 0b01, "a valid signature");
    assert_eq!([words[word::SUBSYSTEM], words[word::SUBSYSTEM_VENDOR]], [0x1100, 0x1af4]);
    assert_eq!([words[word::DEVICE], words[word::VENDOR]], [0x100e, 0x8086]);
    assert_eq!(sum(words.into_iter()), SUM);
    // Beyond its end there is nothing; and without START nothing happens.
    assert_eq!(machine.eerd(64), 0);
    assert_eq!(machine.eerd(255), 0);
    machine.write(EERD, 3 << 8);
    assert_eq!(machine.read(EERD), 3 << 8);
}

#[test]
fn it_is_there_and_small() {
    let mut machine = Machine::off();
    let eecd = Eecd::from_bits_retain(machine.read(EECD));
    assert!(eecd.contains(Eecd::PRES) && !eecd.intersects(Eecd::SIZE | Eecd::GNT));
    machine.write(EECD, u32::MAX);
    let eecd = Eecd::from_bits_retain(machine.read(EECD));
    assert!(eecd.contains(Eecd::REQ | Eecd::GNT) && !eecd.contains(Eecd::SIZE));
}

// As Linux and FreeBSD read it.
#[test]
fn bit_by_bit_it_reads_the_same() {
    let mut machine = Machine::off();
    for address in 0..WORDS as u16 {
        machine.instruct(microwire::READ, address);
        let value = machine.shift_in();
        assert_eq!(value, machine.eerd(address.into()), "{address}");
    }
    // Read on, words follow each other, and the first the last.
    machine.instruct(microwire::READ, 63);
    let words = [machine.shift_in(), machine.shift_in(), machine.shift_in()];
    assert_eq!(words, [machine.eerd(63), 0x1102, 0x3322]);
}

#[test]
fn a_zero_goes_before_the_data_and_leading_zeroes_are_passed_over() {
    let mut machine = Machine::off();
    machine.pins(Eecd::CS);
    machine.shift_out(0, 5);
    machine.shift_out(microwire::READ, 3);
    machine.shift_out(1, 6);
    assert!(!machine.pins(Eecd::CS));
    assert_eq!(machine.shift_in(), 0x3322);
}

#[test]
fn it_can_be_written_once_that_is_enabled() {
    let mut machine = Machine::off();
    machine.write_word(0, 0x0a0a);
    assert_eq!(machine.eerd(0), 0x1102, "protected");
    machine.instruct(microwire::EXTENDED, microwire::ENABLE << 4);
    machine.write_word(0, 0x0a0a);
    machine.instruct(microwire::ERASE, 9);
    assert_eq!((machine.eerd(0), machine.eerd(9)), (0x0a0a, 0xffff));
    machine.instruct(microwire::EXTENDED, microwire::DISABLE << 4);
    machine.write_word(1, 0);
    assert_eq!(machine.eerd(1), 0x3322);
    // A reset loads the address that is there now.
    machine.write(CTRL, Ctrl::RST.bits());
    assert_eq!(machine.read(RAL), 0x3322_0a0a);
    machine.instruct(microwire::EXTENDED, microwire::ENABLE << 4);
    machine.instruct(microwire::EXTENDED, microwire::WRITE_ALL << 4);
    machine.shift_out(0x1234, 16);
    assert_eq!([machine.eerd(0), machine.eerd(63)], [0x1234; 2]);
    machine.instruct(microwire::EXTENDED, microwire::ERASE_ALL << 4);
    assert_eq!([machine.eerd(0), machine.eerd(63)], [0xffff; 2]);
}
