//! Functions that another thread serves over vfio-user, in a virtual machine: what is an eventfd costs
//! what it costs in process, and every other register access the same exit.

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use paraslot_device::{Host, ManualExecutor};
use paraslot_pci::PciDevice;
use paraslot_protocol::{Access, Completion, Device, Header, Job, Traffic};
use paraslot_tests::image::patterned;
use paraslot_vfio_user::{ClientSpace, Server, Stop, VfioUser};
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_pci::VirtioPci;
use paraslot_vmm::{Exits, Path, VmConfig};

use crate::{MEMORY, Offered, disks, kvm, networks, run_in, thread};

/// A function that is served until this is dropped.
struct Served {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    directory: tempfile::TempDir,
}

impl Served {
    fn new(
        busy_poll: Duration,
        make: impl FnOnce(Host<ClientSpace>) -> Box<dyn PciDevice>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("socket")).expect("a socket");
        let make = |host| Ok::<_, std::convert::Infallible>(make(host));
        let mut server = Server::new(listener, thread(busy_poll), make).expect("a server");
        let stop = Stop::new().expect("an eventfd");
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || server.run(&stopped).expect("it serves"));
        Self { stop, thread: Some(thread), directory }
    }

    /// Runs a job on it. The machine has nobody who would pass anything on: what arrives went from the
    /// server to KVM.
    fn run(&self, job: Job) -> (Header, Exits) {
        let config = VmConfig { shared_memory: true, ..VmConfig::new(MEMORY, Path::Event) };
        let mut fault = None;
        let make = |host| -> paraslot_pci::SharedDevice {
            let function = VfioUser::connect(&self.directory.path().join("socket"), host);
            let function = function.expect("a function");
            fault = Some(function.fault());
            Arc::new(Mutex::new(function))
        };
        let nobody = Arc::new(ManualExecutor::new());
        let (header, exits) =
            run_in(&config, nobody, job, make, &mut |_| ()).expect("the guest runs");
        if let Some(error) = fault.and_then(|fault| fault.take()) {
            panic!("{job}: {error}");
        }
        (header, exits)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        // One that panicked has failed the test already, unless this is the first to hear of it.
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server");
        }
    }
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
                let served = Served::new(busy_poll, |host| {
                    let backend = Arc::new(patterned(disks::CAPACITY));
                    let device = VirtioBlk::new(backend, &Default::default()).expect("a disk");
                    Box::new(VirtioPci::new(device, host).expect("a function"))
                });
                let (header, exits) = served.run(job.into());
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
            let mut statistics = None;
            let served = Served::new(Duration::from_micros(50), |host| {
                let (device, counts) =
                    networks::adapter::<Offered, _>(Device::E1000, networks::port(traffic), host);
                statistics = Some(counts);
                device
            });
            let (header, exits) = served.run(Job::Net(job));
            assert_eq!(header.operations.get(), job.operations, "{job}");
            assert_eq!((header.lost.get(), header.reordered.get()), (0, 0), "{job}");
            if traffic != Traffic::Transmit {
                assert_eq!(header.verified.get(), job.operations, "{job}");
            }
            let rest = exits.total() - exits.others - exits.mmio_reads - exits.mmio_writes;
            assert_eq!(rest, 0, "{job}: {exits:?}");
            let counts = statistics.as_ref().expect("an adapter")();
            networks::check_e1000(&job, &networks::Done { header, exits, counts, rest });
        }
    }
}
