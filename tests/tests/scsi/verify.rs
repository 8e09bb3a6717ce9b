//! VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, PRE-FETCH and SYNCHRONIZE CACHE (SBC-3, 5).

use paraslot_backends::block::testing::{Event, Log, RecordingBackend};
use paraslot_backends::block::{BlockInfo, BlockOp, MemoryBackend, MemoryOptions};
use paraslot_scsi::{Sense, Status};

use crate::cdb::{cdb, rw10, rw12, rw16};
use crate::initiator::{Data, End, at, bad_cdb, out_of_range, sense};
use crate::ways::{Way, on_every_way, one};
use crate::world::{BLOCK, Claims, END, disk, fresh, image, on, original};

on_every_way! {
    verify_compares_as_byte_check_says,
    verify_says_where_the_difference_is,
    verify_reads_long_ranges_in_parts,
    write_and_verify_stores_durably_and_reads_back,
    byte_checks_that_are_not_served_are_refused,
    compare_and_write_writes_what_is_equal,
    compare_and_write_says_where_the_difference_is,
    compare_and_write_has_limits,
    pre_fetch_says_that_it_all_fits,
    synchronize_cache_flushes,
}

/// A command with byte 1, the first block, and the number of blocks.
type Form = fn(u8, u32, u32) -> Vec<u8>;

const VERIFIES: [Form; 3] = [
    |flags, lba, blocks| rw10(0x2f, flags, lba, blocks),
    |flags, lba, blocks| rw12(0xaf, flags, lba, blocks),
    |flags, lba, blocks| rw16(0x8f, flags, lba.into(), blocks),
];
const WRITES: [Form; 3] = [
    |flags, lba, blocks| rw10(0x2e, flags, lba, blocks),
    |flags, lba, blocks| rw12(0xae, flags, lba, blocks),
    |flags, lba, blocks| rw16(0x8e, flags, lba.into(), blocks),
];
/// BYTCHK: nothing is compared, all blocks are, each with the one block is.
const NOTHING: u8 = 0;
const BLOCKS: u8 = 0x02;
const ONE_BLOCK: u8 = 0x06;

/// MISCOMPARE DURING VERIFY OPERATION at this byte of the data.
fn miscompare(offset: usize) -> Sense {
    at(sense(0x0e, 0x1d, 0), offset as u64)
}

/// An image of which blocks 100 to 109 are all the same.
fn uniform() -> MemoryBackend {
    let image = image();
    image.write_at(100 * 512, &fresh(1).repeat(10)).expect("inside");
    image
}

fn verify_compares_as_byte_check_says<W: Way>() {
    let backend = uniform();
    one::<W>(&disk(backend.clone()), |it| {
        for verify in VERIFIES {
            it.good(&verify(NOTHING, 0, 1));
            it.good(&verify(NOTHING, END - 1, 1));
            for flags in [NOTHING, BLOCKS, ONE_BLOCK] {
                it.good(&verify(flags, 8, 0));
            }
            it.output(&verify(BLOCKS, 3, 5), original(3, 5));
            it.output(&verify(ONE_BLOCK, 100, 10), &fresh(1));
            it.output(&verify(BLOCKS, 100, 10), &fresh(1).repeat(10));
            // As much data as is compared, and no less.
            assert_eq!(it.end(&verify(BLOCKS, 3, 5), Data::Out(original(3, 4))), End::Overrun);
            assert_eq!(it.end(&verify(ONE_BLOCK, 3, 5), Data::None), End::Overrun);
            it.fails(&verify(NOTHING, END - 1, 2), Data::None, out_of_range(END.into()));
        }
        assert!(on(&backend, 0, 100) == original(0, 100));
    });
}

fn verify_says_where_the_difference_is<W: Way>() {
    one::<W>(&disk(uniform()), |it| {
        for verify in VERIFIES {
            for place in [0, 1, 511, 512, 2000, 5 * BLOCK - 1] {
                let mut data = original(3, 5).to_vec();
                data[place] ^= 0x10;
                it.fails(&verify(BLOCKS, 3, 5), Data::Out(&data), miscompare(place));
            }
            // The first of several.
            let mut data = original(3, 5).to_vec();
            data[700] ^= 1;
            data[701] ^= 1;
            data[2400] ^= 1;
            it.fails(&verify(BLOCKS, 3, 5), Data::Out(&data), miscompare(700));
            // Of one block of data, the place in that block.
            for place in [0, 77, 511] {
                let mut block = fresh(1);
                block[place] ^= 0x80;
                it.fails(&verify(ONE_BLOCK, 100, 10), Data::Out(&block), miscompare(place));
            }
        }
    });
    // Whichever block it is in.
    let backend = uniform();
    backend.write_at(107 * 512 + 33, &[0]).expect("inside");
    one::<W>(&disk(backend), |it| {
        let data = fresh(1).repeat(10);
        for verify in VERIFIES {
            it.output(&verify(ONE_BLOCK, 100, 7), &fresh(1));
            it.fails(&verify(ONE_BLOCK, 100, 10), Data::Out(&fresh(1)), miscompare(33));
            it.fails(&verify(BLOCKS, 100, 10), Data::Out(&data), miscompare(7 * BLOCK + 33));
        }
    });
}

fn verify_reads_long_ranges_in_parts<W: Way>() {
    one::<W>(&disk(image()), |it| {
        it.good(&rw10(0x2f, NOTHING, 0, END));
        it.output(&rw10(0x2f, BLOCKS, 1, 1500), original(1, 1500));
        let mut data = original(1, 1500).to_vec();
        for place in [1499 * BLOCK + 5, 256 << 10, (256 << 10) - 1, 128 << 10, (64 << 10) + 1] {
            data[place] ^= 2;
            it.fails(&rw10(0x2f, BLOCKS, 1, 1500), Data::Out(&data), miscompare(place));
        }
    });
}

/// The writes and reads in a log: whether durable, where.
fn operations(log: &Log) -> Vec<(BlockOp, u64)> {
    let events = log.events().into_iter();
    let submitted = events.filter_map(|event| match event {
        Event::Submitted { op, offset, .. } => Some((op, offset)),
        Event::Completed { .. } => None,
    });
    submitted.collect()
}

fn write_and_verify_stores_durably_and_reads_back<W: Way>() {
    let backend = image();
    let recording = RecordingBackend::new(backend.clone());
    let log = recording.log();
    one::<W>(&disk(recording), |it| {
        for (base, write) in [0, 100, 200].into_iter().zip(WRITES) {
            for (flags, lba) in [(NOTHING, 40), (BLOCKS, 50), (BLOCKS | 0x10, 60)] {
                let before = operations(&log).len();
                let data = fresh(7);
                it.output(&write(flags, base + lba, 7), &data);
                let lba = (base + lba) as usize;
                assert!(on(&backend, lba, 7) == data);
                let done = operations(&log).split_off(before);
                let offset = (lba * BLOCK) as u64;
                let durable = BlockOp::Write { fua: true };
                assert_eq!(done, [(durable, offset), (BlockOp::Read, offset)]);
            }
            it.good(&write(BLOCKS, 0, 0));
            it.fails(&write(0, END, 1), Data::Out(&fresh(1)), out_of_range(END.into()));
            assert_eq!(it.end(&write(0, 0, 2), Data::Out(&fresh(1))), End::Overrun);
        }
        assert!(on(&backend, 0, 40) == original(0, 40));
    });
}

fn byte_checks_that_are_not_served_are_refused<W: Way>() {
    one::<W>(&disk(image()), |it| {
        for (verify, write) in VERIFIES.into_iter().zip(WRITES) {
            it.fails(&verify(0x04, 0, 1), Data::Out(&fresh(1)), bad_cdb(1, Some(2)));
            for flags in [0x04, 0x06] {
                it.fails(&write(flags, 0, 1), Data::Out(&fresh(1)), bad_cdb(1, Some(2)));
            }
            it.fails(&verify(0x20, 0, 1), Data::None, bad_cdb(1, Some(7)));
            it.fails(&write(0x40, 0, 1), Data::Out(&fresh(1)), bad_cdb(1, Some(7)));
        }
    });
}

/// COMPARE AND WRITE.
fn swap(flags: u8, lba: u64, blocks: u8) -> Vec<u8> {
    rw16(0x89, flags, lba, blocks.into())
}

fn compare_and_write_writes_what_is_equal<W: Way>() {
    let backend = image();
    let recording = RecordingBackend::new(backend.clone());
    let log = recording.log();
    one::<W>(&disk(recording), |it| {
        for (lba, count, fua) in [(5, 1, false), (10, 8, true), (300, 255, false)] {
            let blocks = usize::from(count);
            let data = [original(lba, blocks), &fresh(blocks)].concat();
            let flags = if fua { 0x08 } else { 0 };
            it.output(&swap(flags, lba as u64, count), &data);
            assert!(on(&backend, lba, blocks) == fresh(blocks));
            assert!(on(&backend, lba + blocks, 1) == original(lba + blocks, 1));
            let last = operations(&log).pop();
            assert_eq!(last, Some((BlockOp::Write { fua }, (lba * BLOCK) as u64)));
        }
        // Twice cannot be.
        let data = [original(5, 1), &fresh(1)].concat();
        it.fails(&swap(0, 5, 1), Data::Out(&data), miscompare(0));
        it.good(&swap(0, 5, 0));
    });
}

fn compare_and_write_says_where_the_difference_is<W: Way>() {
    let backend = image();
    one::<W>(&disk(backend.clone()), |it| {
        for place in [0, 3, 511, 512, 4 * BLOCK - 1] {
            let mut data = [original(20, 4), &fresh(4)].concat();
            data[place] ^= 0x40;
            it.fails(&swap(0, 20, 4), Data::Out(&data), miscompare(place));
            assert!(on(&backend, 20, 4) == original(20, 4), "nothing is written");
        }
        let mut data = [original(1000, 200), &fresh(200)].concat();
        data[150 * BLOCK + 9] ^= 1;
        it.fails(&swap(0, 1000, 200), Data::Out(&data), miscompare(150 * BLOCK + 9));
        assert!(on(&backend, 1000, 200) == original(1000, 200));
    });
}

fn compare_and_write_has_limits<W: Way>() {
    one::<W>(&disk(image()), |it| {
        it.fails(&swap(0, u64::from(END) - 1, 2), Data::None, out_of_range(END.into()));
        it.fails(&swap(0x20, 0, 1), Data::Out(&fresh(2)), bad_cdb(1, Some(7)));
        let half = original(0, 1);
        assert_eq!(it.end(&swap(0, 0, 1), Data::Out(half)), End::Overrun);
    });
    // MAXIMUM COMPARE AND WRITE LENGTH is 32 of such blocks.
    let options = MemoryOptions { logical_block: 4096, ..MemoryOptions::default() };
    one::<W>(&disk(crate::world::image_of(options)), |it| {
        it.fails(&swap(0, 0, 33), Data::None, bad_cdb(13, None));
        it.output(&swap(0, 0, 32), &[original(0, 256), &fresh(256)].concat());
    });
}

fn pre_fetch_says_that_it_all_fits<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let met = End::Status(Status::ConditionMet);
        for flags in [0, 2] {
            assert_eq!(it.end(&rw10(0x34, flags, 0, 100), Data::None), met);
            assert_eq!(it.end(&rw16(0x90, flags, 0, END), Data::None), met);
        }
        it.fails(&rw10(0x34, 0, END - 1, 2), Data::None, out_of_range(END.into()));
        it.fails(&rw16(0x90, 0, END.into(), 1), Data::None, out_of_range(END.into()));
    });
}

fn synchronize_cache_flushes<W: Way>() {
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    one::<W>(&disk(recording), |it| {
        let flushes = || operations(&log).iter().filter(|(op, _)| *op == BlockOp::Flush).count();
        let before = flushes();
        let commands = [rw10(0x35, 0, 0, 0), rw10(0x35, 2, 5, 1), rw16(0x91, 0, 0, END)];
        for (index, command) in commands.iter().enumerate() {
            it.good(command);
            assert_eq!(flushes(), before + index + 1);
        }
        it.fails(&rw10(0x35, 0, END, 1), Data::None, out_of_range(END.into()));
        it.fails(&rw16(0x91, 0, END.into(), 0), Data::None, out_of_range(END.into()));
        it.fails(&cdb::<10>(0x35, &[(9, 4)]), Data::None, bad_cdb(9, Some(2)));
        assert_eq!(flushes(), before + 3);
    });
    // Nothing is to be done where writes are durable anyway.
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    let claims = Claims(recording, |info: &mut BlockInfo| info.volatile_cache = false);
    one::<W>(&disk(claims), |it| it.good(&rw10(0x35, 0, 0, 0)));
    assert!(operations(&log).is_empty());
}
