//! Notifications, back-pressure, bus mastering, and being stopped.

use paraslot_backends::block::testing::GatedBackend;
use paraslot_backends::block::{BlockOp, Engine, FileBackend, FileOptions};
use paraslot_device::{Executor, ThreadExecutor, ThreadOptions};
use paraslot_spec::virtio::split;
use paraslot_spec::virtio_blk::request;

use super::*;

#[test]
fn one_interrupt_for_a_batch_and_bounded_work() {
    let options = Options { queue_size: 256, ..Options::default() };
    let mut disk = Disk::new(memory(8), &options, 0);
    for _ in 0..80 {
        disk.add(request::FLUSH, 0, &[]);
    }
    assert_eq!(disk.worker.service(), Progress::More);
    let first = disk.ring.used_idx();
    assert!((1..=64).contains(&first), "{first}");
    assert_eq!(disk.interrupt.count(), 1);
    assert_eq!(disk.worker.service(), Progress::More);
    assert_eq!((disk.ring.used_idx(), disk.interrupt.count()), (80, 2));
    assert_eq!(disk.worker.service(), Progress::Idle);
    assert_eq!(disk.interrupt.count(), 2);
}

#[test]
fn the_driver_is_asked_to_notify_only_before_the_worker_sleeps() {
    let options = Options { queue_size: 16, ..Options::default() };
    let mut disk = Disk::new(memory(8), &options, 0);
    assert_eq!(disk.worker.prepare_to_wait(), Progress::Idle);
    assert_eq!(disk.ring.used_flags(), 0);
    disk.add(request::FLUSH, 0, &[]);
    assert_eq!(disk.worker.service(), Progress::More);
    assert_eq!(disk.ring.used_flags(), split::USED_F_NO_NOTIFY);
    assert_eq!(disk.worker.service(), Progress::Idle);
    assert_eq!(disk.ring.used_flags(), split::USED_F_NO_NOTIFY);
    // Something that came in between is not slept over.
    disk.add(request::FLUSH, 0, &[]);
    assert_eq!(disk.worker.prepare_to_wait(), Progress::More);
    assert_eq!(disk.worker.service(), Progress::More);
    assert_eq!(disk.ring.used_flags(), split::USED_F_NO_NOTIFY);
    disk.run();
    assert_eq!(disk.ring.used_flags(), 0);
}

// L: completions come in any order, each to its own request.
#[test]
fn requests_complete_out_of_order() {
    let backend = GatedBackend::new(memory(64));
    let gate = backend.gate();
    let mut disk = Disk::simple(backend);
    let pending: Vec<Pending> = (0..4)
        .map(|index| disk.add(request::IN, index, &[Buffer::writable(DATA + index * 512, 512)]))
        .collect();
    disk.run();
    assert_eq!((gate.held(), disk.ring.used()), (4, None));
    for index in [2, 0, 3, 1] {
        let at = gate.requests().iter().position(|(_, _, offset)| *offset == index * 512).unwrap();
        gate.release_at(at);
        let request = pending[usize::try_from(index).unwrap()];
        assert_eq!(disk.finish(request), (status::OK, 513));
    }
}

// CVE-2026-45782: a head that is in flight already is not taken again.
#[test]
fn a_head_in_flight_is_not_taken_again() {
    let backend = GatedBackend::new(memory(64));
    let gate = backend.gate();
    let mut disk = Disk::simple(backend);
    let pending = disk.add(request::IN, 0, &[Buffer::writable(DATA, 512)]);
    disk.run();
    disk.ring.publish(pending.head);
    disk.run();
    assert_eq!((gate.held(), disk.signals.resets()), (1, 1));
    gate.open();
    disk.run();
    assert_eq!(disk.ring.used(), None);
}

// Several ranges of one request may be more than the backend takes at once: the rest waits, nothing
// else is taken meanwhile, and the request is answered once.
#[test]
fn a_full_backend_holds_back_the_queue() {
    let backend = GatedBackend::new(memory(64));
    let gate = backend.gate();
    let mut disk = Disk::simple(backend);
    let many: Vec<(u64, u32, u32)> = (0..40).map(|sector| (sector, 1, 0)).collect();
    let zeroes = disk.add_ranges(request::WRITE_ZEROES, &many);
    let flush = disk.add(request::FLUSH, 0, &[]);
    disk.run();
    // The depth is the queue size.
    assert_eq!(gate.held(), 16);
    for left in (0..24).rev() {
        gate.release(1);
        disk.run();
        assert_eq!(disk.ring.used(), None);
        assert_eq!(gate.held(), 16, "{left}");
    }
    gate.release(1);
    disk.run();
    // Now there was room for the flush, and it was taken.
    assert_eq!((gate.held(), disk.ring.used()), (16, None));
    assert_eq!(gate.requests()[15].1, BlockOp::Flush);
    gate.open();
    disk.run();
    assert_eq!(disk.ring.used(), Some((zeroes.head, 1)));
    assert_eq!(disk.ring.used(), Some((flush.head, 1)));
    assert_eq!((disk.ring.used(), disk.status(zeroes)), (None, status::OK));
}

// While a request waits for room, no chain is taken, so that only what fits is in flight.
#[test]
fn nothing_is_taken_that_finds_no_room() {
    let backend = GatedBackend::new(memory(64));
    let gate = backend.gate();
    let mut disk = Disk::simple(backend);
    let many: Vec<(u64, u32, u32)> = (0..17).map(|sector| (sector, 1, 0)).collect();
    let zeroes = disk.add_ranges(request::WRITE_ZEROES, &many);
    let flush = disk.add(request::FLUSH, 0, &[]);
    disk.run();
    gate.open();
    while disk.worker.quiesce() == Progress::More {}
    assert_eq!(disk.ring.used(), Some((zeroes.head, 1)));
    assert_eq!(disk.ring.used(), None);
    assert_eq!(disk.finish(flush), (status::OK, 1));
}

#[test]
fn without_bus_mastering_nothing_moves_and_nothing_is_lost() {
    let backend = GatedBackend::new(memory(64));
    let gate = backend.gate();
    let mut disk = Disk::simple(backend);
    let first = disk.add(request::FLUSH, 0, &[]);
    disk.run();
    disk.bus_master.set(false);
    gate.open();
    let second = disk.add(request::FLUSH, 0, &[]);
    disk.run();
    // Not even a stop in the meantime loses the answer.
    assert_eq!(disk.worker.quiesce(), Progress::Idle);
    assert_eq!((disk.ring.used(), disk.status(first)), (None, NO_STATUS));
    disk.bus_master.set(true);
    disk.run();
    assert_eq!(disk.ring.used(), Some((first.head, 1)));
    assert_eq!(disk.ring.used(), Some((second.head, 1)));
    assert_eq!((disk.status(first), disk.status(second)), (status::OK, status::OK));
}

// CH 50f2fd369: a device that is stopped has nothing in flight, and has told of everything.
#[test]
fn quiescing_drains_and_takes_nothing_new() {
    let backend = GatedBackend::new(memory(64));
    let gate = backend.gate();
    let mut disk = Disk::simple(backend);
    let ranges: Vec<(u64, u32, u32)> = (0..20).map(|sector| (sector, 1, 0)).collect();
    let zeroes = disk.add_ranges(request::WRITE_ZEROES, &ranges);
    disk.run();
    let later = disk.add(request::FLUSH, 0, &[]);
    assert_eq!(disk.worker.quiesce(), Progress::More);
    for _ in 0..20 {
        assert_eq!((disk.worker.quiesce(), disk.ring.used()), (Progress::More, None));
        gate.release(1);
    }
    assert_eq!(disk.worker.quiesce(), Progress::Idle);
    assert_eq!(disk.ring.used(), Some((zeroes.head, 1)));
    assert_eq!((disk.ring.used(), gate.held()), (None, 0));
    gate.open();
    assert_eq!(disk.finish(later), (status::OK, 1));
}

// CH 7e2e7a164: after a worker is gone, nothing writes to memory any more.
#[test]
fn a_worker_that_is_dropped_leaves_memory_alone() {
    let backend = GatedBackend::new(memory(64));
    let gate = backend.gate();
    let mut disk = Disk::simple(backend);
    disk.ring.write(DATA, &[POISON; 512]);
    let pending = disk.add(request::IN, 0, &[Buffer::writable(DATA, 512)]);
    disk.run();
    drop(disk.worker);
    gate.open();
    assert_eq!(gate.held(), 0);
    assert_eq!(disk.ring.read(DATA, 512), [POISON; 512]);
    assert_eq!(disk.ring.read(pending.status, 1), [NO_STATUS]);
    assert_eq!(disk.ring.used(), None);
}

// On threads, with real files: no wake-up is lost between the driver, the worker and the backend.
#[test]
fn requests_on_threads_with_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    for engine in [Engine::Auto, Engine::Threads] {
        let options = FileOptions { engine, ..FileOptions::new(&path) };
        let options16 = Options { queue_size: 16, ..Options::default() };
        let mut disk = Disk::new(FileBackend::open(&options).unwrap(), &options16, ALL);
        let space: Space =
            Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
        disk.ring = DriverRing::new(space, 0, 16);
        let queue = disk.ring.queue(0);
        let doorbell = queue.doorbell.try_clone().unwrap();
        let worker = disk.device.start_queue(0, queue.queue).unwrap();
        disk.worker = Box::new(Nothing);
        let busy_poll = std::time::Duration::ZERO;
        let options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
        let executor = ThreadExecutor::new("blk", &options).unwrap();
        let _handle = executor.spawn("blk", worker).unwrap();
        for round in 0u8..20 {
            disk.ring.write(DATA, &[round; 512]);
            disk.ring.write(DATA + 512, &[POISON; 512]);
            for (kind, data) in [
                (request::OUT, Buffer::readable(DATA, 512)),
                (request::FLUSH, Buffer::readable(DATA, 1)),
                (request::IN, Buffer::writable(DATA + 512, 512)),
            ] {
                let pending = disk.add(kind, u64::from(round), &[data]);
                doorbell.write(1).unwrap();
                let used = loop {
                    match disk.ring.used() {
                        Some(used) => break used,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!((used.0, disk.status(pending)), (pending.head, status::OK));
            }
            assert_eq!(disk.ring.read(DATA + 512, 512), [round; 512]);
        }
    }
}

struct Nothing;

impl Worker for Nothing {
    fn sources(&self) -> Vec<paraslot_device::Source> {
        Vec::new()
    }
    fn service(&mut self) -> Progress {
        Progress::Idle
    }
    fn prepare_to_wait(&mut self) -> Progress {
        Progress::Idle
    }
    fn quiesce(&mut self) -> Progress {
        Progress::Idle
    }
}
