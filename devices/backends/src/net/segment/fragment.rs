//! IP fragmentation (RFC 791, 3.2; RFC 8200, 4.5).

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) use paraslot_spec::net::Ipv6Fragment as Header;
use paraslot_spec::net::{IPV6_MORE_FRAGMENTS, Ipv4, ipv4, protocol};
use zerocopy::big_endian::{U16, U32};

use super::{Network, at};

/// An identification that none of late had and nobody can guess (RFC 7739, 5.3).
fn identification() -> u32 {
    static SECRET: OnceLock<RandomState> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let [a, b, c, d, ..] = SECRET.get_or_init(RandomState::new).hash_one(count).to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Puts an IPv6 fragment header behind the headers that are not fragmented, which are at the start of
/// `headers`. Returns its length.
pub(super) fn insert(headers: &mut [u8], network: &Network) -> Option<usize> {
    let extensions = &network.extensions;
    let number = headers.get_mut(extensions.next_header_at)?;
    let next = std::mem::replace(number, protocol::FRAGMENT);
    let header: &mut Header = at(headers, extensions.unfragmentable)?;
    *header = Header::new(next, U16::ZERO, U32::new(identification()));
    Some(size_of::<Header>())
}

/// Writes where a fragment belongs: `offset` in bytes.
pub(super) fn place(headers: &mut [u8], network: &Network, offset: u16, more: bool) -> Option<()> {
    if network.is_v6() {
        // A datagram in one piece has no such header.
        if offset != 0 || more {
            let header: &mut Header = at(headers, network.extensions.unfragmentable)?;
            let more = if more { IPV6_MORE_FRAGMENTS } else { 0 };
            header.offset_flags = U16::new(offset | more);
        }
        return Some(());
    }
    let more = if more { ipv4::MORE_FRAGMENTS } else { 0 };
    let header: &mut Ipv4 = at(headers, network.offset)?;
    header.flags_fragment = U16::new((offset / 8) | more);
    if offset != 0 {
        keep_copied_options(headers.get_mut(network.offset..network.payload)?);
    }
    Some(())
}

/// Blanks the options that belong in the first fragment only.
fn keep_copied_options(header: &mut [u8]) {
    let mut at = size_of::<Ipv4>();
    while let Some(&kind) = header.get(at) {
        let len = match kind {
            ipv4::OPTION_END => return,
            ipv4::OPTION_NOP => 1,
            // An option that is cut short or has no length is left alone, with all behind it.
            _ => match header.get(at + 1) {
                Some(&len) if len >= 2 => usize::from(len),
                _ => return,
            },
        };
        if kind & ipv4::OPTION_COPIED == 0 {
            let Some(option) = header.get_mut(at..at + len) else { return };
            option.fill(ipv4::OPTION_NOP);
        }
        at += len;
    }
}
