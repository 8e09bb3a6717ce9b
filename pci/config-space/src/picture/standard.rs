//! Conventional capabilities.

use std::ops::Range;

use paraslot_spec::pci::{VENDOR_RED_HAT_QUMRANET, capability, express, header, msi, msix, pm};
use paraslot_spec::virtio::pci::{NOTIFY_OFF_MULTIPLIER, cfg_type};

use super::{Capability, byte, dword, word};

/// PCI device IDs that virtio has (VIRTIO 1.4, 4.1.2.1).
const VIRTIO_DEVICES: Range<u16> = 0x1000..0x1080;

/// Names of the IDs (PCI Code and ID Assignment Specification 1.11, section 2).
const NAMES: [&str; 0x16] = [
    "Null",
    "Power Management",
    "AGP",
    "Vital Product Data",
    "Slot Identification",
    "MSI",
    "CompactPCI Hot Swap",
    "PCI-X",
    "HyperTransport",
    "Vendor Specific",
    "Debug Port",
    "CompactPCI Central Resource Control",
    "PCI Hot-Plug",
    "Subsystem of a bridge",
    "AGP 8x",
    "Secure Device",
    "PCI Express",
    "MSI-X",
    "SATA Index-Data",
    "Advanced Features",
    "Enhanced Allocation",
    "Flattening Portal Bridge",
];

/// Reads the one at `at`.
pub(super) fn read(config: &[u8], at: u16) -> Capability {
    let bytes = config.get(usize::from(at)..).unwrap_or_default();
    let id = byte(bytes, 0);
    let facts = match id {
        capability::POWER_MANAGEMENT => power(bytes),
        capability::MSI => message(bytes),
        capability::MSI_X => message_x(bytes),
        capability::PCI_EXPRESS => express(bytes),
        capability::VENDOR if is_virtio(config) => virtio(bytes),
        capability::VENDOR => vec![format!("{} bytes", byte(bytes, 2))],
        capability::SATA => sata(bytes),
        ADVANCED_FEATURES => advanced(bytes),
        _ => Vec::new(),
    };
    let name = NAMES.get(usize::from(id)).copied().unwrap_or_default();
    Capability { offset: at, id: id.into(), name, facts }
}

fn is_virtio(config: &[u8]) -> bool {
    word(config, header::VENDOR_ID) == VENDOR_RED_HAT_QUMRANET
        && VIRTIO_DEVICES.contains(&word(config, header::DEVICE_ID))
}

/// PCI Bus Power Management Interface 1.2, 3.2.3.
fn power(bytes: &[u8]) -> Vec<String> {
    let capabilities = word(bytes, pm::CAPABILITIES);
    let control = word(bytes, pm::CONTROL);
    let mut facts = vec![format!("version {}", capabilities & 7)];
    let states = [(1 << 9, "D1"), (1 << 10, "D2")];
    let also = states.iter().filter(|(bit, _)| capabilities & bit != 0).map(|(_, name)| *name);
    let states: Vec<&str> = ["D0"].into_iter().chain(also).chain(["D3hot"]).collect();
    facts.push(states.join(", "));
    let now = ["D0", "D1", "D2", "D3hot"].get(usize::from(control & pm::STATE));
    facts.push(format!("now {}", now.copied().unwrap_or_default()));
    if control & pm::NO_SOFT_RESET != 0 {
        facts.push("keeps its state in D3hot".into());
    }
    facts
}

fn enabled(is: bool) -> String {
    if is { "enabled" } else { "disabled" }.into()
}

/// PCI Local Bus 3.0, 6.8.1.
fn message(bytes: &[u8]) -> Vec<String> {
    let control = word(bytes, msi::CONTROL);
    let mut facts = vec![vectors(1 << ((control >> 1) & 7))];
    facts.push(if control & msi::ADDRESS_64 != 0 { "64-bit" } else { "32-bit" }.into());
    if control & msi::MASKABLE != 0 {
        facts.push("maskable".into());
    }
    facts.push(enabled(control & msi::ENABLE != 0));
    facts
}

/// 6.8.2.
fn message_x(bytes: &[u8]) -> Vec<String> {
    let control = word(bytes, msix::CONTROL);
    let mut facts = vec![
        vectors((control & msix::TABLE_SIZE) + 1),
        format!("table in {}", place(dword(bytes, msix::TABLE))),
        format!("pending bits in {}", place(dword(bytes, msix::PBA))),
        enabled(control & msix::ENABLE != 0),
    ];
    if control & msix::FUNCTION_MASK != 0 {
        facts.push("masked".into());
    }
    facts
}

fn vectors(count: u16) -> String {
    format!("{count} vector{}", if count == 1 { "" } else { "s" })
}

fn place(value: u32) -> String {
    format!("BAR {} at {:#x}", value & 7, value & !7)
}

/// Types of functions, by the field of the capabilities register (PCI Express Base 5.0, 7.5.3.2).
const EXPRESS_TYPES: [&str; 11] = [
    "endpoint",
    "legacy endpoint",
    "type 2",
    "type 3",
    "root port",
    "upstream port",
    "downstream port",
    "bridge to PCI",
    "bridge from PCI",
    "integrated endpoint",
    "event collector",
];
/// Those without a link of their own.
const LINKLESS: [u16; 2] = [9, 10];

/// 7.5.3.
fn express(bytes: &[u8]) -> Vec<String> {
    let capabilities = word(bytes, express::CAPABILITIES);
    let kind = (capabilities >> 4) & 0xf;
    let name = EXPRESS_TYPES.get(usize::from(kind)).copied().unwrap_or("of an unknown type");
    let device = dword(bytes, express::DEVICE_CAPABILITIES);
    let mut facts = vec![format!("version {}", capabilities & 0xf), name.to_owned()];
    facts.push(format!("payloads of up to {} bytes", 128u32 << (device & 7)));
    if device & express::FUNCTION_LEVEL_RESET != 0 {
        facts.push("function level reset".into());
    }
    if !LINKLESS.contains(&kind) {
        let link = |value: u16| format!("{} lanes of {}", (value >> 4) & 0x3f, speed(value & 0xf));
        let [low, high, ..] = dword(bytes, express::LINK_CAPABILITIES).to_le_bytes();
        facts.push(format!("link of up to {}", link(u16::from_le_bytes([low, high]))));
        facts.push(format!("now {}", link(word(bytes, express::LINK_STATUS))));
    }
    facts
}

fn speed(code: u16) -> &'static str {
    match code {
        1 => "2.5 GT/s",
        2 => "5 GT/s",
        3 => "8 GT/s",
        4 => "16 GT/s",
        5 => "32 GT/s",
        6 => "64 GT/s",
        _ => "unknown speed",
    }
}

/// VIRTIO 1.4, 4.1.4.
fn virtio(bytes: &[u8]) -> Vec<String> {
    let name = match byte(bytes, 3) {
        cfg_type::COMMON => "virtio: common configuration",
        cfg_type::NOTIFY => "virtio: notifications",
        cfg_type::ISR => "virtio: ISR status",
        cfg_type::DEVICE => "virtio: device configuration",
        cfg_type::PCI => return vec!["virtio: access by configuration space".into()],
        cfg_type::SHARED_MEMORY => "virtio: shared memory",
        cfg_type::VENDOR => return vec!["virtio: vendor's data".into()],
        _ => return vec!["virtio: of an unknown type".into()],
    };
    let (offset, len) = (dword(bytes, 8), dword(bytes, 12));
    let place = format!("{len} bytes in BAR {} at {offset:#x}", byte(bytes, 4));
    let mut facts = vec![name.to_owned(), place];
    if byte(bytes, 3) == cfg_type::NOTIFY {
        facts.push(format!("doorbells {} bytes apart", dword(bytes, NOTIFY_OFF_MULTIPLIER)));
    }
    facts
}

/// Serial ATA AHCI 1.3.1, 2.5.
fn sata(bytes: &[u8]) -> Vec<String> {
    let (revision, places) = (byte(bytes, 2), dword(bytes, 4));
    let version = format!("version {}.{}", revision >> 4, revision & 0xf);
    let at = (places >> 4 & 0xf_ffff) * 4;
    let place = match places & 0xf {
        0xf => "in configuration space".into(),
        code @ 4..=9 => format!("in BAR {} at {at:#x}", code - 4),
        _ => "in no known place".into(),
    };
    vec![version, place]
}

/// ID of Conventional PCI Advanced Features.
const ADVANCED_FEATURES: u8 = 0x13;

/// Engineering change notice "Advanced Capabilities for Conventional PCI".
fn advanced(bytes: &[u8]) -> Vec<String> {
    let names = [(1 << 1, "function level reset"), (1 << 0, "transactions pending is told")];
    let has = names.iter().filter(|(bit, _)| byte(bytes, 3) & bit != 0);
    has.map(|(_, name)| (*name).to_owned()).collect()
}
