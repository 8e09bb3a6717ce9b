//! Configuration space (being written).

use std::sync::Arc;

use paraslot_device::{BusMaster, IntxLine, MsiSink};

use crate::{BarSpec, BarState, Interrupts};

/// Who a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, sub-class, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// Where a function keeps its MSI-X structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// Vectors, 1 to 2048.
    pub vectors: u16,
    /// BAR and offset (a multiple of 8) of the table.
    pub table: (u8, u32),
    /// BAR and offset (a multiple of 8) of the pending bits.
    pub pba: (u8, u32),
}

/// Builds a [`ConfigSpace`]. Mistakes in its arguments are the device author's, so it panics on them.
pub struct ConfigSpaceBuilder {}

impl ConfigSpaceBuilder {
    /// A function without BARs, capabilities or interrupts.
    pub fn new(_identity: Identity) -> Self {
        todo!()
    }
    /// Adds a BAR, 0 to 5 (or 6 for the ROM).
    pub fn bar(self, _index: u8, _spec: BarSpec) -> Self {
        todo!()
    }
    /// Gives it an INTA pin.
    pub fn intx(self) -> Self {
        todo!()
    }
    /// Adds a capability: `body` is what follows the ID and next-pointer bytes, `writable` has ones
    /// for the bits of it that the guest may write (shorter is read-only). Returns its offset.
    pub fn capability(&mut self, _id: u8, _body: &[u8], _writable: &[u8]) -> u16 {
        todo!()
    }
    /// Adds an MSI capability with one vector, 64-bit and maskable.
    pub fn msi(self) -> Self {
        todo!()
    }
    /// Adds an MSI-X capability.
    pub fn msix(self, _layout: MsixLayout) -> Self {
        todo!()
    }
    /// Adds a power management capability: D0 and D3hot, state kept.
    pub fn power_management(self) -> Self {
        todo!()
    }
    /// Adds a PCI Express capability: a root complex integrated endpoint with function level reset.
    pub fn express(self) -> Self {
        todo!()
    }
    /// The finished configuration space.
    pub fn build(self, _msi: Arc<dyn MsiSink>, _intx: Arc<dyn IntxLine>) -> ConfigSpace {
        todo!()
    }
}

/// What a configuration write asked of the device, beyond what [`ConfigSpace`] does itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Written {
    /// Bus mastering was turned on: wake the workers.
    pub bus_master_on: bool,
    /// A function level reset was asked for: do [`PciDevice::reset`](crate::PciDevice::reset).
    pub function_reset: bool,
}

/// A function's configuration space, with its interrupts.
pub struct ConfigSpace {}

impl ConfigSpace {
    /// Reads; beyond the end reads zeroes (for a function without extended capabilities).
    pub fn read(&self, _offset: u16, _data: &mut [u8]) {
        todo!()
    }
    /// Writes.
    pub fn write(&mut self, _offset: u16, _data: &[u8]) -> Written {
        todo!()
    }
    /// Where the BARs are.
    pub fn bars(&self) -> [Option<BarState>; 7] {
        todo!()
    }
    /// The BARs as they were built.
    pub fn bar_specs(&self) -> [Option<BarSpec>; 7] {
        todo!()
    }
    /// The bus-master gate, for the function's [`paraslot_device::Dma`].
    pub fn bus_master(&self) -> BusMaster {
        todo!()
    }
    /// The interrupts, to be shared with workers.
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        todo!()
    }
    /// Answers a BAR read if it lies in the MSI-X structures; says whether it did.
    pub fn msix_read(&self, _bar: u8, _offset: u64, _data: &mut [u8]) -> bool {
        todo!()
    }
    /// Takes a BAR write if it lies in the MSI-X structures; says whether it did.
    pub fn msix_write(&mut self, _bar: u8, _offset: u64, _data: &[u8]) -> bool {
        todo!()
    }
    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        todo!()
    }
}
