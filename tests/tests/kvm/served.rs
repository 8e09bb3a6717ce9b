//! Functions that another thread serves over vfio-user, in a virtual machine: what is an eventfd costs
//! what it costs in process, and every other register access the same exit.

use std::sync::Arc;
use std::time::Duration;

use paraslot_device::ManualExecutor;
use paraslot_pci::PciDevice;
use paraslot_protocol::{Access, Completion, Device, Header, Job, Traffic};
use paraslot_tests::frames::HERE;
use paraslot_tests::image::patterned;
use paraslot_tests::served::Served;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_vmm::{Exits, Path, VmConfig};

use crate::{MEMORY, disks, kvm, networks, run_in, thread};

/// Runs a job on what is served. The machine has nobody who would pass anything on: what arrives went from
/// the server to KVM.
fn run(served: &Served, job: Job) -> (Header, Exits) {
    let config = VmConfig { shared_memory: true, ..VmConfig::new(MEMORY, Path::Event) };
    let mut fault = None;
    let make = |host| -> Box<dyn PciDevice> {
        let function = served.connect(host);
        fault = Some(function.fault());
        Box::new(function)
    };
    let nobody = Arc::new(ManualExecutor::new());
    let (header, exits) = run_in(&config, nobody, job, make, &mut |_| ()).expect("the guest runs");
    if let Some(error) = fault.and_then(|fault| fault.take()) {
        panic!("{job}: {error}");
    }
    (header, exits)
}

// As on the event path in process: doorbells are ioeventfds, interrupts irqfds, and nothing exits. What was
// written is read back and compared, by either side's view of the same memory.
#[test]
fn virtio_blk_does_not_exit_when_it_is_served() {
    if !kvm() {
        return;
    }
    for depth in [1, 32] {
        for completion in [Completion::Poll, Completion::Interrupt] {
            for (access, busy_poll) in [
                (Access::RandomRead, Duration::ZERO),
                (Access::RandomWrite, Duration::from_micros(50)),
            ] {
                let job = disks::job(Device::VirtioBlk, access, completion, depth);
                let backend = Arc::new(patterned(disks::CAPACITY));
                let disk = VirtioBlk::new(backend, &Default::default()).expect("a disk");
                let (served, _) = Served::new(thread(busy_poll), disk);
                let (header, exits) = run(&served, job.into());
                assert_eq!(exits.total() - exits.others, 0, "{job}: {exits:?}");
                assert_eq!(header.operations.get(), disks::OPERATIONS, "{job}");
                assert!(header.verified.get() > 0, "{job}");
                assert!(busy_poll > Duration::ZERO || header.doorbells.get() > 0, "{job}");
                let interrupts = header.interrupts.get();
                assert_eq!(completion == Completion::Interrupt, interrupts > 0, "{job}");
            }
        }
    }
}

// Its doorbells have values, so each is a message; its pin is an eventfd that KVM acknowledges. The exits are
// those that it has in process.
#[test]
fn e1000_exits_as_often_when_it_is_served() {
    if !kvm() {
        return;
    }
    for traffic in [Traffic::Transmit, Traffic::Receive, Traffic::Request] {
        for completion in [Completion::Poll, Completion::Interrupt] {
            let job = networks::job(Device::E1000, traffic, completion, 32);
            let adapter = (networks::port(traffic), paraslot_e1000::Options::new(HERE));
            let (served, control) = Served::new(thread(Duration::from_micros(50)), adapter);
            let (header, exits) = run(&served, Job::Net(job));
            assert_eq!(header.operations.get(), job.operations, "{job}");
            assert_eq!((header.lost.get(), header.reordered.get()), (0, 0), "{job}");
            if traffic != Traffic::Transmit {
                assert_eq!(header.verified.get(), job.operations, "{job}");
            }
            let rest = exits.total() - exits.others - exits.mmio_reads - exits.mmio_writes;
            assert_eq!(rest, 0, "{job}: {exits:?}");
            let counts = control.statistics();
            networks::check_e1000(&job, &networks::Done { header, exits, counts, rest });
        }
    }
}
