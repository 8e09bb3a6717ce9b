use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::net::testing::{Ip, Packet};

/// The key of Microsoft's vectors ("Verifying the RSS hash calculation").
const VECTOR_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

fn hashed(packet: &Packet, types: HashTypes) -> Option<(u32, HashKind)> {
    Toeplitz::new(&VECTOR_KEY).hash_packet(&Headers::parse(&packet.finished()), types)
}

// Destination and source with ports, the hash of the addresses, the hash with TCP's ports.
#[test]
fn the_ipv4_vectors_come_out() {
    for (to, to_port, from, from_port, addresses, with_ports) in [
        ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d18_09c5, 0x10e8_28a2),
    ] {
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
        for (mut packet, kind, types) in [
            (Packet::tcp4(b""), HashKind::TcpV4, HashTypes::TCP_V4),
            (Packet::udp4(b""), HashKind::UdpV4, HashTypes::UDP_V4),
        ] {
            packet.ports = (from_port, to_port);
            if let Ip::V4 { source, destination, .. } = &mut packet.ip {
                (*source, *destination) = (address(from), address(to));
            }
            let all = types | HashTypes::IPV4;
            assert_eq!(hashed(&packet, HashTypes::IPV4), Some((addresses, HashKind::Ipv4)));
            assert_eq!(hashed(&packet, types), Some((with_ports, kind)));
            assert_eq!(hashed(&packet, all), Some((with_ports, kind)));
            assert_eq!(hashed(&packet, HashTypes::all() - all), None);
        }
    }
}

#[test]
fn the_ipv6_vectors_come_out() {
    for (to, to_port, from, from_port, addresses, with_ports) in [
        ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc1_8cd5, 0x4020_7d3d),
        ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c_461c, 0xdde5_1bbf),
        (
            "fe80::200:f8ff:fe21:67cf",
            38024,
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            44251,
            0x4b61_e985,
            0x02d1_feef,
        ),
    ] {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        for (mut packet, kind, types) in [
            (Packet::tcp6(b""), HashKind::TcpV6, HashTypes::TCP_V6),
            (Packet::udp6(b""), HashKind::UdpV6, HashTypes::UDP_V6),
        ] {
            packet.ports = (from_port, to_port);
            if let Ip::V6 { source, destination, .. } = &mut packet.ip {
                (*source, *destination) = (address(from), address(to));
            }
            let all = types | HashTypes::IPV6;
            assert_eq!(hashed(&packet, HashTypes::IPV6), Some((addresses, HashKind::Ipv6)));
            assert_eq!(hashed(&packet, types), Some((with_ports, kind)));
            // The types for extension headers do not count without any.
            assert_eq!(hashed(&packet, HashTypes::all()), Some((with_ports, kind)));
            assert_eq!(hashed(&packet, HashTypes::all() - all), None);
        }
    }
}

/// One bit at a time, as it is written down.
fn by_definition(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], index: usize| {
        u32::from(bytes.get(index / 8).is_some_and(|byte| byte << (index % 8) & 0x80 != 0))
    };
    let window = |start| (0..32).fold(0, |value, index| value << 1 | bit(key, start + index));
    (0..input.len() * 8).filter(|index| bit(input, *index) == 1).map(window).fold(0, |a, b| a ^ b)
}

proptest::proptest! {
    #[test]
    fn hashes_are_as_defined(key: Vec<u8>, input: [u8; MAX_INPUT], len in 0..=MAX_INPUT) {
        let hash = Toeplitz::new(&key).hash(&input[..len]);
        proptest::prop_assert_eq!(hash, by_definition(&key, &input[..len]));
    }
}

// VIRTIO 1.4, 5.1.6.4.3.4.
#[test]
fn extension_headers_change_what_is_hashed() {
    let (home, routing) = ([7; 16], [9; 16]);
    let home_option = [&[0, 2, 1, 2, 0, 0, 0xc9, 16][..], &home].concat();
    let routing_header = [&[0, 2, 2, 1, 0, 0, 0, 0][..], &routing].concat();
    let padding = vec![0, 0, 1, 4, 0, 0, 0, 0];
    let cases = [
        (vec![(60, home_option.clone())], Some(home), None),
        (vec![(43, routing_header.clone())], None, Some(routing)),
        (vec![(43, routing_header), (60, home_option)], Some(home), Some(routing)),
        (vec![(0, padding)], None, None),
    ];
    for (headers, home, routing) in cases {
        for (packet, basic, kinds) in [
            (Packet::tcp6(b""), HashTypes::TCP_V6, (HashTypes::TCP_V6_EX, HashKind::TcpV6Ex)),
            (Packet::udp6(b""), HashTypes::UDP_V6, (HashTypes::UDP_V6_EX, HashKind::UdpV6Ex)),
        ] {
            let mut packet = packet;
            let Ip::V6 { source, destination, extensions } = &mut packet.ip else { panic!() };
            extensions.clone_from(&headers);
            let plain = [&source[..], destination].concat();
            let special = [home.unwrap_or(*source), routing.unwrap_or(*destination)].concat();
            let ports = [packet.ports.0.to_be_bytes(), packet.ports.1.to_be_bytes()].concat();
            let hash = |parts: &[&[u8]]| by_definition(&VECTOR_KEY, &parts.concat());
            let (extended, kind) = kinds;
            let (all, with_ports) = (HashTypes::all(), Some((hash(&[&special, &ports]), kind)));
            assert_eq!(hashed(&packet, extended), with_ports);
            assert_eq!(hashed(&packet, all), with_ports);
            let addresses = Some((hash(&[&special]), HashKind::Ipv6Ex));
            assert_eq!(hashed(&packet, HashTypes::IPV6_EX), addresses);
            assert_eq!(hashed(&packet, all - extended), addresses);
            // Without the types for them, as if they were not there.
            let (with_ports, addresses) = (hash(&[&plain, &ports]), hash(&[&plain]));
            assert_eq!(hashed(&packet, basic).unwrap().0, with_ports);
            assert_eq!(hashed(&packet, basic | HashTypes::IPV6).unwrap().0, with_ports);
            assert_eq!(hashed(&packet, HashTypes::IPV6), Some((addresses, HashKind::Ipv6)));
        }
    }
}

// All of a packet's fragments go to one queue.
#[test]
fn fragments_are_hashed_by_address() {
    let mut packet = Packet::tcp4(b"payload");
    let whole = hashed(&packet, HashTypes::IPV4);
    for field in [1 << 13, 1 << 13 | 5, 7] {
        if let Ip::V4 { flags_fragment, .. } = &mut packet.ip {
            *flags_fragment = field;
        }
        assert_eq!(hashed(&packet, HashTypes::all()), whole);
        assert_eq!(hashed(&packet, HashTypes::TCP_V4), None);
    }
}

#[test]
fn other_frames_are_not_hashed() {
    let mut frame = Packet::tcp4(b"").finished();
    frame[12..14].copy_from_slice(&0x0806u16.to_be_bytes());
    assert_eq!(HashInput::select(&Headers::parse(&frame), HashTypes::all()), None);
}
