//! What a guest might do to harm (bug-test letters B, D, F).

use super::*;

// CVE-2016-1981: indices beyond the ring; rings of no length; rings that are not there.
#[test]
fn indices_and_rings_that_make_no_sense_are_no_work() {
    let mut machine = Machine::new();
    let tx = [TDBAL, TDBAH, TDLEN, TDH, TDT];
    let rx = [RDBAL, RDBAH, RDLEN, RDH, RDT];
    machine.host.push(0, &frame(60));
    for [base, high, len, head, tail] in [
        [0, 0, 256, 0xffff, 3],
        [0, 0, 256, 3, 0xffff],
        [0, 0, 256, 16, 15],
        [0, 0, 256, 15, 16],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 5, 0],
        [0, 0, 0x7f, 0, 4],
        [MEMORY as u32, 0, 256, 0, 5],
        [MEMORY as u32 - 16, 0, 256, 0, 5],
        [0, 1, 256, 0, 5],
        [0xffff_fff0, u32::MAX, 256, 0, 5],
        [0xffff_fff0, u32::MAX, 0xf_ff80, 1, 0],
    ] {
        let memory = machine.bytes(0, MEMORY);
        for registers in [tx, rx] {
            for (register, value) in registers.into_iter().zip([base, high, len, head, tail]) {
                machine.write(register, value);
            }
        }
        machine.run();
        assert_eq!(machine.read(TDH), head, "{base:#x} {len} {head} {tail}");
        assert_eq!(machine.read(RDH), head, "{base:#x} {len} {head} {tail}");
        assert_eq!((machine.sent(), machine.bytes(0, MEMORY)), (vec![], memory));
        // Nor do they keep the worker busy.
        assert_eq!(machine.executor.step_all(), paraslot_device::Progress::Idle);
    }
    machine.start();
    machine.arrive(&frame(61));
    assert_eq!(machine.clean().unwrap().0, frame(60));
    assert_eq!(machine.clean().unwrap().0, frame(61));
}

// A tail that goes back to the head while the packet there waits for the backend: nothing is pending,
// and nothing is waited for.
#[test]
fn a_descriptor_that_is_taken_back_keeps_nobody_busy() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(60));
    machine.host.set_room(0, Some(0));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    machine.write(TDT, 0);
    machine.run();
    machine.host.set_room(0, None);
    machine.run();
    assert_eq!((machine.sent(), machine.read(TDH)), (vec![], 0));
    machine.write(TDT, 1);
    machine.run();
    assert_eq!((machine.one_sent(), machine.read(TDH)), (frame(60), 1));
}

// A ring that ends outside memory is served as far as it goes.
#[test]
fn a_ring_that_leaves_memory_ends_there() {
    let mut machine = Machine::new();
    let base = MEMORY as u64 - 64;
    machine.transmit_ring(base, 8);
    machine.fill(TX_DATA, &frame(60));
    machine.put(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE); 4]);
    machine.write(TDT, 4);
    machine.run();
    assert_eq!((machine.read(TDH), machine.sent().len()), (4, 4));
    machine.write(TDT, 7);
    machine.run();
    assert_eq!((machine.read(TDH), machine.sent().len()), (4, 0));
}

#[test]
fn a_packet_that_never_ends_is_bounded() {
    let mut machine = Machine::new();
    let piece = TransmitDescriptor::legacy(TX_DATA, 100, transmit::IFCS);
    for _ in 0..300 {
        machine.transmit(&[piece; 15]);
    }
    assert_eq!(machine.sent(), []);
    machine.fill(TX_DATA, &frame(60));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    assert_eq!((machine.sent(), machine.statistics().send_invalid), (vec![], 1));
    // The next one is none the worse for it.
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    assert_eq!(machine.one_sent(), frame(60));
    // Nor is one too long, in few pieces.
    let piece = TransmitDescriptor::data(TX_DATA, 0xf_ffff, 0, 0);
    machine.transmit(&[piece; 10]);
    machine.transmit(&[TransmitDescriptor::data(TX_DATA, 0xf_ffff, ALONE | transmit::TSE, 0)]);
    assert_eq!((machine.sent(), machine.statistics().send_invalid), (vec![], 2));
}

#[test]
fn the_pieces_of_a_packet_are_bounded() {
    let mut machine = Machine::new();
    machine.transmit_ring(TX_RING, 512);
    for (pieces, sent) in [(256, 1), (257, 0)] {
        let mut all = vec![TransmitDescriptor::legacy(TX_DATA, 1, transmit::IFCS); pieces];
        all[pieces - 1] = TransmitDescriptor::legacy(TX_DATA, 1, ALONE);
        machine.transmit(&all);
        assert_eq!(machine.sent().len(), sent, "{pieces}");
    }
    assert_eq!(machine.statistics().send_invalid, 1);
}

#[test]
fn packets_that_make_no_sense_are_counted() {
    let mut machine = Machine::new();
    let lost = [
        TransmitDescriptor::legacy(TX_DATA, 0, ALONE),
        TransmitDescriptor::legacy(TX_DATA, 13, ALONE),
        TransmitDescriptor::legacy(TX_DATA, 17, transmit::EOP),
        TransmitDescriptor::legacy(TX_DATA, 3, transmit::EOP),
        TransmitDescriptor::legacy(TX_DATA, 16289, ALONE),
        TransmitDescriptor::legacy(MEMORY as u64 - 59, 60, ALONE),
        TransmitDescriptor::legacy(MEMORY as u64 - 1000, 1001, ALONE),
        TransmitDescriptor::legacy(u64::MAX - 30, 60, ALONE),
        TransmitDescriptor::legacy(u64::MAX, 1000, ALONE),
        TransmitDescriptor::data(TX_DATA, 0xf_ffff, ALONE, 0),
        TransmitDescriptor::data(TX_DATA, 0, ALONE | transmit::TSE, 3),
    ];
    machine.transmit(&lost);
    assert_eq!(machine.sent(), []);
    assert_eq!(machine.statistics().send_invalid, lost.len() as u64);
    assert!((0..11).filter(|index| ![2, 3].contains(index)).all(|at| machine.status(at) == 1));
    // Descriptors of a type that is none are done without effect.
    let mut unknown = TransmitDescriptor::data(TX_DATA, 60, ALONE, 0);
    for kind in 2..16 {
        unknown.command = (unknown.command.get() & !transmit::DTYP | kind << 20).into();
        machine.transmit(&[unknown]);
    }
    assert_eq!((machine.sent(), machine.read(TDH)), (vec![], machine.tdt));
}

// Bounded work: however long the ring, a round takes so many descriptors and no more.
#[test]
fn a_round_of_work_is_bounded() {
    let mut machine = Machine::off();
    machine.transmit_ring(TX_RING, 4096);
    machine.fill(TX_DATA, &frame(60));
    let descriptor = TransmitDescriptor::legacy(TX_DATA, 60, transmit::EOP | transmit::IFCS);
    machine.put(&vec![descriptor; 4095]);
    machine.write(TCTL, Tctl::EN.bits());
    machine.write(TDT, 4095);
    let mut rounds = 0;
    while machine.read(TDH) != 4095 {
        let before = machine.read(TDH);
        let _ = machine.executor.step_all();
        assert!((1..=64).contains(&(machine.read(TDH) - before)));
        rounds += 1;
    }
    assert_eq!((rounds, machine.sent().len()), (64, 4095));
}

// One descriptor of 64 KiB, cut into as many segments as there may be, is one round's work.
#[test]
fn rounds_of_segments_are_bounded() {
    let mut machine = Machine::new();
    let packet = Packet::udp4(&vec![0; 65_000]);
    machine.fill(TX_DATA, &packet.unfinished());
    for (mss, sent) in [(63u16, 0), (64, 1016)] {
        let context = Context { mss, hdrlen: 42, ..super::checksum::context_of(&packet) };
        let len = packet.unfinished().len() as u32;
        machine.transmit(&[
            TransmitDescriptor::context(&context, transmit::TSE | transmit::IP),
            TransmitDescriptor::data(TX_DATA, len, ALONE | transmit::TSE, 3),
        ]);
        assert_eq!(machine.sent().len(), sent);
    }
}

// Double fetches: a descriptor that has been taken cannot be changed, though its packet has not been
// sent yet.
#[test]
fn what_was_read_is_not_read_again() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(500));
    machine.host.set_room(0, Some(0));
    machine.transmit(&[
        TransmitDescriptor::legacy(TX_DATA, 200, transmit::IFCS),
        TransmitDescriptor::legacy(TX_DATA + 200, 300, transmit::EOP | transmit::IFCS),
    ]);
    machine.fill(TX_RING, &[0xff; 32]);
    machine.host.set_room(0, None);
    machine.run();
    assert_eq!(machine.one_sent(), frame(500));
    assert_eq!(machine.bytes(TX_RING, 32), [0xff; 32], "a status that nobody had asked for");
}

// Rings that lie over each other, over the buffers, and over the data being sent.
#[test]
fn overlapping_rings_come_to_rest() {
    let mut machine = Machine::new();
    machine.transmit_ring(TX_RING, RING);
    machine.receive_ring(TX_RING, RING);
    let flags = ALONE | transmit::IDE;
    machine.transmit(&[TransmitDescriptor::legacy(TX_RING, 256, flags); 15]);
    machine.give(15);
    for _ in 0..20 {
        machine.host.push(0, &frame(256));
    }
    machine.run();
    assert_eq!(machine.read(TDH), 15);
}
