//! Values of the fields in [`DriverShared`](super::DriverShared), and what it points to.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian};

use super::shared::layout;

bitflags! {
    /// [`MiscConf::upt_features`](super::MiscConf::upt_features).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u64 {
        /// RXCSUM: checksums of received packets are verified.
        const RXCSUM = 1 << 0;
        /// RSS: packets are spread over the receive queues.
        const RSS = 1 << 1;
        /// RXVLAN: tags of received packets are stripped.
        const RXVLAN = 1 << 2;
        /// LRO: received packets of a TCP stream may be put together.
        const LRO = 1 << 3;
    }
}

bitflags! {
    /// [`RxFilterConf::rx_mode`](super::RxFilterConf::rx_mode): what is let in.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RxMode: u32 {
        /// UCAST: what is sent to the station address.
        const UCAST = 1 << 0;
        /// MCAST: what is sent to an address of the multicast table.
        const MCAST = 1 << 1;
        /// BCAST: broadcasts.
        const BCAST = 1 << 2;
        /// ALL_MULTI: all multicasts.
        const ALL_MULTI = 1 << 3;
        /// PROMISC: everything.
        const PROMISC = 1 << 4;
    }
}

bitflags! {
    /// ECR, the register and [`DriverShared::ecr`](super::DriverShared::ecr): what has happened.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Events: u32 {
        /// RQERR: a receive queue has stopped.
        const RQERR = 1 << 0;
        /// TQERR: a transmit queue has stopped.
        const TQERR = 1 << 1;
        /// LINK: the link has changed.
        const LINK = 1 << 2;
        /// DIC: the device's implementation has changed.
        const DIC = 1 << 3;
        /// DEBUG.
        const DEBUG = 1 << 4;
    }
}

/// [`IntrConf::intr_ctrl`](super::IntrConf::intr_ctrl): all interrupts are off.
pub const IC_DISABLE_ALL: u32 = 1 << 0;
/// [`IntrConf::mod_levels`](super::IntrConf::mod_levels): no moderation.
pub const IML_NONE: u8 = 0;
/// The most moderation.
pub const IML_HIGHEST: u8 = 7;
/// Moderation as the device sees fit.
pub const IML_ADAPTIVE: u8 = 8;

/// What [`command::GET_ADAPTIVE_RING_INFO`](super::command::GET_ADAPTIVE_RING_INFO) answers if rings
/// stay as the driver made them.
pub const DISABLE_ADAPTIVE_RING: u32 = 1;

/// What [`command::GET_CONF_INTR`](super::command::GET_CONF_INTR) answers: the kind in bits 1:0, the
/// mask mode in bits 3:2.
pub mod interrupt {
    /// Kind: as the driver likes.
    pub const IT_AUTO: u32 = 0;
    /// Kind: INTx.
    pub const IT_INTX: u32 = 1;
    /// Kind: MSI.
    pub const IT_MSI: u32 = 2;
    /// Kind: MSI-X.
    pub const IT_MSIX: u32 = 3;
    /// Bits of the kind.
    pub const IT: u32 = 0x3;
    /// Shift of the mask mode.
    pub const IMM_SHIFT: u32 = 2;
    /// Mask mode: the device masks an interrupt when it raises it.
    pub const IMM_AUTO: u32 = 0;
    /// Mask mode: the driver masks it in its handler.
    pub const IMM_ACTIVE: u32 = 1;
    /// Mask mode: the driver masks it when it comes while it polls.
    pub const IMM_LAZY: u32 = 2;
}

/// Fields of [`DriverInfo::gos`](super::DriverInfo::gos), the guest operating system.
pub mod gos {
    /// The guest has 32 bits.
    pub const BITS_32: u32 = 1;
    /// The guest has 64 bits.
    pub const BITS_64: u32 = 2;
    /// Shift of the system, bits 5:2.
    pub const TYPE_SHIFT: u32 = 2;
    /// The system's bits, once shifted.
    pub const TYPE: u32 = 0xf;
    /// System: Linux.
    pub const LINUX: u32 = 1;
    /// System: Windows.
    pub const WINDOWS: u32 = 2;
    /// Shift of the system's version, bits 21:6.
    pub const VERSION_SHIFT: u32 = 6;
}

/// Most bytes of RSS's key.
pub const RSS_MAX_KEY_SIZE: usize = 40;
/// Most entries of RSS's indirection table.
pub const RSS_MAX_IND_TABLE_SIZE: usize = 128;
/// [`RSSConf::hash_func`]: Toeplitz.
pub const RSS_HASH_FUNC_TOEPLITZ: u16 = 1;

bitflags! {
    /// [`RSSConf::hash_type`]: what is hashed.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RssHashType: u16 {
        /// IPV4: addresses of IPv4.
        const IPV4 = 1 << 0;
        /// TCP_IPV4: addresses and ports of TCP over IPv4.
        const TCP_IPV4 = 1 << 1;
        /// IPV6: addresses of IPv6.
        const IPV6 = 1 << 2;
        /// TCP_IPV6: addresses and ports of TCP over IPv6.
        const TCP_IPV6 = 1 << 3;
    }
}

layout! {
    /// RSS's configuration, `UPT1_RSSConf`.
    RSSConf, 176, {
        /// [`RssHashType`].
        pub hash_type: little_endian::U16,
        /// 0 for none, or [`RSS_HASH_FUNC_TOEPLITZ`].
        pub hash_func: little_endian::U16,
        /// Bytes of the key.
        pub hash_key_size: little_endian::U16,
        /// Entries of the table.
        pub ind_table_size: little_endian::U16,
        /// The key.
        pub hash_key: [u8; RSS_MAX_KEY_SIZE],
        /// The receive queue of each value that the hash's low bits can have.
        pub ind_table: [u8; RSS_MAX_IND_TABLE_SIZE],
    }
}

/// [`CoalesceScheme::mode`]: none.
pub const COALESCE_DISABLED: u32 = 0;
/// [`CoalesceScheme::mode`]: as the device sees fit.
pub const COALESCE_ADAPT: u32 = 1;
/// [`CoalesceScheme::mode`]: by a number of packets.
pub const COALESCE_STATIC: u32 = 2;
/// [`CoalesceScheme::mode`]: by a rate.
pub const COALESCE_RBC: u32 = 3;
/// Greatest depth of [`COALESCE_STATIC`], in packets.
pub const COAL_STATIC_MAX_DEPTH: u32 = 128;
/// Least rate of [`COALESCE_RBC`], in interrupts a second.
pub const COAL_RBC_MIN_RATE: u32 = 100;
/// Greatest rate of [`COALESCE_RBC`], in interrupts a second.
pub const COAL_RBC_MAX_RATE: u32 = 100_000;

layout! {
    /// Interrupt coalescing: data of
    /// [`command::SET_COALESCE`](super::command::SET_COALESCE) and
    /// [`command::GET_COALESCE`](super::command::GET_COALESCE).
    CoalesceScheme, 16, {
        /// [`COALESCE_DISABLED`] to [`COALESCE_RBC`].
        pub mode: little_endian::U32,
        /// Static: packets that are sent at a time. RBC: interrupts a second.
        pub tx_depth_or_rate: little_endian::U32,
        /// Static: packets of a transmit queue completed for an interrupt.
        pub tx_comp_depth: little_endian::U32,
        /// Static: packets of a receive queue for an interrupt.
        pub rx_depth: little_endian::U32,
    }
}

/// Most patterns of [`PMConf`].
pub const PM_MAX_FILTERS: usize = 6;
/// Most bytes of a pattern.
pub const PM_MAX_PATTERN_SIZE: usize = 128;
/// Most bytes of a pattern's mask, a bit for each of the pattern's bytes.
pub const PM_MAX_MASK_SIZE: usize = PM_MAX_PATTERN_SIZE / 8;

layout! {
    /// A pattern that wakes the guest.
    PMPktFilter, 152, {
        /// Bytes of the mask.
        pub mask_size: u8,
        /// Bytes of the pattern.
        pub pattern_size: u8,
        /// Which of the pattern's bytes count.
        pub mask: [u8; PM_MAX_MASK_SIZE],
        /// The pattern, from the start of the packet.
        pub pattern: [u8; PM_MAX_PATTERN_SIZE],
        _pad: [u8; 6],
    }
}

layout! {
    /// What wakes the guest.
    PMConf, 920, {
        /// Bit 0: magic packets. Bit 1: packets that match a pattern.
        pub wake_up_events: little_endian::U16,
        /// Patterns.
        pub num_filters: u8,
        _pad: [u8; 5],
        /// The patterns.
        pub filters: [PMPktFilter; PM_MAX_FILTERS],
    }
}

layout! {
    /// A range of guest memory: data of
    /// [`command::REGISTER_MEMREGS`](super::command::REGISTER_MEMREGS), after eight bytes of which
    /// the first two are the number of ranges.
    MemoryRegion, 16, {
        /// Where it starts.
        pub start_pa: little_endian::U64,
        /// Its bytes.
        pub length: little_endian::U32,
        /// Transmit queues whose buffers it has, a bit each.
        pub tx_queue_bits: little_endian::U16,
        /// Receive queues whose buffers it has, a bit each.
        pub rx_queue_bits: little_endian::U16,
    }
}
