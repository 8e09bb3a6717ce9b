//! The client's memory at one time, and what it is replaced by when it changes.

use std::sync::{Arc, PoisonError};

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result as MemoryResult};
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryAtomic, GuestMemoryLoadGuard,
    GuestMemoryMmap, Permissions,
};

use super::mapping::Mapping;
use super::shadow::{Generation, Lent, Shadow};
use super::{DmaError, Range, Written};

#[derive(Clone)]
pub(super) struct Mapped {
    pub(super) range: Range,
    pub(super) mapping: Arc<Mapping>,
    pub(super) written: Written,
}

impl Mapped {
    /// Memory without a file, for which pages of `generation` are to stand.
    pub(super) fn lent(
        lent: Arc<Lent>,
        range: Range,
        written: &Written,
        generation: Arc<Generation>,
    ) -> Result<Self, DmaError> {
        let shadow = Arc::new(Shadow::new(lent, generation)?);
        let mapping = shadow.mapping().clone();
        Ok(Self { range, mapping, written: written.with_shadow(shadow) })
    }

    /// Nothing of the client's is there any more, nor the client.
    pub(super) fn revoke(&self) {
        if let Some(shadow) = self.written.shadow() {
            shadow.lent().close();
        }
        self.mapping.revoke();
    }
}

/// One state of the client's memory. It can be read and written where the client has said so.
pub struct ClientMemory {
    /// The mappings' memory, in the same order.
    memory: GuestMemoryMmap<Written>,
    /// By address.
    pub(super) mapped: Vec<Mapped>,
    /// All of it is shared and can be read and written, as a VMM's own memory can: then there is nothing to look up,
    /// for each access to a ring.
    unrestricted: bool,
    /// The pages that stand for what is not shared.
    pub(super) generation: Option<Arc<Generation>>,
}

impl ClientMemory {
    pub(super) fn new(mapped: Vec<Mapped>) -> Result<Self, DmaError> {
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
        let generation = mapped.iter().find_map(|one| Some(one.written.shadow()?.generation()));
        let generation = generation.cloned();
        let unrestricted = generation.is_none()
            && mapped.iter().all(|one| one.range.readable && one.range.writable);
        Ok(Self { memory, mapped, unrestricted, generation })
    }

    /// Whether it is time for another generation of pages.
    fn is_full(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.is_full())
    }

    /// The same memory with other pages for what is not shared.
    fn next_generation(&self) -> Result<Vec<Mapped>, DmaError> {
        let shadows = self.mapped.iter().filter(|one| one.written.shadow().is_some()).count();
        let next = self.generation.as_ref().map(|generation| generation.next(shadows));
        let next = next.transpose()?;
        let renewed = self.mapped.iter().map(|one| match (one.written.shadow(), &next) {
            (Some(shadow), Some(next)) => {
                Mapped::lent(shadow.lent().clone(), one.range, &one.written, next.clone())
            }
            _ => Ok(one.clone()),
        });
        renewed.collect()
    }

    /// Whether nothing that is mapped there forbids it. Where nothing is mapped, `memory` has nothing either.
    fn permit(&self, address: GuestAddress, count: usize, access: Permissions) -> bool {
        let mut touched = self.touched(address, count);
        touched.all(|one| one.range.permissions().allow(access))
    }

    /// What is mapped of `count` bytes from `address` on.
    fn touched(&self, address: GuestAddress, count: usize) -> impl Iterator<Item = &Mapped> {
        let end = address.0.saturating_add(count as u64);
        let first = self.mapped.partition_point(|one| one.range.end() <= address.0);
        self.mapped.iter().skip(first).take_while(move |one| one.range.address < end)
    }

    /// Makes ready for an access: what has no file is fetched if it is to be read. Says whether there can be one.
    fn prepare(&self, address: GuestAddress, count: usize, access: Permissions) -> bool {
        let mut is_lent = false;
        for one in self.touched(address, count) {
            if !one.range.permissions().allow(access) {
                return false;
            }
            is_lent |= one.written.shadow().is_some();
        }
        if !is_lent || access == Permissions::No {
            return true;
        }
        // Nothing is fetched of what is not all there.
        let (memory, reads) = (&self.memory, access.allow(Permissions::Read));
        GuestMemory::check_range(memory, address, count, access)
            && self.touched(address, count).all(|one| {
                let Some(shadow) = one.written.shadow() else { return true };
                let Range { address: first, .. } = one.range;
                let inside = |at: u64| usize::try_from(at.clamp(first, one.range.end()) - first);
                let end = address.0.saturating_add(count as u64);
                let (Ok(start), Ok(end)) = (inside(address.0), inside(end)) else { return false };
                shadow.prepare(start..end, reads).is_ok()
            })
    }
}

impl GuestMemory for ClientMemory {
    type PhysicalMemory = GuestMemoryMmap<Written>;
    type Bitmap = Written;

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        (self.unrestricted || self.permit(addr, count, access))
            && GuestMemory::check_range(&self.memory, addr, count, access)
    }

    #[inline]
    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        if !self.unrestricted && !self.prepare(addr, count, access) {
            return Err(Error::InvalidGuestAddress(addr));
        }
        GuestMemory::get_slices(&self.memory, addr, count, access)
    }
}

/// Memory that a client has mapped, which changes whenever it maps or unmaps some.
#[derive(Clone)]
pub struct ClientSpace(GuestMemoryAtomic<ClientMemory>);

impl GuestAddressSpace for ClientSpace {
    type M = ClientMemory;
    type T = GuestMemoryLoadGuard<ClientMemory>;

    fn memory(&self) -> Self::T {
        let memory = self.0.memory();
        if !memory.is_full() {
            return memory;
        }
        drop(memory);
        // If there is no room for another generation, this one goes on.
        let _ = self
            .change(|now| if now.is_full() { now.next_generation().map(Some) } else { Ok(None) });
        self.0.memory()
    }
}

impl ClientSpace {
    /// No memory.
    pub(super) fn new() -> Self {
        let none = ClientMemory {
            memory: GuestMemoryMmap::new(),
            mapped: Vec::new(),
            unrestricted: true,
            generation: None,
        };
        Self(GuestMemoryAtomic::new(none))
    }

    /// Replaces the memory by what `change` makes of it, if it does. Nobody else does so at the same time.
    pub(super) fn change(
        &self,
        change: impl FnOnce(&ClientMemory) -> Result<Option<Vec<Mapped>>, DmaError>,
    ) -> Result<(), DmaError> {
        let turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapped) = change(&self.0.memory())? {
            turn.replace(ClientMemory::new(mapped)?);
        }
        Ok(())
    }
}
