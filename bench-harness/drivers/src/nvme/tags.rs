//! Which tags are in use.

use crate::{Error, MAX_DEPTH};

const WORDS: usize = MAX_DEPTH / 64;

/// The tags of commands that were submitted, and which of them the controller has not been told of.
pub(super) struct Tags {
    used: [u64; WORDS],
    waiting: [u64; WORDS],
    depth: u16,
    in_flight: u16,
}

/// Word and bit of a tag.
fn place(tag: u16) -> (usize, u64) {
    (usize::from(tag / 64), 1 << (tag % 64))
}

impl Tags {
    pub(super) fn new(depth: u16) -> Self {
        Self { used: [0; WORDS], waiting: [0; WORDS], depth, in_flight: 0 }
    }

    pub(super) fn depth(&self) -> u16 {
        self.depth
    }

    pub(super) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Whether a tag can be used.
    pub(super) fn check(&self, tag: u16) -> Result<(), Error> {
        let (word, bit) = place(tag);
        match self.used.get(word) {
            Some(used) if tag < self.depth && used & bit == 0 => Ok(()),
            _ => Err(Error::Request("the tag is too high or in use")),
        }
    }

    /// Uses one that was checked.
    pub(super) fn begin(&mut self, tag: u16) {
        let (word, bit) = place(tag);
        if let (Some(used), Some(waiting)) = (self.used.get_mut(word), self.waiting.get_mut(word)) {
            *used |= bit;
            *waiting |= bit;
            self.in_flight += 1;
        }
    }

    /// The controller has been told of all.
    pub(super) fn tell(&mut self) {
        self.waiting = [0; WORDS];
    }

    /// Frees a tag; returns whether the controller had its command.
    pub(super) fn end(&mut self, tag: u16) -> bool {
        let (word, bit) = place(tag);
        match (self.used.get_mut(word), self.waiting.get(word)) {
            (Some(used), Some(waiting)) if *used & !waiting & bit != 0 => {
                *used &= !bit;
                self.in_flight -= 1;
                true
            }
            _ => false,
        }
    }

    /// Frees all.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.depth);
    }
}

const _: () = assert!(MAX_DEPTH.is_multiple_of(64));
