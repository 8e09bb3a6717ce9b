//! PCI functions on bus 0: finding them, placing their BARs, and their message-signalled interrupts.

mod bars;
mod interrupts;
#[cfg(test)]
mod tests;

pub use bars::Bar;
pub use interrupts::{Msix, Signal, route, route_msi, route_pin, silence};
pub(crate) use interrupts::{Way, connect};

use paraslot_spec::pci::{Command, Status, header};

use crate::{Bdf, Platform};

/// Header type: this device has more functions than the first.
const MULTIFUNCTION: u8 = 1 << 7;
/// Header type without [`MULTIFUNCTION`]: a PCI-to-PCI bridge.
const TYPE_BRIDGE: u8 = 1;
/// Capabilities that fit behind the header; a longer list is a loop.
const MAX_CAPABILITIES: usize = 48;

/// One function.
pub struct Function<'p, P> {
    platform: &'p P,
    bdf: Bdf,
}

impl<P> Clone for Function<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Function<'_, P> {}

/// The functions on bus 0, in order. Those behind bridges are not looked for.
pub fn functions<P: Platform>(platform: &P) -> impl Iterator<Item = Function<'_, P>> {
    (0..32).flat_map(move |device| {
        let first = Function { platform, bdf: Bdf { bus: 0, device, function: 0 } };
        let count = match first.vendor() {
            u16::MAX => 0,
            _ if first.read8(header::HEADER_TYPE) & MULTIFUNCTION != 0 => 8,
            _ => 1,
        };
        (0..count)
            .map(move |function| Function { platform, bdf: Bdf { bus: 0, device, function } })
            .filter(|function| function.vendor() != u16::MAX)
    })
}

impl<'p, P: Platform> Function<'p, P> {
    /// Where it is.
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// The machine it is in.
    pub fn platform(&self) -> &'p P {
        self.platform
    }

    /// Reads 32 bits of its configuration space; `offset` is a multiple of 4.
    pub fn read32(&self, offset: u16) -> u32 {
        self.platform.config_read(self.bdf, offset)
    }

    /// Reads 16 bits; `offset` is even.
    pub fn read16(&self, offset: u16) -> u16 {
        let [a, b, c, d] = self.read32(offset & !3).to_le_bytes();
        u16::from_le_bytes(if offset & 2 == 0 { [a, b] } else { [c, d] })
    }

    /// Reads 8 bits.
    pub fn read8(&self, offset: u16) -> u8 {
        let [low, high] = self.read16(offset & !1).to_le_bytes();
        if offset & 1 == 0 { low } else { high }
    }

    /// Writes 32 bits; `offset` is a multiple of 4.
    pub fn write32(&self, offset: u16, value: u32) {
        self.platform.config_write(self.bdf, offset, value);
    }

    /// Vendor ID; all ones where there is no function.
    pub fn vendor(&self) -> u16 {
        self.read16(header::VENDOR_ID)
    }

    /// Device ID.
    pub fn device(&self) -> u16 {
        self.read16(header::DEVICE_ID)
    }

    /// Base class, sub-class, programming interface.
    pub fn class(&self) -> [u8; 3] {
        let [_, interface, sub, base] = self.read32(header::REVISION_ID).to_le_bytes();
        [base, sub, interface]
    }

    fn is_bridge(&self) -> bool {
        self.read8(header::HEADER_TYPE) & !MULTIFUNCTION == TYPE_BRIDGE
    }

    /// The command register.
    pub fn command(&self) -> Command {
        Command::from_bits_retain(self.read16(header::COMMAND))
    }

    /// Sets the command register.
    pub fn set_command(&self, command: Command) {
        // The status register shares the word; its bits are cleared by ones, so zeroes leave them.
        self.write32(header::COMMAND, u32::from(command.bits()));
    }

    /// The capabilities: offset and ID. The walk is bounded, whatever the pointers say.
    pub fn capabilities(&self) -> impl Iterator<Item = (u16, u8)> {
        let function = *self;
        let status = Status::from_bits_retain(function.read16(header::STATUS));
        let mut next = if status.contains(Status::CAPABILITIES) {
            function.read8(header::CAPABILITIES)
        } else {
            0
        };
        core::iter::from_fn(move || {
            let offset = u16::from(next & !3);
            if offset < header::END {
                return None;
            }
            let [id, following] = function.read16(offset).to_le_bytes();
            next = following;
            Some((offset, id))
        })
        .take(MAX_CAPABILITIES)
    }

    /// Offset of the first capability with this ID.
    pub fn capability(&self, id: u8) -> Option<u16> {
        self.capabilities().find(|(_, other)| *other == id).map(|(offset, _)| offset)
    }
}
