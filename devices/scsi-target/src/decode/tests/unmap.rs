//! UNMAP.

use super::*;

fn cdb(len: u16) -> [u8; 10] {
    ten(0x42, 0, 0, len)
}

/// A parameter list, with the lengths that it should have.
fn list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let bytes = u16::try_from(ranges.len() * 16).unwrap();
    let mut list = (bytes + 6).to_be_bytes().to_vec();
    list.extend(bytes.to_be_bytes());
    list.extend([0; 4]);
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn unmap(disk: &Initiator, list: &[u8]) -> Plan {
    let len = u16::try_from(list.len()).unwrap();
    let (taken, plan) = disk.send(&cdb(len), list);
    assert_eq!(taken, u64::from(len));
    plan
}

#[test]
fn ranges_are_taken_as_they_are() {
    let disk = disk();
    let plan = unmap(&disk, &list(&[(1, 2), (9, 0), (0xfff, 1)]));
    let Plan::Unmap { ranges, zero: true } = plan else { panic!("{plan:?}") };
    assert_eq!(ranges, [(512, 1024), (0xfff * 512, 512)]);
    // Where unmapped blocks need not read as zeroes, they are discarded.
    let discards = disk_with(|info| info.write_zeroes_unmap = false);
    assert!(matches!(unmap(&discards, &list(&[(0, 1)])), Plan::Unmap { zero: false, .. }));
    // No ranges, or no list at all.
    assert!(is_status(&unmap(&disk, &list(&[])), Status::Good));
    assert!(is_status(&unmap(&disk, &list(&[(0, 0)])), Status::Good));
    disk.good(&cdb(0));
}

#[test]
fn a_disk_that_cannot_has_no_such_command() {
    let plain = disk_with(|info| {
        info.discard_granularity = 0;
        info.write_zeroes_unmap = false;
    });
    assert_eq!(plain.sense(&cdb(0)), illegal(0x20, 0));
}

#[test]
fn lengths_must_agree() {
    let disk = disk();
    let good = list(&[(0, 1), (4, 1)]);
    for len in 1..good.len() {
        assert_eq!(sense(unmap(&disk, &good[..len])), illegal(0x1a, 0), "{len}");
    }
    let mut longer = good.clone();
    longer[3] = 33;
    assert_eq!(sense(unmap(&disk, &longer)), illegal(0x1a, 0));
    let mut longer = good.clone();
    longer[1] = 39;
    assert_eq!(sense(unmap(&disk, &longer)), illegal(0x1a, 0));
    // The last descriptor is not all there: it is ignored.
    let mut incomplete = good.clone();
    incomplete[3] = 31;
    let plan = unmap(&disk, &incomplete);
    assert!(matches!(&plan, Plan::Unmap { ranges, .. } if ranges == &[(0, 512)]), "{plan:?}");
    // More is said than there is memory for.
    assert!(matches!(disk.send(&cdb(40), &good[..39]), (0, Plan::Overrun)));
    assert!(matches!(disk.run(&cdb(40)), Plan::Overrun));
}

#[test]
fn limits_are_kept() {
    let disk = disk_with(|info| info.capacity = 1 << 40);
    let many = vec![(0, 1); 257];
    assert!(matches!(unmap(&disk, &list(&many[1..])), Plan::Unmap { .. }));
    assert_eq!(sense(unmap(&disk, &list(&many))), bad_parameter(2, None));
    let most = 8 << 20;
    assert!(matches!(unmap(&disk, &list(&[(0, most - 1), (9, 1)])), Plan::Unmap { .. }));
    assert_eq!(sense(unmap(&disk, &list(&[(0, most), (9, 1)]))), bad_parameter(32, None));
    let out = Sense { information: Some(1 << 31), ..illegal(0x21, 0) };
    assert_eq!(sense(unmap(&disk, &list(&[(0, 1), ((1 << 31) - 1, 2)]))), out);
    let out = Sense { information: Some(u64::MAX), ..illegal(0x21, 0) };
    assert_eq!(sense(unmap(&disk, &list(&[(u64::MAX, u32::MAX)]))), out);
    let mut anchored = cdb(0);
    anchored[1] = 1;
    assert_eq!(disk.sense(&anchored), bad_cdb(1, Some(0)));
}
