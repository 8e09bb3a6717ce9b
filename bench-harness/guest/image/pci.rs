//! Configuration space, by configuration mechanism 1: the first 256 bytes of it. And where functions'
//! interrupt pins lead.

use paraslot_drivers::Bdf;
use paraslot_spec::pci::header::{INTERRUPT_PIN, VENDOR_ID};
use paraslot_spec::pci::mechanism1::{ADDRESS, DATA, ENABLE};

use crate::port;

/// Bytes of configuration space that the mechanism reaches.
const REACHED: u16 = 256;

fn select(function: Bdf, offset: u16) {
    let bdf = u32::from(function.bus) << 16
        | u32::from(function.device & 31) << 11
        | u32::from(function.function & 7) << 8;
    port::write32(ADDRESS, ENABLE | bdf | u32::from(offset & 0xfc));
}

/// Reads 32 bits; ones beyond what is reached.
pub(crate) fn read(function: Bdf, offset: u16) -> u32 {
    if offset >= REACHED {
        return u32::MAX;
    }
    select(function, offset);
    port::read32(DATA)
}

/// Writes 32 bits; nothing beyond what is reached.
pub(crate) fn write(function: Bdf, offset: u16, value: u32) {
    if offset < REACHED {
        select(function, offset);
        port::write32(DATA, value);
    }
}

/// Host bridges of the machines whose routing is known, device ID first: QEMU's q35 and our own.
const KNOWN_BRIDGES: [u32; 2] = [0x29c0_8086, 0x0008_1b36];
/// The first pin of the I/O APIC that functions share on those, and how many there are.
const FIRST_PIN: u8 = 20;
const PINS: u8 = 4;
/// From this device on, chipset registers say where pins lead.
const FIRST_ROUTED: u8 = 25;

/// The pin of the I/O APIC that `function`'s interrupt pin leads to. `None` if it has none, or if this
/// machine's routing is not known.
pub(crate) fn pin(function: Bdf) -> Option<u8> {
    let bridge = read(Bdf::default(), VENDOR_ID);
    let known = KNOWN_BRIDGES.contains(&bridge) && function.bus == 0;
    let [_, pin, ..] = read(function, INTERRUPT_PIN & !3).to_le_bytes();
    if !known || function.device >= FIRST_ROUTED || !(1..=4).contains(&pin) {
        return None;
    }
    Some(FIRST_PIN + (function.device + pin - 1) % PINS)
}
