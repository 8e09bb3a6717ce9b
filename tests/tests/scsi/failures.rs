//! Disks that are stopped, cannot be written, or whose backend fails.

use std::io;
use std::sync::{Arc, Mutex};

use paraslot_backends::block::testing::FaultBackend;
use paraslot_backends::block::{BlockError, BlockOp, MemoryOptions};
use paraslot_scsi::{DiskOptions, LogicalUnit, Sense};

use crate::cdb::{READY, inquiry, read, rw6, rw10, rw12, rw16, write};
use crate::initiator::{Data, End, GOOD, Initiator, UNKNOWN, at, bad_cdb, sense};
use crate::ways::{Way, on_every_way, one, two};
use crate::world::{BLOCK, disk, fresh, image, image_of, on, original};

on_every_way! {
    a_stopped_disk_is_not_ready,
    power_conditions_come_and_go,
    a_read_only_disk_refuses_writes,
    a_read_that_fails_is_a_medium_error,
    a_write_that_fails_says_why,
    a_flush_that_fails_is_not_forgotten,
    each_part_of_a_command_can_fail,
}

/// START STOP UNIT with this byte 4.
fn start_stop(operation: u8) -> [u8; 6] {
    [0x1b, 0, 0, 0, operation, 0]
}

/// INITIALIZING COMMAND REQUIRED, but for what needs no medium.
fn refuses(it: &mut dyn Initiator) {
    let stopped = sense(2, 4, 2);
    for cdb in [&READY[..], &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &rw10(0x35, 0, 0, 0)] {
        it.fails(cdb, Data::In(8), stopped);
    }
    it.fails(&read(0, 1), Data::In(BLOCK), stopped);
    it.fails(&write(0, 1), Data::Out(&fresh(1)), stopped);
    assert_eq!(it.input(&inquiry(None, 36), 36).len(), 36);
    assert_eq!(it.end(&[0x1a, 0, 8, 0, 64, 0], Data::In(64)), GOOD);
}

fn a_stopped_disk_is_not_ready<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        for stop in [0, 4] {
            one.good(&start_stop(stop));
            refuses(one);
            refuses(other);
            other.good(&start_stop(1));
            one.good(&READY);
            assert!(one.input(&read(0, 1), BLOCK) == original(0, 1));
        }
        // There is nothing to be loaded or ejected.
        for eject in [2, 3] {
            one.fails(&start_stop(eject), Data::None, bad_cdb(4, Some(1)));
        }
    });
}

fn power_conditions_come_and_go<W: Way>() {
    one::<W>(&disk(image()), |it| {
        for condition in [1, 2, 3] {
            it.good(&start_stop(0));
            it.good(&start_stop(condition << 4));
            it.good(&READY);
        }
        for condition in [7, 0xa, 0xb] {
            it.good(&start_stop(condition << 4));
        }
        for condition in [4, 5, 6, 8, 9, 0xf] {
            it.fails(&start_stop(condition << 4), Data::None, bad_cdb(4, Some(7)));
        }
    });
}

fn a_read_only_disk_refuses_writes<W: Way>() {
    let backend = image();
    let mut options = DiskOptions::new(Arc::new(backend.clone()));
    options.read_only = true;
    let by_options = LogicalUnit::disk(options).expect("a disk");
    let by_image = disk(image_of(MemoryOptions { read_only: true, ..MemoryOptions::default() }));
    for unit in [by_options, by_image] {
        one::<W>(&unit, |it| {
            let (protected, data) = (sense(7, 0x27, 0), fresh(2));
            for cdb in [
                rw6(0x0a, 0, 1),
                rw10(0x2a, 0, 0, 1),
                rw12(0xaa, 0, 0, 1),
                rw16(0x8a, 0, 0, 1),
                rw10(0x2e, 0, 0, 1),
                rw12(0xae, 0, 0, 1),
                rw16(0x8e, 0, 0, 1),
                rw16(0x89, 0, 0, 1),
                rw10(0x41, 0, 0, 1),
                rw16(0x93, 0, 0, 1),
                rw10(0x42, 0, 0, 8),
                // Whatever it would come to.
                rw10(0x2a, 0, 0, 0),
                rw10(0x2a, 0, u32::MAX, 1),
            ] {
                it.fails(&cdb, Data::Out(&data), protected);
            }
            assert!(it.input(&read(0, 2), 2 * BLOCK) == original(0, 2));
            it.output(&rw10(0x2f, 2, 0, 2), original(0, 2));
            it.good(&rw10(0x35, 0, 0, 0));
            it.good(&READY);
        });
    }
    assert!(on(&backend, 0, 2) == original(0, 2));
}

/// What an operation at this offset is to fail with.
type Fault = fn(BlockOp, u64) -> Option<BlockError>;
type Choose = Arc<Mutex<Option<Fault>>>;

/// A disk whose operations fail as the handle says.
fn failing() -> (Arc<LogicalUnit>, Choose) {
    let choose = Choose::default();
    let chosen = choose.clone();
    let backend = FaultBackend::new(image(), move |_, request| {
        let choose = *chosen.lock().expect("not poisoned");
        choose.and_then(|choose| choose(request.op, request.offset))
    });
    (disk(backend), choose)
}

fn set(choose: &Choose, how: Fault) {
    *choose.lock().expect("not poisoned") = Some(how);
}

fn error(code: i32) -> BlockError {
    io::Error::from_raw_os_error(code).into()
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// UNRECOVERED READ ERROR and WRITE ERROR at this block.
const fn read_error(lba: u64) -> Sense {
    at(sense(3, 0x11, 0), lba)
}

const fn write_error(lba: u64) -> Sense {
    at(sense(3, 0x0c, 0), lba)
}

fn a_read_that_fails_is_a_medium_error<W: Way>() {
    let (unit, choose) = failing();
    one::<W>(&unit, |it| {
        set(&choose, |op, offset| (op == BlockOp::Read && offset == 40 * 512).then(|| error(EIO)));
        for cdb in [rw6(0x08, 40, 4), read(40, 4), rw12(0xa8, 0, 40, 4), rw16(0x88, 0, 40, 4)] {
            it.fails(&cdb, Data::In(4 * BLOCK), read_error(40));
            assert!(it.input(&read(41, 4), 4 * BLOCK) == original(41, 4), "the disk goes on");
        }
        for verify in [rw10(0x2f, 0, 40, 1), rw16(0x8f, 0, 40, 1)] {
            it.fails(&verify, Data::None, read_error(40));
        }
        it.fails(&rw10(0x2f, 2, 40, 1), Data::Out(original(40, 1)), read_error(40));
    });
}

fn a_write_that_fails_says_why<W: Way>() {
    let (unit, choose) = failing();
    one::<W>(&unit, |it| {
        let cases: [(Fault, Sense); 3] = [
            (|_, _| Some(error(EIO)), write_error(9)),
            // SPACE ALLOCATION FAILED WRITE PROTECT.
            (|_, _| Some(error(ENOSPC)), at(sense(7, 0x27, 7), 9)),
            // An image that has become read-only.
            (|_, _| Some(BlockError::ReadOnly), at(sense(7, 0x27, 0), 9)),
        ];
        for (how, sense) in cases {
            set(&choose, how);
            for cdb in [rw6(0x0a, 9, 1), write(9, 1), rw12(0xaa, 0, 9, 1), rw16(0x8a, 8, 9, 1)] {
                it.fails(&cdb, Data::Out(&fresh(1)), sense);
            }
            it.fails(&rw10(0x2e, 0, 9, 1), Data::Out(&fresh(1)), sense);
        }
        set(&choose, |_, _| None);
        it.output(&write(9, 1), &fresh(1));
    });
}

fn a_flush_that_fails_is_not_forgotten<W: Way>() {
    let (unit, choose) = failing();
    one::<W>(&unit, |it| {
        set(&choose, |op, _| (op == BlockOp::Flush).then(|| error(EIO)));
        let failed = sense(3, 0x0c, 0);
        it.fails(&rw10(0x35, 0, 0, 0), Data::None, failed);
        set(&choose, |_, _| None);
        // The backend fails all later ones, and so does the disk.
        it.fails(&rw16(0x91, 0, 0, 0), Data::None, failed);
        it.fails(&start_stop(0), Data::None, failed);
    });
}

fn each_part_of_a_command_can_fail<W: Way>() {
    let (unit, choose) = failing();
    one::<W>(&unit, |it| {
        let pair = [original(8, 1), &fresh(1)].concat();
        let swap = rw16(0x89, 0, 8, 1);
        set(&choose, |op, _| (op == BlockOp::Read).then(|| error(EIO)));
        it.fails(&swap, Data::Out(&pair), read_error(8));
        it.fails(&rw10(0x2e, 0, 8, 1), Data::Out(original(8, 1)), read_error(8));
        set(&choose, |op, _| (op != BlockOp::Read).then(|| error(ENOSPC)));
        it.fails(&swap, Data::Out(&pair), at(sense(7, 0x27, 7), 8));
        // Of these, nobody knows which block it was.
        it.fails(&rw10(0x41, 0, 8, 4), Data::Out(&fresh(1)), sense(7, 0x27, 7));
        let list =
            [&[0, 22, 0, 16, 0, 0, 0, 0][..], &[0; 7], &[8, 0, 0, 0, 1, 0, 0, 0, 0]].concat();
        it.fails(&rw10(0x42, 0, 0, 24), Data::Out(&list), sense(7, 0x27, 7));
        // The second half of a long VERIFY.
        set(&choose, |op, offset| (op == BlockOp::Read && offset != 0).then(|| error(EIO)));
        let end = it.end(&rw10(0x2f, 0, 0, 4096), Data::None);
        let End::Check(Sense { key: 3, asc: 0x11, ascq: 0, information: Some(lba), .. }) = end
        else {
            panic!("{end:?}");
        };
        assert!((1..4096).contains(&lba));
        // A file system below that cannot deallocate. Zeroes can be written all the same.
        set(&choose, |op, _| match op {
            BlockOp::Read | BlockOp::Write { .. } | BlockOp::Flush => None,
            _ => Some(BlockError::Unsupported),
        });
        it.fails(&rw10(0x42, 0, 0, 24), Data::Out(&list), UNKNOWN);
        set(&choose, |_, _| None);
        it.output(&swap, &pair);
        assert!(it.input(&read(8, 1), BLOCK) == fresh(1));
    });
}
