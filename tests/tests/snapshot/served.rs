//! Functions of another process: their server notes what they write, and the client learns of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paraslot_device::{SystemClock, ThreadExecutor, ThreadOptions};
use paraslot_pci::PciDevice;
use paraslot_protocol::{Job, Status};
use paraslot_tests::jobs::run;
use paraslot_tests::moving::Moves;
use paraslot_tests::served::Served;
use paraslot_vmm::in_process::{InProcess, Machine, Run};

use crate::dirty::{Behind, course, loads};
use crate::disks::SLOT;
use crate::watched::{BASE, GRAIN, MEMORY, PAGE};

type Pages = BTreeSet<usize>;

/// The pages that the client is told of, of a job that it runs.
fn told(job: Job, behind: Behind) -> Pages {
    let options = ThreadOptions { busy_poll: Duration::ZERO, ..Default::default() };
    let executor = Arc::new(ThreadExecutor::new("served", &options).unwrap());
    let clock = Arc::new(SystemClock::new());
    let served = Served::with(executor, |host| behind.device(job.device(), clock, host));
    let machine = Machine {
        memory_base: BASE,
        shared_memory: true,
        ..Machine::new(MEMORY, Run::Threads(options))
    };
    let machine = InProcess::new(&machine).unwrap();
    let mut function = served.connect(machine.host(SLOT));
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
}

/// Drivers get the same memory each time, so what a function writes here is what it writes in the driver's own
/// process, where each change is seen.
#[test]
fn what_a_served_function_writes_is_known_to_its_client() {
    for (job, behind) in loads(40) {
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
