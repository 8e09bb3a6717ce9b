//! The disks of a test, at adapters of one kind.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use paraslot_ahci::{Ahci, PacketOptions};
use paraslot_backends::block::{
    BlockBackend, FileBackend, FileOptions, MemoryBackend, MemoryOptions,
};
use paraslot_pci::SharedDevice;
use paraslot_pvscsi::Pvscsi;
use paraslot_scsi::{Address, Bus, CdromOptions, DiskOptions, LogicalUnit};
use paraslot_tests::scsi::bus;
use paraslot_virtio_blk::{Control, VirtioBlk};
use paraslot_virtio_pci::VirtioPci;
use paraslot_virtio_scsi::VirtioScsi;

use crate::disks::disc::disc;
use crate::disks::tally::Tallied;
use crate::guest::{GuestHost, Machine};

/// Bytes of the disks. The scripts tell them apart by their sizes.
pub(crate) const MAIN: u64 = 256 << 20;
pub(crate) const SCRATCH: u64 = 64 << 20;
pub(crate) const SMALL: u64 = 48 << 20;
pub(crate) const READ_ONLY: u64 = 8 << 20;
pub(crate) const PLUGGED: u64 = 20 << 20;
/// By how much the scratch disk grows.
pub(crate) const GROWTH: u64 = 4 << 20;
/// Bytes of the file on a disc.
const DISC: usize = 3 << 20;
/// A port of AHCI without a disk.
const FREE_PORT: usize = 5;
/// The slot of the disk with the tools.
const TOOLS_SLOT: u8 = 3;

/// Kinds of adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    VirtioBlk,
    VirtioScsi,
    Pvscsi,
    Ahci,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::VirtioBlk, Self::VirtioScsi, Self::Pvscsi, Self::Ahci];

    /// The driver that binds to the PCI function, and the module that drives the disks.
    fn driver(self) -> (&'static str, &'static str) {
        match self {
            Self::VirtioBlk => ("virtio-pci", "virtio_blk"),
            Self::VirtioScsi => ("virtio-pci", "virtio_scsi"),
            Self::Pvscsi => ("vmw_pvscsi", "vmw_pvscsi"),
            Self::Ahci => ("ahci", "ahci"),
        }
    }

    /// By what the driver gets interrupts.
    fn vectors(self) -> &'static str {
        if self == Self::Ahci { "msi" } else { "msix" }
    }

    /// How many vectors the driver asks for, on so many processors.
    pub(crate) fn vectors_for(self, cpus: u8) -> u32 {
        match self {
            // One for changes of the configuration, and the queues'.
            Self::VirtioBlk => 1 + u32::from(cpus.min(2)),
            // The same, with the control and the event queue.
            Self::VirtioScsi => 3 + u32::from(cpus.min(2)),
            Self::Pvscsi | Self::Ahci => 1,
        }
    }

    /// The resets that the driver can be asked for.
    fn resets(self) -> &'static str {
        if self == Self::Pvscsi { "'device host'" } else { "device" }
    }

    /// Whether the disks are units of a SCSI bus.
    pub(crate) fn is_scsi(self) -> bool {
        matches!(self, Self::VirtioScsi | Self::Pvscsi)
    }

    /// Slots of the main disk, the scratch disk, the small one and the read-only one.
    fn slots(self) -> [u8; 4] {
        match self {
            // A function each. Three of them share a pin.
            Self::VirtioBlk => [4, 5, 12, 8],
            _ => [4, 4, 8, 8],
        }
    }

    /// A function with one disk.
    pub(crate) fn one(self, disk: Arc<dyn BlockBackend>, host: GuestHost) -> SharedDevice {
        match self {
            Self::VirtioBlk => virtio_blk(disk, host).0,
            Self::VirtioScsi => virtio_scsi(&units([disk]), host),
            Self::Pvscsi => pvscsi(&units([disk]), host),
            Self::Ahci => ahci([disk], None, host).0,
        }
    }
}

fn share(device: impl paraslot_pci::PciDevice + 'static) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

fn virtio_blk(disk: Arc<dyn BlockBackend>, host: GuestHost) -> (SharedDevice, Control) {
    let options = paraslot_virtio_blk::Options { queues: 2, ..Default::default() };
    let device = VirtioBlk::new(disk, &options).expect("a disk");
    let control = device.control();
    (share(VirtioPci::new(device, host).expect("a function")), control)
}

fn virtio_scsi(bus: &Bus, host: GuestHost) -> SharedDevice {
    let options = paraslot_virtio_scsi::Options { request_queues: 2, ..Default::default() };
    let device = VirtioScsi::new(bus.clone(), &options).expect("an adapter");
    share(VirtioPci::new(device, host).expect("a function"))
}

fn pvscsi(bus: &Bus, host: GuestHost) -> SharedDevice {
    share(Pvscsi::new(bus.clone(), Default::default(), host).expect("a function"))
}

fn ahci(
    disks: impl IntoIterator<Item = Arc<dyn BlockBackend>>,
    drive: Option<Arc<LogicalUnit>>,
    host: GuestHost,
) -> (SharedDevice, paraslot_ahci::Control) {
    let disks = disks.into_iter().map(paraslot_ahci::DiskOptions::new);
    let mut options = paraslot_ahci::Options::new(disks);
    options.ports[2] = drive.map(|drive| PacketOptions::new(drive).into());
    let device = Ahci::new(options, host).expect("a function");
    let control = device.control();
    (share(device), control)
}

fn target(target: u8) -> Address {
    Address { target, lun: 0 }
}

/// A bus with these disks, a target each.
fn units(disks: impl IntoIterator<Item = Arc<dyn BlockBackend>>) -> Bus {
    let bus = bus();
    for (number, disk) in disks.into_iter().enumerate() {
        let unit = LogicalUnit::disk(DiskOptions::new(disk)).expect("a disk");
        let number = u8::try_from(number).expect("a target");
        bus.attach(target(number), unit).expect("a free place");
    }
    bus
}

/// A disk in a file, which tells how much of it is in use.
pub(crate) struct Image {
    path: PathBuf,
    pub(crate) backend: Arc<Tallied<FileBackend>>,
}

impl Image {
    fn new(directory: &Path, name: &str, size: u64) -> Self {
        let path = directory.join(name);
        File::create(&path).and_then(|file| file.set_len(size)).expect("an image");
        let backend = FileBackend::open(&FileOptions::new(&path)).expect("an image");
        Self { path, backend: Arc::new(Tallied::new(backend)) }
    }

    /// Bytes that the file takes.
    pub(crate) fn allocated(&self) -> u64 {
        std::fs::metadata(&self.path).expect("the image").blocks() * 512
    }

    fn grow(&self, by: u64) {
        let file = File::options().write(true).open(&self.path).expect("the image");
        let size = file.metadata().expect("the image").len();
        file.set_len(size + by).expect("room");
        self.backend.inner().refresh().expect("a size");
    }
}

/// The disks, and what their owner can do with them.
pub(crate) struct Rig {
    kind: Kind,
    pub(crate) main: Image,
    pub(crate) scratch: Image,
    /// Of a virtio-blk scratch disk.
    control: Option<Control>,
    /// With the scratch disk.
    bus: Option<Bus>,
    /// The same, of AHCI.
    ports: Option<paraslot_ahci::Control>,
    drive: Option<Arc<LogicalUnit>>,
    plugged: Arc<dyn BlockBackend>,
    _directory: tempfile::TempDir,
}

impl Rig {
    /// Plugs the disks, and the tools at an adapter of another kind, into a machine.
    pub(crate) fn new(kind: Kind, machine: &mut Machine<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let main = Image::new(directory.path(), "main", MAIN);
        let scratch = Image::new(directory.path(), "scratch", SCRATCH);
        let memory = |size, options| -> Arc<dyn BlockBackend> {
            Arc::new(MemoryBackend::new(size, options).expect("memory"))
        };
        let small = MemoryOptions { logical_block: 4096, id: "small".into(), ..Default::default() };
        let small = memory(SMALL, small);
        let read_only = MemoryOptions { read_only: true, id: "ro".into(), ..Default::default() };
        let read_only = memory(READ_ONLY, read_only);
        let plugged = MemoryOptions { id: "plugged".into(), ..Default::default() };
        let plugged = memory(PLUGGED, plugged);

        let mut rig = Self {
            kind,
            main,
            scratch,
            control: None,
            bus: None,
            ports: None,
            drive: None,
            plugged,
            _directory: directory,
        };
        let tools = machine.tools();
        let other = if kind == Kind::VirtioBlk { Kind::Pvscsi } else { Kind::VirtioBlk };
        machine.plug(TOOLS_SLOT, |host| other.one(tools, host));
        rig.plug(machine, small, read_only);
        rig
    }

    fn plug(
        &mut self,
        machine: &mut Machine<'_>,
        small: Arc<dyn BlockBackend>,
        read_only: Arc<dyn BlockBackend>,
    ) {
        let first: [Arc<dyn BlockBackend>; 2] =
            [self.main.backend.clone(), self.scratch.backend.clone()];
        if self.kind == Kind::VirtioBlk {
            let [main, scratch, small_slot, read_only_slot] = self.kind.slots();
            let [main_disk, scratch_disk] = first;
            machine.plug(main, |host| virtio_blk(main_disk, host).0);
            machine.plug(scratch, |host| {
                let (device, control) = virtio_blk(scratch_disk, host);
                self.control = Some(control);
                device
            });
            machine.plug(small_slot, |host| virtio_blk(small, host).0);
            machine.plug(read_only_slot, |host| virtio_blk(read_only, host).0);
            return;
        }
        let first_disc: Arc<dyn BlockBackend> = Arc::new(disc("first", DISC));
        let drive = LogicalUnit::cdrom(CdromOptions::new(Some(first_disc))).expect("a drive");
        self.drive = Some(drive.clone());
        let [one, _, two, _] = self.kind.slots();
        if self.kind == Kind::Ahci {
            machine.plug(one, |host| {
                let (device, control) = ahci(first, None, host);
                self.ports = Some(control);
                device
            });
            // An ATA disk has no way to say that it is read-only.
            machine.plug(two, |host| ahci([small], Some(drive), host).0);
            return;
        }
        let (one_bus, two_bus) = (units(first), units([small, read_only]));
        two_bus.attach(target(2), drive).expect("a free place");
        for (slot, bus) in [(one, &one_bus), (two, &two_bus)] {
            machine.plug(slot, |host| match self.kind {
                Kind::VirtioScsi => virtio_scsi(bus, host),
                _ => pvscsi(bus, host),
            });
        }
        self.bus = Some(one_bus);
    }

    /// What the scripts get to know, as settings of variables. `intx`: not by which vectors drivers
    /// get their interrupts otherwise.
    pub(crate) fn variables(&self, tools: u64, grown: bool, intx: bool) -> String {
        let (driver, module) = self.kind.driver();
        let [main, scratch, small, read_only] = self.kind.slots();
        let place = |slot: u8, bytes: u64| format!("'{slot:02x} {}'", bytes / 512);
        let yes = |value| if value { "yes" } else { "" };
        let (blk, ahci) = (self.kind == Kind::VirtioBlk, self.kind == Kind::Ahci);
        let lines = [
            ("tools", place(TOOLS_SLOT, tools)),
            ("main", place(main, MAIN)),
            ("scratch", place(scratch, if grown { SCRATCH + GROWTH } else { SCRATCH })),
            ("small", place(small, SMALL)),
            ("read_only", if ahci { String::new() } else { place(read_only, READ_ONLY) }),
            ("plugged", if blk { String::new() } else { place(scratch, PLUGGED) }),
            ("drive", format!("{small:02x}")),
            ("driver", driver.into()),
            ("module", module.into()),
            ("vectors", if intx { "intx".into() } else { self.kind.vectors().into() }),
            // pvscsi has no event for it: the unit's attention is all there is.
            ("rescan", yes(self.kind == Kind::Pvscsi).into()),
            ("resets", self.kind.resets().into()),
            ("full", "yes".into()),
        ];
        lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    /// Attaches another disk beside the scratch disk.
    pub(crate) fn attach(&self) {
        if let Some(ports) = &self.ports {
            let disk = paraslot_ahci::DiskOptions::new(self.plugged.clone());
            return ports.attach(FREE_PORT, disk).expect("a free port");
        }
        let unit = LogicalUnit::disk(DiskOptions::new(self.plugged.clone())).expect("a disk");
        self.bus.as_ref().expect("a bus").attach(target(9), unit).expect("a free place");
    }

    /// Takes it away.
    pub(crate) fn detach(&self) {
        if let Some(ports) = &self.ports {
            return ports.detach(FREE_PORT).expect("nothing in flight");
        }
        self.bus.as_ref().expect("a bus").detach(target(9)).expect("there is a unit");
    }

    /// Makes the scratch disk larger.
    pub(crate) fn grow(&self) {
        self.scratch.grow(GROWTH);
        if let Some(control) = &self.control {
            control.resize();
        }
        if let Some(bus) = &self.bus {
            bus.resize(target(1)).expect("a disk");
        }
        if let Some(ports) = &self.ports {
            ports.resize(1).expect("a disk");
        }
    }

    /// Takes the disc out of the drive, or puts the second one in.
    pub(crate) fn change_disc(&self, present: bool) {
        let disc = present.then(|| -> Arc<dyn BlockBackend> { Arc::new(disc("second", DISC)) });
        self.drive.as_ref().expect("a drive").change_medium(disc).expect("it is a drive");
    }
}
