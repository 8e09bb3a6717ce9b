//! What tests of network backends, and of devices in front of them, need: a port whose other side is
//! the test's hand, frames that fail, packets made by hand, and the test that every backend must pass.
//!
//! Panics on misuse, as tests do.

mod conformance;
mod fault;
pub mod namespace;
mod packet;
mod scripted;
#[cfg(test)]
mod tests;

pub use crate::block::testing::GuestPages;
#[cfg(test)]
pub(crate) use conformance::Bell;
pub use conformance::{FarEnd, PortEnd, Way, conformance};
pub use fault::{FaultNet, Operation};
pub use packet::{Ip, Layer4, Packet, plain_sum};
pub use scripted::{HostPort, ScriptedNet, Sent};
