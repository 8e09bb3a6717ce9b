//! A receive queue: frames into its buffers, and completions.

mod examine;
mod inbox;
mod saved;

use std::sync::atomic::{Ordering, fence};

use paraslot_device::{DmaSpace, Memory};
use paraslot_spec::vmxnet3::{
    COMP_GEN, MIN_T0_BUF_SIZE, RX_RINGS, RxCompDesc, completion, queue_error, rcd, rxd,
};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

pub(crate) use self::examine::{Arrival, Terms};
pub(crate) use self::inbox::Inbox;
pub(crate) use self::saved::{ArrivalState, RxState};
use crate::ring::Ring;
use crate::transmit::write_completion;

/// Buffers that a packet has if it is not put together of several: far more than one of the greatest
/// MTU takes in buffers of the least size that drivers use.
const MOST_PLAIN: usize = 18;
/// Body buffers that are skipped in one look for a head buffer.
const SKIP: u32 = 256;
/// Offset of a descriptor's word with the generation.
const GEN_AT: u64 = 8;

/// Why a frame was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// The guest has given too few buffers.
    Starved,
    /// It would take more buffers than a packet may have.
    TooLong,
    /// The queue has stopped.
    Stopped,
}

/// A receive queue's rings.
pub(crate) struct Rings {
    /// The first ring, of head and body buffers, and the second, of body buffers.
    pub(crate) descriptors: [Option<Ring>; RX_RINGS],
    pub(crate) comp: Ring,
    /// Where the data ring is, and the bytes of an entry.
    pub(crate) data: Option<(u64, u16)>,
}

/// A receive queue's device side.
pub(crate) struct RxQueue {
    rings: [Option<Ring>; RX_RINGS],
    comp: Ring,
    data_ring: Option<(u64, u16)>,
    /// A packet goes on in head buffers as well: the driver, which is Windows', gives no others.
    heads_alone: bool,
    /// RQID of the first ring, the second and the data ring.
    ids: [u32; 3],
    intr: u8,
    /// Where `updateRxProd` is.
    control: GuestAddress,
    /// The driver has been asked to ring when it gives buffers.
    asked: bool,
    /// Why it has stopped.
    stopped: Option<u32>,
    /// Those of the packet at hand.
    buffers: Vec<Buffer>,
}

/// A buffer that the guest has given.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    ring: usize,
    index: u32,
    address: u64,
    len: usize,
}

/// What a buffer has of a packet.
#[derive(Clone, Copy, Debug)]
struct Part {
    index: u32,
    /// RQID.
    id: u32,
    len: usize,
    /// It is the packet's first, and its last.
    ends: (bool, bool),
    /// All of the packet could be written.
    right: bool,
}

impl RxQueue {
    pub(crate) fn new(
        rings: Rings,
        heads_alone: bool,
        ids: [u32; 3],
        intr: u8,
        control: GuestAddress,
    ) -> Self {
        let Rings { descriptors, comp, data } = rings;
        Self {
            rings: descriptors,
            comp,
            data_ring: data,
            heads_alone,
            ids,
            intr,
            control,
            asked: false,
            stopped: None,
            buffers: Vec::new(),
        }
    }

    pub(crate) fn intr(&self) -> u8 {
        self.intr
    }

    /// Why it has stopped, if it has.
    pub(crate) fn stopped(&self) -> Option<u32> {
        self.stopped
    }

    /// Tells the driver whether it must ring when it gives buffers.
    pub(crate) fn ask<A: DmaSpace>(&self, memory: &Memory<A>, ring: bool) -> bool {
        memory.store(u8::from(ring), self.control, Ordering::Release).is_ok()
    }

    /// Asks the driver to ring, or takes that back.
    pub(crate) fn listen<A: DmaSpace>(&mut self, memory: &Memory<A>, listen: bool) {
        if self.asked != listen {
            self.asked = listen;
            // What cannot be written now could not be read by the driver either.
            let _ = self.ask(memory, listen);
        }
        if listen {
            // One total order with a driver that looks at this after it has given a buffer.
            fence(Ordering::SeqCst);
        }
    }

    /// Whether the next descriptor of a ring is the device's; says its flags then.
    fn given<A: DmaSpace>(
        &self,
        memory: &Memory<A>,
        ring: &Ring,
        count: u32,
    ) -> Result<Option<(u32, u32)>, Short> {
        if count >= ring.size() {
            return Ok(None);
        }
        let place = ring.ahead(count);
        let word: u32 = memory
            .load(ring.address(place.index, GEN_AT), Ordering::Acquire)
            .map_err(|_| Short::Stopped)?;
        let word = u32::from_le(word);
        Ok(((word & rxd::GEN != 0) == place.lap).then_some((place.index, word)))
    }

    /// The buffer of a descriptor whose flags have been read.
    fn buffer<A: DmaSpace>(
        &self,
        memory: &Memory<A>,
        which: usize,
        ring: &Ring,
        (index, word): (u32, u32),
    ) -> Result<Buffer, Short> {
        let address: u64 =
            memory.load(ring.address(index, 0), Ordering::Relaxed).map_err(|_| Short::Stopped)?;
        let len = usize::try_from(word & rxd::LEN).unwrap_or(0);
        Ok(Buffer { ring: which, index, address: u64::from_le(address), len })
    }

    /// The next head buffer. Body buffers before it are skipped for good, [`SKIP`] of them at most: no
    /// packet can start in them.
    fn head<A: DmaSpace>(&mut self, memory: &Memory<A>) -> Result<Buffer, Short> {
        for _ in 0..SKIP {
            let ring = self.rings[0].as_ref().ok_or(Short::Starved)?;
            let found = self.given(memory, ring, 0)?.ok_or(Short::Starved)?;
            if found.1 & rxd::BTYPE_BODY == 0 {
                return self.buffer(memory, 0, ring, found);
            }
            self.advance(0, 1);
        }
        Err(Short::Starved)
    }

    /// Whether there is a head buffer. An error is for the next delivery to find.
    pub(crate) fn has_head<A: DmaSpace>(&mut self, memory: &Memory<A>) -> bool {
        self.stopped.is_none() && !matches!(self.head(memory), Err(Short::Starved))
    }

    /// Buffers of the packet that was delivered last.
    pub(crate) fn buffers_used(&self) -> usize {
        self.buffers.len()
    }

    /// Stops the queue.
    fn stop(&mut self, error: u32) -> Short {
        self.stopped = Some(error);
        Short::Stopped
    }

    /// Gives the guest a frame: `bytes`, of which `arrival` tells. Says whether the guest's memory took
    /// it; if not, the guest has it marked as wrong.
    pub(crate) fn deliver<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        arrival: &Arrival,
        bytes: &[u8],
        most: usize,
    ) -> Result<bool, Short> {
        self.buffers.clear();
        if self.stopped.is_some() {
            return Err(Short::Stopped);
        }
        let result = self.place(memory, arrival, bytes, most);
        if result == Err(Short::Stopped) && self.stopped.is_none() {
            self.stopped = Some(queue_error::DESC_NOT_SPT);
        }
        result
    }

    /// Finds the buffers for a packet of `len` bytes. Says how many descriptors of each ring that takes.
    fn gather<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        arrival: &Arrival,
        len: usize,
        most: usize,
    ) -> Result<[u32; RX_RINGS], Short> {
        let head = self.head(memory)?;
        if head.len < usize::try_from(MIN_T0_BUF_SIZE).unwrap_or(usize::MAX) {
            return Err(self.stop(queue_error::SMALL_BUF));
        }
        self.buffers.clear();
        self.buffers.push(head);
        let mut used = [1, 0];
        if self.fits_data_ring(len).is_some() {
            return Ok(used);
        }
        let mut room = head.len;
        let most = if arrival.segments.is_some() { most } else { most.max(MOST_PLAIN) };
        while room < len {
            if self.buffers.len() >= most {
                return Err(Short::TooLong);
            }
            let buffer = self.body(memory, &mut used)?;
            if buffer.len == 0 {
                return Err(self.stop(queue_error::SMALL_BUF));
            }
            room = room.saturating_add(buffer.len);
            self.buffers.push(buffer);
        }
        Ok(used)
    }

    /// Whether there are buffers for a packet, or something else is to be said about it.
    pub(crate) fn has_room<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        arrival: &Arrival,
        most: usize,
    ) -> bool {
        let len = arrival.end - arrival.start;
        self.stopped.is_none() && self.gather(memory, arrival, len, most) != Err(Short::Starved)
    }

    /// The data ring, if a packet of `len` bytes goes there: where it is, and the bytes of an entry.
    fn fits_data_ring(&self, len: usize) -> Option<(u64, u16)> {
        self.data_ring.filter(|(_, entry)| len <= (*entry).into())
    }

    fn place<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        arrival: &Arrival,
        bytes: &[u8],
        most: usize,
    ) -> Result<bool, Short> {
        let [first, second] = self.gather(memory, arrival, bytes.len(), most)?;
        if let Some((base, entry)) = self.fits_data_ring(bytes.len()) {
            let index = self.buffers.first().map_or(0, |head| head.index);
            // Inside the data ring, which does not wrap.
            let place = base.wrapping_add(u64::from(index) * u64::from(entry));
            let right = memory.write_slice(bytes, GuestAddress(place)).is_ok();
            self.advance(0, first);
            let [_, _, id] = self.ids;
            self.complete(
                memory,
                arrival,
                Part { index, id, len: bytes.len(), ends: (true, true), right },
            )?;
            return Ok(right);
        }
        let mut rest = bytes;
        let mut right = true;
        for buffer in &self.buffers {
            let (now, then) = rest.split_at(buffer.len.min(rest.len()));
            right &= memory.write_slice(now, GuestAddress(buffer.address)).is_ok();
            rest = then;
        }
        self.advance(0, first);
        self.advance(1, second);
        let mut left = bytes.len();
        for number in 0..self.buffers.len() {
            let Some(&Buffer { ring, index, len, .. }) = self.buffers.get(number) else { break };
            let len = len.min(left);
            left -= len;
            let id = self.ids.get(ring).copied().unwrap_or(0);
            let ends = (number == 0, number + 1 == self.buffers.len());
            self.complete(memory, arrival, Part { index, id, len, ends, right })?;
        }
        Ok(right)
    }

    /// The next body buffer, behind those that are `used` of each ring: of the first ring if one is next
    /// there, else of the second.
    fn body<A: DmaSpace>(
        &self,
        memory: &Memory<A>,
        used: &mut [u32; RX_RINGS],
    ) -> Result<Buffer, Short> {
        for (which, ring) in self.rings.iter().enumerate() {
            let (Some(ring), Some(used)) = (ring, used.get_mut(which)) else { continue };
            let Some(found) = self.given(memory, ring, *used)? else { continue };
            if found.1 & rxd::BTYPE_BODY != 0 || self.heads_alone {
                *used += 1;
                return self.buffer(memory, which, ring, found);
            }
            if which != 0 {
                // A packet cannot start in the second ring.
                return Err(Short::Stopped);
            }
        }
        Err(Short::Starved)
    }

    fn advance(&mut self, which: usize, count: u32) {
        if let Some(Some(ring)) = self.rings.get_mut(which) {
            ring.advance(count);
        }
    }

    /// Writes the completion of a buffer. CVE-2016-6836: all bytes of it.
    fn complete<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        arrival: &Arrival,
        part: Part,
    ) -> Result<(), Short> {
        let Part { index, id, len, ends: (first, last), right } = part;
        let place = self.comp.ahead(0);
        let mut words =
            [index | id << rcd::RQID_SHIFT, 0, u32::try_from(len).unwrap_or(0), rcd::FCS];
        let mut kind = completion::RXCOMP;
        if first {
            words[0] |= rcd::SOP;
            if let Some((segments, size)) = arrival.segments.filter(|_| arrival.tells_segments) {
                kind = completion::RXCOMP_LRO;
                words[1] = segments.into();
                words[3] |= u32::from(size) | arrival.flags;
            } else {
                words[0] |= arrival.hash.kind << rcd::RSS_TYPE_SHIFT;
                words[1] = arrival.hash.value;
            }
        }
        if last {
            words[0] |= rcd::EOP | if arrival.checked { 0 } else { rcd::CNC };
            words[2] |= if right { 0 } else { rcd::ERR };
            if let Some(tag) = arrival.tag {
                words[2] |= rcd::TS | u32::from(tag) << rcd::TCI_SHIFT;
            }
            words[3] |= arrival.flags;
        }
        words[3] |= kind << completion::TYPE_SHIFT | if place.lap { COMP_GEN } else { 0 };
        let [index, rss_hash, len, flags] = words.map(Into::into);
        let completion = RxCompDesc { index, rss_hash, len, flags };
        write_completion(memory, &self.comp, place.index, completion.as_bytes())
            .ok_or(Short::Stopped)?;
        self.comp.advance(1);
        Ok(())
    }
}
