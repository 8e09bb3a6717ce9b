//! What driver and device share besides rings: [`DriverShared`] and the queue descriptors.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian};

use super::{MAX_INTRS, RX_RINGS};

/// Declares a structure in memory and checks its length in bytes.
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $len:literal, {
        $($(#[$field_doc:meta])* $visible:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* $visible $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == $len && align_of::<$name>() == 1);

        impl Default for $name {
            /// All zeroes.
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }
    };
}
pub(super) use layout;

/// [`DriverShared::magic`].
pub const REV1_MAGIC: u32 = 0xbabe_fee1;

layout! {
    /// Everything that the driver says about itself and its queues.
    DriverShared, 720, {
        /// [`REV1_MAGIC`], whatever the revision.
        pub magic: little_endian::U32,
        _pad: little_endian::U32,
        /// What the device reads after a command.
        pub dev_read: DSDevRead,
        /// ECR: [`Events`](super::Events) that the device has set and the driver has not yet
        /// cleared through the register.
        pub ecr: little_endian::U32,
        _reserved: little_endian::U32,
        /// Data of the command that is being given. Revision 3.
        pub cmd_info: CmdInfo,
    }
}

layout! {
    /// What the device reads after a command.
    DSDevRead, 688, {
        /// The driver, the features and where the queues are.
        pub misc: MiscConf,
        /// Interrupts.
        pub intr_conf: IntrConf,
        /// Receive filters.
        pub rx_filter_conf: RxFilterConf,
        /// Where [`RSSConf`](super::RSSConf) is.
        pub rss_conf_desc: VariableLenConfDesc,
        /// Where [`PMConf`](super::PMConf) is.
        pub pm_conf_desc: VariableLenConfDesc,
        /// Where the plug-in is, of passthrough.
        pub plugin_conf_desc: VariableLenConfDesc,
    }
}

layout! {
    /// Who the driver is.
    DriverInfo, 16, {
        /// The driver's version.
        pub version: little_endian::U32,
        /// The guest: [`gos`](super::gos).
        pub gos: little_endian::U32,
        /// Revisions that it supports, a bit each, as in VRRS.
        pub vmxnet3_rev_spt: little_endian::U32,
        /// UPT's versions that it supports, a bit each, as in UVRS.
        pub upt_ver_spt: little_endian::U32,
    }
}

layout! {
    /// The driver, the features and where the queues are.
    MiscConf, 72, {
        /// The driver.
        pub driver_info: DriverInfo,
        /// [`Features`](super::Features) that it wants.
        pub upt_features: little_endian::U64,
        /// Driver's data: not the device's concern.
        pub dd_pa: little_endian::U64,
        /// Where the queue descriptors are: one [`TxQueueDesc`] a transmit queue, then one
        /// [`RxQueueDesc`] a receive queue. Aligned to 128 bytes.
        pub queue_desc_pa: little_endian::U64,
        /// Bytes of driver's data.
        pub dd_len: little_endian::U32,
        /// Bytes of queue descriptors.
        pub queue_desc_len: little_endian::U32,
        /// MTU in bytes, 60 to 9000.
        pub mtu: little_endian::U32,
        /// Most receive descriptors that a packet may take.
        pub max_num_rx_sg: little_endian::U16,
        /// Transmit queues, 1 to 8.
        pub num_tx_queues: u8,
        /// Receive queues, 1 to 16.
        pub num_rx_queues: u8,
        _reserved: [little_endian::U32; 4],
    }
}

layout! {
    /// Interrupts.
    IntrConf, 40, {
        /// Not 0: the device sets an interrupt's mask when it raises it.
        pub auto_mask: u8,
        /// Interrupts that the driver uses.
        pub num_intrs: u8,
        /// The interrupt of events.
        pub event_intr_idx: u8,
        /// How much each interrupt is moderated: [`IML_NONE`](super::IML_NONE) to
        /// [`IML_ADAPTIVE`](super::IML_ADAPTIVE).
        pub mod_levels: [u8; MAX_INTRS],
        /// [`IC_DISABLE_ALL`](super::IC_DISABLE_ALL).
        pub intr_ctrl: little_endian::U32,
        _reserved: [little_endian::U32; 2],
    }
}

/// Words of a VLAN table: a bit for each VLAN ID, ID 0 in bit 0 of word 0.
pub const VFT_SIZE: usize = 128;

layout! {
    /// Receive filters.
    RxFilterConf, 528, {
        /// [`RxMode`](super::RxMode).
        pub rx_mode: little_endian::U32,
        /// Bytes of the multicast table, six an address.
        pub mf_table_len: little_endian::U16,
        _pad: little_endian::U16,
        /// Where it is.
        pub mf_table_pa: little_endian::U64,
        /// VLAN IDs that are let in, a bit each, with bit 0 for untagged frames. All are let in if no
        /// bit is set.
        pub vf_table: [little_endian::U32; VFT_SIZE],
    }
}

layout! {
    /// Where a configuration of variable length is.
    VariableLenConfDesc, 16, {
        /// Its version, 1.
        pub conf_ver: little_endian::U32,
        /// Its bytes.
        pub conf_len: little_endian::U32,
        /// Where it is.
        pub conf_pa: little_endian::U64,
    }
}

layout! {
    /// Data of the command that is being given: 16 bytes, or where more of them are.
    CmdInfo, 16, {
        /// Version, bytes and place, if the command's data has more than 16 bytes.
        pub var_conf: VariableLenConfDesc,
    }
}

layout! {
    /// A transmit queue, aligned to 128 bytes.
    TxQueueDesc, 256, {
        /// Control, written by both sides.
        pub ctrl: TxQueueCtrl,
        /// Read by the device when it is activated.
        pub conf: TxQueueConf,
        /// Written by the device after [`command::GET_QUEUE_STATUS`](super::command).
        pub status: QueueStatus,
        /// Written by the device after [`command::GET_STATS`](super::command).
        pub stats: TxStats,
        _pad: [u8; 88],
    }
}

layout! {
    /// A transmit queue's control.
    TxQueueCtrl, 16, {
        /// Packets, counted as segments if they are to be segmented, that the driver has queued since it
        /// last wrote TXPROD.
        pub tx_num_deferred: little_endian::U32,
        /// How far `tx_num_deferred` may go before TXPROD is written; set by the device.
        pub tx_threshold: little_endian::U32,
        _reserved: little_endian::U64,
    }
}

layout! {
    /// A transmit queue's configuration.
    TxQueueConf, 64, {
        /// Where the ring of [`TxDesc`](super::TxDesc) is.
        pub tx_ring_base_pa: little_endian::U64,
        /// Where the data ring is, or 0: an entry for each descriptor, for a packet's headers.
        pub data_ring_base_pa: little_endian::U64,
        /// Where the ring of [`TxCompDesc`](super::TxCompDesc) is.
        pub comp_ring_base_pa: little_endian::U64,
        /// Driver's data: not the device's concern.
        pub dd_pa: little_endian::U64,
        _reserved: little_endian::U64,
        /// Descriptors in the ring.
        pub tx_ring_size: little_endian::U32,
        /// Entries in the data ring.
        pub data_ring_size: little_endian::U32,
        /// Completions in their ring.
        pub comp_ring_size: little_endian::U32,
        /// Bytes of driver's data.
        pub dd_len: little_endian::U32,
        /// The queue's interrupt.
        pub intr_idx: u8,
        _pad1: u8,
        /// Bytes of a data ring's entry. Revision 3; 128 before.
        pub tx_data_ring_desc_size: little_endian::U16,
        _pad2: [u8; 4],
    }
}

layout! {
    /// A receive queue, aligned to 128 bytes.
    RxQueueDesc, 256, {
        /// Control, written by the device.
        pub ctrl: RxQueueCtrl,
        /// Read by the device when it is activated.
        pub conf: RxQueueConf,
        /// Written by the device after [`command::GET_QUEUE_STATUS`](super::command).
        pub status: QueueStatus,
        /// Written by the device after [`command::GET_STATS`](super::command).
        pub stats: RxStats,
        _pad: [u8; 88],
    }
}

layout! {
    /// A receive queue's control.
    RxQueueCtrl, 16, {
        /// Not 0: the driver must write RXPROD and RXPROD2 when it has filled buffers; set by the
        /// device.
        pub update_rx_prod: u8,
        _pad: [u8; 7],
        _reserved: little_endian::U64,
    }
}

layout! {
    /// A receive queue's configuration.
    RxQueueConf, 64, {
        /// Where the two rings of [`RxDesc`](super::RxDesc) are.
        pub rx_ring_base_pa: [little_endian::U64; RX_RINGS],
        /// Where the ring of [`RxCompDesc`](super::RxCompDesc) is.
        pub comp_ring_base_pa: little_endian::U64,
        /// Driver's data: not the device's concern.
        pub dd_pa: little_endian::U64,
        /// Where the data ring is, or 0: an entry for each descriptor of the first ring, for packets
        /// that fit. Revision 3.
        pub rx_data_ring_base_pa: little_endian::U64,
        /// Descriptors in each ring.
        pub rx_ring_size: [little_endian::U32; RX_RINGS],
        /// Completions in their ring.
        pub comp_ring_size: little_endian::U32,
        /// Bytes of driver's data.
        pub dd_len: little_endian::U32,
        /// The queue's interrupt.
        pub intr_idx: u8,
        _pad1: u8,
        /// Bytes of a data ring's entry. Revision 3.
        pub rx_data_ring_desc_size: little_endian::U16,
        _pad2: [u8; 4],
    }
}

layout! {
    /// Whether a queue runs.
    QueueStatus, 8, {
        /// Not 0: it has stopped.
        pub stopped: u8,
        _pad: [u8; 3],
        /// Why: [`queue_error`](super::queue_error).
        pub error: little_endian::U32,
    }
}

layout! {
    /// A transmit queue's statistics, `UPT1_TxStats`.
    TxStats, 80, {
        /// Packets made of those that asked for segmentation.
        pub tso_pkts: little_endian::U64,
        /// Their bytes.
        pub tso_bytes: little_endian::U64,
        /// Unicast packets.
        pub ucast_pkts: little_endian::U64,
        /// Their bytes.
        pub ucast_bytes: little_endian::U64,
        /// Multicast packets.
        pub mcast_pkts: little_endian::U64,
        /// Their bytes.
        pub mcast_bytes: little_endian::U64,
        /// Broadcast packets.
        pub bcast_pkts: little_endian::U64,
        /// Their bytes.
        pub bcast_bytes: little_endian::U64,
        /// Packets with an error.
        pub pkts_error: little_endian::U64,
        /// Packets thrown away.
        pub pkts_discard: little_endian::U64,
    }
}

layout! {
    /// A receive queue's statistics, `UPT1_RxStats`.
    RxStats, 80, {
        /// Packets put together of several.
        pub lro_pkts: little_endian::U64,
        /// Their bytes.
        pub lro_bytes: little_endian::U64,
        /// Unicast packets.
        pub ucast_pkts: little_endian::U64,
        /// Their bytes.
        pub ucast_bytes: little_endian::U64,
        /// Multicast packets.
        pub mcast_pkts: little_endian::U64,
        /// Their bytes.
        pub mcast_bytes: little_endian::U64,
        /// Broadcast packets.
        pub bcast_pkts: little_endian::U64,
        /// Their bytes.
        pub bcast_bytes: little_endian::U64,
        /// Packets for which there was no buffer.
        pub pkts_out_of_buf: little_endian::U64,
        /// Packets with an error.
        pub pkts_error: little_endian::U64,
    }
}
