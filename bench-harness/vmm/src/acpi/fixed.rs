//! The tables of fixed form.

use acpi_tables::Aml;
use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;
use vm_memory::GuestAddress;

use super::{IO_APIC, LOCAL_APIC, OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::boot;
use crate::chipset;

/// IA-PC boot architecture flags (table 5.11): no VGA.
const NO_VGA: u16 = 1 << 2;
/// No real-time clock.
const NO_CMOS_RTC: u16 = 1 << 5;

/// The fixed ACPI description table (5.2.9). Buttons and sleep states that are not "fixed hardware" are
/// said by a set bit.
pub(super) fn fadt(dsdt: GuestAddress) -> FADT {
    let register =
        |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt.0)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::HwReducedAcpi);
    // There being no 8042 either, its flag stays clear; so does the one that forbids MSI.
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    fadt.reset_reg = register(chipset::RESET);
    fadt.reset_value = chipset::RESET_VALUE;
    fadt.sleep_control_reg = register(chipset::SLEEP_CONTROL);
    fadt.sleep_status_reg = register(chipset::SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE_ID).into();
    fadt.finalize()
}

/// The multiple APIC description table (5.2.12): the vCPUs' local APICs and the I/O APIC. Its flag for
/// PC/AT interrupt controllers is clear, and no interrupt is overridden: pin n is interrupt n.
pub(super) fn madt(cpus: u8) -> Vec<u8> {
    const HEADER: u32 = 36;
    /// What came with ACPI 6.4.
    const REVISION: u8 = 5;
    // KVM's I/O APIC has this ID after reset.
    const IO_APIC_ID: u8 = 0;

    let mut body = Vec::new();
    body.extend(LOCAL_APIC.to_le_bytes());
    body.extend(0u32.to_le_bytes()); // flags
    for cpu in 0..cpus {
        ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled).to_aml_bytes(&mut body);
    }
    IoApic::new(IO_APIC_ID, IO_APIC, 0).to_aml_bytes(&mut body);

    let mut madt = Sdt::new(*b"APIC", HEADER, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    madt.append_slice(&body);
    madt.as_slice().to_vec()
}

/// The memory-mapped configuration space description table (PCI Firmware Specification 3.3, 4.1.2).
pub(super) fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(boot::ECAM, 0, 0, 255);
    mcfg
}
