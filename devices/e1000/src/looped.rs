//! Frames on their way back from the transmitter to the receiver.

use std::collections::VecDeque;

/// Bytes of frames that are held at most: the size of the packet buffer.
const ROOM: usize = 64 << 10;

/// A bounded queue between the two halves. The transmitter only puts frames in; the receiver takes
/// them when its turn comes, so that neither is ever entered from the other.
#[derive(Default)]
pub(crate) struct Looped {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Looped {
    /// Puts a frame in; says whether there was room for it.
    pub(crate) fn push(&mut self, frame: &[u8]) -> bool {
        // An entry costs something, however short its frame.
        let cost = frame.len().max(64);
        if cost > ROOM - self.bytes.min(ROOM) {
            return false;
        }
        self.bytes += cost;
        self.frames.push_back(frame.to_vec());
        true
    }

    /// Takes the oldest frame out and copies it to `place`, as much of it as fits. Returns its length.
    pub(crate) fn pop(&mut self, place: &mut [u8]) -> Option<usize> {
        let frame = self.frames.pop_front()?;
        self.bytes = self.bytes.saturating_sub(frame.len().max(64));
        for (to, from) in place.iter_mut().zip(&frame) {
            *to = *from;
        }
        Some(frame.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// What is in it, the oldest first.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let Self { frames, bytes: _ } = self;
        frames.iter().map(Vec::as_slice)
    }

    /// Drops what is in it.
    pub(crate) fn reset(&mut self) {
        let Self { frames, bytes } = self;
        *frames = VecDeque::new();
        *bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_in_order() {
        let mut looped = Looped::default();
        assert_eq!((0..2000).filter(|_| looped.push(&[1])).count(), ROOM / 64);
        looped.reset();
        assert!(looped.push(&[1; 100]) && looped.push(&[2; 60_000]) && !looped.push(&[3; 6000]));
        let mut place = [0; 200];
        assert_eq!((looped.pop(&mut place), place[99], place[100]), (Some(100), 1, 0));
        assert_eq!((looped.pop(&mut place), place[199]), (Some(60_000), 2));
        assert_eq!((looped.pop(&mut place), looped.is_empty(), looped.bytes), (None, true, 0));
    }
}
