//! Bugs that other implementations of these devices have had, and what our models make of the same
//! guests. `docs/conformance/bug-classes.md` has the list, and the tests of the single crates in it.

mod ahci;
mod blk;
mod budget;
mod canaries;
mod containment;
mod double_fetch;
mod e1000;
mod failures;
mod net;
mod nic;
mod pvscsi;
mod quiet;
mod reentrancy;
mod scsi;
mod support;
mod virtio;
mod virtio_scsi;
mod vmxnet3;
