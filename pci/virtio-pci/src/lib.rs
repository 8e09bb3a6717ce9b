//! The modern virtio PCI transport (4.1) over any virtio device.
//!
//! [`VirtioPci`] makes a PCI function of a [`VirtioDevice`](paraslot_virtio::VirtioDevice): identity,
//! capabilities, feature negotiation, queue registers, notifications, interrupts and resets.
//!
//! The function is modern only (4.1.2): it has no I/O BAR, no transitional device ID and no legacy
//! layout. Of the optional parts, RING_RESET is offered; NOTIFICATION_DATA, NOTIF_CONFIG_DATA, the
//! administration queue, shared memory regions, vendor data and device suspension are not there. The
//! features for them are not offered, and a device that offers one is refused at construction.
//! ACCESS_PLATFORM is not offered either: guest memory is addressed as the host presents it.

mod common;
mod function;
mod layout;
mod offsets;
mod queues;
mod signals;
mod state;
mod transport;
mod window;

#[cfg(test)]
mod tests;

pub use transport::VirtioPci;
