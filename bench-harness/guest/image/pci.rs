//! Configuration space, by configuration mechanism 1: the first 256 bytes of it.

use paraslot_drivers::Bdf;
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
