//! pvscsi.

use paraslot_device::DeviceError;
use paraslot_pci::PciDevice;
use paraslot_pvscsi::{Options, Pvscsi};
use paraslot_spec::pci::capability;
use paraslot_spec::pvscsi::{command, command_status, register as at};

use super::{
    DISK_LIMITS, HOTPLUG, MIGRATION, SNAPSHOT, VIOMMU, attack, door, driver, feature, instead,
    limit, register, scsi,
};
use crate::entry::Access::{Read, ReadWrite, Write, WriteOneToClear};
use crate::entry::Evidence::{Answer, Capability, Told};
use crate::entry::State::{Accepted, Implemented, Refused};
use crate::entry::{
    Block, Boot, Driver, Entry, Evidence, Family, Feature, InBox, Kind, Limit, Operations, Security,
};
use crate::live;

fn make() -> Result<Box<dyn PciDevice>, DeviceError> {
    Ok(Box::new(Pvscsi::new(scsi::bus()?, Options::default(), live::host()?)?))
}

/// What COMMAND_STATUS says of a command before its descriptor, of so many words, is there.
const fn answers(command: u32, value: u32) -> Evidence {
    Answer {
        bar: 0,
        command: at::COMMAND as u64,
        write: command,
        answer: at::COMMAND_STATUS as u64,
        mask: u32::MAX,
        value,
    }
}

pub(crate) const ENTRY: Entry = Entry {
    name: "pvscsi",
    family: Family::Paravirtual,
    kind: Kind::Disk,
    title: "VMware's paravirtual SCSI adapter, for guests that come from there",
    summary: "A request ring and a completion ring in shared memory, a doorbell that says no more than \"look\", and SCSI \
        commands. The driver is in Linux and in VMware Tools, so that a guest which was set up under VMware finds its \
        disks without a change. With the request-call threshold it rings hardly ever, and costs about what virtio-scsi \
        does.",
    history: "VMware brought it out with vSphere 4.0 (2009, virtual hardware version 7), to lower the processor's cost of a \
        request against its emulated BusLogic and LSI Logic adapters. Its driver went into Linux 2.6.33 (2010) and, also \
        by VMware, into FreeBSD 13.0. There has been one revision; the request-call threshold is found by a command.",
    specification: "None is public. What VMware's drivers in Linux and FreeBSD do and expect stands in for one.",
    package: "paraslot-pvscsi; its units are paraslot-scsi's",
    drivers: DRIVERS,
    boot: Boot {
        firmware: "SeaBIOS. UEFI by EDK2 only if built with PVSCSI_ENABLE, which has not been the default since \
            edk2-stable202208; CloudHv is without.",
        pxe: "No: it has disks.",
        cdrom: "Yes, for systems that have the driver; VMware itself has its CD-ROM drives at SATA or IDE.",
        from_vmware: "Yes: what it is for. A guest that started from pvscsi there has the driver where it is needed.",
    },
    features: FEATURES,
    limits: LIMITS,
    registers: &[Block {
        name: "Registers",
        bar: 0,
        base: 0,
        repeated: None,
        negotiated: false,
        registers: &[
            register("COMMAND", at::COMMAND as u64, 4, Write, "Begins a command."),
            register(
                "COMMAND_DATA",
                at::COMMAND_DATA as u64,
                4,
                Write,
                "The words of the command's descriptor, one after the other; the last carries it out.",
            ),
            register(
                "COMMAND_STATUS",
                at::COMMAND_STATUS as u64,
                4,
                Read,
                "What became of the last command, or its answer.",
            ),
            register("LAST_STS_0", at::LAST_STS[0] as u64, 4, Read, "No driver uses it: 0."),
            register("LAST_STS_1", at::LAST_STS[1] as u64, 4, Read, "Likewise."),
            register("LAST_STS_2", at::LAST_STS[2] as u64, 4, Read, "Likewise."),
            register("LAST_STS_3", at::LAST_STS[3] as u64, 4, Read, "Likewise."),
            register(
                "INTR_STATUS",
                at::INTR_STATUS as u64,
                4,
                WriteOneToClear,
                "Causes. Read and written for INTx alone; the page can be mapped, so that reading costs no exit.",
            ),
            register("INTR_MASK", at::INTR_MASK as u64, 4, ReadWrite, "Causes that interrupt."),
            register(
                "KICK_NON_RW_IO",
                at::KICK_NON_RW_IO as u64,
                4,
                Write,
                "A doorbell: there are requests, others than reads and writes among them. An eventfd of KVM's.",
            ),
            register("DEBUG", at::DEBUG as u64, 4, Read, "No driver uses it: 0."),
            register(
                "KICK_RW_IO",
                at::KICK_RW_IO as u64,
                4,
                Write,
                "A doorbell: there are reads and writes. An eventfd of KVM's.",
            ),
        ],
    }],
    operations: Operations {
        hotplug: HOTPLUG,
        changes: "Units come and go, with a message if the driver has set up its ring; discs and sizes change, with a unit attention.",
        reset: "ADAPTER_RESET, RESET_BUS, RESET_DEVICE and ABORT_CMD are over when their register write is: the vCPU waits, \
            two seconds at most. Function level reset.",
        snapshot: SNAPSHOT,
        migration: MIGRATION,
        viommu: VIOMMU,
        limits: DISK_LIMITS,
    },
    security: Security {
        surface: "Twelve registers, nine commands, rings with indices in guest memory, lists of scatter/gather elements that \
            lead to further lists, and the SCSI command sets.",
        footprint: "6.8 MiB whatever the guest does: 1024 requests in flight, of 131072 pieces of memory.",
        fuzz: &["pvscsi", "cdbs"],
        others: &[
            attack(
                "CVE-2025-41238",
                "VMware's own: heap overflow in the controller, code run in the host's process of the machine.",
            ),
            attack(
                "CVE-2017-8112",
                "QEMU: the message ring's number of pages, a loop without end.",
            ),
            attack(
                "CVE-2016-7421",
                "QEMU: requests taken without regard to the ring's size, a loop without end.",
            ),
            attack("CVE-2016-7155", "QEMU: the rings' numbers of pages, access out of bounds."),
            attack("CVE-2016-4952", "QEMU: the same of SETUP_RINGS and SETUP_MSG_RING."),
        ],
    },
    constructor: "let bus = Bus::new(BusOptions { initiator: Initiator(\"adapter 0\".into()), max_target: 63, max_lun: 0, autosense: true });\n\
        bus.attach(Address::default(), LogicalUnit::disk(DiskOptions::new(Arc::new(backend)))?)?;\n\
        let function = Pvscsi::new(bus, paraslot_pvscsi::Options::default(), host)?;",
    elsewhere: &[
        door(
            "QEMU's own",
            "-drive if=none,id=d0,file=disk.img,format=raw -device pvscsi,id=scsi0 -device scsi-hd,bus=scsi0.0,scsi-id=0,drive=d0",
        ),
        door(
            "libvirt",
            "<controller type='scsi' index='0' model='vmpvscsi'/>\n<disk type='file' device='disk'>\n  \
             <source file='disk.img'/>\n  <target dev='sda' bus='scsi'/>\n</disk>",
        ),
        door("Cloud Hypervisor's own", "none: by vfio-user, or in a fork"),
        door(
            "VMware",
            "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"disk.vmdk\"",
        ),
    ],
    instead: &[
        instead(
            "virtio-scsi",
            "the guest can have virtio's drivers: several queues, firmware that has its driver, an open specification",
        ),
        instead("virtio-blk", "the same, and there are few disks"),
        instead(
            "ahci",
            "Windows is to be installed from plain media, or the UEFI firmware was built without PVSCSI_ENABLE",
        ),
    ],
    make,
};

const DRIVERS: &[Driver] = &[
    driver(
        "Linux",
        "vmw_pvscsi",
        "2.6.33 (2010)",
        InBox::Installer,
        "RHEL 6 has it; RHEL 5 took VMware Tools'.",
    ),
    driver(
        "Windows",
        "pvscsi, of VMware Tools",
        "Server 2003; today Windows 10, 11, Server 2016 and later",
        InBox::Extra,
        "Setup needs it from the Tools' ISO image; an installed Windows can have it by Windows Update.",
    ),
    driver(
        "FreeBSD",
        "pvscsi(4)",
        "13.0",
        InBox::Installer,
        "VMware's, with the threshold and the message ring.",
    ),
    driver("OpenBSD", "vmwpvs(4)", "5.5", InBox::Installer, ""),
    driver("NetBSD", "pvscsi(4)", "11.0", InBox::Installer, "Looks at 16 targets of 8 units."),
    driver("illumos", "pvscsi(4D)", "2022", InBox::Installer, ""),
    driver(
        "UEFI (EDK2: OVMF)",
        "PvScsiDxe",
        "edk2-stable202005",
        InBox::Extra,
        "Has to be built in (PVSCSI_ENABLE) since 202208. Targets 0 to 64, unit 0.",
    ),
    driver("SeaBIOS", "pvscsi", "1.7.4 (2013)", InBox::Installer, ""),
    driver("VMware ESXi as a guest", "pvscsi", "recent releases", InBox::Installer, ""),
    driver("macOS", "none", "-", InBox::Nobody, ""),
];

const FEATURES: &[Feature] = &[
    feature(
        "request-call threshold",
        Implemented,
        "The driver kicks for a read or write only when as many wait as the device says: never, while the device is awake.",
        answers(command::SETUP_REQCALLTHRESHOLD, 1),
    ),
    feature(
        "message ring",
        Implemented,
        "Units come and go, and the driver is told.",
        // Words of its descriptor: how a driver learns that the command is there.
        answers(command::SETUP_MSG_RING, 34),
    ),
    feature(
        "SETUP_RINGS",
        Implemented,
        "Rings of up to 32 pages.",
        answers(command::SETUP_RINGS, command_status::NOT_ENOUGH_DATA),
    ),
    feature(
        "aborts and resets",
        Implemented,
        "ABORT_CMD, RESET_DEVICE, RESET_BUS, ADAPTER_RESET.",
        answers(command::ABORT_CMD, command_status::NOT_ENOUGH_DATA),
    ),
    feature(
        "CONFIG",
        Implemented,
        "The controller's page; those of phys and devices are refused.",
        answers(command::CONFIG, command_status::NOT_ENOUGH_DATA),
    ),
    feature("GET_MAX_TARGETS", Implemented, "", answers(command::GET_MAX_TARGETS, 64)),
    feature(
        "scatter/gather lists",
        Implemented,
        "Lists that lead to further lists; 16384 elements a request.",
        Told,
    ),
    feature(
        "MSI-X",
        Implemented,
        "One vector. No register is touched for an interrupt.",
        Capability(capability::MSI_X),
    ),
    feature("MSI", Implemented, "One vector.", Capability(capability::MSI)),
    feature(
        "PCI Express, function level reset",
        Implemented,
        "Unless it is not wanted.",
        Capability(capability::PCI_EXPRESS),
    ),
    scsi::DISKS,
    scsi::CDROMS,
    scsi::RESERVATIONS,
    scsi::MULTIPATH,
    feature("vcpuHint of a request", Accepted, "There is one worker.", Told),
    feature(
        "ISSUE_SCSI",
        Refused,
        "A request without rings: no public driver uses it.",
        answers(command::ISSUE_SCSI, command_status::NOT_ENOUGH_DATA),
    ),
    feature(
        "DEVICE_UNPLUG",
        Refused,
        "No public driver uses it.",
        answers(command::DEVICE_UNPLUG, 3),
    ),
    feature(
        "I/O ports",
        Refused,
        "VMware has a BAR of them as well; no driver of today needs it.",
        Told,
    ),
    feature("CDBs of more than 16 bytes", Refused, "They have a flag and no specification.", Told),
    scsi::PROTECTION,
];

const LIMITS: &[Limit] = &[
    limit("requests in flight", "1024", "Rings hold 32 a page, of 32 pages at most."),
    limit("pages of rings", "32 of requests, 32 of completions, 16 of messages", "Powers of two."),
    limit("elements of a request", "16384", "Those that lead to another list included."),
    limit("targets", "256", "As many as its bus has; here 64. Linux asks for the number."),
    limit("units of a target", "16384", "Linux and FreeBSD look at unit 0 alone."),
    limit("CDB", "16 bytes", ""),
    limit("address width", "64 bits", ""),
];
