//! virtio-net.

use paraslot_device::DeviceError;
use paraslot_pci::PciDevice;
use paraslot_virtio_net::{Duplex, Options, VirtioNet};
use paraslot_virtio_pci::VirtioPci;

use super::virtio::{self, feature};
use super::{
    HOTPLUG, MIGRATION, NET_LIMITS, SNAPSHOT, VIOMMU, attack, door, driver, instead, limit,
    register, told,
};
use crate::entry::Access::Read;
use crate::entry::State::{Implemented, Refused};
use crate::entry::{
    Block, Boot, Driver, Entry, Family, Feature, InBox, Kind, Limit, Operations, Report, Security,
};
use crate::live;

/// What the one that is looked at has.
const PAIRS: u16 = 4;
const MTU: u16 = 1500;
const SPEED: u32 = 10_000;

fn make() -> Result<Box<dyn PciDevice>, DeviceError> {
    let options = Options {
        mac: live::ADDRESS,
        queue_pairs: PAIRS,
        mtu: Some(MTU),
        speed: Some(SPEED),
        duplex: Some(Duplex::Full),
        ..Options::default()
    };
    let device = VirtioNet::new(live::network(PAIRS)?, &options)?;
    Ok(Box::new(VirtioPci::new(device, live::host()?)?))
}

pub(crate) const ENTRY: Entry = Entry {
    name: "virtio-net",
    family: Family::Paravirtual,
    kind: Kind::Network,
    title: "The plain paravirtual adapter: two rings for each processor",
    summary: "Frames are descriptors in memory that guest and host share, each behind a header which says what is left to \
        do to it: a checksum, a TCP stream to be cut. So 64 KiB of TCP cross as one frame, which nobody cuts if its \
        receiver takes it whole. A doorbell is rung only if the device has gone to sleep, and neither that nor its interrupt \
        need leave the kernel. The first choice where the guest has a driver.",
    history: "Rusty Russell's virtio of 2007 was to be one set of drivers for all hypervisors of Linux; its network driver came \
        with the first, in Linux 2.6.24 (January 2008), over PCI since 2.6.25. VIRTIO 1.0 (2014) made the modern device; \
        1.2 (2022) brought RSS and hash report, 1.4 (2026) notification coalescing, UDP segmentation, statistics and \
        contexts of RSS. It took the place of the emulated rtl8139 and e1000; VMware's counterpart is vmxnet3.",
    specification: virtio::SPECIFICATION,
    package: "paraslot-virtio-net, behind paraslot-virtio-pci",
    drivers: DRIVERS,
    boot: Boot {
        firmware: "UEFI by EDK2 (OVMF, CloudHv), from the network. SeaBIOS has no drivers for networks.",
        pxe: "Yes: PXE, and HTTP where it is built in, by EDK2's VirtioNetDxe. Under SeaBIOS by an iPXE on a disk or CD-ROM: \
            there is no option ROM here.",
        cdrom: "No: it is a network adapter.",
        from_vmware: "VMware has none. Linux from 4.0 on has the driver; a Windows guest needs NetKVM before it moves. Either \
            sees another adapter than before.",
    },
    features: FEATURES,
    limits: LIMITS,
    registers: &[
        virtio::COMMON,
        virtio::ISR,
        Block {
            name: "Device configuration (5.1.4)",
            bar: 0,
            base: 0x2000,
            repeated: None,
            negotiated: true,
            registers: &[
                register(
                    "mac",
                    0x00,
                    6,
                    Read,
                    "The address, with MAC. CTRL_MAC_ADDR is how a driver changes it.",
                ),
                register(
                    "status",
                    0x06,
                    2,
                    Read,
                    "Bit 0: the link is up; bit 1: the driver is to announce itself. A change interrupts.",
                ),
                register("max_virtqueue_pairs", 0x08, 2, Read, "Pairs of queues, with MQ or RSS."),
                register("mtu", 0x0a, 2, Read, "Largest IP packet in bytes, with MTU."),
                register(
                    "speed",
                    0x0c,
                    4,
                    Read,
                    "In Mbit/s, as the host was told; 0xffffffff unless it was. Slows nothing down.",
                ),
                register("duplex", 0x10, 1, Read, "0: half; 1: full; 0xff: not known."),
                register("rss_max_key_size", 0x11, 1, Read, "Of the hash's key, in bytes."),
                register(
                    "rss_max_indirection_table_length",
                    0x12,
                    2,
                    Read,
                    "Most entries of RSS's table.",
                ),
                register(
                    "supported_hash_types",
                    0x14,
                    4,
                    Read,
                    "All nine: IPv4, IPv6, TCP and UDP over either, with extension headers or not.",
                ),
                register(
                    "supported_tunnel_types",
                    0x18,
                    4,
                    Read,
                    "Not there without HASH_TUNNEL: 0.",
                ),
            ],
        },
        virtio::NOTIFY,
    ],
    operations: Operations {
        hotplug: HOTPLUG,
        changes: "The link goes up and down (`Control::set_link`), and the guest has a configuration interrupt. A guest that has \
            moved is asked to announce itself (`Control::announce`).",
        reset: "By device_status, by function level reset, or one queue alone (RING_RESET). A receive queue that is being \
            reset gets no frames, nor do those behind it.",
        snapshot: SNAPSHOT,
        migration: MIGRATION,
        viommu: VIOMMU,
        limits: NET_LIMITS,
    },
    security: Security {
        surface: "The transport's registers, descriptor chains, a header of 12 or 20 bytes on each frame, nineteen control \
            commands with tables in them, and headers of frames, as far as filters, hashes and segmentation look at them.",
        footprint: "For each receive queue of n entries: n buffers taken in advance, of some 200 bytes; 24 bytes for each piece \
            of memory in them, 1024 pieces and one chain at most; 64 KiB for a frame that comes by way of host memory, \
            and 256 KiB for those that wait. 6 bytes for each address in a table. Nothing more for a frame.",
        fuzz: &["virtio_net", "virtio_pci", "frames"],
        others: &[
            attack(
                "CVE-2024-6505",
                "QEMU: an entry of RSS's table named a queue that there is not, access out of bounds.",
            ),
            attack(
                "CVE-2023-6693",
                "QEMU: with HASH_REPORT the header was longer than its copy, stack overflow.",
            ),
            attack(
                "CVE-2022-26353",
                "QEMU: the mend of CVE-2021-3748 left descriptors mapped after an error, a leak.",
            ),
            attack(
                "CVE-2021-3748",
                "QEMU: num_buffers written after the buffer was unmapped, use after free.",
            ),
            attack(
                "CVE-2014-0150",
                "QEMU: the sum of both address tables' entries wrapped, heap overflow.",
            ),
        ],
    },
    constructor: "let options = paraslot_virtio_net::Options { mac, queue_pairs: 4, ..Default::default() };\n\
        let adapter = VirtioNet::new(Arc::new(backend), &options)?;\n\
        let function = VirtioPci::new(adapter, host)?;",
    elsewhere: &[
        door(
            "QEMU's own",
            "-netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device virtio-net-pci-non-transitional,netdev=n0,mac=52:54:00:12:34:56",
        ),
        door(
            "libvirt (model since 5.2.0)",
            "<interface type='bridge'>\n  <source bridge='br0'/>\n  <model type='virtio-non-transitional'/>\n</interface>",
        ),
        door(
            "Cloud Hypervisor's own",
            "--net tap=tap0,mac=52:54:00:12:34:56,num_queues=4,queue_size=256",
        ),
        door("crosvm's own", "--net tap-name=tap0"),
        door(
            "Firecracker's own (over PCI from 1.13, with --enable-pci)",
            "PUT /network-interfaces/eth0\n{\"iface_id\":\"eth0\",\"host_dev_name\":\"tap0\",\"guest_mac\":\"52:54:00:12:34:56\"}",
        ),
        door("VMware", "none"),
    ],
    instead: &[
        instead(
            "vmxnet3",
            "the guest comes from VMware and is to find its adapter without a change, is ESXi, or is RHEL 6",
        ),
        instead(
            "e1000",
            "the guest has no driver of the modern interface: Windows without virtio-win, Linux before 4.0, DragonFly BSD",
        ),
        instead("vfio", "the guest is to have an adapter of the host's to itself"),
    ],
    make,
};

const DRIVERS: &[Driver] = &[
    driver("Linux", "virtio_net", "4.0 (2015)", InBox::Installer, virtio::LINUX),
    driver(
        "Windows 10, 11, Server 2016 and later",
        "NetKVM, of virtio-win",
        "2016",
        InBox::Extra,
        "Setup copies files without it; Windows 11 asks for a network when it first starts.",
    ),
    driver("FreeBSD", "vtnet(4)", "13.0", InBox::Installer, ""),
    driver("NetBSD", "vioif(4)", "10.0", InBox::Installer, ""),
    driver("OpenBSD", "vio(4)", "6.6", InBox::Installer, ""),
    driver("illumos", "vioif(4D)", "2025", InBox::Installer, ""),
    driver(
        "DragonFly BSD",
        "none",
        "-",
        InBox::Nobody,
        "Its vtnet knows the legacy interface alone.",
    ),
    driver("UEFI (EDK2: OVMF, CloudHv)", "VirtioNetDxe, Virtio10Dxe", "2016", InBox::Installer, ""),
    driver(
        "iPXE",
        "virtio-net",
        "2016; release 1.20.1",
        InBox::Installer,
        "Has to be started from a disk or CD-ROM.",
    ),
    driver("SeaBIOS", "none", "-", InBox::Nobody, ""),
    driver("VMware ESXi as a guest", "none", "-", InBox::Nobody, "It takes vmxnet3."),
];

const FEATURES: &[Feature] = &[
    feature(
        0,
        "VIRTIO_NET_F_CSUM",
        Implemented,
        "The device fills in the checksums of frames that are sent.",
    ),
    feature(
        1,
        "VIRTIO_NET_F_GUEST_CSUM",
        Implemented,
        "The driver takes frames whose checksums are not filled in, or known to be right.",
    ),
    feature(
        2,
        "VIRTIO_NET_F_CTRL_GUEST_OFFLOADS",
        Implemented,
        "The driver switches what it takes on and off.",
    ),
    feature(3, "VIRTIO_NET_F_MTU", Implemented, "Where the backend or the host knows one."),
    feature(5, "VIRTIO_NET_F_MAC", Implemented, "The device has an address."),
    feature(6, "VIRTIO_NET_F_GSO", Refused, "Of the time before 1.0."),
    feature(
        7,
        "VIRTIO_NET_F_GUEST_TSO4",
        Implemented,
        "The driver takes TCP over IPv4 that nobody has cut, up to 64 KiB.",
    ),
    feature(8, "VIRTIO_NET_F_GUEST_TSO6", Implemented, "The same over IPv6."),
    feature(9, "VIRTIO_NET_F_GUEST_ECN", Implemented, "Of these, also with ECN."),
    feature(
        10,
        "VIRTIO_NET_F_GUEST_UFO",
        Implemented,
        "The driver takes UDP that is to be IP fragments.",
    ),
    feature(
        11,
        "VIRTIO_NET_F_HOST_TSO4",
        Implemented,
        "The device cuts TCP over IPv4, or hands it on to somebody who takes it whole.",
    ),
    feature(12, "VIRTIO_NET_F_HOST_TSO6", Implemented, "The same over IPv6."),
    feature(13, "VIRTIO_NET_F_HOST_ECN", Implemented, "Of these, also with ECN."),
    feature(14, "VIRTIO_NET_F_HOST_UFO", Implemented, "The device makes IP fragments of UDP."),
    feature(
        15,
        "VIRTIO_NET_F_MRG_RXBUF",
        Implemented,
        "A received frame fills as many buffers as it needs, so that they can be small.",
    ),
    feature(16, "VIRTIO_NET_F_STATUS", Implemented, "The driver sees the link."),
    feature(17, "VIRTIO_NET_F_CTRL_VQ", Implemented, "The control queue, the last of all."),
    feature(
        18,
        "VIRTIO_NET_F_CTRL_RX",
        Implemented,
        "Promiscuous, all multicast, and tables of addresses.",
    ),
    feature(19, "VIRTIO_NET_F_CTRL_VLAN", Implemented, "A filter by VLAN, of all 4096."),
    feature(
        20,
        "VIRTIO_NET_F_CTRL_RX_EXTRA",
        Implemented,
        "All unicast; no multicast, unicast or broadcast.",
    ),
    feature(
        21,
        "VIRTIO_NET_F_GUEST_ANNOUNCE",
        Implemented,
        "The host asks the driver to tell the network where it is now.",
    ),
    feature(
        22,
        "VIRTIO_NET_F_MQ",
        Implemented,
        "With more than one pair; frames stay on the queue that the backend chose.",
    ),
    feature(23, "VIRTIO_NET_F_CTRL_MAC_ADDR", Implemented, "The driver sets its address."),
    virtio::INDIRECT_DESC,
    virtio::EVENT_IDX,
    virtio::VERSION_1,
    virtio::ACCESS_PLATFORM,
    virtio::RING_PACKED,
    virtio::IN_ORDER,
    virtio::ORDER_PLATFORM,
    virtio::SR_IOV,
    virtio::NOTIFICATION_DATA,
    virtio::NOTIF_CONFIG_DATA,
    virtio::RING_RESET,
    virtio::ADMIN_VQ,
    feature(
        41,
        "VIRTIO_NET_F_GUEST_RSC4",
        Refused,
        "A bit of before 1.0, ADMIN_VQ's since. Nothing here joins segments.",
    ),
    feature(42, "VIRTIO_NET_F_GUEST_RSC6", Refused, "Likewise."),
    virtio::SUSPEND,
    feature(50, "VIRTIO_NET_F_DEVICE_STATS", Refused, "Drivers count for themselves."),
    feature(51, "VIRTIO_NET_F_HASH_TUNNEL", Refused, "No backend looks into tunnels."),
    feature(52, "VIRTIO_NET_F_VQ_NOTF_COAL", Implemented, "The next, for one queue by itself."),
    feature(
        53,
        "VIRTIO_NET_F_NOTF_COAL",
        Implemented,
        "Interrupts are held back for a number of frames or a time.",
    ),
    feature(
        54,
        "VIRTIO_NET_F_GUEST_USO4",
        Implemented,
        "The driver takes UDP over IPv4 that is to be several datagrams.",
    ),
    feature(55, "VIRTIO_NET_F_GUEST_USO6", Implemented, "The same over IPv6."),
    feature(56, "VIRTIO_NET_F_HOST_USO", Implemented, "The device makes datagrams of UDP."),
    feature(
        57,
        "VIRTIO_NET_F_HASH_REPORT",
        Implemented,
        "A received frame's hash is in its header.",
    ),
    feature(
        59,
        "VIRTIO_NET_F_GUEST_HDRLEN",
        Refused,
        "Who cuts a frame reads its headers himself.",
    ),
    feature(
        60,
        "VIRTIO_NET_F_RSS",
        Implemented,
        "A hash and a table choose the receive queue (Toeplitz).",
    ),
    feature(61, "VIRTIO_NET_F_RSC_EXT", Refused, "Nothing here joins segments."),
    feature(
        62,
        "VIRTIO_NET_F_STANDBY",
        Refused,
        "Standing in for another adapter is for the host to arrange.",
    ),
    feature(63, "VIRTIO_NET_F_SPEED_DUPLEX", Implemented, "What the host was told of both."),
    feature(64, "VIRTIO_NET_F_RSS_CONTEXT", Refused, "There is one table."),
    feature(65, "VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO", Refused, "No backend looks into tunnels."),
    feature(66, "VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM", Refused, "Likewise."),
    feature(67, "VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO", Refused, "Likewise."),
    feature(68, "VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO_CSUM", Refused, "Likewise."),
    feature(69, "VIRTIO_NET_F_OUT_NET_HEADER", Refused, "Likewise."),
    feature(70, "VIRTIO_NET_F_IPSEC", Refused, "No backend has it."),
];

const LIMITS: &[Limit] = &[
    told(
        "pairs of queues",
        "1 to 256, and at most the backend's",
        "One for each processor of the guest is best. The one shown here has 4.",
        Report { bar: 0, offset: 0x2008, width: 2, bits: (0, 16), value: PAIRS as u64 },
    ),
    told(
        "queues",
        "twice that, and the control queue",
        "",
        Report { bar: 0, offset: 0x12, width: 2, bits: (0, 16), value: 2 * PAIRS as u64 + 1 },
    ),
    told(
        "entries of a queue",
        "4 to 32768, a power of two; 256 unless told",
        "Frames in flight: as many, with indirect tables.",
        Report { bar: 0, offset: 0x18, width: 2, bits: (0, 16), value: 256 },
    ),
    limit("buffers of a frame", "as many as its queue has entries", virtio::CHAIN),
    told(
        "MTU",
        "68 to 65535 bytes, and at most the backend's",
        "Not told where neither knows one. The one shown here has 1500.",
        Report { bar: 0, offset: 0x200a, width: 2, bits: (0, 16), value: MTU as u64 },
    ),
    limit("frame", "65557 bytes", "64 KiB of IP, the Ethernet header and two tags."),
    told(
        "speed",
        "up to 2147483647 Mbit/s",
        "Words: a link is as fast as its backend.",
        Report { bar: 0, offset: 0x200c, width: 4, bits: (0, 32), value: SPEED as u64 },
    ),
    told(
        "entries of RSS's table",
        "128",
        "",
        Report { bar: 0, offset: 0x2012, width: 2, bits: (0, 16), value: 128 },
    ),
    told(
        "key of the hash",
        "40 bytes",
        "As much as has a say: two IPv6 addresses and two ports.",
        Report { bar: 0, offset: 0x2011, width: 1, bits: (0, 8), value: 40 },
    ),
    limit(
        "addresses of a table",
        "64 unless told, 1024 at most",
        "Unicast and multicast have one each. Of a kind that has more, all frames pass.",
    ),
    limit(
        "wait for buffers",
        "20 ms",
        "What is longer than the buffers that there are waits for more, and is lost then.",
    ),
    limit("address width", "64 bits", ""),
];
