//! Machines that are saved in the middle of a job, thrown away, and restored in others that were just
//! made, over the same backend: the guest finds all its data, and loses no interrupt.

mod moment;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use paraslot_backends::net::{NetBackend, Sink};
use paraslot_device::{Executor, Host};
use paraslot_pci::PciDevice;
use paraslot_protocol::{Access, Completion, Device, Header, Job, NetJob, Traffic};
use paraslot_tests::image::patterned;
use paraslot_tests::parts;
use paraslot_vmm::in_process::GuestRam;
use paraslot_vmm::{Path, Snapshot, Vm, VmConfig, VmError};

use crate::{MEMORY, SLOT, all_went_well, disks, kvm, networks, thread};
use moment::Counting;

const LIMIT: Duration = Duration::from_secs(120);

type Make<'a> = dyn Fn(Host<GuestRam>) -> Box<dyn PciDevice> + 'a;

/// A machine with the device, which stands still after so many services of its workers.
fn machine(path: Path, make: &Make<'_>, services: Option<u64>) -> Vm {
    let mut vm = Vm::new(&VmConfig::new(MEMORY, path)).expect("a machine");
    let executor = thread(Duration::ZERO);
    let executor: Arc<dyn Executor> = match services {
        Some(services) => Arc::new(Counting::new(executor, vm.handle(), services)),
        None => executor,
    };
    let device = make(vm.host(SLOT, executor));
    vm.plug(SLOT, Arc::new(Mutex::new(device))).expect("a free slot");
    vm
}

/// When and where to a machine moves.
struct Moves<'a> {
    /// The paths of machines, in turn.
    paths: &'a [Path],
    /// It moves when the device's workers have been serviced so many times since the last move.
    services: &'a [u64],
    /// It moves at each of the guest's marks, too.
    marks: bool,
}

/// Runs a job on the device that `make` makes, in one machine after the other. Returns how often it moved.
fn run(moves: &Moves<'_>, job: Job, make: &Make<'_>) -> (Header, usize) {
    let mut paths = moves.paths.iter().copied().cycle();
    let mut services = moves.services.iter().copied();
    let mut next = || machine(paths.next().expect("a path"), make, services.next());
    let mut vm = next();
    let job = job.with_tsc_hz(vm.tsc_hz());
    vm.load(paraslot_guest::IMAGE, &job.to_string()).expect("the guest fits");
    let mut count = 0;
    loop {
        let handle = vm.handle();
        let mut on_phase = |_| {
            if moves.marks {
                handle.suspend();
            }
        };
        match vm.run(LIMIT, &mut on_phase) {
            Ok(run) => return (all_went_well(&job, &run.console), count),
            Err(VmError::Suspended) => {}
            Err(error) => panic!("{job}: after {count} moves: {error}"),
        }
        let directory = tempfile::tempdir().expect("a directory");
        vm.save(directory.path()).unwrap_or_else(|error| panic!("{job}: {error}"));
        drop(vm);
        count += 1;
        vm = next();
        let snapshot = Snapshot::open(directory.path()).expect("a snapshot");
        vm.restore(&snapshot).unwrap_or_else(|error| panic!("{job}: {error}"));
    }
}

/// Moves in the middle of the work, from one path to the other, and at marks. The first service is while
/// the guest sets its device up.
const COURSES: [Moves<'_>; 4] = [
    Moves { paths: &[Path::Event], services: &[3, 20, 50, 1, 70], marks: false },
    Moves { paths: &[Path::Event, Path::Trap], services: &[1, 2, 7, 31], marks: false },
    Moves { paths: &[Path::Trap, Path::Event], services: &[2, 5, 40], marks: true },
    Moves { paths: &[Path::Trap], services: &[4, 28, 2], marks: false },
];

fn disk_goes_on(device: Device) {
    if !kvm() {
        return;
    }
    for (course, completion, access) in [
        (0, Completion::Interrupt, Access::RandomWrite),
        (0, Completion::Poll, Access::RandomRead),
        (1, Completion::Interrupt, Access::RandomWrite),
        (2, Completion::Interrupt, Access::RandomRead),
        (3, Completion::Interrupt, Access::RandomWrite),
    ] {
        let course: &Moves<'_> = &COURSES[course];
        let job = disks::job(device, access, completion, 8);
        let backend = Arc::new(patterned(disks::CAPACITY));
        let make = |host| parts::disk(device, backend.clone(), host);
        let (header, moves) = run(course, Job::Disk(job), &make);
        // How often depends on how much a worker finds to do at once.
        assert!(moves > 0, "{job}");
        assert_eq!(header.operations.get(), job.operations, "{job}");
        // Of what was written, each block that was; and that no interrupt is lost, the guest sees to.
        assert!(header.verified.get() > 0, "{job}");
    }
}

#[test]
fn virtio_blk_goes_on_in_another_machine() {
    disk_goes_on(Device::VirtioBlk);
}

#[test]
fn virtio_scsi_goes_on_in_another_machine() {
    disk_goes_on(Device::VirtioScsi);
}

#[test]
fn pvscsi_goes_on_in_another_machine() {
    disk_goes_on(Device::Pvscsi);
}

#[test]
fn ahci_goes_on_in_another_machine() {
    disk_goes_on(Device::Ahci);
}

/// Every frame of the host's arrives, once and in order; every frame of the guest's is sent, once.
fn network_goes_on(device: Device) {
    if !kvm() {
        return;
    }
    for (course, completion, traffic) in [
        (0, Completion::Interrupt, Traffic::Receive),
        (0, Completion::Interrupt, Traffic::Transmit),
        (1, Completion::Interrupt, Traffic::Receive),
        (2, Completion::Poll, Traffic::Transmit),
        (3, Completion::Poll, Traffic::Receive),
    ] {
        let course: &Moves<'_> = &COURSES[course];
        let job = NetJob { operations: 640, ..networks::job(device, traffic, completion, 8) };
        let sink = Arc::new(Sink::new(1).expect("a sink"));
        let port: Arc<dyn NetBackend> = match traffic {
            Traffic::Transmit => sink.clone(),
            _ => Arc::new(networks::generator()),
        };
        let make = |host| networks::adapter(device, port.clone(), host).0;
        let (header, moves) = run(course, Job::Net(job), &make);
        assert!(moves > 0, "{job}");
        assert_eq!(header.operations.get(), job.operations, "{job}");
        assert_eq!((header.lost.get(), header.reordered.get()), (0, 0), "{job}");
        if traffic == Traffic::Transmit {
            assert_eq!(sink.frames(), job.operations, "{job}");
        } else {
            assert_eq!(header.verified.get(), job.operations, "{job}");
        }
    }
}

#[test]
fn virtio_net_goes_on_in_another_machine() {
    network_goes_on(Device::VirtioNet);
}

#[test]
fn vmxnet3_goes_on_in_another_machine() {
    network_goes_on(Device::Vmxnet3);
}

#[test]
fn e1000_goes_on_in_another_machine() {
    network_goes_on(Device::E1000);
}
