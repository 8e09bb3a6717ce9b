//! The devices on a TAP interface: another's stack (smoltcp) in the guest, on our drivers, talks to
//! ordinary sockets of the host's kernel, in a network namespace.
//!
//! Neither stack was written with the other in mind, or with the devices; so a mistake that driver
//! and device share shows here.

mod card;
mod changes;
mod e1000;
mod guest;
mod machine;
mod traffic;
mod virtio_net;
mod vmxnet3;
