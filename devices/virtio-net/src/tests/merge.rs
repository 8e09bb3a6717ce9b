//! Frames that fill several buffers.

use paraslot_backends::net::MAX_FRAME;
use paraslot_backends::net::testing::Packet;
use std::time::Duration;

use super::*;

/// Mergeable buffers, and frames as long as there are.
const MERGE: u64 = feature::MAC
    | feature::MRG_RXBUF
    | feature::GUEST_CSUM
    | feature::GUEST_TSO4
    | feature::GUEST_USO4;

fn big(features: u64) -> Nic {
    Nic::with(&Options { queue_size: 512, ..options(1) }, features)
}

// net.rx.2, net.rx.3, net.rxbuf.1; CVE-2021-3748, CVE-2022-26353: num_buffers is right for every size
// of buffers, also behind the longer header.
#[test]
fn any_size_of_buffers_holds_any_frame() {
    for features in [MERGE, MERGE | feature::HASH_REPORT, feature::MRG_RXBUF] {
        for size in (20..120).chain([128, 500, 1514, 1526, 1527, 1534, 4096]) {
            let mut nic = big(features);
            let header_len = nic.header_len();
            if size < header_len {
                continue;
            }
            for len in [14, 60, 61, 100, 1000, 1514] {
                let needed = (header_len + len).div_ceil(size);
                nic.post(0, needed, size);
                nic.port.push(0, &frame(len));
                nic.run();
                // More than a frame may need are taken for the next.
                let got = nic.got(0).unwrap();
                assert_eq!(got.frame, frame(len), "{size} {len}");
                assert_eq!(got.header.header.num_buffers.get() as usize, needed);
                let last = header_len + len - size * (needed - 1);
                assert_eq!(*got.parts.last().unwrap(), last);
                assert_eq!(nic.got(0), None);
            }
            assert_eq!(nic.statistics().received_frames, 6);
        }
    }
}

#[test]
fn the_longest_frame_fits() {
    for size in [200, 1000, 1526, 4096, 65_000, 100_000] {
        let mut nic = big(MERGE);
        let packet = Packet::tcp4(&vec![0x33; 65_000]);
        nic.post(0, (66_000usize).div_ceil(size) + 1, size);
        nic.port.push_with(0, &packet.unfinished(), packet.cut_offload(1448));
        nic.run();
        let got = nic.got(0).unwrap();
        assert_eq!(got.frame, packet.unfinished());
        assert_eq!(got.parts.len(), (packet.unfinished().len() + 12).div_ceil(size));
    }
}

// Buffers that were taken for a long frame serve many short ones; nothing is lost in between.
#[test]
fn unused_buffers_are_for_the_next_frame() {
    let mut nic = big(MERGE);
    nic.post(0, 400, 300);
    for round in 0..40 {
        let len = 14 + round * 67 % 1400;
        nic.port.push(0, &frame(len));
        nic.run();
        assert_eq!(nic.got(0).unwrap().frame, frame(len), "{round}");
        assert_eq!(nic.got(0), None);
    }
    let in_place = nic.statistics();
    // The backend's copies alone: none was made by way of host memory.
    assert_eq!(in_place.copied_bytes, in_place.received_bytes);
}

// A driver that has made too few buffers available is waited for; the frame is not lost.
#[test]
fn a_frame_waits_for_the_buffers_that_it_needs() {
    let mut nic = big(MERGE);
    nic.post(0, 2, 1000);
    let packet = Packet::tcp4(&[5; 8000]);
    nic.port.push_with(0, &packet.unfinished(), packet.cut_offload(1448));
    nic.port.push(0, &frame(60));
    nic.run();
    assert_eq!(nic.got(0), None);
    for _ in 0..6 {
        nic.post(0, 1, 1000);
        nic.run();
        assert_eq!(nic.got(0), None);
    }
    nic.post(0, 2, 1000);
    nic.run();
    assert_eq!(nic.got(0).unwrap().frame, packet.unfinished());
    assert_eq!(nic.got(0).unwrap().frame, frame(60));
    assert_eq!(nic.statistics().no_guest_buffers, 0);
}

// One that never has enough loses the frame after a while, and gets those that fit.
#[test]
fn a_frame_does_not_wait_for_ever() {
    let mut nic = big(MERGE);
    nic.post(0, 2, 1000);
    let packet = Packet::tcp4(&[5; 8000]);
    nic.port.push_with(0, &packet.unfinished(), packet.cut_offload(1448));
    nic.port.push(0, &frame(60));
    nic.run();
    nic.clock.advance(Duration::from_millis(19));
    nic.run();
    assert_eq!(nic.got(0), None);
    nic.clock.advance(Duration::from_millis(1));
    nic.run();
    assert_eq!(nic.got(0).unwrap().frame, frame(60));
    assert_eq!(nic.statistics().no_guest_buffers, 1);
    assert_eq!(nic.clock.next(), None);
}

// A driver whose whole queue has no room for the longest frame gets those that fit.
#[test]
fn a_queue_without_room_for_the_longest_frame_is_served() {
    let mut nic = Nic::with(&Options { queue_size: 4, ..options(1) }, MERGE);
    nic.post(0, 4, 1000);
    let packet = Packet::tcp4(&[5; 8000]);
    nic.port.push_with(0, &packet.unfinished(), packet.cut_offload(1448));
    nic.port.push(0, &frame(1514));
    nic.run();
    assert_eq!(nic.got(0).unwrap().frame, frame(1514));
    assert_eq!(nic.statistics().received_too_long, 1);
    // Part of the queue is free again: the next is received by way of host memory.
    nic.port.push(0, &frame(1000));
    nic.run();
    assert_eq!(nic.got(0).unwrap().frame, frame(1000));
    nic.port.push(0, &frame(60));
    nic.run();
    assert_eq!(nic.got(0), None);
    nic.post(0, 1, 1000);
    nic.run();
    assert_eq!(nic.got(0).unwrap().frame, frame(60));
}

// So is one with so many small pieces that no more of them are taken.
#[test]
fn a_room_of_many_pieces_is_served() {
    let mut nic = Nic::with(&Options { queue_size: 512, ..options(1) }, ALL & PLAIN | MERGE);
    let pieces = vec![8; 400];
    for _ in 0..4 {
        let buffers: Vec<Buffer> = pieces.iter().map(|len| nic.writable(*len)).collect();
        let table = nic.memory(16 * buffers.len());
        let lane = nic.lane(0);
        let head = lane.ring.add_indirect(table, &buffers);
        lane.posted.insert(head, buffers);
    }
    let packet = Packet::tcp4(&vec![5; MAX_FRAME - 1000]);
    nic.port.push_with(0, &packet.unfinished(), packet.cut_offload(1448));
    nic.port.push(0, &frame(4000));
    nic.run();
    assert_eq!(nic.got(0).unwrap().frame, frame(4000));
    assert_eq!(nic.statistics().received_too_long, 1);
    assert_eq!(nic.resets(), 0);
}
