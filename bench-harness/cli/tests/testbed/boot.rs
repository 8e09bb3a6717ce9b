//! A Linux guest, and somebody who types.

use std::fs;

use tempfile::TempDir;

/// What the guest writes to a disk, as its script says.
fn written(first: &str) -> String {
    format!("{first} was here\n")
}

/// Debian's kernel finds the devices where they were asked for, uses them, and finds its data again after
/// a reboot; what is typed arrives; and powering off ends the program with status 0.
#[test]
fn a_guest_boots_and_reboots_and_powers_off() {
    let Some(testbed) = crate::testbed() else { return };
    let tools = testbed.guest_disk().expect("the guest's root disk");
    let share = TempDir::new().unwrap();
    let disks = ["first.img", "second.img"].map(|name| share.path().join(name));
    let initrd = share.path().join("initrd");
    let script =
        testbed.guest_initrd(include_str!("scripts/guest.sh")).expect("an initial RAM disk");
    fs::write(&initrd, script).unwrap();

    let script = include_str!("scripts/boot.sh");
    let arguments = [testbed.bzimage(), &initrd, &tools];
    let output = crate::run(&testbed, &share, script, &arguments, &[], &[]);
    let console: Vec<&str> = output.lines().map(str::trim_end).collect();
    let count = |wanted: &str| console.iter().filter(|line| **line == wanted).count();
    for (wanted, times) in [
        ("00:01.0 1af4:1042 virtio-pci", 2),
        ("00:02.0 1af4:1048 virtio-pci", 2),
        ("00:03.0 8086:100e e1000", 2),
        ("00:1f.0 8086:2922 ahci", 2),
        ("found nothing", 1),
        ("found vda was here, sda was here", 1),
        ("typed one two", 2),
        ("paraslot: exit 0", 1),
        ("status 0", 1),
    ] {
        assert_eq!(count(wanted), times, "{wanted}: {output}");
    }
    assert!(!console.iter().any(|line| line.starts_with("paraslot: fail")), "{output}");
    for (disk, name) in disks.iter().zip(["vda", "sda"]) {
        assert!(fs::read(disk).unwrap().starts_with(written(name).as_bytes()), "{name}");
    }
}
