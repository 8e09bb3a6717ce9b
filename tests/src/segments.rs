//! What must hold of any frame that is parsed, hashed, summed and cut, with whatever offloads.

use paraslot_backends::net::checksum::{self, Sum};
use paraslot_backends::net::hash::{HashInput, HashTypes, Toeplitz};
use paraslot_backends::net::parse::{Addresses, HEADERS, Headers, Network, TransportKind};
use paraslot_backends::net::segment::{MAX_TINY, Segmenter};
use paraslot_backends::net::{Cut, MAX_FRAME, Offload, Segmentation};
use paraslot_protocol::traffic::sum;
use paraslot_spec::net::{IPV6_FRAGMENT_OFFSET, IPV6_MORE_FRAGMENTS, ipv4, protocol};

use crate::port::Carried;

/// Looks at a frame in every way.
pub fn examine(frame: &Carried, key: &[u8], enabled: u32) {
    let headers = Headers::parse(&frame.bytes);
    inside(&headers, &frame.bytes);
    // What is read of the first bytes alone is no other than what is read of all of it, if that is
    // where it is.
    let first = &frame.bytes[..frame.bytes.len().min(HEADERS)];
    let short = Headers::parse(first);
    inside(&short, first);
    if headers.header_len().is_some_and(|len| len <= HEADERS) {
        assert_eq!(short, headers);
    }
    hashes(&headers, key, enabled);
    sums(frame, &headers);
    for leave_checksum in [false, true] {
        segments(frame, leave_checksum);
    }
}

/// Offsets are inside what was parsed.
fn inside(headers: &Headers, bytes: &[u8]) {
    if let Some(network) = headers.network {
        assert!(network.offset < network.payload && network.payload <= bytes.len());
        assert!(network.extensions.unfragmentable <= network.payload);
        assert!(network.extensions.next_header_at < bytes.len());
    }
    if let Some(transport) = headers.transport {
        assert!(!headers.network.expect("there is one").fragment);
        assert!(transport.offset + transport.header_len <= bytes.len());
    }
}

/// The hash by its definition: for each bit of the input that is set, 32 bits of the key.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| {
        bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
    };
    let window =
        |at: usize| (0..32).fold(0u32, |word, offset| word << 1 | u32::from(bit(key, at + offset)));
    (0..8 * input.len()).filter(|at| bit(input, *at)).fold(0, |hash, at| hash ^ window(at))
}

fn hashes(headers: &Headers, key: &[u8], enabled: u32) {
    let enabled = HashTypes::from_bits_truncate(enabled);
    let table = Toeplitz::new(key);
    let input = HashInput::select(headers, enabled);
    let expected = input.map(|input| (toeplitz(key, input.bytes()), input.kind));
    assert_eq!(table.hash_packet(headers, enabled), expected);
}

/// A sum that is zero is one of two numbers.
fn same_sum(one: u16, other: u16) -> bool {
    one % 0xffff == other % 0xffff
}

/// The sum of a pseudo header (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo(network: &Network, kind: TransportKind, len: usize) -> Option<u16> {
    let addresses = match network.ends()? {
        Addresses::V4 { source, destination } => [source, destination].concat(),
        Addresses::V6 { source, destination } => [source, destination].concat(),
    };
    let protocol = match kind {
        TransportKind::Tcp => protocol::TCP,
        TransportKind::Udp => protocol::UDP,
    };
    let len = u32::try_from(len).ok()?.to_be_bytes();
    Some(sum(sum(sum(0, &addresses), &len), &[0, protocol]))
}

fn sums(frame: &Carried, headers: &Headers) {
    let of_all = Sum::of(&frame.bytes);
    assert!(same_sum(u16::from_be_bytes(of_all.bytes()), sum(0, &frame.bytes)));
    // In pieces of any length, odd ones among them.
    let mut in_pieces = Sum::new();
    for piece in frame.bytes.chunks(13) {
        in_pieces.add(piece);
    }
    assert!(same_sum(u16::from_be_bytes(in_pieces.bytes()), sum(0, &frame.bytes)));
    let _ = checksum::verify_ipv4(&frame.bytes, headers);
    let _ = checksum::verify_transport(&frame.bytes, headers);
    let Some(partial) = frame.offload.checksum else { return };
    let mut bytes = frame.bytes.clone();
    let start = usize::from(partial.start);
    let place = start + usize::from(partial.offset);
    match checksum::fill(&mut bytes, partial) {
        Err(_) => assert!(place + 2 > bytes.len() && bytes == frame.bytes),
        Ok(()) => {
            let checksum = u16::from_be_bytes([bytes[place], bytes[place + 1]]);
            assert!(same_sum(!checksum, sum(0, &frame.bytes[start..])));
            bytes[place..place + 2].copy_from_slice(&frame.bytes[place..place + 2]);
            assert!(bytes == frame.bytes, "nothing else is written");
        }
    }
}

fn segments(frame: &Carried, leave_checksum: bool) {
    let mut bytes = frame.bytes.clone();
    let Ok(mut segmenter) = Segmenter::new(&mut bytes, &frame.offload, leave_checksum) else {
        return;
    };
    assert!(frame.bytes.len() <= MAX_FRAME);
    let whole = Headers::parse(&frame.bytes);
    let (network, transport) = whole.network.zip(whole.transport).expect("it can be cut");
    let Segmentation { cut, size, .. } = frame.offload.segmentation.expect("it is to be cut");
    let (size, fragments) = (usize::from(size), cut == Cut::UdpFragments);
    let start = match fragments {
        false => transport.offset + transport.header_len,
        true if network.is_v6() => network.extensions.unfragmentable,
        true => network.payload,
    };
    // The checksum is right afterwards if it was rightly prepared.
    let field = transport.offset + if transport.kind == TransportKind::Tcp { 16 } else { 6 };
    let prepared = u16::from_be_bytes([frame.bytes[field], frame.bytes[field + 1]]);
    let right = pseudo(&network, transport.kind, bytes.len() - transport.offset)
        .is_some_and(|right| same_sum(right, prepared));

    let (mut joined, mut count) = (Vec::new(), 0);
    let most = segmenter.remaining();
    let payload = frame.bytes.len() - start;
    assert!(size >= 8 || most <= MAX_TINY, "{most} pieces of {size} bytes");
    assert!(most <= payload.div_ceil((size / 8 * 8).max(1)).max(1));
    while let Some(len) = segmenter.next_len() {
        assert_eq!(segmenter.remaining(), most - count);
        let piece = segmenter.next(&bytes).expect("there is one more");
        assert_eq!(piece.len(), len);
        assert!(piece.payload.len() <= size);
        let offload = piece.offload;
        let piece = [piece.header, piece.payload].concat();
        if fragments {
            let (offset, more) = fragment(&piece, &network, most > 1);
            assert_eq!((offset, more), (joined.len(), count + 1 < most));
            assert_eq!(offload, Offload::default());
        } else {
            let headers = Headers::parse(&piece);
            assert_eq!(headers.transport.map(|t| t.offset), Some(transport.offset));
            check_checksum(&piece, &headers, leave_checksum, right);
            let left = leave_checksum.then_some(frame.offload.checksum).flatten();
            assert_eq!(offload, Offload { checksum: left, ..Offload::default() });
        }
        check_network(&piece, &network);
        let body = piece.len() - segment_payload(&piece, start, fragments, most > 1, &network);
        joined.extend_from_slice(&piece[body..]);
        count += 1;
        // Headers alone are one piece at most.
        assert!(count == 1 || body < piece.len());
    }
    assert_eq!((count, segmenter.remaining()), (most, 0));
    assert!(segmenter.next(&bytes).is_none());
    // Of a datagram the checksum was filled in first, in `bytes`; nothing else was changed there.
    assert!(joined == bytes[start..], "the pieces are not the frame");
    if fragments {
        let filled = sum(0, &bytes[transport.offset..]);
        let pseudo = pseudo(&network, transport.kind, bytes.len() - transport.offset);
        let verified = pseudo.map(|pseudo| same_sum(sum(pseudo, &filled.to_be_bytes()), 0xffff));
        assert!(!right || verified == Some(true));
        bytes[field..field + 2].copy_from_slice(&frame.bytes[field..field + 2]);
    }
    assert!(bytes == frame.bytes);
}

/// Bytes of a piece that are payload of the frame.
fn segment_payload(
    piece: &[u8],
    start: usize,
    fragments: bool,
    many: bool,
    network: &Network,
) -> usize {
    let inserted = if fragments && network.is_v6() && many { 8 } else { 0 };
    piece.len() - start - inserted
}

fn check_checksum(piece: &[u8], headers: &Headers, left: bool, right: bool) {
    let (network, transport) = headers.network.zip(headers.transport).expect("it was there");
    let packet = &piece[transport.offset..];
    let pseudo = pseudo(&network, transport.kind, packet.len());
    if !right {
        return;
    }
    let pseudo = pseudo.expect("it could be prepared");
    if left {
        let field = if transport.kind == TransportKind::Tcp { 16 } else { 6 };
        let prepared = u16::from_be_bytes([packet[field], packet[field + 1]]);
        assert!(same_sum(prepared, pseudo), "a checksum was not prepared");
    } else {
        assert_eq!(sum(pseudo, packet), 0xffff, "a checksum is wrong");
        assert_eq!(checksum::verify_transport(piece, headers), Some(true));
    }
}

/// Lengths, and the IPv4 checksum.
fn check_network(piece: &[u8], network: &Network) {
    let at = network.offset;
    if network.is_v6() {
        let length = u16::from_be_bytes([piece[at + 4], piece[at + 5]]);
        assert_eq!(usize::from(length), piece.len() - at - 40);
    } else {
        let length = u16::from_be_bytes([piece[at + 2], piece[at + 3]]);
        assert_eq!(usize::from(length), piece.len() - at);
        assert_eq!(sum(0, &piece[at..network.payload]), 0xffff, "the IP checksum is wrong");
    }
}

/// A fragment's offset in bytes, and whether there are more.
fn fragment(piece: &[u8], network: &Network, many: bool) -> (usize, bool) {
    if network.is_v6() {
        if !many {
            return (0, false);
        }
        let at = network.extensions.unfragmentable + 2;
        let field = u16::from_be_bytes([piece[at], piece[at + 1]]);
        ((field & IPV6_FRAGMENT_OFFSET).into(), field & IPV6_MORE_FRAGMENTS != 0)
    } else {
        let at = network.offset + 6;
        let field = u16::from_be_bytes([piece[at], piece[at + 1]]);
        (usize::from(field & ipv4::FRAGMENT_OFFSET) * 8, field & ipv4::MORE_FRAGMENTS != 0)
    }
}
