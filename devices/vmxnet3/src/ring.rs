//! A ring of descriptors or completions, and how far its device's side is.

use paraslot_device::StateError;
use paraslot_spec::vmxnet3::{DESC_LEN, INIT_GEN};
use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use crate::activate::check_ring;
use crate::save::{possible, require};

/// A ring whose place and size have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    base: u64,
    size: u32,
    /// The next entry.
    next: u32,
    /// The generation that it has when it is the device's turn (or, of a completion, gets).
    lap: bool,
}

/// An entry of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: u32,
    /// The generation that is expected there.
    pub(crate) lap: bool,
}

impl Ring {
    /// A ring at its beginning. `None` if it goes beyond the end of the address space.
    pub(crate) fn new(base: u64, size: u32) -> Option<Self> {
        base.checked_add(u64::from(size) * DESC_LEN as u64)?;
        Some(Self { base, size, next: 0, lap: INIT_GEN })
    }

    /// Entries.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// The entry `count` behind the next, which must not be more than once around the ring.
    pub(crate) fn ahead(&self, count: u32) -> Place {
        let index = self.next.saturating_add(count);
        match index.checked_sub(self.size) {
            Some(index) => Place { index, lap: !self.lap },
            None => Place { index, lap: self.lap },
        }
    }

    /// Entries from `index` on that follow each other in memory.
    pub(crate) fn run(&self, index: u32) -> u32 {
        self.size.saturating_sub(index)
    }

    /// Where an entry is, plus `offset` bytes, which lie in it.
    pub(crate) fn address(&self, index: u32, offset: u64) -> GuestAddress {
        // Does not wrap: checked for the whole ring.
        let from_base = u64::from(index) * DESC_LEN as u64 + offset;
        GuestAddress(self.base.wrapping_add(from_base))
    }

    /// Goes on by `count` entries, once around the ring at most.
    pub(crate) fn advance(&mut self, count: u32) {
        let Place { index, lap } = self.ahead(count);
        (self.next, self.lap) = (index, lap);
    }
}

/// A ring, saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RingState {
    base: u64,
    size: u32,
    next: u32,
    lap: bool,
}

impl Ring {
    pub(crate) fn save(&self) -> RingState {
        let Self { base, size, next, lap } = *self;
        RingState { base, size, next, lap }
    }

    /// A ring of at most `most` entries. Whether it is in memory is seen when it is used.
    pub(crate) fn restored(state: &RingState, most: u32) -> Result<Self, StateError> {
        let RingState { base, size, next, lap } = *state;
        let ring = possible(check_ring(base, size, most))?;
        require(next < size, "the next entry of a ring is not in it")?;
        Ok(Self { next, lap, ..ring })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_generation_flips_at_each_wrap() {
        let mut ring = Ring::new(0x1000, 32).unwrap();
        assert_eq!(ring.ahead(0), Place { index: 0, lap: true });
        assert_eq!(ring.ahead(31), Place { index: 31, lap: true });
        assert_eq!(ring.ahead(32), Place { index: 0, lap: false });
        ring.advance(30);
        assert_eq!(ring.ahead(3), Place { index: 1, lap: false });
        assert_eq!((ring.run(30), ring.run(0)), (2, 32));
        assert_eq!(ring.address(31, 8), GuestAddress(0x1000 + 31 * 16 + 8));
        ring.advance(2);
        ring.advance(32);
        assert_eq!(ring.ahead(0), Place { index: 0, lap: true });
    }

    #[test]
    fn a_ring_does_not_wrap_around_the_address_space() {
        assert_eq!(Ring::new(u64::MAX - 511, 32), None);
        assert!(Ring::new(u64::MAX - 512, 32).is_some());
    }

    proptest! {
        #[test]
        fn steps_add_up(size in 1u32..=4096, steps in prop::collection::vec(0u32..=64, 0..100)) {
            let mut ring = Ring::new(0, size).unwrap();
            let mut total = 0u32;
            for step in steps {
                let step = step.min(size);
                ring.advance(step);
                total += step;
                let lap = (total / size).is_multiple_of(2);
                prop_assert_eq!(ring.ahead(0), Place { index: total % size, lap });
            }
        }
    }
}
