//! The differentiated system description table (5.2.11.1): the board's devices.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal,
    Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local,
    Memory32Fixed, Method, Name, NotEqual, Notify, ONE, OpRegion, OpRegionSpace, Or, Package,
    PackageBuilder, Path, ResourceTemplate, Return, Scope, Store, Uuid, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};
use paraslot_spec::pci::mechanism1;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform};
use crate::{boot, chipset, interrupts};

/// BARs of 32 bits: from where memory ends at the latest to configuration space.
pub(super) const PCI32: (u32, u32) = (0xc000_0000, 0xdfff_ffff);
/// Devices of a bus.
const DEVICES: u8 = 32;
/// Interrupt pins of a device.
const PINS: u8 = 4;

/// The table, header included.
pub(super) fn table(platform: &Platform) -> Vec<u8> {
    const HEADER: u32 = 36;
    // From 2 on, integers have 64 bits.
    const REVISION: u8 = 2;

    let mut aml = Vec::new();
    processors(platform.cpus, &mut aml);
    host_bridge(platform, &mut aml);
    motherboard(&mut aml);
    serial_port(&mut aml);
    power(&mut aml);

    let mut table = Sdt::new(*b"DSDT", HEADER, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&aml);
    table.as_slice().to_vec()
}

/// Adds a device to the system bus.
fn device(aml: &mut Vec<u8>, name: &str, children: Vec<&dyn Aml>) {
    let device = Device::new(name.into(), children);
    Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(aml);
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(path.into(), value)
}

fn id(name_: &str) -> Name {
    name("_HID", &EISAName::new(name_))
}

/// Processor devices (8.4), which match the local APICs by their UID.
fn processors(cpus: u8, aml: &mut Vec<u8>) {
    for cpu in 0..cpus {
        let path = format!("C{cpu:03X}");
        device(aml, &path, vec![&name("_HID", &"ACPI0007"), &name("_UID", &cpu)]);
    }
}

/// The root bus.
fn host_bridge(platform: &Platform, aml: &mut Vec<u8>) {
    let buses = AddressSpace::new_bus_number(0u16, 255);
    let ports = |first: u16, last: u16| AddressSpace::new_io(first, last, None);
    let config = IO::new(mechanism1::ADDRESS, mechanism1::ADDRESS, 1, 8);
    let low = ports(0, mechanism1::ADDRESS - 1);
    let high = ports(mechanism1::ADDRESS + 8, u16::MAX);
    let uncached = AddressSpaceCacheable::NotCacheable;
    let window32 = AddressSpace::new_memory(uncached, true, PCI32.0, PCI32.1, None);
    let (first, last) = platform.pci64;
    let window64 = AddressSpace::new_memory(uncached, true, first, last, None);
    let mut resources: Vec<&dyn Aml> = vec![&buses, &config, &low, &high, &window32];
    if first <= last {
        resources.push(&window64);
    }

    device(
        aml,
        "PCI0",
        vec![
            &id("PNP0A08"),
            &name("_CID", &EISAName::new("PNP0A03")),
            &name("_UID", &ZERO),
            &name("_SEG", &ZERO),
            &name("_BBN", &ZERO),
            &name("_CRS", &ResourceTemplate::new(resources)),
            &name("_PRT", &routing()),
            &Osc,
        ],
    );
}

/// The global interrupt of a device's pin: INTA# is 0.
pub(super) fn intx_gsi(device: u8, pin: u8) -> u8 {
    interrupts::FIRST_INTX_PIN + (device % interrupts::INTX_PINS + pin) % interrupts::INTX_PINS
}

/// The interrupt routing table (6.2.13), without links: what a pin leads to is soldered.
///
/// A guest takes such an interrupt for level-triggered and active low, as PCI's pins are. KVM's I/O
/// APIC does not look at the polarity: a pin that is asserted is asserted.
fn routing() -> PackageBuilder {
    let mut routing = PackageBuilder::new();
    for device in 0..DEVICES {
        for pin in 0..PINS {
            // Any function of the device.
            let address = u32::from(device) << 16 | 0xffff;
            let gsi = intx_gsi(device, pin);
            routing.add_element(&Package::new(vec![&address, &pin, &ZERO, &gsi]));
        }
    }
    routing
}

/// The host bridge's capabilities (6.2.11; PCI Firmware Specification 3.3, 4.5).
///
/// The guest may control whatever it asks for, as far as this knows what that is: there is no firmware
/// that would do so behind its back.
struct Osc;

impl Aml for Osc {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        /// Native hot plug of either kind, power management events, error reporting, the PCI Express
        /// capability, latency tolerance reporting.
        const CONTROLS: u8 = 0x3f;
        const UNKNOWN_UUID: u8 = 1 << 2;
        const UNKNOWN_REVISION: u8 = 1 << 3;
        const MASKED: u8 = 1 << 4;

        let (revision, buffer) = (Arg(1), Arg(3));
        let (status, control) = (Path::new("CDW1"), Path::new("CDW3"));
        let uuid = Uuid::new("33DB4D5B-1FF7-401C-9657-7441C03DD766");
        Method::new(
            "_OSC".into(),
            4,
            true,
            vec![
                &CreateDWordField::new(&status, &buffer, &ZERO),
                &If::new(
                    &Equal::new(&Arg(0), &uuid),
                    vec![
                        &CreateDWordField::new(&control, &buffer, &8u8),
                        &If::new(
                            &NotEqual::new(&revision, &ONE),
                            vec![&Or::new(&status, &status, &UNKNOWN_REVISION)],
                        ),
                        &If::new(
                            &NotEqual::new(&And::new(&ZERO, &control, &CONTROLS), &control),
                            vec![&Or::new(&status, &status, &MASKED)],
                        ),
                        &And::new(&control, &control, &CONTROLS),
                    ],
                ),
                &Else::new(vec![&Or::new(&status, &status, &UNKNOWN_UUID)]),
                &Return::new(&buffer),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// Ports by their base and how many there are.
fn ports((base, len): (u16, u16)) -> IO {
    IO::new(base, base, 1, u8::try_from(len).unwrap_or(u8::MAX))
}

/// What no other device must be given: configuration space and the power registers.
fn motherboard(aml: &mut Vec<u8>) {
    // Both fit, being constants below 4 GiB.
    let ecam = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let ecam = Memory32Fixed::new(true, ecam(boot::ECAM), ecam(boot::ECAM_LEN));
    let power = ports(chipset::POWER);
    let events = ports(chipset::EVENTS);
    device(
        aml,
        "MBRD",
        vec![
            &id("PNP0C02"),
            &name("_UID", &ZERO),
            &name("_CRS", &ResourceTemplate::new(vec![&ecam, &power, &events])),
        ],
    );
}

fn serial_port(aml: &mut Vec<u8>) {
    let ports = ports(chipset::COM1);
    let interrupt = Interrupt::new(true, true, false, false, chipset::COM1_GSI);
    device(
        aml,
        "COM1",
        vec![
            &id("PNP0501"),
            &name("_UID", &ZERO),
            &name("_DDN", &"COM1"),
            &name("_CRS", &ResourceTemplate::new(vec![&ports, &interrupt])),
        ],
    );
}

/// Soft off (7.4.2.6), the power button (4.8.3.3.1.1), and the generic event device that tells of it
/// (5.6.9).
fn power(aml: &mut Vec<u8>) {
    /// What a button says when it is pushed (5.6.6).
    const PUSHED: u8 = 0x80;

    let soft_off = Package::new(vec![&chipset::SLEEP_TYPE_OFF, &ZERO, &ZERO, &ZERO]);
    name("\\_S5_", &soft_off).to_aml_bytes(aml);
    device(aml, "PWRB", vec![&id("PNP0C0C"), &name("_UID", &ZERO)]);

    let interrupt = Interrupt::new(true, true, false, false, chipset::EVENTS_GSI);
    let (events, len) = chipset::EVENTS;
    let button = Path::new("PWRB");
    let seen = Path::new("EVNT");
    let pushed = And::new(&ZERO, &Local(0), &chipset::POWER_BUTTON);
    device(
        aml,
        "GED_",
        vec![
            &name("_HID", &"ACPI0013"),
            &name("_UID", &ZERO),
            &name("_CRS", &ResourceTemplate::new(vec![&interrupt])),
            &OpRegion::new("EREG".into(), OpRegionSpace::SystemIO, &events, &len),
            &Field::new(
                "EREG".into(),
                FieldAccessType::Byte,
                FieldLockRule::NoLock,
                FieldUpdateRule::WriteAsZeroes,
                vec![FieldEntry::Named(*b"EVNT", 8)],
            ),
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![
                    // Reading clears: all that has happened is in this.
                    &Store::new(&Local(0), &seen),
                    &If::new(&pushed, vec![&Notify::new(&button, &PUSHED)]),
                ],
            ),
        ],
    );
}
