use proptest::prelude::*;

use super::*;
use crate::fake::Fake;

fn with(list: &[(u8, u8, u64)]) -> Result<[Option<BarSpec>; 6], String> {
    let fake = Fake::new();
    list.iter().for_each(|(index, flags, size)| fake.lock().bar(*index, *flags, *size));
    let hardware = fake.lock();
    bars(&hardware.config.clone().try_into().unwrap(), &hardware.regions)
}

const MEMORY_64: u8 = 0x4;

#[test]
fn bars_have_the_types_and_sizes_of_the_function() {
    let bars = with(&[(0, MEMORY_64 | 8, 1 << 40), (2, 1, 0x20), (5, 0, 0x80)]).unwrap();
    let spec = |kind, size, prefetchable| Some(BarSpec { kind, size, prefetchable });
    let first = spec(BarKind::Memory64, 1 << 40, true);
    let (io, last) = (spec(BarKind::Io, 0x20, false), spec(BarKind::Memory32, 0x80, false));
    assert_eq!(bars, [first, None, io, None, None, last]);
}

/// OV 985e668a4: the upper half of a 64-bit BAR is no BAR, and the last BAR has none.
#[test]
fn bars_that_cannot_be_are_refused() {
    for (list, reason) in [
        (&[(5, MEMORY_64, 0x1000)][..], "no upper half"),
        (&[(0, MEMORY_64, 0x1000), (1, 0, 0x1000)], "BAR 1 is the upper half"),
        (&[(0, 2, 0x1000)], "unknown type"),
        (&[(0, 6, 0x1000)], "unknown type"),
        (&[(0, 0, 0x1001)], "cannot have 0x1001"),
        (&[(0, 0, 8)], "cannot have 0x8"),
        (&[(0, 0, 1 << 32)], "cannot have 0x100000000"),
        (&[(0, 1, 512)], "cannot have 0x200"),
        (&[(0, MEMORY_64, u64::MAX)], "cannot have"),
    ] {
        let error = with(list).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

fn msix(vectors: u16, table: (u8, u32), pba: (u8, u32)) -> MsixLayout {
    MsixLayout { vectors, table, pba }
}

/// crosvm e892738ed, 7458a3a19: pending bits before the table, or over it. QEMU 29c6e6df49, 07ceaf9880: an
/// end beyond 4 GiB. XSA-164: a table that is longer than its BAR.
#[test]
fn msix_structures_are_inside_and_apart() {
    let bars = with(&[(0, 0, 0x4000), (2, 1, 0x20), (4, MEMORY_64, 1 << 33)]).unwrap();
    let check = |vectors, table, pba| check_msix(&msix(vectors, table, pba), &bars);
    assert_eq!(check(64, (0, 0x1000), (0, 0x800)), Ok(()));
    assert_eq!(check(64, (0, 0x1000), (0, 0x1400)), Ok(()));
    assert_eq!(check(64, (0, 0), (4, 0)), Ok(()));
    assert_eq!(check(2048, (4, 0xffff_fff8), (4, 0)), Ok(()));
    for (table, pba) in [
        ((0, 0x1000), (0, 0x1000)),
        ((0, 0x1000), (0, 0x13f8)),
        ((0, 0x1000), (0, 0x1008)),
        ((0, 0x3fe0), (0, 0)),
        ((0, 0xffff_fff8), (0, 0)),
        ((0, 0), (0, 0x4000)),
        ((0, 0), (0, 0xffff_fff8)),
        ((2, 0), (0, 0)),
        ((1, 0), (0, 0)),
        ((5, 0), (0, 0)),
        ((7, 0), (0, 0)),
        ((0, 0), (6, 0)),
    ] {
        assert!(check(64, table, pba).is_err(), "{table:?} {pba:?}");
    }
}

fn memory(size: u64) -> BarSpec {
    BarSpec { kind: BarKind::Memory64, size, prefetchable: false }
}

fn region(size: u64, mappable: &[(u64, u64)]) -> RegionInfo {
    RegionInfo { size, mappable: mappable.to_vec() }
}

/// CH 915675882, 23a980cd5; QEMU 24acf72b9a: sparse areas, BARs of less than a page, and pages that
/// hold the table or the pending bits.
#[test]
fn pages_with_msix_structures_are_not_mapped() {
    let all = region(0x8000, &[(0, 0x8000)]);
    let layout = msix(70, (2, 0x1ff0), (2, 0x5008));
    let windows = |index, region: &RegionInfo| {
        super::windows(index, memory(region.size), region, Some(&layout))
    };
    // The table is from 0x1ff0 to 0x2450.
    assert_eq!(windows(2, &all), [(0, 0x1000), (0x3000, 0x2000), (0x6000, 0x2000)]);
    assert_eq!(windows(3, &all), [(0, 0x8000)]);
    let sparse = region(0x8000, &[(0x6800, 0x1800), (0x800, 0x3800), (0x3000, 0x100)]);
    assert_eq!(windows(2, &sparse), [(0x3000, 0x1000), (0x7000, 0x1000)]);
    assert_eq!(windows(3, &region(0x800, &[(0, 0x800)])), []);
    assert_eq!(windows(3, &region(0x4000, &[])), []);
    assert_eq!(
        windows(3, &region(0x4000, &[(u64::MAX - 8, 16), (0x1000, u64::MAX - 0x1000)])),
        [(0x1000, 0x3000)]
    );
    let io = BarSpec { kind: BarKind::Io, size: 0x100, prefetchable: false };
    assert_eq!(super::windows(0, io, &region(0x100, &[(0, 0x100)]), None), []);
}

proptest! {
    #[test]
    fn windows_are_pages_of_areas_without_structures(
        areas in proptest::collection::vec((0_u64..0x9000, 0_u64..0x9000), 0..5),
        table in 0_u32..0xc00, pba in 0_u32..0xf00, vectors in 1_u16..256,
    ) {
        let size = 0x8000;
        let layout = msix(vectors, (0, table * 8), (0, pba * 8));
        let windows = windows(0, memory(size), &region(size, &areas), Some(&layout));
        let mut mapped = vec![false; 8];
        for (offset, len) in windows {
            prop_assert!(offset % PAGE == 0 && len % PAGE == 0 && len > 0 && offset + len <= size);
            for page in offset / PAGE..(offset + len) / PAGE {
                let page = &mut mapped[usize::try_from(page).unwrap()];
                prop_assert!(!std::mem::replace(page, true), "mapped twice");
            }
        }
        for (page, mapped) in (0..).zip(mapped) {
            let (start, end) = (page * PAGE, (page + 1) * PAGE);
            let held = structures(&layout).iter().any(|(_, from, to)| *from < end && *to > start);
            let whole = areas.iter().any(|(at, len)| *at <= start && at + len >= end);
            prop_assert_eq!(mapped, whole && !held, "page {}", page);
        }
    }
}
