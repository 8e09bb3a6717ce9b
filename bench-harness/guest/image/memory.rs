//! What to use of the machine's addresses. Pure, so that the host tests it.

use core::ops::Range;

/// Nothing of the first MiB is used: firmware lives there.
const LOW: u64 = 1 << 20;
/// Where the interrupt controllers and the firmware's ROM start, above everything else.
const HOLE_END: u64 = 0xfec0_0000;
/// The granularity of both ranges.
const ALIGN: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// One range of the machine's memory map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Whether it is memory that may be used.
    pub usable: bool,
}

impl Entry {
    /// `len` bytes from `start` on, as far as addresses go.
    pub(crate) const fn new(start: u64, len: u64, usable: bool) -> Self {
        Self { start, end: start.saturating_add(len), usable }
    }
}

/// The largest part of `bounds` that none of `taken` touches, in multiples of [`ALIGN`].
fn largest_free<'a>(
    bounds: Range<u64>,
    taken: impl Iterator<Item = Range<u64>> + Clone + 'a,
) -> Range<u64> {
    let mut best = 0..0;
    // A free part starts at the beginning or where something ends.
    let starts = core::iter::once(bounds.start).chain(taken.clone().map(|range| range.end));
    for start in starts.filter(|start| bounds.contains(start)) {
        // Something that ends behind `start` bounds it from above, or covers it.
        let next = taken.clone().filter(|range| range.end > start && range.start < range.end);
        let end = next.map(|range| range.start).fold(bounds.end, u64::min);
        let (start, end) = (start.next_multiple_of(ALIGN), end / ALIGN * ALIGN);
        if end > start && end - start > best.end - best.start {
            best = start..end;
        }
    }
    best
}

/// Memory for everything that is allocated: the largest usable range below 4 GiB without the image.
pub(crate) fn pool(map: &[Entry], image: Range<u64>) -> Range<u64> {
    let usable = map.iter().filter(|entry| entry.usable);
    let mut best = 0..0;
    for entry in usable {
        let bounds = entry.start.max(LOW)..entry.end.min(1 << 32);
        // Firmware may list a reserved range inside a usable one.
        let reserved = map.iter().filter(|entry| !entry.usable).map(|entry| entry.start..entry.end);
        let free = largest_free(bounds, reserved.chain(core::iter::once(image.clone())));
        if free.end - free.start > best.end - best.start {
            best = free;
        }
    }
    best
}

/// Addresses for BARs that the firmware left unassigned: the upper half of the largest hole between
/// memory and the interrupt controllers, since firmware assigns from the bottom.
pub(crate) fn bar_space(map: &[Entry]) -> Range<u64> {
    let memory = map.iter().filter(|entry| entry.usable && entry.start < 1 << 32);
    let top = memory.map(|entry| entry.end).fold(0, u64::max);
    if top >= HOLE_END {
        return 0..0;
    }
    let hole = largest_free(top..HOLE_END, map.iter().map(|entry| entry.start..entry.end));
    let middle = (hole.start + hole.end) / 2;
    middle.next_multiple_of(ALIGN).min(hole.end)..hole.end
}

/// Hands out pages of a pool, for good.
#[derive(Debug)]
pub(crate) struct Allocator {
    next: u64,
    end: u64,
}

impl Allocator {
    /// All of `pool` is free.
    pub(crate) const fn new(pool: Range<u64>) -> Self {
        Self { next: pool.start, end: pool.end }
    }

    /// The address of `len` bytes, rounded up to pages.
    pub(crate) fn allocate(&mut self, len: usize) -> Option<u64> {
        let len = u64::try_from(len).ok()?.max(1).checked_next_multiple_of(PAGE)?;
        let start = self.next;
        let end = start.checked_add(len).filter(|end| *end <= self.end)?;
        self.next = end;
        Some(start)
    }
}
