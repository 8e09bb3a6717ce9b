//! Functions of another process: their server notes what they write, and the client learns of it.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paraslot_device::{DeviceError, Host, SystemClock, ThreadExecutor, ThreadOptions};
use paraslot_drivers::workload::run;
use paraslot_pci::PciDevice;
use paraslot_protocol::{Access, Completion, Job, Status, Traffic};
use paraslot_tests::image::patterned;
use paraslot_tests::moving::Moves;
use paraslot_vfio_user::{ClientSpace, Server, Stop, VfioUser};
use paraslot_vmm::in_process::{InProcess, Machine, Run};

use crate::dirty::{Behind, course, far_end};
use crate::disks::{self, DISKS, SLOT};
use crate::networks::{self, NETWORKS};
use crate::watched::{BASE, GRAIN, MEMORY, PAGE};

type Pages = BTreeSet<usize>;

/// Ends the server, whatever comes of the test.
struct Ends<'s>(&'s Stop);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The pages that the client is told of, of a job that it runs.
fn told(job: Job, behind: Behind) -> Pages {
    let options = ThreadOptions { busy_poll: Duration::ZERO, ..Default::default() };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let executor = Arc::new(ThreadExecutor::new("served", &options).unwrap());
    let make = |host: Host<ClientSpace>| -> Result<Box<dyn PciDevice>, DeviceError> {
        let device = job.device();
        Ok(match behind {
            Behind::Disk(backend) => disks::make(device, host, backend),
            Behind::Network(port) => {
                networks::make(device, host, Arc::new(SystemClock::new()), port)
            }
        })
    };
    let mut server = Server::new(listener, executor, make).unwrap();
    let stop = Stop::new().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| server.run(&stop).unwrap());
        let _ends = Ends(&stop);
        let machine = Machine {
            memory_base: BASE,
            shared_memory: true,
            ..Machine::new(MEMORY, Run::Threads(options))
        };
        let machine = InProcess::new(&machine).unwrap();
        let mut function = VfioUser::connect(&path, machine.host(SLOT)).unwrap();
        function.log_writes().unwrap();
        let function = Arc::new(Mutex::new(function));
        machine.plug_shared(SLOT, function.clone()).unwrap();
        let outcome = run(&machine, job);
        assert_eq!((outcome.status(), outcome.header.errors.get()), (Status::Ok, 0), "{job}");
        let mut function = function.lock().unwrap();
        function.pause().unwrap();
        let dirty = function.take_dirty().unwrap();
        let place = |address: u64| usize::try_from(address - BASE).unwrap() / PAGE;
        dirty.iter().flat_map(|&(start, len)| place(start)..place(start) + len / PAGE).collect()
    })
}

/// Drivers get the same memory each time, so what a function writes here is what it writes in the driver's own
/// process, where each change is seen.
#[test]
fn what_a_served_function_writes_is_known_to_its_client() {
    let disks = DISKS.into_iter().map(|device| {
        let job = disks::job(device, Access::RandomRead, Completion::Interrupt);
        let behind = || Behind::Disk(Arc::new(patterned(1 << 20)));
        (Job::from(job), Box::new(behind) as Box<dyn Fn() -> Behind>)
    });
    let networks = NETWORKS.into_iter().map(|device| {
        let job = networks::job(device, Traffic::Request, Completion::Interrupt, 1514);
        let behind = move || far_end(&job);
        (Job::from(job), Box::new(behind) as Box<dyn Fn() -> Behind>)
    });
    for (job, behind) in disks.chain(networks) {
        let here = course(job, behind(), Moves::PauseBefore(u64::MAX));
        let pages = |grains: &BTreeSet<usize>| -> Pages {
            grains.iter().map(|grain| grain * GRAIN / PAGE).collect()
        };
        let (changed, marked) = (pages(&here.changed), pages(&here.marked));
        let told = told(job, behind());
        assert!(changed.len() > 5, "{job}");
        let unknown: Vec<_> = changed.difference(&told).collect();
        assert!(unknown.is_empty(), "{job}: changed, and not known: {unknown:?}");
        let surplus: Vec<_> = told.difference(&marked).collect();
        assert!(surplus.is_empty(), "{job}: told of, and not written: {surplus:?}");
    }
}
