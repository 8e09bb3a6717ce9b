//! Each plan, from its start to its end.

use std::io;

use paraslot_backends::block::testing::{Event, FaultBackend, GatedBackend, RecordingBackend};
use paraslot_backends::block::{BlockError, BlockOp, MemoryBackend, MemoryOptions};
use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::rig::{BLOCK, Claims, GOOD, HERE, Rig, contents, expected, image, round, rounds};
use crate::command::{Completion, Outcome, Status};
use crate::plan::{Compare, Ending, Plan};
use crate::sense::Sense;
use crate::unit::modes;

fn none() -> DmaBuffers {
    DmaBuffers::empty(Direction::ToDevice)
}

fn sense(completion: &Completion) -> Sense {
    match &completion.outcome {
        Outcome::Ended { status: Status::CheckCondition, sense: Some(sense) } => **sense,
        other => panic!("{other:?}"),
    }
}

/// What was asked of a backend.
fn submitted(events: &[Event]) -> Vec<(BlockOp, u64, u64)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Submitted { op, offset, len, .. } => Some((*op, *offset, *len)),
            Event::Completed { .. } => None,
        })
        .collect()
}

#[test]
fn a_read_fills_what_it_is_asked_for_and_no_more() {
    let mut rig = Rig::new(image());
    rig.guest.write(0, &[0xee; 4096]);
    let data = rig.guest.buffers(&[(1, 700), (2048, 1000)], Direction::FromDevice);
    let plan = Plan::Read { offset: 1024, len: 1024 };
    assert_eq!(rig.good(data, plan), 1024);
    let wanted: Vec<u8> = (1024..2048).map(expected).collect();
    assert_eq!(rig.guest.read(1, 700), wanted[..700]);
    assert_eq!(rig.guest.read(2048, 324), wanted[700..]);
    assert_eq!(rig.guest.read(2048 + 324, 100), [0xee; 100]);
    assert_eq!(rig.guest.read(0, 1), [0xee]);
}

#[test]
fn a_write_stores_what_it_is_asked_for_and_no_more() {
    let image = image();
    let mut rig = Rig::new(image.clone());
    rig.guest.write(0, &[0x5a; 2048]);
    let plan = Plan::Write { offset: 512, len: 1024, fua: false };
    let data = rig.output(0, 2048);
    assert_eq!(rig.good(data, plan), 1024);
    assert_eq!(contents(&image, 512, 1024), [0x5a; 1024]);
    assert_eq!(contents(&image, 1536, 1)[0], expected(1536));
}

// CVE-2016-7156, CVE-2013-4344: more data than there are buffers is an error, not an overflow; and
// nothing is done then.
#[test]
fn more_data_than_buffers_is_an_overrun_and_nothing_is_done() {
    let (offset, len) = (0, 1024);
    type Make = fn(u64, u64) -> Plan;
    let plans: [(Make, Direction); 8] = [
        (|offset, len| Plan::Read { offset, len }, Direction::FromDevice),
        (|offset, len| Plan::Write { offset, len, fua: true }, Direction::ToDevice),
        (
            |offset, len| Plan::WriteVerify { offset, len, compare: Compare::Blocks },
            Direction::ToDevice,
        ),
        (|offset, len| Plan::Verify { offset, len, compare: Compare::Blocks }, Direction::ToDevice),
        (
            |offset, len| Plan::Verify { offset, len: len * 4, compare: Compare::OneBlock },
            Direction::ToDevice,
        ),
        (|offset, len| Plan::WriteSame { offset, len, fua: false }, Direction::ToDevice),
        (
            |offset, len| Plan::CompareAndWrite { offset, len: len / 2, fua: false },
            Direction::ToDevice,
        ),
        (|_, len| Plan::Reply(vec![1; usize::try_from(len).unwrap()]), Direction::FromDevice),
    ];
    for (number, (plan, direction)) in plans.into_iter().enumerate() {
        let recording = RecordingBackend::new(image());
        let log = recording.log();
        let mut rig = Rig::new(recording);
        let one_block = matches!(
            plan(offset, len),
            Plan::WriteSame { .. } | Plan::Verify { compare: Compare::OneBlock, .. }
        );
        let enough = if one_block { BLOCK } else { 1024 };
        let other = match direction {
            Direction::ToDevice => Direction::FromDevice,
            Direction::FromDevice => Direction::ToDevice,
        };
        for (bytes, direction) in [(enough - 1, direction), (0, direction), (enough, other)] {
            let data = rig.guest.buffers(&[(0, bytes)], direction);
            let completion = rig.carry_out(data, plan(offset, len));
            assert_eq!(completion.outcome, Outcome::Overrun, "plan {number}");
            assert_eq!(completion.moved, 0);
        }
        assert!(log.is_empty(), "plan {number}");
        let data = rig.guest.buffers(&[(0, enough)], direction);
        let completion = rig.carry_out(data, plan(offset, len));
        assert_ne!(completion.outcome, Outcome::Overrun, "plan {number}");
    }
}

#[test]
fn no_blocks_are_good_at_once() {
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    let mut rig = Rig::new(recording);
    for plan in [
        Plan::Read { offset: 512, len: 0 },
        Plan::Write { offset: 512, len: 0, fua: true },
        Plan::WriteVerify { offset: 512, len: 0, compare: Compare::Blocks },
        Plan::Verify { offset: 512, len: 0, compare: Compare::OneBlock },
        Plan::WriteZeroes { offset: 512, len: 0, unmap: false, fua: false },
        Plan::WriteSame { offset: 512, len: 0, fua: true },
        Plan::CompareAndWrite { offset: 512, len: 0, fua: true },
        Plan::Unmap { ranges: Vec::new(), zero: true },
        Plan::Reply(Vec::new()),
        Plan::good(),
    ] {
        let data = rig.output(0, 512);
        assert_eq!(rig.good(data, plan), 0);
    }
    assert!(log.is_empty());
}

#[test]
fn a_reply_goes_to_the_start_of_the_buffers() {
    let mut rig = Rig::new(image());
    let data = rig.input(8, 100);
    assert_eq!(rig.good(data, Plan::Reply(vec![7; 36])), 36);
    assert_eq!(rig.guest.read(8, 37), [&[7; 36][..], &[0]].concat());
}

#[test]
fn what_decode_has_taken_counts_as_moved() {
    let mut rig = Rig::new(image());
    let took = |then| Plan::Took { len: 24, then: Box::new(then) };
    let data = rig.output(0, 30);
    assert_eq!(rig.good(data, took(Plan::good())), 24);
    let data = rig.output(0, 30);
    let ranges = vec![(512, 512)];
    assert_eq!(rig.good(data, took(Plan::Unmap { ranges, zero: true })), 24);
    let data = rig.output(0, 30);
    let plan = took(Plan::check(Sense::new(5, (0x26, 0))));
    let completion = rig.carry_out(data, plan);
    assert_eq!((sense(&completion).asc, completion.moved), (0x26, 24));
}

#[test]
fn durability_is_passed_on() {
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    let mut rig = Rig::new(recording);
    for fua in [false, true] {
        let data = rig.output(0, 512);
        rig.good(data, Plan::Write { offset: 0, len: 512, fua });
        rig.good(none(), Plan::WriteZeroes { offset: 512, len: 1024, unmap: fua, fua });
        rig.guest.write(4096, &[9; 512]);
        let data = rig.output(4096, 512);
        rig.good(data, Plan::WriteSame { offset: 2048, len: 512, fua });
    }
    rig.good(none(), Plan::Flush);
    let plain = BlockOp::Write { fua: false };
    assert_eq!(
        submitted(&log.events()),
        [
            (plain, 0, 512),
            (BlockOp::WriteZeroes { unmap: false }, 512, 1024),
            (plain, 2048, 512),
            (BlockOp::Write { fua: true }, 0, 512),
            (BlockOp::WriteZeroes { unmap: true }, 512, 1024),
            (BlockOp::Flush, 0, 0),
            (plain, 2048, 512),
            (BlockOp::Flush, 0, 0),
            (BlockOp::Flush, 0, 0),
        ]
    );
}

#[test]
fn a_failed_operation_is_reported_with_its_place() {
    let cases: [(Plan, bool, u8, u8, Option<u64>); 6] = [
        (Plan::Read { offset: 1024, len: 512 }, true, 3, 0x11, Some(2)),
        (Plan::Write { offset: 1536, len: 512, fua: false }, false, 3, 0x0c, Some(3)),
        (Plan::Flush, false, 3, 0x0c, None),
        (Plan::Unmap { ranges: vec![(0, 512), (512, 512)], zero: false }, false, 3, 0x0c, None),
        (
            Plan::Verify { offset: 2048, len: 512, compare: Compare::Nothing },
            false,
            3,
            0x11,
            Some(4),
        ),
        (Plan::WriteSame { offset: 0, len: 1024, fua: true }, false, 3, 0x0c, None),
    ];
    for (plan, reads, key, asc, lba) in cases {
        let mut rig = Rig::new(FaultBackend::nth(image(), 0, libc::EIO));
        rig.guest.write(0, &[1; 512]);
        let data = if reads { rig.input(0, 512) } else { rig.output(0, 512) };
        let completion = rig.carry_out(data, plan);
        let sense = sense(&completion);
        assert_eq!((sense.key, sense.asc, sense.information), (key, asc, lba));
        assert_eq!(completion.moved, 0);
    }
}

// A host error of a backend that has no queue to give is an answer too.
#[test]
fn a_queue_that_cannot_be_opened_fails_the_command() {
    struct Closed(MemoryBackend);
    impl paraslot_backends::block::BlockBackend for Closed {
        fn info(&self) -> paraslot_backends::block::BlockInfo {
            self.0.info()
        }
        fn open_queue(
            &self,
            _depth: u32,
        ) -> io::Result<Box<dyn paraslot_backends::block::BlockQueue>> {
            Err(io::Error::from_raw_os_error(libc::EMFILE))
        }
    }
    let mut rig = Rig::new(Closed(image()));
    let data = rig.input(0, 512);
    let completion = rig.carry_out(data, Plan::Read { offset: 0, len: 512 });
    assert_eq!(sense(&completion).key, 3);
    assert_eq!(rig.lane.in_flight(), 0);
}

#[test]
fn unmap_asks_for_every_range_a_few_at_a_time() {
    for (depth, most) in [(32, 8), (3, 3)] {
        let gated = GatedBackend::new(image());
        let gate = gated.gate();
        let mut rig = Rig::with_depth(gated, depth);
        let ranges: Vec<(u64, u64)> = (0..50).map(|number| (number * 2048, 512)).collect();
        let plan = Plan::Unmap { ranges: ranges.clone(), zero: false };
        rig.lane.begin_at(HERE, 1, 1, none(), plan);
        let mut seen = Vec::new();
        loop {
            let completions = rounds(&mut rig.lane);
            if !completions.is_empty() {
                assert_eq!(completions[0].outcome, GOOD);
                break;
            }
            assert!((1..=most).contains(&gate.held()));
            let (_, op, offset) = gate.requests()[0];
            assert_eq!(op, BlockOp::Discard);
            seen.push((offset, 512));
            gate.release(1);
        }
        assert_eq!(seen, ranges);
    }
}

#[test]
fn unmapped_ranges_that_must_read_as_zeroes_do() {
    let image = image();
    let mut rig = Rig::new(image.clone());
    let ranges = vec![(512, 512), (2048, 1024)];
    rig.good(none(), Plan::Unmap { ranges, zero: true });
    for offset in 0..4096 {
        let zero = (512..1024).contains(&offset) || (2048..3072).contains(&offset);
        let byte = if zero { 0 } else { expected(offset) };
        assert_eq!(contents(&image, offset, 1), [byte], "{offset}");
    }
}

// Without a write cache, zeroes that were read after UNMAP are there after a loss of power, too.
#[test]
fn unmapped_ranges_are_durable_without_a_write_cache() {
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    let mut rig = Rig::new(Claims(recording, |info| info.volatile_cache = true));
    let unit = rig.bus.unit(HERE).unwrap();
    let plan = |zero| Plan::Unmap { ranges: vec![(0, 512), (1024, 512)], zero };
    for (cache, zero, flushes) in
        [(true, true, 0), (true, false, 0), (false, false, 0), (false, true, 1)]
    {
        unit.change_modes(modes::WRITE_CACHE, if cache { modes::WRITE_CACHE } else { 0 });
        let before = submitted(&log.events()).len();
        rig.good(none(), plan(zero));
        let operations = submitted(&log.events()).split_off(before);
        assert_eq!(operations.len(), 2 + flushes);
        assert_eq!(operations[1..].contains(&(BlockOp::Flush, 0, 0)), flushes == 1);
    }
}

#[test]
fn zeroes_are_written_for_a_backend_that_cannot_itself() {
    let image = image();
    let recording = RecordingBackend::new(image.clone());
    let log = recording.log();
    let mut rig = Rig::new(Claims(recording, |info| {
        info.write_zeroes = false;
        info.write_zeroes_unmap = false;
    }));
    let len = 300 * 1024 + 512;
    let plan = Plan::WriteZeroes { offset: 512, len, unmap: true, fua: true };
    assert_eq!(rig.good(none(), plan), 0);
    let count = usize::try_from(len).unwrap();
    assert_eq!(contents(&image, 512, count), vec![0; count]);
    assert_eq!(contents(&image, 0, 1)[0], expected(0));
    assert_eq!(contents(&image, 512 + count, 1)[0], expected(512 + count));
    let operations = submitted(&log.events());
    let write = BlockOp::Write { fua: false };
    assert!(operations[..3].iter().all(|(op, _, len)| *op == write && *len <= 128 * 1024));
    assert_eq!(operations[3], (BlockOp::Flush, 0, 0));
    assert_eq!(operations.len(), 4);
}

#[test]
fn write_same_repeats_its_block() {
    for block in [512_usize, 4096, 65536] {
        let options = MemoryOptions {
            logical_block: u32::try_from(block).unwrap(),
            ..MemoryOptions::default()
        };
        let image = MemoryBackend::new(4 << 20, options).unwrap();
        let mut rig = Rig::new(image.clone());
        let pattern: Vec<u8> = (0..block).map(|at| (at % 253).to_le_bytes()[0] | 1).collect();
        rig.guest.write(3, &pattern);
        let len = block * 25;
        let data = rig.guest.buffers(&[(3, 100), (103, block)], Direction::ToDevice);
        let (offset, bytes) = (block as u64, len as u64);
        let plan = Plan::WriteSame { offset, len: bytes, fua: false };
        assert_eq!(rig.good(data, plan), block as u64);
        let after = contents(&image, block, len);
        assert!(after.chunks(block).all(|chunk| chunk == pattern));
        assert_eq!(contents(&image, 0, block), vec![0; block]);
        assert_eq!(contents(&image, block + len, block), vec![0; block]);
    }
}

// The block is looked at once: what the guest makes of it later changes nothing.
#[test]
fn write_same_reads_its_block_once() {
    let image = image();
    let gated = GatedBackend::new(image.clone());
    let gate = gated.gate();
    let mut rig = Rig::new(gated);
    rig.guest.write(0, &[0x11; 512]);
    let len = 1 << 20;
    let data = rig.output(0, 512);
    rig.lane.begin_at(HERE, 1, 1, data, Plan::WriteSame { offset: 0, len, fua: false });
    rig.guest.write(0, &[0x22; 512]);
    assert!(rounds(&mut rig.lane).is_empty());
    assert_eq!(gate.held(), 4, "a few at a time");
    gate.open();
    assert_eq!(rounds(&mut rig.lane).len(), 1);
    assert!(contents(&image, 0, 1 << 20).iter().all(|byte| *byte == 0x11));
}

#[test]
fn write_same_of_zeroes_is_one_operation_if_the_backend_can() {
    for able in [true, false] {
        let image = image();
        let recording =
            RecordingBackend::new(FaultBackend::new(image.clone(), move |_, request| {
                let zeroes = matches!(request.op, BlockOp::WriteZeroes { .. });
                (zeroes && !able).then_some(BlockError::Unsupported)
            }));
        let log = recording.log();
        let mut rig = Rig::new(recording);
        rig.guest.write(0, &[0; 512]);
        let data = rig.output(0, 512);
        let plan = Plan::WriteSame { offset: 512, len: 200 * 1024, fua: false };
        assert_eq!(rig.good(data, plan), 512);
        let operations = submitted(&log.events());
        let zeroes = (BlockOp::WriteZeroes { unmap: false }, 512, 200 * 1024);
        assert_eq!(operations[0], zeroes);
        assert_eq!(operations.len(), if able { 1 } else { 3 });
        assert!(contents(&image, 512, 200 * 1024).iter().all(|byte| *byte == 0));
        assert_eq!(contents(&image, 0, 1)[0], expected(0));
    }
}

#[test]
fn verify_reads_the_medium_in_parts() {
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    let mut rig = Rig::new(recording);
    let plan = Plan::Verify { offset: 512, len: 300 * 1024, compare: Compare::Nothing };
    let data = rig.output(0, 512);
    assert_eq!(rig.good(data, plan), 0);
    let operations = submitted(&log.events());
    assert!(operations.iter().all(|(op, _, _)| *op == BlockOp::Read));
    assert_eq!(operations.iter().map(|(_, _, len)| len).sum::<u64>(), 300 * 1024);
    assert_eq!(operations.len(), 3);
}

#[test]
fn verify_compares_with_as_much_data() {
    let mut rig = Rig::new(image());
    let (offset, len) = (1024, 200 * 1024);
    let wanted: Vec<u8> = (offset..offset + len).map(expected).collect();
    rig.guest.write(5, &wanted);
    let plan = || Plan::Verify { offset: offset as u64, len: len as u64, compare: Compare::Blocks };
    let data = rig.output(5, len);
    assert_eq!(rig.good(data, plan()), len as u64);
    for at in [0, 1, 65_535, 65_536, 70_001, len - 1] {
        rig.guest.write(5 + at as u64, &[!wanted[at]]);
        let data = rig.output(5, len);
        let completion = rig.carry_out(data, plan());
        let sense = sense(&completion);
        assert_eq!((sense.key, sense.asc), (0xe, 0x1d));
        assert_eq!(sense.information, Some(at as u64));
        assert_eq!(completion.moved, len as u64);
        rig.guest.write(5 + at as u64, &[wanted[at]]);
    }
}

#[test]
fn verify_compares_each_block_with_one() {
    let image = image();
    let block: Vec<u8> = (0..BLOCK).map(|at| (at % 7).to_le_bytes()[0]).collect();
    image.write_at(512, &block.repeat(400)).unwrap();
    let mut rig = Rig::new(image.clone());
    rig.guest.write(0, &block);
    let plan = || Plan::Verify { offset: 512, len: 400 * BLOCK as u64, compare: Compare::OneBlock };
    let data = rig.output(0, BLOCK);
    assert_eq!(rig.good(data, plan()), BLOCK as u64);
    image.write_at(512 + 399 * 512 + 17, &[0xff]).unwrap();
    let data = rig.output(0, BLOCK);
    let completion = rig.carry_out(data, plan());
    assert_eq!((sense(&completion).key, sense(&completion).information), (0xe, Some(17)));
    assert_eq!(completion.moved, BLOCK as u64);
}

#[test]
fn write_and_verify_stores_durably_and_reads_back() {
    for compare in [Compare::Nothing, Compare::Blocks] {
        let image = image();
        let recording = RecordingBackend::new(image.clone());
        let log = recording.log();
        let mut rig = Rig::new(recording);
        let data: Vec<u8> = (0..100 * 1024).map(|at| expected(at * 3)).collect();
        rig.guest.write(0, &data);
        let plan = Plan::WriteVerify { offset: 4096, len: 100 * 1024, compare };
        let buffers = rig.output(0, data.len());
        assert_eq!(rig.good(buffers, plan), 100 * 1024);
        assert_eq!(contents(&image, 4096, data.len()), data);
        let (write, rest) = (BlockOp::Write { fua: true }, 36 * 1024);
        assert_eq!(
            submitted(&log.events()),
            [
                (write, 4096, 65536),
                (BlockOp::Read, 4096, 65536),
                (write, 4096 + 65536, rest),
                (BlockOp::Read, 4096 + 65536, rest),
            ]
        );
    }
}

// The medium that does not keep what was written is found out, even if the guest's own memory is made
// to agree with it in the meantime.
#[test]
fn write_and_verify_compares_with_what_was_written() {
    let image = image();
    let gated = GatedBackend::new(image.clone());
    let gate = gated.gate();
    let mut rig = Rig::new(gated);
    rig.guest.write(0, &[0x33; 512]);
    let data = rig.output(0, 512);
    let plan = Plan::WriteVerify { offset: 0, len: 512, compare: Compare::Blocks };
    rig.lane.begin_at(HERE, 1, 1, data, plan);
    gate.release(1);
    assert!(rounds(&mut rig.lane).is_empty());
    image.write_at(100, &[0x44]).unwrap();
    rig.guest.write(100, &[0x44]);
    gate.release(1);
    let completions = rounds(&mut rig.lane);
    assert_eq!(sense(&completions[0]).information, Some(100));
}

// One command with a great deal to do does not keep the worker from the others.
#[test]
fn long_commands_go_on_a_bounded_part_at_a_time() {
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    let mut rig = Rig::new(recording);
    let plan = Plan::Verify { offset: 0, len: 4 << 20, compare: Compare::Nothing };
    rig.lane.begin_at(HERE, 1, 1, none(), plan);
    let mut before = log.len();
    let mut count = 0;
    while round(&mut rig.lane).is_empty() {
        assert!(log.len() - before <= 6, "a few operations a round");
        before = log.len();
        count += 1;
        assert!(rig.lane.prepare_to_wait(), "there is more to do");
    }
    assert!(count > 5);
}

// There is scratch memory for eight; the others wait, and are all served.
#[test]
fn commands_wait_for_scratch_memory() {
    let gated = GatedBackend::new(image());
    let gate = gated.gate();
    let mut rig = Rig::new(gated);
    for token in 0..20 {
        let plan = Plan::Verify { offset: token * 512, len: 512, compare: Compare::Nothing };
        rig.lane.begin_at(HERE, token, token, none(), plan);
    }
    let mut ended = Vec::new();
    while ended.len() < 20 {
        assert!(gate.held() <= 8);
        gate.release(1);
        ended.extend(rounds(&mut rig.lane));
    }
    let order: Vec<u64> = ended.iter().map(|completion| completion.token).collect();
    assert!(order.iter().copied().eq(0..20), "as they came: {order:?}");
}

#[test]
fn an_end_is_an_end() {
    let mut rig = Rig::new(image());
    let data = rig.output(0, 8);
    let plan = Plan::End(Ending::Status(Status::ReservationConflict));
    let completion = rig.carry_out(data, plan);
    let status = Status::ReservationConflict;
    assert_eq!(completion.outcome, Outcome::Ended { status, sense: None });
    let data = rig.output(0, 8);
    assert_eq!(rig.carry_out(data, Plan::Overrun).outcome, Outcome::Overrun);
}

// Once an operation of a command has failed, what waits of it is not asked for any more.
#[test]
fn a_command_that_has_failed_asks_for_nothing_more() {
    let gated = GatedBackend::new(image());
    let gate = gated.gate();
    let mut rig = Rig::with_depth(FaultBackend::nth(gated, 0, libc::EIO), 2);
    let ranges = (0..6).map(|number| (number * 512, 512)).collect();
    rig.lane.begin_at(HERE, 1, 1, none(), Plan::Unmap { ranges, zero: false });
    assert_eq!(gate.held(), 2);
    gate.release(1);
    assert!(rounds(&mut rig.lane).is_empty(), "one is with the backend still");
    assert_eq!(gate.held(), 1);
    gate.release(1);
    let completions = rounds(&mut rig.lane);
    assert_eq!(sense(&completions[0]).key, 3);
    assert_eq!(gate.held(), 0);
}
