//! e1000.

mod features;
mod registers;
mod statistics;

use paraslot_device::DeviceError;
use paraslot_e1000::{E1000, Options};
use paraslot_pci::PciDevice;
use paraslot_spec::e1000::registers as at;

use super::{
    HOTPLUG, MIGRATION, NET_LIMITS, SNAPSHOT, VIOMMU, attack, door, driver, instead, limit, told,
};
use crate::entry::{Boot, Driver, Entry, Family, InBox, Kind, Limit, Operations, Report, Security};
use crate::live;

fn make() -> Result<Box<dyn PciDevice>, DeviceError> {
    let options = Options::new(live::ADDRESS);
    Ok(Box::new(E1000::new(live::network(1)?, options, live::host()?)?))
}

pub(crate) const ENTRY: Entry = Entry {
    name: "e1000",
    family: Family::Emulated,
    kind: Kind::Network,
    title: "Intel's gigabit adapter of 2002 (82540EM), which nearly every system knows",
    summary: "The hardware that paravirtual adapters replace: rings of descriptors with a head and a tail in registers, an EEPROM, \
        a PHY, and one interrupt pin. The tail's value matters, so each batch of frames takes an exit; each interrupt \
        takes several more, to read its cause and to mask and unmask it. For systems without a better driver, for \
        installation, and as the measure of what paravirtualization saves.",
    history: "The 82540EM is a chip of Intel's PRO/1000 line for parallel PCI, of 2002. Its manual is public and its drivers are \
        everywhere, so it was emulated early: by VirtualBox since 1.6 (2008), and by QEMU, whose i440FX machine has it \
        unless told otherwise. It took the place of rtl8139, ne2000 and pcnet; e1000e (82574L: PCI Express, MSI-X) came \
        after it.",
    specification: "Intel PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (317453)",
    package: "paraslot-e1000",
    drivers: DRIVERS,
    boot: Boot {
        firmware: "EDK2 only if built with Intel's own driver (E1000_ENABLE); SeaBIOS has no drivers for networks.",
        pxe: "By an iPXE on a disk or CD-ROM: there is no option ROM here.",
        cdrom: "No: it is a network adapter.",
        from_vmware: "With another ID: VMware's e1000 is an 82545EM (8086:100f), its e1000e an 82574 (8086:10d3). Linux and the \
            BSDs drive all of them; Windows makes a new adapter, without the old one's static addresses.",
    },
    features: features::FEATURES,
    limits: LIMITS,
    registers: registers::REGISTERS,
    operations: Operations {
        hotplug: HOTPLUG,
        changes: "The cable is plugged in and out (`Control::set_link`): STATUS, the PHY and an interrupt tell. While it is out, \
            what is to be sent stays in its ring.",
        reset: "CTRL.RST is over when its write is: the vCPU waits for a round of work. PBA, the EEPROM, the PHY and what is to \
            wake the system stay. No function level reset.",
        snapshot: SNAPSHOT,
        migration: MIGRATION,
        viommu: VIOMMU,
        limits: NET_LIMITS,
    },
    security: Security {
        surface: "Larger than a paravirtual adapter's: some 120 registers and three tables, in memory and by I/O ports; an EEPROM \
            bit by bit; a PHY; three kinds of transmit descriptors, with offsets of the driver's choice; filters, checksums \
            and segmentation by their letter.",
        footprint: "24 KiB of registers, 16 KiB for a frame, 4 KiB for a packet's pieces; twice 64 KiB for packets that are completed \
            here, 64 KiB and 24 bytes a frame for loopback. Nothing more, whatever the guest does.",
        fuzz: &["e1000", "frames"],
        others: &[
            attack(
                "CVE-2022-23087",
                "bhyve (82545): a checksum's offset beyond the headers, a write on the host's stack.",
            ),
            attack(
                "CVE-2021-20257",
                "QEMU: loopback wrote to the tail register, the transmitter entered itself.",
            ),
            attack(
                "CVE-2021-3416",
                "QEMU, several adapters: loopback past the check for that, recursion without end.",
            ),
            attack(
                "CVE-2018-6973",
                "VMware's own (82545EM): a write out of bounds, code run on the host.",
            ),
            attack(
                "CVE-2015-6815",
                "QEMU: no header and no payload in a segment, a loop without end.",
            ),
        ],
    },
    constructor: "let function = E1000::new(Arc::new(backend), paraslot_e1000::Options::new(mac), host)?;",
    elsewhere: &[
        door(
            "QEMU's own",
            "-netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device e1000,netdev=n0,mac=52:54:00:12:34:56",
        ),
        door(
            "libvirt",
            "<interface type='bridge'>\n  <source bridge='br0'/>\n  <model type='e1000'/>\n</interface>",
        ),
        door("Cloud Hypervisor's own", "none: by vfio-user, or in a fork"),
        door(
            "VMware (an 82545EM)",
            "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"e1000\"",
        ),
    ],
    instead: &[
        instead(
            "virtio-net",
            "the guest has a driver of virtio's modern interface: interrupts without an exit, a doorbell a batch at most",
        ),
        instead(
            "virtio-net",
            "Windows 11 is to run with memory integrity, which this adapter's driver stands in the way of",
        ),
        instead("vmxnet3", "the guest has VMware Tools, or is ESXi: several queues, MSI-X"),
        instead("vfio", "the guest is to have an adapter of the host's to itself"),
    ],
    make,
};

const DRIVERS: &[Driver] = &[
    driver("Linux", "e1000", "2.4.19", InBox::Installer, "Intel's."),
    driver(
        "Windows",
        "E1G60",
        "Vista",
        InBox::Installer,
        "XP has none for this chip. In Windows 11 24H2 it keeps memory integrity from being switched on.",
    ),
    driver("FreeBSD", "em(4)", "4.4", InBox::Installer, ""),
    driver("OpenBSD", "em(4)", "3.2", InBox::Installer, ""),
    driver("NetBSD", "wm(4)", "1.6", InBox::Installer, ""),
    driver("DragonFly BSD", "em", "1.0", InBox::Installer, ""),
    driver("illumos, Solaris", "e1000g(4D)", "Solaris 10", InBox::Installer, ""),
    driver(
        "macOS on x86",
        "AppleIntel8254XEthernet",
        "10.6 or before",
        InBox::Installer,
        "For the 82545EM; guests under QEMU have that one.",
    ),
    driver(
        "UEFI (EDK2: OVMF)",
        "Intel's E3522X2",
        "2010",
        InBox::Extra,
        "Proprietary; has to be built in (E1000_ENABLE).",
    ),
    driver("iPXE", "intel", "2012", InBox::Installer, "Has to be started from a disk or CD-ROM."),
    driver("SeaBIOS", "none", "-", InBox::Nobody, ""),
    driver(
        "VMware ESXi as a guest",
        "e1000",
        "older releases",
        InBox::Installer,
        "For VMware's 82545EM; whether it takes this chip depends on the release. Newer ones take vmxnet3.",
    ),
];

const LIMITS: &[Limit] = &[
    told(
        "speed",
        "1000 Mb/s",
        "In words: a link is as fast as its backend.",
        Report { bar: 0, offset: at::STATUS as u64, width: 4, bits: (6, 2), value: 2 },
    ),
    told(
        "EEPROM",
        "64 words of 16 bits",
        "EE_SIZE is 0: the smaller of two.",
        Report { bar: 0, offset: at::EECD as u64, width: 4, bits: (9, 1), value: 0 },
    ),
    told(
        "packet buffer for receiving",
        "48 KiB of 64 at first",
        "In words: nothing waits in it.",
        Report { bar: 0, offset: at::PBA as u64, width: 4, bits: (0, 16), value: 48 },
    ),
    limit("queues", "one each way", ""),
    limit("descriptors of a ring", "8 to 65528, a multiple of 8", ""),
    limit("frame, received", "16384 bytes, FCS included", "1522 unless RCTL.LPE is set."),
    limit("packet, sent", "16288 bytes; 65557 if it is to be cut", ""),
    limit("pieces of a packet", "256", "What has more is counted, and not sent."),
    limit("segments of a packet", "1024", "Of one that is cut here."),
    limit("exact addresses", "16", ""),
    limit("interrupts", "one, at a pin", ""),
    limit("address width", "64 bits", ""),
];
