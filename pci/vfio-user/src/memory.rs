//! The client's memory, as the function sees it.

mod bits;
mod mapping;
mod remote;
mod shadow;
mod sigbus;
mod space;
mod written;

use std::io;
use std::ops::Range as Span;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{GuestAddressSpace, Permissions};
use vmm_sys_util::eventfd::EventFd;

use crate::version::{MAX_MAPS, PAGE};
use crate::wire::dma;
use mapping::Mapping;
use shadow::{Generation, Lent, Room};
use space::Mapped;

pub(crate) use remote::Remote;
pub use sigbus::survive_lost_memory;
pub use space::{ClientMemory, ClientSpace};
pub use written::Written;

/// Bytes of memory of which it is noted what is written, at most: it takes 32 MiB to a TiB.
const MAX_LOGGED: u64 = 1 << 42;

/// Bytes of memory without files, at most: each is an address of this process too, in each generation.
const MAX_LENT: u64 = 1 << 40;

/// Why memory was not mapped or unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DmaError {
    /// What was asked for makes no sense.
    Malformed,
    /// There is such memory already, or part of it.
    Exists,
    /// There is no such memory.
    Missing,
    /// No more can be mapped.
    TooMany,
    /// It comes without a file, and the client takes and gives no data.
    NoFile,
    /// The kernel refused it.
    Kernel(i32),
}

impl DmaError {
    fn from_io(error: &io::Error) -> Self {
        Self::Kernel(error.raw_os_error().unwrap_or(libc::EIO))
    }

    pub(crate) fn errno(self) -> i32 {
        match self {
            Self::Malformed => libc::EINVAL,
            Self::Exists => libc::EEXIST,
            Self::Missing => libc::ENOENT,
            Self::TooMany => libc::ENOSPC,
            Self::NoFile => libc::EOPNOTSUPP,
            Self::Kernel(errno) => errno,
        }
    }
}

/// Memory of the client's: what it is called there, and where it is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) offset: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Range {
    /// One behind the last address.
    fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }

    fn permissions(&self) -> Permissions {
        match (self.readable, self.writable) {
            (true, true) => Permissions::ReadWrite,
            (true, false) => Permissions::Read,
            (false, true) => Permissions::Write,
            (false, false) => Permissions::No,
        }
    }
}

/// The memory of the client that is connected.
pub(crate) struct Shared {
    space: ClientSpace,
    /// Where it is to be noted what is written, if it is.
    log: Mutex<Option<Vec<Span<u64>>>>,
    room: Arc<Room>,
}

impl Shared {
    /// No memory.
    pub(crate) fn new() -> Self {
        Self::with_room(Arc::default())
    }

    fn with_room(room: Arc<Room>) -> Self {
        Self { space: ClientSpace::new(), log: Mutex::default(), room }
    }

    /// What the function gets.
    pub(crate) fn space(&self) -> ClientSpace {
        self.space.clone()
    }

    /// Adds memory that is in a file. `lost` is written if it goes away.
    pub(crate) fn map(
        &self,
        range: Range,
        fd: OwnedFd,
        lost: &Arc<EventFd>,
    ) -> Result<(), DmaError> {
        self.add(range, |_| {
            let mapping = Arc::new(Mapping::new(fd, range, lost)?);
            Ok(Mapped { range, mapping, written: Written::default() })
        })
    }

    /// Adds memory that `remote` reads and writes.
    pub(crate) fn map_remote(&self, range: Range, remote: &Arc<Remote>) -> Result<(), DmaError> {
        self.add(range, |now| {
            let lent = now.mapped.iter().filter(|one| one.written.shadow().is_some());
            let lent = lent.map(|one| one.range.size).fold(range.size, u64::saturating_add);
            if lent > MAX_LENT {
                return Err(DmaError::TooMany);
            }
            let generation = now.generation.clone().unwrap_or_else(|| Generation::new(&self.room));
            let lent = Lent::new(remote.clone(), range);
            Mapped::lent(lent, range, &Written::default(), generation)
        })
    }

    /// Adds what `make` makes, if there is room for `range`.
    fn add(
        &self,
        range: Range,
        make: impl FnOnce(&ClientMemory) -> Result<Mapped, DmaError>,
    ) -> Result<(), DmaError> {
        let Range { address, size, offset, readable, writable } = range;
        let aligned = [address, size, offset].iter().all(|at| at.is_multiple_of(PAGE));
        if size == 0 || !aligned || !(readable || writable) {
            return Err(DmaError::Malformed);
        }
        let end = address.checked_add(size).ok_or(DmaError::Malformed)?;
        self.space.change(|now| {
            let mut mapped = now.mapped.clone();
            let at = mapped.partition_point(|one| one.range.address < end);
            let below = at.checked_sub(1).and_then(|below| mapped.get(below));
            if below.is_some_and(|below| below.range.end() > address) {
                return Err(DmaError::Exists);
            }
            if mapped.len() >= MAX_MAPS {
                return Err(DmaError::TooMany);
            }
            mapped.insert(at, make(now)?);
            if let Some(ranges) = &*self.log() {
                start(&mapped, ranges)?;
            }
            Ok(Some(mapped))
        })
    }

    /// Whether exactly this memory is mapped.
    pub(crate) fn has(&self, address: u64, size: u64) -> bool {
        let memory = self.space.memory();
        memory.mapped.iter().any(|one| one.range.address == address && one.range.size == size)
    }

    /// Takes away exactly this memory, or all. To be called while the function is quiet: it may have
    /// addresses of that memory, whose contents are gone.
    pub(crate) fn unmap(&self, which: Option<(u64, u64)>) -> Result<(), DmaError> {
        let goes = |one: &Mapped| {
            which.is_none_or(|(address, size)| {
                one.range.address == address && one.range.size == size
            })
        };
        let mut gone = Vec::new();
        let replaced = self.space.change(|now| {
            let left;
            (gone, left) = now.mapped.iter().cloned().partition(goes);
            if gone.is_empty() && which.is_some() {
                return Err(DmaError::Missing);
            }
            Ok(Some(left))
        });
        gone.iter().for_each(Mapped::revoke);
        replaced
    }

    fn log(&self) -> MutexGuard<'_, Option<Vec<Span<u64>>>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is written to memory of which part lies in one of `ranges`, besides what is noted already,
    /// and to such memory that is mapped from now on. To be called while the function is quiet.
    pub(crate) fn start_log(&self, ranges: Vec<Span<u64>>) -> Result<(), DmaError> {
        let mut log = self.log();
        let mut wanted = log.clone().unwrap_or_default();
        let new: Vec<_> = ranges.into_iter().filter(|range| !wanted.contains(range)).collect();
        wanted.extend(new);
        if wanted.len() > MAX_MAPS {
            return Err(DmaError::TooMany);
        }
        start(&self.space.memory().mapped, &wanted)?;
        *log = Some(wanted);
        Ok(())
    }

    /// Notes nothing any more.
    pub(crate) fn stop_log(&self) {
        *self.log() = None;
        self.space.memory().mapped.iter().for_each(|one| one.written.stop());
    }

    /// Tells of the pages in `range` that were written since they were last told of, by their addresses.
    /// Returns whether it is noted at all.
    pub(crate) fn take_log(&self, range: Span<u64>, mut tell: impl FnMut(u64)) -> bool {
        if self.log().is_none() {
            return false;
        }
        for one in &self.space.memory().mapped {
            let (from, to) = (one.range.address, one.range.end());
            let (start, end) = (range.start.max(from), range.end.min(to));
            if start < end {
                let pages = (start - from) / PAGE..(end - from).div_ceil(PAGE);
                one.written.take(pages, |page| tell(from + page * PAGE));
            }
        }
        true
    }
}

/// Notes what is written to those of `mapped` that lie in one of `ranges`. If there is too much of that, it
/// is as before.
fn start(mapped: &[Mapped], ranges: &[Span<u64>]) -> Result<(), DmaError> {
    let lies_in = |one: &&Mapped| {
        let Range { address, .. } = one.range;
        ranges.iter().any(|range| address < range.end && range.start < one.range.end())
    };
    let sizes = mapped.iter().filter(lies_in).map(|one| one.range.size);
    let total = sizes.fold(0, u64::saturating_add);
    if total > MAX_LOGGED {
        return Err(DmaError::TooMany);
    }
    mapped.iter().filter(lies_in).try_for_each(|one| one.written.start(one.range.size))
}

impl Range {
    /// What a message asks for.
    pub(crate) fn new(map: crate::wire::DmaMap) -> Result<Self, DmaError> {
        let crate::wire::DmaMap { flags, offset, address, size } = map;
        if flags & !(dma::READ | dma::WRITE) != 0 {
            return Err(DmaError::Malformed);
        }
        let (readable, writable) = (flags & dma::READ != 0, flags & dma::WRITE != 0);
        Ok(Self { address, size, offset, readable, writable })
    }
}

#[cfg(test)]
mod tests;
