//! Where a device's data goes: block and network backends.

pub mod block;
pub mod net;
