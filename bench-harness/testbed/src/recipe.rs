//! What the test bed is made of.

use std::fmt::Write as _;

/// Counts up whenever something else than the lists below changes in what is made, so that an older one is
/// made anew. The scripts in `init/` do not count: they are added at every start.
const VERSION: u32 = 2;

/// The alias of Debian's kernel, and how the names of the packages begin that it stands for. The plain
/// image: the one for clouds has no e1000 and no AHCI.
pub(crate) const KERNEL: (&str, &str) = ("linux-image-amd64", "linux-image-6.1");

/// QEMU 10: its emulated IOMMU and SVM are more reliable than those of the release's own QEMU 7.2.
pub(crate) const QEMU: [&str; 4] = [
    "qemu-system-x86/bookworm-backports",
    "qemu-system-common/bookworm-backports",
    "qemu-system-data/bookworm-backports",
    "seabios/bookworm-backports",
];

/// The shell and tools of both initial RAM file systems.
pub(crate) const BUSYBOX: &str = "busybox-static";

/// The outer machine's own modules, and those of the functions that it may have to pass through.
pub(crate) const OUTER_MODULES: [&str; 39] = [
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    // Virtualisation and passthrough.
    "kvm",
    "kvm_amd",
    "irqbypass",
    "vfio",
    "vfio_pci",
    "vfio_iommu_type1",
    "vhost_net",
    "vhost_vsock",
    "vhost_scsi",
    "tun",
    "tap",
    "macvtap",
    "bridge",
    "veth",
    "8021q",
    "loop",
    // The host's own drivers, from which a function is borrowed and to which it is given back.
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio_rng",
    "nvme",
    "e1000",
    "e1000e",
    "igb",
    "igbvf",
    "vmxnet3",
    "ahci",
    "vmw_pvscsi",
    "sd_mod",
    "sr_mod",
    "sg",
    "ext4",
    "vfat",
    "pci_stub",
];

/// The inner guest's modules: the drivers of every device that it may have, and file systems.
pub(crate) const GUEST_MODULES: [&str; 35] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "virtio_input",
    "failover",
    "net_failover",
    "e1000",
    "e1000e",
    "igb",
    "igbvf",
    "vmxnet3",
    "af_packet",
    "8021q",
    "ahci",
    "vmw_pvscsi",
    "nvme",
    "sd_mod",
    "sr_mod",
    "sg",
    "ext4",
    "vfat",
    "isofs",
    "overlay",
    "loop",
    "nls_ascii",
    "nls_cp437",
    "nls_utf8",
    // ACPI's power button, and how a terminal hears of it.
    "button",
    "evdev",
    // The checksum that file systems are built with, in its plain form and its fast one.
    "crc32c_generic",
    "crc32c_intel",
];

/// The modules that are loaded before an outer machine's command runs, if nothing else is asked for.
pub(crate) const DEFAULT_MODULES: [&str; 4] = ["kvm_amd", "vfio_pci", "vfio_iommu_type1", "tun"];

/// The packages whose programs are on the inner guest's root disk.
pub(crate) const DISK_PACKAGES: [&str; 14] = [
    // What runs the script; coreutils' programs and all that is missing are busybox's.
    "dash",
    "mount",
    "util-linux",
    // Disks.
    "fio",
    "e2fsprogs",
    "fdisk",
    "sg3-utils",
    "nvme-cli",
    "dosfstools",
    // Networks.
    "iproute2",
    "iputils-ping",
    "ethtool",
    "iperf3",
    // Functions.
    "pciutils",
];

/// The root disk's label, by which an inner guest finds it: `root=LABEL=paraslot`.
pub(crate) const DISK_LABEL: &str = "paraslot";

/// What the parts that a host downloads once are made of, as the head of their stamp.
pub(crate) fn base() -> String {
    let mut text = format!("recipe {VERSION}\n");
    let lists: [(&str, &[&str]); 4] = [
        ("kernel", &[KERNEL.0, KERNEL.1]),
        ("machine", &QEMU),
        ("outer modules", &OUTER_MODULES),
        ("guest modules", &GUEST_MODULES),
    ];
    for (name, list) in lists {
        let _ = writeln!(text, "{name}: {}", list.join(" "));
    }
    text
}

/// The same of the root disk, which has the modules of the kernel that `base`, the other's stamp, names.
pub(crate) fn disk(base: &str) -> String {
    format!("{base}disk: {}\n", DISK_PACKAGES.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_names_all_that_it_depends_on() {
        let base = base();
        for list in [&QEMU[..], &OUTER_MODULES, &GUEST_MODULES, &[KERNEL.0]] {
            assert!(list.iter().all(|item| base.contains(item)), "{base}");
        }
        // The disk's depends on the kernel's version, too, which the other's stamp has.
        let disk = disk("recipe 1\nlinux-image 6.1\n");
        assert!(disk.starts_with("recipe 1\nlinux-image 6.1\n"), "{disk}");
        assert!(DISK_PACKAGES.iter().all(|item| disk.contains(item)), "{disk}");
    }

    #[test]
    fn no_recipe_is_the_beginning_of_another() {
        assert!(base().ends_with('\n') && disk("").ends_with('\n'));
    }
}
