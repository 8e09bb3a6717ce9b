use std::cell::RefCell;

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Progress};

use super::*;
use crate::net::testing::{Bell, Packet, PortEnd, conformance};
use crate::net::{Cut, Frame, NetError, Offload, PartialChecksum, Room, Segmentation};

mod threads;

#[test]
fn wires_conform() {
    let options = WireOptions { queues: 3, frames: 5, ..WireOptions::default() };
    let (one, other) = Wire::new(options).unwrap();
    conformance(&one, &mut PortEnd::new(&other, true));
    conformance(&other, &mut PortEnd::new(&one, true));
}

#[test]
fn a_loopback_conforms() {
    let port = Wire::loopback(WireOptions::default()).unwrap();
    conformance(&port, &mut PortEnd::new(&port, true));
}

fn send(sender: &mut dyn NetSender, head: &[u8]) -> Result<(), NetError> {
    let body = DmaBuffers::empty(Direction::ToDevice);
    sender.send(&Frame { head, body: &body, offload: Offload::default() })
}

fn receive(receiver: &mut dyn NetReceiver) -> Option<Vec<u8>> {
    thread_local!(static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; 70_000]));
    ROOM.with_borrow_mut(|room| {
        let received = receiver.receive(Room::Host(room)).unwrap()?;
        Some(room[..received.len].to_vec())
    })
}

fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![u8::try_from(len % 251).unwrap(); len];
    frame[..4].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn a_wire_needs_a_queue() {
    assert!(Wire::new(WireOptions { queues: 0, ..WireOptions::default() }).is_err());
    assert!(Wire::loopback(WireOptions { queues: 0, ..WireOptions::default() }).is_err());
}

#[test]
fn a_queue_is_bounded_in_frames() {
    for on_full in [OnFull::Wait, OnFull::Drop] {
        let options = WireOptions { frames: 3, on_full, ..WireOptions::default() };
        let (one, other) = Wire::new(options).unwrap();
        let mut receiver = other.open_receiver(0).unwrap();
        let mut sender = one.open_sender(0).unwrap();
        for number in 0..3 {
            send(&mut *sender, &frame(number, 60)).unwrap();
        }
        // Not even published yet, and there is no more room.
        let result = send(&mut *sender, &frame(3, 60));
        assert_eq!(matches!(result, Err(NetError::Busy)), on_full == OnFull::Wait);
        assert_eq!(!sender.sources().is_empty(), on_full == OnFull::Wait);
        sender.commit();
        for number in 0..3 {
            assert_eq!(receive(&mut *receiver), Some(frame(number, 60)));
        }
        assert_eq!(receive(&mut *receiver), None);
        let dropped = u64::from(on_full == OnFull::Drop);
        assert_eq!(one.statistics(), WireStatistics { delivered: 3, dropped });
        assert_eq!(other.statistics(), WireStatistics::default());
    }
}

// Records wrap around the end of the ring at every place, and the ring fills up to its limit.
#[test]
fn a_queue_is_bounded_in_bytes() {
    let options = WireOptions { frames: u32::MAX, bytes: 0, ..WireOptions::default() };
    let port = Wire::loopback(options).unwrap();
    let mut receiver = port.open_receiver(0).unwrap();
    let mut sender = port.open_sender(0).unwrap();
    let (mut sent, mut received) = (0, 0);
    for len in (14..9000).step_by(1033).chain([crate::net::MAX_FRAME, 61]).cycle().take(300) {
        let mut fitted = 0;
        while send(&mut *sender, &frame(sent, len)).is_ok() {
            sent += 1;
            fitted += 1;
        }
        let limit = ring::record_len(crate::net::MAX_FRAME);
        assert_eq!(fitted, limit / ring::record_len(len), "frames of {len} bytes");
        sender.commit();
        while let Some(bytes) = receive(&mut *receiver) {
            assert!(bytes == frame(received, len));
            received += 1;
        }
        assert_eq!(sent, received);
    }
}

#[test]
fn nobody_there_hears_nothing() {
    let (one, other) = Wire::new(WireOptions { frames: 2, ..WireOptions::default() }).unwrap();
    let mut sender = one.open_sender(0).unwrap();
    for number in 0..5 {
        send(&mut *sender, &frame(number, 60)).unwrap();
    }
    sender.commit();
    assert_eq!(one.statistics().dropped, 5);
    let mut receiver = other.open_receiver(0).unwrap();
    assert_eq!(receive(&mut *receiver), None);
    send(&mut *sender, &frame(5, 60)).unwrap();
    sender.commit();
    // Closed with a frame under way, and with one that is not published yet.
    send(&mut *sender, &frame(6, 60)).unwrap();
    drop(receiver);
    assert_eq!(one.statistics(), WireStatistics { delivered: 0, dropped: 6 });
    sender.commit();
    let mut receiver = other.open_receiver(0).unwrap();
    assert_eq!(receive(&mut *receiver), None);
    assert_eq!(one.statistics().dropped, 7);
    send(&mut *sender, &frame(7, 60)).unwrap();
    sender.commit();
    assert_eq!(receive(&mut *receiver), Some(frame(7, 60)));
}

// A sender that waits is woken when nobody is there any more to make room.
#[test]
fn closing_makes_room() {
    let (one, other) = Wire::new(WireOptions { frames: 1, ..WireOptions::default() }).unwrap();
    let receiver = other.open_receiver(0).unwrap();
    let mut sender = one.open_sender(0).unwrap();
    let bell = Bell::new(sender.sources());
    send(&mut *sender, &frame(0, 60)).unwrap();
    assert!(matches!(send(&mut *sender, &frame(1, 60)), Err(NetError::Busy)));
    assert_eq!(sender.prepare_to_wait(), Progress::Idle);
    drop(receiver);
    bell.wait();
    send(&mut *sender, &frame(1, 60)).unwrap();
    assert_eq!(sender.prepare_to_wait(), Progress::More);
}

// Room for a short frame is not room for a long one.
#[test]
fn a_sender_is_woken_when_its_frame_fits() {
    let port = Wire::loopback(WireOptions { bytes: 0, ..WireOptions::default() }).unwrap();
    let mut receiver = port.open_receiver(0).unwrap();
    let mut sender = port.open_sender(0).unwrap();
    let bell = Bell::new(sender.sources());
    for number in 0..4 {
        send(&mut *sender, &frame(number, 16_000)).unwrap();
    }
    assert!(matches!(send(&mut *sender, &frame(4, 40_000)), Err(NetError::Busy)));
    assert_eq!(sender.prepare_to_wait(), Progress::Idle);
    for _ in 0..2 {
        assert!(receive(&mut *receiver).is_some());
        assert!(!bell.rings(0), "it does not fit yet");
    }
    assert!(receive(&mut *receiver).is_some());
    bell.wait();
    send(&mut *sender, &frame(4, 40_000)).unwrap();
    assert_eq!(sender.prepare_to_wait(), Progress::More, "it has been sent");
}

#[test]
fn frames_go_to_the_queues_in_use() {
    let options = WireOptions { queues: 4, ..WireOptions::default() };
    let (one, other) = Wire::new(options).unwrap();
    let mut senders: Vec<_> = (0..4).map(|queue| one.open_sender(queue).unwrap()).collect();
    let mut receivers: Vec<_> = (0..4).map(|queue| other.open_receiver(queue).unwrap()).collect();
    for active in [1u16, 2, 3, 4, 3, 1] {
        other.set_queues(active).unwrap();
        for (number, sender) in (0..).zip(&mut senders) {
            send(&mut **sender, &frame(number, 60)).unwrap();
            sender.commit();
        }
        for (queue, receiver) in (0u32..).zip(&mut receivers) {
            let mine: Vec<_> =
                (0..4).filter(|number| number % u32::from(active) == queue).collect();
            let mut seen = Vec::new();
            while let Some(bytes) = receive(&mut **receiver) {
                seen.push(u32::from_be_bytes(bytes[..4].try_into().unwrap()));
            }
            seen.sort_unstable();
            assert_eq!(seen, mine, "queue {queue} of {active}");
        }
    }
}

// Frames that are under way when the number of queues changes are not lost, unless they would be
// nobody's.
#[test]
fn frames_under_way_follow_the_queues_in_use() {
    let options = WireOptions { queues: 2, ..WireOptions::default() };
    let (one, other) = Wire::new(options).unwrap();
    let mut sender = one.open_sender(1).unwrap();
    let mut first = other.open_receiver(0).unwrap();
    send(&mut *sender, &frame(0, 60)).unwrap();
    sender.commit();
    let mut second = other.open_receiver(1).unwrap();
    assert_eq!(second.prepare_to_wait(), Progress::Idle);
    let bell = Bell::new(second.sources());
    other.set_queues(2).unwrap();
    bell.wait();
    assert_eq!(receive(&mut *first), None);
    assert_eq!(receive(&mut *second), Some(frame(0, 60)));
    send(&mut *sender, &frame(1, 60)).unwrap();
    sender.commit();
    drop(first);
    other.set_queues(1).unwrap();
    assert_eq!(receive(&mut *second), None);
    other.set_queues(2).unwrap();
    assert_eq!(receive(&mut *second), None);
    assert_eq!(one.statistics(), WireStatistics { delivered: 1, dropped: 1 });
}

// A receiver that has been looking for frames meanwhile takes none that are not its own any more.
#[test]
fn frames_are_taken_by_whose_they_are() {
    let lane = Arc::new(Lane::new(&WireOptions { queues: 2, ..WireOptions::default() }).unwrap());
    let mut receivers = [0, 1].map(|queue| WireReceiver::open(lane.clone(), queue).unwrap());
    let mut sender = WireSender::open(lane.clone(), 1, OnFull::Wait).unwrap();
    lane.set_active(2);
    send(&mut sender, &frame(0, 60)).unwrap();
    sender.commit();
    let mut take = |queue: usize| {
        let mut room = [0; 60];
        receivers[queue].take(1, &lane.rings[1], &mut Room::Host(&mut room)).is_some()
    };
    lane.set_active(1);
    assert!(!take(1));
    lane.set_active(2);
    assert!(!take(0) && take(1) && !take(1));
}

// A receiver serves the queues that are its own in turn.
#[test]
fn no_sender_starves() {
    let options = WireOptions { queues: 3, ..WireOptions::default() };
    let (one, other) = Wire::new(options).unwrap();
    let mut receiver = other.open_receiver(0).unwrap();
    for queue in 0..3 {
        let mut sender = one.open_sender(queue).unwrap();
        for _ in 0..10 {
            send(&mut *sender, &frame(queue.into(), 60)).unwrap();
        }
    }
    let seen: Vec<_> = (0..30).map(|_| receive(&mut *receiver).unwrap()[3]).collect();
    assert_eq!(seen, [0, 1, 2].repeat(10));
}

// Pieces of a frame that was cut are the receiver's own: what follows waits for them.
#[test]
fn pieces_come_one_by_one() {
    let port = Wire::loopback(WireOptions { frames: 2, ..WireOptions::default() }).unwrap();
    let mut receiver = port.open_receiver(0).unwrap();
    let mut sender = port.open_sender(0).unwrap();
    let packet = Packet::tcp4(&[7; 2500]);
    let (bytes, body) = (packet.unfinished(), DmaBuffers::empty(Direction::ToDevice));
    let offload = packet.cut_offload(1000);
    sender.send(&Frame { head: &bytes, body: &body, offload }).unwrap();
    send(&mut *sender, &frame(1, 60)).unwrap();
    assert!(matches!(send(&mut *sender, &frame(2, 60)), Err(NetError::Busy)));
    assert_eq!(receive(&mut *receiver).unwrap().len(), 1054);
    assert_eq!(receiver.prepare_to_wait(), Progress::More);
    // The ring has room again though pieces are to come.
    send(&mut *sender, &frame(2, 60)).unwrap();
    sender.commit();
    assert_eq!(receive(&mut *receiver).unwrap().len(), 1054);
    assert_eq!(receive(&mut *receiver).unwrap().len(), 554);
    assert_eq!(receive(&mut *receiver), Some(frame(1, 60)));
    assert_eq!(receive(&mut *receiver), Some(frame(2, 60)));
    assert_eq!(port.statistics(), WireStatistics { delivered: 3, dropped: 0 });
}

#[test]
fn offloads_travel_unchanged() {
    let cuts = [Cut::Tcp4, Cut::Tcp6, Cut::UdpFragments, Cut::UdpDatagrams];
    let ring = ring::Ring::new(4096).unwrap();
    for (index, checksum_valid) in (0u16..16).zip([true, false].into_iter().cycle()) {
        let (start, offset) = (0x1234 + index, 0xfedc - index);
        let checksum = (index & 1 != 0).then_some(PartialChecksum { start, offset });
        let cut = cuts[usize::from(index / 4)];
        let ecn = index & 4 != 0;
        let segmentation = Segmentation { cut, size: 0x5678, header_len: 0x9abc, ecn };
        let segmentation = (index & 2 != 0).then_some(segmentation);
        let offload = Offload { checksum, segmentation, checksum_valid };
        let place =
            ring::Place { position: u64::from(index) * 4096 - 8 * u64::from(index), count: 0 };
        ring.describe(place, 0xabcde, &offload).unwrap();
        let description = ring.description(place).unwrap();
        assert_eq!((description.len, description.offload), (0xabcde, offload));
    }
}
