//! A packet being collected from its descriptors.

use paraslot_backends::net::MAX_FRAME;
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaError, DmaSpace, Memory};
use vm_memory::GuestAddress;

use super::software::Offsets;

/// Buffers that a packet may have. Drivers use some forty.
pub(crate) const MOST_PIECES: usize = 256;

/// What its first descriptor makes of a packet (3.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sent as it is, but for what the last descriptor says.
    Legacy,
    /// With POPTS, and the context that was valid then.
    Data { offsets: Offsets, options: u8 },
    /// The same, and to be segmented.
    Segmented { offsets: Offsets, options: u8 },
}

/// The descriptors of a packet up to now: where its bytes are. Bounded, however many descriptors
/// there are, and whether or not the last ever comes.
#[derive(Debug)]
pub(crate) struct Packet {
    kind: Option<Kind>,
    pieces: Vec<(u64, u32)>,
    len: usize,
    excess: bool,
}

impl Packet {
    pub(crate) fn new() -> Self {
        Self { kind: None, pieces: Vec::with_capacity(MOST_PIECES), len: 0, excess: false }
    }

    /// One of which nothing matters but that it cannot be sent.
    pub(super) fn too_long(kind: Kind) -> Self {
        Self { kind: Some(kind), len: MAX_FRAME + 1, excess: true, ..Self::new() }
    }

    /// Addresses and bytes of its buffers.
    pub(super) fn pieces(&self) -> &[(u64, u32)] {
        &self.pieces
    }

    /// Adds a descriptor's buffer. `kind` is what it would make of a packet that it begins; one in the
    /// middle (QEMU 3de46e6fc4) changes nothing.
    pub(crate) fn add(&mut self, kind: Kind, address: u64, len: u32) {
        self.kind.get_or_insert(kind);
        if len == 0 {
            return;
        }
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        self.len = self.len.saturating_add(bytes);
        if self.pieces.len() >= MOST_PIECES || self.len > MAX_FRAME {
            self.excess = true;
        } else {
            self.pieces.push((address, len));
        }
    }

    /// What it is; `None` before its first descriptor.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Its bytes, if there are neither too many of them nor of its pieces.
    pub(crate) fn len(&self) -> Option<usize> {
        (!self.excess).then_some(self.len)
    }

    /// Copies its first bytes to `place`, which is no longer than it is.
    pub(crate) fn gather<A: DmaSpace>(
        &self,
        memory: &Memory<A>,
        place: &mut [u8],
    ) -> Result<(), DmaError> {
        let pieces = self.pieces.iter().map(|&(address, len)| {
            (GuestAddress(address), usize::try_from(len).unwrap_or(usize::MAX))
        });
        memory.gather(pieces, place)
    }

    /// Its bytes from `from` to `to`, where they are.
    pub(crate) fn body<A: DmaSpace>(
        &self,
        memory: &Memory<A>,
        from: usize,
        to: usize,
    ) -> Result<DmaBuffers, DmaError> {
        let mut skip = from;
        let mut left = to.saturating_sub(from);
        let pieces = self.pieces.iter().map(|&(address, len)| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let gone = skip.min(len);
            skip -= gone;
            let take = left.min(len - gone);
            left -= take;
            // An address that wraps is not guest memory, wherever it comes out.
            (GuestAddress(address.wrapping_add(gone as u64)), take)
        });
        memory.buffers(pieces, Direction::ToDevice)
    }

    /// Forgets it.
    pub(crate) fn clear(&mut self) {
        let Self { kind, pieces, len, excess } = self;
        *kind = None;
        pieces.clear();
        *len = 0;
        *excess = false;
    }
}
