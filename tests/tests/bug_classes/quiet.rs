//! I/O in flight across everything that ends it: after the acknowledgement no byte of guest memory
//! changes, nothing reaches the backend, and nothing is signalled.
//!
//! CVE-2023-5088, QEMU 87ac25fd1f, Cloud Hypervisor 7e2e7a164 and 50f2fd369, and whatever else frees,
//! forgets or repeats requests at such a moment.

mod ahci;
mod blk;
mod nic;
mod scsi;

use std::io;
use std::sync::Arc;

use paraslot_backends::block::testing::{Event, FaultBackend};
use paraslot_backends::block::{BlockBackend, BlockError, BlockOp};
use paraslot_device::ManualExecutor;
use paraslot_pci::PciDevice;
use paraslot_spec::pci::{Command, header};
use paraslot_tests::bench::{Bench, Counter};
use paraslot_tests::memory::WatchedMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::support::{Hold, Random, differences, held, image};

/// For each device.
const SEEDS: u64 = 500;

/// What can be seen of a device from outside, without it.
struct Watch {
    memory: Arc<WatchedMemory>,
    executor: ManualExecutor,
    interrupts: Arc<Counter>,
    hold: Hold,
    len: usize,
    what: String,
}

/// What must not change any more.
struct Seen {
    memory: Vec<u8>,
    events: Vec<Event>,
    interrupts: (u64, u64),
}

/// A backend that holds operations, of which one in 16 fails.
fn backend(seed: u64) -> (Arc<dyn BlockBackend>, Hold) {
    let mut random = Random::new(seed ^ 0xfa17);
    held(FaultBackend::new(image(), move |_, request| {
        let fails = request.op != BlockOp::Flush && random.one_in(16);
        fails.then(|| BlockError::Io(io::Error::from_raw_os_error(5)))
    }))
}

impl Watch {
    fn new(bench: &Bench, hold: Hold, len: usize, what: String) -> Self {
        let Bench { memory, executor, interrupts, .. } = bench;
        let (memory, executor, interrupts) = (memory.clone(), executor.clone(), interrupts.clone());
        Self { memory, executor, interrupts, hold, len, what }
    }

    fn look(&self) -> Seen {
        let mut memory = vec![0; self.len];
        self.memory.inner().read_slice(&mut memory, GuestAddress(0)).expect("it is there");
        let interrupts = (self.interrupts.messages(), self.interrupts.edges());
        Seen { memory, events: self.hold.log.events(), interrupts }
    }

    fn step(&self) {
        let _ = self.executor.step_all();
    }

    /// Steps until `done` says that it is acknowledged, with the backend coming back now and then.
    fn until(&self, random: &mut Random, mut done: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if done() {
                let left = self.hold.in_flight();
                assert_eq!(left, 0, "{}: acknowledged with operations in flight", self.what);
                return;
            }
            if random.one_in(3) {
                self.hold.gate.release(1);
            }
            self.step();
        }
        panic!("{}: not acknowledged", self.what);
    }

    /// Lets everything go and the workers run: nothing may come of it.
    fn quiet(&self) {
        self.memory.take_accesses();
        self.still();
        assert_eq!(self.memory.take_accesses(), 0, "{}: memory was looked at", self.what);
    }

    /// The same where other queues of the device may be looked at.
    fn still(&self) {
        let what = &self.what;
        let before = self.look();
        self.hold.gate.open();
        self.hold.release_every(1);
        assert!(self.executor.run(1000), "{what}: no rest");
        let after = self.look();
        let changed = differences(&before.memory, &after.memory);
        assert!(changed.is_empty(), "{what}: memory was written: {changed:x?}");
        assert!(before.events == after.events, "{what}: the backend was used");
        assert_eq!(before.interrupts, after.interrupts, "{what}: interrupt");
        self.hold.gate.close();
        self.hold.release_every(0);
    }

    /// Has the backend come back while the device waits for it, mostly; says whether it does.
    fn let_go(&self, random: &mut Random) -> bool {
        if random.one_in(32) {
            return false;
        }
        self.hold.release_every(u32::try_from(1 + random.below(40)).expect("small"));
        true
    }

    /// Pauses; with what is held let go, unless a pause that fails is to be seen first.
    fn pause(&self, device: &mut dyn PciDevice, random: &mut Random) {
        if !self.let_go(random) && self.hold.gate.held() != 0 {
            assert!(device.pause().is_err(), "paused with operations held");
            self.hold.release_every(1);
        }
        device.pause().expect("nothing is held");
        assert_eq!(self.hold.in_flight(), 0, "paused with operations in flight");
    }

    /// Turns bus mastering off with operations in flight. What the backend was given before may
    /// still fill buffers of reads (`data`: address, length); nothing else happens.
    fn bus_master_off(&self, device: &mut dyn PciDevice, data: &[(u64, u32)]) {
        bus_master(device, false);
        self.only_data(data);
    }

    /// Lets everything go: of it all, the buffers of reads that the backend had may be filled.
    fn only_data(&self, data: &[(u64, u32)]) {
        let before = self.look();
        self.memory.take_accesses();
        self.hold.gate.open();
        assert!(self.executor.run(1000));
        let after = self.look();
        let is_data = |byte: u64| {
            data.iter().any(|(start, len)| (*start..start + u64::from(*len)).contains(&byte))
        };
        for (at, len) in differences(&before.memory, &after.memory) {
            let fine = (at as u64..(at + len) as u64).all(is_data);
            assert!(fine, "{len} bytes at {at:#x} were written without bus mastering");
        }
        let fresh = after.events.get(before.events.len()..).expect("a log only grows");
        assert!(fresh.iter().all(|event| matches!(event, Event::Completed { .. })));
        assert_eq!(before.interrupts, after.interrupts, "interrupt without bus mastering");
        assert_eq!(self.memory.take_accesses(), 0, "memory was looked at without bus mastering");
        self.hold.gate.close();
    }
}

fn bus_master(device: &mut dyn PciDevice, on: bool) {
    let mut bits = Command::MEMORY;
    bits.set(Command::BUS_MASTER, on);
    device.config_write(header::COMMAND, &bits.bits().to_le_bytes());
}
