//! The transmit queue.

use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};

use paraslot_protocol::traffic;
use paraslot_spec::net::{ETHERNET_HEADER, VLAN_TAG, ether_type, ipv4, protocol, tcp};
use paraslot_spec::vmxnet3::{
    COMP_GEN, COMP_GEN_OFFSET, COMP_IDX, DATA_DESC_SIZE_ALIGN, DESC_LEN, INIT_GEN, MAX_CSUM_OFFSET,
    MAX_TX_BUF_SIZE, TXDATA_DESC_MAX_SIZE, TXDATA_DESC_MIN_SIZE, TxCompDesc, TxDesc, TxQueueConf,
    TxQueueDesc, txd,
};

use crate::{DmaRegion, Error, Platform, Task};

/// Descriptors, completions, and entries of the data ring.
const RING: u16 = 512;
/// Most frames on the ring. One descriptor stays free, so that a full ring is not an empty one.
pub(super) const DEPTH: u16 = RING - 1;
/// A frame of up to so many bytes is in the data ring as a whole.
const SHORT: usize = 128;
const _: () = assert!(SHORT == TXDATA_DESC_MIN_SIZE as usize);
/// Bytes of Ethernet, IPv4 and TCP headers, and where each begins.
const IP: usize = ETHERNET_HEADER;
const TCP: usize = IP + 20;
const HEADERS: usize = TCP + 20;
/// What is in an IPv4 header, from the start of the frame.
const IP_PROTOCOL: usize = IP + 9;
const IP_CHECKSUM: usize = IP + 10;
const IP_ADDRESSES: usize = IP + 12;
/// Where IPv6 tells what follows.
const IPV6_NEXT: usize = IP + 6;
/// Where TCP tells its header's length, and that of UDP's.
const TCP_DATA_OFFSET: usize = 12;
const UDP_HEADER: usize = 8;

/// Offsets in a descriptor.
const LEN: usize = offset_of!(TxDesc, len);
const FLAGS: usize = offset_of!(TxDesc, flags);

/// A frame on the ring.
#[derive(Clone, Copy, Default)]
struct Sent {
    tag: u16,
    /// Its last descriptor, whose completion tells that it is done.
    last: u16,
    descriptors: u16,
}

/// What is put on the ring for a frame.
struct Plan {
    /// Bytes at its start that are copied into the data ring.
    copied: usize,
    /// Of the first descriptor: beside the length, and of the flags.
    len: u32,
    flags: u32,
    /// Packets that it becomes.
    packets: u32,
    /// Whether it is segmented.
    segmented: bool,
}

/// The queue, and what is on its ring.
pub(super) struct Transmit {
    ring: DmaRegion,
    data: DmaRegion,
    completions: DmaRegion,
    /// The queue's descriptor.
    shared: DmaRegion,
    /// Bytes of an entry of the data ring.
    entry: u16,
    /// Bytes of the longest frame that is sent as it is.
    longest: usize,
    /// Frames on the ring, in order; the oldest is at `oldest`.
    sent: [Sent; RING as usize],
    oldest: u16,
    frames: u16,
    /// Tags in use.
    tags: [u64; RING as usize / 64],
    /// The next descriptor to be used, the generation of its lap, and how many are used.
    next: u16,
    lap: bool,
    used: u16,
    /// The next completion, and the generation of its lap.
    completion: u16,
    completion_lap: bool,
    /// Whether there are frames that the adapter may not have been told of.
    untold: bool,
}

fn limit(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Descriptors for so many bytes.
fn pieces(len: usize) -> usize {
    len.div_ceil(PIECE)
}

/// Most bytes of a descriptor.
const PIECE: usize = 1 << 14;
const _: () = assert!(PIECE == MAX_TX_BUF_SIZE as usize);

impl Transmit {
    /// A queue without frames. `wanted` is how long the adapter would like entries of the data ring to
    /// be, if it says so.
    pub(super) fn new<P: Platform>(
        platform: &P,
        shared: DmaRegion,
        wanted: Option<u32>,
        mtu: u16,
    ) -> Result<Self, Error> {
        let entry = entry_len(wanted);
        let allocate =
            |len: usize| platform.allocate(usize::from(RING) * len).ok_or(Error::NoMemory);
        Ok(Self {
            ring: allocate(DESC_LEN)?,
            data: allocate(entry.into())?,
            completions: allocate(DESC_LEN)?,
            shared,
            entry,
            longest: ETHERNET_HEADER + VLAN_TAG + usize::from(mtu),
            sent: [Sent::default(); RING as usize],
            oldest: 0,
            frames: 0,
            tags: [0; RING as usize / 64],
            next: 0,
            lap: INIT_GEN,
            used: 0,
            completion: 0,
            completion_lap: INIT_GEN,
            untold: false,
        })
    }

    /// What the adapter is told of it.
    pub(super) fn conf(&self, interrupt: u8) -> TxQueueConf {
        let mut conf = TxQueueConf::default();
        conf.tx_ring_base_pa.set(self.ring.physical(0));
        conf.data_ring_base_pa.set(self.data.physical(0));
        conf.comp_ring_base_pa.set(self.completions.physical(0));
        conf.tx_ring_size.set(RING.into());
        conf.data_ring_size.set(RING.into());
        conf.comp_ring_size.set(RING.into());
        conf.tx_data_ring_desc_size.set(self.entry);
        conf.intr_idx = interrupt;
        conf
    }

    fn tag(&mut self, tag: u16) -> (&mut u64, u64) {
        let index = usize::from(tag / 64);
        // Below the depth, as checked where tags come in.
        (&mut self.tags[index], 1 << (tag % 64))
    }

    /// How many frames of this kind the ring certainly has room for now.
    pub(super) fn room(&self, len: usize, task: Task) -> usize {
        let whole = match task {
            Task::None => len <= usize::from(self.entry),
            Task::Checksum { .. } => len <= SHORT,
            Task::Segment { .. } => false,
        };
        let descriptors = if whole { 1 } else { 1 + pieces(len) };
        usize::from(DEPTH - self.used) / descriptors
    }

    /// Puts a frame on the ring.
    pub(super) fn push(
        &mut self,
        tag: u16,
        frame: &DmaRegion,
        len: usize,
        task: Task,
    ) -> Result<(), Error> {
        if tag >= DEPTH || matches!(self.tag(tag), (word, bit) if *word & bit != 0) {
            return Err(Error::Request("the tag is too high or in use"));
        }
        if len > frame.len() {
            return Err(Error::Request("the frame is longer than its memory"));
        }
        let plan = match task {
            Task::None => self.plain(len)?,
            Task::Checksum { start, offset } => self.checksum(frame, len, start, offset)?,
            Task::Segment { size } => segment(frame, len, size)?,
        };
        let count = usize::from(plan.copied != 0) + pieces(len - plan.copied);
        let descriptors = u16::try_from(count).map_err(|_| Error::Request("a frame so long"))?;
        if descriptors > DEPTH - self.used {
            return Err(Error::Busy);
        }
        if plan.copied != 0 {
            self.copy(frame, &plan);
        }
        let last = self.fill(frame, len, &plan);
        let place = (self.oldest + self.frames) % RING;
        self.sent[usize::from(place)] = Sent { tag, last, descriptors };
        let (word, bit) = self.tag(tag);
        *word |= bit;
        self.frames += 1;
        self.used += descriptors;
        self.untold = true;
        Ok(())
    }

    fn plain(&self, len: usize) -> Result<Plan, Error> {
        if !(ETHERNET_HEADER..=self.longest).contains(&len) {
            return Err(Error::Request("a frame of this length cannot be sent as it is"));
        }
        let copied = len.min(self.entry.into());
        Ok(Plan { copied, len: 0, flags: txd::OM_NONE, packets: 1, segmented: false })
    }

    fn checksum(
        &self,
        frame: &DmaRegion,
        len: usize,
        start: u16,
        offset: u16,
    ) -> Result<Plan, Error> {
        let plain = self.plain(len)?;
        let place = start
            .checked_add(offset)
            .filter(|place| *place <= MAX_CSUM_OFFSET && usize::from(*place) + 2 <= len)
            .filter(|_| u32::from(start) <= txd::HLEN)
            .ok_or(Error::Request("the checksum is not where it can be"))?;
        // The headers; all of a short frame; nothing if that is more than an entry holds.
        let headers = usize::from(start) + transport_header(frame, len, start.into());
        let copied = match len {
            ..=SHORT => len,
            _ => Some(headers.min(len)).filter(|len| *len <= self.entry.into()).unwrap_or(0),
        };
        let len = u32::from(place) << txd::MSSCOF_SHIFT;
        Ok(Plan { copied, len, flags: txd::OM_CSUM | u32::from(start), ..plain })
    }

    /// Copies what is to be copied of a frame.
    fn copy(&self, frame: &DmaRegion, plan: &Plan) {
        let at = usize::from(self.next) * usize::from(self.entry);
        self.data.copy_from(at, frame, 0, plan.copied);
        if plan.segmented {
            // What it fills in for each segment: IP's checksum, and the pseudo header's length.
            let mut addresses = [0; 8];
            frame.copy_out(IP_ADDRESSES, &mut addresses);
            let sum = traffic::sum(protocol::TCP.into(), &addresses);
            self.data.copy_in(at + IP_CHECKSUM, &[0; 2]);
            self.data.copy_in(at + TCP + tcp::CHECKSUM, &sum.to_be_bytes());
        }
    }

    /// Writes a frame's descriptors. Returns the index of the last.
    fn fill(&mut self, frame: &DmaRegion, len: usize, plan: &Plan) -> u16 {
        let (first, lap) = (self.next, self.lap);
        let mut first_len = plan.len;
        let (mut last, mut done) = (first, 0);
        while done < len {
            let copied = done == 0 && plan.copied != 0;
            let (address, piece) = match copied {
                true => {
                    let entry = usize::from(self.next) * usize::from(self.entry);
                    (self.data.physical(entry), plan.copied)
                }
                false => (frame.physical(done), (len - done).min(PIECE)),
            };
            let mut flags = if done == 0 { plan.flags } else { 0 };
            done += piece;
            if done == len {
                flags |= txd::EOP | txd::CQ;
            }
            // All of them is said as nothing.
            let word = limit(piece) & txd::LEN;
            last = self.next;
            let at = usize::from(last) * DESC_LEN;
            self.ring.write64(at, address);
            self.ring.write32(at + FLAGS, flags);
            // The first is not handed over before the rest is there. Until then it has the generation
            // that it was left with, of another lap.
            match last == first {
                true => first_len |= word,
                false => self.ring.write32(at + LEN, word | generation(self.lap)),
            }
            self.next = (last + 1) % RING;
            self.lap ^= self.next == 0;
        }
        let deferred = self.control(NUM_DEFERRED).saturating_add(plan.packets);
        self.shared.write32(NUM_DEFERRED, deferred);
        self.ring.store32(usize::from(first) * DESC_LEN + LEN, first_len | generation(lap));
        last
    }

    fn control(&self, offset: usize) -> u32 {
        self.shared.read32(offset)
    }

    /// The index to tell the adapter, if there is something that it may not have been told, and as
    /// much as it wants to gather first.
    pub(super) fn tell(&mut self) -> Option<u16> {
        if !self.untold {
            return None;
        }
        // What it wants must be read after what it may look for has been written.
        fence(Ordering::SeqCst);
        if self.control(NUM_DEFERRED) < self.control(THRESHOLD) {
            return None;
        }
        self.shared.write32(NUM_DEFERRED, 0);
        self.untold = false;
        Some(self.next)
    }

    /// Hands the tags of frames that are done to `done`. Returns whether there were any.
    pub(super) fn reclaim(&mut self, mut done: impl FnMut(u16)) -> Result<bool, Error> {
        let mut any = false;
        // The ring of completions goes round with the other, so this ends.
        while let Some(index) = self.look() {
            let Sent { tag, last, descriptors } = self.sent[usize::from(self.oldest)];
            // Frames are done in order.
            if self.frames == 0 || index != u32::from(last) {
                return Err(Error::Protocol("a frame is done that was not next"));
            }
            self.completion = (self.completion + 1) % RING;
            self.completion_lap ^= self.completion == 0;
            let (word, bit) = self.tag(tag);
            *word &= !bit;
            self.oldest = (self.oldest + 1) % RING;
            self.frames -= 1;
            self.used -= descriptors;
            any = true;
            done(tag);
        }
        Ok(any)
    }

    /// The descriptor that the next completion is about; `None` while there is none.
    fn look(&self) -> Option<u32> {
        let at = usize::from(self.completion) * DESC_LEN;
        // It is written last, so that the rest is there when this is.
        let lap = self.completions.load32(at + COMPLETION_LAP) & COMP_GEN != 0;
        let index = || self.completions.read32(at + offset_of!(TxCompDesc, txd_idx));
        (lap == self.completion_lap).then(|| index() & COMP_IDX)
    }

    /// Forgets all frames; the adapter has been reset.
    pub(super) fn forget(&mut self) {
        (self.oldest, self.frames, self.next, self.used, self.completion) = (0, 0, 0, 0, 0);
        (self.lap, self.completion_lap) = (INIT_GEN, INIT_GEN);
        self.tags = [0; RING as usize / 64];
        self.untold = false;
        for index in 0..usize::from(RING) {
            self.ring.write32(index * DESC_LEN + LEN, 0);
            self.completions.write32(index * DESC_LEN + COMPLETION_LAP, 0);
        }
    }
}

const NUM_DEFERRED: usize = offset_of!(TxQueueDesc, ctrl.tx_num_deferred);
const THRESHOLD: usize = offset_of!(TxQueueDesc, ctrl.tx_threshold);
/// [`COMP_GEN_OFFSET`], as an index.
const COMPLETION_LAP: usize = 12;
const _: () = assert!(COMPLETION_LAP as u64 == COMP_GEN_OFFSET);

fn generation(lap: bool) -> u32 {
    if lap { txd::GEN } else { 0 }
}

/// Bytes of an entry of the data ring: what the adapter likes, if that is possible.
fn entry_len(wanted: Option<u32>) -> u16 {
    let [low, high, ..] = wanted.unwrap_or(0).to_le_bytes();
    let len = u16::from_le_bytes([low, high]);
    let possible = (TXDATA_DESC_MIN_SIZE..=TXDATA_DESC_MAX_SIZE).contains(&len)
        && len.is_multiple_of(DATA_DESC_SIZE_ALIGN);
    if possible { len } else { TXDATA_DESC_MIN_SIZE }
}

fn ether_type_of(frame: &DmaRegion) -> u16 {
    frame.read16(12).swap_bytes()
}

/// Bytes of the transport header at `start`, if it is one that is known.
fn transport_header(frame: &DmaRegion, len: usize, start: usize) -> usize {
    let place = match ether_type_of(frame) {
        ether_type::IPV4 => IP_PROTOCOL,
        ether_type::IPV6 => IPV6_NEXT,
        _ => return 0,
    };
    let byte = |at: usize| if at < len { frame.read8(at) } else { 0 };
    match byte(place) {
        protocol::TCP => usize::from(byte(start + TCP_DATA_OFFSET) >> 4) * 4,
        protocol::UDP => UDP_HEADER,
        _ => 0,
    }
}

/// How a frame is segmented.
fn segment(frame: &DmaRegion, len: usize, size: u16) -> Result<Plan, Error> {
    let payload = len.checked_sub(HEADERS).filter(|payload| *payload != 0);
    let total = u16::try_from(len.saturating_sub(IP));
    let (Some(payload), Ok(_)) = (payload, total) else {
        return Err(Error::Request("a frame of this length cannot be segmented"));
    };
    let plain = ether_type_of(frame) == ether_type::IPV4
        && frame.read8(IP) == ipv4::VERSION_IHL
        && frame.read8(IP_PROTOCOL) == protocol::TCP
        && frame.read8(TCP + TCP_DATA_OFFSET) >> 4 == tcp::DATA_OFFSET >> 4;
    if !plain {
        return Err(Error::Request("only TCP over IPv4, both without options, can be segmented"));
    }
    if !(1..=MAX_MSS).contains(&size) {
        return Err(Error::Request("segments of this size"));
    }
    Ok(Plan {
        copied: HEADERS,
        len: u32::from(size) << txd::MSSCOF_SHIFT,
        flags: txd::OM_TSO | limit(HEADERS),
        packets: limit(payload).div_ceil(size.into()),
        segmented: true,
    })
}

/// The greatest size of segments that a descriptor can say.
const MAX_MSS: u16 = (1 << (32 - txd::MSSCOF_SHIFT)) - 1;
