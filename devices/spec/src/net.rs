//! Ethernet, IP, TCP, UDP and ICMP.
//!
//! Integers are big-endian here, as they are on the wire. Frames start with the destination address
//! and end before the frame check sequence.
//!
//! Sources: IEEE 802.3 and 802.1Q; RFC 791 (IPv4), RFC 8200 (IPv6), RFC 6275 (mobility), RFC 9293
//! (TCP), RFC 768 (UDP), RFC 792 and RFC 4443 (ICMP).

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an Ethernet header without VLAN tags.
pub const ETHERNET_HEADER: usize = 14;
/// Bytes of the shortest frame that an Ethernet carries (IEEE 802.3, 3.2.8), without its frame check
/// sequence.
pub const ETHERNET_MIN: usize = 60;
/// Bytes of payload that every Ethernet carries.
pub const ETHERNET_MTU: usize = 1500;
/// Bytes of a frame check sequence.
pub const ETHERNET_FCS: usize = 4;
/// Bytes that a VLAN tag adds to a frame.
pub const VLAN_TAG: usize = 4;
/// The address of every station.
pub const ETHERNET_BROADCAST: [u8; 6] = [0xff; 6];
/// First byte of an Ethernet address: for a group (I/G bit).
pub const ETHERNET_GROUP: u8 = 1 << 0;
/// First byte of an Ethernet address: administered locally (U/L bit).
pub const ETHERNET_LOCAL: u8 = 1 << 1;

/// Values of the EtherType field. Below [`MIN`](ether_type::MIN) it is a length (IEEE 802.3, 3.2.6).
pub mod ether_type {
    /// Smallest value that is a type.
    pub const MIN: u16 = 0x0600;
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// Address resolution (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag (IEEE 802.1Q, 9.6: customer).
    pub const VLAN: u16 = 0x8100;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
    /// An outer VLAN tag (IEEE 802.1Q, 9.6: service).
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// For experiments within one's own network (IEEE 802, 9.2.3).
    pub const EXPERIMENTAL: u16 = 0x88b5;
}

/// Tag control information (IEEE 802.1Q, 9.6), as masks.
pub mod tci {
    /// VLAN identifier; 0 for a priority alone, 0xfff reserved.
    pub const VID: u16 = 0x0fff;
    /// Drop eligible indicator.
    pub const DEI: u16 = 1 << 12;
    /// Shift of the priority code point, 3 bits.
    pub const PCP_SHIFT: u32 = 13;
}

/// Ethernet header (IEEE 802.3, 3.1.1).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub struct Ethernet {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    /// [`ether_type`], or a length.
    pub ether_type: U16,
}

/// A VLAN tag behind the type that announces it (IEEE 802.1Q, 9.5).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct VlanTag {
    /// [`tci`].
    pub tci: U16,
    /// [`ether_type`] of what follows.
    pub ether_type: U16,
}

/// Protocols above IP, and IPv6's extension headers (IANA's protocol numbers).
pub mod protocol {
    /// IPv6 hop-by-hop options (RFC 8200, 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 routing header (RFC 8200, 4.4).
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header (RFC 8200, 4.5).
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating security payload (RFC 4303). What follows cannot be read.
    pub const ESP: u8 = 50;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// No next header (RFC 8200, 4.7).
    pub const NONE: u8 = 59;
    /// IPv6 destination options (RFC 8200, 4.6).
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    /// Mobility header (RFC 6275, 6.1).
    pub const MOBILITY: u8 = 135;
}

/// IPv4 header without options (RFC 791, 3.1).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Ipv4 {
    /// Version (4) in bits 7:4; length of the header in words of 4 bytes in bits 3:0, at least 5.
    pub version_ihl: u8,
    pub type_of_service: u8,
    /// Header and payload, in bytes.
    pub total_length: U16,
    pub identification: U16,
    /// [`ipv4`] flags; fragment offset in units of 8 bytes.
    pub flags_fragment: U16,
    pub time_to_live: u8,
    /// [`protocol`].
    pub protocol: u8,
    pub checksum: U16,
    pub source: [u8; 4],
    pub destination: [u8; 4],
}

/// Fields of [`Ipv4`].
pub mod ipv4 {
    /// First byte of a header without options.
    pub const VERSION_IHL: u8 = 0x45;
    /// Flags: do not fragment.
    pub const DONT_FRAGMENT: u16 = 1 << 14;
    /// Flags: more fragments follow.
    pub const MORE_FRAGMENTS: u16 = 1 << 13;
    /// Fragment offset, in units of 8 bytes.
    pub const FRAGMENT_OFFSET: u16 = 0x1fff;
    /// Option: end of the list, a single byte.
    pub const OPTION_END: u8 = 0;
    /// Option: nothing, a single byte.
    pub const OPTION_NOP: u8 = 1;
    /// Type of an option: it is copied into each fragment.
    pub const OPTION_COPIED: u8 = 1 << 7;
    /// Bytes of the longest header.
    pub const MAX_HEADER: usize = 60;
}

/// IPv6 header (RFC 8200, 3).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Ipv6 {
    /// Version (6) in bits 31:28, traffic class in bits 27:20, flow label in bits 19:0.
    pub version_class_flow: U32,
    /// What follows this header, in bytes; 0 for a jumbogram (RFC 2675).
    pub payload_length: U16,
    /// [`protocol`].
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: [u8; 16],
    pub destination: [u8; 16],
}

/// The version of [`Ipv6`] in its first word.
pub const IPV6_VERSION: u32 = 6 << 28;

/// What most IPv6 extension headers start with (RFC 8200, 4).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Ipv6Extension {
    /// [`protocol`] of what follows.
    pub next_header: u8,
    /// Length in units of 8 bytes, without the first 8. (Of 4 bytes, without the first 8, in an
    /// authentication header.)
    pub length: u8,
}

/// IPv6 routing header, type 2 (RFC 6275, 6.4).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct RoutingType2 {
    pub next_header: u8,
    /// 2.
    pub length: u8,
    /// [`ROUTING_TYPE_2`].
    pub routing_type: u8,
    /// 1.
    pub segments_left: u8,
    reserved: [u8; 4],
    pub home_address: [u8; 16],
}

/// Routing type of [`RoutingType2`].
pub const ROUTING_TYPE_2: u8 = 2;

/// IPv6 fragment header (RFC 8200, 4.5).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Ipv6Fragment {
    pub next_header: u8,
    reserved: u8,
    /// Fragment offset in units of 8 bytes in bits 15:3, so that without its low bits it is in bytes;
    /// [`IPV6_MORE_FRAGMENTS`].
    pub offset_flags: U16,
    pub identification: U32,
}

impl Ipv6Fragment {
    /// A header with its reserved byte zero.
    pub const fn new(next_header: u8, offset_flags: U16, identification: U32) -> Self {
        Self { next_header, reserved: 0, offset_flags, identification }
    }
}

/// [`Ipv6Fragment`]: more fragments follow.
pub const IPV6_MORE_FRAGMENTS: u16 = 1 << 0;
/// [`Ipv6Fragment`]: the offset, in bytes.
pub const IPV6_FRAGMENT_OFFSET: u16 = 0xfff8;

/// Options in hop-by-hop and destination options headers (RFC 8200, 4.2). But for `PAD1` each has a
/// byte of length, which counts neither itself nor the type.
pub mod ipv6_option {
    /// A single byte of padding, without a length.
    pub const PAD1: u8 = 0;
    /// Two or more bytes of padding.
    pub const PADN: u8 = 1;
    /// The length of a jumbogram (RFC 2675).
    pub const JUMBO: u8 = 0xc2;
    /// The sender's home address, 16 bytes (RFC 6275, 6.3).
    pub const HOME_ADDRESS: u8 = 0xc9;
}

/// TCP header without options (RFC 9293, 3.1).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Tcp {
    pub source_port: U16,
    pub destination_port: U16,
    pub sequence: U32,
    pub acknowledgement: U32,
    /// Length of the header in words of 4 bytes in bits 7:4, at least 5.
    pub data_offset: u8,
    /// [`tcp`].
    pub flags: u8,
    pub window: U16,
    pub checksum: U16,
    pub urgent_pointer: U16,
}

/// Fields of [`Tcp`].
pub mod tcp {
    /// Data offset of a header without options.
    pub const DATA_OFFSET: u8 = 5 << 4;
    /// Flags: no more data.
    pub const FIN: u8 = 1 << 0;
    /// Flags: synchronize sequence numbers.
    pub const SYN: u8 = 1 << 1;
    /// Flags: reset.
    pub const RST: u8 = 1 << 2;
    /// Flags: push.
    pub const PSH: u8 = 1 << 3;
    /// Flags: the acknowledgement is valid.
    pub const ACK: u8 = 1 << 4;
    /// Flags: the urgent pointer is valid.
    pub const URG: u8 = 1 << 5;
    /// Flags: ECN echo (RFC 3168).
    pub const ECE: u8 = 1 << 6;
    /// Flags: congestion window reduced (RFC 3168).
    pub const CWR: u8 = 1 << 7;
    /// Where the checksum is, from the start of the header.
    pub const CHECKSUM: usize = 16;
    /// Bytes of the longest header.
    pub const MAX_HEADER: usize = 60;
}

/// UDP header (RFC 768).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Udp {
    pub source_port: U16,
    pub destination_port: U16,
    /// Header and payload, in bytes.
    pub length: U16,
    /// 0: there is none.
    pub checksum: U16,
}

/// Where a UDP header's checksum is, from its start.
pub const UDP_CHECKSUM: usize = 6;

/// ICMP and ICMPv6 echo messages' header (RFC 792, p. 14; RFC 4443, 4.1).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct IcmpEcho {
    /// [`icmp`].
    pub message_type: u8,
    pub code: u8,
    /// In ICMPv6 the pseudo header is summed too.
    pub checksum: U16,
    pub identifier: U16,
    pub sequence: U16,
}

/// Types of ICMP messages.
pub mod icmp {
    /// ICMP echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// ICMP echo.
    pub const ECHO: u8 = 8;
    /// ICMPv6 echo request.
    pub const V6_ECHO_REQUEST: u8 = 128;
    /// ICMPv6 echo reply.
    pub const V6_ECHO_REPLY: u8 = 129;
    /// ICMPv6 neighbour solicitation (RFC 4861, 4.3).
    pub const V6_NEIGHBOUR_SOLICITATION: u8 = 135;
    /// ICMPv6 neighbour advertisement (RFC 4861, 4.4).
    pub const V6_NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// Address resolution between Ethernet and IPv4 (RFC 826).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub struct Arp {
    /// 1 for Ethernet.
    pub hardware_type: U16,
    /// [`ether_type::IPV4`].
    pub protocol_type: U16,
    /// 6.
    pub hardware_length: u8,
    /// 4.
    pub protocol_length: u8,
    /// 1 for a request, 2 for a reply.
    pub operation: U16,
    pub sender_hardware: [u8; 6],
    pub sender_protocol: [u8; 4],
    pub target_hardware: [u8; 6],
    pub target_protocol: [u8; 4],
}

const _: () = {
    assert!(size_of::<Ethernet>() == ETHERNET_HEADER);
    assert!(size_of::<VlanTag>() == VLAN_TAG);
    assert!(size_of::<Ipv4>() == 20);
    assert!(size_of::<Ipv6>() == 40);
    assert!(size_of::<RoutingType2>() == 24);
    assert!(size_of::<Ipv6Fragment>() == 8);
    assert!(size_of::<Tcp>() == 20);
    assert!(size_of::<Udp>() == 8);
    assert!(size_of::<IcmpEcho>() == 8);
    assert!(size_of::<Arp>() == 28);
};
