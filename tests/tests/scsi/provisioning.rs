//! UNMAP and WRITE SAME (SBC-3, 4.7, UNMAP and WRITE SAME commands).

use paraslot_backends::block::testing::{Event, Log, RecordingBackend};
use paraslot_backends::block::{BlockInfo, BlockOp};

use crate::cdb::{rw10, rw16};
use crate::initiator::{Data, End, LIST_LENGTH, UNKNOWN, bad_cdb, bad_parameter, out_of_range};
use crate::ways::{Way, on_every_way, one};
use crate::world::{BLOCK, Claims, END, disk, fresh, image, on, original};

on_every_way! {
    unmap_clears_its_ranges,
    unmap_checks_its_list,
    unmap_is_there_where_blocks_can_be_unmapped,
    write_same_repeats_a_block,
    write_same_of_zeroes_is_one_operation,
    write_same_unmaps_where_unmapped_blocks_are_zeroes,
    write_same_refuses_what_it_does_not_serve,
}

/// A parameter list of UNMAP with these ranges.
fn list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let len = u16::try_from(16 * ranges.len()).expect("short");
    let mut list = (len + 6).to_be_bytes().to_vec();
    list.extend(len.to_be_bytes());
    list.extend([0; 4]);
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

/// UNMAP with a list of so many bytes.
fn unmap(len: usize) -> Vec<u8> {
    rw10(0x42, 0, 0, u32::try_from(len).expect("short"))
}

fn operations(log: &Log) -> Vec<(BlockOp, u64, u64)> {
    let events = log.events().into_iter();
    let submitted = events.filter_map(|event| match event {
        Event::Submitted { op, offset, len, .. } => Some((op, offset, len)),
        Event::Completed { .. } => None,
    });
    submitted.collect()
}

fn unmap_clears_its_ranges<W: Way>() {
    let backend = image();
    one::<W>(&disk(backend.clone()), |it| {
        let ranges = list(&[(8, 8), (100, 1), (200, 0), (u64::from(END) - 3, 3)]);
        it.output(&unmap(ranges.len()), &ranges);
        for (lba, blocks) in [(8, 8), (100, 1), (4093, 3)] {
            assert!(on(&backend, lba, blocks).iter().all(|byte| *byte == 0), "{lba}");
        }
        for (lba, blocks) in [(0, 8), (16, 84), (101, 3992)] {
            assert!(on(&backend, lba, blocks) == original(lba, blocks), "{lba}");
        }
        // As many as the Block Limits page says.
        let ranges: Vec<(u64, u32)> = (0..256).map(|index| (1000 + 2 * index, 1)).collect();
        let ranges = list(&ranges);
        it.output(&unmap(ranges.len()), &ranges);
        for index in 0..256 {
            assert!(on(&backend, 1000 + 2 * index, 1) == [0; BLOCK]);
            assert!(on(&backend, 1001 + 2 * index, 1) == original(1001 + 2 * index, 1));
        }
    });
}

fn unmap_checks_its_list<W: Way>() {
    let backend = image();
    one::<W>(&disk(backend.clone()), |it| {
        it.good(&unmap(0));
        it.fails(&rw10(0x42, 1, 0, 24), Data::Out(&list(&[(0, 1)])), bad_cdb(1, Some(0)));
        // No room for the header.
        it.fails(&unmap(7), Data::Out(&list(&[])[..7]), LIST_LENGTH);
        // An empty list, and a descriptor that is not all there: nothing is to be unmapped.
        it.output(&unmap(8), &list(&[]));
        let mut part = list(&[(8, 8)])[..16].to_vec();
        part[..4].copy_from_slice(&[0, 14, 0, 8]);
        it.output(&unmap(16), &part);
        // UNMAP DATA LENGTH, or that of the descriptors, says that there is more.
        for (at, len) in [(1, 23), (3, 17)] {
            let mut long = list(&[(8, 8)]);
            long[at] = len;
            it.fails(&unmap(24), Data::Out(&long), LIST_LENGTH);
        }
        // One bad range, and nothing is done.
        let ranges = list(&[(8, 8), (u64::from(END), 1)]);
        it.fails(&unmap(ranges.len()), Data::Out(&ranges), out_of_range(END.into()));
        let ranges = list(&[(8, 8), (u64::from(END) - 1, 2)]);
        it.fails(&unmap(ranges.len()), Data::Out(&ranges), out_of_range(END.into()));
        let ranges = list(&[(8, 1); 257]);
        it.fails(&unmap(ranges.len()), Data::Out(&ranges), bad_parameter(2, None));
        assert_eq!(it.end(&unmap(40), Data::Out(&list(&[(8, 8)]))), End::Overrun);
        assert_eq!(it.end(&unmap(24), Data::In(24)), End::Overrun);
        assert!(on(&backend, 8, 8) == original(8, 8));
    });
    // More blocks than the Block Limits page says, together.
    let huge = Claims(image(), |info: &mut BlockInfo| info.capacity = 1 << 45);
    one::<W>(&disk(huge), |it| {
        let most = 1 << 23;
        let ranges = list(&[(0, most), (1 << 24, 1)]);
        it.fails(&unmap(ranges.len()), Data::Out(&ranges), bad_parameter(32, None));
        let ranges = list(&[(0, most + 1)]);
        it.fails(&unmap(ranges.len()), Data::Out(&ranges), bad_parameter(16, None));
    });
}

fn unmap_is_there_where_blocks_can_be_unmapped<W: Way>() {
    // Discards, if zeroes are not promised.
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    let claims = Claims(recording, |info: &mut BlockInfo| info.write_zeroes_unmap = false);
    one::<W>(&disk(claims), |it| {
        let ranges = list(&[(8, 8)]);
        it.output(&unmap(ranges.len()), &ranges);
        assert_eq!(operations(&log), [(BlockOp::Discard, 4096, 4096)]);
        // And then WRITE SAME does not unmap.
        let zeroes = [0; BLOCK];
        it.fails(&rw16(0x93, 0x08, 8, 8), Data::Out(&zeroes), bad_cdb(1, Some(3)));
        it.fails(&rw10(0x41, 0x08, 8, 8), Data::Out(&zeroes), bad_cdb(1, Some(3)));
    });
    let claims = Claims(image(), |info: &mut BlockInfo| {
        (info.discard_granularity, info.write_zeroes_unmap) = (0, false);
    });
    one::<W>(&disk(claims), |it| {
        it.fails(&unmap(24), Data::Out(&list(&[(8, 8)])), UNKNOWN);
    });
}

fn write_same_repeats_a_block<W: Way>() {
    let backend = image();
    one::<W>(&disk(backend.clone()), |it| {
        for (command, lba, blocks) in [
            (rw10(0x41, 0, 40, 5), 40, 5),
            (rw16(0x93, 0, 60, 1), 60, 1),
            (rw16(0x93, 0, 1000, 2000), 1000, 2000),
        ] {
            it.output(&command, &fresh(1));
            assert!(on(&backend, lba, blocks) == fresh(1).repeat(blocks));
            assert!(on(&backend, lba - 1, 1) == original(lba - 1, 1));
            assert!(on(&backend, lba + blocks, 1) == original(lba + blocks, 1));
        }
        assert_eq!(it.end(&rw10(0x41, 0, 0, 5), Data::Out(&fresh(1)[1..])), End::Overrun);
        assert_eq!(it.end(&rw10(0x41, 0, 0, 5), Data::None), End::Overrun);
        assert!(on(&backend, 0, 5) == original(0, 5));
    });
}

fn write_same_of_zeroes_is_one_operation<W: Way>() {
    let backend = image();
    let recording = RecordingBackend::new(backend.clone());
    let log = recording.log();
    one::<W>(&disk(recording), |it| {
        let zero = [0; BLOCK];
        it.output(&rw10(0x41, 0, 40, 100), &zero);
        // NDOB: without a block of data.
        it.good(&rw16(0x93, 0x01, 200, 100));
        it.good(&rw16(0x93, 0x09, 400, 100));
        let op = |unmap| BlockOp::WriteZeroes { unmap };
        let expected = [(false, 40), (false, 200), (true, 400)]
            .map(|(unmap, lba)| (op(unmap), lba * 512, 100 * 512));
        assert_eq!(operations(&log), expected);
        for lba in [40, 200, 400] {
            assert!(on(&backend, lba, 100).iter().all(|byte| *byte == 0));
            assert!(on(&backend, lba + 100, 1) == original(lba + 100, 1));
        }
    });
    // Where there is no such operation, zeroes are written; NDOB is not served.
    let claims = Claims(image(), |info: &mut BlockInfo| {
        (info.write_zeroes, info.write_zeroes_unmap) = (false, false);
    });
    one::<W>(&disk(claims), |it| {
        it.output(&rw10(0x41, 0, 40, 3), &[0; BLOCK]);
        assert!(it.input(&rw10(0x28, 0, 40, 3), 3 * BLOCK) == [0; 3 * BLOCK]);
        it.fails(&rw16(0x93, 0x01, 0, 1), Data::None, bad_cdb(1, Some(0)));
    });
}

fn write_same_unmaps_where_unmapped_blocks_are_zeroes<W: Way>() {
    let backend = image();
    let recording = RecordingBackend::new(backend.clone());
    let log = recording.log();
    one::<W>(&disk(recording), |it| {
        it.output(&rw16(0x93, 0x08, 8, 8), &[0; BLOCK]);
        it.output(&rw10(0x41, 0x08, 24, 8), &[0; BLOCK]);
        let op = BlockOp::WriteZeroes { unmap: true };
        assert_eq!(operations(&log), [(op, 4096, 4096), (op, 12288, 4096)]);
        // What is no zero cannot be unmapped; it is written.
        it.output(&rw16(0x93, 0x08, 40, 8), &fresh(1));
        assert!(on(&backend, 40, 8) == fresh(1).repeat(8));
    });
}

fn write_same_refuses_what_it_does_not_serve<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let block = fresh(1);
        for (flags, bit) in [(0x10, 4), (0x02, 2), (0x04, 2), (0x20, 7)] {
            it.fails(&rw10(0x41, flags, 0, 1), Data::Out(&block), bad_cdb(1, Some(bit)));
            it.fails(&rw16(0x93, flags, 0, 1), Data::Out(&block), bad_cdb(1, Some(bit)));
        }
        // WSNZ: 0 is not all blocks to the end.
        it.fails(&rw10(0x41, 0, 0, 0), Data::Out(&block), bad_cdb(7, None));
        it.fails(&rw16(0x93, 0, 0, 0), Data::Out(&block), bad_cdb(10, None));
        it.fails(&rw10(0x41, 0, END, 1), Data::Out(&block), out_of_range(END.into()));
        it.fails(&rw16(0x93, 0, 0, END + 1), Data::Out(&block), out_of_range(END.into()));
    });
    let huge = Claims(image(), |info: &mut BlockInfo| info.capacity = 1 << 45);
    one::<W>(&disk(huge), |it| {
        // MAXIMUM WRITE SAME LENGTH: 128 MiB.
        it.fails(&rw16(0x93, 0, 0, 0x4_0001), Data::Out(&fresh(1)), bad_cdb(10, None));
    });
}
