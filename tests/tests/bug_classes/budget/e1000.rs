//! e1000: rings that make no sense, and packets without an end.

use paraslot_device::Progress;
use paraslot_spec::e1000::statistics::TSCTFC;
use paraslot_spec::e1000::{Context, Rctl, Tctl, TransmitDescriptor, registers, transmit};
use paraslot_tests::frames::Shape;

use crate::e1000::{BUFFERS, DESCRIPTORS, Ether, MEMORY, PLACES, SEND, SEND_RING};
use crate::net::frame;

/// Descriptors that are taken in one unit of work: to be sent, and to receive into.
const SENT: u64 = 64;
const RECEIVED: u64 = 512;
/// Pieces that a packet may have, each of which may be looked at three times: for the headers, and
/// for the rest or, if the adapter must cut it, for all.
const PIECES: u64 = 256;
/// What a unit of work may cost whatever is in the rings.
const UNIT: u64 = 4 * SENT + 3 * (PIECES + SENT) + 3 * RECEIVED;

/// The cost of one unit of work.
fn step(guest: &Ether) -> u64 {
    guest.bench.memory.take_accesses();
    let _ = guest.bench.executor.step(0);
    guest.bench.memory.take_accesses()
}

/// Until it rests; each unit within its bounds.
fn rest(guest: &Ether, what: &str) {
    for _ in 0..5000 {
        guest.bench.memory.take_accesses();
        let progress = guest.bench.executor.step(0);
        let cost = guest.bench.memory.take_accesses();
        assert!(cost <= UNIT, "{what}: {cost}");
        if progress == Progress::Idle {
            for _ in 0..10 {
                assert_eq!(guest.bench.executor.step(0), Progress::Idle, "{what}");
            }
            return;
        }
    }
    panic!("{what}: it never rests");
}

#[test]
fn a_packet_costs_e1000_few_accesses() {
    let mut guest = Ether::new();
    // The descriptor, the packet and the status; and each round the receive descriptors.
    guest.send(&frame(60));
    guest.kick();
    assert_eq!(step(&guest), 3 + 1);
    for _ in 0..10 {
        guest.send(&frame(60));
    }
    guest.kick();
    assert_eq!(step(&guest), 1 + 10 * 2 + 1);
    // Descriptors are read 16 at a time; the packet, and what is written back.
    for _ in 0..10 {
        guest.port.deliver(&frame(60));
    }
    assert_eq!(step(&guest), 1 + 10 * 2);
    assert_eq!(step(&guest), 1);
}

// CVE-2016-1981: heads and tails beyond the ring, which no walk comes by.
#[test]
fn indices_beyond_the_ring_cost_e1000_nothing() {
    let indices = [DESCRIPTORS, DESCRIPTORS + 1, 0x7fff, 0xffff];
    for index in indices {
        for (head, tail) in [(index, 0), (0, index), (index, index - 1), (index, 63)] {
            let mut guest = Ether::new();
            // Packets everywhere, and frames.
            for _ in 0..DESCRIPTORS {
                guest.send(&frame(60));
            }
            for _ in 0..10 {
                guest.port.deliver(&frame(60));
            }
            for (register, value) in [
                (registers::TDH, head),
                (registers::TDT, tail),
                (registers::RDH, head),
                (registers::RDT, tail),
            ] {
                guest.set(register, value);
            }
            assert_eq!(step(&guest), 0, "head {head}, tail {tail}");
            rest(&guest, "indices");
            assert!(guest.port.take_sent().is_empty() && guest.port.waiting() == 10);
            // As long as they are wrong: then all is well again.
            guest.port.drain();
            guest.start();
            guest.works();
        }
    }
}

// Rings of no length, and of the greatest, at the end of memory and of all addresses.
#[test]
fn rings_of_any_length_cost_e1000_a_bounded_number_of_accesses() {
    for (base, len) in [
        (0x1000u64, 0),
        (0x1000, 128),
        (0, 0xf_ff80),
        (MEMORY as u64 - 128, 0xf_ff80),
        (u64::MAX - 0x3f, 0xf_ff80),
        (1 << 40, 0xf_ff80),
    ] {
        let mut guest = Ether::new();
        for _ in 0..100 {
            guest.port.deliver(&frame(60));
        }
        let (low, high) = (base & 0xffff_ffff, base >> 32);
        for ring in [registers::TDBAL, registers::RDBAL] {
            guest.set(ring, u32::try_from(low).expect("masked"));
            guest.set(ring + 4, u32::try_from(high).expect("shifted"));
            guest.set(ring + 8, len);
            guest.set(ring + 0x10, 0);
            guest.set(ring + 0x18, (len / 16).saturating_sub(1));
        }
        rest(&guest, &format!("ring of {len:#x} at {base:#x}"));
        guest.port.drain();
        guest.start();
        guest.port.take_sent();
        guest.works();
    }
}

/// A packet with a context.
fn segmented(guest: &mut Ether, context: &Context, bytes: &[u8], flags: u32, popts: u8) {
    guest.put(TransmitDescriptor::context(context, flags | transmit::TSE));
    guest.bench.poke(BUFFERS, bytes);
    let len = u32::try_from(bytes.len()).expect("a packet");
    guest.put(TransmitDescriptor::data(BUFFERS, len, SEND | transmit::TSE, popts));
    guest.kick();
}

// CVE-2015-6815 (no headers, no payload in a segment), and QEMU 4154c7e03f (headers that are all there
// is, or more): no progress is made, and none is tried.
#[test]
fn segmentation_without_progress_costs_e1000_the_packet() {
    let shape = Shape { tcp: true, payload: 600, ..Shape::default() };
    let right = Ether::context(&shape, 100);
    let bytes = shape.frame(true);
    let contexts = [
        Context { hdrlen: 0, mss: 0, ..right },
        Context { mss: 0, ..right },
        Context { hdrlen: 0, ..right },
        Context { hdrlen: 0, mss: 0, paylen: 0, ..right },
        // Into more segments than anything needs.
        Context { mss: 1, ipcss: 0, ..right },
    ];
    for context in contexts {
        for flags in [transmit::TCP | transmit::IP, transmit::TCP, transmit::IP, 0] {
            let mut guest = Ether::new();
            segmented(&mut guest, &context, &bytes, flags, 3);
            rest(&guest, "segments");
            assert_eq!(guest.get(registers::TDH), guest.tail, "{context:?}");
            assert!(guest.port.take_sent().len() <= 600, "{context:?}");
            if context.mss == 0 || context.hdrlen == 0 {
                let failed = guest.get(TSCTFC);
                assert_eq!((failed, guest.control.statistics().send_invalid), (1, 1));
            }
            guest.works();
        }
    }
    for len in [54, 53, 14, 20] {
        let mut guest = Ether::new();
        segmented(&mut guest, &right, &bytes[..len], transmit::TCP | transmit::IP, 3);
        rest(&guest, "headers alone");
        assert!(guest.port.take_sent().is_empty());
        assert_eq!(guest.control.statistics().send_invalid, 1, "{len}");
        guest.works();
    }
    // 64 KiB of one byte each.
    let mut guest = Ether::new();
    let long = Shape { tcp: true, payload: 60_000, ..Shape::default() };
    let context = Context { mss: 1, ..Ether::context(&long, 1) };
    segmented(&mut guest, &context, &long.frame(true), transmit::TCP | transmit::IP, 3);
    rest(&guest, "60,000 segments");
    assert!(guest.port.take_sent().is_empty());
    assert_eq!(guest.control.statistics().send_invalid, 1);
    guest.works();
}

// QEMU 3de46e6fc4: a legacy descriptor in the middle of a packet that is to be segmented changes
// nothing about it, and takes nothing away.
#[test]
fn a_legacy_descriptor_in_a_segmented_packet_costs_e1000_nothing() {
    let shape = Shape { tcp: true, payload: 600, ..Shape::default() };
    let bytes = shape.frame(true);
    for (cuts, kinds) in [([20, 40], 0b010), ([54, 100], 0b110), ([3, 500], 0b100)] {
        let mut guest = Ether::new();
        let flags = transmit::TCP | transmit::IP | transmit::TSE;
        guest.put(TransmitDescriptor::context(&Ether::context(&shape, 100), flags));
        guest.bench.poke(PLACES, &bytes);
        let mut at = 0;
        for (index, end) in [cuts[0], cuts[1], bytes.len()].into_iter().enumerate() {
            let last = if index == 2 { SEND } else { 0 };
            let (address, len) = (PLACES + at as u64, end - at);
            guest.put(if kinds >> index & 1 == 1 {
                TransmitDescriptor::legacy(address, u16::try_from(len).expect("small"), last)
            } else {
                let len = u32::try_from(len).expect("small");
                TransmitDescriptor::data(address, len, last | transmit::TSE, 3)
            });
            at = end;
        }
        guest.kick();
        rest(&guest, "legacy in the middle");
        let sent = guest.port.take_sent();
        assert_eq!(sent.len(), 1);
        assert!(sent[0].bytes.len() == bytes.len() && sent[0].bytes[54..] == bytes[54..]);
        assert_eq!(sent[0].offload.segmentation.map(|how| how.size), Some(100));
        guest.works();
    }
}

// Packets of as many descriptors as there are, and without an end.
#[test]
fn packets_without_an_end_cost_e1000_a_bounded_number_of_accesses() {
    let mut guest = Ether::new();
    let descriptor = TransmitDescriptor::data(PLACES, 1, transmit::RS, 0);
    for _ in 0..100 {
        for _ in 0..DESCRIPTORS - 1 {
            guest.put(descriptor);
        }
        guest.kick();
        let cost = step(&guest);
        assert!(cost <= 2 * SENT + 4, "{cost}");
        rest(&guest, "no end");
    }
    // It was too long for a packet, and so is lost when it ends.
    guest.put(TransmitDescriptor::data(PLACES, 1, SEND, 0));
    guest.kick();
    rest(&guest, "the end");
    assert!(guest.port.take_sent().is_empty());
    assert_eq!(guest.control.statistics().send_invalid, 1);
    // As many pieces as it may have, in pieces of a byte, that the adapter must cut itself.
    let shape = Shape { tcp: true, payload: 100, ..Shape::default() };
    let context = Context { ipcss: 13, ..Ether::context(&shape, 10) };
    let flags = transmit::TCP | transmit::IP | transmit::TSE;
    guest.put(TransmitDescriptor::context(&context, flags));
    let bytes = shape.frame(true);
    guest.bench.poke(PLACES, &bytes);
    for at in 0..bytes.len() {
        let last = if at + 1 == bytes.len() { SEND } else { 0 };
        let piece = PLACES + at as u64;
        guest.put(TransmitDescriptor::data(piece, 1, last | transmit::TSE, 3));
        if guest.tail.is_multiple_of(32) {
            guest.kick();
            rest(&guest, "pieces");
        }
    }
    guest.kick();
    rest(&guest, "pieces");
    assert_eq!(guest.port.take_sent().len(), 10);
    guest.works();
}

// CVE-2020-28916: receive descriptors without a buffer, of which a ring may be full.
#[test]
fn descriptors_without_a_buffer_cost_e1000_a_bounded_number_of_accesses() {
    for first in [0, 1, 5, 63] {
        let mut guest = Ether::new();
        for index in 0..DESCRIPTORS {
            if index != first || first == 0 {
                guest.put_receive(index, 0);
            }
        }
        guest.port.deliver(&frame(200));
        guest.port.deliver(&frame(300));
        rest(&guest, "no buffers");
        let head = guest.get(registers::RDH);
        assert_eq!(head, DESCRIPTORS - 1, "all of them were passed over");
        guest.port.drain();
        guest.start();
        guest.works();
    }
    // The longest ring of such descriptors: all of memory is zero.
    let mut guest = Ether::new();
    guest.bench.poke(0, &vec![0; MEMORY]);
    guest.set(registers::RDBAL, 0);
    guest.set(registers::RDLEN, 0xf_ff80);
    guest.set(registers::RDH, 0);
    guest.set(registers::RDT, 65_527);
    for _ in 0..100 {
        guest.port.deliver(&frame(60));
    }
    rest(&guest, "65,527 descriptors without buffers");
    assert_eq!(guest.get(registers::RDH), 65_527);
    guest.port.drain();
    guest.start();
    guest.works();
}

// Frames without descriptors, or while nothing is enabled.
#[test]
fn without_receive_descriptors_e1000_is_at_rest() {
    let mut guest = Ether::new();
    guest.set(registers::RDT, 0);
    guest.set(registers::RDH, 0);
    for len in 100..130 {
        guest.port.deliver(&frame(len));
    }
    rest(&guest, "no descriptors");
    let calls = guest.port.calls();
    for _ in 0..20 {
        assert_eq!(step(&guest), 0);
    }
    assert!(guest.port.calls() <= calls);
    guest.set(registers::RDT, DESCRIPTORS - 1);
    rest(&guest, "descriptors");
    for len in 100..130 {
        assert!(guest.arrived().expect("they come now").bytes == frame(len));
    }
    for (register, value) in
        [(registers::RCTL, Rctl::UPE.bits()), (registers::TCTL, Tctl::PSP.bits())]
    {
        guest.set(register, value);
    }
    guest.port.deliver(&frame(100));
    guest.send(&frame(100));
    guest.kick();
    rest(&guest, "nothing is enabled");
    assert_eq!((guest.port.waiting(), guest.port.take_sent().len()), (1, 0));
    assert_eq!(guest.get(registers::TDBAL), u32::try_from(SEND_RING).expect("low"));
}
