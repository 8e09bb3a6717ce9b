//! The fuzzed devices, each with its [`Script`](crate::fuzz::Script).

mod ahci;
mod e1000;
mod virtio;
mod virtio_blk;
mod virtio_net;

pub use ahci::AhciScript;
pub use e1000::E1000Script;
pub use virtio_blk::VirtioBlkScript;
pub use virtio_net::{PAIRS, VirtioNetScript, header_of};
