//! Receive queues.

use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};

use paraslot_spec::net::{ETHERNET_HEADER, ETHERNET_MTU};
use paraslot_spec::vmxnet3::{
    COMP_GEN, COMP_GEN_OFFSET, COMP_IDX, DESC_LEN, INIT_GEN, MIN_T0_BUF_SIZE, RX_RINGS, RxCompDesc,
    RxQueueConf, RxQueueDesc, completion, rcd,
};

use super::rings::Ring;
use crate::{Arrival, DmaRegion, Error, Known, Platform};

/// Descriptors of the first ring at least, and of the second.
const FIRST_RING: u16 = 1024;
const SECOND_RING: u16 = 256;
/// How many free buffers gather before the adapter is told, at most.
const MOST_REFILL: u16 = FIRST_RING / 4;
/// Bytes of an entry of the data ring.
const DATA: u16 = 128;
/// Buffers that a frame may fill at most.
pub(super) const MAX_PIECES: usize = 18;
/// Bytes in front of the packet at most: an Ethernet header and two VLAN tags.
const MAX_HEADER: u16 = 22;
/// Bytes of the longest head buffer. A frame that is longer goes on in body buffers.
const MAX_HEAD: u16 = 3 * 1024;
/// Bytes of the shortest.
const MIN_HEAD: u16 = 128;
const _: () = assert!(MIN_HEAD as u32 == MIN_T0_BUF_SIZE);
/// Bytes of a body buffer.
const BODY: u16 = 4096;
/// Bytes of the longest frame.
const MAX_FRAME: usize = 65535 + MAX_HEADER as usize;

/// What was agreed on that concerns what arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Receive queues.
    pub(super) queues: u8,
    /// The largest IP packet, unless it was put together.
    pub(super) mtu: u16,
    /// Whether checksums are checked.
    pub(super) checksum: bool,
    /// Whether frames may be longer.
    pub(super) large: bool,
    /// Whether there is a data ring.
    pub(super) data: bool,
}

impl Rules {
    /// What is known of a checksum, by the words of a frame's last completion.
    fn known(&self, completion: &Completion) -> Result<Known, Error> {
        let flags = completion.flags;
        let has = |bits| flags & bits == bits;
        let right = has(rcd::V4 | rcd::IPC | rcd::TUC) || has(rcd::V6 | rcd::TUC);
        if !self.checksum || completion.index & rcd::CNC != 0 || !right {
            return Ok(Known::Nothing);
        }
        if flags & (rcd::TCP | rcd::UDP) == 0 || flags & rcd::FRG != 0 {
            return Err(Error::Protocol("a checksum of what has none is right"));
        }
        Ok(Known::Right)
    }

    /// Checks a whole frame of `len` bytes.
    fn check(&self, completion: &Completion, len: usize) -> Result<Known, Error> {
        if completion.len & rcd::TS != 0 {
            return Err(Error::Protocol("a tag was stripped"));
        }
        let longest = match self.large {
            true => MAX_FRAME,
            // What others on an Ethernet may send comes in even if the MTU is smaller.
            false => usize::from(self.mtu).max(ETHERNET_MTU) + usize::from(MAX_HEADER),
        };
        if !(ETHERNET_HEADER..=longest).contains(&len) {
            return Err(Error::Protocol("a frame of a length that none has"));
        }
        self.known(completion)
    }
}

/// The words of a completion.
#[derive(Clone, Copy)]
struct Completion {
    index: u32,
    hash: u32,
    len: u32,
    flags: u32,
}

/// What a completion meant.
enum Progress {
    /// The frame goes on.
    More,
    /// It is all there.
    Frame(Known),
    /// It is of no use.
    Bad,
}

/// Frames of one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Handed to the visitor.
    pub(super) good: u16,
    /// Bad ones included, or there would be no limit to them.
    pub(super) all: u16,
}

/// A queue: two rings, each descriptor with its own buffer, and one ring of completions.
pub(super) struct Queue {
    number: u8,
    rules: Rules,
    rings: [Ring; RX_RINGS],
    data: Option<DmaRegion>,
    completions: DmaRegion,
    /// Completions in their ring; the next, and the generation of its lap.
    size: u16,
    next: u16,
    lap: bool,
    /// The queue's descriptor.
    shared: DmaRegion,
    /// What is there of the frame that is arriving.
    pieces: [DmaRegion; MAX_PIECES],
    count: usize,
    len: usize,
    /// The RSS type and hash of the frame that has started last.
    hash: (u32, u32),
    refill: u16,
}

impl Queue {
    /// A queue with all its buffers.
    pub(super) fn new<P: Platform>(
        platform: &P,
        number: u8,
        rules: Rules,
        shared: DmaRegion,
    ) -> Result<Self, Error> {
        let longest = rules.mtu + MAX_HEADER;
        let head = longest.clamp(MIN_HEAD, MAX_HEAD);
        let bodies = longest.saturating_sub(head).div_ceil(BODY);
        // As many groups of a head and its bodies as there must be heads.
        let groups = FIRST_RING.div_ceil(32 * (1 + bodies)) * 32;
        let first = Ring::new(platform, groups, Some(head), bodies, BODY)?;
        let second = Ring::new(platform, SECOND_RING, None, 1, BODY)?;
        let size = first.size() + second.size();
        let allocate = |entries: u16, len: usize| {
            platform.allocate(usize::from(entries) * len).ok_or(Error::NoMemory)
        };
        let completions = allocate(size, DESC_LEN)?;
        let data = match rules.data {
            true => Some(allocate(first.size(), DATA.into())?),
            false => None,
        };
        Ok(Self {
            number,
            rules,
            rings: [first, second],
            data,
            size,
            next: 0,
            lap: INIT_GEN,
            shared,
            // Replaced before they are used.
            pieces: core::array::from_fn(|_| completions.clone()),
            completions,
            count: 0,
            len: 0,
            hash: (rcd::RSS_TYPE_NONE, 0),
            refill: 16,
        })
    }

    /// What the adapter is told of it.
    pub(super) fn conf(&self, interrupt: u8) -> RxQueueConf {
        let mut conf = RxQueueConf::default();
        for (ring, (base, size)) in
            self.rings.iter().zip(conf.rx_ring_base_pa.iter_mut().zip(conf.rx_ring_size.iter_mut()))
        {
            base.set(ring.address());
            size.set(ring.size().into());
        }
        conf.comp_ring_base_pa.set(self.completions.physical(0));
        conf.comp_ring_size.set(self.size.into());
        if let Some(data) = &self.data {
            conf.rx_data_ring_base_pa.set(data.physical(0));
            conf.rx_data_ring_desc_size.set(DATA);
        }
        conf.intr_idx = interrupt;
        conf
    }

    /// The indices to tell the adapter of both rings.
    pub(super) fn filled(&self) -> [u16; RX_RINGS] {
        [0, 1].map(|ring: usize| self.rings.get(ring).map_or(0, Ring::filled))
    }

    pub(super) fn set_refill(&mut self, buffers: u16) {
        self.refill = buffers.clamp(1, MOST_REFILL);
    }

    /// The RSS type and hash of the frame that has started last.
    pub(super) fn hash(&self) -> (u32, u32) {
        self.hash
    }

    /// The next completion; `None` while there is none.
    fn look(&self) -> Option<Completion> {
        let at = usize::from(self.next) * DESC_LEN;
        // It is written last, so that the rest is there when this is.
        let flags = self.completions.load32(at + FLAGS);
        if (flags & COMP_GEN != 0) != self.lap {
            return None;
        }
        let word = |offset| self.completions.read32(at + offset);
        let [index, hash, len] =
            [offset_of!(RxCompDesc, index), offset_of!(RxCompDesc, rss_hash), LEN].map(word);
        Some(Completion { index, hash, len, flags })
    }

    /// The ring that a completion is about, and whether the data is in the data ring.
    fn ring(&self, queue: u32) -> Result<(usize, bool), Error> {
        let (number, queues) = (u32::from(self.number), u32::from(self.rules.queues));
        match queue.checked_sub(number) {
            Some(0) => Ok((0, false)),
            Some(from) if from == queues => Ok((1, false)),
            Some(from) if from == 2 * queues && self.data.is_some() => Ok((0, true)),
            _ => Err(Error::Protocol("a completion of another queue")),
        }
    }

    /// Takes the buffer of a completion. Nothing changes if that is an error.
    fn take(&mut self, completion: &Completion) -> Result<Progress, Error> {
        let index = u16::try_from(completion.index & COMP_IDX).unwrap_or(u16::MAX);
        let (number, in_data) = self.ring(completion.index >> rcd::RQID_SHIFT & rcd::RQID)?;
        let ring = self.rings.get_mut(number).ok_or(Error::Protocol("a completion of no ring"))?;
        let skipped = ring.find(index)?;
        let starts = completion.index & rcd::SOP != 0;
        let ends = completion.index & rcd::EOP != 0;
        let len = usize::try_from(completion.len & rcd::LEN).unwrap_or(usize::MAX);
        let progress = if ends && completion.len & rcd::ERR != 0 {
            Progress::Bad
        } else {
            let buffer = ring.buffer(index);
            if starts != (self.count == 0) {
                return Err(Error::Protocol("a frame starts within another, or not at all"));
            }
            if starts == buffer.body || (in_data && !starts) {
                return Err(Error::Protocol("a frame in the wrong kind of buffer"));
            }
            let room = if in_data { DATA } else { buffer.len };
            if len > room.into() {
                return Err(Error::Protocol("more written than a buffer holds"));
            }
            if starts && len == 0 {
                if !ends {
                    return Err(Error::Protocol("a frame that starts with nothing"));
                }
                Progress::Bad
            } else {
                if len != 0 {
                    let piece = match (&self.data, in_data) {
                        (Some(data), true) => data.part(usize::from(index) * ENTRY, len),
                        _ => ring.memory(&buffer, len),
                    };
                    let place = self.pieces.get_mut(self.count);
                    *place.ok_or(Error::Protocol("a frame in too many buffers"))? = piece;
                }
                match ends {
                    true => Progress::Frame(self.rules.check(completion, self.len + len)?),
                    false => Progress::More,
                }
            }
        };
        ring.take(skipped);
        if !matches!(progress, Progress::Bad) {
            self.len += len;
            self.count += usize::from(len != 0);
        }
        if starts {
            self.hash = hash_of(completion);
        }
        self.next = if self.next + 1 == self.size { 0 } else { self.next + 1 };
        self.lap ^= self.next == 0;
        Ok(progress)
    }

    /// Gives the adapter free buffers if enough have gathered, and calls `tell` with the ring and its
    /// index if it wants to know.
    fn give(&mut self, tell: &mut impl FnMut(usize, u16)) {
        for (number, ring) in self.rings.iter_mut().enumerate() {
            if !ring.give(self.refill) {
                continue;
            }
            // It may ask to be told just when it has run out; then either side must see the other.
            fence(Ordering::SeqCst);
            if self.shared.read8(offset_of!(RxQueueDesc, ctrl.update_rx_prod)) != 0 {
                tell(number, ring.filled());
            }
        }
    }

    /// Hands up to `limit` frames to `visit`, and gives their buffers back.
    pub(super) fn receive(
        &mut self,
        limit: u16,
        mut tell: impl FnMut(usize, u16),
        mut visit: impl FnMut(Arrival<'_>),
    ) -> Result<Count, Error> {
        let mut count = Count::default();
        while count.all < limit {
            let Some(completion) = self.look() else { break };
            match self.take(&completion)? {
                Progress::More => continue,
                Progress::Frame(checksum) => {
                    let pieces = self.pieces.get(..self.count).unwrap_or_default();
                    visit(Arrival { pieces, len: self.len, checksum });
                    count.good += 1;
                }
                Progress::Bad => {}
            }
            count.all += 1;
            // The frame's buffers are free.
            (self.count, self.len) = (0, 0);
            self.give(&mut tell);
        }
        Ok(count)
    }
}

/// [`DATA`], and offsets in a completion.
const ENTRY: usize = DATA as usize;
const LEN: usize = offset_of!(RxCompDesc, len);
const FLAGS: usize = offset_of!(RxCompDesc, flags);
const _: () = assert!(FLAGS as u64 == COMP_GEN_OFFSET);

/// The RSS type and hash that a frame's first completion tells.
fn hash_of(completion: &Completion) -> (u32, u32) {
    let other = completion.flags >> completion::TYPE_SHIFT & completion::TYPE;
    if other == completion::RXCOMP_LRO {
        return (rcd::RSS_TYPE_NONE, 0);
    }
    (completion.index >> rcd::RSS_TYPE_SHIFT & rcd::RSS_TYPE, completion.hash)
}
