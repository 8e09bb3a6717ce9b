//! Guest memory that watches who reads and writes it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

/// One access by a device, as it resolved guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub len: usize,
    /// What for.
    pub permissions: Permissions,
}

/// Called before each access, with the memory below.
pub type Hook = Box<dyn FnMut(&GuestMemoryMmap, Access) + Send>;

/// Guest memory that counts the accesses of a device and can change under its hands.
///
/// The count bounds the work of one doorbell; the hook is how a test has the guest rewrite a field
/// between two reads of it.
pub struct WatchedMemory {
    memory: GuestMemoryMmap,
    accesses: AtomicU64,
    hook: Mutex<Option<Hook>>,
}

impl WatchedMemory {
    /// One region of `len` bytes at address 0.
    pub fn new(len: usize) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), len)]).expect("memory");
        Self { memory, accesses: AtomicU64::new(0), hook: Mutex::default() }
    }

    /// The memory itself, for the test's own accesses, which are not counted.
    pub fn inner(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Accesses since the last call.
    pub fn take_accesses(&self) -> u64 {
        self.accesses.swap(0, Ordering::Relaxed)
    }

    /// Has `hook` called before each access.
    pub fn set_hook(&self, hook: Option<Hook>) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }
}

impl GuestMemory for WatchedMemory {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        GuestMemory::check_range(&self.memory, addr, count, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        if let Some(hook) = &mut *self.hook.lock().unwrap_or_else(PoisonError::into_inner) {
            hook(&self.memory, Access { address: addr.0, len: count, permissions: access });
        }
        GuestMemory::get_slices(&self.memory, addr, count, access)
    }
}
