//! What a driver needs of the machine it runs on.

use core::ops::Range;

use paraslot_protocol::Phase;

use crate::DmaRegion;

/// Bus, device, function of a PCI function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bdf {
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// What a function must write, and where, to raise one of the platform's interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// The machine. `&self` everywhere: a platform keeps what changes in cells.
///
/// Register accesses are volatile and reach the device in program order. Accesses outside any BAR
/// read as ones and write nowhere.
pub trait Platform {
    /// Reads 32 bits of configuration space; `offset` is a multiple of 4.
    fn config_read(&self, function: Bdf, offset: u16) -> u32;
    /// Writes 32 bits of configuration space.
    fn config_write(&self, function: Bdf, offset: u16, value: u32);

    /// Reads 8 bits of a memory BAR, at a bus address.
    fn read8(&self, address: u64) -> u8;
    /// Reads 16 bits.
    fn read16(&self, address: u64) -> u16;
    /// Reads 32 bits.
    fn read32(&self, address: u64) -> u32;
    /// Writes 8 bits.
    fn write8(&self, address: u64, value: u8);
    /// Writes 16 bits.
    fn write16(&self, address: u64, value: u16);
    /// Writes 32 bits.
    fn write32(&self, address: u64, value: u32);

    /// Addresses below 4 GiB that may be given to memory BARs which the firmware left unassigned.
    fn bar_space(&self) -> Range<u64>;

    /// Zeroed, page-aligned, physically contiguous memory that devices can reach, for good. `None`
    /// when there is no more.
    fn allocate(&self, len: usize) -> Option<DmaRegion>;

    /// The time stamp counter, ordered after earlier loads.
    fn tsc(&self) -> u64;
    /// Its frequency in Hz.
    fn tsc_hz(&self) -> u64;

    /// Called in each round of a loop that waits for a device without sleeping.
    fn relax(&self);

    /// The message that raises interrupt `index`, 0 to 31.
    fn interrupt_message(&self, index: u8) -> MsiMessage;
    /// Has `function`'s pin INTA# raise interrupt `index` while it is asserted, level-triggered.
    /// Returns whether the platform can.
    fn connect_pin(&self, _function: Bdf, _index: u8) -> bool {
        false
    }
    /// Ends the handling of interrupt `index`, which a pin raises: until this is called it is not
    /// taken again; then it is, if the pin is asserted still. Messages need no such call.
    fn end_of_interrupt(&self, _index: u8) {}
    /// How many times interrupt `index` was taken.
    fn interrupts_taken(&self, index: u8) -> u64;
    /// Sleeps until interrupt `index` has been taken more than `seen` times, or about a second has
    /// passed. An interrupt that came before the call but after `seen` was read ends it at once.
    fn wait_for_interrupt(&self, index: u8, seen: u64);

    /// Tells the harness what comes next.
    fn phase(&self, phase: Phase);
}

/// A platform of which it is not known what it is, among others.
impl<P: Platform + ?Sized> Platform for &P {
    fn config_read(&self, function: Bdf, offset: u16) -> u32 {
        (**self).config_read(function, offset)
    }
    fn config_write(&self, function: Bdf, offset: u16, value: u32) {
        (**self).config_write(function, offset, value);
    }
    fn read8(&self, address: u64) -> u8 {
        (**self).read8(address)
    }
    fn read16(&self, address: u64) -> u16 {
        (**self).read16(address)
    }
    fn read32(&self, address: u64) -> u32 {
        (**self).read32(address)
    }
    fn write8(&self, address: u64, value: u8) {
        (**self).write8(address, value);
    }
    fn write16(&self, address: u64, value: u16) {
        (**self).write16(address, value);
    }
    fn write32(&self, address: u64, value: u32) {
        (**self).write32(address, value);
    }
    fn bar_space(&self) -> Range<u64> {
        (**self).bar_space()
    }
    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        (**self).allocate(len)
    }
    fn tsc(&self) -> u64 {
        (**self).tsc()
    }
    fn tsc_hz(&self) -> u64 {
        (**self).tsc_hz()
    }
    fn relax(&self) {
        (**self).relax();
    }
    fn interrupt_message(&self, index: u8) -> MsiMessage {
        (**self).interrupt_message(index)
    }
    fn connect_pin(&self, function: Bdf, index: u8) -> bool {
        (**self).connect_pin(function, index)
    }
    fn end_of_interrupt(&self, index: u8) {
        (**self).end_of_interrupt(index);
    }
    fn interrupts_taken(&self, index: u8) -> u64 {
        (**self).interrupts_taken(index)
    }
    fn wait_for_interrupt(&self, index: u8, seen: u64) {
        (**self).wait_for_interrupt(index, seen);
    }
    fn phase(&self, phase: Phase) {
        (**self).phase(phase);
    }
}
