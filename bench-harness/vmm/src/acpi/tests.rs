use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::dsdt::{PCI32, intx_gsi};
use super::{IO_APIC, LOCAL_APIC, Platform, RSDP, TABLES, write};
use crate::{boot, chipset};

const PLATFORM: Platform = Platform { cpus: 3, pci64: (1 << 40, (1 << 41) - 1) };

fn written(platform: &Platform) -> GuestMemoryMmap {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
    write(&memory, platform).unwrap();
    memory
}

fn bytes(memory: &GuestMemoryMmap, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The table at `at`, its length, place and checksum being valid.
fn table(memory: &GuestMemoryMmap, at: u64) -> Vec<u8> {
    assert!(at >= TABLES.0 && at.is_multiple_of(16));
    let len = u32_at(&bytes(memory, at, 8), 4);
    assert!(len >= 36 && at + u64::from(len) <= TABLES.1);
    let table = bytes(memory, at, len as usize);
    assert_eq!(sum(&table), 0);
    table
}

/// All tables by their signatures, and the extents of all.
fn tables(memory: &GuestMemoryMmap) -> Vec<(String, Vec<u8>, u64)> {
    let rsdp = bytes(memory, RSDP, 36);
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
    assert_eq!((rsdp[15], u32_at(&rsdp, 20)), (2, 36));
    let xsdt_at = u64_at(&rsdp, 24);
    let xsdt = table(memory, xsdt_at);
    assert_eq!(&xsdt[..4], b"XSDT");
    let mut places: Vec<u64> = xsdt[36..].chunks(8).map(|entry| u64_at(entry, 0)).collect();
    let fadt = table(memory, places[0]);
    assert_eq!(&fadt[..4], b"FACP");
    places.extend([u64_at(&fadt, 140), xsdt_at]);
    places
        .into_iter()
        .map(|at| {
            let table = table(memory, at);
            (String::from_utf8(table[..4].to_vec()).unwrap(), table, at)
        })
        .collect()
}

fn named(memory: &GuestMemoryMmap, name: &str) -> Vec<u8> {
    let mut all = tables(memory).into_iter().filter(|(signature, ..)| signature == name);
    let (_, table, _) = all.next().unwrap();
    assert!(all.next().is_none());
    table
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[test]
fn tables_are_whole_and_apart() {
    for cpus in [1, 2, 64, u8::MAX] {
        let memory = written(&Platform { cpus, ..PLATFORM });
        let mut all = tables(&memory);
        let names: Vec<_> = all.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["FACP", "APIC", "MCFG", "DSDT", "XSDT"]);
        all.sort_by_key(|(.., at)| *at);
        let mut end = RSDP + 36;
        for (_, table, at) in all {
            assert!(at >= end);
            end = at + table.len() as u64;
        }
    }
}

#[test]
fn the_madt_has_each_processor_and_the_io_apic() {
    let madt = named(&written(&PLATFORM), "APIC");
    assert_eq!((u32_at(&madt, 36), u32_at(&madt, 40)), (LOCAL_APIC, 0));
    let mut rest = &madt[44..];
    for cpu in 0..3 {
        assert_eq!(rest[..8], [0, 8, cpu, cpu, 1, 0, 0, 0]);
        rest = &rest[8..];
    }
    assert_eq!(rest.len(), 12);
    assert_eq!(rest[..4], [1, 12, 0, 0]);
    assert_eq!((u32_at(rest, 4), u32_at(rest, 8)), (IO_APIC, 0));
}

#[test]
fn the_mcfg_has_all_buses() {
    let mcfg = named(&written(&PLATFORM), "MCFG");
    assert_eq!(mcfg.len(), 60);
    assert_eq!(u64_at(&mcfg, 44), boot::ECAM);
    assert_eq!(mcfg[52..56], [0, 0, 0, 0xff]);
    assert_eq!(boot::ECAM_LEN, 256 << 20);
}

#[test]
fn the_fadt_names_the_registers() {
    let fadt = named(&written(&PLATFORM), "FACP");
    assert_eq!(fadt.len(), 276);
    const HARDWARE_REDUCED: u32 = 1 << 20;
    const RESET_REGISTER: u32 = 1 << 10;
    const BUTTONS: u32 = 3 << 4;
    assert_eq!(u32_at(&fadt, 112), HARDWARE_REDUCED | RESET_REGISTER | BUTTONS | 1);
    // No VGA, no CMOS clock; no 8042 and no other legacy devices.
    assert_eq!(fadt[109..111], [0x24, 0]);
    assert_eq!(fadt[116..128], [1, 8, 0, 1, 0x02, 0x06, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fadt[128], 1);
    assert_eq!(fadt[244..256], [1, 8, 0, 1, 0x00, 0x06, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fadt[256..268], [1, 8, 0, 1, 0x01, 0x06, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn pins_take_turns() {
    assert_eq!(intx_gsi(0, 0), 20);
    assert_eq!(intx_gsi(1, 0), 21);
    assert_eq!(intx_gsi(3, 1), 20);
    assert_eq!(intx_gsi(31, 3), 22);
}

#[test]
fn the_dsdt_routes_every_pin() {
    let dsdt = named(&written(&PLATFORM), "DSDT");
    assert_eq!(dsdt[8], 2);
    let start = find(&dsdt, b"_PRT").unwrap();
    for device in 0..32 {
        for pin in 0..4 {
            // DWordPrefix, the address; the pin (Zero, One or a byte); Zero; the number, a byte.
            let mut entry = vec![0x0c, 0xff, 0xff, device, 0];
            match pin {
                0 | 1 => entry.push(pin),
                _ => entry.extend([0x0a, pin]),
            }
            entry.extend([0, 0x0a, 20 + (device + pin) % 4]);
            // The address of device 0 has a shorter form.
            if device == 0 {
                entry.splice(..5, [0x0b, 0xff, 0xff]);
            }
            assert!(find(&dsdt[start..], &entry).is_some(), "{device} {pin}");
        }
    }
}

#[test]
fn the_dsdt_has_the_windows() {
    let dsdt = named(&written(&PLATFORM), "DSDT");
    // Descriptor, length, memory, fixed, read-write and not cacheable.
    let low = find(&dsdt, &[0x87, 23, 0, 0, 0x0c, 1]).unwrap();
    assert_eq!((u32_at(&dsdt, low + 10), u32_at(&dsdt, low + 14)), PCI32);
    assert_eq!(u32_at(&dsdt, low + 22), 0x2000_0000);
    let high = find(&dsdt, &[0x8a, 43, 0, 0, 0x0c, 1]).unwrap();
    assert_eq!((u64_at(&dsdt, high + 14), u64_at(&dsdt, high + 22)), PLATFORM.pci64);
    assert_eq!(u64_at(&dsdt, high + 38), 1 << 40);
    // Both windows for ports, around configuration space's.
    assert!(find(&dsdt, &[0, 0, 0xf7, 0x0c, 0, 0, 0xf8, 0x0c]).is_some());
    assert!(find(&dsdt, &[0x00, 0x0d, 0xff, 0xff, 0, 0, 0x00, 0xf3]).is_some());

    let none = named(&written(&Platform { pci64: (1, 0), ..PLATFORM }), "DSDT");
    assert!(find(&none, &[0x8a, 43, 0, 0, 0x0c, 1]).is_none());
}

#[test]
fn the_dsdt_has_the_machines_devices() {
    let dsdt = named(&written(&PLATFORM), "DSDT");
    for name in [&b"PCI0"[..], b"COM1", b"PWRB", b"GED_", b"C000", b"C001", b"C002", b"_OSC"] {
        assert!(find(&dsdt, name).is_some());
    }
    assert!(find(&dsdt, b"C003").is_none());
    // S5: sleep type 5.
    assert!(find(&dsdt, b"_S5_\x12\x07\x04\x0a\x05\0\0\0").is_some());
}

/// Linux resets a machine with hardware-reduced ACPI by entering its BIOS.
#[test]
fn the_bios_resets_the_machine() {
    let memory = written(&PLATFORM);
    let code = bytes(&memory, 0xf_fff0, 16);
    // mov dx, 0x602; mov al, 1; out dx, al; hlt; jmp -3
    assert_eq!(code[..9], [0xba, 0x02, 0x06, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd]);
    assert_eq!((chipset::RESET, chipset::RESET_VALUE), (0x602, 1));
}

#[test]
fn no_memory_no_tables() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0xe_0000)]).unwrap();
    assert!(write(&memory, &PLATFORM).is_err());
}

/// For a look at the tables with `iasl -d`: `PARASLOT_ACPI_DIR` says where to put them.
#[test]
#[ignore = "writes files for people to look at"]
fn dump() {
    let directory = std::env::var("PARASLOT_ACPI_DIR").expect("PARASLOT_ACPI_DIR");
    for (name, table, _) in tables(&written(&PLATFORM)) {
        std::fs::write(format!("{directory}/{}.dat", name.to_lowercase()), table).unwrap();
    }
}
