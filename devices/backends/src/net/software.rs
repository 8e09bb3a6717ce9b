//! Offloads done in software, for a side that does not do them.
//!
//! A frame is copied into memory of one's own first, so that what was decided on stays as it is, and
//! then given out: whole, with its checksum filled in, or piece by piece.

use super::checksum;
use super::parse::{HEADERS, Headers};
use super::segment::{self, Piece, Segmenter};
use super::{Cut, Frame, MAX_FRAME, NetError, Offload, Offloads, Received, Room, Segmentation};

#[cfg(test)]
mod tests;

/// Bytes of the shortest frame that makes sense: an Ethernet header.
pub const MIN_FRAME: usize = 14;

impl Offload {
    /// Checks what can be checked without the frame: its length, that a checksum is inside it, and
    /// that segmentation is not into nothing and comes with a checksum.
    ///
    /// # Errors
    /// [`NetError::TooLong`] above [`MAX_FRAME`], else [`NetError::Invalid`].
    pub fn check(&self, len: usize) -> Result<(), NetError> {
        if len > MAX_FRAME {
            return Err(NetError::TooLong);
        }
        let segmentation =
            self.segmentation.is_none_or(|how| how.size != 0 && self.checksum.is_some());
        let checksum = self.checksum.is_none_or(|partial| partial.place(len).is_some());
        if len >= MIN_FRAME && segmentation && checksum { Ok(()) } else { Err(NetError::Invalid) }
    }

    /// As [`check`](Self::check); for a frame to be cut also against its headers. `first` is its first
    /// [`HEADERS`] bytes (or all, if it is shorter), `len` its length.
    ///
    /// # Errors
    /// As for `check`.
    pub fn check_headers(&self, first: &[u8], len: usize) -> Result<(), NetError> {
        self.check(len)?;
        if self.segmentation.is_some() { segment::check(first, len, self) } else { Ok(()) }
    }

    /// Whether a side that takes `accepted` takes a frame with this left to be done. `first` is its
    /// first [`HEADERS`] bytes (or all, if it is shorter); it matters only for UDP to be cut.
    pub fn accepted_by(&self, accepted: Offloads, first: &[u8]) -> bool {
        if self.checksum.is_some() && !accepted.contains(Offloads::CHECKSUM) {
            return false;
        }
        let Some(Segmentation { cut, ecn, .. }) = self.segmentation else { return true };
        let is_v6 = || Headers::parse(first).network.is_some_and(|network| network.is_v6());
        let needed = match cut {
            Cut::Tcp4 => Offloads::TSO4,
            Cut::Tcp6 => Offloads::TSO6,
            Cut::UdpFragments => Offloads::UFO,
            Cut::UdpDatagrams if is_v6() => Offloads::USO6,
            Cut::UdpDatagrams => Offloads::USO4,
        };
        accepted.contains(needed) && (!ecn || accepted.contains(Offloads::TSO_ECN))
    }
}

/// Does in software what another side leaves to be done: holds one frame at a time, in
/// [`MAX_FRAME`] bytes of its own that it allocates with the first, and gives out the frames that
/// become of it.
pub struct Software {
    bytes: Vec<u8>,
    len: usize,
    state: State,
}

enum State {
    Empty,
    Whole(Offload),
    Cut(Segmenter),
}

impl Default for Software {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Software {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Software").field("next_len", &self.next_len()).finish_non_exhaustive()
    }
}

impl Software {
    /// Holds nothing.
    pub fn new() -> Self {
        Self { bytes: Vec::new(), len: 0, state: State::Empty }
    }

    /// Takes a frame that is on its way to a side that takes `accepted`. What was held is forgotten.
    ///
    /// # Errors
    /// When it does not fit its offload ([`Offload::check_headers`]). Nothing is held then.
    pub fn take(&mut self, frame: &Frame<'_>, accepted: Offloads) -> Result<(), NetError> {
        self.clear();
        frame.offload.check(frame.len())?;
        self.load(|bytes| frame.copy_to(bytes), &frame.offload, accepted)
    }

    /// As [`take`](Self::take), of a frame that `fill` writes to the start of what it is given, which
    /// is [`MAX_FRAME`] bytes; it returns the frame's length.
    ///
    /// # Errors
    /// As for `take`.
    pub fn load(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> usize,
        offload: &Offload,
        accepted: Offloads,
    ) -> Result<(), NetError> {
        self.clear();
        // The first time only.
        self.bytes.resize(MAX_FRAME, 0);
        let len = fill(&mut self.bytes);
        let frame = self.bytes.get_mut(..len).ok_or(NetError::TooLong)?;
        let first = &frame[..len.min(HEADERS)];
        offload.check_headers(first, len)?;
        let partial = accepted.contains(Offloads::CHECKSUM);
        let state = if offload.accepted_by(accepted, first) {
            State::Whole(*offload)
        } else if offload.segmentation.is_some() {
            State::Cut(Segmenter::new(frame, offload, partial)?)
        } else {
            if let Some(partial) = offload.checksum {
                checksum::fill(frame, partial)?;
            }
            State::Whole(Offload::default())
        };
        (self.len, self.state) = (len, state);
        Ok(())
    }

    /// Forgets what is held.
    pub fn clear(&mut self) {
        self.state = State::Empty;
    }

    /// The length of the next frame; `None` if there is none.
    pub fn next_len(&self) -> Option<usize> {
        match &self.state {
            State::Empty => None,
            State::Whole(_) => Some(self.len),
            State::Cut(segmenter) => segmenter.next_len(),
        }
    }

    /// The next frame; `None` if there is none.
    pub fn next_frame(&mut self) -> Option<Piece<'_>> {
        let frame = self.bytes.get(..self.len)?;
        if let State::Whole(offload) = self.state {
            self.state = State::Empty;
            return Some(Piece { header: frame, payload: &[], offload });
        }
        match &mut self.state {
            State::Cut(segmenter) => segmenter.next(frame),
            State::Empty | State::Whole(_) => None,
        }
    }

    /// Writes the next frame to `room`; `None` if there is none.
    ///
    /// # Errors
    /// As for [`Room::write`]; that frame is lost, what follows it is not.
    pub fn receive(&mut self, mut room: Room<'_>) -> Result<Option<Received>, NetError> {
        let Some(piece) = self.next_frame() else { return Ok(None) };
        let len = room.write(piece.header, piece.payload)?;
        Ok(Some(Received { len, offload: piece.offload }))
    }
}
