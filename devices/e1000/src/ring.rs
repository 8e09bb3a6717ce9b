//! A ring of descriptors, as its registers say (3.4).

use paraslot_spec::e1000::DESCRIPTOR_LEN;
use paraslot_spec::e1000::registers::{RING_BASE, RING_LEN};
use vm_memory::GuestAddress;

/// Where a ring is. Nothing is assumed of what the guest put into the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    base: u64,
    /// Descriptors.
    len: u32,
}

impl Ring {
    /// From the values of xDBAL, xDBAH and xDLEN.
    pub(crate) fn new(low: u32, high: u32, len: u32) -> Self {
        let base = u64::from(high) << 32 | u64::from(low & RING_BASE);
        Self { base, len: (len & RING_LEN) / DESCRIPTOR_BYTES }
    }

    /// Descriptors in all.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Descriptors from `head` to `tail`, which are the hardware's. None if an index lies outside the
    /// ring, or there is no ring.
    pub(crate) fn pending(&self, head: u32, tail: u32) -> u32 {
        if head >= self.len || tail >= self.len {
            0
        } else if tail >= head {
            tail - head
        } else {
            self.len - head + tail
        }
    }

    /// How many of `count` descriptors from `head` on follow each other in memory.
    pub(crate) fn run(&self, head: u32, count: u32) -> u32 {
        count.min(self.len.saturating_sub(head))
    }

    /// The index after `index`.
    pub(crate) fn after(&self, index: u32) -> u32 {
        let next = index.saturating_add(1);
        if next >= self.len { 0 } else { next }
    }

    /// Where descriptor `index` is, plus `offset`. Rings at the end of the address space do not wrap.
    pub(crate) fn address(&self, index: u32, offset: u64) -> Option<GuestAddress> {
        let from_base = u64::from(index) * u64::from(DESCRIPTOR_BYTES) + offset;
        self.base.checked_add(from_base).map(GuestAddress)
    }
}

/// Bytes of a descriptor.
const DESCRIPTOR_BYTES: u32 = 16;
const _: () = assert!(DESCRIPTOR_LEN == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // CVE-2016-1981: indices that start beyond the ring never meet the condition that ends the walk.
    #[test]
    fn indices_outside_the_ring_are_no_work() {
        let ring = Ring::new(0x1000, 0, 128);
        assert_eq!(ring.len(), 8);
        for (head, tail) in [(8, 0), (0, 8), (0xffff, 3), (3, 0xffff), (0xffff, 0xffff)] {
            assert_eq!(ring.pending(head, tail), 0, "{head} {tail}");
        }
        assert_eq!(Ring::new(0x1000, 0, 0).pending(0, 0), 0);
        assert_eq!((ring.pending(0, 7), ring.pending(7, 0), ring.pending(6, 2)), (7, 1, 4));
        assert_eq!((ring.run(6, 4), ring.run(1, 4), ring.run(9, 4)), (2, 4, 0));
        assert_eq!((ring.after(6), ring.after(7), ring.after(u32::MAX)), (7, 0, 0));
    }

    #[test]
    fn the_base_is_aligned_and_does_not_wrap() {
        let ring = Ring::new(0xffff_ffff, 0xffff_ffff, u32::MAX);
        assert_eq!(ring.len(), 65528);
        assert_eq!(ring.address(0, 12), Some(GuestAddress(0xffff_ffff_ffff_fffc)));
        assert_eq!(ring.address(1, 0), None);
    }

    proptest! {
        #[test]
        fn walking_pending_descriptors_ends_at_the_tail(
            len in 1u32..=32, head in 0u32..300, tail in 0u32..300,
        ) {
            let ring = Ring::new(0, 0, len * 128);
            let pending = ring.pending(head, tail);
            let end = (0..pending).fold(head, |index, _| ring.after(index));
            prop_assert!(pending == 0 || (end == tail && pending < ring.len()));
        }
    }
}
