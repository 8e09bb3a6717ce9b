//! Guest memory that remembers how it was accessed.

use std::iter::FusedIterator;
use std::sync::{Arc, Mutex};

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result};
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, Permissions, VolatileSlice,
};

/// One look-up: address, length, kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) address: u64,
    pub(crate) len: usize,
    pub(crate) write: bool,
}

/// Memory in pieces of 16 bytes, as an IOMMU with very small pages would show it: no table can be
/// looked up as a whole, so every access to it is seen.
#[derive(Debug)]
pub(crate) struct LoggedMemory {
    map: GuestMemoryMmap,
    log: Mutex<Vec<Access>>,
}

impl LoggedMemory {
    pub(crate) fn new(len: usize) -> Arc<Self> {
        let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), len)]).unwrap();
        Arc::new(Self { map, log: Mutex::default() })
    }

    /// What was accessed since the last call. Look-ups that turned out too long to be in one piece
    /// accessed nothing and are left out.
    pub(crate) fn take(&self) -> Vec<Access> {
        let mut log = std::mem::take(&mut *self.log.lock().unwrap());
        log.retain(|access| access.len <= 16);
        log
    }
}

pub(crate) struct Pieces<I>(I);

impl<I: Iterator> Iterator for Pieces<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.0.next()
    }
}

impl<I: FusedIterator> FusedIterator for Pieces<I> {}

impl<'a, I> GuestMemorySliceIterator<'a, BS<'a, ()>> for Pieces<I> where
    I: FusedIterator<Item = Result<VolatileSlice<'a, BS<'a, ()>>>>
{
}

impl GuestMemory for LoggedMemory {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, address: GuestAddress, len: usize, _access: Permissions) -> bool {
        GuestMemoryBackend::check_range(&self.map, address, len)
    }

    fn get_slices<'a>(
        &'a self,
        address: GuestAddress,
        len: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        let write = access.has_write();
        self.log.lock().unwrap().push(Access { address: address.0, len, write });
        let map = &self.map;
        let pieces = (0..len).step_by(16).fuse().map(move |done| {
            let piece = GuestAddress(address.0.wrapping_add(done as u64));
            map.get_slice(piece, (len - done).min(16))
        });
        Ok(Pieces(pieces))
    }
}
