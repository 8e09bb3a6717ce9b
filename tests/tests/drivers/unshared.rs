//! Machines that share no memory: what a function reads and writes of it goes by messages.

use std::sync::{Arc, Mutex};

use paraslot_backends::block::{
    BlockBackend, FileBackend, FileOptions, MemoryBackend, MemoryOptions,
};
use paraslot_device::Host;
use paraslot_pci::PciDevice;
use paraslot_protocol::{Access, Completion, Device, DiskJob, NetJob, Outcome, Status, Traffic};
use paraslot_tests::jobs::run;
use paraslot_tests::moving::{Moves, Moving};
use paraslot_tests::parts;
use paraslot_tests::served::{Served, executor};
use paraslot_vfio_user::{ClientSpace, Fault};
use paraslot_vmm::in_process::{InProcess, Machine};

use crate::machine::*;
use crate::net::MAC;
use crate::net::jobs::{self, other_end};
use crate::place::Place;

/// Workers on threads: those of the function's wait for the machine's, so nobody can step them.
fn unshared() -> Machine {
    Machine { shared_memory: false, ..Place::Served.threaded() }
}

/// A machine with a function that is served without its memory.
struct Lent {
    platform: InProcess,
    fault: Fault,
    // Dropped after the function, whose end it sees.
    _server: Served,
}

impl Lent {
    fn new(
        machine: &Machine,
        make: impl FnOnce(&InProcess, Host<ClientSpace>) -> Box<dyn PciDevice>,
    ) -> Self {
        let platform = InProcess::new(machine).unwrap();
        // Its workers wait for the machine's.
        let server = Served::with(executor(), |host| make(&platform, host));
        let function = server.connect(platform.host(SLOT));
        let fault = function.fault();
        platform.plug(SLOT, function).unwrap();
        Self { platform, fault, _server: server }
    }

    fn disk(device: Device, machine: &Machine, image: impl BlockBackend + 'static) -> Self {
        Self::new(machine, |_, host| parts::disk(device, Arc::new(image), host))
    }

    fn adapter(job: &NetJob, machine: &Machine) -> Self {
        let backend = other_end(job, 1);
        Self::new(machine, |platform, host| {
            parts::network(job.device, backend, MAC, platform.clock(), host).0
        })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.fault.take().is_none(), "the connection was lost");
        }
    }
}

const DISK: DiskJob = DiskJob {
    device: Device::VirtioBlk,
    access: Access::RandomRead,
    completion: Completion::Poll,
    block_size: 4096,
    depth: 8,
    span: CAPACITY,
    warm_up_ms: 0,
    measure_ms: 60_000,
    operations: 40,
    verify: true,
    seed: 7,
    tsc_hz: 0,
};

fn check(job: &DiskJob, outcome: &Outcome) {
    let header = &outcome.header;
    assert_eq!((outcome.status(), header.errors.get()), (Status::Ok, 0), "{job}");
    assert_eq!(header.operations.get(), job.operations);
    assert!(header.verified.get() > 0);
}

#[test]
fn every_disk_does_its_jobs() {
    for device in DISKS {
        for (machine, access, completion, block_size) in [
            (unshared(), Access::RandomRead, Completion::Poll, 4096),
            (unshared(), Access::RandomWrite, Completion::Interrupt, 4096),
            (events(unshared()), Access::RandomRead, Completion::Interrupt, 65536),
            (events(unshared()), Access::RandomWrite, Completion::Poll, 65536),
        ] {
            let job = DiskJob { device, access, completion, block_size, ..DISK };
            println!("{job}");
            let lent = Lent::disk(device, &machine, image());
            check(&job, &run(&lent.platform, job));
            assert_eq!(lent.platform.stray_interrupts(), 0);
        }
    }
}

#[test]
fn every_adapter_does_its_jobs() {
    for device in [Device::VirtioNet, Device::Vmxnet3, Device::E1000] {
        for (traffic, completion, frame_size) in [
            (Traffic::Transmit, Completion::Poll, 1514),
            (Traffic::Receive, Completion::Interrupt, 700),
            (Traffic::Request, Completion::Interrupt, 1514),
            (Traffic::Request, Completion::Poll, 65_536),
        ] {
            // e1000 has no frames that somebody has still to cut.
            let most = if device == Device::E1000 { 1514 } else { u32::MAX };
            let frame_size = frame_size.min(most);
            let job = NetJob {
                device,
                traffic,
                completion,
                frame_size,
                batch: 4,
                operations: 20,
                ..jobs::JOB
            };
            println!("{job}");
            let outcome = run(&Lent::adapter(&job, &events(unshared())).platform, job);
            assert_eq!(outcome.status(), Status::Ok, "{job}");
            jobs::check(&job, &outcome, false);
        }
    }
}

// The kernel reads and writes pages of the function's process on its own.
#[test]
fn a_file_is_read_and_written() {
    let image = image();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), on_image(&image, 0, usize::try_from(CAPACITY).unwrap())).unwrap();
    for access in [Access::SequentialRead, Access::RandomWrite] {
        for device in DISKS {
            let backend = FileBackend::open(&FileOptions::new(file.path())).unwrap();
            let job = DiskJob { device, access, completion: Completion::Interrupt, ..DISK };
            println!("{job}");
            check(&job, &run(&Lent::disk(device, &events(unshared()), backend).platform, job));
        }
    }
}

// With all that it has in flight, from one server to another.
#[test]
fn a_disk_moves_before_each_operation() {
    for device in [Device::VirtioBlk, Device::Ahci] {
        let job = DiskJob { device, access: Access::RandomWrite, operations: 8, ..DISK };
        println!("{job}");
        let image = Arc::new(image());
        let servers = [(); 2]
            .map(|()| Served::with(executor(), |host| parts::disk(device, image.clone(), host)));
        let platform = InProcess::new(&unshared()).unwrap();
        let host = platform.host(SLOT);
        let mut turn = 0;
        let build = Box::new(move || -> Box<dyn PciDevice> {
            turn += 1;
            Box::new(servers[turn % 2].connect(host.clone()))
        });
        let moving = Arc::new(Mutex::new(Moving::new(build, Moves::Always)));
        platform.plug_shared(SLOT, moving).unwrap();
        check(&job, &run(&platform, job));
    }
}

// More memory than the server keeps pages for at a time, so that they are replaced while requests are in flight.
#[test]
fn a_disk_has_more_in_flight_than_pages_are_kept() {
    const SPAN: u64 = 16 << 20;
    let image = MemoryBackend::new(SPAN, MemoryOptions::default()).unwrap();
    for (completion, access, operations) in
        [(Completion::Poll, Access::Fill, 128), (Completion::Interrupt, Access::RandomRead, 300)]
    {
        let job = DiskJob { completion, access, operations, depth: 128, span: SPAN, ..DISK };
        let job = DiskJob { block_size: 131_072, ..job };
        println!("{job}");
        let lent = Lent::disk(job.device, &events(unshared()), image.clone());
        let outcome = run(&lent.platform, job);
        let header = &outcome.header;
        assert_eq!((outcome.status(), header.errors.get()), (Status::Ok, 0), "{job}");
        // What is read is what was written.
        assert_eq!(header.verified.get() > 0, access == Access::RandomRead);
    }
}
