//! Finding a disk, and what it says of itself.

use super::*;

fn found(units: Units) -> (Result<Unit, Error>, Units) {
    let mut direct = Direct::new(units);
    let unit = direct.find();
    (unit, direct.units)
}

#[test]
fn a_disk_is_looked_at_as_sd_does() {
    let (unit, mut units) = found(Units::one());
    let unit = unit.unwrap();
    let codes = units.codes();
    assert_eq!(codes, [0xa0, 0x12, 0x00, 0x9e, 0x1a, 0x12, 0x12, 0x12, 0xa3]);
    assert_eq!(unit.address(), Address { target: 0, lun: 0 });
    assert_eq!((unit.capacity(), unit.block_size()), (64 * 512, 512));
    assert_eq!(unit.max_transfer(), 32 * 512);
    assert!(unit.is_writable() && unit.has_write_cache());
    assert_eq!((unit.vendor(), unit.product()), (b"VENDOR  ", b"THE PRODUCT     "));
}

#[test]
fn its_commands_are_laid_out_as_the_standards_say() {
    let (_, units) = found(Units::one());
    let cdbs: Vec<_> = units.seen.into_iter().map(|(_, cdb)| cdb).collect();
    let expected: [&[u8]; 9] = [
        &[0xa0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0],
        &[0x12, 0, 0, 0, 36, 0],
        &[0, 0, 0, 0, 0, 0],
        &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
        &[0x1a, 0, 8, 0, 252, 0],
        &[0x12, 1, 0, 0, 252, 0],
        &[0x12, 1, 0xb0, 0, 252, 0],
        &[0x12, 1, 0xb2, 0, 252, 0],
        &[0xa3, 0x0c, 1, 0x93, 0, 0, 0, 0, 0, 252, 0, 0],
    ];
    assert_eq!(cdbs, expected);
}

#[test]
fn the_first_disk_is_taken_wherever_it_is() {
    let mut units = Units::default();
    let cdrom = TestUnit { peripheral: 5, ..TestUnit::disk() };
    let gone = TestUnit { peripheral: 0x20, ..TestUnit::disk() };
    units.units.insert((2, 0), cdrom.clone());
    units.units.insert((3, 0), gone);
    units.units.insert((3, 1), cdrom);
    units.units.insert((3, 0x300), TestUnit::disk());
    units.units.insert((4, 0), TestUnit::disk());
    let (unit, units) = found(units);
    assert_eq!(unit.unwrap().address(), Address { target: 3, lun: 0x300 });
    let asked = |code: u8| -> Vec<Address> {
        units.seen.iter().filter(|(_, cdb)| cdb[0] == code).map(|(at, _)| *at).collect()
    };
    let at = |target, lun| Address { target, lun };
    assert_eq!(asked(0xa0), [at(0, 0), at(1, 0), at(2, 0), at(3, 0)]);
    assert_eq!(asked(0x12)[..4], [at(2, 0), at(3, 0), at(3, 1), at(3, 0x300)]);
    // Beyond the last target nobody is asked.
    let mut units = Units::default();
    units.units.insert((8, 0), TestUnit::disk());
    let (unit, mut units) = found(units);
    assert_eq!((unit.err(), units.codes()), (Some(Error::NotFound), vec![0xa0; 8]));
    assert_eq!(find_disk(&mut Direct::new(units), 9, 512).unwrap().address().target, 8);
}

#[test]
fn a_target_without_report_luns_has_its_first_unit_looked_at() {
    let mut units = Units::one();
    units.unknown.push(0xa0);
    let (unit, _) = found(units);
    assert_eq!(unit.unwrap().address(), Address { target: 0, lun: 0 });
}

#[test]
fn a_list_of_luns_is_believed_as_far_as_it_goes() {
    for (list, expected) in [
        // As long as can be said, and without a single LUN.
        (vec![0xff; 8], false),
        // Well known, hierarchical, a bus: none that could be a disk.
        (
            vec![0, 0, 0, 24, 0, 0, 0, 0, 0xc1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
            false,
        ),
        // A part of a LUN.
        (vec![0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0], false),
        // More LUNs than are listed.
        ([&[0xff, 0xff, 0xff, 0xf8, 0, 0, 0, 0][..], &[0; 8]].concat(), true),
        (vec![], false),
    ] {
        let mut units = Units::one();
        units.next.push_back(Reply::good(&list));
        let (unit, mut units) = found(units);
        assert_eq!(unit.is_ok(), expected, "{list:x?}");
        if !expected {
            assert_eq!(units.codes(), vec![0xa0; 8], "{list:x?}");
        }
    }
}

#[test]
fn unit_attentions_are_taken_note_of_and_the_command_issued_again() {
    let mut units = Units::one();
    units.next.extend([Reply::check(6, 0x29, 0), Reply::status(8), Reply::check(6, 0x28, 0)]);
    let (unit, mut units) = found(units);
    assert!(unit.is_ok());
    assert_eq!(units.codes()[..5], [0xa0, 0xa0, 0xa0, 0xa0, 0x12]);
    // Not for ever.
    let mut units = Units::one();
    units.next.extend(vec![Reply::check(6, 0x29, 0); 10_000]);
    let (unit, mut units) = found(units);
    assert_eq!(unit.err(), Some(Error::NotFound));
    assert!(units.codes().len() <= 8 * 2 * 6);
}

#[test]
fn a_disk_that_is_not_ready_is_waited_for() {
    let before = |replies: &[Reply]| {
        let mut units = Units::one();
        units.next.extend([
            units.clone().command(
                Address::default(),
                &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &[],
            ),
            units.clone().command(Address::default(), &[0x12, 0, 0, 0, 36, 0], &[]),
        ]);
        units.next.extend(replies.iter().cloned());
        units
    };
    let (unit, mut units) = found(before(&vec![Reply::check(2, 4, 1); 40]));
    assert!(unit.is_ok());
    assert_eq!(units.codes()[2..43], [0; 41]);
    // It is started once.
    let start = Reply::check(2, 4, 2);
    let (unit, mut units) = found(before(&[start.clone(), Reply::good(&[]), start]));
    assert!(unit.is_ok());
    assert_eq!(units.codes()[2..6], [0, 0x1b, 0, 0]);
    let (unit, _) = found(before(&vec![Reply::check(2, 4, 1); 10_000]));
    assert_eq!(unit.err(), Some(Error::Timeout("disk ready")));
    let (unit, _) = found(before(&[Reply::check(2, 0x3a, 1)]));
    assert_eq!(unit.err(), Some(Error::Unsupported("reads without a medium")));
    let (unit, _) = found(before(&[Reply::check(4, 0x44, 0)]));
    assert_eq!(unit.err(), Some(Error::Protocol("its disk does not become ready")));
}

fn with(change: impl FnOnce(&mut TestUnit)) -> Result<Unit, Error> {
    let mut units = Units::one();
    change(units.disk());
    found(units).0
}

#[test]
fn capacities_that_make_no_sense_are_refused() {
    let block = Err(Error::Protocol("its block size makes no sense"));
    for size in [0, 1, 256, 513, 131_072, u32::MAX] {
        let unit = with(|disk| (disk.block, disk.last) = (size, Some(9)));
        assert_eq!(unit.map(|_| ()), block, "{size}");
    }
    let capacity = Some(Error::Protocol("its capacity makes no sense"));
    assert_eq!(with(|disk| disk.last = Some(u64::MAX)).err(), capacity);
    assert_eq!(with(|disk| disk.last = Some(u64::MAX / 512)).err(), capacity);
    let unit = with(|disk| disk.last = Some(u64::MAX / 512 - 1)).unwrap();
    assert_eq!(unit.capacity(), u64::MAX - 511);
    // Without READ CAPACITY (16).
    let mut units = Units::one();
    units.unknown.push(0x9e);
    let (unit, units) = found(units);
    assert_eq!(unit.unwrap().capacity(), 64 * 512);
    let (_, cdb) = units.seen.iter().find(|(_, cdb)| cdb[0] == 0x25).unwrap();
    assert_eq!(cdb, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut units = Units::one();
    units.unknown.push(0x9e);
    units.disk().last = Some(1 << 32);
    assert_eq!(found(units).0.err(), Some(Error::Unsupported("READ CAPACITY (16)")));
    let mut units = Units::one();
    units.unknown.extend([0x9e, 0x25]);
    let error = Error::Protocol("its disk does not say its capacity");
    assert_eq!(found(units).0.err(), Some(error));
}

#[test]
fn the_mode_parameters_say_what_writes_are_like() {
    let unit = with(|disk| disk.caching = 0).unwrap();
    assert!(unit.is_writable() && !unit.has_write_cache());
    let unit = with(|disk| disk.write_protected = true).unwrap();
    assert!(!unit.is_writable() && unit.has_write_cache());
    let mut units = Units::one();
    units.unknown.push(0x1a);
    let unit = found(units).0.unwrap();
    assert!(unit.is_writable() && !unit.has_write_cache());
}

#[test]
fn limits_are_the_smallest_of_all() {
    let set = |disk: &mut TestUnit, at: usize, bytes: &[u8]| {
        let limits = disk.pages.get_mut(&0xb0).unwrap();
        limits[at - 4..at - 4 + bytes.len()].copy_from_slice(bytes);
    };
    let most = |blocks: u32, host: u64| {
        let mut units = Units::one();
        set(units.disk(), 8, &blocks.to_be_bytes());
        find_disk(&mut Direct::new(units), 1, host).map(|unit| unit.max_transfer())
    };
    assert_eq!(most(8, 1 << 20), Ok(4096));
    assert_eq!(most(8, 4095), Ok(3584));
    assert_eq!(most(0, 65536), Ok(65536));
    assert_eq!(most(u32::MAX, u64::MAX), Ok(1 << 30));
    assert_eq!(most(8, 511), Err(Error::Unsupported("transfers of a block")));
    // A page that is not listed is not asked for; one that is another than asked for does not count.
    let unit = with(|disk| disk.pages.clear()).unwrap();
    assert_eq!(unit.max_transfer(), 1 << 20);
    assert!(unit.discard.is_none() && unit.zeroes.is_some());
    // Shorter than it says, or than it must be.
    let unit = with(|disk| disk.pages.get_mut(&0xb0).unwrap().truncate(7)).unwrap();
    assert_eq!((unit.max_transfer(), unit.max_unmap), (1 << 20, 0x7f_ffff));
}

// What the device claims to have moved without doing so is not what was there from before.
#[test]
fn what_was_not_moved_is_not_read() {
    let mut direct = Direct::new(Units::one());
    direct.claim = Some(0);
    assert_eq!(direct.find().err(), Some(Error::NotFound));
    direct.claim = Some(u32::MAX);
    let unit = direct.find().unwrap();
    assert_eq!(unit.capacity(), 64 * 512);
    let mut units = Units::one();
    units.next.push_back(Reply::good(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0]));
    let mut direct = Direct::new(units);
    direct.claim = Some(16);
    // 16 bytes are not enough for INQUIRY data.
    assert_eq!(direct.find().err(), Some(Error::Protocol("its INQUIRY data is cut off")));
}

#[test]
fn discards_are_what_the_disk_has() {
    use crate::scsi::unit::Discard;
    let discard = |flags: u8, managed: u8| {
        let unit = with(|disk| {
            disk.provisioning = managed;
            disk.pages.get_mut(&0xb2).unwrap()[1] = flags;
        });
        unit.unwrap().discard
    };
    assert_eq!(discard(0xe0, 0x80), Some(Discard::Unmap));
    assert_eq!(discard(0x60, 0xc0), Some(Discard::WriteSame));
    assert_eq!(discard(0x20, 0x80), None);
    assert_eq!(discard(0xe0, 0x40), None);
}

#[test]
fn the_platform_may_have_no_memory() {
    for (memory, found) in [(4095, false), (4096 + 511, false), (4096 + 512, true)] {
        let mut direct = Direct::new(Units::one());
        direct.fake.memory.set(memory);
        assert_eq!(direct.find().is_ok(), found);
    }
}
