use std::collections::HashSet;
use std::sync::Arc;

use paraslot_spec::virtio::feature::INDIRECT_DESC;
use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use proptest::prelude::*;
use vm_memory::GuestMemoryMmap;

use super::*;
use crate::testing::{Buffer, DriverRing};

type Space = Arc<GuestMemoryMmap>;

const SIZE: u16 = 8;
const TABLE: u64 = 0x4000;

fn space() -> Space {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap())
}

fn ring() -> (Space, DriverRing<Space>) {
    let space = space();
    let ring = DriverRing::new(space.clone(), 0x1000, SIZE);
    (space, ring)
}

fn walk(space: &Space, ring: &DriverRing<Space>, head: u16) -> Result<Chain, QueueError> {
    let mut chain = Chain::empty(head);
    Walker::new(&**space, &ring.config(INDIRECT_DESC)).walk(&mut chain)?;
    Ok(chain)
}

/// Addresses and lengths, readable and writable.
type Segments = (Vec<(u64, u32)>, Vec<(u64, u32)>);

fn segments(chain: &Chain) -> Segments {
    let list = |side: &[Segment]| side.iter().map(|s| (s.address.0, s.len)).collect();
    (list(&chain.readable), list(&chain.writable))
}

fn malformed(space: &Space, ring: &DriverRing<Space>, head: u16) {
    assert_eq!(walk(space, ring, head), Err(QueueError::Chain { head }));
}

#[test]
fn readable_then_writable() {
    let (space, mut ring) = ring();
    let head = ring.add(&[
        Buffer::readable(0x8000, 16),
        Buffer::writable(0x9000, 512),
        Buffer::writable(0xa000, 1),
    ]);
    let chain = walk(&space, &ring, head).unwrap();
    assert_eq!(chain.head, head);
    assert_eq!(segments(&chain), (vec![(0x8000, 16)], vec![(0x9000, 512), (0xa000, 1)]));
}

// split.framing.1: buffers of no bytes do not matter, wherever they are.
#[test]
fn empty_buffers_are_left_out() {
    let (space, mut ring) = ring();
    let head = ring.add(&[
        Buffer::readable(0, 0),
        Buffer::readable(0x8000, 16),
        Buffer::readable(u64::MAX, 0),
        Buffer::writable(0x9000, 1),
        Buffer::writable(0x9000, 0),
    ]);
    let chain = walk(&space, &ring, head).unwrap();
    assert_eq!(segments(&chain), (vec![(0x8000, 16)], vec![(0x9000, 1)]));
}

#[test]
fn readable_after_writable_is_malformed() {
    let (space, mut ring) = ring();
    let head = ring.add(&[Buffer::writable(0x8000, 16), Buffer::readable(0x9000, 16)]);
    malformed(&space, &ring, head);
    // Not even if it has no bytes, or comes after one that has none.
    let head = ring.add(&[Buffer::writable(0x8000, 0), Buffer::readable(0x9000, 0)]);
    malformed(&space, &ring, head);
}

#[test]
fn indices_past_the_table_are_malformed() {
    let (space, ring) = ring();
    malformed(&space, &ring, SIZE);
    malformed(&space, &ring, u16::MAX);
    ring.set_descriptor(0, 0x8000, 1, DESC_F_NEXT, SIZE);
    malformed(&space, &ring, 0);
}

#[test]
fn loops_are_malformed() {
    let (space, ring) = ring();
    ring.set_descriptor(0, 0x8000, 1, DESC_F_NEXT, 0);
    malformed(&space, &ring, 0);
    // CVE-2016-6490: without bytes there is no length that ends it.
    ring.set_descriptor(1, 0x8000, 0, DESC_F_NEXT, 2);
    ring.set_descriptor(2, 0x8000, 0, DESC_F_NEXT, 1);
    malformed(&space, &ring, 1);
    // The longest chain without one is fine.
    for index in 0..SIZE {
        let last = index == SIZE - 1;
        ring.set_descriptor(index, 0x8000, 1, if last { 0 } else { DESC_F_NEXT }, index + 1);
    }
    assert_eq!(walk(&space, &ring, 0).unwrap().readable.len(), usize::from(SIZE));
}

// OV c3df92315: the last byte has an address, or there is no byte.
#[test]
fn buffers_that_wrap_are_malformed() {
    let (space, ring) = ring();
    ring.set_descriptor(0, u64::MAX, 1, 0, 0);
    assert!(walk(&space, &ring, 0).is_ok());
    ring.set_descriptor(0, u64::MAX, 2, 0, 0);
    malformed(&space, &ring, 0);
    ring.set_descriptor(0, 1 << 63, u32::MAX, 0, 0);
    assert!(walk(&space, &ring, 0).is_ok());
    ring.set_descriptor(0, u64::MAX - 15, 32, DESC_F_INDIRECT, 0);
    malformed(&space, &ring, 0);
}

// vq 27740a5, CVE-2016-7422
#[test]
fn more_than_4_gib_is_malformed() {
    let (space, mut ring) = ring();
    let half = Buffer::readable(0, 1 << 31);
    let exact = ring.add(&[half, half]);
    assert_eq!(walk(&space, &ring, exact).unwrap().readable.len(), 2);
    let over = ring.add(&[half, half, Buffer::writable(0, 1)]);
    malformed(&space, &ring, over);
    let most = ring.add(&[Buffer::readable(0, u32::MAX), Buffer::writable(0, u32::MAX)]);
    malformed(&space, &ring, most);
}

#[test]
fn indirect_tables_are_followed() {
    let (space, mut ring) = ring();
    let head =
        ring.add_indirect(TABLE, &[Buffer::readable(0x8000, 16), Buffer::writable(0x9000, 1)]);
    let chain = walk(&space, &ring, head).unwrap();
    assert_eq!(segments(&chain), (vec![(0x8000, 16)], vec![(0x9000, 1)]));
    // Tables need no alignment.
    let head = ring.add_indirect(TABLE + 0x101, &[Buffer::readable(0x8000, 3)]);
    assert_eq!(segments(&walk(&space, &ring, head).unwrap()).0, [(0x8000, 3)]);
}

// split.indirect.1
#[test]
fn write_on_an_indirect_entry_means_nothing() {
    let (space, ring) = ring();
    ring.set_table(TABLE, &[Buffer::readable(0x8000, 16)]);
    ring.set_descriptor(0, TABLE, 16, DESC_F_INDIRECT | DESC_F_WRITE, 0);
    let chain = walk(&space, &ring, 0).unwrap();
    assert_eq!(segments(&chain), (vec![(0x8000, 16)], vec![]));
}

// split.indirect.2
#[test]
fn direct_descriptors_may_come_before_the_table() {
    let (space, ring) = ring();
    ring.set_table(TABLE, &[Buffer::readable(0x9000, 2), Buffer::writable(0xa000, 3)]);
    ring.set_descriptor(3, 0x8000, 1, DESC_F_NEXT, 5);
    ring.set_descriptor(5, TABLE, 32, DESC_F_INDIRECT, 0);
    let chain = walk(&space, &ring, 3).unwrap();
    assert_eq!(segments(&chain), (vec![(0x8000, 1), (0x9000, 2)], vec![(0xa000, 3)]));
    // The order of directions holds across the table's edge.
    ring.set_descriptor(3, 0x8000, 1, DESC_F_NEXT | DESC_F_WRITE, 5);
    malformed(&space, &ring, 3);
}

#[test]
fn bad_indirect_entries_are_malformed() {
    let (space, ring) = ring();
    ring.set_table(TABLE, &[Buffer::readable(0x8000, 16), Buffer::readable(0x8000, 16)]);
    // QEMU 7423192912: no entries; then half an entry, and more than can be reached.
    for len in [0, 8, 24, (MAX_TABLE + 1) * 16] {
        ring.set_descriptor(0, TABLE, len, DESC_F_INDIRECT, 0);
        malformed(&space, &ring, 0);
    }
    // The table is too short for the chain in it.
    ring.set_descriptor(0, TABLE, 16, DESC_F_INDIRECT, 0);
    malformed(&space, &ring, 0);
    // More table than memory is fine as long as what the chain uses is there.
    ring.set_descriptor(0, TABLE, MAX_TABLE * 16, DESC_F_INDIRECT, 0);
    assert!(walk(&space, &ring, 0).is_ok());
    // Not in memory at all.
    ring.set_descriptor(0, 1 << 40, 32, DESC_F_INDIRECT, 0);
    malformed(&space, &ring, 0);
    // It must be the last of its chain.
    ring.set_descriptor(0, TABLE, 32, DESC_F_INDIRECT | DESC_F_NEXT, 1);
    malformed(&space, &ring, 0);
    // And not be in another table.
    ring.set_descriptor(0, TABLE, 32, DESC_F_INDIRECT, 0);
    ring.set_entry(TABLE, 1, TABLE, 16, DESC_F_INDIRECT, 0);
    malformed(&space, &ring, 0);
}

#[test]
fn indirect_descriptors_need_the_feature() {
    let (space, mut ring) = ring();
    let head = ring.add_indirect(TABLE, &[Buffer::readable(0x8000, 16)]);
    let walker = Walker::new(&*space, &ring.config(0));
    assert_eq!(walker.walk(&mut Chain::empty(head)), Err(QueueError::Chain { head }));
}

// split.framing.2
#[test]
fn the_length_of_indirect_chains_is_capped() {
    let (space, mut ring) = ring();
    let most = usize::from(MAX_CHAIN);
    let buffers = vec![Buffer::readable(0x8000, 1); most + 1];
    let head = ring.add_indirect(TABLE, &buffers[1..]);
    assert_eq!(walk(&space, &ring, head).unwrap().readable.len(), most);
    let head = ring.add_indirect(TABLE, &buffers);
    malformed(&space, &ring, head);
    // Direct descriptors before the table count.
    let first = ring.add(&[Buffer::readable(0x8000, 1)]);
    ring.set_table(TABLE, &buffers[1..]);
    ring.set_descriptor(first, 0x8000, 1, DESC_F_NEXT, head);
    ring.set_descriptor(head, TABLE, u32::from(MAX_CHAIN) * 16, DESC_F_INDIRECT, 0);
    malformed(&space, &ring, first);
}

#[test]
fn a_table_across_regions_is_one_table() {
    let regions = [(GuestAddress(0), 0x1020), (GuestAddress(0x1020), 0x8000)];
    let space: Space = Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap());
    let mut ring = DriverRing::new(space.clone(), 0x1000, SIZE);
    let head = ring.add(&[Buffer::readable(0x8000, 1); 5]);
    assert_eq!(walk(&space, &ring, head).unwrap().readable.len(), 5);
}

/// A descriptor as the model sees it.
type Raw = (u64, u32, u16, u16);

/// What the specification says of a chain, as a list with a set of what was seen.
fn model(ring: &[Raw], table: &[Raw], head: u16) -> Option<Segments> {
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    let (mut inside, mut index) = (false, head);
    loop {
        let source = if inside { table } else { ring };
        let (addr, len, flags, next) = *source.get(usize::from(index))?;
        if !seen.insert((inside, index))
            || (len > 0 && addr.checked_add(u64::from(len) - 1).is_none())
        {
            return None;
        }
        if flags & DESC_F_INDIRECT == 0 {
            all.push((addr, len, flags & DESC_F_WRITE != 0));
            match flags & DESC_F_NEXT {
                0 => break,
                _ => index = next,
            }
        } else {
            // The only table that the strategy makes has the right address; its length may lie.
            if inside || flags & DESC_F_NEXT != 0 || len as usize != table.len() * 16 || len == 0 {
                return None;
            }
            (inside, index) = (true, 0);
        }
    }
    let first_write = all.iter().position(|item| item.2).unwrap_or(all.len());
    let total: u64 = all.iter().map(|item| u64::from(item.1)).sum();
    if all[first_write..].iter().any(|item| !item.2) || total > 1 << 32 {
        return None;
    }
    let side = |list: &[(u64, u32, bool)]| {
        list.iter().filter(|item| item.1 != 0).map(|item| (item.0, item.1)).collect()
    };
    Some((side(&all[..first_write]), side(&all[first_write..])))
}

fn raw(entries: u16) -> impl Strategy<Value = Raw> {
    let plain = (
        prop_oneof![4 => Just(0x8000u64), 1 => any::<u64>()],
        prop_oneof![4 => 0u32..64, 1 => Just(u32::MAX), 1 => Just(1u32 << 31)],
        prop_oneof![8 => 0u16..4, 1 => any::<u16>().prop_map(|flags| flags & !DESC_F_INDIRECT)],
        0..entries + 1,
    );
    // Any length is told apart by the model only if it is no multiple of 16 or the table's own.
    let pointer = (
        Just(TABLE),
        prop_oneof![4 => Just(4 * 16u32), 1 => Just(0u32), 1 => Just(63u32)],
        prop_oneof![4 => Just(DESC_F_INDIRECT), 1 => Just(DESC_F_INDIRECT | DESC_F_WRITE),
            1 => Just(DESC_F_INDIRECT | DESC_F_NEXT)],
        0..entries + 1,
    );
    prop_oneof![6 => plain, 1 => pointer]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn the_walker_agrees_with_the_model(
        entries in prop::collection::vec(raw(SIZE), usize::from(SIZE)),
        table in prop::collection::vec(raw(4), 4),
        head in 0..SIZE + 1,
    ) {
        let (space, ring) = ring();
        for (index, (addr, len, flags, next)) in (0u16..).zip(&entries) {
            ring.set_descriptor(index, *addr, *len, *flags, *next);
        }
        for (index, (addr, len, flags, next)) in (0u16..).zip(&table) {
            ring.set_entry(TABLE, index, *addr, *len, *flags, *next);
        }
        let walked = walk(&space, &ring, head).ok().map(|chain| segments(&chain));
        prop_assert_eq!(walked, model(&entries, &table, head));
    }
}
