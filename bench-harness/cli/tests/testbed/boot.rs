//! A Linux guest, and somebody who types.

use std::fs;

use tempfile::TempDir;

/// What the guest writes to a disk, as its script says.
fn written(first: &str) -> String {
    format!("{first} was here\n")
}

/// Debian's kernel finds the devices where they were asked for, uses them, and finds its data again after
/// a reboot; devices come, change and go by `paraslot control`; what is typed arrives; and powering off ends the program with status 0.
#[test]
fn a_guest_boots_and_reboots_and_powers_off() {
    let Some(testbed) = crate::testbed() else { return };
    let tools = testbed.guest_disk().expect("the guest's root disk");
    let share = TempDir::new().unwrap();
    let disks = ["first.img", "second.img", "third.img"].map(|name| share.path().join(name));
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
        ("1  virtio-blk  8388608 bytes, iops=off, bps=off, delayed 0 times", 1),
        ("3  e1000  link up, fps=off, bps=off, delayed 0 times", 1),
        ("5  virtio-blk  4194304 bytes, iops=1000, bps=off, delayed 0 times", 1),
        ("paraslot: addr=5 is taken", 1),
        ("plugged 8192", 1),
        ("3  e1000  link down, fps=off, bps=off, delayed 0 times", 1),
        ("changed", 1),
        ("5  virtio-blk", 1),
        ("paraslot: no device \"5\": there are 1, 2, 3, 1f", 1),
        ("unplugged", 1),
        ("paraslot: exit 0", 1),
        ("status 0", 1),
    ] {
        assert_eq!(count(wanted), times, "{wanted}: {output}");
    }
    assert!(!console.iter().any(|line| line.starts_with("paraslot: fail")), "{output}");
    for (disk, name) in disks.iter().zip(["vda", "sda", "third"]) {
        assert!(fs::read(disk).unwrap().starts_with(written(name).as_bytes()), "{name}");
    }
}
