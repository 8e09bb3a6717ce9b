//! An 82540EM after its manual, as much of it as the driver uses. It does nothing of its own accord.

extern crate std;

use core::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::vec;
use std::vec::Vec;

use paraslot_spec::e1000::{
    Cause, Ctrl, Mdic, TransmitDescriptor, eeprom, eerd, phy, receive, registers, transmit,
};
use zerocopy::FromBytes;

use crate::testing::{Fake, Registers};

/// Where its registers are.
pub(super) const BAR: u64 = 0xe000_0000;
pub(super) const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

/// What it can do wrong, or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// Every register reads as ones.
    Gone,
    /// A reset does not end.
    Resets,
    /// The EEPROM is not read.
    SilentEeprom,
    /// A bit of the EEPROM is wrong.
    WrongEeprom,
    /// The EEPROM has a group's address.
    GroupAddress,
    /// The EEPROM has no address.
    NoAddress,
    /// The PHY's registers are not read.
    SilentPhy,
    /// The PHY does not answer.
    DeadPhy,
    /// The PHY is another.
    OtherPhy,
    /// The link stays down.
    NoLink,
}

/// An access to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read(u32),
    Write(u32, u32),
}

/// A packet as it came off the ring.
#[derive(Clone, Debug, Default)]
pub(super) struct Packet {
    pub(super) descriptors: Vec<TransmitDescriptor>,
    /// Of its data descriptors, without change.
    pub(super) bytes: Vec<u8>,
    /// The index of its last descriptor.
    last: usize,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) fault: Cell<Fault>,
    pub(super) registers: RefCell<BTreeMap<u32, u32>>,
    pub(super) phy: RefCell<[u16; phy::REGISTERS]>,
    pub(super) trace: RefCell<Vec<Access>>,
    pub(super) resets: Cell<u32>,
    pub(super) status: Cell<u32>,
    /// Packets that were sent and not reported.
    pub(super) sent: RefCell<VecDeque<Packet>>,
    partial: RefCell<Packet>,
}

impl Model {
    pub(super) fn get(&self, register: u32) -> u32 {
        self.registers.borrow().get(&register).copied().unwrap_or(0)
    }

    pub(super) fn set(&self, register: u32, value: u32) {
        self.registers.borrow_mut().insert(register, value);
    }

    pub(super) fn take_trace(&self) -> Vec<Access> {
        core::mem::take(&mut self.trace.borrow_mut())
    }

    /// Raises causes; says whether the pin is asserted.
    pub(super) fn raise(&self, causes: Cause) -> bool {
        self.set(registers::ICR, self.get(registers::ICR) | causes.bits());
        self.asserted()
    }

    pub(super) fn asserted(&self) -> bool {
        self.get(registers::ICR) & self.get(registers::IMS) != 0
    }

    fn eeprom(&self, word: usize) -> u16 {
        let fault = self.fault.get();
        let content = |word| match word {
            0..3 if fault == Fault::NoAddress => 0,
            0 if fault == Fault::GroupAddress => 1,
            0..3 => u16::from_le_bytes([MAC[2 * word], MAC[2 * word + 1]]),
            _ => u16::try_from(word * 0x0101).unwrap(),
        };
        if word == eeprom::word::CHECKSUM {
            (0..word).fold(eeprom::SUM, |sum, word| sum.wrapping_sub(content(word)))
        } else {
            content(word)
        }
    }

    fn mdic(&self, value: u32) -> u32 {
        let operation = Mdic::from_bits_retain(value);
        let register = usize::try_from((value & Mdic::REGISTER) >> Mdic::REGISTER_SHIFT).unwrap();
        let [low, high, ..] = value.to_le_bytes();
        let fault = self.fault.get();
        if fault == Fault::SilentPhy {
            return value;
        }
        let right = (value & Mdic::PHY) >> Mdic::PHY_SHIFT == phy::ADDRESS;
        if fault == Fault::DeadPhy || !right {
            return value | (Mdic::READY | Mdic::ERROR).bits();
        }
        let mut phy = self.phy.borrow_mut();
        if operation.contains(Mdic::WRITE) {
            phy[register] = u16::from_le_bytes([low, high]);
        }
        let data = match u8::try_from(register).unwrap() {
            phy::register::ID1 => phy::ID1,
            phy::register::ID2 if fault == Fault::OtherPhy => 0x0c50,
            // Of some revision.
            phy::register::ID2 => phy::ID2 | 3,
            _ => phy[register],
        };
        value & !Mdic::DATA | u32::from(data) | Mdic::READY.bits()
    }

    fn ring(&self, fake: &Fake, base: u32, index: u32) -> (crate::DmaRegion, usize) {
        let high = u64::from(self.get(base + 4)) << 32;
        fake.at((high | u64::from(self.get(base))) + 16 * u64::from(index))
    }

    /// Reads all descriptors up to the tail.
    pub(super) fn fetch(&self, fake: &Fake) {
        let len = self.get(registers::TDLEN) / 16;
        let (mut head, tail) = (self.get(registers::TDH), self.get(registers::TDT));
        while head != tail {
            let (ring, at) = self.ring(fake, registers::TDBAL, head);
            let mut bytes = [0; 16];
            ring.read_bytes(at, &mut bytes);
            let descriptor = TransmitDescriptor::read_from_bytes(&bytes).unwrap();
            let mut packet = self.partial.borrow_mut();
            packet.descriptors.push(descriptor);
            packet.last = usize::try_from(head).unwrap();
            let command = descriptor.command.get();
            if !descriptor.is_context() {
                let extended = command & transmit::DEXT != 0;
                let mask = if extended { transmit::DTALEN } else { transmit::LENGTH };
                let mut data = vec![0; usize::try_from(command & mask).unwrap()];
                let (memory, at) = fake.at(descriptor.address.get());
                memory.read_bytes(at, &mut data);
                packet.bytes.extend(data);
                if command & transmit::EOP != 0 {
                    assert!(command & transmit::RS != 0, "nobody would know");
                    self.sent.borrow_mut().push_back(core::mem::take(&mut packet));
                }
            }
            head = (head + 1) % len;
        }
        self.set(registers::TDH, head);
    }

    /// Reports the oldest packet that was sent.
    pub(super) fn report(&self, fake: &Fake) -> Option<Packet> {
        let packet = self.sent.borrow_mut().pop_front()?;
        let (ring, at) = self.ring(fake, registers::TDBAL, u32::try_from(packet.last).unwrap());
        ring.write8(at + 12, transmit::DD);
        Some(packet)
    }

    /// Writes a packet into the next buffer, with these status and errors. Returns whether there was
    /// one.
    pub(super) fn deliver(&self, fake: &Fake, data: &[u8], status: u8, errors: u8) -> bool {
        let (head, len) = (self.get(registers::RDH), self.get(registers::RDLEN) / 16);
        if head == self.get(registers::RDT) {
            return false;
        }
        let (ring, at) = self.ring(fake, registers::RDBAL, head);
        assert_eq!(ring.read64(at + 8), 0, "a descriptor is clean");
        let (memory, place) = fake.at(ring.read64(at));
        memory.write_bytes(place, data);
        ring.write16(at + 8, u16::try_from(data.len()).unwrap());
        ring.write8(at + 13, errors);
        ring.write8(at + 12, status);
        self.set(registers::RDH, (head + 1) % len);
        true
    }

    /// As it comes over the wire: with a frame check sequence behind it.
    pub(super) fn arrive(&self, fake: &Fake, frame: &[u8], status: u8) -> bool {
        let data: Vec<u8> = frame.iter().copied().chain([0xf0, 0xf1, 0xf2, 0xf3]).collect();
        self.deliver(fake, &data, receive::DD | receive::EOP | status, 0)
    }
}

impl Registers for Model {
    fn read(&self, _fake: &Fake, offset: u64) -> u32 {
        let register = u32::try_from(offset).unwrap();
        self.trace.borrow_mut().push(Access::Read(register));
        let fault = self.fault.get();
        match register {
            _ if fault == Fault::Gone => u32::MAX,
            registers::STATUS => self.status.get(),
            registers::ICR => self.registers.borrow_mut().insert(register, 0).unwrap_or(0),
            _ => self.get(register),
        }
    }

    fn write(&self, _fake: &Fake, offset: u64, value: u32) {
        let register = u32::try_from(offset).unwrap();
        self.trace.borrow_mut().push(Access::Write(register, value));
        let fault = self.fault.get();
        match register {
            registers::CTRL if value & Ctrl::RST.bits() != 0 => {
                self.resets.set(self.resets.get() + 1);
                self.registers.borrow_mut().clear();
                // Whatever a controller forgets or not is for the driver to set.
                self.set(registers::MTA + 4, 0x5555_5555);
                self.set(registers::ICR, Cause::LSC.bits());
                let stays = if fault == Fault::Resets { value } else { 0 };
                self.set(register, stays);
            }
            registers::EERD => {
                let word = usize::try_from((value & eerd::ADDRESS) >> eerd::ADDRESS_SHIFT).unwrap();
                let mut data = self.eeprom(word);
                if fault == Fault::WrongEeprom && word == 9 {
                    data ^= 1;
                }
                let done = if fault == Fault::SilentEeprom { 0 } else { eerd::DONE };
                self.set(register, u32::from(data) << eerd::DATA_SHIFT | done);
            }
            registers::MDIC => self.set(register, self.mdic(value)),
            registers::IMS => self.set(register, self.get(register) | value),
            registers::IMC => self.set(registers::IMS, self.get(registers::IMS) & !value),
            _ => self.set(register, value),
        }
    }
}
