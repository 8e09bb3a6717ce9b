//! Machines with a disk, and a driver's hand on it.

use std::sync::Arc;

use paraslot_ahci::DiskOptions;
use paraslot_backends::block::{BlockBackend, MemoryBackend};
use paraslot_drivers::pvscsi::Signal;
use paraslot_drivers::{Completion, Completions, Disk, DmaRegion, Error, Op, Platform};
use paraslot_pci::Bdf;
use paraslot_protocol::Device;
use paraslot_protocol::{PATTERN_STEP, pattern_base};
use paraslot_scsi::Bus;
use paraslot_tests::scsi::one_disk;
use paraslot_virtio_blk::{Options as VirtioBlkOptions, VirtioBlk};
use paraslot_virtio_scsi::VirtioScsi;
use paraslot_vmm::in_process::{InProcess, Machine};

use crate::place::plug;

/// Where the disk is plugged in.
pub(crate) const SLOT: Bdf = Bdf::root(3);
/// Bytes of the disk.
pub(crate) const CAPACITY: u64 = 2 << 20;
/// Bytes of the machine's memory.
pub(crate) const MEMORY: usize = 64 << 20;
/// Nanoseconds that a test waits before it fails.
const PATIENCE: u64 = 30_000_000_000;

/// Doorbells and interrupts by eventfds, and reads from pages that the device shares.
pub(crate) fn events(machine: Machine) -> Machine {
    Machine { doorbell_events: true, read_windows: true, interrupt_events: true, ..machine }
}

/// An image that holds what the workload expects.
pub(crate) fn image() -> MemoryBackend {
    paraslot_tests::image::patterned(2 << 20)
}

pub(crate) fn virtio_blk(machine: &Machine, backend: impl BlockBackend + 'static) -> InProcess {
    virtio_blk_with(machine, backend, &VirtioBlkOptions::default())
}

pub(crate) fn virtio_blk_with(
    machine: &Machine,
    backend: impl BlockBackend + 'static,
    options: &VirtioBlkOptions,
) -> InProcess {
    let machine = InProcess::new(machine).unwrap();
    plug(&machine, SLOT, VirtioBlk::new(Arc::new(backend), options).unwrap());
    machine
}

pub(crate) fn ahci(machine: &Machine, backend: impl BlockBackend + 'static) -> InProcess {
    let machine = InProcess::new(machine).unwrap();
    let mut options = paraslot_ahci::Options::new([DiskOptions::new(Arc::new(backend))]);
    // The disk is not at the first port.
    options.ports.swap(0, AHCI_PORT.into());
    plug(&machine, SLOT, options);
    machine
}

/// virtio-scsi with one request queue.
pub(crate) fn virtio_scsi(machine: &Machine, bus: Bus) -> InProcess {
    let machine = InProcess::new(machine).unwrap();
    let options = paraslot_virtio_scsi::Options::default();
    plug(&machine, SLOT, VirtioScsi::new(bus, &options).unwrap());
    machine
}

pub(crate) fn pvscsi(machine: &Machine, bus: Bus) -> InProcess {
    let machine = InProcess::new(machine).unwrap();
    plug(&machine, SLOT, (bus, paraslot_pvscsi::Options::default()));
    machine
}

/// The disks that there are.
pub(crate) const DISKS: [Device; 4] =
    [Device::VirtioBlk, Device::VirtioScsi, Device::Pvscsi, Device::Ahci];

/// A machine with the disk that `device` names.
pub(crate) fn plugged(
    device: Device,
    machine: &Machine,
    backend: impl BlockBackend + 'static,
) -> InProcess {
    match device {
        Device::VirtioBlk => virtio_blk(machine, backend),
        Device::VirtioScsi => virtio_scsi(machine, one_disk(Arc::new(backend))),
        Device::Pvscsi => pvscsi(machine, one_disk(Arc::new(backend))),
        Device::Ahci => ahci(machine, backend),
        other => panic!("{other} is no disk"),
    }
}

/// The ways in which pvscsi's driver has it interrupt.
pub(crate) const SIGNALS: [Signal; 3] = [Signal::Best, Signal::Msi, Signal::Pin];

/// The AHCI port with the disk.
pub(crate) const AHCI_PORT: u8 = 2;

/// A disk, and how its completions are learned of.
pub(crate) struct Driver<'p, D> {
    pub(crate) platform: &'p InProcess,
    pub(crate) disk: D,
    interrupts: bool,
    taken: u64,
}

impl<'p, D: Disk> Driver<'p, D> {
    pub(crate) fn new(platform: &'p InProcess, disk: Result<D, Error>, interrupts: bool) -> Self {
        let mut disk = disk.unwrap();
        if interrupts {
            disk.set_interrupts(true).unwrap();
        }
        let taken = platform.interrupts_taken(disk.interrupt());
        Self { platform, disk, interrupts, taken }
    }

    /// Looks once.
    pub(crate) fn look(&mut self, completions: &mut Completions) {
        if self.interrupts {
            let index = self.disk.interrupt();
            self.platform.wait_for_interrupt(index, self.taken);
            let taken = self.platform.interrupts_taken(index);
            if taken != self.taken {
                self.taken = taken;
                self.disk.handle(completions).unwrap();
            }
        } else {
            self.platform.relax();
            self.disk.poll(completions).unwrap();
        }
    }

    /// Handles an interrupt whose completions were looked for without it, if there was one.
    pub(crate) fn catch_up(&mut self) {
        self.platform.settle();
        if self.interrupts {
            let mut completions = Completions::new();
            self.disk.handle(&mut completions).unwrap();
            assert!(completions.is_empty());
        }
        self.taken = self.platform.interrupts_taken(self.disk.interrupt());
    }

    /// Looks until `count` requests have completed.
    pub(crate) fn wait(&mut self, count: usize) -> Vec<Completion> {
        let start = self.platform.tsc();
        let mut completions = Completions::new();
        while completions.len() < count {
            assert!(self.platform.tsc() - start < PATIENCE, "{completions:?} of {count}");
            self.look(&mut completions);
        }
        assert_eq!(completions.len(), count);
        completions.as_slice().to_vec()
    }

    /// Does one request.
    pub(crate) fn run(&mut self, offset: u64, op: Op<'_>) -> Completion {
        self.disk.submit(0, offset, op).unwrap();
        self.disk.kick().unwrap();
        let completions = self.wait(1);
        assert_eq!(completions[0].tag, 0);
        completions[0]
    }

    /// Does one request, which must succeed.
    pub(crate) fn good(&mut self, offset: u64, op: Op<'_>) {
        assert_eq!(self.run(offset, op).result, Ok(()), "{op:?} at {offset}");
    }

    /// Submits a request for each region, tags from 0 on, blocks of 4 KiB from `block` on, and kicks
    /// once.
    pub(crate) fn start(&mut self, block: u64, regions: &[DmaRegion], write: bool) {
        for ((tag, block), region) in (0..).zip(block..).zip(regions) {
            let op = if write { Op::Write(region) } else { Op::Read(region) };
            self.disk.submit(tag, block * 4096, op).unwrap();
        }
        self.disk.kick().unwrap();
    }
}

/// Regions of 4 KiB.
pub(crate) fn regions(platform: &InProcess, count: usize) -> Vec<DmaRegion> {
    (0..count).map(|_| platform.allocate(4096).unwrap()).collect()
}

/// Whether the region holds what block `block` of the image did at first.
pub(crate) fn is_initial(region: &DmaRegion, block: u64) -> bool {
    region.matches_pattern(0, 4096, pattern_base(block * 4096, 0), PATTERN_STEP)
}

/// Reads the image behind the device's back.
pub(crate) fn on_image(image: &MemoryBackend, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    image.read_at(offset, &mut data).unwrap();
    data
}
