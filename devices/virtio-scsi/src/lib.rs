//! The virtio SCSI host device (VIRTIO 1.4, 5.6): an adapter through which a driver reaches the units
//! of a [`Bus`](paraslot_scsi::Bus).
//!
//! Offered: HOTPLUG and CHANGE; several request queues; EVENT_IDX and INDIRECT_DESC.
//!
//! Left out: INOUT, since no command that any unit knows moves data both ways; T10_PI, since no backend
//! keeps protection information; asynchronous notifications, of which the driver is told that there are
//! none; transport resets of the kind "hard", since a unit that another initiator has reset says so by a
//! unit attention; well-known logical units other than REPORT LUNS; the legacy interface. All task
//! attributes are as SIMPLE, but for ACA, which is refused.
//!
//! Task management finds every command that was made available before it was asked for, on any request
//! queue, and is answered when the driver has been told of every command that it ended.
//!
//! What is saved goes on with the units of a bus that was made alike (see
//! [`Bus::restore`](paraslot_scsi::Bus::restore)). Answers that the driver could not be given go along, as do
//! events. A task management function that was under way is asked for once more, so a reset may be
//! carried out twice before it is answered.
//!
//! Memory, per started request queue of `n` entries: `n` slots of about 100 bytes, the queue's own
//! bookkeeping, and what the lane needs for a depth of `n`; 24 bytes (48 while a list grows) for each
//! buffer of the commands in flight, which are limited to 16384 buffers and one chain more. Nothing is
//! allocated for a command of up to four data buffers whose response is in one or two, except one
//! reference count for each round of work. Events that wait for the driver's buffers are limited to [`MAX_EVENTS`].

mod address;
mod config;
mod control;
mod device;
mod eventq;
mod events;
mod request;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod well_known;
mod worker;

pub use config::{MAX_CDB_SIZE, MAX_REQUEST_QUEUES, MAX_SENSE_SIZE, Options};
pub use device::VirtioScsi;
pub use events::MAX_EVENTS;
pub use shared::Control;
