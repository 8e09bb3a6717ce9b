//! When work is done: budgets, waiting, pauses, resets, and who wakes whom.

use std::time::{Duration, Instant};

use paraslot_backends::net::testing::Packet;
use paraslot_backends::net::{Wire, WireOptions};
use paraslot_device::{Executor, ThreadExecutor, ThreadOptions};
use paraslot_spec::virtio;
use paraslot_spec::virtio_net::{class, mq};
use vm_memory::{Bytes, GuestMemoryAtomic};

use super::*;

#[test]
fn a_round_of_work_is_bounded() {
    let mut nic = Nic::with(&Options { queue_size: 128, ..options(1) }, PLAIN);
    for _ in 0..100 {
        nic.queue_frame(0, Header::default(), &frame(60));
        nic.port.push(0, &frame(60));
    }
    nic.post(0, 100, 2048);
    for index in [0, 1] {
        let lane = nic.lane(index);
        assert_eq!(lane.worker.service(), Progress::More);
        assert_eq!(lane.ring.used_idx(), 64);
        assert_eq!(lane.worker.service(), Progress::More);
        assert_eq!(lane.ring.used_idx(), 100);
        assert_eq!(lane.worker.service(), Progress::Idle);
    }
    // Batches end, so that what was kept goes.
    assert_eq!(nic.port.commits(0), 2);
    // So do those of frames that are not wanted.
    let mut nic = Nic::new(ALL);
    nic.post(0, 4, 2048);
    for _ in 0..100 {
        nic.port.push(0, &frame_to([2; 6], 60));
    }
    assert_eq!(nic.lane(0).worker.service(), Progress::More);
    assert_eq!(nic.port.waiting(0), 36);
}

// The driver is told once for each round, and asked not to notify while there is work.
#[test]
fn notifications_are_few() {
    for features in [PLAIN & !virtio::feature::EVENT_IDX, PLAIN] {
        let mut nic = Nic::new(features);
        for round in 1..=3 {
            for _ in 0..10 {
                nic.queue_frame(0, Header::default(), &frame(60));
                nic.port.push(0, &frame(60));
            }
            nic.post(0, 10, 2048);
            let [rx, tx] = [0, 1].map(|index| nic.lane(index).ring.used_idx());
            nic.lane(0).ring.set_used_event(rx + 9);
            nic.lane(1).ring.set_used_event(tx + 9);
            nic.run();
            assert_eq!((nic.interrupts(0), nic.interrupts(1)), (round, round));
            while nic.lane(1).ring.used().is_some() {}
            while nic.got(0).is_some() {}
        }
        let flags = virtio::split::USED_F_NO_NOTIFY;
        if !nic.has(virtio::feature::EVENT_IDX) {
            nic.queue_frame(0, Header::default(), &frame(60));
            assert_eq!(nic.lane(1).ring.used_flags(), 0);
            assert_eq!(nic.lane(1).worker.service(), Progress::More);
            assert_eq!(nic.lane(1).ring.used_flags(), flags);
            nic.run();
            assert_eq!(nic.lane(1).ring.used_flags(), 0);
        }
    }
}

// A receive queue that has enough buffers does not want to hear of more.
#[test]
fn buffers_that_are_not_needed_are_not_asked_for() {
    let mut nic = Nic::new(PLAIN & !virtio::feature::EVENT_IDX);
    nic.run();
    assert_eq!(nic.lane(0).ring.used_flags(), 0);
    nic.post(0, 2, 2048);
    nic.run();
    assert_eq!(nic.lane(0).ring.used_flags(), virtio::split::USED_F_NO_NOTIFY);
    for _ in 0..2 {
        nic.port.push(0, &frame(60));
    }
    nic.run();
    assert_eq!(nic.lane(0).ring.used_flags(), 0);
}

#[test]
fn a_busy_backend_loses_and_reorders_nothing() {
    let mut nic = Nic::new(PLAIN);
    nic.port.set_room(0, Some(3));
    let frames: Vec<_> = (60..70).map(frame).collect();
    for frame in &frames {
        nic.queue_frame(0, Header::default(), frame);
    }
    nic.run();
    assert_eq!(nic.sent(0), frames[..3]);
    assert_eq!(nic.lane(1).ring.used_idx(), 3);
    // It waits, and does nothing else.
    assert_eq!(nic.lane(1).worker.service(), Progress::Idle);
    assert_eq!(nic.lane(1).worker.prepare_to_wait(), Progress::Idle);
    // What the driver does to its buffer now makes no difference to what was decided.
    nic.port.set_room(0, Some(1));
    assert_eq!(nic.lane(1).worker.prepare_to_wait(), Progress::More);
    nic.run();
    assert_eq!(nic.lane(1).ring.used_idx(), 4);
    nic.port.set_room(0, None);
    nic.run();
    assert_eq!(nic.sent(0), frames[3..]);
    assert_eq!(nic.statistics().send_busy, 2);
    assert_eq!(nic.statistics().sent_frames, 10);
}

// What was taken and not used is given back at a pause, and taken again afterwards.
#[test]
fn a_pause_holds_nothing() {
    for features in [PLAIN, ALL] {
        let mut nic = Nic::new(features);
        nic.post(0, 50, 2048);
        nic.port.push(0, &frame(60));
        nic.run();
        assert!(nic.got(0).is_some());
        nic.port.set_room(0, Some(0));
        nic.queue_frame(0, Header::default(), &frame(60));
        nic.queue_frame(0, Header::default(), &frame(61));
        nic.run();
        for _ in 0..3 {
            for index in [0, 1] {
                assert_eq!(nic.lane(index).worker.quiesce(), Progress::Idle);
            }
        }
        let before = nic.read(0, 0x8000);
        nic.port.push(0, &frame(62));
        assert_eq!(nic.read(0, 0x8000), before);
        nic.port.set_room(0, None);
        nic.run();
        assert_eq!(nic.sent(0), [frame(60), frame(61)]);
        assert_eq!(nic.got(0).unwrap().frame, frame(62));
        assert_eq!(nic.resets(), 0);
        // All the rest is still there.
        for _ in 0..48 {
            nic.port.push(0, &frame(63));
        }
        nic.run();
        for _ in 0..48 {
            assert_eq!(nic.got(0).unwrap().frame, frame(63));
        }
        assert_eq!(nic.lane(0).ring.used_idx(), 50);
    }
}

#[test]
fn queues_can_be_reset_and_used_again() {
    let mut nic = Nic::new(ALL);
    for round in 0..4 {
        nic.post(0, 8, 2048);
        nic.port.push(0, &frame(60 + round));
        nic.send(Header::default(), &frame(60 + round));
        assert_eq!(nic.got(0).unwrap().frame, frame(60 + round));
        assert_eq!(nic.sent(0), [frame(60 + round)]);
        for index in [0, 1, 2] {
            nic.stop(index);
            nic.start(index);
        }
        // vq d951283: nothing of the old ring is used again.
        nic.run();
        assert_eq!(nic.lane(0).ring.used_idx(), 0);
    }
    // Counts are of the device, not of a worker.
    assert_eq!(nic.statistics().received_frames, 4);
}

#[test]
fn a_reset_in_the_midst_of_it_all() {
    let mut nic = Nic::with(&options(2), ALL);
    for round in 0..3 {
        nic.post(0, 8, 2048);
        nic.port.set_room(0, Some(1));
        for len in 60..64 {
            nic.queue_frame(0, Header::default(), &frame(len));
            nic.port.push(0, &frame(len));
        }
        for lane in nic.lanes.iter_mut().flatten() {
            let _ = lane.worker.service();
        }
        nic.restart(if round % 2 == 0 { PLAIN } else { ALL });
        nic.port.set_room(0, None);
        nic.sent(0);
        nic.send(Header::default(), &frame(100));
        assert_eq!(nic.sent(0), [frame(100)]);
    }
}

#[test]
fn without_bus_mastering_nothing_is_touched() {
    let mut nic = Nic::with(&options(1), ALL);
    nic.post(0, 8, 2048);
    nic.run();
    nic.queue_frame(0, Header::default(), &frame(60));
    nic.port.push(0, &frame(60));
    for lane in nic.lanes.iter().flatten() {
        lane.bus_master.set(false);
    }
    let before = nic.read(0, 0x11_0000);
    nic.run();
    for lane in nic.lanes.iter_mut().flatten() {
        assert_eq!(lane.worker.quiesce(), Progress::Idle);
    }
    assert_eq!(nic.read(0, 0x11_0000), before);
    assert_eq!((nic.port.waiting(0), nic.sent(0).len()), (1, 0));
    for lane in nic.lanes.iter().flatten() {
        lane.bus_master.set(true);
    }
    nic.run();
    assert_eq!((nic.got(0).unwrap().frame, nic.sent(0)), (frame(60), vec![frame(60)]));
}

// vq 16f1b01, OV e375025c7, CH 563303b50: a queue that is broken is left alone.
#[test]
fn a_broken_queue_is_left_alone() {
    for index in 0..3 {
        let mut nic = Nic::new(PLAIN);
        nic.post(0, 2, 2048);
        nic.port.push(0, &frame(60));
        let idx = nic.lane(index).ring.used_idx();
        nic.lane(index).ring.set_avail_idx(idx.wrapping_add(0x4000));
        nic.run();
        assert_eq!(nic.resets(), 1, "{index}");
        let before = nic.read(0, 0xc000);
        nic.port.push(0, &frame(60));
        if index != 0 {
            nic.run();
            continue;
        }
        nic.run();
        assert_eq!(nic.read(0, 0xc000), before);
        assert_eq!(nic.statistics().received_frames, 0);
    }
}

type Changing = GuestMemoryAtomic<GuestMemoryMmap>;

fn map() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
}

// Buffers that were taken in advance are found again when the guest's memory map has changed.
#[test]
fn the_memory_map_changes_under_way() {
    let (net, port) = ScriptedNet::new(1);
    let mut device = VirtioNet::new(Arc::new(net), &options(1)).unwrap();
    let old = map();
    let space: Changing = GuestMemoryAtomic::new(old.clone());
    let mut ring = DriverRing::new(space.clone(), 0, 16);
    let features = feature::MRG_RXBUF | feature::GUEST_CSUM | feature::GUEST_TSO4;
    assert!(VirtioDevice::<Changing>::accept_features(&mut device, features));
    let mut worker = device.start_queue(0, ring.queue(features).queue).unwrap();
    let posted = |ring: &mut DriverRing<Changing>, place: u64| {
        ring.write(0x4000 + 0x1000 * place, &[POISON; 0x800]);
        ring.add(&[Buffer::writable(0x4000 + 0x1000 * place, 0x800)])
    };
    let heads = [0, 1, 2].map(|place| posted(&mut ring, place));
    while worker.service() == Progress::More {}
    port.push(0, &frame(60));
    while worker.service() == Progress::More {}
    assert_eq!(ring.used(), Some((heads[0], 72)));

    // The same contents elsewhere.
    let new = map();
    let mut contents = vec![0; 1 << 20];
    old.read_slice(&mut contents, GuestAddress(0)).unwrap();
    new.write_slice(&contents, GuestAddress(0)).unwrap();
    space.lock().unwrap().replace(new);
    port.push(0, &frame(1000));
    while worker.service() == Progress::More {}
    assert_eq!(ring.used(), Some((heads[1], 1012)));
    assert_eq!(ring.read(0x5000 + 12, 1000), frame(1000));
    let mut untouched = [0; 4];
    old.read_slice(&mut untouched, GuestAddress(0x5000)).unwrap();
    assert_eq!(untouched, [POISON; 4]);

    // Without the memory that they were in, they are not found.
    let small = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x6000)]).unwrap();
    let mut contents = vec![0; 0x6000];
    space.memory().read_slice(&mut contents, GuestAddress(0)).unwrap();
    small.write_slice(&contents, GuestAddress(0)).unwrap();
    space.lock().unwrap().replace(small);
    port.push(0, &frame(60));
    while worker.service() == Progress::More {}
    assert_eq!(ring.used(), None);
}

use vm_memory::GuestAddressSpace;

// A source that is level-triggered rings on: whoever does not take frames says that it does not wait
// for them.
#[test]
fn whoever_takes_nothing_does_not_wait() {
    let mut nic = Nic::new(PLAIN);
    nic.post(0, 1, 2048);
    nic.run();
    let bell = nic.lane(0).worker.sources().last().copied().unwrap();
    let rings = || rung(bell);
    // It waits for a frame, and would be woken.
    nic.control.set_link(false);
    nic.run();
    nic.port.push(0, &frame(60));
    assert!(!rings());
    nic.control.set_link(true);
    nic.run();
    nic.port.push(0, &frame(60));
    assert!(rings());
    nic.run();
    assert!(nic.got(0).is_some());
    // Without a buffer it does not.
    nic.port.push(0, &frame(60));
    assert!(!rings());
}

/// Waits until `done`, for as long as it takes.
fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "never");
        std::thread::yield_now();
    }
}

// On threads nothing is serviced that is not woken: doorbells, the backend's bells, the inbox's and
// the control queue's all ring.
#[test]
fn every_wake_up_arrives() {
    let (net, port) = ScriptedNet::new(2);
    let all = ALL & !(feature::CTRL_RX | feature::CTRL_VLAN);
    let mut nic = Nic::on(Arc::new(net), port, &options(2), all);
    // A thread for each worker, or one's wake-up would be another's.
    let options =
        ThreadOptions { threads: 5, busy_poll: Duration::ZERO, ..ThreadOptions::default() };
    let executor = ThreadExecutor::new("test", &options).unwrap();
    let mut handles = Vec::new();
    let mut bells = Vec::new();
    let mut rings = Vec::new();
    for index in 0..5u16 {
        nic.lanes[usize::from(index)] = None;
        let ring = DriverRing::new(nic.space.clone(), RING * u64::from(index), 64);
        let queue = ring.queue(nic.features);
        bells.push(queue.doorbell);
        let worker = nic.device.start_queue(index, queue.queue).unwrap();
        handles.push(executor.spawn("worker", worker).unwrap());
        ring.set_used_event(0);
        rings.push(ring);
    }
    let at = |index: u64| DATA + 0x1000 * index;
    let write = |ring: &DriverRing<Space>, address, bytes: &[u8]| ring.write(address, bytes);
    let mut commands = 0;
    for round in 0..50u64 {
        // A command that has all frames handed to the other queue, and back.
        let target = u8::from(round % 2 == 0);
        let mut command = vec![class::MQ, mq::RSS_CONFIG, 0, 0, 0, 0, 0, 0, target, 0, target, 0];
        command.extend([2, 0, 0]);
        write(&rings[4], at(0), &command);
        let len = u32::try_from(command.len()).unwrap();
        rings[4].add(&[Buffer::readable(at(0), len), Buffer::writable(at(1), 1)]);
        bells[4].write(1).unwrap();
        until(|| rings[4].used().is_some());
        assert_eq!(rings[4].read(at(1), 1), [0]);
        commands += 1;
        // A frame for which there is a buffer only later.
        let queue = usize::from(target) * 2;
        nic.port.push(0, &frame(60));
        rings[queue].add(&[Buffer::writable(at(2), 2048)]);
        bells[queue].write(1).unwrap();
        until(|| rings[queue].used().is_some());
        // A frame that finds the buffer there.
        rings[queue].add(&[Buffer::writable(at(3), 2048)]);
        bells[queue].write(1).unwrap();
        nic.port.push(target.into(), &frame(61));
        until(|| rings[queue].used().is_some());
        assert_eq!(rings[queue].read(at(3) + 20, 61), frame(61));
        // A frame that the backend takes only later.
        nic.port.set_room(0, Some(0));
        write(&rings[1], at(4), &[&[0; 20][..], &frame(60)].concat());
        rings[1].add(&[Buffer::readable(at(4), 80)]);
        bells[1].write(1).unwrap();
        std::thread::yield_now();
        nic.port.set_room(0, None);
        until(|| rings[1].used().is_some());
    }
    assert_eq!(commands, 50);
    for handle in &mut handles {
        assert!(handle.wait(Duration::from_secs(60)).is_some());
    }
    assert_eq!(nic.port.take_sent(0).len(), 50);
}

// Two of them on a wire: what one driver leaves to be done the other is told, or it is done.
#[test]
fn two_devices_on_a_wire() {
    let (left, right) = Wire::new(WireOptions::default()).unwrap();
    let (_, port) = ScriptedNet::new(1);
    for (ours, theirs) in
        [(PLAIN, PLAIN), (PLAIN, feature::MAC), (PLAIN, PLAIN | feature::MRG_RXBUF)]
    {
        let mut one = Nic::on(Arc::new(left.clone()), port.clone(), &options(1), ours);
        let mut other = Nic::on(Arc::new(right.clone()), port.clone(), &options(1), theirs);
        other.post(0, 20, 4096);
        other.run();
        let packet = Packet::tcp4(&[9; 3000]);
        let checksum = packet.partial_checksum();
        let header = Header {
            flags: 1,
            gso_type: 1,
            hdr_len: 54.into(),
            gso_size: 1000.into(),
            csum_start: checksum.start.into(),
            csum_offset: checksum.offset.into(),
            num_buffers: 0.into(),
        };
        one.send(header, &packet.unfinished());
        other.run();
        if other.has(feature::GUEST_TSO4) {
            let got = other.got(0).unwrap();
            assert_eq!(got.frame, packet.unfinished());
            assert_eq!((got.header.header.gso_type, got.header.header.flags), (1, 1));
        } else {
            for _ in 0..3 {
                let got = other.got(0).unwrap();
                assert_eq!((got.frame.len(), got.header.header.flags), (1054, 0));
            }
        }
        assert_eq!(other.got(0), None);
    }
}
