//! Where a device's data goes: block and network backends.

pub mod block;
pub mod limit;
pub mod net;
