//! Notifications, back-pressure, bus mastering, resets, and being stopped.

use paraslot_device::{Executor, ThreadExecutor, ThreadOptions};
use paraslot_spec::virtio::split;
use paraslot_spec::virtio_scsi::{feature, tmf};

use super::*;

const UNIT: Address = Address { target: 0, lun: 0 };
const LUN: Lun = Lun::new(0, 0);

fn read(host: &mut Host, block: u32) -> Pending {
    let data = Buffer::writable(DATA + u64::from(block) * 512, 512);
    host.add(UNIT, &read_10(block, 1), &[data])
}

fn plain(backend: impl BlockBackend + 'static, queue_size: u16) -> Host {
    let bus = bus();
    bus.attach(UNIT, disk(backend)).unwrap();
    let mut host = Host::new(bus, &Options { queue_size, ..Options::default() }, 0);
    host.ready(UNIT);
    host
}

#[test]
fn one_interrupt_for_a_batch_and_bounded_work() {
    let mut host = plain(memory(8), 256);
    let (before, interrupts) = (host.first().ring.used_idx(), host.first().interrupt.count());
    for _ in 0..80 {
        host.add(UNIT, &TEST_UNIT_READY, &[]);
    }
    assert_eq!(host.first().worker.service(), Progress::More);
    let first = host.first().ring.used_idx() - before;
    assert!((1..=64).contains(&first), "{first}");
    assert_eq!(host.first().interrupt.count(), interrupts + 1);
    assert_eq!(host.first().worker.service(), Progress::More);
    assert_eq!(host.first().ring.used_idx(), before + 80);
    assert_eq!(host.first().interrupt.count(), interrupts + 2);
    assert_eq!(host.first().worker.service(), Progress::Idle);
    assert_eq!(host.first().interrupt.count(), interrupts + 2);
}

#[test]
fn the_driver_is_asked_to_notify_only_before_the_worker_sleeps() {
    let mut host = plain(memory(8), 16);
    assert_eq!(host.first().ring.used_flags(), 0);
    host.add(UNIT, &TEST_UNIT_READY, &[]);
    assert_eq!(host.first().worker.service(), Progress::More);
    assert_eq!(host.first().ring.used_flags(), split::USED_F_NO_NOTIFY);
    assert_eq!(host.first().worker.service(), Progress::Idle);
    assert_eq!(host.first().ring.used_flags(), split::USED_F_NO_NOTIFY);
    // Something that came in between is not slept over.
    host.add(UNIT, &TEST_UNIT_READY, &[]);
    assert_eq!(host.first().worker.prepare_to_wait(), Progress::More);
    assert_eq!(host.first().worker.service(), Progress::More);
    host.run();
    assert_eq!(host.first().ring.used_flags(), 0);
}

// L: completions come in any order, each to its own request.
#[test]
fn requests_complete_out_of_order() {
    let (mut host, gate) = Host::held();
    let pending: Vec<Pending> = (0..4).map(|block| read(&mut host, block)).collect();
    host.run();
    assert_eq!((gate.held(), host.quiet(0)), (4, true));
    for index in [2, 0, 3, 1] {
        let offset = index as u64 * 512;
        let at = gate.requests().iter().position(|(_, _, one)| *one == offset).unwrap();
        gate.release_at(at);
        assert!(host.finish(pending[index]).is_good());
    }
}

// CVE-2026-45782: a head that is in flight already is not taken again.
#[test]
fn a_head_in_flight_is_not_taken_again() {
    let (mut host, gate) = Host::held();
    let pending = read(&mut host, 0);
    host.run();
    host.first().ring.publish(pending.head);
    host.run();
    assert_eq!((gate.held(), host.first().signals.resets()), (1, 1));
    gate.open();
    host.run();
    assert!(host.quiet(0));
}

#[test]
fn without_bus_mastering_nothing_moves_and_nothing_is_lost() {
    let (mut host, gate) = Host::held();
    let first = read(&mut host, 0);
    host.run();
    host.first().bus_master.set(false);
    gate.open();
    let second = read(&mut host, 1);
    host.run();
    // Not even a stop in the meantime loses the answer, nor does task management look past it.
    assert_eq!(host.first().worker.quiesce(), Progress::Idle);
    let abort = host.add_tmf(tmf::ABORT_TASK_SET, LUN, 0);
    host.run();
    assert!(host.quiet(0));
    assert_eq!(host.tmf_response(abort), None);
    host.first().bus_master.set(true);
    gate.close();
    host.run();
    assert!(host.take(first).is_good());
    assert_eq!(host.take(second).response, response::ABORTED);
    assert_eq!(host.tmf_response(abort), Some(response::FUNCTION_COMPLETE));
}

// A command of many steps that was taken goes on without bus mastering: others may share the unit. Its
// answer has to wait.
#[test]
fn without_bus_mastering_what_was_taken_goes_on() {
    const BLOCKS: u16 = 16 * 1024;
    let image = memory(BLOCKS.into());
    let mut host = Host::simple(image.clone());
    host.write(DATA, &[9; 512]);
    let [high, low] = BLOCKS.to_be_bytes();
    let same = [opcode::WRITE_SAME_10, 0, 0, 0, 0, 0, 0, high, low, 0];
    let pending = host.add(UNIT, &same, &[Buffer::readable(DATA, 512)]);
    assert_eq!(host.first().worker.service(), Progress::More);
    host.first().bus_master.set(false);
    host.run();
    let mut last = [0; 512];
    image.read_at(u64::from(BLOCKS - 1) * 512, &mut last).unwrap();
    assert_eq!(last, [9; 512]);
    assert!(host.quiet(0));
    host.first().bus_master.set(true);
    assert!(host.finish(pending).is_good());
}

// CH 50f2fd369: a device that is stopped has nothing in flight, and has told of everything.
#[test]
fn quiescing_drains_and_takes_nothing_new() {
    let (mut host, gate) = Host::held();
    let first = read(&mut host, 0);
    host.run();
    let later = read(&mut host, 1);
    assert_eq!(host.first().worker.quiesce(), Progress::More);
    assert!(host.quiet(0));
    gate.release(1);
    assert_eq!(host.first().worker.quiesce(), Progress::Idle);
    assert!(host.take(first).is_good());
    assert_eq!((host.quiet(0), gate.held()), (true, 0));
    gate.open();
    assert!(host.finish(later).is_good());
}

// Task management under way when the device is stopped: the request queue carries it out, the control
// queue does not wait for it, and answers when it goes on.
#[test]
fn quiescing_while_a_function_is_under_way() {
    let (mut host, gate) = Host::held();
    let first = read(&mut host, 0);
    host.run();
    let second = read(&mut host, 1);
    let abort = host.add_tmf(tmf::ABORT_TASK_SET, LUN, 0);
    assert_eq!(host.control().worker.service(), Progress::More);
    assert_eq!(host.control().worker.quiesce(), Progress::Idle);
    while host.first().worker.quiesce() == Progress::More {}
    assert_eq!(gate.held(), 0);
    let mut ended = Vec::new();
    while let Some((head, written)) = host.first().ring.used() {
        let pending = if head == first.head { first } else { second };
        ended.push(host.answer(pending, written).response);
    }
    assert_eq!(ended, [response::ABORTED; 2]);
    assert_eq!(host.tmf_response(abort), None);
    host.run();
    assert_eq!(host.tmf_response(abort), Some(response::FUNCTION_COMPLETE));
}

// CH 7e2e7a164: after a worker is gone, nothing writes to memory any more, and a function that was to
// look through its commands is over.
#[test]
fn a_worker_that_is_dropped_leaves_memory_alone() {
    let (mut host, gate) = Host::held();
    host.write(DATA, &[POISON; 512]);
    let pending = read(&mut host, 0);
    host.run();
    let abort = host.add_tmf(tmf::ABORT_TASK_SET, LUN, 0);
    assert_eq!(host.control().worker.service(), Progress::More);
    let port = host.ports.pop().unwrap();
    drop(port.worker);
    gate.open();
    assert_eq!(gate.held(), 0);
    assert_eq!(host.read(DATA, 512), [POISON; 512]);
    assert_eq!(host.read(pending.back, 12), [POISON; 12]);
    host.run();
    assert_eq!(host.tmf_response(abort), Some(response::FUNCTION_COMPLETE));
}

// scsi.requestq.3, scsi.requestq.4, inline.scsi.17: a reset is complete when every command is, and then
// the driver has been told how it ended; none is left to be failed.
#[test]
fn commands_end_before_the_reset_does() {
    let (mut host, gate) = Host::held();
    let pending = read(&mut host, 0);
    host.run();
    assert_eq!(host.first().worker.quiesce(), Progress::More);
    gate.open();
    assert_eq!(host.first().worker.quiesce(), Progress::Idle);
    assert!(host.take(pending).is_good());
    host.reset();
    host.ready(UNIT);
    assert_eq!(host.load(UNIT, 0, 1), [0]);
}

// One queue is reset and started again, while the others work on.
#[test]
fn a_queue_starts_again() {
    let bus = bus();
    let (unit, gate) = gated(64);
    bus.attach(UNIT, unit).unwrap();
    let mut host = Host::new(bus, &Options { request_queues: 2, ..options() }, ALL);
    gate.open();
    host.ready(UNIT);
    gate.close();
    let data = [Buffer::writable(DATA, 512)];
    let there = host.add_on(0, LUN, &read_10(0, 1), &[], &data);
    let here = host.add_on(1, LUN, &read_10(0, 1), &[], &data);
    host.run();
    gate.release(2);
    while host.ports[3].worker.quiesce() == Progress::More {}
    assert!(host.take(here).is_good());
    let port = host.port(3, 64);
    host.ports[3] = port;
    assert!(host.finish(there).is_good());
    gate.open();
    let again = host.add_on(1, LUN, &read_10(0, 1), &[], &data);
    assert!(host.finish(again).is_good());
    for index in [0, 1] {
        let port = host.port(index, 64);
        host.ports[index] = port;
    }
    assert_eq!(host.tmf(tmf::QUERY_TASK_SET, LUN, 0), response::FUNCTION_COMPLETE);
}

// On threads: no wake-up is lost between the driver, the workers and the lane.
#[test]
fn requests_and_functions_on_threads() {
    let bus = bus();
    let (unit, gate) = gated(64);
    let other = disk(memory(8));
    bus.attach(UNIT, unit).unwrap();
    let mut host = Host::new(bus, &options(), feature::HOTPLUG);
    gate.open();
    let busy_poll = std::time::Duration::ZERO;
    let options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
    let executor = ThreadExecutor::new("scsi", &options).unwrap();
    let mut doorbells = Vec::new();
    let mut handles = Vec::new();
    for index in 0..3 {
        let ring = DriverRing::new(host.space.clone(), index as u64 * RING, 64);
        let queue = ring.queue(0);
        doorbells.push(queue.doorbell.try_clone().unwrap());
        let worker = host.device.start_queue(u16::try_from(index).unwrap(), queue.queue).unwrap();
        handles.push(executor.spawn("scsi", worker).unwrap());
        host.ports[index].worker = Box::new(Nothing);
        host.ports[index].ring = ring;
    }
    let come = |host: &mut Host, index: usize| loop {
        match host.ports[index].ring.used() {
            Some(used) => break used,
            None => std::thread::yield_now(),
        }
    };
    let wait = |host: &mut Host, index: usize| {
        doorbells[index].write(1).unwrap();
        come(host, index)
    };
    for round in 0u8..20 {
        for writes in [true, false] {
            host.write(DATA, &[round; 512]);
            host.write(DATA + 512, &[POISON; 512]);
            let pending = if writes {
                let data = [Buffer::readable(DATA, 512)];
                host.add(UNIT, &write_10(u32::from(round), 1), &data)
            } else {
                let data = [Buffer::writable(DATA + 512, 512)];
                host.add(UNIT, &read_10(u32::from(round), 1), &data)
            };
            let (head, written) = wait(&mut host, 2);
            assert_eq!(head, pending.head);
            let answer = host.answer(pending, written);
            // The first command hears of the unit's attention.
            assert!(answer.is_good() || round == 0, "{answer:?}");
        }
        if round != 0 {
            assert_eq!(host.read(DATA + 512, 512), [round; 512]);
        }
        gate.close();
        let held = read(&mut host, 0);
        // Whether it has been taken by then or not: it is found.
        if round.is_multiple_of(2) {
            doorbells[2].write(1).unwrap();
        }
        let abort = host.add_tmf(tmf::ABORT_TASK, LUN, held.id);
        let (head, _) = wait(&mut host, 0);
        assert_eq!(head, abort.head);
        let (head, written) = host.ports[2].ring.used().expect("told before the function was");
        assert_eq!(head, held.head);
        assert_eq!(host.answer(held, written).response, response::ABORTED);
        gate.open();
        // An event that finds a buffer there, or a buffer that finds an event there.
        let early = round & 2 == 0;
        let buffer = Buffer::writable(DATA, 16);
        if early {
            host.events().ring.add(&[buffer]);
        }
        if host.bus.detach(at(1, 0)).is_none() {
            host.bus.attach(at(1, 0), other.clone()).unwrap();
        }
        let (_, written) = if early {
            come(&mut host, 1)
        } else {
            host.events().ring.add(&[buffer]);
            wait(&mut host, 1)
        };
        assert_eq!((written, host.read(DATA, 6)), (16, vec![1, 0, 0, 0, 1, 1]));
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
