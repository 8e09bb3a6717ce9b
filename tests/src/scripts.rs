//! The fuzzed devices, each with its [`Script`](crate::fuzz::Script).

mod ahci;
mod e1000;
mod pvscsi;
mod virtio;
mod virtio_blk;
mod virtio_net;
mod virtio_scsi;
mod vmxnet3;

pub use ahci::AhciScript;
pub use e1000::E1000Script;
pub use pvscsi::PvscsiScript;
pub use virtio_blk::VirtioBlkScript;
pub use virtio_net::{PAIRS, VirtioNetScript, header_of};
pub use virtio_scsi::{REQUEST_QUEUES, Units, VirtioScsiScript};
pub use vmxnet3::{QUEUES, Vmxnet3Script};
