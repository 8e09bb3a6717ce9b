//! The registers, and the commands that are given through them.

use paraslot_spec::net::ETHERNET_GROUP;
use paraslot_spec::pci::{Command, VENDOR_VMWARE};
use paraslot_spec::vmxnet3::{
    DEVICE_VMXNET3, PT_BAR, PT_BAR_SIZE, REVISION_1, REVISION_2, REVISION_3, UPT_VERSION_1, VD_BAR,
    VD_BAR_SIZE, command, registers,
};

use crate::pci::{Function, functions};
use crate::{Accesses, Error, Platform, Window};

/// A register read as this is one that is not there.
pub(super) const GONE: u32 = u32::MAX;

/// An adapter's function and registers.
pub(super) struct Hardware<'p, P> {
    pub(super) platform: &'p P,
    pub(super) function: Function<'p, P>,
    /// Doorbells and interrupt masks.
    pt: Window<'p, P>,
    /// Everything else.
    vd: Window<'p, P>,
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// Where the register of this kind of a queue or an interrupt is.
fn of(register: u64, index: u8) -> u64 {
    register + registers::STRIDE * u64::from(index)
}

impl<'p, P: Platform> Hardware<'p, P> {
    /// The first vmxnet3 adapter on bus 0.
    pub(super) fn new(platform: &'p P) -> Result<Self, Error> {
        let function = functions(platform)
            .find(|function| {
                (function.vendor(), function.device()) == (VENDOR_VMWARE, DEVICE_VMXNET3)
            })
            .ok_or(Error::NotFound)?;
        function.enable()?;
        let window = |index, size| {
            let bar = function.bar(index)?;
            if bar.size < size {
                return Err(Error::Protocol("a BAR is too small for its registers"));
            }
            Ok(Window::new(platform, bar.address, bar.size))
        };
        let (pt, vd) = (window(PT_BAR, PT_BAR_SIZE)?, window(VD_BAR, VD_BAR_SIZE)?);
        Ok(Self { platform, function, pt, vd })
    }

    /// Selects the newest revision of the interface that both sides know, up to `newest`, and the
    /// version of UPT. Returns the revision.
    pub(super) fn negotiate(&self, newest: u8) -> Result<u8, Error> {
        let offered = self.read(registers::VRRS)?;
        let known = [(3, REVISION_3), (2, REVISION_2), (1, REVISION_1)];
        let (revision, bit) = known
            .into_iter()
            .find(|(revision, bit)| *revision <= newest && offered & bit != 0)
            .ok_or(Error::Unsupported("a revision that the driver knows"))?;
        self.write(registers::VRRS, bit);
        if self.read(registers::UVRS)? & UPT_VERSION_1 == 0 {
            return Err(Error::Unsupported("a version of UPT that the driver knows"));
        }
        self.write(registers::UVRS, UPT_VERSION_1);
        Ok(revision)
    }

    /// Its station address.
    pub(super) fn address(&self) -> Result<[u8; 6], Error> {
        let [a, b, c, d] = self.read(registers::MACL)?.to_le_bytes();
        let [e, f, ..] = self.read(registers::MACH)?.to_le_bytes();
        let address = [a, b, c, d, e, f];
        if !is_station(address) {
            return Err(Error::Protocol("its address is not one station's"));
        }
        Ok(address)
    }

    /// Gives it another.
    pub(super) fn set_address(&self, address: [u8; 6]) {
        let [a, b, c, d, e, f] = address;
        self.write(registers::MACL, u32::from_le_bytes([a, b, c, d]));
        self.write(registers::MACH, u32::from_le_bytes([e, f, 0, 0]));
    }

    /// Has it read what is at this physical address, and starts it.
    pub(super) fn activate(&self, shared: u64) -> Result<(), Error> {
        let (low, high) = halves(shared);
        self.write(registers::DSAL, low);
        self.write(registers::DSAH, high);
        if self.ask(command::ACTIVATE_DEV) == 0 {
            return Ok(());
        }
        self.write(registers::DSAL, 0);
        self.write(registers::DSAH, 0);
        Err(Error::Protocol("it does not start"))
    }

    /// Stops all queues.
    pub(super) fn quiesce(&self) -> Result<(), Error> {
        match self.ask(command::QUIESCE_DEV) {
            0 => Ok(()),
            _ => Err(Error::Protocol("it does not stop")),
        }
    }

    /// Gives a command.
    pub(super) fn order(&self, command: u32) {
        self.write(registers::CMD, command);
    }

    /// Gives a command, and reads what becomes of it.
    pub(super) fn ask(&self, command: u32) -> u32 {
        self.order(command);
        self.vd.read32(registers::CMD)
    }

    /// Reads a register other than a doorbell or a mask.
    pub(super) fn read(&self, register: u64) -> Result<u32, Error> {
        match self.vd.read32(register) {
            GONE => Err(Error::Protocol("its registers are gone")),
            value => Ok(value),
        }
    }

    /// Writes a register other than a doorbell or a mask.
    pub(super) fn write(&self, register: u64, value: u32) {
        self.vd.write32(register, value);
    }

    /// Masks an interrupt, or lets it through.
    pub(super) fn set_masked(&self, interrupt: u8, masked: bool) {
        self.pt.write32(of(registers::IMR, interrupt), masked.into());
    }

    /// Writes a queue's doorbell.
    pub(super) fn ring(&self, register: u64, queue: u8, index: u16) {
        self.pt.write32(of(register, queue), index.into());
        self.pt.count_doorbell();
    }

    /// Keeps the function from asserting its pin.
    pub(super) fn disconnect(&self) {
        self.function.set_command(self.function.command() | Command::INTX_DISABLE);
    }

    pub(super) fn accesses(&self) -> Accesses {
        self.pt.accesses().plus(self.vd.accesses())
    }
}

/// Whether an address is that of one station.
pub(super) fn is_station(address: [u8; 6]) -> bool {
    let [first, ..] = address;
    first & ETHERNET_GROUP == 0 && address != [0; 6]
}
