//! Notifications, held back or not.

use std::time::Duration;

use paraslot_spec::virtio;
use paraslot_spec::virtio_net::{Coalesce, CoalesceQueue, ack, class, notf_coal};

use super::*;

const FEATURES: u64 = ALL & !(feature::CTRL_RX | feature::CTRL_VLAN | virtio::feature::EVENT_IDX);

fn coalesce(max_packets: u32, max_usecs: u32) -> Coalesce {
    Coalesce { max_packets: max_packets.into(), max_usecs: max_usecs.into() }
}

pub(super) fn set(nic: &mut Nic, command: u8, max_packets: u32, max_usecs: u32) {
    let data = coalesce(max_packets, max_usecs);
    assert_eq!(nic.command(class::NOTF_COAL, command, data.as_bytes()), ack::OK);
}

pub(super) fn set_queue(nic: &mut Nic, index: u16, max_packets: u32, max_usecs: u32) -> u8 {
    // What is reserved does not count. net.coalesce.1
    let mut data = CoalesceQueue::new(index, coalesce(max_packets, max_usecs)).as_bytes().to_vec();
    data[2..4].fill(0xff);
    nic.command(class::NOTF_COAL, notf_coal::VQ_SET, &data)
}

/// What VQ_GET says.
pub(super) fn get(nic: &mut Nic, index: u16) -> Option<(u32, u32)> {
    let [low, high] = index.to_le_bytes();
    let question = [class::NOTF_COAL, notf_coal::VQ_GET, low, high, 0xff, 0xff];
    let (said, written) = nic.command_in(&[&question], &[4, 4, 1]);
    assert_eq!(written, 9);
    let answer = Coalesce::read_from_bytes(&said[..8]).unwrap();
    match said[8] {
        ack::OK => Some((answer.max_packets.get(), answer.max_usecs.get())),
        ack::ERR => {
            assert_eq!(answer, Coalesce::default());
            None
        }
        _ => panic!("no answer"),
    }
}

fn push(nic: &mut Nic, count: usize) {
    for _ in 0..count {
        nic.post(0, 1, 2048);
        nic.port.push(0, &frame(60));
    }
    nic.run();
}

fn send(nic: &mut Nic, count: usize) {
    for _ in 0..count {
        nic.queue_frame(0, Header::default(), &frame(60));
    }
    nic.run();
    while nic.lane(1).ring.used().is_some() {}
}

#[test]
fn without_limits_each_round_notifies_once() {
    let mut nic = Nic::new(FEATURES);
    push(&mut nic, 10);
    send(&mut nic, 10);
    assert_eq!((nic.interrupts(0), nic.interrupts(1)), (1, 1));
    assert_eq!(nic.clock.next(), None);
}

// net.coalesce.7 and the examples of 5.1.9.5.10
#[test]
fn notifications_are_held_back_until_either_limit() {
    let mut nic = Nic::new(FEATURES);
    set(&mut nic, notf_coal::RX_SET, 15, 10);
    set(&mut nic, notf_coal::TX_SET, 3, 100);
    push(&mut nic, 14);
    assert_eq!(nic.interrupts(0), 0);
    // Frames are there all the same, for a driver that looks.
    assert!(nic.got(0).is_some());
    push(&mut nic, 1);
    assert_eq!(nic.interrupts(0), 1);
    push(&mut nic, 1);
    nic.clock.advance(Duration::from_micros(9));
    nic.run();
    assert_eq!(nic.interrupts(0), 1);
    nic.clock.advance(Duration::from_micros(1));
    nic.run();
    assert_eq!(nic.interrupts(0), 2);

    send(&mut nic, 2);
    assert_eq!(nic.interrupts(1), 0);
    send(&mut nic, 1);
    assert_eq!(nic.interrupts(1), 1);
    send(&mut nic, 1);
    nic.clock.advance(Duration::from_micros(100));
    nic.run();
    assert_eq!(nic.interrupts(1), 2);
    nic.clock.advance(Duration::from_secs(1));
    nic.run();
    assert_eq!((nic.interrupts(0), nic.interrupts(1)), (2, 2));
}

// net.coalesce.8: what the driver has suppressed stays suppressed, when a limit is reached too.
#[test]
fn suppressed_notifications_stay_suppressed() {
    let mut nic = Nic::new(FEATURES);
    set(&mut nic, notf_coal::RX_SET, 4, 10);
    nic.lane(0).ring.set_avail_flags(virtio::split::AVAIL_F_NO_INTERRUPT);
    push(&mut nic, 4);
    push(&mut nic, 1);
    nic.clock.advance(Duration::from_micros(10));
    nic.run();
    assert_eq!(nic.interrupts(0), 0);
    nic.lane(0).ring.set_avail_flags(0);
    push(&mut nic, 4);
    assert_eq!(nic.interrupts(0), 1);

    // With EVENT_IDX, the index that the driver waits for may be passed while they are held back.
    let mut nic = Nic::new(FEATURES | virtio::feature::EVENT_IDX);
    set(&mut nic, notf_coal::RX_SET, 4, 10);
    nic.lane(0).ring.set_used_event(1);
    push(&mut nic, 4);
    assert_eq!(nic.interrupts(0), 1);
    push(&mut nic, 4);
    assert_eq!(nic.interrupts(0), 1);
    nic.lane(0).ring.set_used_event(9);
    push(&mut nic, 3);
    nic.clock.advance(Duration::from_micros(10));
    nic.run();
    assert_eq!(nic.interrupts(0), 2);
}

// 5.1.9.5.10.4
#[test]
fn new_parameters_count_at_once() {
    let mut nic = Nic::new(FEATURES);
    set(&mut nic, notf_coal::TX_SET, 15, 1000);
    send(&mut nic, 10);
    assert_eq!(nic.interrupts(1), 0);
    set(&mut nic, notf_coal::TX_SET, 8, 1000);
    assert_eq!(nic.interrupts(1), 1);
    send(&mut nic, 1);
    set(&mut nic, notf_coal::TX_SET, 0, 0);
    assert_eq!(nic.interrupts(1), 2);
}

// For which the workers must be woken.
#[test]
fn new_parameters_wake_the_queues_that_they_are_for() {
    let mut nic = Nic::with(&options(2), FEATURES);
    let bells = [0, 1, 2, 3].map(|index| nic.lane(index).worker.sources()[1]);
    let awake = || bells.map(rung);
    awake();
    assert_eq!(set_queue(&mut nic, 2, 3, 4), ack::OK);
    assert_eq!(awake(), [false, false, true, false]);
    assert_eq!(set_queue(&mut nic, 4, 3, 4), ack::ERR);
    assert_eq!(awake(), [false; 4]);
    set(&mut nic, notf_coal::TX_SET, 1, 1);
    assert_eq!(awake(), [true; 4]);
    nic.control.set_link(false);
    assert_eq!(awake(), [true; 4]);
}

// net.coalesce.3, net.coalesce.4, and the sequence of commands in 5.1.9.5.10
#[test]
fn the_last_parameters_of_a_queue_count() {
    let mut nic = Nic::with(&options(3), FEATURES);
    set(&mut nic, notf_coal::RX_SET, 1, 2);
    assert_eq!((get(&mut nic, 0), get(&mut nic, 2)), (Some((1, 2)), Some((1, 2))));
    assert_eq!((get(&mut nic, 1), get(&mut nic, 3)), (Some((0, 0)), Some((0, 0))));
    assert_eq!(set_queue(&mut nic, 0, 3, 4), ack::OK);
    assert_eq!((get(&mut nic, 0), get(&mut nic, 2)), (Some((3, 4)), Some((1, 2))));
    assert_eq!(set_queue(&mut nic, 1, 5, 6), ack::OK);
    assert_eq!((get(&mut nic, 1), get(&mut nic, 3)), (Some((5, 6)), Some((0, 0))));
    set(&mut nic, notf_coal::TX_SET, 7, u32::MAX);
    assert_eq!((get(&mut nic, 1), get(&mut nic, 3)), (Some((7, u32::MAX)), Some((7, u32::MAX))));
    // The control queue, queues that do not exist, and one that does not run.
    nic.stop(4);
    for wrong in [4, 6, 7, 100, 0xffff] {
        assert_eq!((set_queue(&mut nic, wrong, 1, 1), get(&mut nic, wrong)), (ack::ERR, None));
    }
}

// net.coalesce.5, net.coalesce.6
#[test]
fn a_queue_that_is_enabled_again_has_the_parameters_of_its_kind() {
    let mut nic = Nic::with(&options(2), FEATURES);
    for index in [2, 3] {
        assert_eq!(set_queue(&mut nic, index, 9, 9), ack::OK);
        nic.stop(index);
        nic.start(index);
        assert_eq!(get(&mut nic, index), Some((0, 0)));
    }
    set(&mut nic, notf_coal::RX_SET, 1, 2);
    set(&mut nic, notf_coal::TX_SET, 3, 4);
    for (index, expected) in [(2, (1, 2)), (3, (3, 4))] {
        assert_eq!(set_queue(&mut nic, index, 9, 9), ack::OK);
        nic.stop(index);
        nic.start(index);
        assert_eq!(get(&mut nic, index), Some(expected));
    }
    // net.coalesce.9
    nic.restart(FEATURES);
    for index in 0..4 {
        assert_eq!(get(&mut nic, index), Some((0, 0)));
    }
    assert_eq!(nic.clock.next(), None);
}

// An answer for which there is too little room.
#[test]
fn a_question_without_room_for_the_answer_is_refused() {
    let mut nic = Nic::new(FEATURES);
    let question = [class::NOTF_COAL, notf_coal::VQ_GET, 0, 0, 0, 0];
    for room in 1..=12 {
        let (said, written) = nic.command_in(&[&question], &[room]);
        let used = room.min(9);
        assert_eq!(written as usize, used);
        let how = if room < 9 { ack::ERR } else { ack::OK };
        assert_eq!(said[used - 1], how);
        assert!(said[..used - 1].iter().all(|byte| *byte == 0));
        assert!(said[used..].iter().all(|byte| *byte == POISON));
    }
}

// What is held back is let go before a pause: nothing is told while the worker stands still.
#[test]
fn a_pause_lets_notifications_go() {
    let mut nic = Nic::new(FEATURES);
    set(&mut nic, notf_coal::RX_SET, 15, 10);
    set(&mut nic, notf_coal::TX_SET, 15, 10);
    push(&mut nic, 1);
    send(&mut nic, 1);
    for index in [0, 1] {
        assert_eq!(nic.lane(index).worker.quiesce(), Progress::Idle);
        assert_eq!(nic.interrupts(index), 1);
    }
    assert_eq!(nic.clock.next(), None);
    nic.run();
    assert_eq!((nic.interrupts(0), nic.interrupts(1)), (1, 1));
}
