//! Descriptors and completions, 16 bytes each, as words whose bits modules name.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian};

use super::DESC_LEN;
use super::shared::layout;

/// Offset in bytes of the word with the generation bit, in any completion; it is written last.
pub const COMP_GEN_OFFSET: u64 = 12;
/// Generation bit of that word, in any completion.
pub const COMP_GEN: u32 = 1 << 31;

/// Types of completions, bits 30:24 of their last word.
pub mod completion {
    /// Shift of the type.
    pub const TYPE_SHIFT: u32 = 24;
    /// The type's bits, once shifted.
    pub const TYPE: u32 = 0x7f;
    /// A transmit completion.
    pub const TXCOMP: u32 = 0;
    /// A receive completion.
    pub const RXCOMP: u32 = 3;
    /// A receive completion with more about LRO. Revision 2.
    pub const RXCOMP_LRO: u32 = 4;
}

layout! {
    /// A transmit descriptor.
    TxDesc, 16, {
        /// Address of the buffer.
        pub addr: little_endian::U64,
        /// Length, generation, and MSS or the checksum's offset: [`txd`]. The driver writes the
        /// generation of a packet's first descriptor last of all.
        pub len: little_endian::U32,
        /// Header length, offload mode, end of packet, completion request and tag: [`txd`].
        pub flags: little_endian::U32,
    }
}

/// Fields of [`TxDesc`].
pub mod txd {
    /// In `len`: bytes of the buffer, bits 13:0; 0 is 16384.
    pub const LEN: u32 = 0x3fff;
    /// In `len`: the generation.
    pub const GEN: u32 = 1 << 14;
    /// In `len`: the checksum of the outer header is to be inserted. Revision 4.
    pub const OCO: u32 = 1 << 15;
    /// In `len`: the descriptor's type, 0.
    pub const DTYPE: u32 = 1 << 16;
    /// In `len`: shift of MSS or of the checksum's offset, bits 31:18.
    pub const MSSCOF_SHIFT: u32 = 18;

    /// In `flags`: header length, bits 9:0. TSO: bytes of all headers. CSUM: offset of the first
    /// byte that the checksum covers. Of a packet's first descriptor.
    pub const HLEN: u32 = 0x3ff;
    /// In `flags`: the offload mode. Of a packet's first descriptor.
    pub const OM: u32 = 0b11 << 10;
    /// Offload mode: none.
    pub const OM_NONE: u32 = 0b00 << 10;
    /// Offload mode: of an encapsulated packet. Revision 4.
    pub const OM_ENCAP: u32 = 0b01 << 10;
    /// Offload mode: insert the checksum at MSSCOF bytes from the packet's start.
    pub const OM_CSUM: u32 = 0b10 << 10;
    /// Offload mode: segment, MSSCOF bytes of payload in each.
    pub const OM_TSO: u32 = 0b11 << 10;
    /// In `flags`: EOP, the packet ends here.
    pub const EOP: u32 = 1 << 12;
    /// In `flags`: CQ, write a completion. Of a packet's last descriptor.
    pub const CQ: u32 = 1 << 13;
    /// In `flags`: TI, insert a tag. Of a packet's first descriptor.
    pub const TI: u32 = 1 << 15;
    /// In `flags`: shift of the tag, bits 31:16.
    pub const TCI_SHIFT: u32 = 16;
}

layout! {
    /// A transmit completion.
    TxCompDesc, 16, {
        /// Index of the packet's last descriptor, bits 11:0.
        pub txd_idx: little_endian::U32,
        _ext2: little_endian::U32,
        _ext3: little_endian::U32,
        /// Type [`completion::TXCOMP`] and generation [`COMP_GEN`].
        pub gen_type: little_endian::U32,
    }
}

/// [`TxCompDesc::txd_idx`] and the first word of a receive completion: bits of the index.
pub const COMP_IDX: u32 = 0xfff;

impl TxCompDesc {
    /// The completion of the packet whose last descriptor is at `index`, of generation `lap`.
    pub const fn new(index: u16, lap: bool) -> Self {
        let zero = little_endian::U32::ZERO;
        let lap = if lap { COMP_GEN } else { 0 };
        Self {
            txd_idx: little_endian::U32::new(index as u32 & COMP_IDX),
            _ext2: zero,
            _ext3: zero,
            gen_type: little_endian::U32::new(lap | completion::TXCOMP << completion::TYPE_SHIFT),
        }
    }
}

layout! {
    /// A receive descriptor.
    RxDesc, 16, {
        /// Address of the buffer.
        pub addr: little_endian::U64,
        /// Length, buffer type and generation: [`rxd`].
        pub len: little_endian::U32,
        _ext1: little_endian::U32,
    }
}

/// Fields of [`RxDesc::len`].
pub mod rxd {
    /// Bytes of the buffer, bits 13:0.
    pub const LEN: u32 = 0x3fff;
    /// BTYPE: a body buffer, rather than a head buffer: a packet does not start here.
    pub const BTYPE_BODY: u32 = 1 << 14;
    /// The descriptor's type, 0.
    pub const DTYPE: u32 = 1 << 15;
    /// The generation.
    pub const GEN: u32 = 1 << 31;
}

impl RxDesc {
    /// A buffer of `flags`, the length included.
    pub const fn new(addr: u64, flags: u32) -> Self {
        Self {
            addr: little_endian::U64::new(addr),
            len: little_endian::U32::new(flags),
            _ext1: little_endian::U32::ZERO,
        }
    }
}

layout! {
    /// A receive completion: of one buffer.
    RxCompDesc, 16, {
        /// Index, end and start of packet, queue and ring, RSS type and CNC: [`rcd`].
        pub index: little_endian::U32,
        /// The RSS hash. [`completion::RXCOMP_LRO`]: segments put together in bits 7:0, duplicate
        /// acknowledgements in bits 15:8, difference of TCP time stamps in bits 31:16.
        pub rss_hash: little_endian::U32,
        /// Length, error and tag: [`rcd`].
        pub len: little_endian::U32,
        /// Checksum, what the packet is, type and generation: [`rcd`].
        pub flags: little_endian::U32,
    }
}

/// Fields of [`RxCompDesc`].
pub mod rcd {
    /// In `index`: EOP, the packet ends here.
    pub const EOP: u32 = 1 << 14;
    /// In `index`: SOP, the packet starts here.
    pub const SOP: u32 = 1 << 15;
    /// In `index`: shift of RQID, bits 25:16: of `n` receive queues, the queue's number for a buffer
    /// of its first ring, that plus `n` for its second ring, that plus `2 n` for its data ring (the
    /// entry of the same index as the descriptor of the first ring, which is used up as well).
    pub const RQID_SHIFT: u32 = 16;
    /// RQID's bits, once shifted.
    pub const RQID: u32 = 0x3ff;
    /// In `index`: shift of RSSTYPE, bits 29:26.
    pub const RSS_TYPE_SHIFT: u32 = 26;
    /// RSSTYPE's bits, once shifted.
    pub const RSS_TYPE: u32 = 0xf;
    /// RSSTYPE: no hash.
    pub const RSS_TYPE_NONE: u32 = 0;
    /// RSSTYPE: of addresses of IPv4.
    pub const RSS_TYPE_IPV4: u32 = 1;
    /// RSSTYPE: of addresses and ports of TCP over IPv4.
    pub const RSS_TYPE_TCPIPV4: u32 = 2;
    /// RSSTYPE: of addresses of IPv6.
    pub const RSS_TYPE_IPV6: u32 = 3;
    /// RSSTYPE: of addresses and ports of TCP over IPv6.
    pub const RSS_TYPE_TCPIPV6: u32 = 4;
    /// In `index`: CNC, checksum not calculated. Of a packet's last completion.
    pub const CNC: u32 = 1 << 30;

    /// In `len`: bytes in the buffer, bits 13:0.
    pub const LEN: u32 = 0x3fff;
    /// In `len`: ERR, the packet has an error.
    pub const ERR: u32 = 1 << 14;
    /// In `len`: TS, a tag has been stripped. Of a packet's last completion.
    pub const TS: u32 = 1 << 15;
    /// In `len`: shift of the tag, bits 31:16.
    pub const TCI_SHIFT: u32 = 16;

    /// In `flags`: the checksum of the packet after its Ethernet header, not folded into a verdict:
    /// bits 15:0. [`completion::RXCOMP_LRO`](super::completion::RXCOMP_LRO): MSS.
    pub const CSUM: u32 = 0xffff;
    /// In `flags`: TUC, the TCP or UDP checksum is correct.
    pub const TUC: u32 = 1 << 16;
    /// In `flags`: UDP, the packet is UDP.
    pub const UDP: u32 = 1 << 17;
    /// In `flags`: TCP, the packet is TCP.
    pub const TCP: u32 = 1 << 18;
    /// In `flags`: IPC, the IP checksum is correct.
    pub const IPC: u32 = 1 << 19;
    /// In `flags`: V6, the packet is IPv6.
    pub const V6: u32 = 1 << 20;
    /// In `flags`: V4, the packet is IPv4.
    pub const V4: u32 = 1 << 21;
    /// In `flags`: FRG, the packet is a fragment.
    pub const FRG: u32 = 1 << 22;
    /// In `flags`: FCS, the frame's check sequence is correct.
    pub const FCS: u32 = 1 << 23;
}

const _: () = assert!(size_of::<TxDesc>() == DESC_LEN && size_of::<RxCompDesc>() == DESC_LEN);
