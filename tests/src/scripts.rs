//! The fuzzed devices, each with its [`Script`](crate::fuzz::Script).

mod ahci;
mod virtio_blk;

pub use ahci::AhciScript;
pub use virtio_blk::VirtioBlkScript;
