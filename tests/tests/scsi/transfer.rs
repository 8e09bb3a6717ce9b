//! READ and WRITE of 6, 10, 12 and 16 bytes (SBC-3, 5).

use paraslot_backends::block::BlockOp;
use paraslot_backends::block::testing::{Event, RecordingBackend};

use crate::cdb::{cdb, rw6, rw10, rw12, rw16};
use crate::initiator::{Data, End, GOOD, bad_cdb, out_of_range};
use crate::ways::{Way, on_every_way, one};
use crate::world::{BLOCK, Claims, END, disk, fresh, image, on, original};

on_every_way! {
    reads_are_of_the_blocks_that_are_named,
    no_blocks_are_no_error,
    writes_change_the_blocks_that_are_named_alone,
    a_write_is_durable_if_it_is_to_be,
    what_is_beyond_the_end_is_refused_and_named,
    data_that_does_not_fit_is_an_overrun,
    fields_that_are_not_served_are_pointed_at,
    what_is_too_long_is_refused,
    far_blocks_are_reached,
}

/// A read or write of these blocks.
type Form = fn(u32, u32) -> Vec<u8>;

const READS: [Form; 4] = [
    |lba, blocks| rw6(0x08, lba, blocks),
    |lba, blocks| rw10(0x28, 0, lba, blocks),
    |lba, blocks| rw12(0xa8, 0, lba, blocks),
    |lba, blocks| rw16(0x88, 0, lba.into(), blocks),
];
const WRITES: [Form; 4] = [
    |lba, blocks| rw6(0x0a, lba, blocks),
    |lba, blocks| rw10(0x2a, 0, lba, blocks),
    |lba, blocks| rw12(0xaa, 0, lba, blocks),
    |lba, blocks| rw16(0x8a, 0, lba.into(), blocks),
];

fn reads_are_of_the_blocks_that_are_named<W: Way>() {
    one::<W>(&disk(image()), |it| {
        for read in READS {
            for (lba, blocks) in [(0, 1), (7, 3), (END - 1, 1), (END - 200, 200), (1, 255)] {
                let data = it.input(&read(lba, blocks), blocks as usize * BLOCK);
                assert!(data == original(lba as usize, blocks as usize), "{lba} {blocks}");
            }
        }
        // A length of 0 is 256, for 6 bytes alone.
        let data = it.input(&READS[0](5, 0), 256 * BLOCK);
        assert!(data == original(5, 256));
        for read in &READS[1..] {
            let data = it.input(&read(1000, 1000), 1000 * BLOCK);
            assert!(data == original(1000, 1000));
        }
        // DPO and FUA ask for nothing that could be seen. Bits 7:5 of byte 1 are no LBA in 6 bytes.
        assert!(it.input(&rw10(0x28, 0x18, 3, 1), BLOCK) == original(3, 1));
        assert!(it.input(&[0x08, 0xe0, 0, 3, 1, 0], BLOCK) == original(3, 1));
    });
}

fn no_blocks_are_no_error<W: Way>() {
    let backend = image();
    one::<W>(&disk(backend.clone()), |it| {
        for command in READS[1..].iter().chain(&WRITES[1..]) {
            it.good(&command(0, 0));
            it.good(&command(END - 1, 0));
            // SBC-3: the address is looked at even so.
            it.fails(&command(END, 0), Data::None, out_of_range(END.into()));
        }
        assert!(on(&backend, 0, 1) == original(0, 1));
    });
}

fn writes_change_the_blocks_that_are_named_alone<W: Way>() {
    let backend = image();
    one::<W>(&disk(backend.clone()), |it| {
        for (index, write) in WRITES.iter().enumerate() {
            let start = 100 * (index + 1);
            let lba = u32::try_from(start).expect("small");
            for (offset, blocks) in [(0, 1_u32), (2, 5), (10, 64)] {
                let data = fresh(blocks as usize);
                it.output(&write(lba + offset, blocks), &data);
                assert!(on(&backend, start + offset as usize, blocks as usize) == data);
            }
            assert!(on(&backend, start - 1, 1) == original(start - 1, 1));
            assert!(on(&backend, start + 1, 1) == original(start + 1, 1));
            assert!(on(&backend, start + 7, 3) == original(start + 7, 3));
            assert!(on(&backend, start + 74, 1) == original(start + 74, 1));
        }
        let data = fresh(256);
        it.output(&WRITES[0](2000, 0), &data);
        assert!(on(&backend, 2000, 256) == data && on(&backend, 2256, 1) == original(2256, 1));
        it.output(&WRITES[1](END - 1, 1), &data[..BLOCK]);
        assert!(on(&backend, END as usize - 1, 1) == data[..BLOCK]);
    });
}

fn a_write_is_durable_if_it_is_to_be<W: Way>() {
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    one::<W>(&disk(recording), |it| {
        let mut ask = |cdb: &[u8]| {
            it.output(cdb, &fresh(1));
            let mut writes = log.events().into_iter().filter_map(|event| match event {
                Event::Submitted { op: BlockOp::Write { fua }, offset, .. } => Some((fua, offset)),
                _ => None,
            });
            writes.next_back().expect("a write")
        };
        assert_eq!(ask(&rw6(0x0a, 9, 1)), (false, 9 * 512));
        for (flags, fua) in [(0, false), (0x08, true), (0x10, false), (0x18, true)] {
            assert_eq!(ask(&rw10(0x2a, flags, 8, 1)), (fua, 8 * 512));
            assert_eq!(ask(&rw12(0xaa, flags, 7, 1)), (fua, 7 * 512));
            assert_eq!(ask(&rw16(0x8a, flags, 6, 1)), (fua, 6 * 512));
        }
    });
}

fn what_is_beyond_the_end_is_refused_and_named<W: Way>() {
    let backend = image();
    one::<W>(&disk(backend.clone()), |it| {
        for (reads, commands) in [(true, READS), (false, WRITES)] {
            for command in commands {
                let data = fresh(3);
                let data = if reads { Data::In(3 * BLOCK) } else { Data::Out(&data) };
                for (lba, blocks, first) in
                    [(END, 1, END), (END - 2, 3, END), (END + 9, 1, END + 9)]
                {
                    it.fails(&command(lba, blocks), data, out_of_range(first.into()));
                }
            }
            for command in &commands[1..3] {
                it.fails(&command(u32::MAX, 1), Data::In(512), out_of_range(u32::MAX.into()));
            }
        }
        // The sum must not wrap. INFORMATION of 64 bits is not valid in the fixed format.
        let overflow = paraslot_scsi::Sense { information: None, ..out_of_range(0) };
        it.fails(&rw16(0x88, 0, u64::MAX, 2), Data::In(1024), overflow);
        it.fails(&rw16(0x8a, 0, u64::MAX - 1, 2), Data::Out(&fresh(2)), overflow);
        it.fails(&rw16(0x88, 0, 1 << 32, 1), Data::In(512), overflow);
        it.fails(&rw16(0x88, 0, 0, u32::MAX), Data::In(512), out_of_range(END.into()));
        assert!(on(&backend, END as usize - 3, 3) == original(END as usize - 3, 3));
    });
}

fn data_that_does_not_fit_is_an_overrun<W: Way>() {
    let backend = image();
    one::<W>(&disk(backend.clone()), |it| {
        for (read, write) in READS.into_iter().zip(WRITES) {
            assert_eq!(it.end(&read(3, 2), Data::In(2 * BLOCK - 1)), End::Overrun);
            assert_eq!(it.end(&read(3, 2), Data::None), End::Overrun);
            assert_eq!(it.end(&read(3, 2), Data::Out(&fresh(2))), End::Overrun);
            assert_eq!(it.end(&write(3, 2), Data::Out(&fresh(2)[1..])), End::Overrun);
            assert_eq!(it.end(&write(3, 2), Data::None), End::Overrun);
            assert_eq!(it.end(&write(3, 2), Data::In(2 * BLOCK)), End::Overrun);
            assert!(on(&backend, 3, 2) == original(3, 2), "nothing was done");
            // Room that is left over stays as it is, and is said to.
            assert!(it.input(&read(3, 2), 2 * BLOCK + 700) == original(3, 2));
        }
        let ended = it.execute(crate::initiator::HERE, &WRITES[1](3, 2), Data::Out(&fresh(3)));
        assert_eq!((ended.end, ended.moved), (GOOD, 2 * BLOCK));
        assert!(
            on(&backend, 3, 2) == fresh(3)[..2 * BLOCK] && on(&backend, 5, 1) == original(5, 1)
        );
    });
}

fn fields_that_are_not_served_are_pointed_at<W: Way>() {
    one::<W>(&disk(image()), |it| {
        // RDPROTECT and WRPROTECT: there is no protection information.
        for protect in [0x20, 0x80, 0xe0] {
            for (read, write) in [
                (rw10(0x28, protect, 0, 1), rw10(0x2a, protect, 0, 1)),
                (rw12(0xa8, protect, 0, 1), rw12(0xaa, protect, 0, 1)),
                (rw16(0x88, protect, 0, 1), rw16(0x8a, protect, 0, 1)),
            ] {
                it.fails(&read, Data::In(BLOCK), bad_cdb(1, Some(7)));
                it.fails(&write, Data::Out(&fresh(1)), bad_cdb(1, Some(7)));
            }
        }
        // NACA, in the last byte: INQUIRY says that there is none.
        it.fails(&cdb::<6>(0x00, &[(5, 4)]), Data::None, bad_cdb(5, Some(2)));
        it.fails(&cdb::<6>(0x08, &[(4, 1), (5, 4)]), Data::In(BLOCK), bad_cdb(5, Some(2)));
        it.fails(&cdb::<10>(0x28, &[(8, 1), (9, 4)]), Data::In(BLOCK), bad_cdb(9, Some(2)));
        it.fails(&cdb::<12>(0xa8, &[(9, 1), (11, 4)]), Data::In(BLOCK), bad_cdb(11, Some(2)));
        it.fails(&cdb::<16>(0x88, &[(13, 1), (15, 4)]), Data::In(BLOCK), bad_cdb(15, Some(2)));
    });
}

fn what_is_too_long_is_refused<W: Way>() {
    // The most is what the Block Limits page says: 256 MiB.
    let huge = Claims(image(), |info: &mut paraslot_backends::block::BlockInfo| {
        info.capacity = 1 << 45;
    });
    one::<W>(&disk(huge), |it| {
        const MOST: u32 = (256 << 20) / 512;
        it.fails(&rw12(0xa8, 0, 0, MOST + 1), Data::In(BLOCK), bad_cdb(6, None));
        it.fails(&rw12(0xaa, 0, 0, MOST + 1), Data::None, bad_cdb(6, None));
        it.fails(&rw16(0x88, 0, 0, MOST + 1), Data::In(BLOCK), bad_cdb(10, None));
        it.fails(&rw16(0x8a, 0, 0, u32::MAX), Data::None, bad_cdb(10, None));
        it.fails(&rw16(0x8f, 0, 0, u32::MAX), Data::None, bad_cdb(10, None));
        assert_eq!(it.end(&rw16(0x88, 0, 0, MOST), Data::In(BLOCK)), End::Overrun);
    });
}

fn far_blocks_are_reached<W: Way>() {
    // An image of 16 GiB of which next to nothing is there.
    let options = paraslot_backends::block::MemoryOptions::default();
    let backend = paraslot_backends::block::MemoryBackend::new(16 << 30, options).expect("space");
    one::<W>(&disk(backend.clone()), |it| {
        let far: u64 = (16 << 30) / 512 - 2;
        let data = fresh(2);
        it.output(&rw16(0x8a, 0, far, 2), &data);
        assert!(it.input(&rw10(0x28, 0, u32::try_from(far).expect("fits"), 2), 1024) == data);
        let mut there = vec![0; 1024];
        backend.read_at(far * 512, &mut there).expect("inside");
        assert!(there == data);
        it.output(&rw16(0x8a, 0, 0x40_0001, 1), &data[512..]);
        assert!(it.input(&rw16(0x88, 0, 0x40_0001, 1), 512) == data[512..]);
        assert!(it.input(&rw16(0x88, 0, 1, 1), 512) == [0; 512]);
    });
}
