//! Front-end drivers: the guest's half.
//!
//! `no_std`, over a [`Platform`], so that one source runs in the freestanding guest under KVM and in
//! process against the device models. They know the devices' interfaces (`paraslot-spec`) and never
//! the models.
//!
//! A driver believes nothing that a device says without a check: a device that misbehaves costs an
//! [`Error`], not a crash. It allocates nothing but [`DmaRegion`]s.
#![no_std]

pub mod ahci;
mod disk;
mod dma;
pub mod e1000;
mod error;
mod nic;
pub mod nvme;
pub mod pci;
mod platform;
pub mod pvscsi;
pub mod scsi;
#[cfg(test)]
mod testing;
pub mod virtio;
pub mod virtio_blk;
pub mod virtio_net;
pub mod virtio_scsi;
pub mod vmxnet3;
mod window;
pub mod workload;

pub use disk::{Completion, Completions, Disk, Failed, MAX_DEPTH, Op};
pub use dma::DmaRegion;
pub use error::Error;
pub use nic::{Arrival, Known, Nic, Offers, Task};
pub use platform::{Bdf, MsiMessage, Platform};
pub use window::{Accesses, Window};
