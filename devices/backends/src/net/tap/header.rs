//! What is left to be done to a frame, as the kernel wants it told: the header that virtio has.

#[cfg(test)]
mod tests;

use paraslot_spec::virtio_net::{Header, gso, header_flag};

use crate::net::{Cut, NetError, Offload, Offloads, PartialChecksum, Segmentation};

/// Bytes of the header before each frame.
pub(super) const LEN: usize = size_of::<Header>();

/// The header for a frame of `len` bytes that is sent, which `offload` fits.
pub(super) fn encode(offload: &Offload, len: usize) -> Header {
    let mut header = Header::default();
    if let Some(checksum) = offload.checksum {
        header.flags = header_flag::NEEDS_CSUM;
        header.csum_start = checksum.start.into();
        header.csum_offset = checksum.offset.into();
    }
    if let Some(Segmentation { cut, size, header_len, ecn }) = offload.segmentation {
        let ecn = if ecn { gso::ECN } else { 0 };
        header.gso_type = match cut {
            Cut::Tcp4 => gso::TCPV4 | ecn,
            Cut::Tcp6 => gso::TCPV6 | ecn,
            Cut::UdpFragments => gso::UDP,
            Cut::UdpDatagrams => gso::UDP_L4,
        };
        header.gso_size = size.into();
        // A hint, for which the kernel would refuse a frame that is shorter.
        header.hdr_len = header_len.min(u16::try_from(len).unwrap_or(u16::MAX)).into();
    }
    header
}

/// What the header of a received frame of `len` bytes tells.
///
/// # Errors
/// [`NetError::Invalid`] if it makes no sense.
pub(super) fn decode(header: &Header, len: usize) -> Result<Offload, NetError> {
    let needs_checksum = header.flags & header_flag::NEEDS_CSUM != 0;
    let checksum = needs_checksum.then(|| PartialChecksum {
        start: header.csum_start.get(),
        offset: header.csum_offset.get(),
    });
    let ecn = header.gso_type & gso::ECN != 0;
    let cut = match header.gso_type & !gso::ECN {
        gso::NONE if !ecn => None,
        gso::TCPV4 => Some(Cut::Tcp4),
        gso::TCPV6 => Some(Cut::Tcp6),
        gso::UDP if !ecn => Some(Cut::UdpFragments),
        gso::UDP_L4 if !ecn => Some(Cut::UdpDatagrams),
        _ => return Err(NetError::Invalid),
    };
    let segmentation = cut.map(|cut| Segmentation {
        cut,
        size: header.gso_size.get(),
        header_len: header.hdr_len.get(),
        ecn,
    });
    let checksum_valid = checksum.is_none() && header.flags & header_flag::DATA_VALID != 0;
    let offload = Offload { checksum, segmentation, checksum_valid };
    offload.check(len).map(|()| offload)
}

/// What TUNSETOFFLOAD is told when frames may have `accepted` left to be done: no more than that,
/// and as much as can be told.
pub(super) fn tun_flags(accepted: Offloads) -> u32 {
    let mut flags = 0;
    // Segmentation leaves checksums, too.
    if !accepted.contains(Offloads::CHECKSUM) {
        return flags;
    }
    flags |= libc::TUN_F_CSUM;
    let tcp = Offloads::TSO4 | Offloads::TSO6;
    for (offload, flag, condition) in [
        (Offloads::TSO4, libc::TUN_F_TSO4, true),
        (Offloads::TSO6, libc::TUN_F_TSO6, true),
        (Offloads::TSO_ECN, libc::TUN_F_TSO_ECN, accepted.intersects(tcp)),
        (Offloads::UFO, libc::TUN_F_UFO, true),
    ] {
        if accepted.contains(offload) && condition {
            flags |= flag;
        }
    }
    // The kernel knows these as one.
    if accepted.contains(Offloads::USO4 | Offloads::USO6) {
        flags |= libc::TUN_F_USO4 | libc::TUN_F_USO6;
    }
    flags
}
