//! The virtio device interface and its queues, without a transport.
//!
//! A device implements [`VirtioDevice`] and knows nothing of PCI. Its transport negotiates features,
//! keeps the queues' registers, hands each enabled queue to the device as a [`Queue`], and has what
//! the device makes of it (a worker) run by the host's executor.
//!
//! Queues are split (2.7), with direct and indirect descriptors and with or without EVENT_IDX.
//! Packed queues (2.8), IN_ORDER, NOTIFICATION_DATA, the administration queue and device suspension
//! are not implemented, and the features for them are never offered.

mod config;
mod device;
mod queue;
pub mod segments;
#[cfg(any(test, feature = "test-utils"))]
pub mod testing;

pub use config::{DeviceConfig, DeviceConfigState};
pub use device::{TransportSignals, VirtioDevice, worker_of};
pub use queue::{Chain, MAX_CHAIN, Queue, QueueConfig, QueueError, QueueState, Segment};
