//! Memory that a client has without a file: pages of this process stand for it.
//!
//! The function uses them as it uses any memory. What it is about to read is fetched first, and what it
//! says that it has written is sent at once, before it goes on; so the client has everything in the order in which the
//! function has written it, and an interrupt comes after all of it. Nothing is remembered: what is read twice is
//! fetched twice.
//!
//! Bytes that one thread has written and not yet told of are lost if another fetches the same bytes in between. No
//! driver has a device read what it is about to write.
//!
//! Pages that were used stay in this process until nobody uses any of them. So when there are many they are
//! replaced by others, as memory that was mapped anew, and those before go with the last who has them.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bits::{PageBits, pages};
use super::mapping::Mapping;
use super::remote::{Refused, Remote};
use super::{DmaError, Range as ClientRange};

/// Pages of this process for memory of one client's.
#[derive(Debug)]
pub(super) struct Room {
    /// Used at a time, in all generations.
    used: AtomicU64,
    /// Of one generation, before there is another.
    generation: u64,
    /// In all. What takes more is refused.
    most: u64,
    /// Generations that somebody still has.
    generations: AtomicU64,
    /// Shadows in all of them. With more there is no other generation: each is two mappings of this process's, of
    /// which the kernel allows 65,530 unless told otherwise, for all clients.
    shadows: u64,
}

impl Room {
    #[cfg(test)]
    pub(super) fn small(generation: u64, most: u64, shadows: u64) -> Arc<Self> {
        Arc::new(Self { generation, most, shadows, ..Self::default() })
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Default for Room {
    /// 8 MiB and 1 GiB. The first is what a busy disk has in flight, times some; the second is so much more because
    /// each queue of a function may keep something of a generation of its own for as long as it has nothing
    /// to do.
    fn default() -> Self {
        let (used, generations) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { used, generation: 1 << 11, most: 1 << 18, generations, shadows: 1 << 13 }
    }
}

/// Pages that come and go together.
#[derive(Debug)]
pub(super) struct Generation {
    room: Arc<Room>,
    used: AtomicU64,
}

impl Generation {
    pub(super) fn new(room: &Arc<Room>) -> Arc<Self> {
        room.generations.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { room: room.clone(), used: AtomicU64::new(0) })
    }

    /// The one that follows it, of so many shadows.
    pub(super) fn next(&self, shadows: usize) -> Result<Arc<Self>, DmaError> {
        let generations = self.room.generations.load(Ordering::Relaxed).saturating_add(1);
        if generations.saturating_mul(shadows as u64) > self.room.shadows {
            return Err(DmaError::TooMany);
        }
        Ok(Self::new(&self.room))
    }

    /// Whether it is time for another.
    pub(super) fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.room.generation
    }

    /// Notes that pages are used, if there is room for so many.
    fn take(&self, pages: u64) -> Result<(), Refused> {
        let room = &self.room;
        let taken = room.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(pages).filter(|used| *used <= room.most)
        });
        taken.map_err(|_| Refused)?;
        self.used.fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }

    /// Some of them are not, after all.
    fn give_back(&self, pages: u64) {
        self.used.fetch_sub(pages, Ordering::Relaxed);
        self.room.used.fetch_sub(pages, Ordering::Relaxed);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.room.used.fetch_sub(*self.used.get_mut(), Ordering::Relaxed);
        self.room.generations.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Memory of the client's, as long as it is mapped.
pub(super) struct Lent {
    /// None when nothing of it is accessed any more: it was unmapped, or the client has refused a write. The function
    /// takes a write to be done, so it has to notice at its next access at the latest.
    remote: Mutex<Option<Arc<Remote>>>,
    range: ClientRange,
}

impl Lent {
    pub(super) fn new(remote: Arc<Remote>, range: ClientRange) -> Arc<Self> {
        Arc::new(Self { remote: Mutex::new(Some(remote)), range })
    }

    fn remote(&self) -> MutexGuard<'_, Option<Arc<Remote>>> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing of it is accessed any more.
    pub(super) fn close(&self) {
        *self.remote() = None;
    }

    /// Who reads and writes it.
    fn open(&self) -> Result<Arc<Remote>, Refused> {
        self.remote().clone().ok_or(Refused)
    }
}

/// The pages that one generation has for such memory.
pub(super) struct Shadow {
    lent: Arc<Lent>,
    pages: Arc<Mapping>,
    /// Which were used.
    used: PageBits,
    generation: Arc<Generation>,
}

impl Shadow {
    pub(super) fn new(lent: Arc<Lent>, generation: Arc<Generation>) -> Result<Self, DmaError> {
        let size = lent.range.size;
        let pages = Arc::new(Mapping::anonymous(size)?);
        Ok(Self { lent, pages, used: PageBits::new(size)?, generation })
    }

    pub(super) fn lent(&self) -> &Arc<Lent> {
        &self.lent
    }

    pub(super) fn mapping(&self) -> &Arc<Mapping> {
        &self.pages
    }

    pub(super) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// Makes ready for an access to `bytes` of it, which are read if `reads`.
    pub(super) fn prepare(&self, bytes: Range<usize>, reads: bool) -> Result<(), Refused> {
        let remote = self.lent.open()?;
        let pages = pages(bytes.start, bytes.len());
        // What is in use already is never refused: it has to be sent when it was written.
        let count = pages.end - pages.start;
        if count > self.generation.room.most {
            return Err(Refused);
        }
        if !self.used.all(pages.clone()) {
            self.generation.take(count)?;
            self.generation.give_back(count.saturating_sub(self.used.set(pages)));
        }
        if reads {
            let address = self.lent.range.address.wrapping_add(bytes.start as u64);
            let memory = self.pages.slice();
            remote.read(address, bytes.len(), |at, data| {
                let place = memory.subslice(bytes.start.saturating_add(at), data.len());
                place.map_err(|_| Refused)?.copy_from(data);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Sends what was written.
    pub(super) fn send(&self, offset: usize, len: usize) {
        // Memory that was unmapped takes no more, and who writes to it is late.
        let Ok(remote) = self.lent.open() else { return };
        let (mut at, mut left) = (offset, len);
        let most = remote.most();
        let mut data = vec![0; most.min(len)];
        while left > 0 {
            let now = left.min(most);
            let place = self.pages.slice().subslice(at, now);
            let (Some(data), Ok(memory)) = (data.get_mut(..now), place) else { return };
            memory.copy_to(data);
            let address = self.lent.range.address.wrapping_add(at as u64);
            if remote.write(address, data).is_err() {
                return self.lent.close();
            }
            at = at.saturating_add(now);
            left -= now;
        }
    }
}
