//! INQUIRY with all pages of vital product data, and READ CAPACITY (SPC-4, INQUIRY command and 7.8;
//! SBC-3, READ CAPACITY commands and VPD parameters).

use std::sync::Arc;

use paraslot_backends::block::{BlockInfo, MemoryOptions};
use paraslot_scsi::{DiskOptions, LogicalUnit};

use crate::cdb::{cdb, inquiry};
use crate::initiator::{Data, End, bad_cdb};
use crate::ways::{Way, on_every_way, one};
use crate::world::{BLOCKS, Claims, disk, drive, image, image_of};

on_every_way! {
    the_standard_data_says_what_it_is,
    data_is_cut_to_the_allocation_length,
    the_list_of_pages_is_that_of_the_pages,
    the_unit_is_named,
    the_extended_page_says_what_there_is,
    limits_are_those_that_hold,
    characteristics_and_provisioning,
    capacity_in_both_sizes,
    capacities_beyond_32_bits,
    read_capacity_10_looks_at_no_address,
}

/// The page with this code, without its header, which is checked.
#[track_caller]
fn page(it: &mut dyn crate::initiator::Initiator, code: u8) -> Vec<u8> {
    let page = it.input(&inquiry(Some(code), 1000), 1000);
    let len = u16::try_from(page.len() - 4).expect("short").to_be_bytes();
    assert_eq!(page[..4], [0, code, len[0], len[1]]);
    page[4..].to_vec()
}

fn the_standard_data_says_what_it_is<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let data = it.input(&inquiry(None, 255), 255);
        assert_eq!(data.len(), 96);
        // A disk, connected; not removable; SPC-4; HISUP, format 2; 91 bytes more; CMDQUE.
        assert_eq!(data[..8], [0, 0, 6, 0x12, 91, 0, 0, 0x02]);
        assert_eq!(&data[8..36], b"PARASLOTDISK            1   ");
        assert_eq!(data[36..58], [0; 22]);
        // SAM-5, SPC-4, SBC-3.
        assert_eq!(data[58..64], [0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0]);
        assert_eq!(data[64..], [0; 32]);
        it.fails(&[0x12, 0, 0x80, 0, 96, 0], Data::In(96), bad_cdb(2, Some(7)));
    });
    one::<W>(&drive(None), |it| {
        let data = it.input(&inquiry(None, 36), 36);
        assert_eq!(data[..8], [5, 0x80, 6, 0x12, 91, 0, 0, 0x02]);
        assert_eq!(&data[8..36], b"PARASLOTCD-ROM          1   ");
    });
}

fn data_is_cut_to_the_allocation_length<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let whole = it.input(&inquiry(None, 96), 96);
        for len in [1, 5, 36, 95] {
            assert_eq!(it.input(&inquiry(None, len), 96), whole[..len.into()]);
        }
        it.good(&inquiry(None, 0));
        assert_eq!(it.input(&inquiry(None, 0xffff), 4096), whole);
        // ADDITIONAL LENGTH and PAGE LENGTH are not adjusted.
        assert_eq!(it.input(&inquiry(Some(0xb0), 4), 64), [0, 0xb0, 0, 0x3c]);
        assert_eq!(it.end(&inquiry(None, 96), Data::In(95)), End::Overrun);
        assert_eq!(it.end(&inquiry(None, 96), Data::None), End::Overrun);
    });
}

fn the_list_of_pages_is_that_of_the_pages<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let listed = page(it, 0);
        assert_eq!(listed, [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
        for code in 0..=0xff {
            if listed.contains(&code) {
                page(it, code);
            } else {
                let page = inquiry(Some(code), 255);
                it.fails(&page, Data::In(255), bad_cdb(2, Some(7)));
            }
        }
    });
    // One that has no serial number has no page for it.
    let mut options = DiskOptions::new(Arc::new(image()));
    options.identity.serial.clear();
    one::<W>(&LogicalUnit::disk(options).expect("a disk"), |it| {
        assert_eq!(page(it, 0), [0x00, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
        it.fails(&inquiry(Some(0x80), 64), Data::In(64), bad_cdb(2, Some(7)));
        assert_eq!(page(it, 0x83), [0_u8; 0]);
    });
    one::<W>(&drive(None), |it| {
        let listed = it.input(&inquiry(Some(0), 64), 64);
        assert_eq!(listed, [5, 0, 0, 3, 0x00, 0x83, 0x86]);
    });
}

fn the_unit_is_named<W: Way>() {
    one::<W>(&disk(image()), |it| {
        assert_eq!(page(it, 0x80), b"SERIAL-0001");
        let names = page(it, 0x83);
        // Binary, of the unit, NAA, 8 bytes.
        assert_eq!(names[..12], [1, 3, 0, 8, 0x50, 0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
        // ASCII, of the unit, T10 vendor identification.
        assert_eq!(names[12..16], [2, 1, 0, 35]);
        assert_eq!(&names[16..], b"PARASLOTDISK            SERIAL-0001");
    });
}

fn the_extended_page_says_what_there_is<W: Way>() {
    let volatile = disk(image());
    let durable = disk(Claims(image(), |info: &mut BlockInfo| info.volatile_cache = false));
    for (unit, v_sup) in [(volatile, 1), (durable, 0)] {
        one::<W>(&unit, |it| {
            let page = page(it, 0x86);
            // Simple tasks alone; a volatile cache, or not.
            let mut expected = [0; 60];
            (expected[1], expected[2]) = (1, v_sup);
            assert_eq!(page, expected);
        });
    }
}

fn limits_are_those_that_hold<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let page = page(it, 0xb0);
        let mut expected = vec![1, 255, 0, 1]; // WSNZ, compare and write, granularity
        expected.extend(0x8_0000_u32.to_be_bytes()); // 256 MiB at a time
        expected.extend([0; 8]);
        expected.extend(0x80_0000_u32.to_be_bytes()); // UNMAP: 4 GiB
        expected.extend(256_u32.to_be_bytes()); // in as many ranges
        expected.extend(1_u32.to_be_bytes());
        expected.extend(0x8000_0000_u32.to_be_bytes()); // UGAVALID, alignment 0
        expected.extend(0x4_0000_u64.to_be_bytes()); // WRITE SAME: 128 MiB
        expected.resize(60, 0);
        assert_eq!(page, expected);
    });
    // In blocks of 4096 bytes, eight to a physical block, that are discarded four at a time.
    let options = MemoryOptions { logical_block: 4096, ..MemoryOptions::default() };
    let claims = Claims(image_of(options), |info: &mut BlockInfo| {
        (info.physical_block, info.discard_granularity) = (32768, 16384);
    });
    one::<W>(&disk(claims), |it| {
        let page = page(it, 0xb0);
        assert_eq!(page[1..4], [32, 0, 8]);
        assert_eq!(page[4..8], 0x1_0000_u32.to_be_bytes());
        assert_eq!(page[16..20], 0x10_0000_u32.to_be_bytes());
        assert_eq!(page[24..28], 4_u32.to_be_bytes());
        assert_eq!(page[32..40], 0x8000_u64.to_be_bytes());
    });
    let claims = Claims(image(), |info: &mut BlockInfo| {
        (info.discard_granularity, info.write_zeroes_unmap) = (0, false);
    });
    one::<W>(&disk(claims), |it| assert_eq!(page(it, 0xb0)[16..32], [0; 16]));
}

fn characteristics_and_provisioning<W: Way>() {
    one::<W>(&disk(image()), |it| {
        // Does not rotate; FUAB.
        let mut expected = [0; 60];
        (expected[1], expected[4]) = (1, 2);
        assert_eq!(page(it, 0xb1), expected);
        // LBPU, LBPWS, LBPWS10, LBPRZ; thin.
        assert_eq!(page(it, 0xb2), [0, 0xe4, 2, 0]);
    });
    let discards = Claims(image(), |info: &mut BlockInfo| info.write_zeroes_unmap = false);
    one::<W>(&disk(discards), |it| assert_eq!(page(it, 0xb2), [0, 0x80, 2, 0]));
    let keeps = Claims(image(), |info: &mut BlockInfo| {
        (info.discard_granularity, info.write_zeroes_unmap) = (0, false);
    });
    one::<W>(&disk(keeps), |it| assert_eq!(page(it, 0xb2), [0, 0, 0, 0]));
}

const CAPACITY_10: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn capacity_16(allocation: u8) -> [u8; 16] {
    cdb(0x9e, &[(1, 0x10), (13, allocation)])
}

fn capacity_in_both_sizes<W: Way>() {
    one::<W>(&disk(image()), |it| {
        assert_eq!(it.input(&CAPACITY_10, 8), [0, 0, 0x0f, 0xff, 0, 0, 2, 0]);
        let mut expected = (BLOCKS - 1).to_be_bytes().to_vec();
        expected.extend(512_u32.to_be_bytes());
        // LBPME and LBPRZ.
        expected.extend([0, 0, 0xc0, 0]);
        expected.resize(32, 0);
        assert_eq!(it.input(&capacity_16(32), 32), expected);
        assert_eq!(it.input(&capacity_16(12), 32), expected[..12]);
        it.good(&capacity_16(0));
        // GET LBA STATUS is another service action, of which nothing is known here.
        it.fails(&cdb::<16>(0x9e, &[(1, 0x12), (13, 32)]), Data::In(32), bad_cdb(1, Some(4)));
    });
    // Physical blocks of eight, and blocks that are not unmapped.
    let claims = Claims(image(), |info: &mut BlockInfo| {
        (info.physical_block, info.discard_granularity) = (4096, 0);
        info.write_zeroes_unmap = false;
    });
    one::<W>(&disk(claims), |it| {
        assert_eq!(it.input(&capacity_16(16), 32)[12..], [0, 3, 0, 0]);
    });
    let claims = Claims(image(), |info: &mut BlockInfo| info.write_zeroes_unmap = false);
    one::<W>(&disk(claims), |it| assert_eq!(it.input(&capacity_16(16), 32)[14], 0x80));
}

fn capacities_beyond_32_bits<W: Way>() {
    for (blocks, last) in
        [(1_u64 << 32, u32::MAX), (1 << 33, u32::MAX), ((1 << 32) - 1, u32::MAX - 1)]
    {
        let claims = Claims(image(), move |info: &mut BlockInfo| info.capacity = blocks * 512);
        one::<W>(&disk(claims), |it| {
            assert_eq!(it.input(&CAPACITY_10, 8)[..4], last.to_be_bytes());
            assert_eq!(it.input(&capacity_16(8), 8), (blocks - 1).to_be_bytes());
        });
    }
}

fn read_capacity_10_looks_at_no_address<W: Way>() {
    one::<W>(&disk(image()), |it| {
        it.fails(&cdb::<10>(0x25, &[(5, 1)]), Data::In(8), bad_cdb(2, None));
        // PMI is obsolete, and says what it did.
        assert_eq!(it.input(&cdb::<10>(0x25, &[(5, 1), (8, 1)]), 8), it.input(&CAPACITY_10, 8));
    });
}
