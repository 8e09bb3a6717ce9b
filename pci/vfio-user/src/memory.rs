//! The client's memory, as the function sees it.

mod mapping;
mod sigbus;
mod written;

use std::io;
use std::ops::Range as Span;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result as MemoryResult};
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryAtomic, GuestMemoryMmap, Permissions,
};
use vmm_sys_util::eventfd::EventFd;

use crate::version::{MAX_MAPS, PAGE};
use crate::wire::dma;
use mapping::Mapping;

pub use sigbus::survive_lost_memory;
pub use written::Written;

/// Bytes of memory of which it is noted what is written, at most: it takes 32 MiB to a TiB.
const MAX_LOGGED: u64 = 1 << 42;

/// Memory that a client has shared, which changes whenever it maps or unmaps some.
pub type ClientSpace = GuestMemoryAtomic<ClientMemory>;

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
    /// It comes without a file.
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

#[derive(Clone)]
struct Mapped {
    range: Range,
    mapping: Arc<Mapping>,
    written: Written,
}

/// One state of the client's memory. It can be read and written where the client has said so.
pub struct ClientMemory {
    /// The mappings' memory, in the same order.
    memory: GuestMemoryMmap<Written>,
    /// By address.
    mapped: Vec<Mapped>,
    /// All of it can be read and written, as a VMM's own memory can: then there is nothing to look up, for each
    /// access to a ring.
    unrestricted: bool,
}

impl ClientMemory {
    fn new(mapped: Vec<Mapped>) -> Result<Self, DmaError> {
        let regions: Option<Vec<_>> = mapped
            .iter()
            .map(|one| one.mapping.region(one.range.address, one.written.clone()))
            .collect();
        let regions = regions.ok_or(DmaError::Malformed)?;
        let memory = if regions.is_empty() {
            GuestMemoryMmap::new()
        } else {
            GuestMemoryMmap::from_regions(regions).map_err(|_| DmaError::Exists)?
        };
        let unrestricted = mapped.iter().all(|one| one.range.readable && one.range.writable);
        Ok(Self { memory, mapped, unrestricted })
    }

    /// Whether nothing that is mapped there forbids it. Where nothing is mapped, `memory` has nothing either.
    #[inline]
    fn allows(&self, address: GuestAddress, count: usize, access: Permissions) -> bool {
        self.unrestricted || self.permit(address, count, access)
    }

    fn permit(&self, address: GuestAddress, count: usize, access: Permissions) -> bool {
        let end = address.0.saturating_add(count as u64);
        let first = self.mapped.partition_point(|one| one.range.end() <= address.0);
        let touched = self.mapped.iter().skip(first).take_while(|one| one.range.address < end);
        touched.map(|one| one.range.permissions()).all(|allowed| allowed.allow(access))
    }
}

impl GuestMemory for ClientMemory {
    type PhysicalMemory = GuestMemoryMmap<Written>;
    type Bitmap = Written;

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.allows(addr, count, access)
            && GuestMemory::check_range(&self.memory, addr, count, access)
    }

    #[inline]
    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        if !self.allows(addr, count, access) {
            return Err(Error::InvalidGuestAddress(addr));
        }
        GuestMemory::get_slices(&self.memory, addr, count, access)
    }
}

/// The memory of the client that is connected.
pub(crate) struct Shared {
    space: ClientSpace,
    /// Where it is to be noted what is written, if it is.
    log: Mutex<Option<Vec<Span<u64>>>>,
}

impl Shared {
    /// No memory.
    pub(crate) fn new() -> Self {
        let none =
            ClientMemory { memory: GuestMemoryMmap::new(), mapped: Vec::new(), unrestricted: true };
        Self { space: GuestMemoryAtomic::new(none), log: Mutex::default() }
    }

    /// What the function gets.
    pub(crate) fn space(&self) -> ClientSpace {
        self.space.clone()
    }

    /// Adds memory. `lost` is written if it goes away.
    pub(crate) fn map(
        &self,
        range: Range,
        fd: Option<OwnedFd>,
        lost: &Arc<EventFd>,
    ) -> Result<(), DmaError> {
        let Range { address, size, offset, readable, writable } = range;
        let aligned = [address, size, offset].iter().all(|at| at.is_multiple_of(PAGE));
        if size == 0 || !aligned || !(readable || writable) {
            return Err(DmaError::Malformed);
        }
        let end = address.checked_add(size).ok_or(DmaError::Malformed)?;
        let mut mapped = self.space.memory().mapped.clone();
        let at = mapped.partition_point(|one| one.range.address < end);
        if at
            .checked_sub(1)
            .and_then(|below| mapped.get(below))
            .is_some_and(|b| b.range.end() > address)
        {
            return Err(DmaError::Exists);
        }
        if mapped.len() >= MAX_MAPS {
            return Err(DmaError::TooMany);
        }
        let mapping = Mapping::new(fd.ok_or(DmaError::NoFile)?, range, lost)?;
        let one = Mapped { range, mapping: Arc::new(mapping), written: Written::default() };
        mapped.insert(at, one);
        if let Some(ranges) = &*self.log() {
            start(&mapped, ranges)?;
        }
        self.replace(mapped)
    }

    /// Whether exactly this memory is mapped.
    pub(crate) fn has(&self, address: u64, size: u64) -> bool {
        let memory = self.space.memory();
        memory.mapped.iter().any(|one| one.range.address == address && one.range.size == size)
    }

    /// Takes away exactly this memory, or all. To be called while the function is quiet: it may have
    /// addresses of that memory, whose contents are gone.
    pub(crate) fn unmap(&self, which: Option<(u64, u64)>) -> Result<(), DmaError> {
        let mapped = self.space.memory().mapped.clone();
        let goes = |one: &Mapped| {
            which.is_none_or(|(address, size)| {
                one.range.address == address && one.range.size == size
            })
        };
        let (gone, left): (Vec<_>, Vec<_>) = mapped.into_iter().partition(goes);
        if gone.is_empty() && which.is_some() {
            return Err(DmaError::Missing);
        }
        let replaced = self.replace(left);
        for one in gone {
            one.mapping.revoke();
        }
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

    fn replace(&self, mapped: Vec<Mapped>) -> Result<(), DmaError> {
        let memory = ClientMemory::new(mapped)?;
        self.space.lock().unwrap_or_else(PoisonError::into_inner).replace(memory);
        Ok(())
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
