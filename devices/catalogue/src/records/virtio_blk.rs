//! virtio-blk.

use paraslot_device::DeviceError;
use paraslot_pci::PciDevice;
use paraslot_virtio_blk::{Options, VirtioBlk};
use paraslot_virtio_pci::VirtioPci;

use super::virtio::{self, feature};
use super::{
    DISK_LIMITS, HOTPLUG, MIGRATION, SNAPSHOT, VIOMMU, door, driver, instead, limit, register, told,
};
use crate::entry::Access::{Read, ReadWrite};
use crate::entry::State::{Implemented, Refused};
use crate::entry::{
    Block, Boot, Driver, Entry, Evidence, Family, Feature, InBox, Kind, Operations, Report,
    Security,
};
use crate::live;

/// The queues of the one that is looked at.
const QUEUES: u16 = 4;

fn make() -> Result<Box<dyn PciDevice>, DeviceError> {
    let device = VirtioBlk::new(live::image()?, &Options { queues: QUEUES, ..Options::default() })?;
    Ok(Box::new(VirtioPci::new(device, live::host()?)?))
}

pub(crate) const ENTRY: Entry = Entry {
    name: "virtio-blk",
    family: Family::Paravirtual,
    kind: Kind::Disk,
    title: "The plain paravirtual disk: one function, one disk, a ring for each processor",
    summary: "A disk as a queue of read, write, flush and discard requests, with nothing of a controller between them \
        and the image. A request is two or three descriptors in memory that guest and host share; a doorbell is \
        rung only if the device has gone to sleep, and neither that nor its interrupt need leave the kernel. The \
        cheapest disk here, and the first choice where the guest has a driver.",
    history: "One of the first two virtio drivers, in Linux since 2.6.24 (January 2008), over PCI since 2.6.25. The \
        legacy device passed SCSI commands through; the modern one of VIRTIO 1.0 (2014) does not, and has gained \
        discard and zeroes (1.1, 2019), several queues and secure erase (1.2, 2022), zones (1.4, 2026).",
    specification: virtio::SPECIFICATION,
    package: "paraslot-virtio-blk, behind paraslot-virtio-pci",
    drivers: DRIVERS,
    boot: Boot {
        firmware: "UEFI by EDK2 (OVMF, CloudHv), SeaBIOS, or a kernel that the VMM starts itself.",
        pxe: "No: it is a disk.",
        cdrom: "No: a read-only image is a read-only disk. Installers that look for a CD-ROM take AHCI or virtio-scsi.",
        from_vmware: "No. A Linux guest needs virtio_blk in its initial RAM disk, which one made for its old host \
            alone may lack; a Windows guest needs viostor, started at boot, before it moves.",
    },
    features: FEATURES,
    limits: &[
        told(
            "queues",
            "1 to 1024",
            "One for each processor of the guest is best. The one shown here has 4.",
            Report { bar: 0, offset: 0x2022, width: 2, bits: (0, 16), value: QUEUES as u64 },
        ),
        told(
            "entries of a queue",
            "4 to 32768, a power of two; 256 unless told",
            "Requests in flight: as many, with indirect tables.",
            Report { bar: 0, offset: 0x18, width: 2, bits: (0, 16), value: 256 },
        ),
        told(
            "buffers of a request",
            "254 with 256 entries; 1022 at most",
            virtio::CHAIN,
            Report { bar: 0, offset: 0x200c, width: 4, bits: (0, 32), value: 254 },
        ),
        limit("capacity", "2^64 − 512 bytes", "By the interface; the image is the limit."),
        limit(
            "block",
            "512 bytes to 64 KiB, the image's",
            "Requests that are no multiple of it fail.",
        ),
        limit(
            "sectors of a discard, or of zeroes",
            "4194304 (2 GiB) a range",
            "64 ranges a request; 256 at most.",
        ),
        limit("address width", "64 bits", ""),
    ],
    registers: &[
        virtio::COMMON,
        virtio::ISR,
        Block {
            name: "Device configuration (5.2.4)",
            bar: 0,
            base: 0x2000,
            repeated: None,
            negotiated: true,
            registers: &[
                register(
                    "capacity",
                    0x00,
                    8,
                    Read,
                    "In sectors of 512 bytes; may change, with a configuration interrupt.",
                ),
                register("size_max", 0x08, 4, Read, "Not offered: 0."),
                register("seg_max", 0x0c, 4, Read, "Most data buffers of a request."),
                register("geometry", 0x10, 4, Read, "Not offered: 0."),
                register("blk_size", 0x14, 4, Read, "Logical block, in bytes."),
                register(
                    "physical_block_exp",
                    0x18,
                    1,
                    Read,
                    "Logical blocks in a physical one, as an exponent.",
                ),
                register("alignment_offset", 0x19, 1, Read, "Of the first aligned block: 0."),
                register("min_io_size", 0x1a, 2, Read, "Suggested least size, in blocks."),
                register("opt_io_size", 0x1c, 4, Read, "Suggested size, in blocks: 0, none."),
                register(
                    "writeback",
                    0x20,
                    1,
                    ReadWrite,
                    "1: completed writes may wait for a flush. With CONFIG_WCE it can be written.",
                ),
                register("num_queues", 0x22, 2, Read, "Queues, with MQ."),
                register(
                    "max_discard_sectors",
                    0x24,
                    4,
                    Read,
                    "Most sectors of a range of a discard.",
                ),
                register("max_discard_seg", 0x28, 4, Read, "Most ranges of one."),
                register(
                    "discard_sector_alignment",
                    0x2c,
                    4,
                    Read,
                    "What a range is best aligned to, in sectors.",
                ),
                register("max_write_zeroes_sectors", 0x30, 4, Read, "The same of zeroes."),
                register("max_write_zeroes_seg", 0x34, 4, Read, "The same of zeroes."),
                register(
                    "write_zeroes_may_unmap",
                    0x38,
                    1,
                    Read,
                    "1: zeroes may be holes, if the request allows.",
                ),
                register("max_secure_erase_sectors", 0x3c, 4, Read, "The same of a secure erase."),
                register("max_secure_erase_seg", 0x40, 4, Read, "The same of a secure erase."),
                register(
                    "secure_erase_sector_alignment",
                    0x44,
                    4,
                    Read,
                    "The same of a secure erase.",
                ),
            ],
        },
        virtio::NOTIFY,
    ],
    operations: Operations {
        hotplug: HOTPLUG,
        changes: "The disk grows or shrinks (`Control`), and the guest has a configuration interrupt.",
        reset: "By device_status, by function level reset, or one queue alone (RING_RESET). A reset is over when no \
            request is with the backend any more.",
        snapshot: SNAPSHOT,
        migration: MIGRATION,
        viommu: VIOMMU,
        limits: DISK_LIMITS,
    },
    security: Security {
        surface: "Small: the transport's registers, descriptor chains, six kinds of requests with a header of 16 bytes.",
        footprint: "For each queue of n entries: n slots of some 100 bytes, what the backend needs for that depth, and \
            24 bytes for each buffer in flight, 16384 of them and one chain at most.",
        fuzz: &["virtio_blk", "virtio_pci"],
        others: virtio::OTHERS,
    },
    constructor: "let disk = VirtioBlk::new(Arc::new(backend), &paraslot_virtio_blk::Options::default())?;\n\
        let function = VirtioPci::new(disk, host)?;",
    elsewhere: &[
        door(
            "QEMU's own",
            "-drive if=none,id=d0,file=disk.img,format=raw -device virtio-blk-pci-non-transitional,drive=d0",
        ),
        door(
            "libvirt (model since 5.2.0)",
            "<disk type='file' device='disk' model='virtio-non-transitional'>\n  <driver name='qemu' type='raw'/>\n  \
             <source file='disk.img'/>\n  <target dev='vda' bus='virtio'/>\n</disk>",
        ),
        door("Cloud Hypervisor's own", "--disk path=disk.img,num_queues=4,image_type=raw"),
        door("crosvm's own", "--block disk.img"),
        door("VMware", "none"),
    ],
    instead: &[
        instead(
            "virtio-scsi",
            "there are more disks than slots, or the guest is to have CD-ROM drives, persistent reservations or SCSI commands",
        ),
        instead("pvscsi", "the guest comes from VMware and has its driver set up to start from"),
        instead(
            "ahci",
            "the guest has no driver of virtio's: an installer of Windows without virtio-win, or an old system",
        ),
    ],
    make,
};

const DRIVERS: &[Driver] = &[
    driver("Linux", "virtio_blk", "4.0 (2015)", InBox::Installer, virtio::LINUX),
    driver(
        "Windows 10, 11, Server 2016 and later",
        "viostor, of virtio-win",
        "2016",
        InBox::Extra,
        "Setup shows no disk until the driver is loaded from a second medium, or is in the image.",
    ),
    driver("FreeBSD", "virtio_blk(4)", "13.0", InBox::Installer, ""),
    driver("NetBSD", "ld(4) at virtio(4)", "10.0", InBox::Installer, ""),
    driver("OpenBSD", "vioblk(4)", "6.6", InBox::Installer, ""),
    driver("illumos", "vioblk(4D)", "2025", InBox::Installer, ""),
    driver(
        "DragonFly BSD",
        "none",
        "-",
        InBox::Nobody,
        "Its virtio_blk knows the legacy interface alone.",
    ),
    driver("UEFI (EDK2: OVMF, CloudHv)", "VirtioBlkDxe, Virtio10Dxe", "2016", InBox::Installer, ""),
    driver("SeaBIOS", "virtio-blk", "1.9.0 (2015)", InBox::Installer, ""),
    driver("VMware ESXi as a guest", "none", "-", InBox::Nobody, "It takes pvscsi or AHCI."),
];

const FEATURES: &[Feature] = virtio::features![
    feature(1, "VIRTIO_BLK_F_SIZE_MAX", Refused, "A buffer of any size is served."),
    feature(2, "VIRTIO_BLK_F_SEG_MAX", Implemented, "How many buffers a request may have."),
    feature(4, "VIRTIO_BLK_F_GEOMETRY", Refused, "An image has no cylinders."),
    Feature {
        name: "VIRTIO_BLK_F_RO",
        state: Implemented,
        note: "With `readonly=on`, or an image that may not be written.",
        evidence: Evidence::Told,
    },
    feature(6, "VIRTIO_BLK_F_BLK_SIZE", Implemented, "The image's logical block."),
    feature(9, "VIRTIO_BLK_F_FLUSH", Implemented, "Writes are made durable."),
    feature(10, "VIRTIO_BLK_F_TOPOLOGY", Implemented, "Physical block and suggested sizes."),
    feature(11, "VIRTIO_BLK_F_CONFIG_WCE", Implemented, "The driver switches the write cache."),
    feature(12, "VIRTIO_BLK_F_MQ", Implemented, "With more than one queue."),
    feature(13, "VIRTIO_BLK_F_DISCARD", Implemented, "Where the image can punch holes."),
    feature(14, "VIRTIO_BLK_F_WRITE_ZEROES", Implemented, "Where the image can."),
    feature(
        15,
        "VIRTIO_BLK_F_LIFETIME",
        Refused,
        "No backend measures wear; 5.2.6.2 then forbids it.",
    ),
    feature(16, "VIRTIO_BLK_F_SECURE_ERASE", Implemented, "Where the image can."),
    feature(17, "VIRTIO_BLK_F_ZONED", Refused, "No backend has zones."),
];
