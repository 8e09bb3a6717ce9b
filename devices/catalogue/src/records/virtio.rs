//! What the three virtio devices have in common.

use super::attack;
use super::register;
use crate::entry::{Access, Attack, Block, Evidence, Feature, State};

/// A feature by its bit.
pub(super) const fn feature(
    bit: u8,
    name: &'static str,
    state: State,
    note: &'static str,
) -> Feature {
    Feature { name, state, note, evidence: Evidence::VirtioBit(bit) }
}

pub(super) const SPECIFICATION: &str = "Virtual I/O Device (VIRTIO) 1.4, OASIS; over PCI by 4.1, without the \
     legacy interface (modern only)";

use State::{Implemented, Refused};

pub(super) const INDIRECT_DESC: Feature = feature(
    28,
    "VIRTIO_F_INDIRECT_DESC",
    Implemented,
    "A request's buffers are listed in a table of their own, so that it takes one entry of the ring.",
);
pub(super) const EVENT_IDX: Feature = feature(
    29,
    "VIRTIO_F_EVENT_IDX",
    Implemented,
    "Either side says from which request on it wants to be told: what makes batches cheap.",
);
pub(super) const VERSION_1: Feature = feature(
    32,
    "VIRTIO_F_VERSION_1",
    Implemented,
    "The interface of version 1.0 and later. Without it nothing is offered.",
);
pub(super) const ACCESS_PLATFORM: Feature = feature(
    33,
    "VIRTIO_F_ACCESS_PLATFORM",
    Refused,
    "Memory is addressed as the host presents it; an address space that translates can be given by the host.",
);
pub(super) const RING_PACKED: Feature = feature(
    34,
    "VIRTIO_F_RING_PACKED",
    Refused,
    "Queues are split; packed ones are not there yet.",
);
pub(super) const IN_ORDER: Feature =
    feature(35, "VIRTIO_F_IN_ORDER", Refused, "Requests are used in the order in which they end.");
pub(super) const ORDER_PLATFORM: Feature = feature(
    36,
    "VIRTIO_F_ORDER_PLATFORM",
    Refused,
    "The device is software: a processor's own ordering is enough.",
);
pub(super) const SR_IOV: Feature =
    feature(37, "VIRTIO_F_SR_IOV", Refused, "There are no virtual functions.");
pub(super) const NOTIFICATION_DATA: Feature = feature(
    38,
    "VIRTIO_F_NOTIFICATION_DATA",
    Refused,
    "A doorbell says no more than its queue, so that KVM can turn it into an eventfd.",
);
pub(super) const NOTIF_CONFIG_DATA: Feature =
    feature(39, "VIRTIO_F_NOTIF_CONFIG_DATA", Refused, "As above.");
pub(super) const RING_RESET: Feature =
    feature(40, "VIRTIO_F_RING_RESET", Implemented, "One queue is reset while the others go on.");
pub(super) const ADMIN_VQ: Feature =
    feature(41, "VIRTIO_F_ADMIN_VQ", Refused, "There is nothing to administer.");
pub(super) const SUSPEND: Feature =
    feature(43, "VIRTIO_F_SUSPEND", Refused, "The host pauses a device without its driver.");

/// A device's own features, and behind them those of every virtio device (6).
macro_rules! features {
    ($($own:expr),+ $(,)?) => {
        &[
            $($own,)+
            $crate::records::virtio::INDIRECT_DESC,
            $crate::records::virtio::EVENT_IDX,
            $crate::records::virtio::VERSION_1,
            $crate::records::virtio::ACCESS_PLATFORM,
            $crate::records::virtio::RING_PACKED,
            $crate::records::virtio::IN_ORDER,
            $crate::records::virtio::ORDER_PLATFORM,
            $crate::records::virtio::SR_IOV,
            $crate::records::virtio::NOTIFICATION_DATA,
            $crate::records::virtio::NOTIF_CONFIG_DATA,
            $crate::records::virtio::RING_RESET,
            $crate::records::virtio::ADMIN_VQ,
            $crate::records::virtio::SUSPEND,
        ]
    };
}
pub(super) use features;

use Access::{Read, ReadToClear, ReadWrite, Write};

/// Common configuration (4.1.4.3).
pub(super) const COMMON: Block = Block {
    name: "Common configuration (4.1.4.3)",
    bar: 0,
    base: 0,
    repeated: None,
    negotiated: false,
    registers: &[
        register(
            "device_feature_select",
            0x00,
            4,
            ReadWrite,
            "Which 32 features device_feature shows.",
        ),
        register("device_feature", 0x04, 4, Read, "What the device offers."),
        register(
            "driver_feature_select",
            0x08,
            4,
            ReadWrite,
            "Which 32 features driver_feature sets.",
        ),
        register(
            "driver_feature",
            0x0c,
            4,
            ReadWrite,
            "What the driver accepts, until FEATURES_OK.",
        ),
        register(
            "config_msix_vector",
            0x10,
            2,
            ReadWrite,
            "The vector for configuration changes; 0xffff for none, and for one that there is not.",
        ),
        register("num_queues", 0x12, 2, Read, "Queues that there are."),
        register(
            "device_status",
            0x14,
            1,
            ReadWrite,
            "The driver's progress; 0 resets, and reads 0 when nothing is in flight any more.",
        ),
        register(
            "config_generation",
            0x15,
            1,
            Read,
            "Another after each change of the device's configuration.",
        ),
        register("queue_select", 0x16, 2, ReadWrite, "Which queue the registers below are of."),
        register(
            "queue_size",
            0x18,
            2,
            ReadWrite,
            "Entries, a power of two; at first the most there may be. 0 for a queue that there is not.",
        ),
        register("queue_msix_vector", 0x1a, 2, ReadWrite, "The queue's vector."),
        register("queue_enable", 0x1c, 2, ReadWrite, "1 starts the queue; a reset stops it."),
        register(
            "queue_notify_off",
            0x1e,
            2,
            Read,
            "Where the queue's doorbell is, in units of notify_off_multiplier (4 bytes).",
        ),
        register(
            "queue_desc",
            0x20,
            8,
            ReadWrite,
            "Address of the descriptor table, until the queue is enabled.",
        ),
        register("queue_driver", 0x28, 8, ReadWrite, "Address of the available ring."),
        register("queue_device", 0x30, 8, ReadWrite, "Address of the used ring."),
        register(
            "queue_notif_config_data",
            0x38,
            2,
            Read,
            "Not there without VIRTIO_F_NOTIF_CONFIG_DATA: 0.",
        ),
        register(
            "queue_reset",
            0x3a,
            2,
            Write,
            "1 resets the queue, with VIRTIO_F_RING_RESET; reads 0 when that is done.",
        ),
    ],
};

/// ISR status (4.1.4.5).
pub(super) const ISR: Block = Block {
    name: "ISR status (4.1.4.5)",
    bar: 0,
    base: 0x1000,
    repeated: None,
    negotiated: false,
    registers: &[register(
        "ISR",
        0,
        1,
        ReadToClear,
        "Bit 0: a queue's interrupt; bit 1: a configuration change. For INTx alone: reading lowers the pin.",
    )],
};

/// Doorbells (4.1.4.4).
pub(super) const NOTIFY: Block = Block {
    name: "Doorbells, one for each queue (4.1.4.4)",
    bar: 0,
    base: 0x3000,
    repeated: None,
    negotiated: false,
    registers: &[register(
        "queue 0",
        0,
        4,
        Write,
        "Tells that the queue has something; any value, 2 or 4 bytes. An eventfd of KVM's where the host lets it. Queue n is 4·n further.",
    )],
};

/// What limits a request.
pub(super) const CHAIN: &str = "A chain has at most as many descriptors as its queue has entries, those of an indirect table included.";

/// What Linux distributions have.
pub(super) const LINUX: &str = "The legacy interface since 2.6.25. Older kernels drive this device only where their \
     distributor has brought it to them; that of RHEL 6 does not.";

/// What went wrong in others' queues and transport.
pub(super) const OTHERS: &[Attack] = &[
    attack(
        "CVE-2026-45782",
        "Cloud Hypervisor: the same head twice in flight, a bounce buffer used after it was freed.",
    ),
    attack(
        "CVE-2026-5747",
        "Firecracker: a queue's size could be written after DRIVER_OK, out-of-bounds access.",
    ),
    attack(
        "CVE-2019-18960",
        "Firecracker: a buffer that spans memory regions taken for one host pointer.",
    ),
    attack(
        "CVE-2016-5403",
        "QEMU: more requests in flight than the queue holds, memory without bound.",
    ),
    attack("CVE-2016-7422", "QEMU: a huge descriptor length led to a null mapping."),
];
