//! The tables that tell a guest what its machine has: hardware-reduced ACPI (ACPI 6.5).
//!
//! "Hardware-reduced" (4.1) leaves out what would have to be modelled for nobody's good: the PM timer,
//! general-purpose events, the system control interrupt, and the switch from legacy mode. There is no
//! PC/AT interrupt controller, interval timer, keyboard controller, real-time clock or VGA either.

mod dsdt;
mod fixed;
#[cfg(test)]
mod tests;

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{VmError, chipset};

/// Where the tables are, and where that ends: a PC's firmware is here, and a guest that is not told
/// looks here for them (5.2.5.1). The memory map has to say that it is taken.
pub(crate) const TABLES: (u64, u64) = (0xe_0000, 0x10_0000);
/// The root pointer.
pub(crate) const RSDP: u64 = TABLES.0;

/// Where a PC's firmware is entered in real mode.
///
/// Linux ends there when it resets a machine with hardware-reduced ACPI: it takes for granted that such
/// a machine has UEFI, asks that instead of the reset register, and if there is none, enters the BIOS.
const RESET_VECTOR: u64 = TABLES.1 - 16;

/// Memory-mapped registers of the interrupt controllers.
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;

/// Tables begin at multiples of this. The root pointer has to (5.2.5.1); the others are only tidy.
const ALIGNMENT: u64 = 16;

const OEM_ID: [u8; 6] = *b"PRSLOT";
const OEM_TABLE_ID: [u8; 8] = *b"PARASLOT";
const OEM_REVISION: u32 = 1;

/// What differs from one machine to the next.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    /// vCPUs. The local APIC ID of each is its number, and so is its ACPI UID.
    pub(crate) cpus: u8,
    /// The first and the last address for BARs of 64 bits, above all memory. There is no such window if
    /// the last comes before the first.
    pub(crate) pci64: (u64, u64),
}

/// Writes the tables to [`TABLES`], the root pointer first, and all the firmware there is to the end of
/// it: what resets the machine.
///
/// # Errors
/// When there is no memory there.
pub(crate) fn write(memory: &GuestMemoryMmap, platform: &Platform) -> Result<(), VmError> {
    let mut tables = Tables { memory, next: RSDP };
    // It is written last: it leads to the others.
    let root = tables.reserve(Rsdp::len())?;

    let dsdt = tables.add(&dsdt::table(platform))?;
    let listed = [
        tables.add(&bytes(&fixed::fadt(dsdt)))?,
        tables.add(&fixed::madt(platform.cpus))?,
        tables.add(&bytes(&fixed::mcfg()))?,
    ];
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    listed.iter().for_each(|table| xsdt.add_entry(table.0));
    let xsdt = tables.add(&bytes(&xsdt))?;

    tables.put(&bytes(&Rsdp::new(OEM_ID, xsdt.0)), root)?;
    tables.put(&firmware(), GuestAddress(RESET_VECTOR))
}

/// In real mode: writes the reset register, and waits for the end.
fn firmware() -> [u8; 9] {
    let [low, high] = chipset::RESET.to_le_bytes();
    // mov dx, RESET; mov al, RESET_VALUE; out dx, al; hlt; jmp to the hlt
    [0xba, low, high, 0xb0, chipset::RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd]
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Puts tables one after another.
struct Tables<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl Tables<'_> {
    fn reserve(&mut self, len: usize) -> Result<GuestAddress, VmError> {
        let start = self.next;
        let end = u64::try_from(len).ok().and_then(|len| start.checked_add(len));
        let end = end.filter(|end| *end <= RESET_VECTOR);
        self.next = end
            .and_then(|end| end.checked_next_multiple_of(ALIGNMENT))
            .ok_or(VmError::Missing("room for the ACPI tables"))?;
        Ok(GuestAddress(start))
    }

    fn add(&mut self, table: &[u8]) -> Result<GuestAddress, VmError> {
        let address = self.reserve(table.len())?;
        self.put(table, address)?;
        Ok(address)
    }

    fn put(&self, table: &[u8], address: GuestAddress) -> Result<(), VmError> {
        self.memory
            .write_slice(table, address)
            .map_err(|error| VmError::Image(format!("no place for the ACPI tables: {error}")))
    }
}
