//! The registers, and what is done with them once: reset, EEPROM, PHY, filters (14).

use paraslot_spec::e1000::{
    Ctrl, DEVICE_82540EM, MEMORY_BAR, MEMORY_BAR_SIZE, MULTICAST_WORDS, Mdic, RECEIVE_ADDRESSES,
    Status, Tctl, VLAN_WORDS, eeprom, eerd, manc, phy, registers,
};
use paraslot_spec::pci::{Command, VENDOR_INTEL};

use crate::error::{delay, wait_until};
use crate::pci::{Function, functions, route_pin};
use crate::{Error, Platform, Window};

/// How long transactions on the bus may take to end once both units are disabled, in microseconds.
const DRAIN_US: u64 = 10_000;
/// How long the controller reads its EEPROM after a reset, in microseconds.
const AUTO_READ_US: u64 = 5_000;
/// How long a reset may take then, in milliseconds.
const RESET_MS: u64 = 10;
/// How long a word of the EEPROM may take, in milliseconds.
const EEPROM_MS: u64 = 100;
/// How long an access to the PHY may take, in milliseconds.
const PHY_MS: u64 = 10;

/// PBA: 48 KiB of the packet buffer are for receiving.
const RECEIVE_BUFFER_KIB: u32 = 48;
/// Extended PHY specific control: how often a master and a slave try before they fall back to a lower
/// speed, four bits; once, all in all.
const DOWNSHIFT: u16 = 0xf << 8;
const DOWNSHIFT_ONCE: u16 = 1 << 8;
/// The bits of the PHY's second identifier that tell its revision.
const PHY_REVISION: u16 = 0xf;

/// A register read as this is one that is not there.
pub(super) const GONE: u32 = u32::MAX;

/// A controller's function and registers.
pub(super) struct Hardware<'p, P> {
    pub(super) platform: &'p P,
    function: Function<'p, P>,
    window: Window<'p, P>,
}

impl<'p, P: Platform> Hardware<'p, P> {
    /// The first 82540EM on bus 0.
    pub(super) fn new(platform: &'p P) -> Result<Self, Error> {
        let function = functions(platform)
            .find(|function| {
                (function.vendor(), function.device()) == (VENDOR_INTEL, DEVICE_82540EM)
            })
            .ok_or(Error::NotFound)?;
        function.enable()?;
        let bar = function.bar(MEMORY_BAR)?;
        if bar.size < MEMORY_BAR_SIZE {
            return Err(Error::Protocol("the memory BAR is too small"));
        }
        Ok(Self { platform, function, window: Window::new(platform, bar.address, bar.size) })
    }

    pub(super) fn window(&self) -> &Window<'p, P> {
        &self.window
    }

    pub(super) fn read(&self, register: u32) -> u32 {
        self.window.read32(register.into())
    }

    pub(super) fn write(&self, register: u32, value: u32) {
        self.window.write32(register.into(), value);
    }

    /// Writes a tail, after everything that was written to memory.
    pub(super) fn ring(&self, register: u32, tail: u16) {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        self.write(register, tail.into());
        self.window.count_doorbell();
    }

    /// Reads STATUS, and so has what was written before arrive.
    pub(super) fn flush(&self) -> Status {
        Status::from_bits_retain(self.read(registers::STATUS))
    }

    /// Connects the pin to interrupt `index`.
    pub(super) fn connect(&self, index: u8) -> Result<(), Error> {
        route_pin(self.function, index)
    }

    /// Keeps the function from asserting its pin, whatever it does.
    pub(super) fn disconnect(&self) {
        self.function.set_command(self.function.command() | Command::INTX_DISABLE);
    }

    /// Resets everything but the PHY (14.3): nothing is transmitted, received or interrupted for then.
    pub(super) fn reset(&self) -> Result<(), Error> {
        self.write(registers::PBA, RECEIVE_BUFFER_KIB);
        self.write(registers::IMC, u32::MAX);
        self.write(registers::RCTL, 0);
        self.write(registers::TCTL, Tctl::PSP.bits());
        self.flush();
        delay(self.platform, DRAIN_US);
        let ctrl = || Ctrl::from_bits_retain(self.read(registers::CTRL));
        self.write(registers::CTRL, (ctrl() | Ctrl::RST).bits());
        delay(self.platform, AUTO_READ_US);
        wait_until(self.platform, RESET_MS, "reset", || !ctrl().contains(Ctrl::RST))?;
        self.write(registers::MANC, self.read(registers::MANC) & !manc::ARP_EN);
        self.write(registers::IMC, u32::MAX);
        // What had happened is forgotten.
        self.read(registers::ICR);
        self.write(registers::WUC, 0);
        Ok(())
    }

    /// The hardware address, from the EEPROM (5.6.1), once that has proved to be right.
    pub(super) fn address(&self) -> Result<[u8; 6], Error> {
        let mut words = [0; eeprom::WORDS];
        for (index, word) in (0..).zip(&mut words) {
            *word = self.eeprom(index)?;
        }
        if words.iter().fold(0, |sum: u16, word| sum.wrapping_add(*word)) != eeprom::SUM {
            return Err(Error::Protocol("the EEPROM's checksum is wrong"));
        }
        let mut address = [0; 6];
        for (bytes, word) in address.chunks_mut(2).zip(&words[eeprom::word::ADDRESS..]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        if address[0] & 1 != 0 || address == [0; 6] {
            return Err(Error::Protocol("its address is not one station's"));
        }
        Ok(address)
    }

    fn eeprom(&self, word: u32) -> Result<u16, Error> {
        self.write(registers::EERD, word << eerd::ADDRESS_SHIFT | eerd::START);
        let mut value = 0;
        wait_until(self.platform, EEPROM_MS, "a word of the EEPROM", || {
            value = self.read(registers::EERD);
            value & eerd::DONE != 0 && value != GONE
        })?;
        let [.., low, high] = value.to_le_bytes();
        Ok(u16::from_le_bytes([low, high]))
    }

    fn phy(&self, register: u8, operation: Mdic, data: u16) -> Result<u16, Error> {
        let register = u32::from(register) << Mdic::REGISTER_SHIFT;
        let place = phy::ADDRESS << Mdic::PHY_SHIFT | register;
        self.write(registers::MDIC, operation.bits() | place | u32::from(data));
        let mut value = 0;
        wait_until(self.platform, PHY_MS, "an access to the PHY", || {
            value = self.read(registers::MDIC);
            Mdic::from_bits_retain(value).contains(Mdic::READY)
        })?;
        if Mdic::from_bits_retain(value).contains(Mdic::ERROR) {
            return Err(Error::Protocol("the PHY does not answer"));
        }
        let [low, high, ..] = value.to_le_bytes();
        Ok(u16::from_le_bytes([low, high]))
    }

    fn read_phy(&self, register: u8) -> Result<u16, Error> {
        self.phy(register, Mdic::READ, 0)
    }

    fn write_phy(&self, register: u8, value: u16) -> Result<(), Error> {
        self.phy(register, Mdic::WRITE, value).map(drop)
    }

    /// Changes bits of a register of the PHY's.
    fn change_phy(&self, register: u8, clear: u16, set: u16) -> Result<(), Error> {
        self.write_phy(register, self.read_phy(register)? & !clear | set)
    }

    /// Has the PHY negotiate everything that it can but flow control, and the MAC follow it (14.8).
    pub(super) fn start_link(&self) -> Result<(), Error> {
        use phy::{Ability, Control, gigabit_control, register, specific_control};

        let ctrl = Ctrl::from_bits_retain(self.read(registers::CTRL));
        self.write(registers::CTRL, ((ctrl | Ctrl::SLU) - Ctrl::FRCSPD - Ctrl::FRCDPLX).bits());

        let (id1, id2) = (self.read_phy(register::ID1)?, self.read_phy(register::ID2)?);
        if (id1, id2 & !PHY_REVISION) != (phy::ID1, phy::ID2 & !PHY_REVISION) {
            return Err(Error::Unsupported("a PHY other than the 82540EM's own"));
        }
        let set = specific_control::CARRIER_ON_TRANSMIT | specific_control::AUTO_CROSSOVER;
        let clear = specific_control::POLARITY_REVERSAL;
        self.change_phy(register::SPECIFIC_CONTROL, clear, set)?;
        let set = phy::extended_control::TX_CLK_25 | DOWNSHIFT_ONCE;
        self.change_phy(register::EXTENDED_CONTROL, DOWNSHIFT, set)?;
        // Only a reset lets these take effect.
        self.change_phy(register::CONTROL, 0, Control::RESET.bits())?;
        delay(self.platform, 1);

        let speeds = Ability::TEN_HALF
            .union(Ability::TEN_FULL)
            .union(Ability::HUNDRED_HALF)
            .union(Ability::HUNDRED_FULL);
        let pause = Ability::PAUSE.union(Ability::ASYMMETRIC_PAUSE);
        self.change_phy(register::ADVERTISEMENT, pause.bits(), speeds.bits())?;
        let (half, full) = (gigabit_control::HALF, gigabit_control::FULL);
        self.change_phy(register::GIGABIT_CONTROL, half, full)?;
        let restart = Control::AUTONEGOTIATION.union(Control::RESTART);
        self.change_phy(register::CONTROL, 0, restart.bits())
    }

    /// Has packets for `address` alone received, and broadcasts (14.4).
    pub(super) fn set_filters(&self, address: [u8; 6]) {
        self.write(registers::VET, 0);
        let word = |index: usize| u32::try_from(4 * index).unwrap_or(0);
        for index in 0..VLAN_WORDS {
            self.write(registers::VFTA + word(index), 0);
        }
        let [a, b, c, d, e, f] = address;
        self.write(registers::RAL, u32::from_le_bytes([a, b, c, d]));
        let high = u32::from(u16::from_le_bytes([e, f]));
        self.write(registers::RAH, high | registers::ADDRESS_VALID);
        for entry in (1..).take(RECEIVE_ADDRESSES - 1) {
            self.write(registers::ral(entry), 0);
            self.write(registers::rah(entry), 0);
        }
        for index in 0..MULTICAST_WORDS {
            self.write(registers::MTA + word(index), 0);
        }
    }
}
