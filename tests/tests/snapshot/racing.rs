//! Memory that is copied at the same time as devices write it, on threads of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use paraslot_device::{Host, ThreadOptions};
use paraslot_pci::PciDevice;
use paraslot_protocol::{Job, Status};
use paraslot_tests::jobs::run;
use paraslot_tests::moving::{Moves, Moving};
use paraslot_vmm::in_process::{GuestRam, InProcess, Machine, Run};
use vm_memory::{Bytes, GuestAddress, GuestMemoryAtomic};

use crate::dirty::{Behind, course, loads};
use crate::disks::SLOT;
use crate::watched::{BASE, GRAIN, Grains, MEMORY, TrackedRam, drain, lend};

const OPERATIONS: u64 = 1000;

/// A copy of memory, on its way.
struct Copy {
    memory: GuestRam,
    bytes: Vec<u8>,
    rounds: u64,
}

impl Copy {
    fn read(&self, grain: usize, bytes: &mut [u8]) {
        let address = BASE + (grain * GRAIN) as u64;
        self.memory.read_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// Takes what is marked, and then copies it.
    fn round(&mut self, lent: &TrackedRam) {
        for grain in drain(lent) {
            let mut bytes = [0; GRAIN];
            self.read(grain, &mut bytes);
            self.bytes[grain * GRAIN..][..GRAIN].copy_from_slice(&bytes);
        }
        self.rounds += 1;
    }
}

/// Runs a job while memory is copied without a pause; what the device alone writes, `grains`, is in the copy.
fn race(job: Job, behind: Behind, grains: &Grains) {
    let options = ThreadOptions { busy_poll: Duration::ZERO, ..Default::default() };
    let machine = Machine { memory_base: BASE, ..Machine::new(MEMORY, Run::Threads(options)) };
    let machine = InProcess::new(&machine).unwrap();
    let Host { memory, msi, intx, executor } = machine.host(SLOT);
    let lent = lend(&memory);
    // As Cloud Hypervisor has it.
    let host = Host { memory: GuestMemoryAtomic::from(lent.clone()), msi, intx, executor };
    let clock = machine.clock();
    let build = Box::new(move || behind.device(job.device(), clock.clone(), host.clone()));
    let device = Arc::new(Mutex::new(Moving::new(build, Moves::PauseBefore(u64::MAX))));
    machine.plug_shared(SLOT, device.clone()).unwrap();
    let (begun, over) = (Barrier::new(2), AtomicBool::new(false));
    let copy = std::thread::scope(|scope| {
        let migration = scope.spawn(|| {
            let mut copy = Copy { memory, bytes: vec![0; MEMORY], rounds: 0 };
            begun.wait();
            while !over.load(Ordering::Acquire) {
                copy.round(&lent);
            }
            copy
        });
        begun.wait();
        let outcome = run(&machine, job);
        let paused = device.lock().unwrap().pause();
        over.store(true, Ordering::Release);
        let mut copy = migration.join().unwrap();
        assert_eq!((outcome.status(), outcome.header.errors.get()), (Status::Ok, 0), "{job}");
        paused.unwrap();
        copy.round(&lent);
        copy
    });
    // Hundreds, if there is a processor for each.
    println!("{job}: {} rounds", copy.rounds);
    let differs = |grain: &&usize| {
        let mut now = [0; GRAIN];
        copy.read(**grain, &mut now);
        copy.bytes[**grain * GRAIN..][..GRAIN] != now
    };
    let lost: Vec<_> = grains.iter().filter(differs).collect();
    assert!(lost.is_empty(), "{job}: not copied: {lost:?}");
}

/// A mark that came before what it marks would be taken, and the page copied, too early: so it is with the rings of
/// devices, and the buffers.
#[test]
fn nothing_is_written_behind_a_copys_back() {
    for (job, behind) in loads(OPERATIONS) {
        // Drivers get the same memory each time.
        let alone = course(job, behind(), Moves::PauseBefore(u64::MAX));
        let grains: Grains = alone.changed.difference(&alone.driver).copied().collect();
        assert!(grains.len() > 100, "{job}");
        race(job, behind(), &grains);
    }
}
