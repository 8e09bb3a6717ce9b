//! What a context says, done to a frame in host memory, byte by byte as the hardware would do it
//! (3.5, 3.6): for contexts that do not describe a packet that others understand, and for loopback.
//!
//! Offsets come from the guest. What lies outside the frame is not written and not summed.

use paraslot_backends::net::checksum::Sum;
use paraslot_spec::e1000::{Context, transmit};
use paraslot_spec::net::tcp;

/// A context descriptor, and the flags in its command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    pub(crate) context: Context,
    /// IPv4; else IPv6.
    pub(crate) ip: bool,
    /// TCP; else UDP.
    pub(crate) tcp: bool,
}

/// A checksum to be inserted, inside a frame of a certain length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// First byte summed.
    pub(crate) start: usize,
    /// Where the checksum goes.
    pub(crate) place: usize,
    /// After the last byte summed.
    pub(crate) end: usize,
}

impl Range {
    /// From a descriptor's fields, for a frame of `len` bytes: `last` is the last byte summed, 0 for
    /// the frame's. `None`, and nothing is inserted, if it does not lie inside the frame.
    pub(crate) fn new(start: u8, place: u8, last: u16, len: usize) -> Option<Self> {
        let [start, place] = [start, place].map(usize::from);
        let end = if last == 0 { len } else { len.min(usize::from(last) + 1) };
        (start < end && place + 2 <= len).then_some(Self { start, place, end })
    }

    /// Where everything that it reads and writes ends.
    pub(crate) fn extent(&self) -> usize {
        self.end.max(self.place + 2)
    }

    /// Inserts the checksum: of an IP header, or (`transport`) of a TCP or UDP packet, where zero
    /// stands for none.
    pub(crate) fn insert(&self, frame: &mut [u8], transport: bool) {
        let Some(sum) = frame.get(self.start..self.end).map(Sum::of) else { return };
        let checksum = if transport { sum.transport_checksum() } else { sum.checksum() };
        put(frame, self.place, checksum);
    }
}

/// Inserts the checksums that POPTS asks for. The transport's goes first, as IP's does not depend on
/// it and its place may be anywhere.
pub(crate) fn insert_checksums(frame: &mut [u8], context: &Context, options: u8) {
    let Context { ipcss, ipcso, ipcse, tucss, tucso, tucse, .. } = *context;
    if options & transmit::TXSM != 0
        && let Some(range) = Range::new(tucss, tucso, tucse, frame.len())
    {
        range.insert(frame, true);
    }
    if options & transmit::IXSM != 0
        && let Some(range) = Range::new(ipcss, ipcso, ipcse, frame.len())
    {
        range.insert(frame, false);
    }
}

fn put<const N: usize>(frame: &mut [u8], place: usize, bytes: [u8; N]) {
    if let Some(field) = frame.get_mut(place..place.saturating_add(N)) {
        field.copy_from_slice(&bytes);
    }
}

fn get<const N: usize>(frame: &[u8], place: usize) -> [u8; N] {
    let field = frame.get(place..place.saturating_add(N));
    field.and_then(|field| field.try_into().ok()).unwrap_or([0; N])
}

/// The low 16 bits of a length, as they go into a header's field.
fn low(len: usize) -> u16 {
    let [low, high, ..] = len.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// How a packet is to be segmented.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segments {
    offsets: Offsets,
    options: u8,
    header: usize,
    mss: usize,
    payload: usize,
}

/// Most segments that one packet is cut into here.
pub(crate) const MOST_SEGMENTS: usize = 1024;

impl Segments {
    /// For a packet of `len` bytes; `None` if it cannot be segmented: no headers or no payload
    /// (CVE-2015-6815: `hdrlen` and `mss` of zero make no progress), or too many segments.
    pub(crate) fn new(offsets: Offsets, options: u8, len: usize) -> Option<Self> {
        let header = usize::from(offsets.context.hdrlen);
        let mss = usize::from(offsets.context.mss);
        let payload = len.checked_sub(header).filter(|payload| *payload != 0)?;
        let segments = Self { offsets, options, header, mss, payload };
        (header != 0 && mss != 0).then_some(segments)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.payload.div_ceil(self.mss)
    }

    /// Lengths of each but the last, and of the last, headers included.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let before = (self.count() - 1) * self.mss;
        (self.header + self.mss, self.header + self.payload - before)
    }

    /// Appends segment `index` of `packet` to `out`, which is then as long as the segment behind its
    /// first `spare` bytes.
    pub(crate) fn build(&self, packet: &[u8], index: usize, spare: usize, out: &mut Vec<u8>) {
        let Self { offsets, options, header, mss, payload } = *self;
        let from = index.saturating_mul(mss).min(payload);
        let to = payload.min(from.saturating_add(mss));
        out.clear();
        out.resize(spare, 0);
        out.extend_from_slice(packet.get(..header).unwrap_or_default());
        out.extend_from_slice(packet.get(header + from..header + to).unwrap_or_default());
        let Some(segment) = out.get_mut(spare..) else { return };
        let len = segment.len();
        let Context { ipcss, tucss, tucso, .. } = offsets.context;
        let [ip, transport, place] = [ipcss, tucss, tucso].map(usize::from);
        if offsets.ip {
            put(segment, ip + 2, low(len.saturating_sub(ip)).to_be_bytes());
            let id = u16::from_be_bytes(get(segment, ip + 4)).wrapping_add(low(index));
            put(segment, ip + 4, id.to_be_bytes());
        } else {
            put(segment, ip + 4, low(len.saturating_sub(ip + 40)).to_be_bytes());
        }
        let transport_len = low(len.saturating_sub(transport)).to_be_bytes();
        if offsets.tcp {
            let sequence = u32::from_be_bytes(get(segment, transport + 4));
            let from = u32::try_from(from).unwrap_or(u32::MAX);
            put(segment, transport + 4, sequence.wrapping_add(from).to_be_bytes());
            if to != payload {
                let [flags] = get(segment, transport + 13);
                put(segment, transport + 13, [flags & !(tcp::FIN | tcp::PSH)]);
            }
        } else {
            put(segment, transport + 4, transport_len);
        }
        if options & transmit::TXSM != 0 {
            // The driver's sum of the pseudo header is without the length.
            let mut sum = Sum::of(&get::<2>(segment, place));
            sum.add(&transport_len);
            put(segment, place, sum.bytes());
        }
        insert_checksums(segment, &offsets.context, options);
    }
}
