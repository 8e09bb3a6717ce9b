use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::survey::tests::tree;

const ADDRESS: &str = "0000:02:00.0";
const OTHER: &str = "0000:03:00.0";

/// A host with two functions, `/proc` and `/dev` next to its `/sys`.
pub(crate) struct Machine {
    tree: TempDir,
    pub(crate) sysfs: Sysfs,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let function = |address| (address, "0x010802\n", Some("nvme"), Some(7), "flr\n");
        let tree = tree(&[function(ADDRESS), function(OTHER)], &["nvme", "vfio-pci"]);
        let mut sysfs = Sysfs::at(tree.path());
        sysfs.proc = Some(tree.path().join("proc"));
        sysfs.dev = Some(tree.path().join("dev"));
        Self { tree, sysfs }
    }

    /// Of a device's folder, below a function or elsewhere, and its link in its class.
    fn device(&self, class: &str, folder: &str) -> PathBuf {
        let real = self.tree.path().join("bus/pci/devices").join(folder);
        fs::create_dir_all(&real).unwrap();
        let class = self.tree.path().join("class").join(class);
        fs::create_dir_all(&class).unwrap();
        symlink(&real, class.join(real.file_name().unwrap())).unwrap();
        real
    }

    pub(crate) fn disk(&self, folder: &str, number: &str) -> PathBuf {
        let disk = self.device("block", folder);
        fs::write(disk.join("dev"), format!("{number}\n")).unwrap();
        disk
    }

    fn network(&self, folder: &str, is_hardware: bool) -> PathBuf {
        let interface = self.device("net", folder);
        if is_hardware {
            fs::create_dir(interface.join("device")).unwrap();
        }
        interface
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn uses(&self) -> Vec<String> {
        uses(&self.sysfs, ADDRESS.parse().unwrap())
    }
}

#[test]
fn a_function_without_anything_is_not_used() {
    let machine = Machine::new();
    assert_eq!(machine.uses(), [""; 0]);
    assert_eq!(uses(&machine.sysfs, "0000:00:00.0".parse().unwrap()), [""; 0]);
    // Nor is one whose disk and network are idle.
    machine.disk("0000:02:00.0/nvme/nvme0/nvme0n1", "259:0");
    machine.network("0000:02:00.0/net/eth0", true);
    machine.file("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n");
    machine.file("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n");
    machine.file("bus/pci/devices/0000:02:00.0/sriov_numvfs", "0\n");
    assert_eq!(machine.uses(), [""; 0]);
}

#[test]
fn a_share_is_used_while_it_is_mounted() {
    let machine = Machine::new();
    machine.file("bus/pci/devices/0000:02:00.0/virtio3/mount_tag", "root\0");
    machine.file(
        "proc/self/mountinfo",
        "22 1 0:20 / /a rw - 9p other rw\n23 1 8:1 / /b rw - ext4 root rw\n",
    );
    assert_eq!(machine.uses(), [""; 0]);
    machine.file("proc/self/mountinfo", "22 1 0:20 / /lower ro,relatime shared:1 - 9p root ro\n");
    assert_eq!(machine.uses(), ["its share root is mounted at /lower: unmount that"]);
}

#[test]
fn disks_are_used_by_file_systems_swap_and_others() {
    let machine = Machine::new();
    machine.disk("0000:02:00.0/nvme/nvme0/nvme0n1", "259:0");
    machine.disk("0000:02:00.0/nvme/nvme0/nvme0n1/nvme0n1p1", "259:1");
    machine.disk("0000:02:00.0/nvme/nvme0/nvme0n1/nvme0n1p2", "259:2");
    let third = machine.disk("0000:02:00.0/nvme/nvme0/nvme0n1/nvme0n1p3", "259:3");
    machine.disk("0000:02:00.0/nvme/nvme0/nvme0n1/nvme0n1p4", "259:4");
    machine.disk("0000:03:00.0/nvme/nvme1/nvme1n1", "259:8");
    machine.file(
        "proc/self/mountinfo",
        "22 1 259:1 / / rw shared:1 - ext4 /dev/root rw\n\
         23 22 0:30 /a /home rw - btrfs /dev/nvme0n1p4 rw,subvolid=5\n\
         24 22 259:8 / /other rw - ext4 /dev/nvme1n1 rw\n",
    );
    machine.file("proc/swaps", "Filename Type\n/dev/nvme0n1p2 partition 1 0 -2\n");
    fs::create_dir_all(third.join("holders/dm-0")).unwrap();
    machine.file("fs/btrfs/0-1/devices/nvme0n1p4", "");
    machine.file("fs/btrfs/0-1/devices/nvme0n1", "");
    let uses = machine.uses();
    assert_eq!(
        uses,
        [
            "its disk nvme0n1 is part of a file system that is mounted: unmount that",
            "its disk nvme0n1p1 is mounted at /: unmount that",
            "its disk nvme0n1p2 is swapped to: swapoff /dev/nvme0n1p2",
            "its disk nvme0n1p3 is part of dm-0: take that down",
            "its disk nvme0n1p4 is mounted at /home: unmount that",
        ]
    );
}

/// Of several controllers of a disk one can be done without.
#[test]
fn a_disk_of_a_subsystem_is_its_only_controllers() {
    let machine = Machine::new();
    let subsystem = machine.device("nvme-subsystem", "nvme-subsys0");
    machine.disk("nvme-subsys0/nvme0n1", "259:0");
    machine.file("proc/self/mountinfo", "22 1 259:0 / /data rw - ext4 /dev/nvme0n1 rw\n");
    let first = machine.device("nvme", "0000:02:00.0/nvme/nvme0");
    symlink(first, subsystem.join("nvme0")).unwrap();
    assert_eq!(machine.uses().len(), 1);
    let second = machine.device("nvme", "0000:03:00.0/nvme/nvme1");
    symlink(second, subsystem.join("nvme1")).unwrap();
    assert_eq!(machine.uses(), [""; 0]);
}

const ROUTES: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";

#[test]
fn the_only_way_out_is_used() {
    let machine = Machine::new();
    machine.network("0000:02:00.0/virtio0/net/eth0", true);
    machine.network("0000:03:00.0/net/eth1", true);
    let route = |lines: &str| machine.file("proc/net/route", &format!("{ROUTES}{lines}"));
    let is_used = || machine.uses().iter().any(|line| line.contains("eth0 is the host's only"));
    route("eth0 0000000A 00000000 0001 0 0 0 000000FF 0 0 0\n");
    assert!(!is_used(), "of a network, not the default");
    route("eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n");
    assert!(is_used());
    route(
        "eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n\
         eth1 00000000 0100000B 0003 0 0 100 00000000 0 0 0\n",
    );
    assert!(!is_used(), "there is another");
    route("eth0 00000000 00000000 0203 0 0 0 00000000 0 0 0\n");
    assert!(!is_used(), "it refuses");
    // The other family, and another that is on no hardware.
    let zeros = "0".repeat(32);
    let line = |to: &str, len: &str, flags: &str, name: &str| {
        format!("{to} {len} {zeros} 00 {zeros} 00000400 00000001 00000000 {flags} {name}\n")
    };
    let lines = [
        line(&zeros, "00", "00200200", "lo"),
        line(&zeros, "00", "00000003", "tun0"),
        line(&zeros, "00", "00000003", "eth0"),
    ];
    machine.file("proc/net/ipv6_route", &lines.concat());
    assert!(is_used());
    machine.file("proc/net/ipv6_route", &line(&zeros, "00", "00000003", "eth1"));
    assert!(!is_used());
}

#[test]
fn a_bridge_is_what_is_below_it() {
    let machine = Machine::new();
    let ours = machine.network("0000:02:00.0/net/eth0", true);
    let other = machine.network("0000:03:00.0/net/eth1", true);
    let bridge = machine.network("virtual/net/br0", false);
    let tap = machine.network("virtual/net/tap0", false);
    symlink(ours, bridge.join("lower_eth0")).unwrap();
    symlink(tap, bridge.join("lower_tap0")).unwrap();
    // In a circle, which the kernel would not have.
    symlink(&bridge, bridge.join("lower_br0")).unwrap();
    machine.file(
        "proc/net/route",
        &format!("{ROUTES}br0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n"),
    );
    assert_eq!(machine.uses().len(), 1);
    symlink(other, bridge.join("lower_eth1")).unwrap();
    assert_eq!(machine.uses(), [""; 0]);
}

#[test]
fn virtual_functions_are_used() {
    let machine = Machine::new();
    machine.file("bus/pci/devices/0000:02:00.0/sriov_numvfs", "4\n");
    let uses = machine.uses();
    assert!(uses.len() == 1 && uses[0].contains("4 of them: echo 0 > /sys/bus/pci"), "{uses:?}");
}
