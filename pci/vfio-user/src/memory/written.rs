//! Which of the client's pages the function has written, while the client wants to know.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vm_memory::bitmap::{Bitmap, RefSlice, WithBitmapSlice};
use vm_memory::{MmapRegion, VolatileMemory};

use super::DmaError;
use crate::version::PAGE;

/// Pages to a word of bits.
const BITS: u64 = 64;

/// The pages of one range of a client's memory that were written. Nothing is noted, and no memory needed,
/// before the client has asked for it (VFIO's DMA logging).
///
/// Clones are of the same range.
#[derive(Clone, Default)]
pub struct Written(Arc<State>);

#[derive(Default)]
struct State {
    /// Whether there is something in `bits`, for a look without the lock.
    on: AtomicBool,
    /// A bit for each page. Memory that is only there once it was written.
    bits: RwLock<Option<MmapRegion<()>>>,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("on", &self.0.on).finish()
    }
}

impl Written {
    /// Notes pages of `size` bytes of memory from now on, unless that is so already. To be called while the
    /// function is quiet: nothing orders a write of it before this call otherwise.
    pub(super) fn start(&self, size: u64) -> Result<(), DmaError> {
        let mut bits = self.0.bits.write().unwrap_or_else(PoisonError::into_inner);
        if bits.is_none() {
            let bytes = size.div_ceil(PAGE).div_ceil(BITS).saturating_mul(8);
            let bytes = usize::try_from(bytes).map_err(|_| DmaError::TooMany)?;
            *bits = Some(MmapRegion::new(bytes).map_err(|_| DmaError::TooMany)?);
        }
        self.0.on.store(true, Ordering::Release);
        Ok(())
    }

    /// Notes nothing any more.
    pub(super) fn stop(&self) {
        self.0.on.store(false, Ordering::Release);
        *self.0.bits.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Tells of the pages among `pages` that were written since they were last told of.
    pub(super) fn take(&self, pages: Range<u64>, mut tell: impl FnMut(u64)) {
        self.words(pages, |word, first, mask| {
            // Pages that are clean are not written to be cleared.
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
        let bits = self.0.bits.read().unwrap_or_else(PoisonError::into_inner);
        let Some(bits) = &*bits else { return };
        let mut page = pages.start;
        while page < pages.end {
            let first = page / BITS * BITS;
            let next = first.saturating_add(BITS).min(pages.end);
            let mask = (u64::MAX >> (BITS - (next - page))) << (page - first);
            let place = usize::try_from(first / 8).ok();
            // Where there is no word there is no such page either.
            let word = place.and_then(|place| bits.get_atomic_ref::<AtomicU64>(place).ok());
            let Some(word) = word else { return };
            act(word, first, mask);
            page = next;
        }
    }
}

/// The pages that bytes are in.
fn pages(offset: usize, len: usize) -> Range<u64> {
    let (offset, len) = (offset as u64, len as u64);
    let start = offset / PAGE;
    let end = if len == 0 { start } else { offset.saturating_add(len - 1) / PAGE + 1 };
    start..end
}

impl<'a> WithBitmapSlice<'a> for Written {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for Written {
    fn mark_dirty(&self, offset: usize, len: usize) {
        if self.0.on.load(Ordering::Acquire) {
            self.words(pages(offset, len), |word, _, mask| {
                word.fetch_or(mask, Ordering::AcqRel);
            });
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let mut dirty = false;
        self.words(pages(offset, 1), |word, _, mask| {
            dirty = word.load(Ordering::Acquire) & mask != 0;
        });
        dirty
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 200 * PAGE;

    fn taken(written: &Written, pages: Range<u64>) -> Vec<u64> {
        let mut list = Vec::new();
        written.take(pages, |page| list.push(page));
        list
    }

    fn mark(written: &Written, offset: u64, len: u64) {
        written.mark_dirty(offset.try_into().unwrap(), len.try_into().unwrap());
    }

    #[test]
    fn nothing_is_noted_before_it_is_asked_for_and_afterwards() {
        let written = Written::default();
        mark(&written, 0, SIZE);
        assert!(taken(&written, 0..200).is_empty());
        written.start(SIZE).unwrap();
        assert!(taken(&written, 0..200).is_empty());
        mark(&written, PAGE, 1);
        written.start(SIZE).unwrap();
        assert_eq!(taken(&written, 0..200), [1], "the second start is none");
        mark(&written, PAGE, 1);
        written.stop();
        assert!(taken(&written, 0..200).is_empty());
        written.start(SIZE).unwrap();
        assert!(taken(&written, 0..200).is_empty());
    }

    #[test]
    fn every_page_of_a_write_is_told_of_once() {
        let written = Written::default();
        written.start(SIZE).unwrap();
        for (offset, len, pages) in [
            (0, 0, 0..0),
            (0, 1, 0..1),
            (PAGE - 1, 2, 0..2),
            (62 * PAGE + 5, 2 * PAGE, 62..65),
            (63 * PAGE, PAGE, 63..64),
            (64 * PAGE, 64 * PAGE, 64..128),
            (10 * PAGE, 180 * PAGE, 10..190),
            (199 * PAGE, PAGE, 199..200),
        ] {
            mark(&written, offset, len);
            let all: Vec<_> = pages.clone().collect();
            for page in &all {
                assert!(written.dirty_at((page * PAGE).try_into().unwrap()));
            }
            assert_eq!(taken(&written, 0..200), all, "{offset:#x} {len:#x}");
            assert!(taken(&written, 0..200).is_empty());
            // In two parts.
            mark(&written, offset, len);
            for half in [0..70, 70..200] {
                let here: Vec<_> = all.iter().copied().filter(|page| half.contains(page)).collect();
                assert_eq!(taken(&written, half), here);
            }
        }
        // What lies outside is nobody's.
        mark(&written, u64::MAX - 1, 2);
        mark(&written, SIZE + 100 * PAGE, PAGE);
        assert!(taken(&written, 0..u64::MAX).is_empty());
    }

    #[test]
    fn a_slice_marks_what_it_is_a_slice_of() {
        let written = Written::default();
        written.start(SIZE).unwrap();
        let at = usize::try_from(5 * PAGE).unwrap();
        written.slice_at(at).slice_at(at).mark_dirty(1, 1);
        assert_eq!(taken(&written, 0..200), [10]);
    }
}
