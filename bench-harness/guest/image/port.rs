//! I/O ports, those below 0xd00.

use core::arch::asm;

macro_rules! ports {
    ($read:ident, $write:ident, $type:ty, $register:tt) => {
        /// Reads a port.
        pub(crate) fn $read(port: u16) -> $type {
            let value;
            // SAFETY: a port access touches no memory of this program.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                     options(nostack, preserves_flags))
            };
            value
        }
        /// Writes a port.
        pub(crate) fn $write(port: u16, value: $type) {
            // SAFETY: as above. A device that is told to access memory finds what was written before.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                     options(nostack, preserves_flags))
            };
        }
    };
}
ports!(read8, write8, u8, "al");
ports!(read32, write32, u32, "eax");
