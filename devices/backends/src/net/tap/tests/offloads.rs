//! What is left to the other side to do, seen by a packet socket and by ordinary sockets of the
//! host's kernel.

use paraslot_spec::virtio_net::{Header, gso, header_flag};

use super::frames::{Ends, GUEST, L4, PORT, cut, partial, pattern};
use super::interface::{Port, datagram, socket};
use crate::net::testing::namespace::in_namespace;
use crate::net::{Cut, NetBackend, NetError, Offload, Offloads};

const ALL: Offloads = Offloads::all();
/// Flags of a TCP segment.
const ACK: u8 = 0x10;
const ACK_PSH: u8 = 0x18;
const CWR: u8 = 0x80;

fn native(port: &Port, offloads: Offloads) -> bool {
    let native = port.backend.info().native.contains(offloads);
    if !native {
        println!("this kernel has no {offloads:?}");
    }
    native
}

#[test]
fn every_kernel_in_use_does_checksums_and_tcp() {
    in_namespace(|namespace| {
        let native = Port::new(namespace, 1).backend.info().native;
        let tcp = Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN;
        assert!(native.contains(Offloads::CHECKSUM | tcp), "{native:?}");
        assert_eq!(native.contains(Offloads::USO4), native.contains(Offloads::USO6));
    });
}

#[test]
fn the_kernel_completes_a_checksum_that_was_left() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let socket = socket();
        let packets = port.host.packets();
        let frame = port.outward().udp(&pattern(501), true);
        // Without a word about it, the checksum is wrong, and the datagram goes nowhere.
        port.send(&frame, Offload::default()).unwrap();
        port.send(&frame, partial(6)).unwrap();
        port.send(&port.outward().udp(b"next", false), Offload::default()).unwrap();
        assert_eq!(datagram(&socket), pattern(501));
        assert_eq!(datagram(&socket), b"next");
        assert_eq!(packets.receive().unwrap().0, Header::default());
        let (header, seen) = packets.receive().unwrap();
        assert_eq!(header.flags, header_flag::NEEDS_CSUM);
        assert_eq!((header.csum_start.get(), header.csum_offset.get()), (L4, 6));
        assert!(seen == frame);
    });
}

#[test]
fn tcp_reaches_the_kernel_uncut() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let packets = port.host.packets();
        let frame = port.outward().tcp(&pattern(40_000), ACK_PSH | CWR);
        for ecn in [false, true] {
            let mut offload = cut(Cut::Tcp4, 1400, 16, 54);
            offload.segmentation.as_mut().unwrap().ecn = ecn;
            port.send(&frame, offload).unwrap();
            let (header, seen) = packets.receive().unwrap();
            assert!(seen == frame);
            let kind = if ecn { gso::TCPV4 | gso::ECN } else { gso::TCPV4 };
            assert_eq!((header.gso_type, header.gso_size.get()), (kind, 1400));
            assert_eq!(header.flags, header_flag::NEEDS_CSUM);
            // The kernel has nobody at that port, and says so; that answer is not looked at here.
            while packets.receive().is_some() {}
        }
        // The length of the headers is a hint.
        for header_len in [0, 1, 53, 55, u16::MAX] {
            port.send(&frame, cut(Cut::Tcp4, 1400, 16, header_len)).unwrap();
            assert!(packets.receive().unwrap().1 == frame);
            while packets.receive().is_some() {}
        }
    });
}

#[test]
fn offloads_that_the_frame_is_not_for_are_invalid() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let tcp = port.outward().tcp(&pattern(4000), ACK);
        let udp = port.outward().udp(&pattern(4000), true);
        for (frame, offload) in [
            (&tcp, cut(Cut::Tcp6, 1400, 16, 54)),
            (&tcp, cut(Cut::Tcp4, 1400, 15, 54)),
            (&tcp, partial(4019)),
            (&udp, cut(Cut::Tcp4, 1400, 6, 42)),
            (&udp, cut(Cut::UdpDatagrams, 1400, 16, 42)),
        ] {
            let error = port.send(frame, offload).err();
            assert!(matches!(error, Some(NetError::Invalid)), "{error:?} for {offload:?}");
        }
        let socket = socket();
        port.send(&port.outward().udp(b"next", false), Offload::default()).unwrap();
        assert_eq!(datagram(&socket), b"next");
    });
}

// Where the kernel cannot, or will not: it has a limit to the number of datagrams.
#[test]
fn a_long_datagram_is_cut_into_as_many_as_it_takes() {
    in_namespace(|namespace| {
        for natively in [true, false] {
            let mut port = Port::new(namespace, 1);
            if natively && !native(&port, Offloads::USO4) {
                continue;
            }
            if !natively {
                port = port.without(Offloads::USO4 | Offloads::USO6);
            }
            let socket = socket();
            for (size, count) in [(1000, 8), (100, 3), (100, 100), (100, 150)] {
                let data = pattern(size * count - 1);
                let frame = port.outward().udp(&data, true);
                let size16 = u16::try_from(size).unwrap();
                let before = port.sender.copied_bytes();
                port.send(&frame, cut(Cut::UdpDatagrams, size16, 6, 42)).unwrap();
                for piece in data.chunks(size) {
                    assert!(datagram(&socket) == piece);
                }
                let copied = port.sender.copied_bytes() != before;
                assert_eq!(copied, !natively || count == 150, "{natively} {count}");
            }
            port.host.remove();
        }
    });
}

#[test]
fn a_datagram_is_cut_into_fragments() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let socket = socket();
        let data = pattern(20_000);
        let frame = port.outward().udp(&data, true);
        port.send(&frame, cut(Cut::UdpFragments, 1480, 6, 42)).unwrap();
        assert!(datagram(&socket) == data);
    });
}

/// Has the host's network send a TCP segment of 10000 bytes, to be cut at 1000; returns what comes.
fn received(port: &mut Port, accepted: Offloads) -> Vec<(Vec<u8>, Offload)> {
    port.backend.set_receive_offloads(accepted).unwrap();
    let frame = port.inward().tcp(&pattern(10_000), ACK);
    let header = Header {
        flags: header_flag::NEEDS_CSUM,
        gso_type: gso::TCPV4,
        hdr_len: 54.into(),
        gso_size: 1000.into(),
        csum_start: L4.into(),
        csum_offset: 16.into(),
        num_buffers: 0.into(),
    };
    port.host.packets().send(&header, &frame).unwrap();
    std::iter::from_fn(|| port.receive().unwrap()).collect()
}

#[test]
fn tcp_comes_uncut_only_if_that_is_accepted() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let ends: Ends = port.inward();
        for accepted in
            [Offloads::CHECKSUM | Offloads::TSO4, ALL, ALL - Offloads::USO4 - Offloads::TSO6]
        {
            let frames = received(&mut port, accepted);
            assert_eq!(frames.len(), 1, "{accepted:?}");
            let (frame, offload) = &frames[0];
            assert!(*frame == ends.tcp(&pattern(10_000), ACK));
            let mut expected = cut(Cut::Tcp4, 1000, 16, 0);
            let header_len = offload.segmentation.unwrap().header_len;
            expected.segmentation.as_mut().unwrap().header_len = header_len;
            assert_eq!(*offload, expected);
        }
        // None at first, none when none are left, and none without checksums.
        for accepted in [Offloads::empty(), Offloads::TSO4, ALL - Offloads::CHECKSUM] {
            let frames = received(&mut port, accepted);
            assert_eq!(frames.len(), 10, "{accepted:?}");
            for (frame, offload) in &frames {
                assert_eq!(*offload, Offload::default());
                assert!(ends.is_right(frame));
            }
            let data: Vec<_> = frames.iter().flat_map(|(frame, _)| frame[54..].to_vec()).collect();
            assert!(data == pattern(10_000));
        }
        let frames = received(&mut port, ALL - Offloads::TSO4);
        assert_eq!(frames.len(), 10);
        assert!(frames.iter().all(|(_, offload)| offload.segmentation.is_none()));
    });
}

#[test]
fn checksums_are_left_only_if_that_is_accepted() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let socket = socket();
        let data = pattern(100);
        for accepted in [Offloads::empty(), Offloads::CHECKSUM, ALL, Offloads::empty()] {
            port.backend.set_receive_offloads(accepted).unwrap();
            socket.send_to(&data, (GUEST, PORT)).unwrap();
            let (frame, offload) = port.next();
            let left = accepted.contains(Offloads::CHECKSUM);
            assert_eq!(port.inward().is_right(&frame), !left);
            assert_eq!(offload, if left { partial(6) } else { Offload::default() });
            assert_eq!(frame[42..], data);
        }
    });
}

#[test]
fn datagrams_come_uncut_only_if_both_kinds_are_accepted() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        if !native(&port, Offloads::USO4) {
            return;
        }
        let frame = port.inward().udp(&pattern(5000), true);
        let header = Header {
            flags: header_flag::NEEDS_CSUM,
            gso_type: gso::UDP_L4,
            hdr_len: 42.into(),
            gso_size: 1000.into(),
            csum_start: L4.into(),
            csum_offset: 6.into(),
            num_buffers: 0.into(),
        };
        for (accepted, count) in
            [(ALL, 1), (ALL - Offloads::USO6, 5), (ALL, 1), (ALL - Offloads::USO4, 5)]
        {
            port.backend.set_receive_offloads(accepted).unwrap();
            port.host.packets().send(&header, &frame).unwrap();
            let frames: Vec<_> = std::iter::from_fn(|| port.receive().unwrap()).collect();
            assert_eq!(frames.len(), count, "{accepted:?}");
            assert_eq!(frames[0].1.segmentation.is_some(), count == 1);
        }
    });
}

// A network that has VLANs: the tag travels outside of the frame in the kernel.
#[test]
fn a_vlan_tag_comes_where_it_belongs() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let mut frame = port.inward().udp(&pattern(100), false);
        frame.splice(12..12, [0x81, 0, 0x20, 5]);
        port.host.packets().send(&Header::default(), &frame).unwrap();
        assert!(port.next().0 == frame);
    });
}
