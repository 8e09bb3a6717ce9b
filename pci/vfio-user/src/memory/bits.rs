//! A bit for each page of some memory, which many threads set.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::{MmapRegion, VolatileMemory};

use super::DmaError;
use crate::version::PAGE;

/// Pages to a word of bits.
const BITS: u64 = 64;

/// The bits. They take memory only where one was set.
pub(super) struct PageBits(MmapRegion<()>);

impl PageBits {
    /// All clear, for `size` bytes of memory.
    pub(super) fn new(size: u64) -> Result<Self, DmaError> {
        let bytes = size.div_ceil(PAGE).div_ceil(BITS).saturating_mul(8);
        let bytes = usize::try_from(bytes).map_err(|_| DmaError::TooMany)?;
        Ok(Self(MmapRegion::new(bytes).map_err(|_| DmaError::TooMany)?))
    }

    /// Sets the bits of `pages`; says how many were clear.
    pub(super) fn set(&self, pages: Range<u64>) -> u64 {
        let mut new = 0;
        self.words(pages, |word, _, mask| {
            if word.load(Ordering::Acquire) & mask != mask {
                new += u64::from((mask & !word.fetch_or(mask, Ordering::AcqRel)).count_ones());
            }
        });
        new
    }

    /// Whether one of `pages` is set.
    pub(super) fn any(&self, pages: Range<u64>) -> bool {
        let mut any = false;
        self.words(pages, |word, _, mask| any |= word.load(Ordering::Acquire) & mask != 0);
        any
    }

    /// Whether all of `pages` are set.
    pub(super) fn all(&self, pages: Range<u64>) -> bool {
        let mut all = true;
        self.words(pages, |word, _, mask| all &= word.load(Ordering::Acquire) & mask == mask);
        all
    }

    /// Clears those of `pages`, and tells of each that was set.
    pub(super) fn take(&self, pages: Range<u64>, mut tell: impl FnMut(u64)) {
        self.words(pages, |word, first, mask| {
            // Pages that are clear are not written to be cleared.
            if word.load(Ordering::Relaxed) & mask == 0 {
                return;
            }
            let mut set = word.fetch_and(!mask, Ordering::AcqRel) & mask;
            while set != 0 {
                tell(first + u64::from(set.trailing_zeros()));
                set &= set - 1;
            }
        });
    }

    /// Calls `act` with each word that has bits of `pages`, the page of its first bit, and a mask of them.
    fn words(&self, pages: Range<u64>, mut act: impl FnMut(&AtomicU64, u64, u64)) {
        let mut page = pages.start;
        while page < pages.end {
            let first = page / BITS * BITS;
            let next = first.saturating_add(BITS).min(pages.end);
            let mask = (u64::MAX >> (BITS - (next - page))) << (page - first);
            let place = usize::try_from(first / 8).ok();
            // Where there is no word there is no such page either.
            let word = place.and_then(|place| self.0.get_atomic_ref::<AtomicU64>(place).ok());
            let Some(word) = word else { return };
            act(word, first, mask);
            page = next;
        }
    }
}

/// The pages that bytes are in.
pub(super) fn pages(offset: usize, len: usize) -> Range<u64> {
    let (offset, len) = (offset as u64, len as u64);
    let start = offset / PAGE;
    let end = if len == 0 { start } else { offset.saturating_add(len - 1) / PAGE + 1 };
    start..end
}
