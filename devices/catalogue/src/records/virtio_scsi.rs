//! virtio-scsi.

use paraslot_device::DeviceError;
use paraslot_pci::PciDevice;
use paraslot_virtio_pci::VirtioPci;
use paraslot_virtio_scsi::{Options, VirtioScsi};

use super::virtio::{self, feature};
use super::{
    DISK_LIMITS, HOTPLUG, MIGRATION, SNAPSHOT, VIOMMU, door, driver, instead, limit, register,
    scsi, told,
};
use crate::entry::Access::{Read, ReadWrite};
use crate::entry::State::{Implemented, Refused};
use crate::entry::{
    Block, Boot, Driver, Entry, Family, Feature, InBox, Kind, Operations, Report, Security,
};
use crate::live;

/// The request queues of the one that is looked at.
const QUEUES: u16 = 4;

fn make() -> Result<Box<dyn PciDevice>, DeviceError> {
    let options = Options { request_queues: QUEUES, ..Options::default() };
    let device = VirtioScsi::new(scsi::bus()?, &options)?;
    Ok(Box::new(VirtioPci::new(device, live::host()?)?))
}

pub(crate) const ENTRY: Entry = Entry {
    name: "virtio-scsi",
    family: Family::Paravirtual,
    kind: Kind::Disk,
    title: "The paravirtual SCSI adapter: one function, many disks and CD-ROM drives",
    summary: "SCSI commands over virtio's rings. One function has up to 256 targets of 16384 units, disks and CD-ROM \
        drives, which come and go while the guest runs; the units speak SCSI with all that operating systems and \
        clusters use of it. Costs what virtio-blk costs, and some 0.4 µs a request for the command set.",
    history: "Proposed by developers at Red Hat and IBM in 2011 against two limits of virtio-blk: a PCI function for \
        each disk, and a feature bit for each new command. In Linux 3.4 and QEMU 1.1 of 2012, and in VIRTIO since 1.0; \
        little has changed since.",
    specification: virtio::SPECIFICATION,
    package: "paraslot-virtio-scsi, behind paraslot-virtio-pci; its units are paraslot-scsi's",
    drivers: DRIVERS,
    boot: Boot {
        firmware: "UEFI by EDK2 (OVMF, CloudHv), of targets 0 to 31 and units 0 to 7; SeaBIOS.",
        pxe: "No: it has disks.",
        cdrom: "Yes. UEFI and SeaBIOS start from it; Windows' installer does not see it without vioscsi.",
        from_vmware: "No. The driver is to be there before the guest moves; its disks stay SCSI disks, with the names of such.",
    },
    features: FEATURES,
    limits: &[
        told(
            "request queues",
            "1 to 256",
            "One for each processor of the guest is best. The one shown here has 4.",
            Report { bar: 0, offset: 0x2000, width: 4, bits: (0, 32), value: QUEUES as u64 },
        ),
        told(
            "entries of a queue",
            "4 to 32768, a power of two; 256 unless told",
            "The control and the event queue have 256 at most.",
            Report { bar: 0, offset: 0x18, width: 2, bits: (0, 16), value: 256 },
        ),
        told(
            "buffers of a command",
            "254 with 256 entries; 1022 at most",
            virtio::CHAIN,
            Report { bar: 0, offset: 0x2004, width: 4, bits: (0, 32), value: 254 },
        ),
        told(
            "sectors of a command",
            "65535 suggested (32 MiB)",
            "Longer ones are served all the same.",
            Report { bar: 0, offset: 0x2008, width: 4, bits: (0, 32), value: 0xffff },
        ),
        told(
            "targets",
            "256",
            "As many as its bus has; here 64.",
            Report { bar: 0, offset: 0x201e, width: 2, bits: (0, 16), value: 63 },
        ),
        told(
            "units of a target",
            "16384",
            "",
            Report { bar: 0, offset: 0x2020, width: 4, bits: (0, 32), value: 16383 },
        ),
        limit("CDB", "260 bytes", "Commands that units know have 32 at most."),
        limit("sense data", "252 bytes", ""),
        limit("address width", "64 bits", ""),
    ],
    registers: &[
        virtio::COMMON,
        virtio::ISR,
        Block {
            name: "Device configuration (5.6.4)",
            bar: 0,
            base: 0x2000,
            repeated: None,
            negotiated: true,
            registers: &[
                register("num_queues", 0x00, 4, Read, "Request queues."),
                register("seg_max", 0x04, 4, Read, "Most data buffers of a command."),
                register(
                    "max_sectors",
                    0x08,
                    4,
                    Read,
                    "Suggested longest transfer, in sectors of 512 bytes.",
                ),
                register("cmd_per_lun", 0x0c, 4, Read, "Most commands for one unit at once."),
                register("event_info_size", 0x10, 4, Read, "Bytes of an event."),
                register(
                    "sense_size",
                    0x14,
                    4,
                    ReadWrite,
                    "Bytes of sense data in a response: 96 after a reset, 252 at most.",
                ),
                register(
                    "cdb_size",
                    0x18,
                    4,
                    ReadWrite,
                    "Bytes of a CDB in a request: 32 after a reset, 260 at most.",
                ),
                register("max_channel", 0x1c, 2, Read, "0."),
                register("max_target", 0x1e, 2, Read, "Highest target."),
                register("max_lun", 0x20, 4, Read, "Highest unit of a target."),
            ],
        },
        virtio::NOTIFY,
    ],
    operations: Operations {
        hotplug: HOTPLUG,
        changes: "Units come, go and change (`Bus::attach`, `detach`), discs too; the driver has an event for each, and \
            one that says if it missed some.",
        reset: "By device_status, by function level reset, or one queue alone. Commands are aborted one by one, by unit, \
            or all, and the driver is told when they have ended.",
        snapshot: SNAPSHOT,
        migration: MIGRATION,
        viommu: VIOMMU,
        limits: DISK_LIMITS,
    },
    security: Security {
        surface: "The transport's registers, descriptor chains, four kinds of requests, and the SCSI command sets: larger \
            than virtio-blk's by the latter.",
        footprint: "For each request queue of n entries: n slots of some 100 bytes, what the lane needs for that depth, and \
            24 bytes for each buffer in flight, 16384 of them and one chain at most. 256 events wait at most.",
        fuzz: &["virtio_scsi", "cdbs", "virtio_pci"],
        others: &{
            let [size, page, cdb, luns] = scsi::OTHERS;
            [size, page, cdb, luns, virtio::OTHERS[3]]
        },
    },
    constructor: "let bus = Bus::new(BusOptions { initiator: Initiator(\"adapter 0\".into()), max_target: 255, max_lun: 16383, autosense: true });\n\
        bus.attach(Address::default(), LogicalUnit::disk(DiskOptions::new(Arc::new(backend)))?)?;\n\
        let adapter = VirtioScsi::new(bus, &paraslot_virtio_scsi::Options::default())?;\n\
        let function = VirtioPci::new(adapter, host)?;",
    elsewhere: &[
        door(
            "QEMU's own",
            "-drive if=none,id=d0,file=disk.img,format=raw -device virtio-scsi-pci-non-transitional,id=scsi0,num_queues=4 \
             -device scsi-hd,bus=scsi0.0,scsi-id=0,lun=0,drive=d0",
        ),
        door(
            "libvirt (model since 5.2.0)",
            "<controller type='scsi' index='0' model='virtio-non-transitional'/>\n<disk type='file' device='disk'>\n  \
             <source file='disk.img'/>\n  <target dev='sda' bus='scsi'/>\n</disk>",
        ),
        door("Cloud Hypervisor's own", "none: by vfio-user"),
        door("crosvm's own", "--scsi-block disk.img (which it calls experimental)"),
        door("VMware", "none"),
    ],
    instead: &[
        instead(
            "virtio-blk",
            "there are few disks, nobody needs SCSI, and the shortest way counts",
        ),
        instead("pvscsi", "the guest comes from VMware with pvscsi, or is ESXi"),
        instead("ahci", "Windows is to be installed, or starts, without vioscsi"),
    ],
    make,
};

const DRIVERS: &[Driver] = &[
    driver(
        "Linux",
        "virtio_scsi",
        "4.0 (2015)",
        InBox::Installer,
        "The legacy interface since 3.4 (2012).",
    ),
    driver(
        "Windows 10, 11, Server 2016 and later",
        "vioscsi, of virtio-win",
        "2016",
        InBox::Extra,
        "Setup needs it from a second medium; a CD-ROM with it has to be on AHCI or USB.",
    ),
    driver(
        "FreeBSD",
        "virtio_scsi(4)",
        "13.0",
        InBox::Installer,
        "Resets of the whole bus are off unless told.",
    ),
    driver("NetBSD", "vioscsi(4)", "10.0", InBox::Installer, "Looks at 16 targets of 1024 units."),
    driver("OpenBSD", "vioscsi(4)", "6.6", InBox::Installer, "Units do not come and go."),
    driver("illumos", "vioscsi(4D)", "2025", InBox::Installer, ""),
    driver(
        "DragonFly BSD",
        "none",
        "-",
        InBox::Nobody,
        "Its virtio_scsi knows the legacy interface alone.",
    ),
    driver(
        "UEFI (EDK2: OVMF, CloudHv)",
        "VirtioScsiDxe, Virtio10Dxe",
        "2016",
        InBox::Installer,
        "Targets 0 to 31, units 0 to 7.",
    ),
    driver("SeaBIOS", "virtio-scsi", "1.9.0 (2015)", InBox::Installer, ""),
    driver("VMware ESXi and macOS as guests", "none", "-", InBox::Nobody, ""),
];

const FEATURES: &[Feature] = virtio::features![
    feature(
        0,
        "VIRTIO_SCSI_F_INOUT",
        Refused,
        "No command that a unit knows moves data both ways.",
    ),
    feature(1, "VIRTIO_SCSI_F_HOTPLUG", Implemented, "Units come and go, with an event."),
    feature(2, "VIRTIO_SCSI_F_CHANGE", Implemented, "A unit's parameters change, with an event."),
    feature(3, "VIRTIO_SCSI_F_T10_PI", Refused, "No backend keeps protection information."),
    scsi::DISKS,
    scsi::CDROMS,
    scsi::RESERVATIONS,
    scsi::MULTIPATH,
];
