use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::*;
use crate::net::testing::{GuestPages, Packet};

fn all(software: &mut Software) -> Vec<(Vec<u8>, Offload)> {
    let mut frames = Vec::new();
    while let Some(len) = software.next_len() {
        let piece = software.next_frame().unwrap();
        assert_eq!(piece.len(), len);
        frames.push(([piece.header, piece.payload].concat(), piece.offload));
    }
    assert!(software.next_frame().is_none());
    frames
}

fn take(bytes: &[u8], offload: Offload, accepted: Offloads) -> Vec<(Vec<u8>, Offload)> {
    let body = DmaBuffers::empty(Direction::ToDevice);
    let mut software = Software::new();
    software.take(&Frame { head: bytes, body: &body, offload }, accepted).unwrap();
    all(&mut software)
}

#[test]
fn what_is_accepted_is_left_alone() {
    let packet = Packet::tcp4(&[5; 3000]);
    let frame = packet.unfinished();
    let known = Offload { checksum_valid: true, ..Offload::default() };
    assert_eq!(take(&frame, known, Offloads::empty()), [(frame.clone(), known)]);
    let offload = packet.checksum_offload();
    assert_eq!(take(&frame, offload, Offloads::CHECKSUM), [(frame.clone(), offload)]);
    let offload = packet.cut_offload(1000);
    let accepted = Offloads::CHECKSUM | Offloads::TSO4;
    assert_eq!(take(&frame, offload, accepted), [(frame, offload)]);
}

#[test]
fn what_is_not_accepted_is_done() {
    let packet = Packet::tcp4(&[5; 3000]);
    let frame = packet.unfinished();
    let done = take(&frame, packet.checksum_offload(), Offloads::all() - Offloads::CHECKSUM);
    assert_eq!(done, [(packet.finished(), Offload::default())]);
    let offload = packet.cut_offload(1000);
    // Segmentation alone is of no use to a side that does not take checksums.
    for (accepted, checksum) in [
        (Offloads::all() - Offloads::TSO4, packet.checksum_offload()),
        (Offloads::all() - Offloads::CHECKSUM, Offload::default()),
    ] {
        let pieces = take(&frame, offload, accepted);
        assert_eq!(pieces.len(), 3);
        assert!(pieces.iter().all(|(_, left)| *left == checksum));
    }
}

#[test]
fn each_kind_needs_its_own() {
    let with_ecn = |packet: &Packet| {
        let mut offload = packet.cut_offload(1000);
        offload.segmentation.as_mut().unwrap().ecn = true;
        offload
    };
    let as_fragments = |packet: &Packet| {
        let mut offload = packet.cut_offload(1000);
        offload.segmentation.as_mut().unwrap().cut = Cut::UdpFragments;
        offload
    };
    let plain = |packet: &Packet| packet.cut_offload(1000);
    let [tcp4, tcp6] = [Packet::tcp4, Packet::tcp6].map(|make| make(&[5; 3000]));
    let [udp4, udp6] = [Packet::udp4, Packet::udp6].map(|make| make(&[5; 3000]));
    let ecn4 = Offloads::TSO4 | Offloads::TSO_ECN;
    for (packet, offload, needed) in [
        (&tcp4, plain(&tcp4), Offloads::TSO4),
        (&tcp6, plain(&tcp6), Offloads::TSO6),
        (&tcp4, with_ecn(&tcp4), ecn4),
        (&udp4, plain(&udp4), Offloads::USO4),
        (&udp6, plain(&udp6), Offloads::USO6),
        (&udp4, as_fragments(&udp4), Offloads::UFO),
        (&udp6, as_fragments(&udp6), Offloads::UFO),
    ] {
        let frame = packet.unfinished();
        let needed = needed | Offloads::CHECKSUM;
        assert!(offload.accepted_by(needed, &frame), "{needed:?}");
        for one in needed.iter() {
            assert!(!offload.accepted_by(Offloads::all() - one, &frame), "{one:?}");
            assert!(take(&frame, offload, Offloads::all() - one).len() > 2);
        }
    }
}

#[test]
fn frames_are_gathered_and_scattered() {
    let packet = Packet::udp4(&[5; 2500]);
    let (frame, guest) = (packet.unfinished(), GuestPages::new(1 << 14));
    let (head, body) = frame.split_at(31);
    guest.write(100, &body[..700]);
    guest.write(2000, &body[700..]);
    let segments = [(100, 700), (2000, body.len() - 700)];
    let body = guest.buffers(&segments, Direction::ToDevice);
    let mut software = Software::new();
    let offload = packet.cut_offload(1000);
    software.take(&Frame { head, body: &body, offload }, Offloads::empty()).unwrap();
    let expected = take(&frame, offload, Offloads::empty());
    // Rooms whose pieces end inside the headers and inside the payload.
    let room = guest.buffers(&[(8000, 3), (9000, 50), (10000, 989)], Direction::FromDevice);
    for (frame, left) in expected {
        let received = software.receive(Room::Guest(&room)).unwrap().unwrap();
        assert_eq!(received, Received { len: frame.len(), offload: left });
        let mut bytes = vec![0; room.len()];
        room.copy_to(&mut bytes);
        assert!(bytes[..frame.len()] == frame);
    }
    assert!(software.receive(Room::Guest(&room)).unwrap().is_none());
}

#[test]
fn a_piece_without_room_is_lost_alone() {
    let packet = Packet::tcp6(&[5; 1500]);
    let mut software = Software::new();
    let body = DmaBuffers::empty(Direction::ToDevice);
    let frame = packet.unfinished();
    let frame = Frame { head: &frame, body: &body, offload: packet.cut_offload(1000) };
    software.take(&frame, Offloads::empty()).unwrap();
    let mut bytes = [0; 600];
    let lost = software.receive(Room::Host(&mut bytes));
    assert!(matches!(lost, Err(NetError::TooLong)));
    assert_eq!(bytes, [0; 600], "nothing of it is written");
    assert_eq!(software.receive(Room::Host(&mut bytes)).unwrap().unwrap().len, 574);
    // Memory that is not for writing.
    software.take(&frame, Offloads::empty()).unwrap();
    let guest = GuestPages::new(1 << 14);
    let read_only = guest.buffers(&[(0, 4096)], Direction::ToDevice);
    let refused = software.receive(Room::Guest(&read_only));
    assert!(matches!(refused, Err(NetError::Invalid)));
    assert_eq!(guest.read(0, 4096), vec![0; 4096]);
}

#[test]
fn a_new_frame_takes_the_place_of_what_is_held() {
    let packet = Packet::tcp4(&[5; 3000]);
    let mut software = Software::new();
    let body = DmaBuffers::empty(Direction::ToDevice);
    let bytes = packet.unfinished();
    let frame = Frame { head: &bytes, body: &body, offload: packet.cut_offload(1000) };
    software.take(&frame, Offloads::empty()).unwrap();
    assert!(software.next_frame().is_some());
    let short = Frame { head: &bytes[..13], body: &body, offload: Offload::default() };
    assert!(matches!(software.take(&short, Offloads::empty()), Err(NetError::Invalid)));
    assert_eq!(software.next_len(), None);
    let long = software.load(|_| usize::MAX, &Offload::default(), Offloads::empty());
    assert!(matches!(long, Err(NetError::TooLong)));
    software.take(&frame, Offloads::empty()).unwrap();
    assert_eq!(all(&mut software).len(), 3);
}
