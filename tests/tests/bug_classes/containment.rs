//! What one guest mistake costs: its own queue or port, and no other.
//!
//! Cloud Hypervisor 3402bc076 (an error of one worker ended the VMM), Firecracker 42fae6961 and
//! 9f6c3b802 (a device started twice, a worker that spins on a doorbell that nobody answers).

mod nic;
mod scsi;
mod vmxnet3;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use paraslot_ahci::{DiskOptions, Options as AhciOptions};
use paraslot_device::{Executor, Progress, Source, ThreadExecutor, ThreadOptions, Worker};
use paraslot_spec::ahci::{Prd, port, port_base};
use paraslot_spec::ata::command;
use paraslot_spec::virtio_blk::{request, status};
use paraslot_tests::bench::Bench;
use paraslot_virtio::testing::Buffer;
use paraslot_virtio_blk::Options;
use std::os::fd::AsRawFd;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::ahci::{Sata, data_at, sectors};
use crate::blk::{Blk, DATA, MEMORY, RING_LEN, RINGS};
use crate::support::{all_memory, image};

#[test]
fn a_broken_queue_leaves_the_other_alone() {
    let options = Options { queues: 2, queue_size: 64, ..Options::default() };
    let mut guest = Blk::new(Arc::new(image()), &options);
    guest.reset();
    guest.agree();
    let other = RINGS + RING_LEN;
    for (index, base) in [(0, RINGS), (1, other)] {
        let ring = guest.new_ring(base);
        guest.enable_queue(index, ring.descriptor_table(), ring.avail_ring(), ring.used_ring());
        guest.ring = ring;
    }
    guest.set_status(0xf);
    // Queue 0 has an index that runs away; queue 1 has work before and after.
    let first = guest.add(request::IN, 1, &[Buffer::writable(DATA, 512)], false);
    assert!(guest.bench.executor.run(10));
    let mut broken = guest.new_ring(RINGS);
    broken.set_avail_idx(0x4000);
    guest.notify();
    assert!(guest.bench.executor.run(10));
    assert_eq!(guest.status().bits() & 0x40, 0x40, "DEVICE_NEEDS_RESET");
    let second = guest.add(request::IN, 2, &[Buffer::writable(DATA + 512, 512)], true);
    guest.notify();
    assert!(guest.bench.executor.run(10));
    assert_eq!((guest.status_of(&first), guest.status_of(&second)), (status::OK, status::OK));
    assert_eq!(guest.bench.executor.len(), 2);
}

// CVE-2017-17381: rings whose address is nearly right. Each is refused, and none is written to.
#[test]
fn rings_that_are_not_aligned_cost_a_reset() {
    for (field, off) in [(0, 8), (0, 1), (1, 1), (2, 2), (2, 1)] {
        let mut guest = Blk::small(Arc::new(image()));
        guest.reset();
        guest.agree();
        let ring = guest.new_ring(RINGS);
        let mut places = [ring.descriptor_table(), ring.avail_ring(), ring.used_ring()];
        places[field] += off;
        guest.enable_queue(0, places[0], places[1], places[2]);
        guest.ring = ring;
        guest.add(request::IN, 1, &[Buffer::writable(DATA, 512)], false);
        let before = all_memory(&guest.bench, MEMORY);
        guest.set_status(0xf);
        guest.notify();
        assert!(guest.bench.executor.run(10));
        assert_eq!(guest.status().bits(), 0x4f, "ring {field}, {off} bytes off");
        assert!(all_memory(&guest.bench, MEMORY) == before, "ring {field}, {off} bytes off");
    }
}

#[test]
fn a_port_that_failed_leaves_the_other_alone() {
    let disks = [DiskOptions::new(Arc::new(image())), DiskOptions::new(Arc::new(image()))];
    let options = AhciOptions::new(disks);
    let bench = Bench::new(crate::ahci::MEMORY, |host| {
        paraslot_ahci::Ahci::new(options, host).expect("options are right")
    });
    let mut guest = Sata { bench };
    guest.start();
    // Port 1 has its lists where there is no memory.
    let at = |register| port_base(1) + register;
    guest.write(at(port::CLB), 0xf000_0000);
    guest.write(at(port::FB), 0x3000);
    guest.write(at(port::CMD), 0x10);
    guest.run();
    guest.write(at(port::CMD), 0x11);
    guest.write(at(port::CI), u32::MAX);
    guest.run();
    assert_eq!(guest.read(at(port::IS)) >> 29 & 1, 1, "HBFS");
    guest.prepare(0, &sectors(command::READ_DMA_EXT, 0, 7, 1), &[Prd::new(data_at(0), 512)]);
    guest.issue(1, false);
    guest.run();
    assert_eq!((guest.get(port::CI), guest.get(port::TFD)), (0, 0x50));
}

/// Does nothing, and counts how often it is asked to.
struct Counting(EventFd, Arc<AtomicUsize>);

impl Worker for Counting {
    fn sources(&self) -> Vec<Source> {
        vec![Source::Event(self.0.as_raw_fd())]
    }
    fn service(&mut self) -> Progress {
        self.1.fetch_add(1, Ordering::SeqCst);
        Progress::Idle
    }
    fn prepare_to_wait(&mut self) -> Progress {
        Progress::Idle
    }
    fn quiesce(&mut self) -> Progress {
        Progress::Idle
    }
}

// A doorbell that was rung before the worker began wakes it a bounded number of times, though it finds
// nothing to do and does not read the doorbell itself.
#[test]
fn a_worker_does_not_spin_on_a_doorbell_that_was_rung() {
    let options = ThreadOptions { busy_poll: Duration::ZERO, ..ThreadOptions::default() };
    let executor = ThreadExecutor::new("spin", &options).expect("a thread");
    let count = Arc::new(AtomicUsize::new(0));
    let bell = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
    bell.write(1000).expect("room");
    let worker = Counting(bell.try_clone().expect("an eventfd"), count.clone());
    let _handle = executor.spawn("spin", Box::new(worker)).expect("it can be watched");
    while count.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // Nothing rings from now on, so it does not matter how long this takes.
    std::thread::sleep(Duration::from_millis(20));
    let seen = count.load(Ordering::SeqCst);
    assert!(seen < 10, "serviced {seen} times for one ring");
}
