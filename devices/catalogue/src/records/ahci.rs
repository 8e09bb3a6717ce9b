//! AHCI.

use paraslot_ahci::{Ahci, DiskOptions, Options};
use paraslot_device::DeviceError;
use paraslot_pci::PciDevice;
use paraslot_spec::ahci::{Cap, PORT_SIZE, PORTS, host, port};
use paraslot_spec::pci::capability;

use super::{
    DISK_LIMITS, HOTPLUG, MIGRATION, SNAPSHOT, VIOMMU, attack, door, driver, feature, instead,
    limit, register, told,
};
use crate::entry::Access::{Read, ReadWrite, WriteOneToClear, WriteOneToSet};
use crate::entry::Evidence::{Bits, Capability, Told};
use crate::entry::State::{Accepted, Implemented, Refused};
use crate::entry::{
    Block, Boot, Driver, Entry, Evidence, Family, Feature, InBox, Kind, Limit, Operations, Report,
    Security,
};
use crate::live;

fn make() -> Result<Box<dyn PciDevice>, DeviceError> {
    let disk = DiskOptions::new(live::image()?);
    Ok(Box::new(Ahci::new(Options::new([disk]), live::host()?)?))
}

/// Whether CAP has a bit.
const fn capable(bit: Cap) -> Evidence {
    Bits { bar: 5, offset: host::CAP as u64, mask: bit.bits(), value: bit.bits() }
}

pub(crate) const ENTRY: Entry = Entry {
    name: "ahci",
    family: Family::Emulated,
    kind: Kind::Disk,
    title: "Intel's SATA controller of 2007 (ICH9), which every system knows",
    summary: "The hardware that paravirtual disks replace: a controller with ports, command lists in memory, and registers \
        that a driver touches four to seven times for a request, each an exit. Its registers have no side effects when \
        read, so they are mapped and a read costs none; the writes stay. For systems without a better driver, for \
        installation media, and as the measure of what paravirtualization saves.",
    history: "Written by a group that Intel led: AHCI 1.0 in 2004, 1.3.1 the last. ICH9 is Intel's I/O hub of 2007, with six \
        SATA ports behind 8086:2922; QEMU's ich9-ahci (2010) and its q35 machine made it the common virtual form. It took \
        the place of IDE; on hardware, NVMe has taken its.",
    specification: "Serial ATA AHCI 1.3.1; ATA/ATAPI Command Set 3; Serial ATA 3.0",
    package: "paraslot-ahci; its CD-ROM drives are paraslot-scsi's",
    drivers: DRIVERS,
    boot: Boot {
        firmware: "UEFI by EDK2 (OVMF, CloudHv), SeaBIOS, and every firmware of a PC since 2005 or so.",
        pxe: "No: it has disks.",
        cdrom: "Yes: ATAPI drives start under either firmware, and every installer finds them.",
        from_vmware: "If it used SATA there: VMware's controller has another ID, but drivers bind by class. A Windows that \
            started from IDE or SCSI has the driver switched off.",
    },
    features: FEATURES,
    limits: LIMITS,
    registers: &[
        Block {
            name: "Generic host control (3.1)",
            bar: 5,
            base: 0,
            repeated: None,
            negotiated: false,
            registers: &[
                register("CAP", host::CAP as u64, 4, Read, "What the controller can do."),
                register(
                    "GHC",
                    host::GHC as u64,
                    4,
                    ReadWrite,
                    "HR resets, and reads 1 until that is done; IE lets interrupts out; AE is always 1.",
                ),
                register(
                    "IS",
                    host::IS as u64,
                    4,
                    WriteOneToClear,
                    "Ports with an interrupt, a bit each.",
                ),
                register("PI", host::PI as u64, 4, Read, "Ports that there are, a bit each."),
                register("VS", host::VS as u64, 4, Read, "1.3.1."),
                register("CCC_CTL", host::CCC_CTL as u64, 4, Read, "Not there: 0."),
                register("CCC_PORTS", host::CCC_PORTS as u64, 4, Read, "Not there: 0."),
                register("EM_LOC", host::EM_LOC as u64, 4, Read, "Not there: 0."),
                register("EM_CTL", host::EM_CTL as u64, 4, Read, "Not there: 0."),
                register("CAP2", host::CAP2 as u64, 4, Read, "Nothing more: 0."),
                register("BOHC", host::BOHC as u64, 4, Read, "Not there: 0."),
            ],
        },
        Block {
            name: "Ports (3.3)",
            bar: 5,
            base: PORTS as u64,
            repeated: Some((6, PORT_SIZE as u64)),
            negotiated: false,
            registers: &[
                register("PxCLB", port::CLB as u64, 4, ReadWrite, "Command list's address."),
                register("PxCLBU", port::CLBU as u64, 4, ReadWrite, "Its upper half."),
                register("PxFB", port::FB as u64, 4, ReadWrite, "Address for received FISes."),
                register("PxFBU", port::FBU as u64, 4, ReadWrite, "Its upper half."),
                register(
                    "PxIS",
                    port::IS as u64,
                    4,
                    WriteOneToClear,
                    "Causes of the port's interrupt. An exit for each interrupt.",
                ),
                register("PxIE", port::IE as u64, 4, ReadWrite, "Causes that interrupt."),
                register(
                    "PxCMD",
                    port::CMD as u64,
                    4,
                    ReadWrite,
                    "ST runs the command list, FRE receives FISes; CR and FR say when.",
                ),
                register("PxTFD", port::TFD as u64, 4, Read, "The device's status and error."),
                register("PxSIG", port::SIG as u64, 4, Read, "What the device is."),
                register(
                    "PxSSTS",
                    port::SSTS as u64,
                    4,
                    Read,
                    "Whether there is a device, and its link.",
                ),
                register(
                    "PxSCTL",
                    port::SCTL as u64,
                    4,
                    ReadWrite,
                    "DET resets the link (COMRESET).",
                ),
                register(
                    "PxSERR",
                    port::SERR as u64,
                    4,
                    WriteOneToClear,
                    "Errors and changes of the link.",
                ),
                register(
                    "PxSACT",
                    port::SACT as u64,
                    4,
                    WriteOneToSet,
                    "Queued commands under way. Ones are set while ST is, which an exit a request takes.",
                ),
                register(
                    "PxCI",
                    port::CI as u64,
                    4,
                    WriteOneToSet,
                    "Commands issued, likewise: the doorbell, and since its value matters always an exit.",
                ),
                register("PxSNTF", port::SNTF as u64, 4, Read, "Not there: 0."),
                register("PxFBS", port::FBS as u64, 4, Read, "Not there: 0."),
                register("PxDEVSLP", port::DEVSLP as u64, 4, Read, "Not there: 0."),
            ],
        },
    ],
    operations: Operations {
        hotplug: HOTPLUG,
        changes: "Disks and drives come and go at any port (`Control`), as with a hot-plug cage; discs come and go in drives. A \
            disk's size is what it was at its last hardware reset.",
        reset: "GHC.HR, COMRESET, software reset, DEVICE RESET. Each is over when no operation is with a backend any more. No \
            function level reset.",
        snapshot: SNAPSHOT,
        migration: MIGRATION,
        viommu: VIOMMU,
        limits: DISK_LIMITS,
    },
    security: Security {
        surface: "Larger than a paravirtual disk's: ports, command tables, FISes, PRD tables, some forty ATA commands, PIO, and \
            ATAPI packets with the CD-ROM's command set.",
        footprint: "3.4 MiB a port, whatever the guest does; 0.3 MiB with one that behaves like Linux.",
        fuzz: &["ahci", "cdbs"],
        others: &[
            attack(
                "CVE-2023-5088",
                "QEMU: a reset in the middle of a request sent it to sector 0.",
            ),
            attack("CVE-2020-29443", "QEMU's ATAPI: address −1, a read outside of the buffer."),
            attack(
                "CVE-2016-1568",
                "QEMU: an invalid NCQ command kept its slot, used after it was freed.",
            ),
            attack("CVE-2015-5154", "QEMU's ATAPI: PIO beyond the buffer's end, heap overflow."),
            attack("CVE-2014-9718", "QEMU: a PRD table of less than a sector, DMA without end."),
        ],
    },
    constructor: "let options = paraslot_ahci::Options::new([DiskOptions::new(Arc::new(backend))]);\nlet function = Ahci::new(options, host)?;",
    elsewhere: &[
        door(
            "QEMU's own",
            "-device ich9-ahci,id=ahci0 -drive if=none,id=d0,file=disk.img,format=raw -device ide-hd,bus=ahci0.0,drive=d0",
        ),
        door(
            "libvirt",
            "<controller type='sata' index='0'/>\n<disk type='file' device='disk'>\n  <source file='disk.img'/>\n  \
             <target dev='sda' bus='sata'/>\n</disk>",
        ),
        door("Cloud Hypervisor's own", "none: by vfio-user, or in a fork"),
        door(
            "VMware",
            "sata0.present = \"TRUE\"\nsata0:0.present = \"TRUE\"\nsata0:0.deviceType = \"cdrom-image\"\nsata0:0.fileName = \"install.iso\"",
        ),
    ],
    instead: &[
        instead(
            "virtio-blk",
            "the guest has virtio's drivers: no exits where this has four an operation",
        ),
        instead(
            "virtio-scsi",
            "the same, and there are more disks than ports, or CD-ROM drives beside them",
        ),
        instead("pvscsi", "the guest comes from VMware and starts from pvscsi there"),
    ],
    make,
};

const DRIVERS: &[Driver] = &[
    driver("Linux", "ahci", "2.6.19 (2006)", InBox::Installer, "Binds by class."),
    driver(
        "Windows",
        "storahci; msahci up to 7",
        "Vista",
        InBox::Installer,
        "One that was installed to IDE has it switched off. XP takes a driver from floppy.",
    ),
    driver("FreeBSD", "ahci(4)", "8.0", InBox::Installer, "ata(4) before that."),
    driver("OpenBSD", "ahci(4)", "4.1", InBox::Installer, ""),
    driver("NetBSD", "ahcisata(4)", "2006", InBox::Installer, ""),
    driver("DragonFly BSD", "ahci", "2.4", InBox::Installer, ""),
    driver("illumos, Solaris", "ahci(4D)", "Solaris 10 8/07", InBox::Installer, ""),
    driver("macOS", "AppleAHCIPort", "10.4 on Intel's processors", InBox::Installer, ""),
    driver(
        "UEFI (EDK2: OVMF, CloudHv)",
        "SataControllerDxe, AtaAtapiPassThru",
        "2015",
        InBox::Installer,
        "",
    ),
    driver("SeaBIOS", "ahci", "0.6.2 (2010)", InBox::Installer, ""),
    driver("VMware ESXi as a guest", "vmw_ahci", "6.5; ahci before that", InBox::Installer, ""),
];

const FEATURES: &[Feature] = &[
    feature(
        "native command queuing (SNCQ)",
        Implemented,
        "32 commands a port, with the error log that recovers from one.",
        capable(Cap::SNCQ),
    ),
    feature("64-bit addresses (S64A)", Implemented, "", capable(Cap::S64A)),
    feature("command list override (SCLO)", Implemented, "", capable(Cap::SCLO)),
    feature(
        "AHCI mode only (SAM)",
        Implemented,
        "There is no IDE interface to fall back to.",
        capable(Cap::SAM),
    ),
    feature("PIO of several blocks (PMD)", Implemented, "", capable(Cap::PMD)),
    feature("hot plug", Implemented, "At every port; PxCMD.HPCP says so.", Told),
    feature("TRIM", Implemented, "Where the image can punch holes.", Told),
    feature(
        "write cache, FUA, flush",
        Implemented,
        "Where the image has a cache that can be lost.",
        Told,
    ),
    feature("SMART and logs", Implemented, "Without self-tests and error logs.", Told),
    feature(
        "ATAPI drives",
        Implemented,
        "Packets of 12 bytes, by DMA and PIO; discs come and go.",
        Told,
    ),
    feature(
        "registers readable without an exit",
        Implemented,
        "They lie in a page that the host maps.",
        Told,
    ),
    feature("MSI", Implemented, "One vector.", Capability(capability::MSI)),
    feature("activity LED of ATAPI", Accepted, "PxCMD.ATAPI is kept.", Told),
    feature("IDLE and STANDBY timers", Accepted, "They do not run.", Told),
    feature("port multipliers (SPM)", Refused, "", capable(Cap::SPM)),
    feature("FIS-based switching (FBSS)", Refused, "", capable(Cap::FBSS)),
    feature("command completion coalescing (CCCS)", Refused, "", capable(Cap::CCCS)),
    feature("enclosure management (EMS)", Refused, "", capable(Cap::EMS)),
    feature(
        "link power management (SALP, PSC, SSC)",
        Refused,
        "The link costs nothing.",
        capable(Cap::SALP),
    ),
    feature("staggered spin-up (SSS)", Refused, "", capable(Cap::SSS)),
    feature(
        "index-data pair",
        Refused,
        "With it, real-mode firmware of an ICH9 reaches the registers by ports.",
        Capability(capability::SATA),
    ),
    feature("MSI-X", Refused, "An ICH9 has none.", Capability(capability::MSI_X)),
];

const LIMITS: &[Limit] = &[
    told(
        "ports",
        "1 to 32; 6 unless told",
        "A device each.",
        Report { bar: 5, offset: host::CAP as u64, width: 4, bits: (0, 5), value: 5 },
    ),
    told(
        "commands of a port",
        "32",
        "",
        Report { bar: 5, offset: host::CAP as u64, width: 4, bits: (8, 5), value: 31 },
    ),
    limit("PRD entries of a command", "65535", "Of up to 4 MiB each."),
    limit("sectors of a command", "65536", "32 MiB of 512 bytes each."),
    limit("sectors of a disk", "2^48", "128 PiB."),
    limit("block", "512 or 4096 bytes, the image's", ""),
    limit("address width", "64 bits", ""),
];
