use paraslot_backends::net::NetError;
use paraslot_backends::net::testing::FaultNet;
use paraslot_spec::e1000::{statistics, thresholds};

use super::*;

#[test]
fn a_legacy_descriptor_is_a_frame() {
    let mut machine = Machine::new();
    for len in [60u16, 64, 65, 255, 256, 257, 1514, 9014, 16288] {
        let bytes = frame(len.into());
        machine.fill(TX_DATA, &bytes);
        machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, len, ALONE)]);
        assert_eq!(machine.one_sent(), bytes, "{len}");
    }
    assert_eq!((machine.read(TDH), machine.read(TDT)), (9, 9));
    let statistics = machine.statistics();
    assert_eq!((statistics.sent_frames, statistics.send_invalid), (9, 0));
    assert_eq!(machine.read(statistics::GPTC), 9);
}

// The descriptors of a packet may be many, of any length, and in any place, zero among the lengths.
#[test]
fn a_packet_is_gathered_from_its_descriptors() {
    let mut machine = Machine::new();
    let bytes = frame(3000);
    let cuts = [0, 1, 13, 14, 14, 60, 256, 257, 1400, 2999, 3000];
    let mut descriptors = Vec::new();
    for (index, pair) in (0u64..).zip(cuts.windows(2)) {
        let address = TX_DATA + index * 0x1_0001;
        machine.fill(address, &bytes[pair[0]..pair[1]]);
        let len = (pair[1] - pair[0]) as u16;
        descriptors.push(TransmitDescriptor::legacy(address, len, 0));
    }
    let last = descriptors.last_mut().unwrap();
    last.command = (last.command.get() | ALONE).into();
    machine.transmit(&descriptors);
    assert_eq!(machine.one_sent(), bytes);
    assert!((0..9).all(|index| machine.status(index) == 0));
    assert_eq!(machine.status(9), transmit::DD);
    // The same with data descriptors, in three steps.
    for descriptor in &descriptors {
        let (address, len) = (descriptor.address.get(), descriptor.command.get() & 0xffff);
        let flags = descriptor.command.get() & !0xffff;
        machine.transmit(&[TransmitDescriptor::data(address, len, flags, 0)]);
    }
    assert_eq!(machine.one_sent(), bytes);
}

#[test]
fn status_is_written_back_where_it_is_asked_for() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(60));
    let send = |flags| TransmitDescriptor::legacy(TX_DATA, 60, transmit::EOP | flags);
    let ifcs = transmit::IFCS;
    machine.transmit(&[send(ifcs), send(ifcs | transmit::RS), send(ifcs | transmit::RPS)]);
    assert_eq!([0, 1, 2].map(|index| machine.status(index)), [0, 1, 1]);
    // Nothing else of the descriptor changes (QEMU 034d00d485: a byte, not half a structure).
    let mut expected = send(ifcs | transmit::RS);
    expected.status = 0xabcd_ef00.into();
    machine.transmit(&[expected]);
    expected.status = 0xabcd_ef01.into();
    assert_eq!(machine.bytes(TX_RING + 48, 16), expected.as_bytes());
    // Contexts can ask, too, and pieces.
    let context = TransmitDescriptor::context(&Context::default(), transmit::RS);
    machine.transmit(&[context]);
    let first = TransmitDescriptor::legacy(TX_DATA, 30, transmit::RS);
    machine.transmit(&[first]);
    assert_eq!([4, 5].map(|index| machine.status(index)), [1, 1]);
    assert_eq!(machine.sent().len(), 4);
}

#[test]
fn the_ring_wraps() {
    let mut machine = Machine::new();
    for round in 0..100u32 {
        let bytes = frame(60 + round as usize);
        machine.fill(TX_DATA, &bytes);
        let len = bytes.len() as u16;
        let [first, second] = [
            TransmitDescriptor::legacy(TX_DATA, 20, transmit::IFCS),
            TransmitDescriptor::legacy(TX_DATA + 20, len - 20, ALONE),
        ];
        machine.transmit(&[first, second, TransmitDescriptor::legacy(TX_DATA, len, ALONE)]);
        let sent = machine.sent();
        assert_eq!(sent.iter().map(|s| &s.bytes).collect::<Vec<_>>(), [&bytes, &bytes]);
        assert_eq!(machine.read(TDH), machine.tdt);
    }
}

#[test]
fn short_packets_are_padded_if_that_is_asked_for() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &[0xee; 100]);
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 20, ALONE)]);
    let sent = machine.one_sent();
    assert_eq!((sent.len(), &sent[..20], &sent[20..]), (60, &[0xee; 20][..], &[0; 40][..]));
    machine.write(TCTL, Tctl::EN.bits());
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 20, ALONE)]);
    assert_eq!(machine.one_sent(), [0xee; 20]);
}

#[test]
fn a_packet_that_brings_its_fcs_is_sent_without() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(100));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 100, transmit::EOP)]);
    assert_eq!(machine.one_sent(), frame(100)[..96]);
}

#[test]
fn nothing_is_sent_while_transmission_is_off() {
    let mut machine = Machine::new();
    machine.write(TCTL, 0);
    machine.fill(TX_DATA, &frame(60));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    assert_eq!((machine.sent().len(), machine.read(TDH), machine.status(0)), (0, 0, 0));
    machine.write(TCTL, Tctl::EN.bits());
    machine.run();
    assert_eq!((machine.sent().len(), machine.read(TDH), machine.status(0)), (1, 1, 1));
}

#[test]
fn a_busy_backend_keeps_its_place() {
    let mut machine = Machine::new();
    machine.host.set_room(0, Some(1));
    for (at, len) in [(0u64, 60), (0x1000, 1000), (0x2000, 70)] {
        machine.fill(TX_DATA + at, &frame(len));
    }
    machine.transmit(&[
        TransmitDescriptor::legacy(TX_DATA, 60, ALONE),
        TransmitDescriptor::legacy(TX_DATA + 0x1000, 500, transmit::IFCS),
        TransmitDescriptor::legacy(TX_DATA + 0x1000 + 500, 500, ALONE),
        TransmitDescriptor::legacy(TX_DATA + 0x2000, 70, ALONE),
    ]);
    assert_eq!(machine.one_sent(), frame(60));
    assert_eq!((machine.read(TDH), machine.status(2)), (2, 0));
    assert!(machine.statistics().send_busy > 0);
    machine.host.set_room(0, None);
    machine.run();
    let sent = machine.sent();
    assert_eq!([&sent[0].bytes, &sent[1].bytes], [&frame(1000), &frame(70)]);
    assert_eq!((machine.read(TDH), machine.status(2), machine.status(3)), (4, 1, 1));
}

#[test]
fn an_error_costs_the_frame_and_not_the_ring() {
    let (backend, host) = ScriptedNet::new(1);
    let errors = [
        Some(NetError::Down),
        Some(NetError::NoBuffers),
        Some(NetError::TooLong),
        Some(NetError::Io(std::io::Error::other("no"))),
    ];
    let mut machine = Machine::with(FaultNet::scripted(backend, errors), host);
    machine.start();
    machine.fill(TX_DATA, &frame(60));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE); 5]);
    assert_eq!(machine.one_sent(), frame(60));
    assert!((0..5).all(|index| machine.status(index) == transmit::DD));
    let statistics = machine.statistics();
    assert_eq!((statistics.send_down, statistics.send_no_buffers), (1, 1));
    assert_eq!((statistics.send_invalid, statistics.send_errors), (1, 1));
    assert_eq!(statistics.sent_frames, 1);
}

#[test]
fn the_causes_tell_how_the_ring_is() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(60));
    let quiet = TransmitDescriptor::legacy(TX_DATA, 60, transmit::EOP | transmit::IFCS);
    machine.transmit(&[quiet]);
    assert_eq!(machine.causes(), Cause::TXQE);
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    assert_eq!(machine.causes(), Cause::TXQE | Cause::TXDW);
    // The low threshold: eight descriptors.
    machine.write(TXDCTL, 1 << thresholds::LWTHRESH_SHIFT);
    machine.host.set_room(0, Some(1));
    machine.transmit(&[quiet; 10]);
    assert_eq!(machine.causes(), Cause::empty());
    machine.host.set_room(0, Some(1));
    machine.run();
    assert_eq!(machine.causes(), Cause::TXD_LOW);
    machine.host.set_room(0, Some(2));
    machine.run();
    assert_eq!(machine.causes(), Cause::empty());
    machine.host.set_room(0, None);
    machine.run();
    assert_eq!(machine.causes(), Cause::TXQE);
}

#[test]
fn group_addresses_are_counted() {
    let mut machine = Machine::new();
    for (at, to) in [(0u64, [0xff; 6]), (0x100, [1, 0, 0x5e, 0, 0, 1]), (0x200, [2; 6])] {
        machine.fill(TX_DATA + at, &frame_to(to, 60));
        machine.transmit(&[TransmitDescriptor::legacy(TX_DATA + at, 60, ALONE)]);
    }
    assert_eq!(machine.read(statistics::BPTC), 1);
    assert_eq!(machine.read(statistics::MPTC), 1);
    assert_eq!(machine.read(statistics::TPT), 3);
}

#[test]
fn copies_are_counted() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(1514));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    assert_eq!(machine.statistics().copied_bytes, 60);
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 1514, ALONE)]);
    // Some here, the rest in the backend, and no byte twice.
    assert_eq!(machine.statistics().copied_bytes, 60 + 1514);
    machine.arrive(&frame(1000));
    assert_eq!(machine.statistics().copied_bytes, 60 + 1514 + 1000);
}
