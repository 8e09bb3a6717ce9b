//! The virtio network device (VIRTIO 1.4, 5.1).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Feature bits (5.1.3), as masks. Those from 64 on (contexts of RSS, UDP tunnels, IPsec) are not
/// here.
pub mod feature {
    /// VIRTIO_NET_F_CSUM: the device takes frames with a partial checksum.
    pub const CSUM: u64 = 1 << 0;
    /// VIRTIO_NET_F_GUEST_CSUM: the driver takes frames with a partial checksum.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: the driver's offloads can be changed.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// VIRTIO_NET_F_MTU: mtu is valid.
    pub const MTU: u64 = 1 << 3;
    /// VIRTIO_NET_F_MAC: mac is valid.
    pub const MAC: u64 = 1 << 5;
    /// VIRTIO_NET_F_GUEST_TSO4: the driver takes TCP over IPv4 that is to be segmented.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// VIRTIO_NET_F_GUEST_TSO6: the driver takes TCP over IPv6 that is to be segmented.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// VIRTIO_NET_F_GUEST_ECN: of these, also with ECN.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// VIRTIO_NET_F_GUEST_UFO: the driver takes UDP that is to be fragmented.
    pub const GUEST_UFO: u64 = 1 << 10;
    /// VIRTIO_NET_F_HOST_TSO4: the device takes TCP over IPv4 that is to be segmented.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// VIRTIO_NET_F_HOST_TSO6: the device takes TCP over IPv6 that is to be segmented.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// VIRTIO_NET_F_HOST_ECN: of these, also with ECN.
    pub const HOST_ECN: u64 = 1 << 13;
    /// VIRTIO_NET_F_HOST_UFO: the device takes UDP that is to be fragmented.
    pub const HOST_UFO: u64 = 1 << 14;
    /// VIRTIO_NET_F_MRG_RXBUF: a received frame may fill several buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// VIRTIO_NET_F_STATUS: status is valid.
    pub const STATUS: u64 = 1 << 16;
    /// VIRTIO_NET_F_CTRL_VQ: there is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// VIRTIO_NET_F_CTRL_RX: receive modes and the MAC table.
    pub const CTRL_RX: u64 = 1 << 18;
    /// VIRTIO_NET_F_CTRL_VLAN: the VLAN table.
    pub const CTRL_VLAN: u64 = 1 << 19;
    /// VIRTIO_NET_F_CTRL_RX_EXTRA: more receive modes.
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    /// VIRTIO_NET_F_GUEST_ANNOUNCE: the driver can send gratuitous packets.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// VIRTIO_NET_F_MQ: several pairs of queues, steered automatically.
    pub const MQ: u64 = 1 << 22;
    /// VIRTIO_NET_F_CTRL_MAC_ADDR: the MAC address can be set.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    /// VIRTIO_NET_F_DEVICE_STATS: statistics by the control queue.
    pub const DEVICE_STATS: u64 = 1 << 50;
    /// VIRTIO_NET_F_HASH_TUNNEL: hashes of what is in a tunnel.
    pub const HASH_TUNNEL: u64 = 1 << 51;
    /// VIRTIO_NET_F_VQ_NOTF_COAL: notifications are held back for each queue as it is set for it.
    pub const VQ_NOTF_COAL: u64 = 1 << 52;
    /// VIRTIO_NET_F_NOTF_COAL: notifications can be held back.
    pub const NOTF_COAL: u64 = 1 << 53;
    /// VIRTIO_NET_F_GUEST_USO4: the driver takes UDP over IPv4 that is to be cut into datagrams.
    pub const GUEST_USO4: u64 = 1 << 54;
    /// VIRTIO_NET_F_GUEST_USO6: the driver takes UDP over IPv6 that is to be cut into datagrams.
    pub const GUEST_USO6: u64 = 1 << 55;
    /// VIRTIO_NET_F_HOST_USO: the device takes UDP that is to be cut into datagrams.
    pub const HOST_USO: u64 = 1 << 56;
    /// VIRTIO_NET_F_HASH_REPORT: the header of a received frame tells its hash.
    pub const HASH_REPORT: u64 = 1 << 57;
    /// VIRTIO_NET_F_GUEST_HDRLEN: hdr_len from the driver is exact.
    pub const GUEST_HDRLEN: u64 = 1 << 59;
    /// VIRTIO_NET_F_RSS: receive-side scaling.
    pub const RSS: u64 = 1 << 60;
    /// VIRTIO_NET_F_RSC_EXT: the header tells of coalesced segments.
    pub const RSC_EXT: u64 = 1 << 61;
    /// VIRTIO_NET_F_STANDBY: the device may stand in for another.
    pub const STANDBY: u64 = 1 << 62;
    /// VIRTIO_NET_F_SPEED_DUPLEX: speed and duplex are valid.
    pub const SPEED_DUPLEX: u64 = 1 << 63;
}

/// Device configuration (5.1.4). Nothing in it can be written.
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
pub struct Config {
    pub mac: [u8; 6],
    /// `status::*`.
    pub status: U16,
    /// Pairs of queues, from 1 to [`mq::PAIRS_MAX`].
    pub max_virtqueue_pairs: U16,
    /// Largest IP packet, in bytes.
    pub mtu: U16,
    /// In Mbit/s, up to 0x7fff_ffff, or [`SPEED_UNKNOWN`].
    pub speed: U32,
    /// `duplex::*`.
    pub duplex: u8,
    /// In bytes.
    pub rss_max_key_size: u8,
    /// In entries of 16 bits.
    pub rss_max_indirection_table_length: U16,
    /// `hash_type::*`.
    pub supported_hash_types: U32,
    /// Kinds of tunnels whose content can be hashed.
    pub supported_tunnel_types: U32,
}

/// Status bits, in [`Config`] (5.1.4).
pub mod status {
    /// VIRTIO_NET_S_LINK_UP.
    pub const LINK_UP: u16 = 1;
    /// VIRTIO_NET_S_ANNOUNCE: the driver is asked to send gratuitous packets.
    pub const ANNOUNCE: u16 = 2;
}

/// Values of duplex, in [`Config`].
///
/// The specification says both this (5.1.4) and the reverse (5.1.4.1); this is what drivers in use
/// have always taken it for.
pub mod duplex {
    /// Half duplex.
    pub const HALF: u8 = 0;
    /// Full duplex.
    pub const FULL: u8 = 1;
    /// Not known.
    pub const UNKNOWN: u8 = 0xff;
}

/// A speed that is not known, in [`Config`].
pub const SPEED_UNKNOWN: u32 = 0xffff_ffff;

/// What each frame starts with in its buffers, virtio_net_hdr (5.1.9), as far as it is always there.
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
pub struct Header {
    /// `header_flag::*`.
    pub flags: u8,
    /// `gso::*`.
    pub gso_type: u8,
    /// Length of all headers; no more than a hint, unless GUEST_HDRLEN was negotiated.
    pub hdr_len: U16,
    /// Bytes of payload in each segment.
    pub gso_size: U16,
    /// Where the checksum starts, from the start of the frame.
    pub csum_start: U16,
    /// Where the checksum goes, from `csum_start`.
    pub csum_offset: U16,
    /// Buffers that a received frame fills; 0 in frames to be sent.
    pub num_buffers: U16,
}

/// [`Header`] when HASH_REPORT was negotiated, in both directions (5.1.9.3.1).
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
pub struct HashHeader {
    /// What is always there.
    pub header: Header,
    /// The hash, if `hash_report` says that there is one.
    pub hash_value: U32,
    /// `hash_report::*`.
    pub hash_report: U16,
    padding_reserved: U16,
}

impl HashHeader {
    /// A header with a hash.
    pub const fn new(header: Header, value: u32, report: u16) -> Self {
        Self {
            header,
            hash_value: U32::new(value),
            hash_report: U16::new(report),
            padding_reserved: U16::new(0),
        }
    }
}

/// Flags in [`Header`] (5.1.9).
pub mod header_flag {
    /// VIRTIO_NET_HDR_F_NEEDS_CSUM: csum_start and csum_offset tell of a checksum to be filled in.
    pub const NEEDS_CSUM: u8 = 1;
    /// VIRTIO_NET_HDR_F_DATA_VALID: the checksum is right.
    pub const DATA_VALID: u8 = 2;
    /// VIRTIO_NET_HDR_F_RSC_INFO: csum_start and csum_offset are counts.
    pub const RSC_INFO: u8 = 4;
    /// VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM: the outer checksum of a tunnel is to be filled in.
    pub const UDP_TUNNEL_CSUM: u8 = 8;
}

/// Types of segmentation, in [`Header`] (5.1.9).
pub mod gso {
    /// VIRTIO_NET_HDR_GSO_NONE.
    pub const NONE: u8 = 0;
    /// VIRTIO_NET_HDR_GSO_TCPV4.
    pub const TCPV4: u8 = 1;
    /// VIRTIO_NET_HDR_GSO_UDP: into IP fragments.
    pub const UDP: u8 = 3;
    /// VIRTIO_NET_HDR_GSO_TCPV6.
    pub const TCPV6: u8 = 4;
    /// VIRTIO_NET_HDR_GSO_UDP_L4: into datagrams.
    pub const UDP_L4: u8 = 5;
    /// VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4: in a UDP tunnel; to be added to one of the above.
    pub const UDP_TUNNEL_IPV4: u8 = 0x20;
    /// VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV6: likewise.
    pub const UDP_TUNNEL_IPV6: u8 = 0x40;
    /// VIRTIO_NET_HDR_GSO_ECN: TCP with ECN; to be added to one of the above.
    pub const ECN: u8 = 0x80;
}

/// Types of hashes that can be enabled (5.1.9.4.3.1).
pub mod hash_type {
    /// VIRTIO_NET_HASH_TYPE_IPv4.
    pub const IPV4: u32 = 1 << 0;
    /// VIRTIO_NET_HASH_TYPE_TCPv4.
    pub const TCPV4: u32 = 1 << 1;
    /// VIRTIO_NET_HASH_TYPE_UDPv4.
    pub const UDPV4: u32 = 1 << 2;
    /// VIRTIO_NET_HASH_TYPE_IPv6.
    pub const IPV6: u32 = 1 << 3;
    /// VIRTIO_NET_HASH_TYPE_TCPv6.
    pub const TCPV6: u32 = 1 << 4;
    /// VIRTIO_NET_HASH_TYPE_UDPv6.
    pub const UDPV6: u32 = 1 << 5;
    /// VIRTIO_NET_HASH_TYPE_IP_EX: IPv6 with extension headers.
    pub const IP_EX: u32 = 1 << 6;
    /// VIRTIO_NET_HASH_TYPE_TCP_EX.
    pub const TCP_EX: u32 = 1 << 7;
    /// VIRTIO_NET_HASH_TYPE_UDP_EX.
    pub const UDP_EX: u32 = 1 << 8;
    /// All of them.
    pub const ALL: u32 = (1 << 9) - 1;
}

/// Which hash was calculated, in [`HashHeader`] (5.1.9.4.5).
pub mod hash_report {
    /// VIRTIO_NET_HASH_REPORT_NONE.
    pub const NONE: u16 = 0;
    /// VIRTIO_NET_HASH_REPORT_IPv4.
    pub const IPV4: u16 = 1;
    /// VIRTIO_NET_HASH_REPORT_TCPv4.
    pub const TCPV4: u16 = 2;
    /// VIRTIO_NET_HASH_REPORT_UDPv4.
    pub const UDPV4: u16 = 3;
    /// VIRTIO_NET_HASH_REPORT_IPv6.
    pub const IPV6: u16 = 4;
    /// VIRTIO_NET_HASH_REPORT_TCPv6.
    pub const TCPV6: u16 = 5;
    /// VIRTIO_NET_HASH_REPORT_UDPv6.
    pub const UDPV6: u16 = 6;
    /// VIRTIO_NET_HASH_REPORT_IPv6_EX.
    pub const IPV6_EX: u16 = 7;
    /// VIRTIO_NET_HASH_REPORT_TCPv6_EX.
    pub const TCPV6_EX: u16 = 8;
    /// VIRTIO_NET_HASH_REPORT_UDPv6_EX.
    pub const UDPV6_EX: u16 = 9;
}

/// What each control command starts with (5.1.9.5). What belongs to the command follows, and the
/// device answers with one byte, `ack::*`, at the end.
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
pub struct ControlHeader {
    /// `class::*`.
    pub class: u8,
    /// The command, of that class.
    pub command: u8,
}

impl ControlHeader {
    /// A header.
    pub const fn new(class: u8, command: u8) -> Self {
        Self { class, command }
    }
}

/// Answers to control commands (5.1.9.5).
pub mod ack {
    /// VIRTIO_NET_OK.
    pub const OK: u8 = 0;
    /// VIRTIO_NET_ERR.
    pub const ERR: u8 = 1;
}

/// Classes of control commands (5.1.9.5).
pub mod class {
    /// VIRTIO_NET_CTRL_RX: receive modes, `rx::*`.
    pub const RX: u8 = 0;
    /// VIRTIO_NET_CTRL_MAC: addresses, `mac::*`.
    pub const MAC: u8 = 1;
    /// VIRTIO_NET_CTRL_VLAN: the VLAN table, `vlan::*`.
    pub const VLAN: u8 = 2;
    /// VIRTIO_NET_CTRL_ANNOUNCE: gratuitous packets, `announce::*`.
    pub const ANNOUNCE: u8 = 3;
    /// VIRTIO_NET_CTRL_MQ: queues and hashes, `mq::*`.
    pub const MQ: u8 = 4;
    /// VIRTIO_NET_CTRL_GUEST_OFFLOADS: the driver's offloads, `guest_offloads::*`.
    pub const GUEST_OFFLOADS: u8 = 5;
    /// VIRTIO_NET_CTRL_NOTF_COAL: notifications held back, `notf_coal::*`.
    pub const NOTF_COAL: u8 = 6;
    /// VIRTIO_NET_CTRL_HASH_TUNNEL: hashes of what is in a tunnel.
    pub const HASH_TUNNEL: u8 = 7;
    /// VIRTIO_NET_CTRL_STATS: statistics.
    pub const STATS: u8 = 8;
}

/// Commands of [`class::RX`] (5.1.9.5.1). Each takes one byte, 1 for on and 0 for off.
pub mod rx {
    /// VIRTIO_NET_CTRL_RX_PROMISC: all frames.
    pub const PROMISC: u8 = 0;
    /// VIRTIO_NET_CTRL_RX_ALLMULTI: all multicast frames.
    pub const ALLMULTI: u8 = 1;
    /// VIRTIO_NET_CTRL_RX_ALLUNI: all unicast frames.
    pub const ALLUNI: u8 = 2;
    /// VIRTIO_NET_CTRL_RX_NOMULTI: no multicast frame.
    pub const NOMULTI: u8 = 3;
    /// VIRTIO_NET_CTRL_RX_NOUNI: no unicast frame.
    pub const NOUNI: u8 = 4;
    /// VIRTIO_NET_CTRL_RX_NOBCAST: no broadcast frame.
    pub const NOBCAST: u8 = 5;
}

/// Commands of [`class::MAC`] (5.1.9.5.2).
pub mod mac {
    /// VIRTIO_NET_CTRL_MAC_TABLE_SET: two tables, of unicast and of multicast addresses, each a
    /// number (32 bits) of addresses and the addresses of 6 bytes.
    pub const TABLE_SET: u8 = 0;
    /// VIRTIO_NET_CTRL_MAC_ADDR_SET: an address.
    pub const ADDR_SET: u8 = 1;
}

/// Commands of [`class::VLAN`] (5.1.9.5.3). Each takes a VLAN's number in 16 bits.
pub mod vlan {
    /// VIRTIO_NET_CTRL_VLAN_ADD.
    pub const ADD: u8 = 0;
    /// VIRTIO_NET_CTRL_VLAN_DEL.
    pub const DEL: u8 = 1;
}

/// The command of [`class::ANNOUNCE`] (5.1.9.5.4).
pub mod announce {
    /// VIRTIO_NET_CTRL_ANNOUNCE_ACK.
    pub const ACK: u8 = 0;
}

/// Commands of [`class::MQ`] (5.1.9.5.5).
pub mod mq {
    /// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: the number of pairs in use, in 16 bits.
    pub const VQ_PAIRS_SET: u8 = 0;
    /// VIRTIO_NET_CTRL_MQ_RSS_CONFIG: virtio_net_rss_config, which is a [`super::RssConfig`]; the rest of
    /// the indirection table, of `indirection_table_mask` + 1 entries of 16 bits; max_tx_vq in 16 bits;
    /// hash_key_length in 8 bits; and the key.
    pub const RSS_CONFIG: u8 = 1;
    /// VIRTIO_NET_CTRL_MQ_HASH_CONFIG: [`super::HashConfig`] and the key.
    pub const HASH_CONFIG: u8 = 2;
    /// Fewest pairs.
    pub const PAIRS_MIN: u16 = 1;
    /// Most pairs.
    pub const PAIRS_MAX: u16 = 0x8000;
}

/// What [`mq::RSS_CONFIG`] starts with (5.1.9.5.7.1). The indirection table follows.
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
pub struct RssConfig {
    /// `hash_type::*`.
    pub hash_types: U32,
    /// Entries of the table, a power of two, less 1.
    pub indirection_table_mask: U16,
    /// Receive queue of frames that have no hash, from 0.
    pub unclassified_queue: U16,
}

/// What [`mq::HASH_CONFIG`] starts with (5.1.9.5.6.4). The key follows.
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
pub struct HashConfig {
    /// `hash_type::*`.
    pub hash_types: U32,
    reserved: [U16; 4],
    /// In bytes.
    pub hash_key_length: u8,
}

impl HashConfig {
    /// A configuration with a key of so many bytes.
    pub const fn new(hash_types: u32, hash_key_length: u8) -> Self {
        Self { hash_types: U32::new(hash_types), reserved: [U16::new(0); 4], hash_key_length }
    }
}

/// The command of [`class::GUEST_OFFLOADS`] (5.1.9.5.9).
pub mod guest_offloads {
    use super::feature;

    /// VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET: the offloads that are on, in 64 bits, as their feature bits.
    pub const SET: u8 = 0;
    /// All offloads that there are.
    pub const ALL: u64 = feature::GUEST_CSUM
        | feature::GUEST_TSO4
        | feature::GUEST_TSO6
        | feature::GUEST_ECN
        | feature::GUEST_UFO
        | feature::GUEST_USO4
        | feature::GUEST_USO6;
}

/// Commands of [`class::NOTF_COAL`] (5.1.9.5.10).
pub mod notf_coal {
    /// VIRTIO_NET_CTRL_NOTF_COAL_TX_SET: [`super::Coalesce`] for all transmit queues.
    pub const TX_SET: u8 = 0;
    /// VIRTIO_NET_CTRL_NOTF_COAL_RX_SET: [`super::Coalesce`] for all receive queues.
    pub const RX_SET: u8 = 1;
    /// VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET: [`super::CoalesceQueue`].
    pub const VQ_SET: u8 = 2;
    /// VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET: [`super::CoalesceQueue`], whose last two fields the device fills
    /// in.
    pub const VQ_GET: u8 = 3;
}

/// How notifications are held back, virtio_net_ctrl_coal (5.1.9.5.10): until one limit is reached. With
/// 0 for either there is one after each packet.
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
pub struct Coalesce {
    /// Most packets before a notification.
    pub max_packets: U32,
    /// Longest wait before a notification, in microseconds.
    pub max_usecs: U32,
}

/// The same for one queue, virtio_net_ctrl_coal_vq (5.1.9.5.10).
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
pub struct CoalesceQueue {
    /// Index of the virtqueue.
    pub vq_index: U16,
    reserved: U16,
    /// How.
    pub coal: Coalesce,
}

impl CoalesceQueue {
    /// Parameters for a queue.
    pub const fn new(vq_index: u16, coal: Coalesce) -> Self {
        Self { vq_index: U16::new(vq_index), reserved: U16::new(0), coal }
    }
}

const _: () = {
    assert!(size_of::<Config>() == 28);
    assert!(size_of::<Header>() == 12 && size_of::<HashHeader>() == 20);
    assert!(size_of::<RssConfig>() == 8 && size_of::<HashConfig>() == 13);
    assert!(size_of::<Coalesce>() == 8 && size_of::<CoalesceQueue>() == 12);
};
