use paraslot_backends::net::testing::FaultNet;
use paraslot_backends::net::{NetError, Offloads, PartialChecksum};
use paraslot_spec::e1000::{rxcsum, statistics};

use super::*;

#[test]
fn a_frame_goes_to_a_buffer() {
    let mut machine = Machine::new();
    assert_eq!(machine.host.accepted(), Offloads::empty());
    for len in [60, 61, 64, 1000, 1514, 1518] {
        machine.arrive(&frame(len));
        let (bytes, descriptor) = machine.clean().unwrap();
        assert_eq!(bytes, frame(len));
        let status = receive::DD | receive::EOP | receive::IXSM;
        assert_eq!((descriptor.status, descriptor.errors), (status, 0));
        assert_eq!((descriptor.special.get(), descriptor.checksum.get()), (0, 0));
    }
    assert_eq!((machine.read(RDH), machine.read(statistics::GPRC)), (6, 6));
    let statistics = machine.statistics();
    assert_eq!((statistics.received_frames, statistics.received_bytes), (6, 60 + 61 + 64 + 4032));
}

#[test]
fn short_frames_are_padded_as_on_the_wire() {
    let mut machine = Machine::new();
    machine.arrive(&frame(200));
    machine.clean();
    for len in [14, 15, 42, 59] {
        machine.arrive(&frame(len));
        let (bytes, _) = machine.clean().unwrap();
        assert_eq!((bytes.len(), &bytes[..len]), (60, &frame(len)[..]));
        assert!(bytes[len..].iter().all(|byte| *byte == 0), "what was there before");
    }
}

// Linux's driver never asks for the FCS to be stripped, and takes four bytes off.
#[test]
fn an_fcs_is_there_unless_it_is_to_be_stripped() {
    let mut machine = Machine::new();
    machine.write(RCTL, (Rctl::EN | Rctl::BAM).bits());
    for len in [60, 1514] {
        machine.arrive(&frame(len));
        let (bytes, _) = machine.clean().unwrap();
        assert_eq!((&bytes[..len], &bytes[len..]), (&frame(len)[..], &[0; 4][..]));
    }
    // It counts towards the buffers, too.
    machine.arrive(&frame_to([0xff; 6], 1518));
    assert_eq!(machine.clean().unwrap().0.len(), 1522);
    machine.write(RCTL, (Rctl::EN | Rctl::BAM | Rctl::LPE).bits());
    machine.arrive(&frame(2046));
    assert_eq!(machine.received(3).length.get(), 2048);
    assert_eq!(machine.received(4).length.get(), 2);
}

#[test]
fn frames_are_spread_over_buffers() {
    for (bits, size) in [
        (0, 2048),
        (1 << 16, 1024),
        (2 << 16, 512),
        (3 << 16, 256),
        (1 << 16 | 1 << 25, 16384),
        (2 << 16 | 1 << 25, 8192),
        (3 << 16 | 1 << 25, 4096),
    ] {
        let mut machine = Machine::new();
        machine.write(RCTL, (Rctl::EN | Rctl::LPE | Rctl::SECRC).bits() | bits);
        let lengths = [size - 1, size, size + 1, 3 * size + 5];
        for len in lengths.map(|len: usize| len.clamp(60, 16380).min(15 * size)) {
            let used = len.div_ceil(size) as u32;
            let first = machine.cleaned;
            machine.arrive(&frame(len));
            for index in 0..used {
                let descriptor = machine.received((first + index) % RING);
                let last = index + 1 == used;
                let left = len - index as usize * size;
                assert_eq!(usize::from(descriptor.length.get()), left.min(size));
                assert_eq!(descriptor.status & receive::EOP != 0, last);
                assert_eq!(descriptor.status & receive::IXSM != 0, last);
                // Nothing behind the buffer's end is touched.
                let behind = machine.bytes(descriptor.address.get() + size as u64, 16);
                assert_eq!(behind, [0; 16]);
            }
            assert_eq!(machine.clean().unwrap().0, frame(len), "{len} in {size}");
        }
    }
}

// CVE-2012-6075: a long frame must not get past a driver that has not asked for such.
#[test]
fn long_frames_are_for_those_who_want_them() {
    let mut machine = Machine::new();
    let base = Rctl::EN | Rctl::SECRC;
    for (rctl, longest) in [(base, 1518), (base | Rctl::LPE, 16380), (base | Rctl::SBP, 16380)] {
        machine.write(RCTL, rctl.bits());
        machine.arrive(&frame(longest));
        assert_eq!(machine.clean().unwrap().0.len(), longest);
        machine.arrive(&frame(longest + 1));
        assert!(machine.clean().is_none(), "{rctl:?}");
        assert_eq!(machine.read(statistics::ROC), 1);
    }
    assert_eq!(machine.statistics().received_too_long, 3);
    assert_eq!(machine.statistics().received_frames, 3);
}

#[test]
fn without_descriptors_frames_wait() {
    let mut machine = Machine::new();
    for round in 0..20usize {
        machine.host.push(0, &frame(100 + round));
    }
    machine.run();
    // One descriptor of the ring is never the hardware's.
    assert_eq!((machine.read(RDH), machine.read(RDT), machine.host.waiting(0)), (15, 15, 5));
    for round in 0..20 {
        assert_eq!(machine.clean().unwrap().0, frame(100 + round));
        machine.run();
    }
    assert_eq!((machine.host.waiting(0), machine.statistics().received_frames), (0, 20));
}

#[test]
fn a_frame_that_does_not_fit_waits_for_the_rest_of_its_buffers() {
    let mut machine = Machine::new();
    machine.write(RCTL, 0);
    machine.receive_ring(RX_RING, RING);
    machine.write(RCTL, (Rctl::EN | Rctl::LPE | Rctl::SECRC).bits());
    machine.give(2);
    machine.arrive(&frame(9000));
    assert_eq!((machine.read(RDH), machine.read(statistics::RNBC)), (2, 1));
    machine.run();
    machine.give(2);
    machine.run();
    assert_eq!(machine.statistics().received_frames, 0);
    machine.give(1);
    machine.run();
    assert_eq!(machine.clean().unwrap().0, frame(9000));
    assert_eq!((machine.read(statistics::RNBC), machine.statistics().no_guest_buffers), (0, 1));
}

#[test]
fn nothing_is_received_while_reception_is_off() {
    let mut machine = Machine::new();
    let rctl = machine.read(RCTL);
    machine.write(RCTL, 0);
    machine.arrive(&frame(100));
    assert_eq!((machine.read(RDH), machine.host.waiting(0)), (0, 1));
    machine.write(RCTL, rctl);
    machine.run();
    assert_eq!(machine.clean().unwrap().0, frame(100));
}

#[test]
fn checksums_are_checked_if_that_is_asked_for() {
    let good = [
        Packet::tcp4(&[7; 33]),
        Packet::tcp6(&[7; 33]),
        Packet::udp4(&[7; 1200]),
        Packet::udp6(&[7; 1201]),
    ];
    let (ip, transport, v6) = (rxcsum::IPOFL, rxcsum::TUOFL, rxcsum::IPV6OFL);
    for wanted in [0, ip, transport, ip | transport, ip | transport | v6] {
        let mut machine = Machine::new();
        machine.write(RXCSUM, wanted);
        for packet in &good {
            let is_v6 = packet.transport_offset() == 54;
            let mut status = 0;
            if wanted & ip != 0 && !is_v6 {
                status |= receive::IPCS;
            }
            if wanted & transport != 0 && (!is_v6 || wanted & v6 != 0) {
                status |= receive::TCPCS;
            }
            let expected = if status == 0 { receive::IXSM } else { status };
            let bytes = for_us(packet.finished());
            machine.arrive(&bytes);
            let (_, descriptor) = machine.clean().unwrap();
            let eop = receive::DD | receive::EOP;
            assert_eq!((descriptor.status, descriptor.errors), (expected | eop, 0), "{packet:?}");
            // One bit of the payload wrong, and one of the header.
            let mut wrong = bytes.clone();
            *wrong.last_mut().unwrap() ^= 1;
            machine.arrive(&wrong);
            let (_, descriptor) = machine.clean().unwrap();
            let error = if status & receive::TCPCS != 0 { receive::TCPE } else { 0 };
            assert_eq!((descriptor.status, descriptor.errors), (expected | eop, error));
            let mut wrong = bytes.clone();
            wrong[packet.network_offset() + 8] ^= 0x80;
            machine.arrive(&wrong);
            let (_, descriptor) = machine.clean().unwrap();
            let error = if status & receive::IPCS != 0 { receive::IPE } else { 0 };
            assert_eq!(descriptor.errors & receive::IPE, error);
        }
    }
}

#[test]
fn what_cannot_be_checked_is_not_said_to_be_right() {
    let mut machine = Machine::new();
    machine.write(RXCSUM, rxcsum::IPOFL | rxcsum::TUOFL | rxcsum::IPV6OFL);
    let packet = Packet::udp4(&[7; 40]);
    let mut without = for_us(packet.finished());
    without[40..42].fill(0);
    let mut fragment = for_us(packet.finished());
    fragment[20] = 0x20;
    let mut short = for_us(packet.finished());
    short.truncate(70);
    for bytes in [without, fragment, short] {
        machine.arrive(&bytes);
        let (_, descriptor) = machine.clean().unwrap();
        assert_eq!(descriptor.status & (receive::TCPCS | receive::IPCS), receive::IPCS);
        assert_eq!(descriptor.errors & receive::TCPE, 0);
    }
    machine.arrive(&frame(100));
    let (_, descriptor) = machine.clean().unwrap();
    assert_eq!(descriptor.status & (receive::TCPCS | receive::IPCS | receive::IXSM), receive::IXSM);
}

#[test]
fn what_the_backend_knows_is_believed() {
    let mut machine = Machine::new();
    machine.write(RXCSUM, rxcsum::TUOFL);
    let mut bytes = for_us(Packet::tcp4(&[7; 40]).finished());
    *bytes.last_mut().unwrap() ^= 1;
    machine.host.push_raw(0, &bytes, Offload { checksum_valid: true, ..Offload::default() });
    // Of a packet without such a checksum it says nothing.
    machine.host.push_raw(0, &frame(99), Offload { checksum_valid: true, ..Offload::default() });
    machine.run();
    let (_, descriptor) = machine.clean().unwrap();
    assert_eq!((descriptor.status & receive::TCPCS, descriptor.errors), (receive::TCPCS, 0));
    assert_eq!(machine.clean().unwrap().1.status & receive::TCPCS, 0);
}

// Frames may be older than the device's wish to have nothing left to be done.
#[test]
fn what_is_left_to_be_done_is_done_or_refused() {
    let mut machine = Machine::new();
    let packet = Packet::tcp4(&[7; 2000]);
    machine.host.push_with(0, &for_us(packet.unfinished()), packet.cut_offload(1000));
    machine.run();
    assert_eq!([(); 2].map(|()| machine.clean().unwrap().0.len()), [1054; 2]);
    let packet = Packet::udp4(&[7; 50]);
    machine.host.push_raw(0, &for_us(packet.unfinished()), packet.checksum_offload());
    machine.run();
    assert_eq!(machine.clean().unwrap().0, for_us(packet.finished()));
    let outside = PartialChecksum { start: 90, offset: 16 };
    let outside = Offload { checksum: Some(outside), ..Offload::default() };
    for offload in [outside, packet.cut_offload(10)] {
        machine.host.push_raw(0, &for_us(packet.unfinished()), offload);
        machine.run();
        assert!(machine.clean().is_none());
    }
    assert_eq!(machine.statistics().receive_errors, 2);
    assert_eq!(machine.read(statistics::RXERRC), 2);
}

#[test]
fn frames_that_are_none_are_dropped() {
    let mut machine = Machine::new();
    for len in [0, 1, 13] {
        machine.host.push_raw(0, &frame(20)[..len], Offload::default());
    }
    machine.arrive(&frame(60));
    assert_eq!(machine.clean().unwrap().0, frame(60));
    assert_eq!(machine.statistics().receive_errors, 3);
}

#[test]
fn an_error_costs_the_frame_and_not_the_ring() {
    let (backend, host) = ScriptedNet::new(1);
    let errors = [
        Some(NetError::Down),
        Some(NetError::Io(std::io::Error::other("no"))),
        Some(NetError::TooLong),
    ];
    let mut machine = Machine::with(FaultNet::scripted(backend, errors), host);
    machine.start();
    for _ in 0..4 {
        machine.host.push(0, &frame(60));
    }
    machine.run();
    assert_eq!(machine.clean().unwrap().0, frame(60));
    assert!(machine.clean().is_none());
    let statistics = machine.statistics();
    assert_eq!((statistics.receive_errors, statistics.received_too_long), (2, 1));
}

// CVE-2020-28916: descriptors without a buffer. They are passed over, marked done, and otherwise stay
// as they are (3.2.5).
#[test]
fn descriptors_without_a_buffer_are_passed_over() {
    let mut machine = Machine::new();
    for index in [0, 1, 3] {
        machine.receive_descriptor(index, 0);
        machine.fill(RX_RING + u64::from(index) * 16 + 8, &[0xaa, 0xbb, 0, 0, 0x80, 0, 0, 0]);
    }
    machine.write(RCTL, (Rctl::EN | Rctl::LPE | Rctl::SECRC).bits());
    machine.arrive(&frame(3000));
    assert_eq!(machine.read(RDH), 5);
    for index in [0, 1, 3] {
        let descriptor = machine.received(index);
        assert_eq!((descriptor.length.get(), descriptor.status), (0xbbaa, 0x80 | receive::DD));
    }
    assert_eq!((machine.received(2).length.get(), machine.received(4).length.get()), (2048, 952));
    assert_eq!(machine.bytes(0, 64), [0; 64]);
}

// The same, and all of them: bounded, and over when they are used up.
#[test]
fn a_ring_of_nothing_but_nulls_is_used_up() {
    let mut machine = Machine::off();
    machine.receive_ring(RX_RING, 8);
    machine.write(RDBAL, 0x28_0000);
    machine.write(RDLEN, 65_528 * 16);
    machine.write(RCTL, (Rctl::EN | Rctl::SECRC).bits());
    machine.write(RDT, 65_527);
    machine.host.push(0, &frame(60));
    let before = machine.read(RDH);
    let _ = machine.executor.step_all();
    assert!((1..=512).contains(&(machine.read(RDH) - before)));
    machine.run();
    assert_eq!((machine.read(RDH), machine.statistics().received_frames), (65_527, 0));
}

#[test]
fn a_buffer_outside_memory_costs_the_frame() {
    let mut machine = Machine::new();
    machine.receive_descriptor(0, u64::MAX - 3);
    machine.receive_descriptor(1, MEMORY as u64 - 10);
    for _ in 0..3 {
        machine.arrive(&frame(60));
    }
    for (index, errors) in [(0, receive::RXE), (1, receive::RXE), (2, 0)] {
        let descriptor = machine.received(index);
        assert_eq!((descriptor.errors, descriptor.status & 3), (errors, 3));
    }
    assert_eq!(machine.read(statistics::RXERRC), 2);
    let statistics = machine.statistics();
    assert_eq!((statistics.receive_errors, statistics.received_frames), (2, 1));
}
