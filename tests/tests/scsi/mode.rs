//! MODE SENSE and MODE SELECT of 6 and 10 bytes, and what the modes do (SPC-4, 7.5).

use paraslot_backends::block::testing::{Event, RecordingBackend};
use paraslot_backends::block::{BlockInfo, BlockOp};
use paraslot_scsi::{DiskOptions, LogicalUnit};

use crate::cdb::{READY, cdb, read, request_sense, rw10, rw16, write};
use crate::initiator::{
    Data, End, GOOD, Initiator, LIST_LENGTH, bad_cdb, bad_parameter, illegal, out_of_range, sense,
};
use crate::ways::{Way, on_every_way, one, two};
use crate::world::{BLOCK, Claims, disk, drive, fresh, image, on, original};

on_every_way! {
    pages_have_their_values,
    headers_and_block_descriptors,
    what_is_not_there_is_refused,
    select_changes_what_can_be_changed,
    select_takes_all_or_nothing,
    without_a_write_cache_writes_are_durable,
    descriptor_sense_carries_long_addresses,
    software_protection_refuses_writes,
    others_hear_of_changes,
    a_drive_has_its_pages,
}

/// MODE SENSE (6) of a page's values (0 current, 1 changeable, 2 default), without block descriptors.
fn sense_6(page: u8, values: u8) -> [u8; 6] {
    [0x1a, 0x08, values << 6 | page, 0, 255, 0]
}

/// MODE SELECT (6) and (10) with a list of this length.
fn select_6(len: usize) -> [u8; 6] {
    [0x15, 0x10, 0, 0, u8::try_from(len).expect("short"), 0]
}

fn select_10(len: usize) -> [u8; 10] {
    cdb(0x55, &[(1, 0x10), (8, u8::try_from(len).expect("short"))])
}

const CACHING: [u8; 20] = [8, 18, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CONTROL: [u8; 12] = [10, 10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
const EXCEPTIONS: [u8; 12] = [0x1c, 10, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn caching(wce: bool) -> [u8; 20] {
    let mut page = CACHING;
    page[2] = if wce { 4 } else { 0 };
    page
}

/// The control mode page with D_SENSE, SWP.
fn control(d_sense: bool, swp: bool) -> [u8; 12] {
    let mut page = CONTROL;
    (page[2], page[4]) = (u8::from(d_sense) << 2, u8::from(swp) << 3);
    page
}

/// A list for MODE SELECT (6), (10).
fn list_6(pages: &[u8]) -> Vec<u8> {
    [&[0; 4], pages].concat()
}

fn list_10(pages: &[u8]) -> Vec<u8> {
    [&[0; 8], pages].concat()
}

/// Sets a page by MODE SELECT (6).
#[track_caller]
fn set(it: &mut dyn Initiator, page: &[u8]) {
    let list = list_6(page);
    it.output(&select_6(list.len()), &list);
}

fn pages_have_their_values<W: Way>() {
    one::<W>(&disk(image()), |it| {
        for values in [0, 2] {
            for page in [&CACHING[..], &CONTROL, &EXCEPTIONS] {
                let data = it.input(&sense_6(page[0], values), 255);
                // The length of what follows; DPOFUA; no block descriptor.
                assert_eq!(data[..4], [page[1] + 5, 0, 0x10, 0]);
                assert_eq!(data[4..], *page);
            }
            let all = it.input(&sense_6(0x3f, values), 255);
            assert_eq!(all[4..], [&CACHING[..], &CONTROL, &EXCEPTIONS].concat());
        }
        assert_eq!(it.input(&sense_6(8, 1), 255)[4..], CACHING);
        assert_eq!(it.input(&sense_6(10, 1), 255)[4..], [10, 10, 4, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(it.input(&sense_6(0x1c, 1), 255)[4..], [28, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    });
    // Without a volatile cache there is none to be turned off.
    let durable = Claims(image(), |info: &mut BlockInfo| info.volatile_cache = false);
    one::<W>(&disk(durable), |it| {
        for values in [0, 1, 2] {
            assert_eq!(it.input(&sense_6(8, values), 255)[4..], caching(false));
        }
    });
}

fn headers_and_block_descriptors<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let descriptor = [0, 0, 0x10, 0, 0, 0, 2, 0];
        let data = it.input(&[0x1a, 0, 8, 0, 255, 0], 255);
        assert_eq!(data, [&[31, 0, 0x10, 8][..], &descriptor, &CACHING].concat());
        let data = it.input(&cdb::<10>(0x5a, &[(2, 8), (8, 255)]), 255);
        assert_eq!(data, [&[0, 34, 0, 0x10, 0, 0, 0, 8][..], &descriptor, &CACHING].concat());
        let data = it.input(&cdb::<10>(0x5a, &[(1, 8), (2, 8), (8, 255)]), 255);
        assert_eq!(data, [&[0, 26, 0, 0x10, 0, 0, 0, 0][..], &CACHING].concat());
        // Cut, with the length as it is.
        assert_eq!(it.input(&[0x1a, 0, 8, 0, 4, 0], 255), [31, 0, 0x10, 8]);
        it.good(&[0x1a, 0, 8, 0, 0, 0]);
        // With LLBAA a disk that is short has no long descriptor.
        assert_eq!(it.input(&cdb::<10>(0x5a, &[(1, 0x10), (2, 8), (8, 8)]), 8)[4..], [0, 0, 0, 8]);
    });
    let huge = Claims(image(), |info: &mut BlockInfo| info.capacity = 3 << 41);
    one::<W>(&disk(huge), |it| {
        let data = it.input(&cdb::<10>(0x5a, &[(1, 0x10), (2, 8), (8, 24)]), 24);
        assert_eq!(data[4..8], [1, 0, 0, 16]);
        assert_eq!(data[8..24], [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        let data = it.input(&[0x1a, 0, 8, 0, 12, 0], 12);
        assert_eq!(data[4..], [255, 255, 255, 255, 0, 0, 2, 0]);
    });
    let mut options = DiskOptions::new(std::sync::Arc::new(image()));
    options.read_only = true;
    one::<W>(&LogicalUnit::disk(options).expect("a disk"), |it| {
        assert_eq!(it.input(&sense_6(8, 0), 255)[2], 0x90, "WP");
    });
}

fn what_is_not_there_is_refused<W: Way>() {
    one::<W>(&disk(image()), |it| {
        // SAVING PARAMETERS NOT SUPPORTED.
        it.fails(&sense_6(8, 3), Data::In(255), illegal(0x39, 0));
        for page in [0, 1, 2, 4, 5, 0x19, 0x1a, 0x2a, 0x3e] {
            it.fails(&sense_6(page, 0), Data::In(255), bad_cdb(2, Some(5)));
        }
        it.fails(&[0x1a, 8, 8, 1, 255, 0], Data::In(255), bad_cdb(3, Some(7)));
        // All pages and subpages: there are no subpages.
        let all = it.input(&[0x1a, 8, 0x3f, 0xff, 255, 0], 255);
        assert_eq!(all, it.input(&sense_6(0x3f, 0), 255));
        // MODE SELECT without PF, and of what is to be saved.
        it.fails(&[0x15, 0, 0, 0, 16, 0], Data::Out(&list_6(&CONTROL)), bad_cdb(1, Some(4)));
        it.fails(&[0x15, 0x11, 0, 0, 16, 0], Data::Out(&list_6(&CONTROL)), bad_cdb(1, Some(0)));
        it.fails(&cdb::<10>(0x55, &[(1, 1), (8, 20)]), Data::None, bad_cdb(1, Some(4)));
        it.good(&select_6(0));
        it.good(&select_10(0));
    });
}

fn select_changes_what_can_be_changed<W: Way>() {
    one::<W>(&disk(image()), |it| {
        for wce in [false, true] {
            set(it, &caching(wce));
            assert_eq!(it.input(&sense_6(8, 0), 255)[4..], caching(wce));
            assert_eq!(it.input(&sense_6(8, 2), 255)[4..], caching(true), "the default stays");
        }
        let list = list_10(&[&caching(false)[..], &control(true, true)].concat());
        it.output(&select_10(list.len()), &list);
        assert_eq!(it.input(&sense_6(8, 0), 255)[4..], caching(false));
        assert_eq!(it.input(&sense_6(10, 0), 255)[4..], control(true, true));
        // Its own changes are no news to who makes them.
        assert_eq!(it.attentions(), []);
        // What MODE SENSE has said, block descriptor and PS bit included, is taken back.
        let mut back = it.input(&[0x1a, 0, 0x3f, 0, 255, 0], 255);
        back[0] = 0;
        back[2] = 0;
        it.output(&select_6(back.len()), &back);
        let reserved = [&list_6(&[])[..], &[0x8a], &control(false, false)[1..]].concat();
        it.output(&select_6(reserved.len()), &reserved);
        assert_eq!(it.input(&sense_6(10, 0), 255)[4..], CONTROL);
    });
}

fn select_takes_all_or_nothing<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let mut refuse = |list: &[u8], sense| {
            let changes = list_6(&caching(false));
            let list = [&changes[..], list].concat();
            it.fails(&select_6(list.len()), Data::Out(&list), sense);
            assert_eq!(it.input(&sense_6(8, 0), 255)[4..], CACHING);
        };
        // CVE-2021-3930: page 3fh is none. Behind the caching page, which starts at byte 4.
        for page in [0x3f, 0x3e, 0x00, 0x01, 0x2a] {
            refuse(&[page, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], bad_parameter(24, Some(5)));
        }
        refuse(&[0x4a, 1, 0, 0], bad_parameter(24, Some(6)));
        refuse(&[10, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0], bad_parameter(25, None));
        refuse(&[10, 0xff], bad_parameter(25, None));
        refuse(&[10], LIST_LENGTH);
        refuse(&CONTROL[..11], LIST_LENGTH);
        for (byte, bit) in [(2, 5), (2, 0), (3, 1), (3, 4), (4, 0), (5, 6), (8, 7), (11, 0)] {
            let mut page = CONTROL;
            page[usize::from(byte)] ^= 1 << bit;
            refuse(&page, bad_parameter(24 + byte, Some(bit)));
        }
        let mut page = EXCEPTIONS;
        page[2] = 0;
        refuse(&page, bad_parameter(26, Some(3)));
        // The header and the block descriptor.
        for (list, sense) in [
            (vec![0; 3], LIST_LENGTH),
            (vec![0, 1, 0, 0], bad_parameter(1, Some(7))),
            (vec![0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], bad_parameter(3, None)),
            (vec![0, 0, 0, 8, 0, 0, 0], LIST_LENGTH),
            (vec![0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 2, 0], bad_parameter(4, None)),
            // CVE-2023-42467: blocks of 256 bytes, or of none.
            (vec![0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0], bad_parameter(9, None)),
            (vec![0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0], bad_parameter(9, None)),
        ] {
            it.fails(&select_6(list.len()), Data::Out(&list), sense);
        }
        for (list, sense) in [
            (vec![0; 7], LIST_LENGTH),
            (vec![0, 0, 5, 0, 0, 0, 0, 0], bad_parameter(2, Some(7))),
            (vec![0, 0, 0, 0, 0, 0, 0xff, 0xff], bad_parameter(6, None)),
            (vec![0, 0, 0, 0, 1, 0, 0, 8], bad_parameter(6, None)),
        ] {
            it.fails(&select_10(list.len()), Data::Out(&list), sense);
        }
        assert_eq!(it.end(&select_6(24), Data::Out(&[0; 23])), End::Overrun);
        it.output(&select_6(12), &[0, 0, 0, 8, 0, 0, 0x10, 0, 0, 0, 2, 0]);
        it.output(&select_6(12), &[0, 0, 0, 8, 255, 255, 255, 255, 0, 0, 2, 0]);
    });
}

fn without_a_write_cache_writes_are_durable<W: Way>() {
    let recording = RecordingBackend::new(image());
    let log = recording.log();
    one::<W>(&disk(recording), |it| {
        let done = || {
            let submitted = log.events().into_iter().filter_map(|event| match event {
                Event::Submitted { op, .. } => Some(op),
                Event::Completed { .. } => None,
            });
            submitted.collect::<Vec<_>>()
        };
        it.output(&write(0, 1), &fresh(1));
        set(it, &caching(false));
        // What was in the cache is made durable when it is turned off.
        assert_eq!(done(), [BlockOp::Write { fua: false }, BlockOp::Flush]);
        it.output(&write(0, 1), &fresh(1));
        it.output(&rw16(0x8a, 0, 0, 1), &fresh(1));
        it.output(&[0x0a, 0, 0, 0, 1, 0], &fresh(1));
        it.output(&rw16(0x89, 0, 0, 1), &[fresh(1), fresh(1)].concat());
        let durable = BlockOp::Write { fua: true };
        assert_eq!(done()[2..], [durable, durable, durable, BlockOp::Read, durable]);
        it.output(&rw10(0x41, 0, 8, 4), &fresh(1));
        assert_eq!(done().last(), Some(&BlockOp::Flush), "as good as durable");
        let before = done().len();
        set(it, &caching(true));
        it.output(&write(0, 1), &fresh(1));
        assert_eq!(done()[before..], [BlockOp::Write { fua: false }]);
    });
}

fn descriptor_sense_carries_long_addresses<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let far = rw16(0x88, 0, 0x1234_5678_9abc, 1);
        let short = paraslot_scsi::Sense { information: None, ..out_of_range(0) };
        it.fails(&far, Data::In(BLOCK), short);
        set(it, &control(true, false));
        it.fails(&far, Data::In(BLOCK), out_of_range(0x1234_5678_9abc));
        it.fails(&rw10(0x28, 0x20, 0, 1), Data::In(BLOCK), bad_cdb(1, Some(7)));
        // REQUEST SENSE goes by its own bit.
        assert_eq!(it.input(&request_sense(false, 252), 252)[0], 0x70);
        assert_eq!(it.input(&request_sense(true, 252), 252), [0x72, 0, 0, 0, 0, 0, 0, 0]);
    });
}

fn software_protection_refuses_writes<W: Way>() {
    let backend = image();
    one::<W>(&disk(backend.clone()), |it| {
        set(it, &control(false, true));
        assert_eq!(it.input(&sense_6(8, 0), 255)[2], 0x90, "WP");
        let protected = sense(7, 0x27, 2);
        it.fails(&write(0, 1), Data::Out(&fresh(1)), protected);
        it.fails(&rw10(0x41, 0, 0, 1), Data::Out(&fresh(1)), protected);
        it.fails(&rw10(0x42, 0, 0, 8), Data::Out(&[0, 6, 0, 0, 0, 0, 0, 0]), protected);
        it.good(&READY);
        assert!(it.input(&read(0, 1), BLOCK) == original(0, 1));
        set(it, &control(false, false));
        it.output(&write(0, 1), &fresh(1));
        assert!(on(&backend, 0, 1) == fresh(1));
    });
}

fn others_hear_of_changes<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        set(one, &caching(false));
        assert_eq!((one.attentions(), other.attentions()), (vec![], vec![(0x2a, 1)]));
        // They share one set of parameters.
        assert_eq!(other.input(&sense_6(8, 0), 255)[4..], caching(false));
        // What changes nothing is no news.
        set(one, &caching(false));
        assert_eq!(other.attentions(), []);
        set(other, &caching(true));
        assert_eq!((one.attentions(), other.attentions()), (vec![(0x2a, 1)], vec![]));
    });
}

fn a_drive_has_its_pages<W: Way>() {
    one::<W>(&drive(None), |it| {
        let recovery = [&[1, 10][..], &[0; 10]].concat();
        assert_eq!(it.input(&sense_6(1, 0), 255), [&[15, 0, 0, 0][..], &recovery].concat());
        let mut mechanism = vec![0; 28];
        mechanism[..3].copy_from_slice(&[0x2a, 26, 0x1b]);
        mechanism[6] = 0x29; // a tray that is ejected and locked
        mechanism[8..10].copy_from_slice(&[0x21, 0]);
        mechanism[14..16].copy_from_slice(&[0x21, 0]);
        assert_eq!(it.input(&sense_6(0x2a, 0), 255)[4..], mechanism);
        assert_eq!(it.end(&[0x1e, 0, 0, 0, 1, 0], Data::None), GOOD);
        assert_eq!(it.input(&sense_6(0x2a, 0), 255)[10], 0x2b, "locked");
        it.fails(&sense_6(8, 0), Data::In(255), bad_cdb(2, Some(5)));
        set(it, &control(true, false));
        let list = list_6(&control(true, true));
        it.fails(&select_6(16), Data::Out(&list), bad_parameter(8, Some(3)));
        let list = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 8, 0];
        it.fails(&select_6(12), Data::Out(&list), bad_parameter(3, None));
    });
}
