//! INQUIRY and vital product data.

use super::*;

fn vpd(initiator: &Initiator, page: u8) -> Vec<u8> {
    initiator.reply(&[0x12, 1, page, 0xff, 0xff, 0])
}

fn named(change: impl FnOnce(&mut Identity)) -> Initiator {
    let mut options = DiskOptions::new(image(|_| {}));
    change(&mut options.identity);
    Initiator::ready(&LogicalUnit::disk(options).unwrap(), "one")
}

#[test]
fn standard_data() {
    let data = disk().reply(&[0x12, 0, 0, 0, 255, 0]);
    assert_eq!(data.len(), 96);
    assert_eq!(data[..8], [0, 0, 6, 0x12, 91, 0, 0, 2]);
    assert_eq!(&data[8..36], b"PARASLOTDISK            1   ");
    assert_eq!(data[58..66], [0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0, 0, 0]);
    let data = drive(None).reply(&[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(data[..8], [5, 0x80, 6, 0x12, 91, 0, 0, 2]);
    assert_eq!(data.len(), 36);
}

#[test]
fn fields_that_do_not_go_together_are_refused() {
    let disk = disk();
    assert_eq!(disk.sense(&[0x12, 0, 0x80, 0, 36, 0]), bad_cdb(2, Some(7)));
    assert_eq!(disk.sense(&[0x12, 1, 0x84, 0, 36, 0]), bad_cdb(2, Some(7)));
    assert_eq!(disk.reply(&[0x12, 0, 0, 0, 0, 0]), [0u8; 0]);
    assert_eq!(disk.reply(&[0x12, 1, 0, 0, 3, 0]), [0, 0, 0]);
}

#[test]
fn the_list_of_pages_is_true() {
    let bare = named(|identity| identity.serial.clear());
    for (unit, expected) in [
        (disk(), &[0, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2][..]),
        (bare, &[0, 0x83, 0x86, 0xb0, 0xb1, 0xb2]),
        (drive(None), &[0, 0x83, 0x86]),
    ] {
        let list = vpd(&unit, 0);
        assert_eq!(list[4..], *expected);
        assert_eq!(usize::from(list[3]), expected.len());
        for page in 0..=255 {
            let plan = unit.run(&[0x12, 1, page, 1, 0, 0]);
            if expected.contains(&page) {
                let data = reply(plan);
                assert_eq!(data[1], page);
                let len = u16::from_be_bytes([data[2], data[3]]);
                assert_eq!(usize::from(len), data.len() - 4);
            } else {
                assert_eq!(sense(plan), bad_cdb(2, Some(7)), "{page:x}");
            }
        }
    }
}

#[test]
fn names_are_those_that_were_given() {
    assert_eq!(vpd(&disk(), 0x80), b"\0\x80\0\x06serial");
    let both = named(|identity| identity.world_wide_name = Some(0x5000_1234_5678_9abc));
    let mut expected = b"\0\x83\0\x2e\x01\x03\0\x08\x50\0\x12\x34\x56\x78\x9a\xbc".to_vec();
    expected.extend(b"\x02\x01\0\x1ePARASLOTDISK            serial");
    assert_eq!(vpd(&both, 0x83), expected);
    // Nothing is made up that two units could have in common.
    assert_eq!(vpd(&named(|identity| identity.serial.clear()), 0x83), b"\0\x83\0\0");
}

#[test]
fn limits_are_those_that_are_kept() {
    let data = vpd(&disk(), 0xb0);
    assert_eq!(data.len(), 64);
    let field = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
    assert_eq!((data[4], data[5]), (1, 255));
    assert_eq!(data[6..8], [0, 8]);
    assert_eq!(field(8), (256 << 20) / 512);
    assert_eq!((field(20), field(24)), (8 << 20, 256));
    assert_eq!((field(28), field(32)), (8, 1 << 31));
    assert_eq!((field(36), field(40)), (0, (128 << 20) / 512));
    let plain = disk_with(|info| {
        info.discard_granularity = 0;
        info.write_zeroes_unmap = false;
    });
    assert_eq!(vpd(&plain, 0xb0)[20..36], [0; 16]);
    assert_eq!(vpd(&plain, 0xb2)[4..], [0; 4]);
    assert_eq!(vpd(&disk(), 0xb2)[4..], [0, 0xe4, 2, 0]);
    let discards = disk_with(|info| info.write_zeroes_unmap = false);
    assert_eq!(vpd(&discards, 0xb2)[4..], [0, 0x80, 2, 0]);
    let characteristics = vpd(&disk(), 0xb1);
    assert_eq!((characteristics.len(), &characteristics[4..9]), (64, &[0, 1, 0, 0, 2][..]));
    assert_eq!(vpd(&disk(), 0x86)[5..7], [1, 1]);
    assert_eq!(vpd(&disk_with(|info| info.volatile_cache = false), 0x86)[5..7], [1, 0]);
}
