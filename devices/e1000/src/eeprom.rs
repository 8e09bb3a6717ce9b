//! The EEPROM: what is in it, and the two ways in (5.3, 13.4.3, 13.4.4).

mod state;

use paraslot_spec::e1000::eeprom::{SUM, WORDS, control1, microwire, word};
use paraslot_spec::e1000::{DEVICE_82540EM, Eecd, eerd};
use paraslot_spec::pci::VENDOR_INTEL;

use crate::options::Options;

pub(crate) use self::state::EepromState;

/// The EEPROM and the register through which its pins are driven.
///
/// It can be written, as a Microwire part can: what is written stays until the adapter goes.
pub(crate) struct Eeprom {
    words: [u16; WORDS],
    pins: Eecd,
    state: State,
    writable: bool,
    /// The level of the EEPROM's data output.
    output: bool,
}

/// Where in an instruction the part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waiting for the start bit.
    Start,
    /// Taking opcode and address: what has come, the start bit first.
    Instruction { bits: u16, count: u32 },
    /// Giving out data, this bit of this word last.
    Reading { address: usize, bit: u32 },
    /// Taking data for one word, or for all.
    Writing { address: Option<usize>, data: u16, count: u32 },
    /// Nothing until it is selected anew.
    Done,
}

/// Bits of an instruction.
const INSTRUCTION: u32 = microwire::OPCODE_BITS + microwire::ADDRESS_BITS;
/// Bits of EECD that software drives.
const DRIVEN: Eecd = Eecd::SK
    .union(Eecd::CS)
    .union(Eecd::DI)
    .union(Eecd::FWE_DISABLED)
    .union(Eecd::FWE_ENABLED)
    .union(Eecd::REQ);

impl Eeprom {
    pub(crate) fn new(options: &Options) -> Self {
        let mut words = [0; WORDS];
        let mut set = |at: usize, value: u16| {
            if let Some(word) = words.get_mut(at) {
                *word = value;
            }
        };
        let [a, b, c, d, e, f] = options.mac;
        set(word::ADDRESS, u16::from_le_bytes([a, b]));
        set(word::ADDRESS + 1, u16::from_le_bytes([c, d]));
        set(word::ADDRESS + 2, u16::from_le_bytes([e, f]));
        // No settings of its own: drivers take their defaults.
        set(word::LED_SETTINGS, 0xffff);
        let load = control1::LOAD_SUBSYSTEM | control1::LOAD_IDS;
        set(word::CONTROL1, control1::VALID | control1::RESERVED | control1::FULL_DUPLEX | load);
        set(word::SUBSYSTEM, options.subsystem);
        set(word::SUBSYSTEM_VENDOR, options.subsystem_vendor);
        set(word::DEVICE, DEVICE_82540EM);
        set(word::VENDOR, VENDOR_INTEL);
        // CONTROL2 stays zero: no PAUSE.
        let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
        if let Some(checksum) = words.get_mut(word::CHECKSUM) {
            *checksum = SUM.wrapping_sub(sum);
        }
        let (pins, state) = (Eecd::empty(), State::Start);
        Self { words, pins, state, writable: false, output: true }
    }

    fn word(&self, address: usize) -> u16 {
        self.words.get(address).copied().unwrap_or(0)
    }

    /// The Ethernet address, as it is now.
    pub(crate) fn address(&self) -> [u8; 6] {
        let [a, b, c] = [0, 1, 2].map(|word| self.word(word::ADDRESS + word).to_le_bytes());
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    /// What EERD reads after `value` was written to it.
    pub(crate) fn read(&self, value: u32) -> u32 {
        let address = value & eerd::ADDRESS;
        if value & eerd::START == 0 {
            return address;
        }
        let index = usize::try_from(address >> eerd::ADDRESS_SHIFT).unwrap_or(usize::MAX);
        u32::from(self.word(index)) << eerd::DATA_SHIFT | address | eerd::DONE
    }

    /// What EECD reads.
    pub(crate) fn eecd(&self) -> u32 {
        let mut value = self.pins | Eecd::PRES;
        value.set(Eecd::GNT, self.pins.contains(Eecd::REQ));
        value.set(Eecd::DO, self.output);
        value.bits()
    }

    /// Writes EECD.
    pub(crate) fn write_eecd(&mut self, value: u32) {
        let pins = Eecd::from_bits_truncate(value) & DRIVEN;
        let before = std::mem::replace(&mut self.pins, pins);
        if !pins.contains(Eecd::CS) {
            self.state = State::Start;
            // Ready, should the next to select it look for the end of a write.
            self.output = true;
        } else if pins.contains(Eecd::SK) && !before.contains(Eecd::SK) {
            self.clock(pins.contains(Eecd::DI));
        }
    }

    /// The adapter is reset: lets go of the pins.
    pub(crate) fn release(&mut self) {
        self.write_eecd(0);
    }

    /// A rising edge of the clock.
    fn clock(&mut self, input: bool) {
        let bit = u16::from(input);
        self.state = match self.state {
            State::Start if input => State::Instruction { bits: 1, count: 1 },
            State::Instruction { bits, count } => {
                let (bits, count) = (bits << 1 | bit, count + 1);
                if count < INSTRUCTION {
                    State::Instruction { bits, count }
                } else {
                    self.execute(bits)
                }
            }
            State::Reading { address, bit } => {
                // Past a word's last bit the next word follows.
                let (address, bit) = match bit.checked_sub(1) {
                    Some(bit) => (address, bit),
                    None => ((address + 1) % WORDS, microwire::DATA_BITS - 1),
                };
                self.output = self.word(address) >> bit & 1 != 0;
                State::Reading { address, bit }
            }
            State::Writing { address, data, count } => {
                let (data, count) = (data << 1 | bit, count + 1);
                if count < microwire::DATA_BITS {
                    State::Writing { address, data, count }
                } else {
                    self.store(address, data)
                }
            }
            state @ (State::Start | State::Done) => state,
        };
    }

    /// An instruction is complete.
    fn execute(&mut self, bits: u16) -> State {
        let address = usize::from(bits) % WORDS;
        let writing = |address| State::Writing { address, data: 0, count: 0 };
        match bits >> microwire::ADDRESS_BITS {
            microwire::READ => {
                // A zero goes before the data.
                self.output = false;
                State::Reading { address, bit: microwire::DATA_BITS }
            }
            microwire::WRITE => writing(Some(address)),
            microwire::ERASE => self.store(Some(address), u16::MAX),
            _ => match bits >> (microwire::ADDRESS_BITS - 2) & 0b11 {
                microwire::WRITE_ALL => writing(None),
                microwire::ERASE_ALL => self.store(None, u16::MAX),
                enable => {
                    self.writable = enable == microwire::ENABLE;
                    State::Done
                }
            },
        }
    }

    fn store(&mut self, address: Option<usize>, data: u16) -> State {
        if self.writable {
            match address.map(|address| self.words.get_mut(address)) {
                Some(Some(word)) => *word = data,
                Some(None) => {}
                None => self.words.fill(data),
            }
        }
        State::Done
    }
}
