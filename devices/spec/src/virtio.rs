//! Virtio: the ring layouts, the status field, the reserved feature bits and the PCI transport.
//!
//! Sections are of Virtual I/O Device (VIRTIO) 1.4.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags! {
    /// Device status field (2.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Status: u8 {
        /// The driver has noticed the device.
        const ACKNOWLEDGE = 1;
        /// The driver knows how to drive it.
        const DRIVER = 2;
        /// The driver is set up.
        const DRIVER_OK = 4;
        /// Feature negotiation is complete.
        const FEATURES_OK = 8;
        /// The device has met an error that only a reset cures.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }
}

/// Reserved feature bits (6), as masks.
pub mod feature {
    /// VIRTIO_F_INDIRECT_DESC.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// VIRTIO_F_EVENT_IDX.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// VIRTIO_F_VERSION_1.
    pub const VERSION_1: u64 = 1 << 32;
    /// VIRTIO_F_ACCESS_PLATFORM.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// VIRTIO_F_RING_PACKED.
    pub const RING_PACKED: u64 = 1 << 34;
    /// VIRTIO_F_IN_ORDER.
    pub const IN_ORDER: u64 = 1 << 35;
    /// VIRTIO_F_ORDER_PLATFORM.
    pub const ORDER_PLATFORM: u64 = 1 << 36;
    /// VIRTIO_F_SR_IOV.
    pub const SR_IOV: u64 = 1 << 37;
    /// VIRTIO_F_NOTIFICATION_DATA.
    pub const NOTIFICATION_DATA: u64 = 1 << 38;
    /// VIRTIO_F_RING_RESET.
    pub const RING_RESET: u64 = 1 << 40;
}

/// Device type numbers (5).
pub mod device_type {
    /// Network device.
    pub const NET: u16 = 1;
    /// Block device.
    pub const BLOCK: u16 = 2;
    /// SCSI host device.
    pub const SCSI: u16 = 8;
}

/// The split virtqueue (2.7).
pub mod split {
    use super::{FromBytes, Immutable, IntoBytes, KnownLayout, U16, U32, U64, Unaligned};

    /// Descriptor table entry (2.7.5).
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
    pub struct Descriptor {
        /// Guest physical address of the buffer.
        pub addr: U64,
        /// Its length in bytes.
        pub len: U32,
        /// `DESC_F_*`.
        pub flags: U16,
        /// Index of the next descriptor, with [`DESC_F_NEXT`].
        pub next: U16,
    }

    /// Used ring element (2.7.8).
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
    pub struct UsedElem {
        /// Head of the chain.
        pub id: U32,
        /// Bytes written to the chain.
        pub len: U32,
    }

    /// The chain goes on at `next`.
    pub const DESC_F_NEXT: u16 = 1;
    /// The device writes the buffer; else it reads it.
    pub const DESC_F_WRITE: u16 = 2;
    /// The buffer holds a table of descriptors.
    pub const DESC_F_INDIRECT: u16 = 4;
    /// Available ring flags: do not interrupt.
    pub const AVAIL_F_NO_INTERRUPT: u16 = 1;
    /// Used ring flags: do not notify.
    pub const USED_F_NO_NOTIFY: u16 = 1;
    /// Largest queue.
    pub const MAX_QUEUE_SIZE: u16 = 32768;
    /// Alignment of the descriptor table.
    pub const DESCRIPTOR_ALIGN: u64 = 16;
    /// Alignment of the available ring.
    pub const AVAIL_ALIGN: u64 = 2;
    /// Alignment of the used ring.
    pub const USED_ALIGN: u64 = 4;

    /// Bytes of the descriptor table for `size` entries.
    pub const fn descriptor_table_len(size: u16) -> usize {
        16 * size as usize
    }
    /// Bytes of the available ring: flags, idx, ring, used_event.
    pub const fn avail_ring_len(size: u16) -> usize {
        6 + 2 * size as usize
    }
    /// Bytes of the used ring: flags, idx, ring, avail_event.
    pub const fn used_ring_len(size: u16) -> usize {
        6 + 8 * size as usize
    }
}

/// The PCI transport (4.1).
pub mod pci {
    use super::{FromBytes, Immutable, IntoBytes, KnownLayout, U16, U32, U64, Unaligned};

    /// Device ID of a modern device is this plus its type (4.1.2).
    pub const MODERN_DEVICE_ID_BASE: u16 = 0x1040;
    /// "No vector" in a vector register (4.1.5.1.2).
    pub const NO_VECTOR: u16 = 0xffff;
    /// ISR status: a queue has used buffers (4.1.4.5).
    pub const ISR_QUEUE: u8 = 1;
    /// ISR status: the configuration has changed.
    pub const ISR_CONFIG: u8 = 2;

    /// cfg_type values of [`Capability`] (4.1.4).
    pub mod cfg_type {
        /// Common configuration.
        pub const COMMON: u8 = 1;
        /// Notifications.
        pub const NOTIFY: u8 = 2;
        /// ISR status.
        pub const ISR: u8 = 3;
        /// Device-specific configuration.
        pub const DEVICE: u8 = 4;
        /// PCI configuration access.
        pub const PCI: u8 = 5;
        /// Shared memory region.
        pub const SHARED_MEMORY: u8 = 8;
        /// Vendor-specific data.
        pub const VENDOR: u8 = 9;
    }

    /// Virtio structure capability (4.1.4): a vendor-specific PCI capability.
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
    pub struct Capability {
        /// [`crate::pci::capability::VENDOR`].
        pub cap_vndr: u8,
        /// Offset of the next capability.
        pub cap_next: u8,
        /// Length of this one, with what follows it.
        pub cap_len: u8,
        /// [`cfg_type`].
        pub cfg_type: u8,
        /// BAR, 0 to 5.
        pub bar: u8,
        /// Tells several capabilities of one type apart.
        pub id: u8,
        padding: [u8; 2],
        /// Offset in the BAR.
        pub offset: U32,
        /// Length in the BAR.
        pub length: U32,
    }

    /// Offset in a notification capability of notify_off_multiplier, 32 bits (4.1.4.4).
    pub const NOTIFY_OFF_MULTIPLIER: u16 = 16;
    /// Offset in a PCI configuration access capability of pci_cfg_data, 4 bytes (4.1.4.9).
    pub const PCI_CFG_DATA: u16 = 16;

    /// Common configuration structure (4.1.4.3).
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
    pub struct CommonCfg {
        pub device_feature_select: U32,
        pub device_feature: U32,
        pub driver_feature_select: U32,
        pub driver_feature: U32,
        pub config_msix_vector: U16,
        pub num_queues: U16,
        pub device_status: u8,
        pub config_generation: u8,
        pub queue_select: U16,
        pub queue_size: U16,
        pub queue_msix_vector: U16,
        pub queue_enable: U16,
        pub queue_notify_off: U16,
        pub queue_desc: U64,
        pub queue_driver: U64,
        pub queue_device: U64,
        pub queue_notif_config_data: U16,
        pub queue_reset: U16,
        pub admin_queue_index: U16,
        pub admin_queue_num: U16,
    }

    const _: () = assert!(size_of::<CommonCfg>() == 64 && size_of::<Capability>() == 16);
}

const _: () = assert!(size_of::<split::Descriptor>() == 16 && size_of::<split::UsedElem>() == 8);
