use paraslot_spec::net::{ipv4, protocol};
use proptest::prelude::*;

use super::*;
use crate::net::checksum::{verify_ipv4, verify_transport};
use crate::net::testing::{Ip, Layer4, Packet, plain_sum};

/// All pieces, each as one frame.
fn cut(
    frame: &[u8],
    offload: &Offload,
    leave_checksum: bool,
) -> Result<Vec<(Vec<u8>, Offload)>, NetError> {
    let mut frame = frame.to_vec();
    let mut segmenter = Segmenter::new(&mut frame, offload, leave_checksum)?;
    let (mut pieces, count) = (Vec::new(), segmenter.remaining());
    loop {
        assert_eq!(segmenter.remaining(), count - pieces.len());
        let len = segmenter.next_len();
        let Some(piece) = segmenter.next(&frame) else { break };
        assert_eq!(len, Some(piece.len()));
        assert!(!piece.is_empty());
        pieces.push(([piece.header, piece.payload].concat(), piece.offload));
    }
    assert_eq!((pieces.len(), segmenter.next_len()), (count, None));
    Ok(pieces)
}

/// What the pieces of `packet` must be.
fn pieces(packet: &Packet, size: usize) -> Vec<Packet> {
    let mut chunks: Vec<&[u8]> = packet.payload.chunks(size).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let (mut done, last) = (0, chunks.len() - 1);
    chunks
        .into_iter()
        .enumerate()
        .map(|(index, chunk)| {
            let mut piece = Packet { payload: chunk.to_vec(), ..packet.clone() };
            if let Ip::V4 { identification, .. } = &mut piece.ip {
                *identification = identification.wrapping_add(u16::try_from(index).unwrap());
            }
            if let Layer4::Tcp { sequence, flags, .. } = &mut piece.layer4 {
                *sequence = sequence.wrapping_add(done);
                if index != last {
                    *flags &= !0b1001;
                }
                if index != 0 {
                    *flags &= 0x7f;
                }
            }
            done += u32::try_from(chunk.len()).unwrap();
            piece
        })
        .collect()
}

fn packets() -> impl Strategy<Value = Packet> {
    let make = [Packet::tcp4, Packet::tcp6, Packet::udp4, Packet::udp6];
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        (any::<u8>(), 0..30_000usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    let headers = (0..4usize, 0..3usize, 0..=10usize, any::<u8>(), any::<u16>());
    (headers, payload).prop_map(move |((make_index, tags, words, the_flags, id), payload)| {
        let mut packet = make[make_index](&payload);
        packet.vlan = vec![(0x8100, 7); tags];
        if let Layer4::Tcp { flags, options, .. } = &mut packet.layer4 {
            *flags = the_flags;
            *options = vec![1; words * 4];
        }
        match &mut packet.ip {
            Ip::V4 { options, identification, .. } => {
                *identification = id;
                *options = vec![1; (10 - words) * 4];
            }
            Ip::V6 { extensions, .. } => {
                extensions.extend(vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0]); words / 4]);
            }
        }
        packet
    })
}

proptest! {
    #[test]
    fn pieces_are_as_if_sent_one_by_one(packet in packets(), size in 8..3000u16) {
        let offload = packet.cut_offload(size);
        let expected = pieces(&packet, size.into());
        let made = cut(&packet.unfinished(), &offload, false).unwrap();
        prop_assert_eq!(made.len(), expected.len());
        for ((made, left), expected) in made.iter().zip(&expected) {
            prop_assert!(*made == expected.finished());
            prop_assert_eq!(*left, Offload::default());
        }
        for ((made, left), expected) in cut(&packet.unfinished(), &offload, true)
            .unwrap()
            .iter()
            .zip(&expected)
        {
            prop_assert!(*made == expected.unfinished());
            prop_assert_eq!(*left, packet.checksum_offload());
        }
    }

    #[test]
    fn fragments_are_put_together_again(packet in packets(), size in 8..3000u16) {
        let mut offload = packet.cut_offload(size);
        if let Some(segmentation) = &mut offload.segmentation {
            segmentation.cut = Cut::UdpFragments;
        }
        let udp = packet.layer4 == Layer4::Udp;
        let made = cut(&packet.unfinished(), &offload, true);
        prop_assert_eq!(made.is_ok(), udp);
        if let Ok(made) = made {
            reassembled(&packet, size.into(), &made);
        }
    }

    // Nothing that a guest says makes it panic, or makes more or longer pieces than it may.
    #[test]
    fn anything_is_refused_or_cut(
        packet in packets(),
        changes in prop::collection::vec((0..200usize, any::<u8>()), 0..3),
        cut_kind in prop::sample::select(vec![
            Cut::Tcp4, Cut::Tcp6, Cut::UdpDatagrams, Cut::UdpFragments,
        ]),
        size: u16,
        small in any::<bool>(),
        header_len: u16,
        checksum in prop::option::of((any::<u16>(), any::<u16>())),
        len in any::<prop::sample::Index>(),
    ) {
        let mut frame = packet.unfinished();
        for (index, value) in changes {
            if let Some(byte) = frame.get_mut(index) {
                *byte = value;
            }
        }
        frame.truncate(len.index(frame.len()) + 1);
        let size = if small { size % 20 } else { size };
        let segmentation = Segmentation { cut: cut_kind, size, header_len, ecn: false };
        let checksum = checksum.map(|(start, offset)| PartialChecksum { start, offset });
        for checksum in [checksum, packet.checksum_offload().checksum] {
            let segmentation = Some(segmentation);
            let offload = Offload { checksum, segmentation, checksum_valid: false };
            for leave in [false, true] {
                let Ok(pieces) = cut(&frame, &offload, leave) else { continue };
                prop_assert!(pieces.len() <= frame.len() / MIN_SIZE + MAX_TINY);
                for (piece, _) in pieces {
                    prop_assert!(piece.len() <= frame.len() + 8);
                }
            }
        }
    }
}

/// Puts `fragments` together and compares.
fn reassembled(packet: &Packet, size: usize, fragments: &[(Vec<u8>, Offload)]) {
    let whole = packet.finished();
    let network = packet.network_offset();
    let v6 = matches!(packet.ip, Ip::V6 { .. });
    // Destination options are fragmented with the rest.
    let start = if v6 { network + 40 } else { packet.transport_offset() };
    let (mut payload, mut id) = (Vec::new(), None);
    for (index, (fragment, left)) in fragments.iter().enumerate() {
        assert_eq!(*left, Offload::default(), "nothing is left to be done to a fragment");
        let last = index + 1 == fragments.len();
        let headers = Headers::parse(fragment);
        let parsed = headers.network.unwrap();
        assert_eq!(parsed.length, Some(fragment.len() - network));
        assert_eq!(parsed.fragment, fragments.len() > 1);
        let word = |at: usize| u16::from_be_bytes([fragment[at], fragment[at + 1]]);
        let (offset, more, this_id, data) = if !v6 {
            assert_eq!(verify_ipv4(fragment, &headers), Some(true));
            let field = word(network + 6);
            assert_eq!(field & 0xc000, 0, "it may be fragmented again");
            let id = u32::from(word(network + 4));
            ((field & 0x1fff) * 8, field & 0x2000 != 0, id, &fragment[start..])
        } else if fragments.len() == 1 {
            assert!(!parsed.extensions.fragment_header);
            (0, false, 0, &fragment[start..])
        } else {
            assert_eq!(fragment[network + 6], protocol::FRAGMENT);
            assert_eq!(fragment[start], whole[network + 6], "what the datagram starts with");
            let id = [4, 5, 6, 7].map(|at| fragment[start + at]);
            let (field, id) = (word(start + 2), u32::from_be_bytes(id));
            (field & !7, field & 1 != 0, id, &fragment[start + 8..])
        };
        assert_eq!(usize::from(offset), payload.len());
        assert_eq!(more, !last);
        assert!(data.len() <= size / 8 * 8 && (last || data.len() == size / 8 * 8));
        assert_eq!(*id.get_or_insert(this_id), this_id, "one identification for all");
        payload.extend_from_slice(data);
    }
    assert!(payload == whole[start..], "another datagram");
}

fn refused(frame: &[u8], offload: &Offload) -> bool {
    let first = &frame[..frame.len().min(HEADERS)];
    let result = cut(frame, offload, false);
    assert_eq!(check(first, frame.len(), offload).is_ok(), result.is_ok());
    matches!(result, Err(NetError::Invalid))
}

// CVE-2015-6815: pieces of nothing, for ever; and pieces of next to nothing, for very long.
#[test]
fn pieces_have_a_least_size() {
    let packet = Packet::tcp4(&[5; 1000]);
    for (size, refuse) in [(0, true), (1, true), (7, true), (8, false)] {
        assert_eq!(refused(&packet.unfinished(), &packet.cut_offload(size)), refuse, "{size}");
    }
    for (len, refuse) in [(MAX_TINY, false), (MAX_TINY + 1, true)] {
        let packet = Packet::udp4(&vec![5; len]);
        assert_eq!(refused(&packet.unfinished(), &packet.cut_offload(1)), refuse, "{len}");
    }
    let packet = Packet::udp4(&[5; 1000]);
    let mut offload = packet.cut_offload(7);
    offload.segmentation.as_mut().unwrap().cut = Cut::UdpFragments;
    assert!(refused(&packet.unfinished(), &offload), "fragments of no multiple of 8");
}

#[test]
fn the_greatest_frame_is_cut() {
    let overhead = 14 + 20 + 20;
    let packet = Packet::tcp4(&vec![5; 65535 + 14 - overhead]);
    let pieces = cut(&packet.unfinished(), &packet.cut_offload(8), false).unwrap();
    assert_eq!(pieces.len(), (65535 - 40usize).div_ceil(8));
    for size in [1460, u16::MAX] {
        assert!(!refused(&packet.unfinished(), &packet.cut_offload(size)));
    }
    let packet = Packet::tcp4(&vec![5; MAX_FRAME + 1 - overhead]);
    let result = cut(&packet.unfinished(), &packet.cut_offload(1460), false);
    assert!(matches!(result, Err(NetError::TooLong)));
    // A piece that its own length field could not tell.
    let packet = Packet::tcp4(&vec![5; MAX_FRAME - overhead]);
    assert!(refused(&packet.unfinished(), &packet.cut_offload(u16::MAX)));
    assert!(!refused(&packet.unfinished(), &packet.cut_offload(1460)));
}

#[test]
fn the_cut_must_match_the_headers() {
    let cuts = [Cut::Tcp4, Cut::Tcp6, Cut::UdpDatagrams, Cut::UdpFragments];
    for (make, right) in [
        (Packet::tcp4 as fn(&[u8]) -> Packet, &cuts[..1]),
        (Packet::tcp6, &cuts[1..2]),
        (Packet::udp4, &cuts[2..]),
        (Packet::udp6, &cuts[2..]),
    ] {
        let packet = make(&[5; 3000]);
        let (frame, good) = (packet.unfinished(), packet.cut_offload(1000));
        for cut in cuts {
            let mut offload = good;
            offload.segmentation.as_mut().unwrap().cut = cut;
            assert_eq!(refused(&frame, &offload), !right.contains(&cut), "{cut:?}");
        }
        let PartialChecksum { start, offset } = packet.partial_checksum();
        for (start, offset) in [(start + 1, offset), (start, offset + 2), (0, 0), (0xffff, 0xffff)]
        {
            let checksum = Some(PartialChecksum { start, offset });
            assert!(refused(&frame, &Offload { checksum, ..good }));
        }
        assert!(refused(&frame, &Offload { checksum: None, ..good }));
        assert!(refused(&frame, &Offload { segmentation: None, ..good }));
        for len in 0..packet.payload_offset() {
            assert!(refused(&frame[..len], &good), "cut short at {len}");
        }
        let mut other = frame.clone();
        other[12..14].copy_from_slice(&[8, 6]);
        assert!(refused(&other, &good));
        // How long the headers are said to be does not matter.
        for header_len in [0, 1, u16::MAX] {
            let mut offload = good;
            offload.segmentation.as_mut().unwrap().header_len = header_len;
            let pieces = super::tests::cut(&frame, &offload, false).unwrap();
            assert!(pieces == super::tests::cut(&frame, &good, false).unwrap());
        }
    }
}

#[test]
fn fragments_are_not_cut_again() {
    let mut packet = Packet::udp4(&[5; 3000]);
    if let Ip::V4 { flags_fragment, .. } = &mut packet.ip {
        *flags_fragment = ipv4::MORE_FRAGMENTS;
    }
    assert!(refused(&packet.unfinished(), &packet.cut_offload(1000)));
    let mut packet = Packet::udp6(&[5; 3000]);
    if let Ip::V6 { extensions, .. } = &mut packet.ip {
        // An atomic fragment: a whole datagram, which may be cut into datagrams.
        extensions.push((protocol::FRAGMENT, vec![0; 8]));
    }
    let mut offload = packet.cut_offload(1000);
    assert!(!refused(&packet.unfinished(), &offload));
    offload.segmentation.as_mut().unwrap().cut = Cut::UdpFragments;
    assert!(refused(&packet.unfinished(), &offload));
}

// Some senders leave the lengths 0 in what is to be cut.
#[test]
fn lengths_in_the_headers_do_not_matter() {
    for (packet, at) in [
        (Packet::tcp4(&[5; 3000]), vec![16]),
        (Packet::tcp6(&[5; 3000]), vec![18]),
        (Packet::udp4(&[5; 3000]), vec![16, 38]),
    ] {
        let (mut frame, offload) = (packet.unfinished(), packet.cut_offload(1000));
        let expected = cut(&frame, &offload, false).unwrap();
        for at in at {
            frame[at..at + 2].fill(0);
        }
        assert!(cut(&frame, &offload, false).unwrap() == expected);
    }
}

// RFC 791, 3.1: only some options are copied into each fragment.
#[test]
fn options_are_copied_as_they_say() {
    let mut packet = Packet::udp4(&[5; 100]);
    if let Ip::V4 { options, .. } = &mut packet.ip {
        // A recorded route; no operation; a router alert, which is copied; a time stamp; the end.
        *options = [&[7, 3, 4][..], &[1], &[0x94, 4, 0, 0], &[68, 4, 5, 0], &[0, 9, 9, 9]].concat();
    }
    let mut offload = packet.cut_offload(40);
    offload.segmentation.as_mut().unwrap().cut = Cut::UdpFragments;
    let fragments = cut(&packet.unfinished(), &offload, false).unwrap();
    let options = fragments.iter().map(|(fragment, _)| fragment[34..50].to_vec());
    let first = packet.unfinished()[34..50].to_vec();
    let copied = vec![1, 1, 1, 1, 0x94, 4, 0, 0, 1, 1, 1, 1, 0, 9, 9, 9];
    assert_eq!(options.collect::<Vec<_>>(), [first, copied.clone(), copied]);
    for bad in [vec![7, 0, 1, 1], vec![7, 1, 1, 1], vec![7, 40, 1, 1], vec![1, 1, 1, 7]] {
        if let Ip::V4 { options, .. } = &mut packet.ip {
            options.clone_from(&bad);
        }
        let mut offload = packet.cut_offload(40);
        offload.segmentation.as_mut().unwrap().cut = Cut::UdpFragments;
        assert_eq!(cut(&packet.unfinished(), &offload, false).unwrap().len(), 3);
    }
}

// A datagram whose checksum comes out as 0 says 0xffff, or it would have none.
#[test]
fn no_piece_has_a_checksum_of_zero() {
    let mut packet = Packet::udp4(&[0; 16]);
    let mut first = Packet::udp4(&[0; 8]);
    let sum = plain_sum(&first.unfinished()[first.transport_offset()..]);
    first.payload[..2].copy_from_slice(&(!sum).to_be_bytes());
    packet.payload[..2].copy_from_slice(&(!sum).to_be_bytes());
    let pieces = cut(&packet.unfinished(), &packet.cut_offload(8), false).unwrap();
    assert_eq!(pieces[0].0[40..42], [0xff, 0xff]);
    for (piece, _) in pieces {
        assert_eq!(verify_transport(&piece, &Headers::parse(&piece)), Some(true));
    }
}
