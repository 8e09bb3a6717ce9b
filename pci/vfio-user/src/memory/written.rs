//! What the function has written: noted while the client wants to know, and sent where that is how it gets there.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vm_memory::bitmap::{Bitmap, RefSlice, WithBitmapSlice};

use super::DmaError;
use super::bits::{PageBits, pages};
use super::shadow::Shadow;

/// What hears of every write to one range of a client's memory. The pages that were written are noted, from when the
/// client has asked for it (VFIO's DMA logging); no memory is needed before. What was written to memory
/// without a file is sent.
///
/// Clones are of the same range.
#[derive(Clone, Default)]
pub struct Written {
    log: Arc<Log>,
    /// What stands for the memory, if it has no file.
    shadow: Option<Arc<Shadow>>,
}

#[derive(Default)]
struct Log {
    /// Whether there is something in `bits`, for a look without the lock.
    on: AtomicBool,
    bits: RwLock<Option<PageBits>>,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, shadow } = self;
        f.debug_struct("Written").field("on", &log.on).field("sent", &shadow.is_some()).finish()
    }
}

impl Written {
    /// The same log, for memory that `shadow` stands for.
    pub(super) fn with_shadow(&self, shadow: Arc<Shadow>) -> Self {
        Self { log: self.log.clone(), shadow: Some(shadow) }
    }

    /// What stands for the memory, if it has no file.
    pub(super) fn shadow(&self) -> Option<&Arc<Shadow>> {
        self.shadow.as_ref()
    }

    /// Notes pages of `size` bytes of memory from now on, unless that is so already. To be called while the
    /// function is quiet: nothing orders a write of it before this call otherwise.
    pub(super) fn start(&self, size: u64) -> Result<(), DmaError> {
        let mut bits = self.log.bits.write().unwrap_or_else(PoisonError::into_inner);
        if bits.is_none() {
            *bits = Some(PageBits::new(size)?);
        }
        self.log.on.store(true, Ordering::Release);
        Ok(())
    }

    /// Notes nothing any more.
    pub(super) fn stop(&self) {
        self.log.on.store(false, Ordering::Release);
        *self.log.bits.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Tells of the pages among `pages` that were written since they were last told of.
    pub(super) fn take(&self, pages: Range<u64>, tell: impl FnMut(u64)) {
        let bits = self.log.bits.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(bits) = &*bits {
            bits.take(pages, tell);
        }
    }
}

impl<'a> WithBitmapSlice<'a> for Written {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for Written {
    fn mark_dirty(&self, offset: usize, len: usize) {
        // First what was written, then that it was: who is told of it and then copies it has all of it.
        if let Some(shadow) = &self.shadow {
            shadow.send(offset, len);
        }
        if self.log.on.load(Ordering::Acquire) {
            let bits = self.log.bits.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(bits) = &*bits {
                bits.set(pages(offset, len));
            }
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let bits = self.log.bits.read().unwrap_or_else(PoisonError::into_inner);
        bits.as_ref().is_some_and(|bits| bits.any(pages(offset, 1)))
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::PAGE;

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
