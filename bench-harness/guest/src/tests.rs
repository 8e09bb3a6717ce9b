use proptest::prelude::*;

use crate::IMAGE;
use crate::memory::{Allocator, Entry, bar_space, pool};

const MIB: u64 = 1 << 20;
const IMAGE_AT: std::ops::Range<u64> = 0x20_0000..0x26_1000;

fn usable(start: u64, end: u64) -> Entry {
    Entry { start, end, usable: true }
}

fn reserved(start: u64, end: u64) -> Entry {
    Entry { start, end, usable: false }
}

#[test]
fn the_image_is_an_elf_with_a_pvh_entry_point_inside_it() {
    assert_eq!(IMAGE[..6], *b"\x7fELF\x02\x01");
    let note = b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0";
    let at = IMAGE.windows(note.len()).position(|window| window == note).unwrap() + note.len();
    let entry = u64::from_le_bytes(IMAGE[at..at + 8].try_into().unwrap());
    assert!((0x20_0000..0x40_0000).contains(&entry), "{entry:#x}");
}

#[test]
fn the_image_does_not_tell_where_it_was_built() {
    let place = env!("CARGO_MANIFEST_DIR").as_bytes();
    assert!(!IMAGE.windows(place.len()).any(|window| window == place));
}

#[test]
fn memory_comes_from_the_largest_range_without_the_image() {
    // Ours, with 64 MiB; QEMU's q35, with 5 GiB.
    let ours = [usable(0, 0xa_0000), usable(MIB, 64 * MIB), reserved(0xe000_0000, 0xf000_0000)];
    assert_eq!(pool(&ours, IMAGE_AT), 3 * MIB..64 * MIB);
    let q35 = [
        usable(0, 0x9_fc00),
        reserved(0x9_fc00, 0xa_0000),
        reserved(0xf_0000, 0x10_0000),
        usable(MIB, 0x7ffd_8000),
        reserved(0x7ffd_8000, 0x8000_0000),
        reserved(0xb000_0000, 0xc000_0000),
        usable(1 << 32, 7 << 30),
    ];
    assert_eq!(pool(&q35, IMAGE_AT), 3 * MIB..0x7ff0_0000);
    // Not above the image, if there is more below it.
    let small = [usable(0, 32 * MIB)];
    assert_eq!(pool(&small, 24 * MIB..25 * MIB), MIB..24 * MIB);
    assert_eq!(pool(&[], IMAGE_AT), 0..0);
    assert_eq!(pool(&[usable(0, MIB)], IMAGE_AT), 0..0);
}

#[test]
fn bars_go_into_the_upper_half_of_the_largest_hole() {
    let ours = [usable(0, 64 * MIB), reserved(0xe000_0000, 0xf000_0000)];
    assert_eq!(bar_space(&ours), 0x7200_0000..0xe000_0000);
    let full = [usable(0, 0xc000_0000), usable(1 << 32, 2 << 32)];
    assert_eq!(bar_space(&full), 0xdf60_0000..0xfec0_0000);
    assert_eq!(bar_space(&[usable(0, 1 << 32)]), 0..0);
}

#[test]
fn pages_are_handed_out_until_there_are_none() {
    let mut allocator = Allocator::new(MIB..MIB + 0x4000);
    assert_eq!(allocator.allocate(1), Some(MIB));
    assert_eq!(allocator.allocate(0x1001), Some(MIB + 0x1000));
    assert_eq!(allocator.allocate(0x1001), None);
    assert_eq!(allocator.allocate(usize::MAX), None);
    assert_eq!(allocator.allocate(0x1000), Some(MIB + 0x3000));
    assert_eq!(allocator.allocate(0), None);
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let edge = prop_oneof![0..1u64 << 33, any::<u64>()];
    let entry = (edge, 0..1u64 << 33, any::<bool>())
        .prop_map(|(start, len, usable)| Entry::new(start, len, usable));
    proptest::collection::vec(entry, 0..8)
}

proptest! {
    // Whatever a loader says, what is used is usable, and is not the image.
    #[test]
    fn no_map_leads_astray(map in entries()) {
        let pool = pool(&map, IMAGE_AT);
        let outside = |range: &std::ops::Range<u64>, other: &std::ops::Range<u64>| {
            range.is_empty() || other.is_empty()
                || range.end <= other.start || other.end <= range.start
        };
        if !pool.is_empty() {
            prop_assert!(pool.start >= MIB && pool.end <= 1 << 32);
            let inside = |entry: &Entry| entry.start <= pool.start && pool.end <= entry.end;
            prop_assert!(map.iter().any(|entry| entry.usable && inside(entry)));
            prop_assert!(outside(&pool, &IMAGE_AT));
        }
        let bars = bar_space(&map);
        prop_assert!(bars.end <= 0xfec0_0000);
        for entry in &map {
            let range = entry.start..entry.end;
            prop_assert!(outside(&bars, &range));
            prop_assert!(entry.usable || outside(&pool, &range));
        }
    }
}
