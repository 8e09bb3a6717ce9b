use paraslot_device::dma::Direction;
use proptest::prelude::*;

use super::*;
use crate::net::testing::{GuestPages, Ip, Packet, plain_sum};

fn headers(frame: &[u8]) -> Headers {
    Headers::parse(frame)
}

fn value(sum: Sum) -> u16 {
    u16::from_be_bytes(sum.bytes())
}

proptest! {
    // However the bytes are cut into pieces, odd ones too, in host or guest memory.
    #[test]
    fn a_sum_is_the_sum_of_its_pieces(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        cuts in prop::collection::vec(0..700usize, 0..12),
        from in 0..100usize,
    ) {
        let whole = plain_sum(&bytes);
        prop_assert_eq!(value(Sum::of(&bytes)), whole);
        let guest = GuestPages::new(1 << 14);
        let (mut sum, mut slices) = (Sum::new(), Sum::new());
        let (mut rest, mut segments, mut address) = (&bytes[..], Vec::new(), 7);
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            sum.add(piece);
            guest.write(address, piece);
            segments.push((address, piece.len()));
            address += piece.len() as u64 + 5;
            rest = behind;
        }
        prop_assert_eq!(value(sum), whole);
        let buffers = guest.buffers(&segments, Direction::ToDevice);
        for slice in buffers.slices() {
            slices.add_slice(&slice);
        }
        prop_assert_eq!(value(slices), whole);
        let from = from.min(bytes.len());
        let mut sum = Sum::new();
        sum.add_buffers(&buffers, from);
        prop_assert_eq!(value(sum), plain_sum(&bytes[from..]));
    }

    #[test]
    fn partial_checksums_are_filled_in(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        for make in [Packet::tcp4, Packet::tcp6, Packet::udp4, Packet::udp6] {
            let packet = make(&payload);
            let (mut frame, finished) = (packet.unfinished(), packet.finished());
            let headers = headers(&frame);
            // A checksum that is off by one is wrong.
            let mut wrong = finished.clone();
            *wrong.last_mut().unwrap() ^= 1;
            prop_assert_eq!(verify_transport(&wrong, &headers), Some(false));
            let partial = headers.transport.unwrap().partial_checksum().unwrap();
            prop_assert_eq!(partial, packet.partial_checksum());
            fill(&mut frame, partial).unwrap();
            prop_assert_eq!(&frame, &finished);
            prop_assert_eq!(verify_transport(&frame, &headers), Some(true));
            // From nothing, the pseudo header's sum is made as the packet's maker does.
            let place = partial.place(frame.len()).unwrap();
            frame[place..place + 2].fill(0);
            let len = frame.len() - usize::from(partial.start);
            prop_assert_eq!(prepare_transport(&mut frame, &headers, len), Some(partial));
            prop_assert_eq!(frame, packet.unfinished());
        }
    }

    #[test]
    fn folding_is_division(sum: u64, high in 0..4u64, low in 0..4u64) {
        for sum in [sum, u64::MAX - sum % 5, (u64::from(u32::MAX) - high) << 32 | (low << 16) | 0xffff] {
            let folded = u64::from(fold(sum));
            prop_assert_eq!(folded % 0xffff, sum % 0xffff);
            prop_assert_eq!(folded == 0, sum == 0);
        }
    }

    // QEMU dd32b5ea7e and CVE-2024-3567: a checksum behind the payload, or of a packet that is too
    // short for it.
    #[test]
    fn checksums_outside_the_frame_are_refused(len in 0..80usize, start: u16, offset: u16) {
        for (start, offset) in [(start, offset), (start % 90, offset % 90)] {
            let partial = PartialChecksum { start, offset };
            let mut frame = vec![0; len];
            let inside = usize::from(start) + usize::from(offset) + 2 <= len;
            prop_assert_eq!(fill(&mut frame, partial).is_ok(), inside);
            prop_assert_eq!(partial.place(len).is_some(), inside);
            if !inside {
                prop_assert!(frame.iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn anything_is_verified(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        change in any::<prop::sample::Index>(),
        value: u8,
    ) {
        let _ = verify_transport(&bytes, &headers(&bytes));
        for make in [Packet::tcp4, Packet::udp6] {
            let mut frame = make(&bytes).finished();
            let at = change.index(frame.len());
            frame[at] = value;
            let headers = headers(&frame);
            let _ = verify_transport(&frame, &headers);
            let _ = verify_transport(&frame[..at], &headers);
            let _ = verify_ipv4(&frame[..at], &headers);
        }
    }
}

#[test]
fn carries_come_back_in() {
    assert_eq!(value(Sum::of(&[0xff; 65536])), 0xffff);
    let mut sum = Sum::new();
    for _ in 0..1000 {
        sum.merge(u64::MAX, 2);
    }
    assert_eq!(value(sum), 0xffff);
    assert_eq!(value(Sum::of(&[0xff, 0xff, 0, 1])), 1);
    assert_eq!(value(Sum::of(&[0x80, 0, 0x80, 0, 0x80, 1])), 0x8002);
    assert_eq!(value(Sum::of(&[0x12])), 0x1200);
    // RFC 1071, 3.
    assert_eq!(value(Sum::of(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
}

// RFC 768: what comes out as 0 is sent as all ones, and 0 says that there is none.
#[test]
fn a_udp_checksum_is_never_zero() {
    let mut packet = Packet::udp4(&[0, 0]);
    let sum = plain_sum(&packet.unfinished()[packet.transport_offset()..]);
    packet.payload = (!sum).to_be_bytes().to_vec();
    let mut frame = packet.unfinished();
    fill(&mut frame, packet.partial_checksum()).unwrap();
    let place = packet.transport_offset() + UDP_CHECKSUM;
    assert_eq!(frame[place..place + 2], [0xff, 0xff]);
    assert_eq!(verify_transport(&frame, &headers(&frame)), Some(true));
    frame[place..place + 2].fill(0);
    assert_eq!(verify_transport(&frame, &headers(&frame)), None);
}

#[test]
fn padding_is_not_summed() {
    for make in [Packet::tcp4, Packet::udp6] {
        let mut frame = make(b"odd").finished();
        frame.extend([1, 2, 3, 4]);
        assert_eq!(verify_transport(&frame, &headers(&frame)), Some(true));
    }
    // A datagram may end before its packet does, and must not end behind it.
    let packet = Packet::udp4(b"12345678");
    let length = packet.transport_offset() + 4;
    for (len, expected) in [(7, None), (17, None), (16, Some(true))] {
        let mut frame = packet.finished();
        frame[length + 1] = len;
        assert_eq!(verify_transport(&frame, &headers(&frame)), expected, "{len}");
    }
}

#[test]
fn packets_that_are_not_all_there_are_not_verified() {
    let frame = Packet::tcp4(b"payload").finished();
    for len in 0..frame.len() {
        let cut = &frame[..len];
        assert_eq!(verify_transport(cut, &headers(cut)), None);
    }
    let mut packet = Packet::udp4(b"payload");
    if let Ip::V4 { flags_fragment, .. } = &mut packet.ip {
        *flags_fragment = 1 << 13;
    }
    assert_eq!(verify_transport(&packet.finished(), &headers(&packet.finished())), None);
}

// RFC 8200, 8.1 and RFC 6275, 11.3.1: the ends of the journey are what is summed.
#[test]
fn the_ends_of_the_journey_are_summed() {
    let (home, last) = ([7; 16], [9; 16]);
    let mut packet = Packet::tcp6(b"payload");
    if let Ip::V6 { source, destination, .. } = &mut packet.ip {
        (*source, *destination) = (home, last);
    }
    let pseudo = packet.pseudo_sum();
    if let Ip::V6 { source, destination, extensions } = &mut packet.ip {
        (*source, *destination) = ([1; 16], [2; 16]);
        extensions.push((43, [&[0, 2, 2, 1, 0, 0, 0, 0][..], &last].concat()));
        extensions.push((60, [&[0, 2, 1, 2, 0, 0, 0xc9, 16][..], &home].concat()));
    }
    let mut frame = packet.unfinished();
    let place = packet.transport_offset() + tcp::CHECKSUM;
    frame[place..place + 2].copy_from_slice(&pseudo.to_be_bytes());
    fill(&mut frame, packet.partial_checksum()).unwrap();
    assert_eq!(verify_transport(&frame, &headers(&frame)), Some(true));
}

#[test]
fn ipv4_headers_are_verified_and_filled_in() {
    let mut packet = Packet::tcp4(b"payload");
    if let Ip::V4 { options, .. } = &mut packet.ip {
        *options = vec![1, 1, 1, 0];
    }
    let good = packet.finished();
    assert_eq!(verify_ipv4(&good, &headers(&good)), Some(true));
    let mut frame = good.clone();
    frame[24] ^= 0x55;
    let headers = headers(&frame);
    assert_eq!(verify_ipv4(&frame, &headers), Some(false));
    fill_ipv4(&mut frame, &headers.network.unwrap());
    assert_eq!(frame, good);
    let frame = Packet::tcp6(b"").finished();
    assert_eq!(verify_ipv4(&frame, &Headers::parse(&frame)), None);
}
