//! What there is to know of a received frame before the guest gets it.

use paraslot_backends::net::checksum::{self, fill};
use paraslot_backends::net::parse::{HEADERS, Headers, TransportKind};
use paraslot_backends::net::{Cut, Offload};
use paraslot_spec::net::{ETHERNET_HEADER, VLAN_TAG};
use paraslot_spec::vmxnet3::{Features, REVISION_2, rcd};

use crate::filter::{Mac, tag};
use crate::rss::Hash;
use crate::state::Active;

/// A frame that is for the guest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrival {
    /// Its first byte: a tag that was stripped leaves room before it.
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) destination: Mac,
    /// The receive queue.
    pub(crate) queue: usize,
    pub(crate) hash: Hash,
    /// The tag that was stripped.
    pub(crate) tag: Option<u16>,
    /// Its checksums have been looked at.
    pub(crate) checked: bool,
    /// What it is, and which checksums are right: bits of its last completion.
    pub(crate) flags: u32,
    /// It is put together of so many segments (as far as can be told), with so many bytes of payload.
    pub(crate) segments: Option<(u8, u16)>,
    /// The driver is told of them.
    pub(crate) tells_segments: bool,
    /// As many packets as it was, and bytes, before it was put together.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// Why a frame is not for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// By the filters.
    Filtered,
    /// It is too long.
    TooLong,
    /// It makes no sense.
    Invalid,
}

/// What a frame is judged by.
pub(crate) struct Terms<'a> {
    pub(crate) active: &'a Active,
    pub(crate) mac: Mac,
    /// The queue of frames that are not spread by their hash.
    pub(crate) queue: usize,
}

impl Terms<'_> {
    /// Decides what becomes of a frame of `len` bytes at the start of `room`, and makes it ready for the
    /// guest.
    pub(crate) fn examine(
        &self,
        room: &mut [u8],
        len: usize,
        offload: &Offload,
    ) -> Result<Arrival, Unwanted> {
        let Self { active, mac, queue } = *self;
        let frame = room.get_mut(..len).ok_or(Unwanted::TooLong)?;
        // CVE-2015-8744: nothing is read of a frame that is shorter than what is read.
        let destination = *frame.first_chunk().ok_or(Unwanted::Invalid)?;
        if len < ETHERNET_HEADER {
            return Err(Unwanted::Invalid);
        }
        if !active.filter.passes(frame, mac) {
            return Err(Unwanted::Filtered);
        }
        let features = active.features;
        let mut arrival =
            Arrival { end: len, destination, queue, packets: 1, ..Arrival::default() };
        let mut valid = offload.checksum_valid;
        let headers = Headers::parse(frame.get(..HEADERS).unwrap_or(frame));
        if let Some(segmentation) = offload.segmentation {
            // A frame may be older than what is accepted now.
            let tcp = matches!(segmentation.cut, Cut::Tcp4 | Cut::Tcp6);
            if !tcp || !active.takes_large() || segmentation.size == 0 {
                return Err(Unwanted::Invalid);
            }
            let first = frame.get(..HEADERS).unwrap_or(frame);
            offload.check_headers(first, len).map_err(|_| Unwanted::Invalid)?;
            let headers = headers.header_len().ok_or(Unwanted::Invalid)?;
            let payload = len.saturating_sub(headers);
            let segments = payload.div_ceil(segmentation.size.into()).max(1);
            let told = u8::try_from(segments).unwrap_or(u8::MAX);
            arrival.segments = Some((told, segmentation.size));
            arrival.tells_segments = active.revision >= REVISION_2;
            arrival.packets = segments as u64;
            arrival.bytes = (headers * (segments - 1)) as u64;
            // Nobody has cut it, so nobody has made its checksums wrong.
            valid = true;
        } else if len > active.longest {
            return Err(Unwanted::TooLong);
        } else if let Some(partial) = offload.checksum {
            fill(frame, partial).map_err(|_| Unwanted::Invalid)?;
            valid = true;
        }
        if let Some(rss) = &active.rss {
            arrival.hash = rss.hash(&headers);
            arrival.queue = rss.queue(arrival.hash);
        }
        describe(&mut arrival, frame, &headers, valid, features.contains(Features::RXCSUM));
        // QEMU df8bf7a7fe: only of a frame that has all of it.
        if features.contains(Features::RXVLAN)
            && len >= ETHERNET_HEADER + VLAN_TAG
            && let Some(tag) = tag(frame)
        {
            frame.copy_within(..ETHERNET_HEADER - 2, VLAN_TAG);
            arrival.start = VLAN_TAG;
            arrival.tag = Some(tag);
        }
        arrival.bytes += (arrival.end - arrival.start) as u64;
        Ok(arrival)
    }
}

/// Says what a frame is, and checks its checksums if that is wanted. `valid`: the transport's is known
/// to be right.
fn describe(arrival: &mut Arrival, frame: &[u8], headers: &Headers, valid: bool, check: bool) {
    let Some(network) = headers.network else { return };
    arrival.flags |= if network.is_v6() { rcd::V6 } else { rcd::V4 };
    if network.fragment {
        arrival.flags |= rcd::FRG;
    }
    // The IPv4 headers of a frame's segments are made when it is cut; drivers ask for both bits.
    let uncut = arrival.segments.is_some() && !network.is_v6();
    if check && (uncut || checksum::verify_ipv4(frame, headers) == Some(true)) {
        arrival.flags |= rcd::IPC;
    }
    let Some(transport) = headers.transport else { return };
    arrival.flags |= match transport.kind {
        TransportKind::Tcp => rcd::TCP,
        TransportKind::Udp => rcd::UDP,
    };
    if check {
        let right = if valid { Some(true) } else { checksum::verify_transport(frame, headers) };
        arrival.checked = right.is_some();
        if right == Some(true) {
            arrival.flags |= rcd::TUC;
        }
    }
}
