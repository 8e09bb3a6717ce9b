//! virtio_net_hdr (5.1.9): what a driver says of a frame, and what it is told.

use paraslot_backends::net::{Cut, MAX_FRAME, Offload, Offloads, PartialChecksum, Segmentation};
use paraslot_spec::net::ETHERNET_HEADER;
use paraslot_spec::virtio_net::{HashHeader, Header, feature, gso, header_flag};

/// A frame that makes no sense, or whose offloads were not agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfit;

/// Bytes of the header, in both directions (5.1.9.3.1).
pub(crate) fn header_len(features: u64) -> usize {
    if features & feature::HASH_REPORT != 0 { size_of::<HashHeader>() } else { size_of::<Header>() }
}

/// Whether a checksum lies within a frame of `len` bytes.
fn fits(checksum: PartialChecksum, len: usize) -> bool {
    // Two bytes at the offset.
    usize::from(checksum.start) + usize::from(checksum.offset) + 2 <= len
}

/// What a driver that has accepted `features` wants done to a frame of `len` bytes (5.1.9.2).
///
/// Flags without meaning are ignored; hdr_len is passed on as the hint that it is.
pub(crate) fn transmit_offload(
    header: &Header,
    features: u64,
    len: usize,
) -> Result<Offload, Unfit> {
    if !(ETHERNET_HEADER..=MAX_FRAME).contains(&len) {
        return Err(Unfit);
    }
    // The outer checksum of a tunnel, but the types of segmentation with a tunnel are not served.
    if header.flags & header_flag::UDP_TUNNEL_CSUM != 0 {
        return Err(Unfit);
    }
    let mut offload = Offload::default();
    if header.flags & header_flag::NEEDS_CSUM != 0 {
        let checksum =
            PartialChecksum { start: header.csum_start.get(), offset: header.csum_offset.get() };
        if features & feature::CSUM == 0 || !fits(checksum, len) {
            return Err(Unfit);
        }
        offload.checksum = Some(checksum);
    }
    let ecn = header.gso_type & gso::ECN != 0;
    let (cut, needed) = match header.gso_type & !gso::ECN {
        // ECN alone means no more than NONE (5.1.4.1).
        gso::NONE => return Ok(offload),
        gso::TCPV4 => (Cut::Tcp4, feature::HOST_TSO4),
        gso::TCPV6 => (Cut::Tcp6, feature::HOST_TSO6),
        gso::UDP => (Cut::UdpFragments, feature::HOST_UFO),
        gso::UDP_L4 => (Cut::UdpDatagrams, feature::HOST_USO),
        _ => return Err(Unfit),
    };
    let tcp = matches!(cut, Cut::Tcp4 | Cut::Tcp6);
    let size = header.gso_size.get();
    if features & needed == 0
        || offload.checksum.is_none()
        || size == 0
        || (ecn && !(tcp && features & feature::HOST_ECN != 0))
    {
        return Err(Unfit);
    }
    let header_len = header.hdr_len.get();
    offload.segmentation = Some(Segmentation { cut, size, header_len, ecn });
    Ok(offload)
}

/// The header of a received frame of `len` bytes, for a driver that takes `accepted` now (5.1.9.4).
/// The number of buffers is still to be set.
pub(crate) fn receive_header(
    offload: &Offload,
    accepted: Offloads,
    len: usize,
) -> Result<Header, Unfit> {
    let mut header = Header::default();
    if let Some(checksum) = offload.checksum {
        if !accepted.contains(Offloads::CHECKSUM) || !fits(checksum, len) {
            return Err(Unfit);
        }
        header.flags = header_flag::NEEDS_CSUM;
        header.csum_start = checksum.start.into();
        header.csum_offset = checksum.offset.into();
    } else if offload.checksum_valid && accepted.contains(Offloads::CHECKSUM) {
        header.flags = header_flag::DATA_VALID;
    }
    let Some(segmentation) = offload.segmentation else { return Ok(header) };
    let (gso_type, any_of) = match segmentation.cut {
        Cut::Tcp4 => (gso::TCPV4, Offloads::TSO4),
        Cut::Tcp6 => (gso::TCPV6, Offloads::TSO6),
        Cut::UdpFragments => (gso::UDP, Offloads::UFO),
        Cut::UdpDatagrams => (gso::UDP_L4, Offloads::USO4 | Offloads::USO6),
    };
    let tcp = matches!(segmentation.cut, Cut::Tcp4 | Cut::Tcp6);
    if !accepted.intersects(any_of)
        || offload.checksum.is_none()
        || segmentation.size == 0
        || (segmentation.ecn && !(tcp && accepted.contains(Offloads::TSO_ECN)))
    {
        return Err(Unfit);
    }
    header.gso_type = gso_type | if segmentation.ecn { gso::ECN } else { 0 };
    header.gso_size = segmentation.size.into();
    let frame = u16::try_from(len).unwrap_or(u16::MAX);
    header.hdr_len = segmentation.header_len.min(frame).into();
    Ok(header)
}
