//! vmxnet3.

mod registers;

use paraslot_device::DeviceError;
use paraslot_pci::PciDevice;
use paraslot_spec::pci::capability;
use paraslot_spec::vmxnet3::{
    DEVICE_VMXNET3, DISABLE_ADAPTIVE_RING, LINK_SPEED_SHIFT, LINK_UP, REVISION_1, REVISION_2,
    REVISION_3, UPT_VERSION_1, command, interrupt, registers as at,
};
use paraslot_vmxnet3::{Options, Vmxnet3};

use super::{
    HOTPLUG, MIGRATION, NET_LIMITS, SNAPSHOT, VIOMMU, attack, door, driver, feature, instead,
    limit, told,
};
use crate::entry::Evidence::{Answer, Bits, Capability, Told};
use crate::entry::State::{Accepted, Implemented, Refused};
use crate::entry::{
    Boot, Driver, Entry, Evidence, Family, Feature, InBox, Kind, Limit, Operations, Report,
    Security,
};
use crate::live;

/// Pairs of the backend's queues.
const PAIRS: u16 = 4;

fn make() -> Result<Box<dyn PciDevice>, DeviceError> {
    let options = Options { queues: PAIRS, ..Options::new(live::ADDRESS) };
    Ok(Box::new(Vmxnet3::new(live::network(PAIRS)?, options, live::host()?)?))
}

/// Whether VRRS has all these revisions.
const fn revision(bits: u32) -> Evidence {
    Bits { bar: 1, offset: at::VRRS, mask: bits, value: bits }
}

/// What CMD reads after a command.
const fn answers(command: u32, mask: u32, value: u32) -> Evidence {
    Answer { bar: 1, command: at::CMD, write: command, answer: at::CMD, mask, value }
}

pub(crate) const ENTRY: Entry = Entry {
    name: "vmxnet3",
    family: Family::Paravirtual,
    kind: Kind::Network,
    title: "VMware's paravirtual adapter, for guests that come from there",
    summary: "Rings of descriptors in shared memory, owned by a bit that flips each lap, so that neither side reads the other's \
        index; one page that says all the rest. The driver is in Linux, the BSDs and VMware Tools, so that a guest which \
        was set up under VMware finds its adapter without a change. It rings hardly ever while the device is awake; an \
        interrupt costs one write to a mask register, an exit that virtio-net does not have.",
    history: "VMware brought it out with ESX 4.0 (2009, virtual hardware version 7), after VMXNET and VMXNET 2, to whose \
        interface it owes nothing, and put a driver into Linux 2.6.32 the same year. Each later revision of the interface \
        is a bit that a driver selects: 3 (2016) has data rings and coalescing, 4 (2020) offloads in tunnels and RSS of \
        UDP, 6 (2021) more queues; 9 (2024) is the last in Linux. QEMU has a model of its own since 1.5 (2013).",
    specification: "None is public. VMware's header of the interface, in its drivers of Linux and FreeBSD, stands in for one.",
    package: "paraslot-vmxnet3",
    drivers: DRIVERS,
    boot: Boot {
        firmware: "Neither EDK2 nor SeaBIOS has a driver.",
        pxe: "By an iPXE on a disk or CD-ROM: there is no option ROM here.",
        cdrom: "No: it is a network adapter.",
        from_vmware: "Yes: what it is for. With its old address a guest keeps its configuration, where that goes by the address; \
            by another slot Linux names it otherwise.",
    },
    features: FEATURES,
    limits: LIMITS,
    registers: registers::REGISTERS,
    operations: Operations {
        hotplug: HOTPLUG,
        changes: "The link goes up and down (`Control::set_link`), and the guest has an event.",
        reset: "QUIESCE_DEV, RESET_DEV and DSAL written with 0 are over when their write is: the vCPU waits for a round of \
            work. Function level reset.",
        snapshot: SNAPSHOT,
        migration: MIGRATION,
        viommu: VIOMMU,
        limits: NET_LIMITS,
    },
    security: Security {
        surface: "Nine registers, 65 doorbells and masks, 24 commands; a page of configuration that points to queues, tables and \
            keys; descriptors; and headers of frames, as far as filters, hashes and checksums look at them.",
        footprint: "For each pair of the backend's queues that it uses 64 KiB for a frame and 2 KiB for a packet; 64 KiB for the \
            multicast table, 5 KiB for RSS. Nothing more, whatever the guest does.",
        fuzz: &["vmxnet3", "frames"],
        others: &[
            attack(
                "CVE-2026-47876",
                "VMware's own: a write out of bounds, code run on the host by the guest's administrator.",
            ),
            attack(
                "CVE-2025-41236",
                "VMware's own: integer overflow, code run on the host; other adapters had none.",
            ),
            attack(
                "CVE-2021-20203",
                "QEMU: sizes of rings taken as they were, the guest ended its VMM.",
            ),
            attack(
                "CVE-2016-6836",
                "QEMU: a completion that was not cleared, the host's memory shown to the guest.",
            ),
            attack(
                "CVE-2013-4544",
                "QEMU: numbers of queues and interrupts taken as they were, access out of bounds.",
            ),
        ],
    },
    constructor: "let options = paraslot_vmxnet3::Options { queues: 4, ..paraslot_vmxnet3::Options::new(mac) };\n\
        let function = Vmxnet3::new(Arc::new(backend), options, host)?;",
    elsewhere: &[
        door(
            "QEMU's own",
            "-netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device vmxnet3,netdev=n0,mac=00:50:56:00:00:01",
        ),
        door(
            "libvirt",
            "<interface type='bridge'>\n  <source bridge='br0'/>\n  <model type='vmxnet3'/>\n</interface>",
        ),
        door("Cloud Hypervisor's own", "none: by vfio-user, or in a fork"),
        door("VMware", "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\""),
    ],
    instead: &[
        instead(
            "virtio-net",
            "the guest can have virtio's drivers: features one by one, interrupts without an exit, an open specification",
        ),
        instead("virtio-net", "the guest is to start from the network by EDK2"),
        instead(
            "e1000",
            "a Windows guest has neither VMware Tools nor virtio-win, or the system is older than the adapter",
        ),
        instead("vfio", "the guest is to have an adapter of the host's to itself"),
    ],
    make,
};

const DRIVERS: &[Driver] = &[
    driver(
        "Linux",
        "vmxnet3",
        "2.6.32 (2009)",
        InBox::Installer,
        "VMware's. It takes the highest revision that there is, and needs no more than the first. RHEL 6 has it.",
    ),
    driver(
        "Windows",
        "vmxnet3, of VMware Tools",
        "2009; today Windows 10, 11, Server 2016 and later",
        InBox::Extra,
        "Also by Windows Update. A Windows that was not set up under VMware has none.",
    ),
    driver(
        "FreeBSD",
        "vmx(4)",
        "10.0",
        InBox::Installer,
        "Up to 8 queues to send and 16 to receive.",
    ),
    driver("OpenBSD", "vmx(4)", "5.5", InBox::Installer, ""),
    driver("NetBSD", "vmx(4)", "7.0", InBox::Installer, ""),
    driver("DragonFly BSD", "vmx", "not known", InBox::System, "FreeBSD's."),
    driver("illumos", "vmxnet3s(4D)", "2012", InBox::Installer, ""),
    driver(
        "macOS on x86",
        "vmxnet3",
        "10.13 has it",
        InBox::Installer,
        "Apple documents none; guests under QEMU use it.",
    ),
    driver(
        "UEFI (EDK2: OVMF, CloudHv)",
        "none",
        "-",
        InBox::Nobody,
        "VMware's own firmware has one.",
    ),
    driver(
        "iPXE",
        "vmxnet3",
        "2012; release 1.20.1",
        InBox::Installer,
        "Has to be started from a disk or CD-ROM.",
    ),
    driver("SeaBIOS", "none", "-", InBox::Nobody, ""),
    driver(
        "VMware ESXi as a guest",
        "vmxnet3, later nvmxnet3",
        "5.1, as an experiment",
        InBox::Installer,
        "",
    ),
];

const FEATURES: &[Feature] = &[
    feature(
        "revision 1",
        Implemented,
        "Rings, offloads, RSS, filters, moderation levels.",
        revision(REVISION_1),
    ),
    feature(
        "revision 2",
        Implemented,
        "The completion of a packet that was put together says of how many.",
        revision(REVISION_2),
    ),
    feature(
        "revision 3",
        Implemented,
        "Receive data rings, a transmit data ring's entry size, coalescing.",
        revision(REVISION_3),
    ),
    feature(
        "layout of UPT 1 (UVRS)",
        Implemented,
        "Of features, statistics and RSS. There is no other.",
        Bits { bar: 1, offset: at::UVRS, mask: UPT_VERSION_1, value: UPT_VERSION_1 },
    ),
    feature(
        "link and speed (GET_LINK)",
        Implemented,
        "Always 10 Gb/s, as under VMware; a link is as fast as its backend.",
        answers(command::GET_LINK, u32::MAX, 10_000 << LINK_SPEED_SHIFT | LINK_UP),
    ),
    feature(
        "permanent address (GET_PERM_MAC_LO, _HI)",
        Implemented,
        "",
        answers(command::GET_PERM_MAC_LO, u32::MAX, u32::from_le_bytes([0x02, 0, 0, 0])),
    ),
    feature(
        "identity (GET_DID_LO, _HI)",
        Implemented,
        "",
        answers(command::GET_DID_LO, u32::MAX, DEVICE_VMXNET3 as u32),
    ),
    feature("checksum insertion (OM_CSUM)", Implemented, "At any place of a packet.", Told),
    feature(
        "TCP segmentation (OM_TSO)",
        Implemented,
        "Over IPv4 and IPv6; left to whoever takes the packet whole.",
        Told,
    ),
    feature("VLAN tags inserted (TI)", Implemented, "", Told),
    feature("VLAN tags stripped (RXVLAN)", Implemented, "", Told),
    feature(
        "received checksums checked (RXCSUM)",
        Implemented,
        "Of IPv4, TCP and UDP; a bit for each says that it is right.",
        Told,
    ),
    feature(
        "LRO",
        Implemented,
        "TCP that nobody has cut, up to 64 KiB, for drivers that have checksums checked.",
        Told,
    ),
    feature(
        "RSS",
        Implemented,
        "Toeplitz over addresses of IPv4 and IPv6, and TCP's ports. A queue without buffers loses its frames.",
        Told,
    ),
    feature(
        "filters",
        Implemented,
        "Station, multicast table, broadcast, all multicast, promiscuous, and a table of VLANs.",
        Told,
    ),
    feature(
        "transmit data ring",
        Implemented,
        "Copies of headers; the device asks for 256 bytes each.",
        Told,
    ),
    feature("receive data rings", Implemented, "Small frames without a buffer of their own.", Told),
    feature(
        "two receive rings",
        Implemented,
        "Head and body buffers: a frame fills several of both.",
        Told,
    ),
    feature(
        "txThreshold",
        Implemented,
        "The driver rings only when as much waits as the device says: not at all while it is awake.",
        Told,
    ),
    feature(
        "updateRxProd",
        Implemented,
        "The driver tells of buffers only while frames wait for some.",
        Told,
    ),
    feature(
        "interrupts that mask themselves (GET_CONF_INTR)",
        Implemented,
        "One write to unmask is left of two.",
        answers(
            command::GET_CONF_INTR,
            interrupt::IT | 0x3 << interrupt::IMM_SHIFT,
            interrupt::IT_AUTO | interrupt::IMM_AUTO << interrupt::IMM_SHIFT,
        ),
    ),
    feature(
        "moderation levels (UPDATE_IML)",
        Implemented,
        "1 to 7: 16 µs to 1 ms between interrupts; 8: by what there is to do.",
        Told,
    ),
    feature(
        "coalescing (SET_COALESCE, GET_COALESCE)",
        Implemented,
        "By rate, by number of packets, or as the device sees fit. With revision 3.",
        Told,
    ),
    feature(
        "statistics and status (GET_STATS, GET_QUEUE_STATUS)",
        Implemented,
        "Of each queue.",
        Told,
    ),
    feature(
        "MSI-X",
        Implemented,
        "25 vectors: one a queue, and one for events.",
        Capability(capability::MSI_X),
    ),
    feature("MSI", Implemented, "One vector.", Capability(capability::MSI)),
    feature(
        "power management",
        Implemented,
        "D0 and D3hot.",
        Capability(capability::POWER_MANAGEMENT),
    ),
    feature(
        "PCI Express, function level reset",
        Implemented,
        "Unless it is not wanted.",
        Capability(capability::PCI_EXPRESS),
    ),
    feature(
        "wake-up (UPDATE_PMCFG)",
        Accepted,
        "Patterns and magic packets wake nobody.",
        answers(command::UPDATE_PMCFG, u32::MAX, 0),
    ),
    feature(
        "regions of memory (REGISTER_MEMREGS)",
        Accepted,
        "All of guest memory is within reach. With revision 3.",
        Told,
    ),
    feature("coalescing's depth of transmission", Accepted, "Kept, and told again.", Told),
    feature("intrCtrl", Accepted, "The mask registers alone mask.", Told),
    feature("revision 4", Refused, "Offloads in tunnels, RSS of UDP and ESP.", revision(1 << 3)),
    feature(
        "RSS of UDP and ESP (GET_RSS_FIELDS)",
        Refused,
        "Of revision 4.",
        answers(command::GET_RSS_FIELDS, u32::MAX, 0),
    ),
    feature(
        "revisions 5 to 9",
        Refused,
        "More queues (6), and what came later.",
        revision(0b1_1111 << 4),
    ),
    feature(
        "passthrough (UPT, LOAD_PLUGIN)",
        Refused,
        "There is no plug-in.",
        answers(command::LOAD_PLUGIN, u32::MAX, 0),
    ),
    feature(
        "adaptive rings (GET_ADAPTIVE_RING_INFO)",
        Refused,
        "Rings stay as the driver made them.",
        answers(command::GET_ADAPTIVE_RING_INFO, DISABLE_ADAPTIVE_RING, 0),
    ),
    feature(
        "a packet's checksum in its completion",
        Refused,
        "0: what was checked has bits of its own.",
        Told,
    ),
];

const LIMITS: &[Limit] = &[
    told(
        "revisions",
        "1 to 3",
        "A bit each. The first until the driver selects another.",
        Report {
            bar: 1,
            offset: at::VRRS,
            width: 4,
            bits: (0, 32),
            value: (REVISION_1 | REVISION_2 | REVISION_3) as u64,
        },
    ),
    limit("transmit queues", "1 to 8", "As many as the driver likes, whatever the backend has."),
    limit("receive queues", "1 to 16", "Likewise; they need not be a power of two."),
    limit(
        "workers",
        "1 to 8, and at most the backend's pairs of queues",
        "They share the queues. The one shown here has 4.",
    ),
    limit(
        "entries of a ring",
        "32 to 4096, a multiple of 32",
        "Completions of a receive queue: 8192.",
    ),
    limit("entry of a receive data ring", "64 to 2048 bytes, a multiple of 64", ""),
    limit("MTU", "60 to 9000 bytes", "The driver's say."),
    limit(
        "frame",
        "the MTU, or 1500, and 22 bytes",
        "Received or sent. One that is cut or put together: 65557 bytes.",
    ),
    limit("descriptors of a packet", "64", "Linux uses up to 16 for one that is not to be cut."),
    limit(
        "buffers of a frame",
        "18; 64 if it was put together",
        "Head buffers have 128 bytes or more.",
    ),
    limit("addresses of the multicast table", "10922", "65535 bytes."),
    limit("RSS", "128 entries of the table, 40 bytes of key", ""),
    limit(
        "coalescing",
        "up to 128 packets; 100 to 100000 interrupts a second",
        "What is less than the number is told of after 1 ms.",
    ),
    limit(
        "wait for buffers",
        "20 ms",
        "With one receive queue, or without RSS: frames wait in the backend. One that needs more buffers than there \
         are is lost then.",
    ),
    limit("address width", "64 bits", ""),
];
