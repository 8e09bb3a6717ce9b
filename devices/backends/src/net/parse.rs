//! The headers of a frame, read once.
//!
//! [`Headers::parse`] takes the first bytes of a frame, in host memory, and tells what they are. It
//! never fails: what it does not understand, or what is cut short, is a frame without a network
//! layer, or a packet without a transport. All offsets are from the start of the frame.

use paraslot_spec::net::{
    Ethernet, IPV6_FRAGMENT_OFFSET, IPV6_MORE_FRAGMENTS, IPV6_VERSION, Ipv4, Ipv6, Ipv6Extension,
    Ipv6Fragment, ROUTING_TYPE_2, RoutingType2, Tcp, Udp, VlanTag, ether_type, ipv4, ipv6_option,
    protocol,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

#[cfg(test)]
mod tests;

/// As many of a frame's first bytes as are worth reading to parse them: two VLAN tags, IPv6 with
/// some 130 bytes of extension headers, and a TCP header of the greatest length.
pub const HEADERS: usize = 256;

/// Most extension headers that are followed. No sender has use for more, and each costs time.
const MAX_EXTENSIONS: usize = 8;
/// Most options that are looked at in one destination options header.
const MAX_OPTIONS: usize = 16;

/// The addresses of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum Addresses {
    V4 { source: [u8; 4], destination: [u8; 4] },
    V6 { source: [u8; 16], destination: [u8; 16] },
}

/// What IPv6 extension headers say that matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// There are some.
    pub present: bool,
    /// The home address option (RFC 6275, 6.3) of a destination options header.
    pub home_address: Option<[u8; 16]>,
    /// The address in a type 2 routing header (RFC 6275, 6.4).
    pub routing_address: Option<[u8; 16]>,
    /// A routing header has segments left, so that the packet's destination is not the last.
    pub routed: bool,
    /// Where a fragment header is to be put: behind the headers that every node on the way reads
    /// (RFC 8200, 4.5). Offset in the frame.
    pub unfragmentable: usize,
    /// Where the number of the header at `unfragmentable` is. Offset in the frame.
    pub next_header_at: usize,
    /// There is a fragment header, perhaps that of a whole packet.
    pub fragment_header: bool,
}

/// An IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Where the header is.
    pub offset: usize,
    /// Whence and where to.
    pub addresses: Addresses,
    /// The length of the packet, header included, by its own account; `None` if it says 0, as a packet
    /// still to be cut and an IPv6 jumbogram may. The frame may be longer (padding) or shorter.
    pub length: Option<usize>,
    /// The transport protocol, or the extension header that was not followed.
    pub protocol: u8,
    /// It is a part of a packet only.
    pub fragment: bool,
    /// Where the payload is, behind options and extension headers.
    pub payload: usize,
    /// IPv6 extension headers; nothing in IPv4.
    pub extensions: Extensions,
}

/// Which transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum TransportKind {
    Tcp,
    Udp,
}

/// A TCP or UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Which.
    pub kind: TransportKind,
    /// Where it is.
    pub offset: usize,
    /// Its length, options included.
    pub header_len: usize,
    /// Whence.
    pub source_port: u16,
    /// Where to.
    pub destination_port: u16,
}

/// What a frame's first bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The EtherType behind any VLAN tags, or a length; 0 for a frame without an Ethernet header.
    pub ether_type: u16,
    /// The tag control information of VLAN tags, the outer first.
    pub vlan: [Option<u16>; 2],
    /// IPv4 or IPv6.
    pub network: Option<Network>,
    /// TCP or UDP, if all of the header is there. Not of fragments: even the first one holds a part
    /// of a packet only.
    pub transport: Option<Transport>,
}

/// The structure at `offset`.
fn at<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8], offset: usize) -> Option<T> {
    T::read_from_prefix(bytes.get(offset..)?).ok().map(|(value, _)| value)
}

impl Headers {
    /// Reads `bytes`, the first of a frame; all of it, or [`HEADERS`] bytes for every header that can
    /// be expected.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut headers = Self::default();
        let Some(ethernet) = at::<Ethernet>(bytes, 0) else { return headers };
        headers.ether_type = ethernet.ether_type.get();
        let mut offset = size_of::<Ethernet>();
        for vlan in &mut headers.vlan {
            if !matches!(headers.ether_type, ether_type::VLAN | ether_type::SERVICE_VLAN) {
                break;
            }
            let Some(tag) = at::<VlanTag>(bytes, offset) else { return headers };
            *vlan = Some(tag.tci.get());
            headers.ether_type = tag.ether_type.get();
            offset += size_of::<VlanTag>();
        }
        headers.network = match headers.ether_type {
            ether_type::IPV4 => parse_v4(bytes, offset),
            ether_type::IPV6 => parse_v6(bytes, offset),
            _ => None,
        };
        headers.transport = headers.network.and_then(|network| parse_transport(bytes, &network));
        headers
    }

    /// Where the payload of the transport is: all headers that were understood, and those before.
    /// `None` without a transport.
    pub fn header_len(&self) -> Option<usize> {
        self.transport.map(|transport| transport.offset + transport.header_len)
    }
}

impl Network {
    /// Whether it is IPv6.
    pub fn is_v6(&self) -> bool {
        matches!(self.addresses, Addresses::V6 { .. })
    }

    /// The addresses that a transport checksum covers: the ends of the journey (RFC 8200, 8.1 and
    /// RFC 6275, 11.3). `None` if they are not known.
    pub fn ends(&self) -> Option<Addresses> {
        let Addresses::V6 { source, destination } = self.addresses else {
            return Some(self.addresses);
        };
        let Extensions { home_address, routing_address, routed, .. } = self.extensions;
        let destination = if routed { routing_address? } else { destination };
        Some(Addresses::V6 { source: home_address.unwrap_or(source), destination })
    }
}

fn parse_v4(bytes: &[u8], offset: usize) -> Option<Network> {
    let header: Ipv4 = at(bytes, offset)?;
    let header_len = usize::from(header.version_ihl & 0xf) * 4;
    if header.version_ihl >> 4 != 4 || header_len < size_of::<Ipv4>() {
        return None;
    }
    bytes.get(offset..offset + header_len)?;
    let length = match usize::from(header.total_length.get()) {
        0 => None,
        length if length < header_len => return None,
        length => Some(length),
    };
    let fragment = header.flags_fragment.get() & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET);
    Some(Network {
        offset,
        addresses: Addresses::V4 { source: header.source, destination: header.destination },
        length,
        protocol: header.protocol,
        fragment: fragment != 0,
        payload: offset + header_len,
        extensions: Extensions::default(),
    })
}

fn parse_v6(bytes: &[u8], offset: usize) -> Option<Network> {
    let header: Ipv6 = at(bytes, offset)?;
    if header.version_class_flow.get() & 0xf << 28 != IPV6_VERSION {
        return None;
    }
    let payload = offset + size_of::<Ipv6>();
    let mut network = Network {
        offset,
        addresses: Addresses::V6 { source: header.source, destination: header.destination },
        length: match usize::from(header.payload_length.get()) {
            0 => None,
            length => Some(size_of::<Ipv6>() + length),
        },
        protocol: header.next_header,
        fragment: false,
        payload,
        extensions: Extensions {
            unfragmentable: payload,
            // The field behind the length.
            next_header_at: offset + 6,
            ..Extensions::default()
        },
    };
    for _ in 0..MAX_EXTENSIONS {
        if network.fragment || follow(bytes, &mut network).is_none() {
            break;
        }
    }
    Some(network)
}

/// Steps over the extension header at the start of the payload. `None` if there is none, or not all
/// of it.
fn follow(bytes: &[u8], network: &mut Network) -> Option<()> {
    let offset = network.payload;
    let extension: Ipv6Extension = at(bytes, offset)?;
    let mut len = (usize::from(extension.length) + 1) * 8;
    let extensions = &mut network.extensions;
    match network.protocol {
        // Only the first may be one (RFC 8200, 4.1).
        protocol::HOP_BY_HOP if !extensions.present => {}
        protocol::ROUTING | protocol::DESTINATION_OPTIONS => {}
        // Its second byte is reserved.
        protocol::FRAGMENT => len = size_of::<Ipv6Fragment>(),
        _ => return None,
    }
    let whole = bytes.get(offset..offset + len)?;
    match network.protocol {
        protocol::ROUTING => {
            // The type and the segments left are in every routing header.
            let [_, _, routing_type, segments_left, ..] = *whole else { return None };
            extensions.routed |= segments_left != 0;
            if routing_type == ROUTING_TYPE_2 && len == size_of::<RoutingType2>() {
                extensions.routing_address = at::<RoutingType2>(whole, 0).map(|h| h.home_address);
            }
        }
        protocol::DESTINATION_OPTIONS => {
            let home_address = home_address(&whole[size_of::<Ipv6Extension>()..]);
            extensions.home_address = extensions.home_address.or(home_address);
        }
        protocol::FRAGMENT => {
            let fragment: Ipv6Fragment = at(whole, 0)?;
            let part = fragment.offset_flags.get() & (IPV6_FRAGMENT_OFFSET | IPV6_MORE_FRAGMENTS);
            network.fragment = part != 0;
            extensions.fragment_header = true;
        }
        _ => {}
    }
    extensions.present = true;
    if matches!(network.protocol, protocol::HOP_BY_HOP | protocol::ROUTING) {
        extensions.unfragmentable = offset + len;
        extensions.next_header_at = offset;
    }
    network.protocol = extension.next_header;
    network.payload = offset + len;
    Some(())
}

/// The home address among destination options.
fn home_address(mut options: &[u8]) -> Option<[u8; 16]> {
    for _ in 0..MAX_OPTIONS {
        options = match *options {
            [ipv6_option::PAD1, ref rest @ ..] => rest,
            [kind, len, ref rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(len))?;
                if kind == ipv6_option::HOME_ADDRESS {
                    return value.try_into().ok();
                }
                rest
            }
            _ => return None,
        };
    }
    None
}

fn parse_transport(bytes: &[u8], network: &Network) -> Option<Transport> {
    if network.fragment {
        return None;
    }
    let offset = network.payload;
    // What lies behind the packet's own end is padding, whatever it looks like.
    let end = network.length.map_or(bytes.len(), |length| network.offset + length);
    let bytes = &bytes[..end.min(bytes.len())];
    let (kind, header_len, source_port, destination_port) = match network.protocol {
        protocol::TCP => {
            let tcp: Tcp = at(bytes, offset)?;
            let header_len = usize::from(tcp.data_offset >> 4) * 4;
            if header_len < size_of::<Tcp>() {
                return None;
            }
            (TransportKind::Tcp, header_len, tcp.source_port, tcp.destination_port)
        }
        protocol::UDP => {
            let udp: Udp = at(bytes, offset)?;
            (TransportKind::Udp, size_of::<Udp>(), udp.source_port, udp.destination_port)
        }
        _ => return None,
    };
    bytes.get(offset..offset.checked_add(header_len)?)?;
    let (source_port, destination_port) = (source_port.get(), destination_port.get());
    Some(Transport { kind, offset, header_len, source_port, destination_port })
}
