//! Rings of receive buffers.

use core::mem::offset_of;

use paraslot_spec::vmxnet3::{DESC_LEN, INIT_GEN, RxDesc, rxd};

use crate::{DmaRegion, Error, Platform};

const LEN: usize = offset_of!(RxDesc, len);

/// A buffer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    at: usize,
    /// Bytes.
    pub(super) len: u16,
    /// Whether a frame may go on there, rather than start.
    pub(super) body: bool,
}

/// A ring of descriptors, each with its own buffer for good.
///
/// Descriptors are in groups: a head, if there are any, and bodies. Buffers are an odd number of
/// cache lines apart, so that the first lines of all of them do not compete for a few places in the
/// cache.
pub(super) struct Ring {
    memory: DmaRegion,
    buffers: DmaRegion,
    size: u16,
    head: Option<u16>,
    bodies: u16,
    body: u16,
    /// The first descriptor that the adapter has, and how many it has.
    next: u16,
    owned: u16,
    /// The first that it will be given, and the generation of its lap.
    fill: u16,
    lap: bool,
}

/// From one buffer to the next.
fn stride(len: u16) -> usize {
    64 * (usize::from(len).div_ceil(64) | 1)
}

impl Ring {
    /// A ring of `groups`, each of a head of that many bytes and so many bodies. The adapter has all
    /// of them but one, so that a full ring is not an empty one.
    pub(super) fn new<P: Platform>(
        platform: &P,
        groups: u16,
        head: Option<u16>,
        bodies: u16,
        body: u16,
    ) -> Result<Self, Error> {
        let size = groups * (u16::from(head.is_some()) + bodies);
        let group = head.map_or(0, stride) + usize::from(bodies) * stride(body);
        let allocate = |len: usize| platform.allocate(len).ok_or(Error::NoMemory);
        let memory = allocate(usize::from(size) * DESC_LEN)?;
        let buffers = allocate(usize::from(groups) * group)?;
        let mut this = Self {
            memory,
            buffers,
            size,
            head,
            bodies,
            body,
            next: 0,
            owned: 0,
            fill: 0,
            lap: INIT_GEN,
        };
        for index in 0..size {
            let address = this.buffers.physical(this.buffer(index).at);
            this.memory.write64(usize::from(index) * DESC_LEN, address);
        }
        this.give(1);
        Ok(this)
    }

    /// Where it is.
    pub(super) fn address(&self) -> u64 {
        self.memory.physical(0)
    }

    /// Descriptors.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// The first descriptor that the adapter does not have.
    pub(super) fn filled(&self) -> u16 {
        self.fill
    }

    /// The buffer of a descriptor below the size.
    pub(super) fn buffer(&self, index: u16) -> Buffer {
        let per_group = u16::from(self.head.is_some()) + self.bodies;
        let (group, place) = match per_group {
            1 => (index, 0),
            _ => (index / per_group, index % per_group),
        };
        let (head, body) = (self.head.map_or(0, stride), stride(self.body));
        let start = usize::from(group) * (head + usize::from(self.bodies) * body);
        match self.head {
            Some(len) if place == 0 => Buffer { at: start, len, body: false },
            Some(_) => Buffer {
                at: start + head + usize::from(place - 1) * body,
                len: self.body,
                body: true,
            },
            None => Buffer { at: start + usize::from(place) * body, len: self.body, body: true },
        }
    }

    /// The first `len` bytes of a buffer, no more than it has.
    pub(super) fn memory(&self, buffer: &Buffer, len: usize) -> DmaRegion {
        self.buffers.part(buffer.at, len)
    }

    /// How many descriptors the adapter has passed over to come to this one.
    pub(super) fn find(&self, index: u16) -> Result<u16, Error> {
        if index >= self.size {
            return Err(Error::Protocol("a buffer that there is not"));
        }
        let skipped = match index.checked_sub(self.next) {
            Some(skipped) => skipped,
            None => index + (self.size - self.next),
        };
        if skipped >= self.owned {
            return Err(Error::Protocol("a buffer that it was not given"));
        }
        Ok(skipped)
    }

    /// Takes back so many descriptors and the one after them.
    pub(super) fn take(&mut self, skipped: u16) {
        let count = skipped + 1;
        self.owned -= count;
        let next = self.next + count;
        self.next = if next >= self.size { next - self.size } else { next };
    }

    /// Gives the adapter what it does not have, if that are `least` or a quarter of the ring: there
    /// must be no frame in it. Returns whether it was given.
    pub(super) fn give(&mut self, least: u16) -> bool {
        let free = self.size - 1 - self.owned;
        if free < least.min(self.size / 4) {
            return false;
        }
        for _ in 0..free {
            let buffer = self.buffer(self.fill);
            let kind = if buffer.body { rxd::BTYPE_BODY } else { 0 };
            let generation = if self.lap { rxd::GEN } else { 0 };
            let word = u32::from(buffer.len) | kind | generation;
            self.memory.store32(usize::from(self.fill) * DESC_LEN + LEN, word);
            self.fill = if self.fill + 1 == self.size { 0 } else { self.fill + 1 };
            self.lap ^= self.fill == 0;
        }
        self.owned += free;
        true
    }
}
