//! What is left to be done to a frame, told in both directions.

use paraslot_backends::net::testing::Packet;
use paraslot_backends::net::{Cut, Offload, Offloads, PartialChecksum, Segmentation};
use paraslot_spec::net::tcp;
use paraslot_spec::virtio_net::{class, gso, header_flag};
use proptest::prelude::*;

use super::*;
use crate::header::{receive_header, transmit_offload};

/// A packet, what its driver says of it, and the feature that this needs.
fn cases() -> Vec<(Packet, Header, u64, u64)> {
    let cwr = |mut packet: Packet| {
        if let paraslot_backends::net::testing::Layer4::Tcp { flags, .. } = &mut packet.layer4 {
            *flags |= tcp::CWR;
        }
        packet
    };
    let header = |packet: &Packet, gso_type: u8| {
        let checksum = packet.partial_checksum();
        Header {
            flags: header_flag::NEEDS_CSUM,
            gso_type,
            hdr_len: u16::try_from(packet.payload_offset()).unwrap().into(),
            gso_size: if gso_type == 0 { 0 } else { 500 }.into(),
            csum_start: checksum.start.into(),
            csum_offset: checksum.offset.into(),
            num_buffers: 0.into(),
        }
    };
    let data = [0x5a; 1300];
    [
        (Packet::tcp4(&data), gso::NONE, feature::CSUM, feature::GUEST_CSUM),
        (Packet::udp6(&data), gso::NONE, feature::CSUM, feature::GUEST_CSUM),
        (Packet::tcp4(&data), gso::TCPV4, feature::HOST_TSO4, feature::GUEST_TSO4),
        (Packet::tcp6(&data), gso::TCPV6, feature::HOST_TSO6, feature::GUEST_TSO6),
        (cwr(Packet::tcp4(&data)), gso::TCPV4 | gso::ECN, feature::HOST_ECN, feature::GUEST_ECN),
        (cwr(Packet::tcp6(&data)), gso::TCPV6 | gso::ECN, feature::HOST_ECN, feature::GUEST_ECN),
        (Packet::udp4(&data), gso::UDP, feature::HOST_UFO, feature::GUEST_UFO),
        (Packet::udp4(&data), gso::UDP_L4, feature::HOST_USO, feature::GUEST_USO4),
        (Packet::udp6(&data), gso::UDP_L4, feature::HOST_USO, feature::GUEST_USO6),
    ]
    .into_iter()
    .map(|(packet, kind, out, into)| {
        let header = header(&packet, kind);
        (packet, header, out, into)
    })
    .collect()
}

/// What the backend is told for such a header.
fn offload(header: &Header) -> Offload {
    let checksum =
        PartialChecksum { start: header.csum_start.get(), offset: header.csum_offset.get() };
    let cut = match header.gso_type & !gso::ECN {
        gso::TCPV4 => Some(Cut::Tcp4),
        gso::TCPV6 => Some(Cut::Tcp6),
        gso::UDP => Some(Cut::UdpFragments),
        gso::UDP_L4 => Some(Cut::UdpDatagrams),
        _ => None,
    };
    let segmentation = cut.map(|cut| Segmentation {
        cut,
        size: header.gso_size.get(),
        header_len: header.hdr_len.get(),
        ecn: header.gso_type & gso::ECN != 0,
    });
    Offload { checksum: Some(checksum), segmentation, checksum_valid: false }
}

#[test]
fn what_was_negotiated_goes_out() {
    for (packet, header, feature, _) in cases() {
        let mut nic = Nic::new(PLAIN);
        nic.send(header, &packet.unfinished());
        let sent = nic.port.take_sent(0);
        assert_eq!(sent.len(), 1, "{header:?} {:?}", nic.statistics());
        assert_eq!(sent[0].bytes, packet.unfinished());
        assert_eq!(sent[0].offload, offload(&header));

        // Without the feature, and all that needs it.
        let without = crate::features::consistent(PLAIN & crate::features::SERVED & !feature);
        let mut nic = Nic::new(without);
        nic.send(header, &packet.unfinished());
        assert_eq!((nic.sent(0).len(), nic.statistics().send_invalid), (0, 1), "{header:?}");
    }
}

#[test]
fn what_makes_no_sense_does_not_go_out() {
    for (packet, header, ..) in cases() {
        let len = packet.unfinished().len();
        let end = u16::try_from(len).unwrap();
        let mut wrong = vec![
            Header { csum_start: (end - 1).into(), csum_offset: 0.into(), ..header },
            Header { csum_start: 0.into(), csum_offset: (end - 1).into(), ..header },
            Header { csum_start: 0xffff.into(), csum_offset: 0xffff.into(), ..header },
        ];
        if header.gso_type != gso::NONE {
            wrong.push(Header { gso_size: 0.into(), ..header });
            wrong.push(Header { flags: 0, ..header });
            wrong.push(Header { gso_type: 2, ..header });
            wrong.push(Header { gso_type: 6, ..header });
            wrong.push(Header { gso_type: 0x1f, ..header });
        }
        if matches!(header.gso_type, gso::UDP | gso::UDP_L4) {
            wrong.push(Header { gso_type: header.gso_type | gso::ECN, ..header });
        }
        let mut nic = Nic::new(PLAIN);
        for (count, header) in (1..).zip(wrong) {
            // The device says so, whatever the backend would.
            assert!(transmit_offload(&header, ALL, len).is_err(), "{header:?}");
            nic.send(header, &packet.unfinished());
            assert_eq!(
                (nic.sent(0).len(), nic.statistics().send_invalid),
                (0, count),
                "{header:?}"
            );
        }
    }
}

// net.rx.5, net.rx.7 to net.rx.10, net.rx.13, net.rx.14, net.rx.17, net.rx.20, net.rx.26 to
// net.rx.28, net.rx.31
#[test]
fn what_was_negotiated_comes_in() {
    for (packet, header, _, feature) in cases() {
        let all = PLAIN | feature::MRG_RXBUF;
        let mut nic = Nic::new(all);
        nic.post(0, 4, 4096);
        nic.port.push_raw(0, &packet.unfinished(), offload(&header));
        let got = nic.receive().unwrap();
        let mut expected = header;
        expected.num_buffers = 1.into();
        if header.gso_type == gso::NONE {
            expected.hdr_len = 0.into();
        }
        assert_eq!((got.header.header, got.frame), (expected, packet.unfinished()));

        // A host that passes it on although the driver does not take it.
        let without = crate::features::consistent(all & crate::features::SERVED & !feature);
        let mut nic = Nic::new(without);
        nic.post(0, 4, 4096);
        // Either of these is enough (5.1.9.4.1).
        let other = header.gso_type == gso::UDP_L4;
        nic.port.push_raw(0, &packet.unfinished(), offload(&header));
        assert_eq!(nic.receive().is_some(), other, "{header:?}");
        assert_eq!(nic.statistics().receive_errors, u64::from(!other));
    }
}

// net.rx.6, net.rx.18, net.rx.19: what the driver does not take is done before it gets the frame.
#[test]
fn what_was_not_negotiated_is_done() {
    for (packet, header, _, feature) in cases() {
        let mut nic = Nic::new(feature::MAC);
        nic.post(0, 8, 4096);
        nic.port.push_with(0, &packet.unfinished(), offload(&header));
        nic.run();
        let mut frames = 0;
        while let Some(got) = nic.got(0) {
            let expected = Header { num_buffers: 1.into(), ..Header::default() };
            assert_eq!(got.header.header, expected, "{feature:#x}");
            frames += 1;
            if header.gso_type == gso::NONE {
                assert_eq!(got.frame, packet.finished());
            }
        }
        assert_eq!(frames, if header.gso_type == gso::NONE { 1 } else { 3 }, "{header:?}");
    }
}

// net.rx.32, net.rx.33
#[test]
fn a_checksum_that_is_known_to_be_right_is_told() {
    let valid = Offload { checksum_valid: true, ..Offload::default() };
    for (features, flags) in [(PLAIN, header_flag::DATA_VALID), (feature::MAC, 0)] {
        let mut nic = Nic::new(features);
        nic.post(0, 4, 2048);
        nic.port.push_raw(0, &Packet::tcp4(b"x").finished(), valid);
        assert_eq!(nic.receive().unwrap().header.header.flags, flags);
        nic.port.push_raw(0, &frame(60), Offload::default());
        assert_eq!(nic.receive().unwrap().header.header.flags, 0);
    }
}

#[test]
fn a_host_that_makes_no_sense_is_not_passed_on() {
    for (packet, header, ..) in cases() {
        let frame = packet.unfinished();
        let right = offload(&header);
        let end = u16::try_from(frame.len()).unwrap();
        let checksum =
            |start, offset| Offload { checksum: Some(PartialChecksum { start, offset }), ..right };
        let mut wrong = vec![checksum(end - 1, 0), checksum(0, end - 1), checksum(0xffff, 0xffff)];
        if let Some(segmentation) = right.segmentation {
            wrong.push(Offload { checksum: None, ..right });
            let none = Segmentation { size: 0, ..segmentation };
            wrong.push(Offload { segmentation: Some(none), ..right });
            if matches!(segmentation.cut, Cut::UdpFragments | Cut::UdpDatagrams) {
                let ecn = Segmentation { ecn: true, ..segmentation };
                wrong.push(Offload { segmentation: Some(ecn), ..right });
            }
        }
        let mut nic = Nic::new(PLAIN);
        nic.post(0, 2, 4096);
        for (count, wrong) in (1..).zip(wrong) {
            nic.port.push_raw(0, &frame, wrong);
            assert_eq!(nic.receive(), None, "{wrong:?}");
            assert_eq!(nic.statistics().receive_errors, count);
        }
        nic.port.push_raw(0, &frame, right);
        assert!(nic.receive().is_some());
    }
}

#[test]
fn the_backend_is_told_what_the_driver_takes() {
    for (features, offloads) in [
        (0, Offloads::empty()),
        (feature::GUEST_CSUM, Offloads::CHECKSUM),
        (feature::GUEST_CSUM | feature::GUEST_TSO4, Offloads::CHECKSUM | Offloads::TSO4),
        (ALL, Offloads::all()),
    ] {
        let nic = Nic::new(features);
        assert_eq!(nic.port.accepted(), offloads);
    }
}

#[test]
fn the_driver_changes_its_mind_about_offloads() {
    let mut nic = Nic::new(PLAIN);
    let guest = paraslot_spec::virtio_net::guest_offloads::ALL;
    let set = |nic: &mut Nic, bits: u64| nic.command(class::GUEST_OFFLOADS, 0, &bits.to_le_bytes());
    nic.post(0, 8, 4096);
    let packet = Packet::tcp4(&[1; 1300]);
    for (bits, offloads) in [
        (0, Offloads::empty()),
        (feature::GUEST_CSUM, Offloads::CHECKSUM),
        (guest, Offloads::all()),
        // What lacks what it needs is off.
        (guest & !feature::GUEST_CSUM, Offloads::empty()),
        (guest & !feature::GUEST_TSO4, Offloads::all() - Offloads::TSO4),
        (feature::GUEST_CSUM | feature::GUEST_ECN, Offloads::CHECKSUM),
    ] {
        assert_eq!(set(&mut nic, bits), 0);
        assert_eq!(nic.port.accepted(), offloads, "{bits:#x}");
    }
    // A frame that was under way is not passed on as it was.
    nic.port.push_raw(0, &packet.unfinished(), packet.cut_offload(500));
    assert_eq!((nic.receive(), nic.statistics().receive_errors), (None, 1));
    // Bits that mean nothing here, or were not negotiated.
    for bits in [1, feature::GUEST_CSUM | 1 << 46, 1 << 47, u64::MAX] {
        assert_eq!(set(&mut nic, bits), 1, "{bits:#x}");
    }
    assert_eq!(nic.port.accepted(), Offloads::CHECKSUM);
    let mut nic = Nic::new(PLAIN & !feature::GUEST_UFO);
    assert_eq!(set(&mut nic, feature::GUEST_CSUM | feature::GUEST_UFO), 1);
    assert_eq!(set(&mut nic, feature::GUEST_CSUM), 0);
}

fn any_header() -> impl Strategy<Value = Header> {
    let fields = any::<(u8, u8, u16, u16, u16, u16)>();
    let kinds = proptest::sample::select(vec![0, 1, 3, 4, 5, 0x80, 0x81, 0x84, 0x85]);
    let starts = prop_oneof![0u16..200, any::<u16>()];
    (fields, kinds, starts, any::<bool>()).prop_map(|(fields, kind, start, tame)| Header {
        flags: if tame { fields.0 & 3 } else { fields.0 },
        gso_type: if tame { kind } else { fields.1 },
        hdr_len: fields.2.into(),
        gso_size: fields.3.into(),
        csum_start: if tame { start } else { fields.4 }.into(),
        csum_offset: if tame { start % 40 } else { fields.5 }.into(),
        num_buffers: 0.into(),
    })
}

proptest! {
    /// What a driver may say and another driver would be told is the same.
    #[test]
    fn headers_mean_the_same_both_ways(header in any_header(), len in 14usize..2000) {
        if let Ok(offload) = transmit_offload(&header, ALL, len) {
            let back = receive_header(&offload, Offloads::all(), len).unwrap();
            let again = transmit_offload(&back, ALL, len).unwrap();
            prop_assert_eq!(again.checksum, offload.checksum);
            let hint = |offload: Offload| offload.segmentation.map(|s| (s.cut, s.size, s.ecn));
            prop_assert_eq!(hint(again), hint(offload));
            let needs = header.flags & header_flag::NEEDS_CSUM;
            prop_assert_eq!(back.flags, needs);
            prop_assert!(usize::from(back.hdr_len.get()) <= len);
            if offload.segmentation.is_some() {
                prop_assert_eq!(back.gso_type, header.gso_type);
                prop_assert_ne!(back.gso_size.get(), 0);
                prop_assert_eq!(needs, header_flag::NEEDS_CSUM);
            } else {
                prop_assert_eq!(back.gso_type, gso::NONE);
            }
        }
    }

    /// Whatever a host says, the driver is told nothing that it does not take, and no place beyond
    /// the frame.
    #[test]
    fn what_is_told_is_what_was_negotiated(
        header in any_header(),
        accepted in 0u32..128,
        valid: bool,
        len in 14usize..2000,
    ) {
        let accepted = Offloads::from_bits_truncate(accepted);
        let offload = Offload { checksum_valid: valid, ..offload(&header) };
        let Ok(told) = receive_header(&offload, accepted, len) else { return Ok(()) };
        prop_assert_eq!(told.flags & !3, 0);
        prop_assert!(told.flags == 0 || accepted.contains(Offloads::CHECKSUM));
        prop_assert_ne!(told.flags, 3);
        let end = usize::from(told.csum_start.get()) + usize::from(told.csum_offset.get());
        prop_assert!(told.flags & 1 == 0 || end + 2 <= len);
        let any_of = match told.gso_type & !gso::ECN {
            gso::NONE => Offloads::all(),
            gso::TCPV4 => Offloads::TSO4,
            gso::TCPV6 => Offloads::TSO6,
            gso::UDP => Offloads::UFO,
            _ => Offloads::USO4 | Offloads::USO6,
        };
        prop_assert!(accepted.intersects(any_of) || told.gso_type == gso::NONE);
        prop_assert!(told.gso_type & gso::ECN == 0 || accepted.contains(Offloads::TSO_ECN));
    }
}
