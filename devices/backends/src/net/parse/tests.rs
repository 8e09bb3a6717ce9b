use proptest::prelude::*;

use super::*;
use crate::net::testing::{Ip, Layer4, Packet};

/// Packets of every kind, with everything that may be in between.
fn packets() -> impl Strategy<Value = Packet> {
    let vlan =
        prop::collection::vec((prop::sample::select(vec![0x8100, 0x88a8]), any::<u16>()), 0..3);
    let options = |most: usize| {
        prop::collection::vec(any::<u8>(), 0..=most).prop_map(|mut bytes| {
            bytes.truncate(bytes.len() / 4 * 4);
            bytes
        })
    };
    let extension = (prop::sample::select(vec![43, 60]), 0..3u8, any::<[u8; 32]>()).prop_map(
        |(number, units, mut bytes)| {
            bytes[1] = units;
            (number, bytes[..8 * (usize::from(units) + 1)].to_vec())
        },
    );
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>(), options(40), any::<u16>()).prop_map(
        |(source, destination, options, identification)| Ip::V4 {
            source,
            destination,
            options,
            identification,
            flags_fragment: 0,
        },
    );
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>(), prop::collection::vec(extension, 0..4))
        .prop_map(|(source, destination, extensions)| Ip::V6 { source, destination, extensions });
    let tcp = (any::<u32>(), any::<u8>(), options(40))
        .prop_map(|(sequence, flags, options)| Layer4::Tcp { sequence, flags, options });
    let layer4 = prop_oneof![tcp, Just(Layer4::Udp)];
    let payload = prop::collection::vec(any::<u8>(), 0..100);
    (vlan, prop_oneof![v4, v6], layer4, any::<(u16, u16)>(), payload)
        .prop_map(|(vlan, ip, layer4, ports, payload)| Packet { vlan, ip, layer4, ports, payload })
}

proptest! {
    #[test]
    fn anything_is_parsed(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let headers = Headers::parse(&bytes);
        prop_assert!(headers.header_len().is_none_or(|len| len <= bytes.len()));
    }

    // A packet with a few bytes changed goes deeper into the parser than noise.
    #[test]
    fn nearly_right_packets_are_parsed(
        packet in packets(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        len in any::<prop::sample::Index>(),
    ) {
        let mut frame = packet.finished();
        for (index, value) in changes {
            let index = index.index(frame.len());
            frame[index] = value;
        }
        frame.truncate(len.index(frame.len()) + 1);
        let headers = Headers::parse(&frame);
        prop_assert!(headers.header_len().is_none_or(|len| len <= frame.len()));
        if let Some(network) = headers.network {
            prop_assert!(network.payload <= frame.len());
            prop_assert!(network.extensions.unfragmentable <= network.payload);
            prop_assert!(network.extensions.next_header_at < network.payload);
        }
    }

    #[test]
    fn packets_parse_back(packet in packets(), padding in 0..20usize) {
        let mut frame = packet.finished();
        let whole = frame.len();
        frame.resize(whole + padding, 0x55);
        let headers = Headers::parse(&frame);
        let mut vlan = packet.vlan.iter().map(|(_, tci)| *tci);
        prop_assert_eq!(headers.vlan, [vlan.next(), vlan.next()]);
        let network = headers.network.unwrap();
        prop_assert_eq!(network.offset, packet.network_offset());
        prop_assert_eq!(network.length, Some(whole - packet.network_offset()));
        prop_assert_eq!(network.payload, packet.transport_offset());
        prop_assert!(!network.fragment);
        let addresses = match packet.ip {
            Ip::V4 { source, destination, .. } => Addresses::V4 { source, destination },
            Ip::V6 { source, destination, ref extensions } => {
                prop_assert_eq!(network.extensions.present, !extensions.is_empty());
                Addresses::V6 { source, destination }
            }
        };
        prop_assert_eq!(network.addresses, addresses);
        let transport = headers.transport.unwrap();
        let kind = match packet.layer4 {
            Layer4::Tcp { .. } => TransportKind::Tcp,
            Layer4::Udp => TransportKind::Udp,
        };
        prop_assert_eq!(transport.kind, kind);
        prop_assert_eq!((transport.source_port, transport.destination_port), packet.ports);
        prop_assert_eq!(headers.header_len(), Some(packet.payload_offset()));
        // Cut short anywhere in its headers, it has no transport.
        for len in 0..packet.payload_offset() {
            prop_assert_eq!(Headers::parse(&frame[..len]).transport, None);
        }
    }
}

fn v6_with(extensions: &[(u8, &[u8])]) -> Packet {
    let mut packet = Packet::udp6(b"payload");
    if let Ip::V6 { extensions: there, .. } = &mut packet.ip {
        *there = extensions.iter().map(|(number, bytes)| (*number, bytes.to_vec())).collect();
    }
    packet
}

fn parsed(packet: &Packet) -> (Network, Option<Transport>) {
    let headers = Headers::parse(&packet.finished());
    (headers.network.unwrap(), headers.transport)
}

const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

#[test]
fn addresses_in_extension_headers_are_found() {
    let home = [7; 16];
    // Padded both ways, then the option.
    let options = [&[0, 2, 0, 1, 1, 0, ipv6_option::HOME_ADDRESS, 16][..], &home].concat();
    let routing = [&[0, 2, ROUTING_TYPE_2, 1, 0, 0, 0, 0][..], &[9; 16]].concat();
    let packet = v6_with(&[
        (protocol::HOP_BY_HOP, &PADDING),
        (protocol::ROUTING, &routing),
        (protocol::DESTINATION_OPTIONS, &options),
    ]);
    let (network, transport) = parsed(&packet);
    let extensions = network.extensions;
    assert_eq!(extensions.home_address, Some(home));
    assert_eq!(extensions.routing_address, Some([9; 16]));
    assert!(extensions.routed && extensions.present && !extensions.fragment_header);
    assert_eq!(extensions.unfragmentable, 14 + 40 + 8 + 24);
    assert_eq!(extensions.next_header_at, 14 + 40 + 8);
    assert_eq!(network.ends(), Some(Addresses::V6 { source: home, destination: [9; 16] }));
    assert!(transport.is_some());
}

#[test]
fn a_destination_that_is_not_known_is_not_made_up() {
    // Segments are left, and the type is another one.
    let (network, _) = parsed(&v6_with(&[(protocol::ROUTING, &[0, 0, 4, 1, 0, 0, 0, 0])]));
    assert_eq!(network.ends(), None);
    // None are left: it has arrived.
    let (network, _) = parsed(&v6_with(&[(protocol::ROUTING, &[0, 0, 4, 0, 0, 0, 0, 0])]));
    assert_eq!(network.ends(), Some(network.addresses));
}

#[test]
fn options_that_are_cut_short_hide_nothing_else() {
    for options in [
        // Longer than the header; a home address of another length; a type without a length.
        [0, 0, 1, 9, 0, 0, 0, 0],
        [0, 0, ipv6_option::HOME_ADDRESS, 4, 1, 2, 3, 4],
        [0, 0, 1, 3, 0, 0, 0, 5],
    ] {
        let (network, transport) = parsed(&v6_with(&[(protocol::DESTINATION_OPTIONS, &options)]));
        assert_eq!(network.extensions.home_address, None);
        assert!(transport.is_some());
    }
}

#[test]
fn extension_headers_are_followed_so_far() {
    let header: (u8, &[u8]) = (protocol::DESTINATION_OPTIONS, &PADDING);
    let (network, transport) = parsed(&v6_with(&[header; MAX_EXTENSIONS]));
    assert_eq!(network.protocol, protocol::UDP);
    assert!(transport.is_some());
    let (network, transport) = parsed(&v6_with(&[header; MAX_EXTENSIONS + 1]));
    assert_eq!((network.protocol, transport), (protocol::DESTINATION_OPTIONS, None));
    // Hop-by-hop options are the first or nothing.
    let (network, transport) = parsed(&v6_with(&[header, (protocol::HOP_BY_HOP, &PADDING)]));
    assert_eq!((network.protocol, transport), (protocol::HOP_BY_HOP, None));
    // What is behind these cannot be read.
    for number in [protocol::ESP, protocol::AUTHENTICATION, protocol::NONE, protocol::MOBILITY] {
        let (network, transport) = parsed(&v6_with(&[(number, &PADDING)]));
        assert_eq!((network.protocol, transport), (number, None));
    }
}

#[test]
fn fragments_have_no_transport() {
    // More to come; behind the first; and the last: an atomic fragment is a whole packet.
    for (offset, fragment) in [(1u16, true), (1448, true), (8, true), (0, false), (6, false)] {
        let [a, b] = offset.to_be_bytes();
        let header = [0, 0xee, a, b, 1, 2, 3, 4];
        let (network, transport) = parsed(&v6_with(&[(protocol::FRAGMENT, &header)]));
        assert_eq!(network.fragment, fragment, "{offset}");
        assert_eq!(transport.is_none(), fragment, "{offset}");
        assert!(network.extensions.fragment_header);
        assert_eq!(network.protocol, protocol::UDP);
    }
    for (field, fragment) in [(1 << 13, true), (1, true), (0x1fff, true), (1 << 14, false)] {
        let mut packet = Packet::tcp4(b"payload");
        if let Ip::V4 { flags_fragment, .. } = &mut packet.ip {
            *flags_fragment = field;
        }
        let (network, transport) = parsed(&packet);
        assert_eq!((network.fragment, transport.is_none()), (fragment, fragment), "{field:#x}");
    }
}

#[test]
fn lengths_that_make_no_sense_are_not_believed() {
    let length_at = 16;
    let with_length = |length: u16| {
        let mut frame = Packet::tcp4(b"payload").finished();
        frame[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        Headers::parse(&frame)
    };
    // Shorter than its own header.
    assert_eq!(with_length(19).network, None);
    // Too short for the transport header; what is behind is padding.
    assert!(with_length(39).network.is_some() && with_length(39).transport.is_none());
    assert!(with_length(40).transport.is_some());
    // Longer than the frame.
    assert_eq!(with_length(0xffff).network.unwrap().length, Some(0xffff));
    // Not told, as of packets still to be cut.
    assert_eq!(with_length(0).network.unwrap().length, None);
    assert!(with_length(0).transport.is_some());
    // A jumbogram tells its length elsewhere.
    let mut frame = Packet::tcp6(b"payload").finished();
    frame[18..20].fill(0);
    assert_eq!(Headers::parse(&frame).network.unwrap().length, None);
}

#[test]
fn versions_and_header_lengths_are_checked() {
    for (first, there) in [(0x45, true), (0x44, false), (0x55, false), (0x65, false), (0x4f, true)]
    {
        let mut frame = Packet::tcp4(&[0; 64]).finished();
        frame[14] = first;
        assert_eq!(Headers::parse(&frame).network.is_some(), there, "{first:#x}");
    }
    for data_offset in 0..=15u8 {
        let packet = Packet::tcp4(&[0; 30]);
        let mut frame = packet.finished();
        frame[packet.transport_offset() + 12] = data_offset << 4;
        let transport = Headers::parse(&frame).transport;
        assert_eq!(transport.is_some(), (5..=12).contains(&data_offset), "{data_offset}");
    }
    let mut frame = Packet::udp6(b"").finished();
    frame[14] = 0x45;
    assert_eq!(Headers::parse(&frame).network, None);
}

#[test]
fn other_frames_have_no_network_layer() {
    let mut frame = Packet::udp4(b"").finished();
    for (kind, ether_type) in [(ether_type::ARP, 0x0806), (46, 46), (0x0600, 0x0600)] {
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        let headers = Headers::parse(&frame);
        assert_eq!((headers.ether_type, headers.network), (ether_type, None));
    }
    // A third tag is not looked behind.
    let mut packet = Packet::udp4(b"");
    packet.vlan = vec![(0x88a8, 1), (0x8100, 2), (0x8100, 3)];
    let headers = Headers::parse(&packet.finished());
    assert_eq!((headers.ether_type, headers.vlan), (0x8100, [Some(1), Some(2)]));
    assert_eq!(headers.network, None);
    assert_eq!(Headers::parse(&frame[..13]), Headers::default());
}
