//! Segmentation in software: one frame that is longer than its network takes, into many that are not.
//!
//! TCP segments and UDP datagrams each get a copy of all headers, with lengths, IPv4 identification
//! (counting up), sequence number and checksums of their own. FIN and PSH are in the last TCP segment
//! only, CWR in the first only (RFC 3168, 6.1.2). A UDP datagram that is to be fragmented has its
//! checksum filled in first; the fragments share the identification, and "do not fragment" is cleared.
//!
//! What decides is the headers and the frame's length: `Segmentation::header_len` is not looked at,
//! nor are the length fields of the frame's own IP and UDP headers, which some senders leave 0. The
//! pseudo header whose sum is in the transport's checksum field is that of the whole packet, with the
//! length that the frame has.

mod fragment;
#[cfg(test)]
mod tests;

use paraslot_spec::net::{Ipv4, Ipv6, Tcp, UDP_CHECKSUM, Udp, tcp};
use zerocopy::FromBytes;
use zerocopy::big_endian::{U16, U32};

use super::checksum::{self, Sum};
use super::parse::{HEADERS, Headers, Network, Transport, TransportKind};
use super::{Cut, MAX_FRAME, NetError, Offload, PartialChecksum, Segmentation};

/// Payloads smaller than this are worth their headers to nobody; into more than [`MAX_TINY`] such
/// pieces a frame is not cut. (Linux's TCP has the same minimum.)
pub const MIN_SIZE: usize = 8;
/// See [`MIN_SIZE`]. (As many datagrams as Linux lets one call send.)
pub const MAX_TINY: usize = 128;

/// A piece of a frame: a frame itself, in two parts.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Its headers.
    pub header: &'a [u8],
    /// The rest.
    pub payload: &'a [u8],
    /// What is left to be done: at most its checksum.
    pub offload: Offload,
}

impl Piece<'_> {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Cuts one frame. Its bytes stay with the caller, who lends them for each piece.
#[derive(Clone, Debug)]
pub struct Segmenter {
    header: [u8; HEADERS + size_of::<fragment::Header>()],
    header_len: usize,
    plan: Plan,
    /// The first byte of the frame that is cut.
    start: usize,
    /// The first byte of the next piece; the frame's end when there is none.
    next: usize,
    end: usize,
    size: usize,
    /// Pieces so far.
    index: u16,
    done: bool,
}

/// What was read from the headers once.
#[derive(Clone, Copy, Debug)]
struct Plan {
    network: Network,
    transport: Transport,
    /// As fragments.
    fragments: bool,
    /// Leave each piece's checksum to the other side.
    partial: Option<PartialChecksum>,
    identification: u16,
    sequence: u32,
    flags: u8,
    /// The sum of the pseudo header without the length.
    pseudo: Sum,
}

/// Whether `cut` is what the headers are.
fn fits(cut: Cut, network: &Network, transport: &Transport) -> bool {
    let tcp = transport.kind == TransportKind::Tcp;
    match cut {
        Cut::Tcp4 => tcp && !network.is_v6(),
        Cut::Tcp6 => tcp && network.is_v6(),
        Cut::UdpDatagrams => !tcp,
        Cut::UdpFragments => !tcp && !network.extensions.fragment_header,
    }
}

/// What was read of a frame that can be cut.
struct Reading {
    network: Network,
    transport: Transport,
    partial: PartialChecksum,
    fragments: bool,
    /// The first byte that is cut.
    start: usize,
    size: usize,
}

/// Makes the headers of TCP that is to be cut such as a backend expects them, which knows that lengths
/// and sequence numbers differ from segment to segment: adapters' drivers leave the lengths out of the
/// sums, and the IPv4 header without a checksum. `head` is the frame's headers at least, `headers` what
/// they are, `len` the frame's length, `size` the payload of a segment. Returns what is left to be
/// done; `None` if the headers do not fit each other, and then nothing has changed that matters.
pub fn prepare_tcp(head: &mut [u8], headers: &Headers, len: usize, size: u16) -> Option<Offload> {
    let (network, transport) = headers.network.zip(headers.transport)?;
    let v4 = !network.is_v6();
    if transport.kind != TransportKind::Tcp {
        return None;
    }
    let [flags] = *head.get(transport.offset + 13..)?.first_chunk()?;
    let offload = Offload {
        checksum: Some(transport.partial_checksum()?),
        segmentation: Some(Segmentation {
            cut: if v4 { Cut::Tcp4 } else { Cut::Tcp6 },
            size,
            header_len: u16::try_from(headers.header_len()?).ok()?,
            ecn: flags & tcp::CWR != 0,
        }),
        checksum_valid: false,
    };
    check(head, len, &offload).ok()?;
    let (place, counted) = if v4 {
        (network.offset + 2, network.offset)
    } else {
        (network.offset + 4, network.offset + 40)
    };
    let length = u16::try_from(len.checked_sub(counted)?).ok()?;
    head.get_mut(place..place + 2)?.copy_from_slice(&length.to_be_bytes());
    checksum::prepare_transport(head, headers, len - transport.offset)?;
    checksum::fill_ipv4(head, &network);
    Some(offload)
}

/// Reads the headers of a frame to be cut and checks `offload` against them. `first` is its first
/// [`HEADERS`] bytes (or all, if it is shorter), `len` its length.
///
/// # Errors
/// [`NetError::Invalid`] if they do not fit each other, or the pieces would be too small, too many or
/// too long. [`NetError::TooLong`] for a frame that is.
pub fn check(first: &[u8], len: usize, offload: &Offload) -> Result<(), NetError> {
    if len > MAX_FRAME {
        return Err(NetError::TooLong);
    }
    read(first, len, offload).map(|_| ()).ok_or(NetError::Invalid)
}

fn read(first: &[u8], len: usize, offload: &Offload) -> Option<Reading> {
    let segmentation = offload.segmentation?;
    let headers = Headers::parse(first);
    let (network, transport) = headers.network.zip(headers.transport)?;
    let partial = transport.partial_checksum()?;
    let fragments = segmentation.cut == Cut::UdpFragments;
    let start = match fragments {
        false => transport.offset + transport.header_len,
        true if network.is_v6() => network.extensions.unfragmentable,
        true => network.payload,
    };
    let payload = len.checked_sub(start)?;
    let size = piece_size(segmentation)?;
    let inserted = if fragments { size_of::<fragment::Header>() } else { 0 };
    let longest = start - network.offset + inserted + size.min(payload);
    let right = fits(segmentation.cut, &network, &transport)
        && offload.checksum == Some(partial)
        && partial.place(len).is_some()
        && (size >= MIN_SIZE || payload.div_ceil(size) <= MAX_TINY)
        && u16::try_from(longest).is_ok()
        && u16::try_from(len - transport.offset).is_ok();
    right.then_some(Reading { network, transport, partial, fragments, start, size })
}

/// Bytes of payload in each piece but the last.
fn piece_size(segmentation: Segmentation) -> Option<usize> {
    let size = usize::from(segmentation.size);
    // Fragments start at multiples of 8 bytes.
    let size = if segmentation.cut == Cut::UdpFragments { size / 8 * 8 } else { size };
    (size != 0).then_some(size)
}

/// The structure at `offset`, to be changed.
fn at<T>(bytes: &mut [u8], offset: usize) -> Option<&mut T>
where
    T: FromBytes + zerocopy::IntoBytes + zerocopy::KnownLayout,
{
    T::mut_from_prefix(bytes.get_mut(offset..)?).ok().map(|(value, _)| value)
}

impl Segmenter {
    /// Makes ready to cut `frame`, which is all of it, with `offload`. With `leave_checksum`, the
    /// checksums of TCP segments and UDP datagrams are left partial. (The checksum of a datagram to be
    /// fragmented is written to `frame`.)
    ///
    /// # Errors
    /// As for [`check`].
    pub fn new(
        frame: &mut [u8],
        offload: &Offload,
        leave_checksum: bool,
    ) -> Result<Self, NetError> {
        let first = &frame[..frame.len().min(HEADERS)];
        if frame.len() > MAX_FRAME {
            return Err(NetError::TooLong);
        }
        let reading = read(first, frame.len(), offload).ok_or(NetError::Invalid)?;
        Self::start(frame, reading, leave_checksum).ok_or(NetError::Invalid)
    }

    fn start(frame: &mut [u8], reading: Reading, leave_checksum: bool) -> Option<Self> {
        let Reading { network, transport, partial, fragments, start, size } = reading;
        let place = partial.place(frame.len())?;
        let mut pseudo = Sum::of(frame.get(place..place + 2)?);
        // Taking away is adding the complement.
        let whole = u16::try_from(frame.len() - transport.offset).ok()?;
        pseudo.add(&(!whole).to_be_bytes());
        if fragments {
            checksum::fill(frame, partial).ok()?;
        }
        let mut header = [0; HEADERS + size_of::<fragment::Header>()];
        header.get_mut(..start)?.copy_from_slice(frame.get(..start)?);
        let ipv4 = at::<Ipv4>(&mut header, network.offset).map(|ip| ip.identification.get());
        let tcp = at::<Tcp>(&mut header, transport.offset).map(|tcp| (tcp.sequence, tcp.flags));
        let (sequence, flags) = tcp.unwrap_or_default();
        let mut this = Self {
            header,
            header_len: start,
            plan: Plan {
                network,
                transport,
                fragments,
                partial: (leave_checksum && !fragments).then_some(partial),
                identification: ipv4.unwrap_or(0),
                sequence: sequence.get(),
                flags,
                pseudo,
            },
            start,
            next: start,
            end: frame.len(),
            size,
            index: 0,
            done: false,
        };
        if fragments && network.is_v6() && this.end - this.start > size {
            this.header_len += fragment::insert(&mut this.header, &network)?;
        }
        Some(this)
    }

    /// Pieces to come.
    pub fn remaining(&self) -> usize {
        // Headers alone are a piece, too.
        let pieces = (self.end - self.next).div_ceil(self.size);
        if self.done { 0 } else { pieces.max(1) }
    }

    /// The length of the next piece, in bytes; `None` after the last.
    pub fn next_len(&self) -> Option<usize> {
        (!self.done).then(|| self.header_len + self.size.min(self.end - self.next))
    }

    /// The next piece of `frame`, which must be the bytes that [`new`](Self::new) was given; `None`
    /// after the last.
    pub fn next<'a>(&'a mut self, frame: &'a [u8]) -> Option<Piece<'a>> {
        if self.done {
            return None;
        }
        let from = self.next;
        let to = self.end.min(from.saturating_add(self.size));
        self.next = to;
        self.done = to == self.end;
        let payload = frame.get(from..to)?;
        // Everything was checked; what is not there now cannot be.
        self.write_network(from, payload.len())?;
        if !self.plan.fragments {
            self.write_transport(from, payload)?;
        }
        self.index = self.index.wrapping_add(1);
        let offload = Offload { checksum: self.plan.partial, ..Offload::default() };
        Some(Piece { header: self.header.get(..self.header_len)?, payload, offload })
    }

    fn write_network(&mut self, from: usize, payload: usize) -> Option<()> {
        let network = self.plan.network;
        let total = self.header_len - network.offset + payload;
        if network.is_v6() {
            let ip: &mut Ipv6 = at(&mut self.header, network.offset)?;
            ip.payload_length = U16::new(u16::try_from(total - size_of::<Ipv6>()).ok()?);
        } else {
            let ip: &mut Ipv4 = at(&mut self.header, network.offset)?;
            ip.total_length = U16::new(u16::try_from(total).ok()?);
            if !self.plan.fragments {
                let identification = self.plan.identification.wrapping_add(self.index);
                ip.identification = U16::new(identification);
            }
        }
        if self.plan.fragments {
            let offset = u16::try_from(from - self.start).ok()?;
            fragment::place(&mut self.header, &network, offset, !self.done)?;
        }
        checksum::fill_ipv4(&mut self.header, &network);
        Some(())
    }

    fn write_transport(&mut self, from: usize, payload: &[u8]) -> Option<()> {
        let Plan { transport, sequence, flags, mut pseudo, partial, .. } = self.plan;
        let len = u16::try_from(transport.header_len + payload.len()).ok()?;
        pseudo.add(&len.to_be_bytes());
        let place = match transport.kind {
            TransportKind::Tcp => {
                let header: &mut Tcp = at(&mut self.header, transport.offset)?;
                let offset = u32::try_from(from - self.start).ok()?;
                header.sequence = U32::new(sequence.wrapping_add(offset));
                let not_last = if self.done { 0 } else { tcp::FIN | tcp::PSH };
                let not_first = if self.index == 0 { 0 } else { tcp::CWR };
                header.flags = flags & !(not_last | not_first);
                tcp::CHECKSUM
            }
            TransportKind::Udp => {
                let header: &mut Udp = at(&mut self.header, transport.offset)?;
                header.length = U16::new(len);
                UDP_CHECKSUM
            }
        };
        let place = transport.offset + place;
        self.header.get_mut(place..place + 2)?.copy_from_slice(&pseudo.bytes());
        if partial.is_none() {
            let mut sum = Sum::of(self.header.get(transport.offset..self.header_len)?);
            sum.add(payload);
            self.header.get_mut(place..place + 2)?.copy_from_slice(&sum.transport_checksum());
        }
        Some(())
    }
}
