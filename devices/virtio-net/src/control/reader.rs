//! What a command says, byte by byte.

use paraslot_device::{DmaSpace, Memory};
use paraslot_virtio::Segment;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromBytes, IntoBytes};

/// Reads the bytes of a chain in order, each once.
pub(super) struct Reader<'a, A: DmaSpace> {
    memory: &'a Memory<A>,
    segments: std::slice::Iter<'a, Segment>,
    /// What is left of the segment at hand.
    address: u64,
    here: u64,
}

impl<'a, A: DmaSpace> Reader<'a, A> {
    pub(super) fn new(memory: &'a Memory<A>, segments: &'a [Segment]) -> Self {
        Self { memory, segments: segments.iter(), address: 0, here: 0 }
    }

    /// Steps over up to `most` bytes that lie in one piece; where they are, and how many.
    fn piece(&mut self, most: u64) -> Option<(GuestAddress, u64)> {
        while self.here == 0 {
            let segment = self.segments.next()?;
            (self.address, self.here) = (segment.address.0, segment.len.into());
        }
        let count = most.min(self.here);
        let address = GuestAddress(self.address);
        // No segment wraps around the address space, but one may end where it does.
        self.address = self.address.wrapping_add(count);
        self.here -= count;
        Some((address, count))
    }

    /// Reads as many bytes as `bytes` has.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> Option<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (address, count) = self.piece((bytes.len() - done) as u64)?;
            let count = usize::try_from(count).ok()?;
            self.memory.read_slice(bytes.get_mut(done..done + count)?, address).ok()?;
            done += count;
        }
        Some(())
    }

    /// Reads a structure.
    pub(super) fn structure<T: FromBytes + IntoBytes>(&mut self) -> Option<T> {
        let mut value = T::new_zeroed();
        self.read(value.as_mut_bytes())?;
        Some(value)
    }

    /// Steps over bytes, without looking at them.
    pub(super) fn skip(&mut self, mut count: u64) -> Option<()> {
        while count != 0 {
            count -= self.piece(count)?.1;
        }
        Some(())
    }
}
