//! Which chains the device has.

/// A set of chain heads. A head can be in it once: a driver that makes a chain available again
/// before it got it back would otherwise have the device complete it twice, and hold more requests
/// than the queue has entries.
#[derive(Debug)]
pub(super) struct InFlight {
    bits: Box<[u64]>,
    count: u16,
}

fn place(head: u16) -> (usize, u64) {
    (usize::from(head / 64), 1 << (head % 64))
}

impl InFlight {
    pub(super) fn new(size: u16) -> Self {
        Self { bits: vec![0; usize::from(size).div_ceil(64)].into(), count: 0 }
    }

    pub(super) fn len(&self) -> u16 {
        self.count
    }

    /// How many places there are, in whole words.
    pub(super) fn capacity(&self) -> u16 {
        u16::try_from(self.bits.len() * 64).unwrap_or(u16::MAX)
    }

    /// The heads, in rising order.
    pub(super) fn heads(&self) -> impl Iterator<Item = u16> {
        (0..self.capacity()).filter(|head| self.contains(*head))
    }

    pub(super) fn contains(&self, head: u16) -> bool {
        let (word, bit) = place(head);
        self.bits.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds a head; `false` if it was there, or there is no such place.
    pub(super) fn insert(&mut self, head: u16) -> bool {
        let (word, bit) = place(head);
        let Some(word) = self.bits.get_mut(word).filter(|word| **word & bit == 0) else {
            return false;
        };
        *word |= bit;
        self.count += 1;
        true
    }

    /// Takes a head out; `false` if it was not there.
    pub(super) fn remove(&mut self, head: u16) -> bool {
        let (word, bit) = place(head);
        let Some(word) = self.bits.get_mut(word).filter(|word| **word & bit != 0) else {
            return false;
        };
        *word &= !bit;
        self.count -= 1;
        true
    }
}
