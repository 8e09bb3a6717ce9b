//! The transmit ring (3.3, 3.4).

use paraslot_spec::e1000::{
    Context, DESCRIPTOR_LEN, FCS_LEN, LONGEST_NORMAL, TRANSMIT_STATUS, TransmitDescriptor, transmit,
};
use paraslot_spec::net::{ETHERNET_HEADER, ether_type, protocol, tcp};

use super::RING;
use super::throttle::Amount;
use crate::{DmaRegion, Error, Platform, Task};

/// Most bytes of a descriptor.
const PIECE: u32 = 4096;
/// Bytes of what is cut off where a piece must be short.
const SHORT: u32 = 4;
/// Descriptors that stay free, so that the tail never touches the head.
const GAP: u16 = 2;
/// Most frames on the ring.
pub(super) const DEPTH: u16 = RING - GAP;
/// Bytes of Ethernet, IPv4 and TCP headers.
const HEADERS: usize = TCP + 20;
/// Bytes that a copy of them takes.
const HEADERS_PLACE: usize = 64;
/// Where the IP header begins, in a frame without VLAN tags, and what is in it, from there.
const IP: usize = ETHERNET_HEADER;
const IP_TOTAL_LENGTH: usize = 2;
const IP_CHECKSUM: usize = 10;
const IP_ADDRESSES: usize = 12;
/// Where the TCP header begins, behind an IPv4 header without options.
const TCP: usize = IP + 20;

/// A frame on the ring.
#[derive(Clone, Copy, Default)]
struct Sent {
    tag: u16,
    /// Its last descriptor; the one that tells that it is done.
    last: u16,
    descriptors: u16,
    /// As it is on the wire.
    amount: Amount,
}

/// The lengths of the descriptors that data is cut into.
#[derive(Clone)]
struct Pieces {
    left: u32,
    most: u32,
    short_first: bool,
    short_last: bool,
}

impl Pieces {
    fn number(&self) -> Option<u16> {
        u16::try_from(self.clone().take(RING.into()).count()).ok()
    }
}

impl Iterator for Pieces {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.left == 0 {
            return None;
        }
        let mut len = self.left.min(self.most);
        let short = core::mem::take(&mut self.short_first)
            || (self.short_last && len == self.left && len > 2 * SHORT);
        if short && len > SHORT {
            len -= SHORT;
        }
        self.left -= len;
        Some(len)
    }
}

/// What is put on the ring for a frame.
struct Plan {
    /// In a descriptor of its own, ahead of the data.
    context: Option<TransmitDescriptor>,
    /// Of every data descriptor's command word.
    flags: u32,
    popts: u8,
    /// Bytes at the frame's start that are sent from the copy of its headers.
    headers: u32,
    pieces: Pieces,
    amount: Amount,
}

/// The ring, and what is on it.
pub(super) struct Transmit {
    ring: DmaRegion,
    /// For each tag, the headers of a frame that is to be segmented.
    headers: DmaRegion,
    /// Frames on the ring, in order; the oldest is at `oldest`.
    sent: [Sent; RING as usize],
    oldest: u16,
    frames: u16,
    /// Those of them that the controller has been told of.
    told: u16,
    /// Tags in use.
    tags: [u64; RING as usize / 64],
    /// The next descriptor to be used, and how many are.
    next: u16,
    used: u16,
    /// Whether the frame before was segmented.
    segmented: bool,
}

/// The sum of 16-bit words that stands in the checksum's place ahead of the TCP segment: that of the
/// pseudo header without its length, which differs from segment to segment (3.5.7).
fn pseudo_sum(addresses: &[u8]) -> u16 {
    let words = addresses.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    words.fold(u16::from(protocol::TCP), |sum, word| {
        let (sum, carry) = sum.overflowing_add(word);
        // A carry leaves room for one.
        sum + u16::from(carry)
    })
}

impl Transmit {
    pub(super) fn new<P: Platform>(platform: &P) -> Result<Self, Error> {
        let allocate = |len| platform.allocate(len).ok_or(Error::NoMemory);
        Ok(Self {
            ring: allocate(usize::from(RING) * DESCRIPTOR_LEN)?,
            headers: allocate(usize::from(DEPTH) * HEADERS_PLACE)?,
            sent: [Sent::default(); RING as usize],
            oldest: 0,
            frames: 0,
            told: 0,
            tags: [0; RING as usize / 64],
            next: 0,
            used: 0,
            segmented: false,
        })
    }

    /// Where the ring is.
    pub(super) fn address(&self) -> u64 {
        self.ring.physical(0)
    }

    fn tag(&mut self, tag: u16) -> (&mut u64, u64) {
        let index = usize::from(tag / 64);
        // Below the depth, as checked where tags come in.
        (&mut self.tags[index], 1 << (tag % 64))
    }

    /// How many frames of this kind the ring certainly has room for now.
    pub(super) fn room(&self, len: usize, task: Task) -> usize {
        // The context, the headers, and one more where a piece is cut short.
        let (most, more) = match task {
            Task::None => (PIECE, usize::from(self.segmented)),
            Task::Checksum { .. } => (PIECE, 1 + usize::from(self.segmented)),
            Task::Segment { size } => (piece_of_segments(size), 3),
        };
        let pieces = limit(len).div_ceil(most.max(1)).max(1);
        let descriptors = usize::try_from(pieces).unwrap_or(usize::MAX).saturating_add(more);
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
        let count = plan
            .pieces
            .number()
            .and_then(|pieces| pieces.checked_add(u16::from(plan.context.is_some())))
            .and_then(|count| count.checked_add(u16::from(plan.headers != 0)))
            .filter(|count| *count <= DEPTH)
            .ok_or(Error::Request("too many segments"))?;
        if self.used + count > DEPTH {
            return Err(Error::Busy);
        }
        if plan.headers != 0 {
            self.copy_headers(tag, frame);
        }
        let last = self.fill(tag, frame, &plan);
        let place = (self.oldest + self.frames) % RING;
        self.sent[usize::from(place)] = Sent { tag, last, descriptors: count, amount: plan.amount };
        let (word, bit) = self.tag(tag);
        *word |= bit;
        self.frames += 1;
        self.used += count;
        self.segmented = plan.headers != 0;
        Ok(())
    }

    fn plain(&self, len: usize) -> Result<Plan, Error> {
        if !(ETHERNET_HEADER..=LONGEST_NORMAL - FCS_LEN).contains(&len) {
            return Err(Error::Request("a frame of this length cannot be sent as it is"));
        }
        let len = limit(len);
        // Behind a segmented frame the descriptor of one that is all in one piece could be reported
        // done too early.
        let short_first = self.segmented;
        Ok(Plan {
            context: None,
            flags: 0,
            popts: 0,
            headers: 0,
            pieces: Pieces { left: len, most: PIECE, short_first, short_last: false },
            amount: Amount { packets: 1, bytes: len },
        })
    }

    fn checksum(
        &self,
        frame: &DmaRegion,
        len: usize,
        start: u16,
        offset: u16,
    ) -> Result<Plan, Error> {
        let plain = self.plain(len)?;
        let place = start.checked_add(offset);
        let fields =
            place.and_then(|place| Some((u8::try_from(start).ok()?, u8::try_from(place).ok()?)));
        let (tucss, tucso) = fields
            .filter(|(_, place)| usize::from(*place) + 2 <= len)
            .ok_or(Error::Request("the checksum is not where it can be"))?;
        let context = Context { tucss, tucso, ..Context::default() };
        let flags = if is_tcp(frame, len) { transmit::TCP } else { 0 };
        Ok(Plan {
            context: Some(TransmitDescriptor::context(&context, flags)),
            popts: transmit::TXSM,
            ..plain
        })
    }

    /// Copies a frame's headers, as the controller wants them to segment: without the lengths and
    /// checksums that it fills in.
    fn copy_headers(&self, tag: u16, frame: &DmaRegion) {
        let mut headers = [0; HEADERS];
        frame.read_bytes(0, &mut headers);
        let (ip, tcp) = headers.split_at_mut(TCP);
        let ip = &mut ip[IP..];
        ip[IP_TOTAL_LENGTH..][..2].fill(0);
        ip[IP_CHECKSUM..][..2].fill(0);
        let sum = pseudo_sum(&ip[IP_ADDRESSES..]);
        tcp[tcp::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
        self.headers.write_bytes(usize::from(tag) * HEADERS_PLACE, &headers);
    }

    /// Writes a frame's descriptors. Returns the index of the last.
    fn fill(&mut self, tag: u16, frame: &DmaRegion, plan: &Plan) -> u16 {
        if let Some(context) = plan.context {
            self.put(context);
        }
        let data = |address, len, last| {
            let end = transmit::EOP | transmit::RS | transmit::IDE;
            let flags = plan.flags | transmit::IFCS | if last { end } else { 0 };
            match u16::try_from(len) {
                Ok(len) if plan.context.is_none() => {
                    TransmitDescriptor::legacy(address, len, flags)
                }
                _ => TransmitDescriptor::data(address, len, flags, plan.popts),
            }
        };
        if plan.headers != 0 {
            let address = self.headers.physical(usize::from(tag) * HEADERS_PLACE);
            self.put(data(address, plan.headers, false));
        }
        let mut address = frame.physical(0) + u64::from(plan.headers);
        let mut pieces = plan.pieces.clone();
        let mut last = self.next;
        while let Some(len) = pieces.next() {
            last = self.put(data(address, len, pieces.left == 0));
            address += u64::from(len);
        }
        last
    }

    /// Writes the next descriptor. Returns its index.
    fn put(&mut self, descriptor: TransmitDescriptor) -> u16 {
        let index = self.next;
        let at = usize::from(index) * DESCRIPTOR_LEN;
        self.ring.write64(at, descriptor.address.get());
        self.ring.write32(at + 8, descriptor.command.get());
        self.ring.write32(at + 12, descriptor.status.get());
        self.next = (index + 1) % RING;
        index
    }

    /// The tail to tell the controller, if there is something that it has not been told.
    pub(super) fn tell(&mut self) -> Option<u16> {
        if self.told == self.frames {
            return None;
        }
        self.told = self.frames;
        Some(self.next)
    }

    /// Hands the tags of frames that are done to `done`, and counts them into `amount`.
    pub(super) fn reclaim(&mut self, amount: &mut Amount, mut done: impl FnMut(u16)) {
        while self.told != 0 {
            let Sent { tag, last, descriptors, amount: sent } = self.sent[usize::from(self.oldest)];
            let status = usize::from(last) * DESCRIPTOR_LEN + STATUS;
            // The controller writes it after it has read all of the frame. Frames are done in order;
            // what it says of later ones is not looked at before.
            let [status, ..] = self.ring.load32(status).to_le_bytes();
            if status & transmit::DD == 0 {
                break;
            }
            let (word, bit) = self.tag(tag);
            *word &= !bit;
            self.oldest = (self.oldest + 1) % RING;
            self.frames -= 1;
            self.told -= 1;
            self.used -= descriptors;
            amount.add(sent.packets, sent.bytes);
            done(tag);
        }
    }

    /// Forgets all frames; the controller has been reset.
    pub(super) fn forget(&mut self) {
        (self.oldest, self.frames, self.told, self.next, self.used) = (0, 0, 0, 0, 0);
        self.tags = [0; RING as usize / 64];
        self.segmented = false;
    }
}

/// [`TRANSMIT_STATUS`], as an index.
const STATUS: usize = 12;
const _: () = assert!(STATUS as u64 == TRANSMIT_STATUS);

fn limit(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Most bytes of a descriptor of what is segmented: the controller reckons the room that one takes in
/// its FIFO as four segments.
fn piece_of_segments(size: u16) -> u32 {
    PIECE.min(4 * u32::from(size))
}

fn ether_type_of(frame: &DmaRegion) -> u16 {
    frame.read16(12).swap_bytes()
}

/// Whether the controller is to take a frame for TCP.
fn is_tcp(frame: &DmaRegion, len: usize) -> bool {
    let place = match ether_type_of(frame) {
        ether_type::IPV4 => IP + 9,
        ether_type::IPV6 => IP + 6,
        _ => return false,
    };
    len > place && frame.read8(place) == protocol::TCP
}

/// How a frame is segmented (3.5).
fn segment(frame: &DmaRegion, len: usize, size: u16) -> Result<Plan, Error> {
    let payload = len.checked_sub(HEADERS).filter(|payload| *payload != 0);
    let total = u16::try_from(len.saturating_sub(IP));
    let (Some(payload), Ok(_)) = (payload, total) else {
        return Err(Error::Request("a frame of this length cannot be segmented"));
    };
    let plain = ether_type_of(frame) == ether_type::IPV4
        && frame.read8(IP) == paraslot_spec::net::ipv4::VERSION_IHL
        && frame.read8(IP + 9) == protocol::TCP
        && frame.read8(TCP + 12) >> 4 == tcp::DATA_OFFSET >> 4;
    if !plain || size == 0 {
        return Err(Error::Request("only TCP over IPv4, both without options, can be segmented"));
    }
    let (payload, mss) = (limit(payload), u32::from(size));
    let narrow = |offset: usize| u8::try_from(offset).unwrap_or(u8::MAX);
    let context = Context {
        ipcss: narrow(IP),
        ipcso: narrow(IP + IP_CHECKSUM),
        ipcse: u16::from(narrow(TCP - 1)),
        tucss: narrow(TCP),
        tucso: narrow(TCP + tcp::CHECKSUM),
        tucse: 0,
        paylen: payload,
        hdrlen: narrow(HEADERS),
        mss: size,
    };
    let flags = transmit::TSE | transmit::TCP | transmit::IP;
    let segments = payload.div_ceil(mss);
    let bytes = payload.saturating_add(segments.saturating_mul(limit(HEADERS)));
    Ok(Plan {
        context: Some(TransmitDescriptor::context(&context, flags)),
        flags: transmit::TSE,
        popts: transmit::TXSM | transmit::IXSM,
        headers: limit(HEADERS),
        pieces: Pieces {
            left: payload,
            most: piece_of_segments(size),
            short_first: false,
            // Its last descriptor could be reported done too early; so there is one more behind.
            short_last: true,
        },
        amount: Amount { packets: segments, bytes },
    })
}
