//! A tree such as /sys, and what is made of it.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// Configuration space of a function with a capability list of two.
fn config(vendor: u16, device: u16, subsystem_vendor: u16, class: u8) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    bytes[0..2].copy_from_slice(&vendor.to_le_bytes());
    bytes[2..4].copy_from_slice(&device.to_le_bytes());
    bytes[6] = 0x10;
    bytes[11] = class;
    bytes[0x2c..0x2e].copy_from_slice(&subsystem_vendor.to_le_bytes());
    bytes[0x34] = 0x40;
    bytes[0x3d] = 1;
    bytes[0x40..0x48].copy_from_slice(&[0x11, 0x50, 0x04, 0x80, 0x02, 0, 0, 0]);
    bytes[0x50..0x54].copy_from_slice(&[0x01, 0x00, 0x03, 0x00]);
    bytes
}

const RESOURCE: &str = "0x0000000000000000 0x0000000000000000 0x0000000000000000
0x00000000fe000000 0x00000000fe000fff 0x0000000000040200
0x0000000800000000 0x000000080000ffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000000000c000 0x000000000000c03f 0x0000000000040101
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x00000000fe100000 0x00000000fe13ffff 0x0000000000046200
0x00000000fd000000 0x00000000fdffffff 0x0000000000000200
";

fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let pci = root.path().join("bus/pci");
    fs::create_dir_all(pci.join("drivers/vfio-pci")).unwrap();
    fs::create_dir_all(pci.join("drivers/nvme")).unwrap();
    let groups = root.path().join("kernel/iommu_groups");
    let functions = [
        ("0000:00:00.0", config(0x8086, 0x29c0, 0x1af4, 0x06), "0x060000"),
        ("0000:00:01.0", config(0x1af4, 0x1042, 0x1af4, 0x01), "0x018000"),
        ("0000:00:02.0", config(0x1af4, 0x1000, 0x1af4, 0x02), "0x020000"),
        ("0000:00:03.0", config(0x8086, 0x100e, 0x1af4, 0x02), "0x020000"),
        ("0000:00:04.0", config(0x15ad, 0x07b0, 0x15ad, 0x02), "0x020000"),
        ("0000:00:05.0", config(0x144d, 0xa808, 0x144d, 0x01), "0x010802"),
    ];
    for (group, (address, config, class)) in functions.into_iter().enumerate() {
        let function = pci.join("devices").join(address);
        fs::create_dir_all(&function).unwrap();
        let id = |at: usize| format!("0x{:02x}{:02x}\n", config[at + 1], config[at]);
        fs::write(function.join("vendor"), id(0)).unwrap();
        fs::write(function.join("device"), id(2)).unwrap();
        fs::write(function.join("class"), format!("{class}\n")).unwrap();
        fs::write(function.join("reset_method"), "flr bus\n").unwrap();
        fs::write(function.join("resource"), RESOURCE).unwrap();
        fs::write(function.join("config"), config).unwrap();
        if address.ends_with("5.0") {
            symlink(pci.join("drivers/nvme"), function.join("driver")).unwrap();
        }
        let group = groups.join(group.to_string());
        fs::create_dir_all(group.join("devices").join(address)).unwrap();
        symlink(&group, function.join("iommu_group")).unwrap();
    }
    root
}

fn inspected(is_virtual: Option<bool>) -> Vec<Inspected> {
    let tree = tree();
    let functions = paraslot_vfio::survey_in(tree.path()).unwrap();
    look(tree.path(), &functions, is_virtual)
}

#[test]
fn what_is_paravirtual_emulated_and_real_is_told_apart() {
    let words = |is_virtual| -> Vec<&str> {
        inspected(is_virtual).iter().map(|function| function.nature.word()).collect()
    };
    let expected =
        |last| ["bridge", "paravirtual", "paravirtual", "emulated", "paravirtual", last].to_vec();
    assert_eq!(words(Some(false)), expected("real"));
    assert_eq!(words(Some(true)), expected("emulated or real"));
    assert_eq!(words(None), expected("emulated or real"));
    let all = inspected(Some(true));
    assert_eq!(all[1].nature, Nature::Virtio(false));
    assert_eq!(all[2].nature, Nature::Virtio(true));
    let names: Vec<_> = all.iter().map(|function| function.catalogue).collect();
    assert_eq!(names, [None, Some("virtio-blk"), None, Some("e1000"), Some("vmxnet3"), None]);
}

#[test]
fn bars_are_read_from_their_lines() {
    let bar = |bar, kind, address, size| Resource { bar, kind, address, size };
    assert_eq!(
        resources(RESOURCE),
        [
            bar(1, "memory, 32-bit", 0xfe00_0000, 0x1000),
            bar(2, "memory, 64-bit, prefetchable", 0x8_0000_0000, 0x1_0000),
            bar(4, "I/O ports", 0xc000, 0x40),
            bar(6, "expansion ROM", 0xfe10_0000, 0x4_0000),
        ]
    );
    assert_eq!(resources("0x1 0x0 0x200\nnonsense\n0x0 0xffffffffffffffff 0x200\n\n0x0"), []);
}

#[test]
fn a_function_is_shown_with_everything() {
    let all = inspected(Some(false));
    let text = detail(&all[5]);
    for line in [
        "0000:00:05.0  144d:a808 Samsung Electronics Co Ltd NVMe SSD Controller SM981/PM981/PM983",
        "IOMMU group  5, alone",
        "4 bytes",
        "To a guest, by VFIO: yes, with --device vfio,host=0000:00:05.0",
    ] {
        let line = if line == "4 bytes" { "5 vectors; table in BAR 2 at 0x0" } else { line };
        assert!(text.contains(line), "{line}:\n{text}");
    }
    let bridge = detail(&all[0]);
    assert!(bridge.contains("To a guest, by VFIO: no.\n  It is the host's own bridge"), "{bridge}");
    assert!(detail(&all[4]).contains("paraslot catalogue vmxnet3"));
    let table = overview(&all);
    assert_eq!(table.lines().filter(|line| line.trim_start().starts_with("0000:")).count(), 6);
    assert!(table.lines().all(|line| line.chars().count() <= 110), "{table}");
    let value: serde_json::Value = serde_json::from_str(&json(&all).unwrap()).unwrap();
    assert_eq!(value[1]["picture"]["capabilities"][0]["name"], "MSI-X");
}

/// Without root Linux shows the header alone.
#[test]
fn capabilities_that_are_not_to_be_seen_are_not_said_to_be_missing() {
    let mut function = inspected(Some(true)).swap_remove(1);
    function.picture = Picture::of(&config(0x1af4, 0x1042, 0x1af4, 1)[..64]);
    assert!(detail(&function).contains("only root sees them"));
}
