//! Commands as initiators send them, from their CDB to the medium and back.

use paraslot_backends::block::testing::{Event, RecordingBackend};
use paraslot_backends::block::{BlockOp, MemoryBackend, MemoryOptions};
use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::rig::{BLOCK, Bed, GOOD, HERE, Rig, bus, command, contents, expected, image, rounds};
use crate::command::{Completion, Outcome, Status};
use crate::{Address, Bus, BusOptions, DiskOptions, Function, Initiator, LogicalUnit, Response};

fn none() -> DmaBuffers {
    DmaBuffers::empty(Direction::ToDevice)
}

/// A command for the only unit, carried to its end.
fn run(rig: &mut Rig, cdb: &[u8], data: DmaBuffers) -> Completion {
    rig.lane.submit(command(1, HERE, cdb, data));
    let mut completions = rounds(&mut rig.lane);
    assert_eq!(completions.len(), 1);
    completions.remove(0)
}

fn good(rig: &mut Rig, cdb: &[u8], data: DmaBuffers) -> u64 {
    let completion = run(rig, cdb, data);
    assert_eq!(completion.outcome, GOOD, "{cdb:02x?}");
    completion.moved
}

/// Key, ASC, ASCQ.
fn sense(completion: &Completion) -> (u8, u8, u8) {
    match &completion.outcome {
        Outcome::Ended { status: Status::CheckCondition, sense: Some(sense) } => {
            (sense.key, sense.asc, sense.ascq)
        }
        other => panic!("{other:?}"),
    }
}

/// A rig whose attentions have been seen.
fn ready(backend: impl paraslot_backends::block::BlockBackend + 'static) -> Rig {
    let mut rig = Rig::new(backend);
    assert_eq!(sense(&run(&mut rig, &[0; 6], none())).0, 6);
    assert_eq!(good(&mut rig, &[0; 6], none()), 0);
    rig
}

/// A command of 10 bytes.
fn ten(opcode: u8, flags: u8, lba: u32, blocks: u16) -> Vec<u8> {
    let [high, low] = blocks.to_be_bytes();
    [&[opcode, flags], &lba.to_be_bytes()[..], &[0, high, low, 0]].concat()
}

/// One of 12.
fn twelve(opcode: u8, flags: u8, lba: u32, blocks: u32) -> Vec<u8> {
    [&[opcode, flags], &lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0, 0]].concat()
}

/// One of 16.
fn sixteen(opcode: u8, flags: u8, lba: u64, blocks: u32) -> Vec<u8> {
    [&[opcode, flags], &lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0, 0]].concat()
}

#[test]
fn every_read_reads() {
    let mut rig = ready(image());
    let wanted: Vec<u8> = (5 * BLOCK..8 * BLOCK).map(expected).collect();
    let six = vec![0x08, 0, 0, 5, 3, 0];
    for cdb in [six, ten(0x28, 0, 5, 3), twelve(0xa8, 0, 5, 3), sixteen(0x88, 0, 5, 3)] {
        rig.guest.write(0, &[0; 4 * BLOCK]);
        let data = rig.input(0, 4 * BLOCK);
        assert_eq!(good(&mut rig, &cdb, data), 3 * BLOCK as u64);
        assert_eq!(rig.guest.read(0, 3 * BLOCK), wanted, "{cdb:02x?}");
        assert_eq!(rig.guest.read(3 * BLOCK as u64, BLOCK), [0; BLOCK]);
        let data = rig.input(0, 3 * BLOCK - 1);
        assert_eq!(run(&mut rig, &cdb, data).outcome, Outcome::Overrun);
    }
}

#[test]
fn every_write_writes() {
    let image = image();
    let recording = RecordingBackend::new(image.clone());
    let log = recording.log();
    let mut rig = ready(recording);
    let six = vec![0x0a, 0, 0, 5, 3, 0];
    let cases = [
        (six, false),
        (ten(0x2a, 0, 5, 3), false),
        (ten(0x2a, 8, 5, 3), true),
        (twelve(0xaa, 8, 5, 3), true),
        (sixteen(0x8a, 0, 5, 3), false),
    ];
    for (number, (cdb, fua)) in (1_u8..).zip(cases) {
        rig.guest.write(0, &[number; 4 * BLOCK]);
        let data = rig.output(0, 4 * BLOCK);
        assert_eq!(good(&mut rig, &cdb, data), 3 * BLOCK as u64);
        assert_eq!(contents(&image, 5 * BLOCK, 3 * BLOCK), [number; 3 * BLOCK]);
        let last = log.events().into_iter().rev().find_map(|event| match event {
            Event::Submitted { op, .. } => Some(op),
            Event::Completed { .. } => None,
        });
        assert_eq!(last, Some(BlockOp::Write { fua }), "{cdb:02x?}");
    }
    assert_eq!(contents(&image, 8 * BLOCK, 1)[0], expected(8 * BLOCK));
}

// CVE-2015-5158's kin: blocks beyond the end are refused, with no byte moved, however they overflow.
#[test]
fn blocks_beyond_the_end_are_refused() {
    let mut rig = ready(image());
    let last = 8192;
    for cdb in [
        ten(0x28, 0, last, 1),
        ten(0x28, 0, last - 1, 2),
        sixteen(0x88, 0, u64::MAX, 2),
        sixteen(0x88, 0, u64::MAX / 512, 1),
        sixteen(0x8a, 0, last.into(), 1),
        sixteen(0x8f, 2, last.into(), 1),
        sixteen(0x93, 0, last.into(), 1),
        ten(0x2e, 2, last, 1),
    ] {
        let data = rig.output(0, 4096);
        let completion = run(&mut rig, &cdb, data);
        assert_eq!(sense(&completion), (5, 0x21, 0), "{cdb:02x?}");
        assert_eq!(completion.moved, 0);
    }
}

#[test]
fn verify_and_write_and_verify() {
    let image = image();
    let mut rig = ready(image.clone());
    let same: Vec<u8> = (5 * BLOCK..8 * BLOCK).map(expected).collect();
    rig.guest.write(0, &same);
    for cdb in [ten(0x2f, 2, 5, 3), twelve(0xaf, 2, 5, 3), sixteen(0x8f, 2, 5, 3)] {
        let data = rig.output(0, 3 * BLOCK);
        assert_eq!(good(&mut rig, &cdb, data), 3 * BLOCK as u64);
        let data = rig.output(1, 3 * BLOCK);
        assert_eq!(sense(&run(&mut rig, &cdb, data)), (0xe, 0x1d, 0));
    }
    assert_eq!(good(&mut rig, &ten(0x2f, 0, 5, 3), none()), 0);
    let data = rig.output(0, BLOCK);
    assert_eq!(good(&mut rig, &ten(0x2f, 6, 5, 1), data), BLOCK as u64);
    let data = rig.output(0, BLOCK);
    assert_eq!(sense(&run(&mut rig, &ten(0x2f, 6, 5, 2), data)), (0xe, 0x1d, 0));
    rig.guest.write(0, &[0x3c; 2 * BLOCK]);
    for cdb in [ten(0x2e, 2, 1, 2), twelve(0xae, 0, 3, 2), sixteen(0x8e, 2, 5, 2)] {
        let data = rig.output(0, 2 * BLOCK);
        assert_eq!(good(&mut rig, &cdb, data), 2 * BLOCK as u64);
    }
    assert_eq!(contents(&image, BLOCK, 6 * BLOCK), [0x3c; 6 * BLOCK]);
}

#[test]
fn write_same_and_unmap() {
    let image = image();
    let mut rig = ready(image.clone());
    rig.guest.write(0, &[0x71; BLOCK]);
    for (cdb, at) in [(ten(0x41, 0, 10, 5), 10), (sixteen(0x93, 0, 20, 5), 20)] {
        let data = rig.output(0, BLOCK);
        assert_eq!(good(&mut rig, &cdb, data), BLOCK as u64);
        assert_eq!(contents(&image, at * BLOCK, 5 * BLOCK), [0x71; 5 * BLOCK]);
    }
    // NDOB: no data; and with UNMAP.
    assert_eq!(good(&mut rig, &sixteen(0x93, 1, 10, 2), none()), 0);
    assert_eq!(good(&mut rig, &sixteen(0x93, 9, 12, 2), none()), 0);
    // Zeroes, as Linux sends them.
    rig.guest.write(0, &[0; BLOCK]);
    let data = rig.output(0, BLOCK);
    assert_eq!(good(&mut rig, &sixteen(0x93, 8, 14, 1), data), BLOCK as u64);
    assert_eq!(contents(&image, 10 * BLOCK, 5 * BLOCK), [0; 5 * BLOCK]);
    let descriptor =
        |lba: u64, blocks: u32| [&lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0; 4]].concat();
    let list =
        [&[0, 46, 0, 40, 0, 0, 0, 0][..], &descriptor(20, 2), &descriptor(23, 2), &[0; 8]].concat();
    rig.guest.write(0, &list);
    let data = rig.output(0, 64);
    let unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 48, 0];
    assert_eq!(good(&mut rig, &unmap, data), 48);
    assert_eq!(contents(&image, 20 * BLOCK, 2 * BLOCK), [0; 2 * BLOCK]);
    assert_eq!(contents(&image, 22 * BLOCK, BLOCK), [0x71; BLOCK]);
    assert_eq!(contents(&image, 23 * BLOCK, 2 * BLOCK), [0; 2 * BLOCK]);
}

#[test]
fn compare_and_write_swaps() {
    let image = image();
    let mut rig = ready(image.clone());
    let old: Vec<u8> = (7 * BLOCK..9 * BLOCK).map(expected).collect();
    rig.guest.write(0, &[&old[..], &[0x99; 2 * BLOCK]].concat());
    let mut cdb = sixteen(0x89, 0, 7, 0);
    cdb[13] = 2;
    let data = rig.output(0, 4 * BLOCK);
    assert_eq!(good(&mut rig, &cdb, data), 4 * BLOCK as u64);
    assert_eq!(contents(&image, 7 * BLOCK, 2 * BLOCK), [0x99; 2 * BLOCK]);
    let data = rig.output(0, 4 * BLOCK);
    let completion = run(&mut rig, &cdb, data);
    assert_eq!((sense(&completion), completion.moved), ((0xe, 0x1d, 0), 4 * BLOCK as u64));
}

#[test]
fn a_flush_reaches_a_backend_with_a_cache() {
    for (volatile_cache, flushes) in [(true, 2), (false, 0)] {
        let options = MemoryOptions { volatile_cache, ..MemoryOptions::default() };
        let recording = RecordingBackend::new(MemoryBackend::new(1 << 20, options).unwrap());
        let log = recording.log();
        let mut rig = ready(recording);
        good(&mut rig, &ten(0x35, 0, 0, 0), none());
        good(&mut rig, &sixteen(0x91, 0, 0, 0), none());
        let flush = |event: &&Event| matches!(event, Event::Submitted { op: BlockOp::Flush, .. });
        assert_eq!(log.events().iter().filter(flush).count(), flushes);
    }
}

// QEMU 846424350b (CVE-2013-4344): REPORT LUNS of a target that has more of them than fit.
#[test]
fn luns_are_reported_in_order() {
    let mut rig = ready(image());
    for lun in (1..=300).rev() {
        rig.bus.attach(Address { target: 0, lun }, super::rig::unit(image())).unwrap();
    }
    rig.bus.attach(Address { target: 1, lun: 9 }, super::rig::unit(image())).unwrap();
    let cdb = [0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0];
    // Of LUN 0, of another, and of one that is not there.
    for lun in [0, 17, 1000] {
        let data = rig.input(0, 4096);
        rig.lane.submit(command(1, Address { target: 0, lun }, &cdb, data));
        let completion = rounds(&mut rig.lane).remove(0);
        assert_eq!((completion.outcome, completion.moved), (GOOD, 8 + 301 * 8));
        let list = rig.guest.read(0, 8 + 301 * 8);
        assert_eq!(list[..4], (301_u32 * 8).to_be_bytes());
        let luns: Vec<u16> = list[8..]
            .as_chunks::<8>()
            .0
            .iter()
            .map(|entry| u16::from_be_bytes([entry[0], entry[1]]) & 0x3fff)
            .collect();
        assert!(luns.iter().copied().eq(0..=300));
    }
}

// PREEMPT AND ABORT keeps a host that was cut off from writing any more.
#[test]
fn a_preempted_initiator_is_cut_off() {
    use paraslot_backends::block::testing::GatedBackend;
    let image = image();
    let gated = GatedBackend::new(image.clone());
    let gate = gated.gate();
    gate.open();
    let mut rig = ready(gated);
    let other = bus("two");
    other.attach(HERE, rig.bus.unit(HERE).unwrap()).unwrap();
    let mut two = other.open_lane(8).unwrap();
    let submit = |lane: &mut crate::Lane, cdb: &[u8], data| {
        lane.submit(command(1, HERE, cdb, data));
        rounds(lane)
    };
    submit(&mut two, &[0; 6], none());
    let reserve = |action: u8, kind: u8| [0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0];
    let parameters = |rig: &Rig, key: u64, action_key: u64| {
        let list = [&key.to_be_bytes()[..], &action_key.to_be_bytes(), &[0; 8]].concat();
        rig.guest.write(0, &list);
        rig.output(0, 24)
    };
    // Both register; the second reserves (write exclusive, registrants only), and has a write under way.
    let data = parameters(&rig, 0, 0xa);
    assert_eq!(submit(&mut rig.lane, &reserve(0, 0), data)[0].outcome, GOOD);
    let data = parameters(&rig, 0, 0xb);
    assert_eq!(submit(&mut two, &reserve(0, 0), data)[0].outcome, GOOD);
    let data = parameters(&rig, 0xb, 0);
    assert_eq!(submit(&mut two, &reserve(1, 5), data)[0].outcome, GOOD);
    gate.close();
    gate.deafen(true);
    let data = rig.output(4096, BLOCK);
    assert!(submit(&mut two, &ten(0x2a, 0, 0, 1), data).is_empty());
    let data = parameters(&rig, 0xa, 0xb);
    assert!(submit(&mut rig.lane, &reserve(5, 5), data).is_empty(), "it waits for the write");
    let data = rig.output(4096, BLOCK);
    let mut refused = submit(&mut two, &ten(0x2a, 0, 0, 1), data);
    assert_eq!(refused.len(), 1, "no more of them begin");
    assert_ne!(refused.remove(0).outcome, GOOD);
    let bed = Bed::new(&rig.lane);
    assert!(!bed.rung());
    gate.release(1);
    assert_eq!(rounds(&mut two)[0].outcome, Outcome::Aborted);
    assert!(bed.rung());
    let ended = rounds(&mut rig.lane);
    assert_eq!((&ended[0].outcome, ended[0].moved), (&GOOD, 24));
}

// Without autosense, what a command ended with is there for the REQUEST SENSE that follows, whoever
// found it out: the decoder, the backend or a comparison.
#[test]
fn sense_data_is_kept_where_there_is_no_autosense() {
    let bus = Bus::new(BusOptions {
        initiator: Initiator("one".into()),
        max_target: 0,
        max_lun: 0,
        autosense: false,
    });
    let unit = LogicalUnit::disk(DiskOptions::new(std::sync::Arc::new(image()))).unwrap();
    bus.attach(HERE, unit).unwrap();
    let mut lane = bus.open_lane(4).unwrap();
    let rig = Rig::new(image());
    let mut run = |cdb: &[u8], data| {
        lane.submit(command(1, HERE, cdb, data));
        rounds(&mut lane).remove(0)
    };
    let request = [0x03, 0, 0, 0, 18, 0];
    for (cdb, key, asc) in
        [(vec![0; 6], 6, 0x29), (ten(0x28, 0, 8192, 1), 5, 0x21), (ten(0x2f, 2, 0, 1), 0xe, 0x1d)]
    {
        let data = rig.output(4096, BLOCK);
        let (found, _, _) = sense(&run(&cdb, data));
        assert_eq!(found, key);
        assert_eq!(run(&request, rig.input(0, 18)).outcome, GOOD);
        let data = rig.guest.read(0, 18);
        assert_eq!((data[2] & 0xf, data[12]), (key, asc), "{cdb:02x?}");
        assert_eq!(run(&request, rig.input(0, 18)).outcome, GOOD);
        assert_eq!(rig.guest.read(2, 1)[0] & 0xf, 0, "asked for once");
    }
}

#[test]
fn a_reset_takes_back_what_was_set() {
    let mut rig = ready(image());
    // RESERVE (6) by the one keeps the other out, until the unit is reset.
    let other = bus("two");
    other.attach(HERE, rig.bus.unit(HERE).unwrap()).unwrap();
    let mut two = other.open_lane(8).unwrap();
    let mut look = |cdb: &[u8]| {
        two.submit(command(1, HERE, cdb, none()));
        rounds(&mut two).remove(0)
    };
    assert_eq!(sense(&look(&[0; 6])).0, 6);
    good(&mut rig, &[0x16, 0, 0, 0, 0, 0], none());
    let conflict = Outcome::Ended { status: Status::ReservationConflict, sense: None };
    assert_eq!(look(&[0; 6]).outcome, conflict);
    let ticket = rig.bus.manage(Function::LogicalUnitReset(HERE), None);
    assert_eq!(look(&[0; 6]).outcome, conflict, "the reset is not over");
    assert!(rounds(&mut rig.lane).is_empty());
    assert_eq!(ticket.response(), Some(Response::Complete));
    assert_eq!(sense(&look(&[0; 6])), (6, 0x29, 3));
    assert_eq!(look(&[0; 6]).outcome, GOOD);
}
