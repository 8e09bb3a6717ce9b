//! Receive queues (5.1.9.3, 5.1.9.4).

use paraslot_spec::virtio::split::DESC_F_WRITE;
use paraslot_spec::virtio_net::{feature as net, gso, header_flag};

use super::{MAX_ENTRIES, MAX_FRAME, Registers};
use crate::virtio::SplitQueue;
use crate::{Arrival, DmaRegion, Error, Known, Platform};

/// Buffers that a frame may fill at most.
pub(super) const MAX_PIECES: usize = 64;
/// Most buffers that may wait to be given back: the largest refill, and the last frame's.
const MAX_FREE: usize = MAX_ENTRIES as usize / 4 + MAX_PIECES;
/// Memory that a queue's buffers may take, in bytes; a queue may have fewer buffers than entries.
const MEMORY: usize = 4 << 20;
/// Bytes of an Ethernet header, the least that can be received.
const MIN_FRAME: usize = 14;

/// What a received frame's header may say, as negotiated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) header_len: usize,
    pub(super) mergeable: bool,
    checksum: bool,
    /// Types of segmentation, as a mask of their numbers.
    segmentation: u32,
    ecn: bool,
}

impl Rules {
    pub(super) fn new(features: u64, header_len: usize) -> Self {
        let types = [
            (net::GUEST_TSO4, gso::TCPV4),
            (net::GUEST_TSO6, gso::TCPV6),
            (net::GUEST_UFO, gso::UDP),
            (net::GUEST_USO4 | net::GUEST_USO6, gso::UDP_L4),
        ];
        let segmentation = types
            .iter()
            .filter(|(mask, _)| features & mask != 0)
            .fold(0, |types, (_, kind)| types | 1 << kind);
        Self {
            header_len,
            mergeable: features & net::MRG_RXBUF != 0,
            checksum: features & net::GUEST_CSUM != 0,
            segmentation,
            ecn: features & net::GUEST_ECN != 0,
        }
    }

    /// Whether frames may come that were never segmented.
    pub(super) fn large(&self) -> bool {
        self.segmentation != 0
    }

    /// Checks the header of a frame of `len` bytes, and says what it tells of the checksum.
    fn check(&self, words: [u32; 3], len: usize) -> Result<Known, Error> {
        let [flags, kind, ..] = words[0].to_le_bytes();
        if flags | kind == 0 {
            return Ok(Known::Nothing);
        }
        if flags != 0 && !self.checksum {
            return Err(Error::Protocol("a checksum flag that was not negotiated"));
        }
        let partial = flags & header_flag::NEEDS_CSUM != 0;
        if partial {
            let [_, _, a, b] = words[1].to_le_bytes();
            let [c, d, ..] = words[2].to_le_bytes();
            let end = usize::from(u16::from_le_bytes([a, b]))
                .saturating_add(usize::from(u16::from_le_bytes([c, d])))
                .saturating_add(2);
            if end > len {
                return Err(Error::Protocol("a checksum outside its frame"));
            }
        }
        if kind != gso::NONE {
            let cut = kind & !gso::ECN;
            let known = cut < 32 && self.segmentation & 1 << cut != 0;
            let tcp = matches!(cut, gso::TCPV4 | gso::TCPV6);
            if !known || (kind & gso::ECN != 0 && !(tcp && self.ecn)) {
                return Err(Error::Protocol("a segmentation that was not negotiated"));
            }
            let [size, other, ..] = words[1].to_le_bytes();
            if !partial || (size | other) == 0 {
                return Err(Error::Protocol("a segmentation without checksum or size"));
            }
        }
        Ok(match partial {
            true => Known::Partial,
            false if flags & header_flag::DATA_VALID != 0 => Known::Right,
            false => Known::Nothing,
        })
    }
}

/// A receive queue and its buffers. Each descriptor has its buffer, for good; only its number goes
/// round.
///
/// In each buffer the header comes first, at an offset that has the frame behind it start at a
/// multiple of 16 bytes. Buffers are an odd number of cache lines apart, so that the first lines of
/// all of them do not compete for a few places in the cache.
pub(super) struct Receiver {
    ring: SplitQueue,
    registers: Registers,
    memory: DmaRegion,
    /// From one buffer to the next.
    stride: usize,
    /// Where in its place a buffer begins.
    start: usize,
    /// Bytes of a buffer, the header included.
    len: u32,
    /// Buffers.
    count: u16,
    /// Those that the device has, a bit each.
    given: [u64; MAX_ENTRIES as usize / 64],
    /// Those that it will be given back next.
    free: [u16; MAX_FREE],
    free_count: usize,
    /// The last header that was received, in words.
    last: [u32; 5],
}

impl Receiver {
    pub(super) fn new<P: Platform>(
        platform: &P,
        ring: SplitQueue,
        registers: Registers,
        header_len: usize,
        len: u32,
    ) -> Result<Self, Error> {
        let start = header_len.next_multiple_of(16) - header_len;
        let bytes = usize::try_from(len).map_err(|_| Error::NoMemory)?;
        let stride = 64 * ((start + bytes).div_ceil(64) | 1);
        let count = ring.size().min(u16::try_from(MEMORY / stride).unwrap_or(u16::MAX));
        let memory = platform.allocate(stride * usize::from(count)).ok_or(Error::NoMemory)?;
        for id in 0..count {
            let address = memory.physical(stride * usize::from(id) + start);
            ring.set_descriptor(id, address, len, DESC_F_WRITE, 0);
        }
        Ok(Self {
            ring,
            registers,
            memory,
            stride,
            start,
            len,
            count,
            given: [0; MAX_ENTRIES as usize / 64],
            free: [0; MAX_FREE],
            free_count: 0,
            last: [0; 5],
        })
    }

    pub(super) fn ring(&mut self) -> &mut SplitQueue {
        &mut self.ring
    }

    pub(super) fn registers(&mut self) -> &mut Registers {
        &mut self.registers
    }

    /// The device has forgotten its buffers, and the ring is as new.
    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.given = [0; MAX_ENTRIES as usize / 64];
        self.free_count = 0;
    }

    /// Gives the device all buffers, of which it has none.
    pub(super) fn fill(&mut self) -> bool {
        for id in 0..self.count {
            self.give(id);
        }
        self.ring.publish()
    }

    fn give(&mut self, id: u16) {
        if let Some(word) = self.given.get_mut(usize::from(id / 64)) {
            *word |= 1 << (id % 64);
        }
        self.ring.push(id);
    }

    /// Gives the device the free buffers back. Returns whether it must be notified.
    #[must_use]
    pub(super) fn refill(&mut self) -> bool {
        for index in 0..self.free_count {
            if let Some(id) = self.free.get(index).copied() {
                self.give(id);
            }
        }
        self.free_count = 0;
        self.ring.publish()
    }

    /// Buffers.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    pub(super) fn free_count(&self) -> usize {
        self.free_count
    }

    pub(super) fn last_header(&self) -> [u32; 5] {
        self.last
    }

    /// The next used buffer: where its place is, and how many bytes the device has written.
    fn take(&mut self) -> Result<Option<(usize, u32)>, Error> {
        let Some(used) = self.ring.pop()? else { return Ok(None) };
        let word = self.given.get_mut(usize::from(used.head / 64));
        let bit = 1 << (used.head % 64);
        match word {
            Some(word) if *word & bit != 0 => *word &= !bit,
            _ => return Err(Error::Protocol("a buffer that it was not given")),
        }
        let place = self.free.get_mut(self.free_count);
        *place.ok_or(Error::Protocol("too many buffers at once"))? = used.head;
        self.free_count += 1;
        if used.len > self.len {
            return Err(Error::Protocol("more written than a buffer holds"));
        }
        Ok(Some((self.stride * usize::from(used.head) + self.start, used.len)))
    }

    /// The next frame, in `pieces`. The buffers are free afterwards, but the device is not told.
    pub(super) fn next<'a>(
        &mut self,
        rules: &Rules,
        pieces: &'a mut [DmaRegion; MAX_PIECES],
    ) -> Result<Option<Arrival<'a>>, Error> {
        let Some((at, written)) = self.take()? else { return Ok(None) };
        let first = usize::try_from(written).unwrap_or(0);
        let room = first.checked_sub(rules.header_len).filter(|len| *len >= MIN_FRAME);
        let mut len = room.ok_or(Error::Protocol("a frame is shorter than its headers"))?;
        let words = [0, 4, 8].map(|offset| self.memory.read32(at + offset));
        self.last = [words[0], words[1], words[2], 0, 0];
        if rules.header_len == 20 {
            self.last[3] = self.memory.read32(at + 12);
            self.last[4] = self.memory.read32(at + 16);
        }
        let [_, _, low, high] = words[2].to_le_bytes();
        let count = match rules.mergeable {
            true => usize::from(u16::from_le_bytes([low, high])),
            // 5.1.9.4.2: some devices leave the field alone then.
            false => 1,
        };
        if !(1..=MAX_PIECES).contains(&count) {
            return Err(Error::Protocol("a frame's number of buffers makes no sense"));
        }
        let [piece, ..] = &mut *pieces;
        *piece = self.memory.part(at + rules.header_len, len);
        let mut last = written;
        for piece in pieces.iter_mut().take(count).skip(1) {
            // 5.1.9.4.1: each but the last is full, and they are used all at once.
            if last != self.len {
                return Err(Error::Protocol("a frame goes on behind a buffer that is not full"));
            }
            let (at, written) =
                self.take()?.ok_or(Error::Protocol("a frame's buffers are not all there"))?;
            let more = usize::try_from(written).unwrap_or(0);
            if more == 0 {
                return Err(Error::Protocol("a frame's buffer is empty"));
            }
            *piece = self.memory.part(at, more);
            len += more;
            last = written;
        }
        if len > MAX_FRAME {
            return Err(Error::Protocol("a frame is longer than any can be"));
        }
        let checksum = rules.check(words, len)?;
        Ok(Some(Arrival { pieces: pieces.get(..count).unwrap_or_default(), len, checksum }))
    }
}
