//! The guest's memory, as hardware sees it.

#![expect(unsafe_code, reason = "memory is handed to hardware by address")]

use std::any::Any;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::DeviceFd;
use paraslot_device::page::PAGE_SIZE;
use vfio_ioctls::{VfioContainer, VfioDeviceFd, VfioError as CrateError, VfioOps};
use vm_memory::bitmap::Bitmap;
use vm_memory::{
    Address, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryBackend, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress,
};

use crate::VfioError;
use crate::kernel::{explain_container, locked_memory_limit};

/// The address space in which functions that are passed through access memory: a guest's, at the
/// guest's own addresses. Functions that share it are behind one IOMMU domain.
///
/// Memory that is added can be read and written by all of its functions, bus mastering permitting. It is
/// pinned while there is a function, so all of it is resident, and it is held until it is removed or
/// the space goes. Virtual IOMMUs are left out: a guest cannot restrict its functions further.
pub struct IommuSpace {
    domain: Domain,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    regions: BTreeMap<u64, Region>,
    /// Functions that are open. The kernel has a domain, and what is mapped, only while there are any.
    functions: usize,
}

struct Region {
    len: u64,
    host: NonNull<u8>,
    _memory: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the address is that of memory which is owned by `_memory`, which may be sent, and is only
// ever handed to the kernel.
unsafe impl Send for Region {}

/// What maps memory for hardware.
enum Domain {
    Vfio(Arc<VfioContainer>),
    #[cfg(test)]
    Fake(tests::FakeDomain),
}

impl IommuSpace {
    /// An empty space. `kvm` is KVM's VFIO device, if the guest runs on KVM: it is told of the
    /// functions' groups, on which caching of their memory can depend.
    ///
    /// # Errors
    /// When the machine has no VFIO with a type 1 IOMMU driver, or it may not be used.
    pub fn new(kvm: Option<DeviceFd>) -> Result<Arc<Self>, VfioError> {
        let kvm = kvm.map(|device| Arc::new(VfioDeviceFd::new_from_kvm(device)));
        let container = VfioContainer::new(kvm).map_err(explain_container)?;
        Ok(Self::over(Domain::Vfio(Arc::new(container))))
    }

    fn over(domain: Domain) -> Arc<Self> {
        Arc::new(Self { domain, state: Mutex::default() })
    }

    /// Adds all regions of a guest's memory, or none.
    ///
    /// # Errors
    /// When a region overlaps what is there, is no whole number of pages, or cannot be mapped or pinned
    /// (which is tried when there is a function, so perhaps only when one is opened).
    pub fn map_memory<B>(&self, memory: &Arc<GuestMemoryMmap<B>>) -> Result<(), VfioError>
    where
        B: Bitmap + Send + Sync + 'static,
    {
        let mut state = self.state();
        let mut added = Vec::new();
        for region in memory.iter() {
            let owner: Arc<dyn Any + Send + Sync> = memory.clone();
            match self.add(&mut state, region, owner) {
                Ok(start) => added.push(start),
                Err(error) => {
                    for start in added.into_iter().rev() {
                        // What was mapped just now is unmapped, unless the kernel is at fault: then
                        // it stays, and stays held.
                        let _ = self.remove(&mut state, start);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Adds one region, plugged into a guest that runs.
    ///
    /// # Errors
    /// As of [`map_memory`](Self::map_memory).
    pub fn map_region<B>(&self, region: &Arc<GuestRegionMmap<B>>) -> Result<(), VfioError>
    where
        B: Bitmap + Send + Sync + 'static,
    {
        self.add(&mut self.state(), region, region.clone()).map(drop)
    }

    /// Removes the region that starts at `start`. Afterwards no function accesses it.
    ///
    /// # Errors
    /// When no region starts there, or the kernel refuses; it is still held and mapped then.
    pub fn unmap_region(&self, start: GuestAddress) -> Result<(), VfioError> {
        self.remove(&mut self.state(), start.raw_value())
    }

    /// Whether all of a guest's memory is there, at its own addresses: hardware that finds none there, or
    /// another guest's, is a fault that nobody would see.
    pub(crate) fn check(&self, memory: &impl GuestAddressSpace) -> Result<(), VfioError> {
        let (state, memory) = (self.state(), memory.memory());
        let missing = |start: u64, bytes: u64| Err(VfioError::NotMapped { start, bytes });
        // Memory behind a virtual IOMMU is at other addresses.
        let Some(memory) = memory.physical_memory() else { return missing(0, 0) };
        for region in memory.iter() {
            let (start, len) = (region.start_addr().raw_value(), region.len());
            let host = region.get_host_address(MemoryRegionAddress(0)).ok().and_then(NonNull::new);
            let same = |there: &Region| there.len == len && Some(there.host) == host;
            if !state.regions.get(&start).is_some_and(same) {
                return missing(start, len);
            }
        }
        if state.regions.is_empty() { missing(0, 0) } else { Ok(()) }
    }

    fn add<B: Bitmap + Send + Sync + 'static>(
        &self,
        state: &mut State,
        region: &GuestRegionMmap<B>,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<u64, VfioError> {
        let (start, len) = (region.start_addr().raw_value(), region.len());
        let refuse =
            |reason: &str| VfioError::Memory { start, bytes: len, reason: reason.to_owned() };
        let host = region
            .get_host_address(MemoryRegionAddress(0))
            .ok()
            .and_then(NonNull::new)
            .ok_or_else(|| refuse("it has no address in this process"))?;
        let page = PAGE_SIZE as u64;
        if len == 0 || !start.is_multiple_of(page) || !len.is_multiple_of(page) {
            return Err(refuse("it is no whole number of pages"));
        }
        let last = start.checked_add(len - 1).ok_or_else(|| refuse("it wraps around"))?;
        // The regions do not overlap each other, so the last that starts before the end is the one.
        let before = state.regions.range(..=last).next_back();
        if before.is_some_and(|(at, region)| at + (region.len - 1) >= start) {
            return Err(refuse("it overlaps what is mapped already"));
        }
        let region = Region { len, host, _memory: owner };
        if state.functions > 0 {
            self.domain.map(start, &region, state.bytes().saturating_add(len))?;
        }
        state.regions.insert(start, region);
        Ok(start)
    }

    fn remove(&self, state: &mut State, start: u64) -> Result<(), VfioError> {
        let region = state.regions.get(&start).ok_or_else(|| VfioError::Memory {
            start,
            bytes: 0,
            reason: "nothing is mapped from there on".to_owned(),
        })?;
        if state.functions > 0 {
            self.domain.unmap(start, region)?;
        }
        state.regions.remove(&start);
        Ok(())
    }

    /// A function is there: the first has everything mapped.
    pub(crate) fn join(&self) -> Result<(), VfioError> {
        let mut state = self.state();
        if state.functions == 0 {
            let needed = state.bytes();
            for (count, (start, region)) in state.regions.iter().enumerate() {
                if let Err(error) = self.domain.map(*start, region, needed) {
                    for (start, region) in state.regions.iter().take(count) {
                        let _ = self.domain.unmap(*start, region);
                    }
                    return Err(error);
                }
            }
        }
        state.functions += 1;
        Ok(())
    }

    /// A function goes: the last has everything unmapped. To be called before it is closed.
    pub(crate) fn leave(&self) {
        let mut state = self.state();
        state.functions = state.functions.saturating_sub(1);
        if state.functions == 0 {
            for (start, region) in &state.regions {
                // What the kernel would not unmap goes with the domain, when the group leaves it.
                let _ = self.domain.unmap(*start, region);
            }
        }
    }

    /// The container, to open functions in.
    pub(crate) fn container(&self) -> Result<Arc<dyn VfioOps>, VfioError> {
        match &self.domain {
            Domain::Vfio(container) => Ok(container.clone()),
            #[cfg(test)]
            Domain::Fake(_) => Err(VfioError::NoVfio),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.regions.values().fold(0, |sum, region| sum.saturating_add(region.len))
    }
}

impl Domain {
    /// Maps a region of a space of `needed` bytes.
    fn map(&self, start: u64, region: &Region, needed: u64) -> Result<(), VfioError> {
        let Region { len, host, _memory } = region;
        let bytes = usize::try_from(*len).unwrap_or(usize::MAX);
        let result = match self {
            // SAFETY: the region is guest memory, which this process accesses by volatile and atomic
            // operations alone. The space holds it, and lets go of it only when it has been unmapped
            // or nothing of the domain is left.
            Self::Vfio(container) => unsafe { container.vfio_dma_map(start, bytes, host.as_ptr()) },
            #[cfg(test)]
            Self::Fake(fake) => fake.map(start, bytes),
        };
        result.map_err(|error| match (error, self.limit()) {
            // What others of the process have locked counts as well, so it may be less that is too much.
            (CrateError::IommuDmaMap(error), Some(limit)) if error.errno() == libc::ENOMEM => {
                VfioError::LockedMemory { bytes: *len, needed, limit }
            }
            (error, _) => refused(start, *len, &error),
        })
    }

    /// The bytes that this process may lock.
    fn limit(&self) -> Option<u64> {
        match self {
            Self::Vfio(_) => locked_memory_limit(),
            #[cfg(test)]
            Self::Fake(fake) => fake.limit,
        }
    }

    fn unmap(&self, start: u64, region: &Region) -> Result<(), VfioError> {
        let bytes = usize::try_from(region.len).unwrap_or(usize::MAX);
        let result = match self {
            Self::Vfio(container) => container.vfio_dma_unmap(start, bytes),
            #[cfg(test)]
            Self::Fake(fake) => fake.unmap(start, bytes),
        };
        result.map_err(|error| refused(start, region.len, &error))
    }
}

fn refused(start: u64, bytes: u64, error: &CrateError) -> VfioError {
    VfioError::Memory { start, bytes, reason: error.to_string() }
}

#[cfg(test)]
pub(crate) mod tests;
