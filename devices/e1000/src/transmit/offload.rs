//! What is left to the backend: contexts that describe a packet as others know it.

use paraslot_backends::net::parse::{Headers, TransportKind};
use paraslot_backends::net::{Offload, PartialChecksum, segment};
use paraslot_spec::e1000::{Context, VLAN_TAG_LEN, transmit};

use super::software::{Offsets, Range};

/// What is left to be done, once a tag is in front of it.
pub(super) fn shifted(mut offload: Offload) -> Offload {
    const TAG: u16 = 4;
    const { assert!(TAG as usize == VLAN_TAG_LEN) };
    if let Some(checksum) = &mut offload.checksum {
        checksum.start = checksum.start.saturating_add(TAG);
    }
    if let Some(segmentation) = &mut offload.segmentation {
        segmentation.header_len = segmentation.header_len.saturating_add(TAG);
    }
    offload
}

/// The checksum that `context` asks for, if it is the one that the frame's TCP or UDP header has, and
/// covers all of the frame behind that.
pub(super) fn recognised(head: &[u8], context: &Context, len: usize) -> Option<PartialChecksum> {
    let Context { tucss, tucso, tucse, .. } = *context;
    let range = Range::new(tucss, tucso, tucse, len).filter(|range| range.end == len)?;
    let partial = Headers::parse(head).transport?.partial_checksum()?;
    let same = usize::from(partial.start) == range.start && partial.place(len)? == range.place;
    same.then_some(partial)
}

/// Makes a packet's headers such as a backend expects them. `None` if it is not a packet that a backend
/// understands; then nothing has changed that matters.
pub(super) fn prepare_segmentation(
    head: &mut [u8],
    len: usize,
    offsets: &Offsets,
    options: u8,
) -> Option<Offload> {
    let Context { ipcss, tucss, tucso, hdrlen, mss, .. } = offsets.context;
    let headers = Headers::parse(head);
    let (network, transport) = headers.network.zip(headers.transport)?;
    let v4 = !network.is_v6();
    let partial = transport.partial_checksum()?;
    let wanted = if v4 { transmit::TXSM | transmit::IXSM } else { transmit::TXSM };
    let same = transport.kind == TransportKind::Tcp
        && offsets.tcp
        && offsets.ip == v4
        && options & wanted == wanted
        && headers.header_len() == Some(hdrlen.into())
        && network.offset == usize::from(ipcss)
        && transport.offset == usize::from(tucss)
        && partial.place(len) == Some(tucso.into());
    if !same {
        return None;
    }
    segment::prepare_tcp(head, &headers, len, mss)
}
