//! MODE SENSE and MODE SELECT.

use super::*;
use crate::sense::SenseFormat;
use crate::unit::modes;

/// MODE SENSE (6) without block descriptors: page control and page, subpage.
fn pages(unit: &Initiator, page: u8, subpage: u8) -> Vec<u8> {
    let data = unit.reply(&[0x1a, 8, page, subpage, 255, 0]);
    assert_eq!(usize::from(data[0]), data.len() - 1);
    assert_eq!((data[1], data[3]), (0, 0));
    data[4..].to_vec()
}

fn select_6(unit: &Initiator, list: &[u8]) -> Plan {
    let len = u8::try_from(list.len()).unwrap();
    unit.send(&[0x15, 0x10, 0, 0, len, 0], list).1
}

/// A header of MODE SELECT (6), and pages.
fn with_header(pages: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0], pages].concat()
}

const CACHING: [u8; 20] = [8, 0x12, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CONTROL: [u8; 12] = [10, 10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
const EXCEPTIONS: [u8; 12] = [0x1c, 10, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn pages_by_code_and_all_together() {
    let disk = disk();
    assert_eq!(pages(&disk, 0x08, 0), CACHING);
    assert_eq!(pages(&disk, 0x0a, 0xff), CONTROL);
    let all = [&CACHING[..], &CONTROL, &EXCEPTIONS].concat();
    assert_eq!(pages(&disk, 0x3f, 0), all);
    assert_eq!(pages(&disk, 0x3f, 0xff), all);
    let codes = |unit: &Initiator| {
        let all = pages(unit, 0x3f, 0);
        let mut rest = &all[..];
        let mut codes = Vec::new();
        while let [code, len, ..] = *rest {
            codes.push(code);
            rest = &rest[2 + usize::from(len)..];
        }
        codes
    };
    assert_eq!(codes(&disk), [0x08, 0x0a, 0x1c]);
    assert_eq!(codes(&drive(None)), [0x01, 0x0a, 0x2a]);
    for page in (0..0x3f).filter(|page| !codes(&disk).contains(page)) {
        assert_eq!(disk.sense(&[0x1a, 0, page, 0, 255, 0]), bad_cdb(2, Some(5)), "{page:x}");
    }
    assert_eq!(disk.sense(&[0x1a, 0, 8, 1, 255, 0]), bad_cdb(3, Some(7)));
    assert_eq!(disk.sense(&[0x1a, 0, 0xc8, 0, 255, 0]), illegal(0x39, 0));
}

#[test]
fn values_current_changeable_default() {
    let disk = disk();
    disk.unit().set_modes(modes::DESCRIPTOR_SENSE);
    assert_eq!(pages(&disk, 0x08, 0)[2], 0);
    assert_eq!(pages(&disk, 0x88, 0), CACHING);
    let mut mask = [0; 20];
    (mask[0], mask[1], mask[2]) = (8, 0x12, 4);
    assert_eq!(pages(&disk, 0x48, 0), mask);
    assert_eq!(pages(&disk, 0x4a, 0), [10, 10, 4, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(pages(&disk, 0x0a, 0)[2], 4);
    assert_eq!(pages(&disk, 0x8a, 0)[2], 0);
    // A disk without a cache has none to be turned on, and a drive nothing to be protected.
    let plain = disk_with(|info| info.volatile_cache = false);
    assert_eq!((pages(&plain, 0x08, 0)[2], pages(&plain, 0x48, 0)[2]), (0, 0));
    assert_eq!(pages(&drive(None), 0x4a, 0)[2..5], [4, 0, 0]);
}

#[test]
fn headers_and_block_descriptors() {
    let disk = disk();
    let data = disk.reply(&[0x1a, 0, 8, 0, 255, 0]);
    assert_eq!(data[..12], [31, 0, 0x10, 8, 0, 0, 0x10, 0, 0, 0, 2, 0]);
    assert_eq!(data.len(), 32);
    assert_eq!(disk.reply(&[0x1a, 0, 8, 0, 2, 0]), [31, 0]);
    assert_eq!(disk.reply(&[0x1a, 0, 8, 0, 0, 0]), [0u8; 0]);
    let sense_10 = |flags, allocation| [0x5a, flags, 8, 0, 0, 0, 0, 0, allocation, 0];
    let data = disk.reply(&sense_10(0, 255));
    assert_eq!(data[..16], [0, 34, 0, 0x10, 0, 0, 0, 8, 0, 0, 0x10, 0, 0, 0, 2, 0]);
    assert_eq!(disk.reply(&sense_10(8, 255))[..8], [0, 26, 0, 0x10, 0, 0, 0, 0]);
    assert_eq!(disk.reply(&sense_10(0, 0)), [0u8; 0]);
    let large = disk_with(|info| info.capacity = 1 << 42);
    assert_eq!(large.reply(&sense_10(0, 255))[8..12], [0xff; 4]);
    let data = large.reply(&sense_10(0x10, 255));
    assert_eq!(data[..8], [0, 42, 0, 0x10, 1, 0, 0, 16]);
    assert_eq!(data[8..24], [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    let protected = disk_with(|info| info.read_only = true);
    assert_eq!(protected.reply(&[0x1a, 0, 8, 0, 255, 0])[2], 0x90);
    assert_eq!(
        drive(Some(9)).reply(&[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 8, 0]),
        [0, 34, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn the_write_cache_is_turned_off_and_on() {
    let disk = disk();
    let other = Initiator::ready(disk.unit(), "two");
    let mut page = CACHING;
    page[2] = 0;
    let (taken, plan) = disk.send(&[0x15, 0x10, 0, 0, 24, 0], &with_header(&page));
    assert_eq!(taken, 24);
    assert!(matches!(plan, Plan::Flush));
    assert!(matches!(disk.run(&ten(0x2a, 0, 0, 1)), Plan::Write { fua: true, .. }));
    assert_eq!((disk.attention(), other.attention()), (None, Some((0x2a, 0x01))));
    // The same again changes nothing.
    assert!(is_status(&select_6(&disk, &with_header(&page)), Status::Good));
    assert_eq!(other.attention(), None);
    // MODE SELECT (10), with PS as MODE SENSE would have it.
    let list = [&[0; 8][..], &[0x88], &CACHING[1..]].concat();
    let (taken, plan) = disk.send(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 28, 0], &list);
    assert!(taken == 28 && is_status(&plan, Status::Good));
    assert!(disk.unit().mode(modes::WRITE_CACHE));
    assert_eq!(other.attention(), Some((0x2a, 0x01)));
}

#[test]
fn sense_data_and_protection_are_chosen() {
    let disk = disk();
    assert_eq!(disk.unit().sense_format(), SenseFormat::Fixed);
    let mut page = CONTROL;
    (page[2], page[4]) = (4, 8);
    assert!(is_status(&select_6(&disk, &with_header(&page)), Status::Good));
    assert_eq!(disk.unit().sense_format(), SenseFormat::Descriptor);
    assert_eq!(disk.sense(&ten(0x2a, 0, 0, 1)), Sense::new(7, (0x27, 2)));
    assert_eq!(pages(&disk, 0x0a, 0), page);
    // A drive has nothing to protect.
    let refused = sense(select_6(&drive(None), &with_header(&page)));
    assert_eq!(refused, bad_parameter(4 + 4, Some(3)));
}

// CVE-2021-3930: page 3Fh means all pages to MODE SENSE, and none to MODE SELECT.
#[test]
fn pages_that_are_not_there_are_refused() {
    let disk = disk();
    for code in (0..=0x3f).filter(|code| ![0x08, 0x0a, 0x1c].contains(code)) {
        for len in [0, 10, 18] {
            let page = vec![0; 2 + usize::from(len)];
            let mut list = with_header(&page);
            (list[4], list[5]) = (code, len);
            let expected = bad_parameter(4, Some(5));
            assert_eq!(sense(select_6(&disk, &list)), expected, "{code:x}");
        }
    }
    let mut sub = with_header(&CACHING);
    sub[4] = 0x48;
    assert_eq!(sense(select_6(&disk, &sub)), bad_parameter(4, Some(6)));
}

// CVE-2023-42467: a block size of 256, or of any other than there is.
#[test]
fn blocks_keep_their_size_and_number() {
    let disk = disk();
    let list = |blocks: [u8; 4], block: [u8; 3]| {
        [&[0, 0, 0, 8][..], &blocks, &[0], &block, &CACHING].concat()
    };
    for blocks in [[0; 4], [0, 0, 0x10, 0], [0xff; 4]] {
        assert!(is_status(&select_6(&disk, &list(blocks, [0, 2, 0])), Status::Good));
    }
    for block in [[0, 1, 0], [0, 0, 0], [0, 16, 0], [0xff, 0xff, 0xff]] {
        let refused = sense(select_6(&disk, &list([0; 4], block)));
        assert_eq!(refused, bad_parameter(4 + 5, None), "{block:x?}");
    }
    let refused = sense(select_6(&disk, &list([0, 0, 0, 1], [0, 2, 0])));
    assert_eq!(refused, bad_parameter(4, None));
    // The long one.
    let long = |block: u32| {
        let mut list = vec![0, 0, 0, 0, 1, 0, 0, 16];
        list.extend(BLOCKS.to_be_bytes());
        list.extend([0; 4]);
        list.extend(block.to_be_bytes());
        disk.send(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 24, 0], &list).1
    };
    assert!(is_status(&long(512), Status::Good));
    assert_eq!(sense(long(256)), bad_parameter(8 + 12, None));
}

#[test]
fn every_length_is_checked() {
    let disk = disk();
    let whole = [&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0][..], &CACHING, &CONTROL].concat();
    // Where a list may end: after the descriptor, and after each page.
    for len in 1..=whole.len() {
        let plan = select_6(&disk, &whole[..len]);
        if [12, 32, 44].contains(&len) {
            assert!(is_status(&plan, Status::Good), "{len}");
        } else {
            assert_eq!(sense(plan), illegal(0x1a, 0), "{len}");
        }
    }
    disk.good(&[0x15, 0x10, 0, 0, 0, 0]);
    // A page, or descriptors, of another length.
    let mut list = with_header(&CACHING);
    list[5] = 0x13;
    assert_eq!(sense(select_6(&disk, &list)), bad_parameter(5, None));
    for len in [1, 7, 9, 16, 255] {
        assert_eq!(sense(select_6(&disk, &[0, 0, 0, len])), bad_parameter(3, None));
    }
    let ten = |list: &[u8; 8]| disk.send(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 8, 0], list).1;
    assert_eq!(sense(ten(&[0, 0, 0, 0, 0, 0, 0xff, 0xff])), bad_parameter(6, None));
    assert_eq!(sense(ten(&[0, 0, 0, 0, 1, 0, 0, 8])), bad_parameter(6, None));
    // More is said than there is memory for.
    assert!(matches!(disk.send(&[0x15, 0x10, 0, 0, 25, 0], &[0; 24]), (0, Plan::Overrun)));
    assert!(matches!(disk.run(&[0x15, 0x10, 0, 0, 25, 0]), Plan::Overrun));
}

#[test]
fn one_bad_field_and_nothing_changes() {
    let disk = disk();
    let before = disk.unit().modes();
    let mut control = CONTROL;
    control[3] = 0;
    let mut caching = CACHING;
    caching[2] = 0;
    let list = with_header(&[&caching[..], &control].concat());
    assert_eq!(sense(select_6(&disk, &list)), bad_parameter(4 + 20 + 3, Some(4)));
    assert_eq!(disk.unit().modes(), before);
    // Byte and bit, of any field that cannot be changed.
    for at in 2..CACHING.len() {
        for bit in (0..8).filter(|&bit| (at, bit) != (2, 2)) {
            let mut page = CACHING;
            page[at] ^= 1 << bit;
            let place = u8::try_from(4 + at).unwrap();
            assert_eq!(
                sense(select_6(&disk, &with_header(&page))),
                bad_parameter(place, Some(bit))
            );
        }
    }
    let refused = sense(select_6(&disk, &[0, 1, 0, 0]));
    assert_eq!(refused, bad_parameter(1, Some(7)));
    assert_eq!(disk.sense(&[0x15, 0x11, 0, 0, 4, 0]), bad_cdb(1, Some(0)));
    assert_eq!(disk.sense(&[0x15, 0x00, 0, 0, 4, 0]), bad_cdb(1, Some(4)));
    let plain = disk_with(|info| info.volatile_cache = false);
    let refused = sense(select_6(&plain, &with_header(&CACHING)));
    assert_eq!(refused, bad_parameter(4 + 2, Some(2)));
}
