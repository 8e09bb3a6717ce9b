//! The virtio block device (VIRTIO 1.4, 5.2) over any block backend.
//!
//! Offered: SEG_MAX, BLK_SIZE, TOPOLOGY, FLUSH, CONFIG_WCE, MQ with several queues, RO, and DISCARD,
//! WRITE_ZEROES and SECURE_ERASE where the backend has them; EVENT_IDX and INDIRECT_DESC.
//!
//! Left out: GEOMETRY, since an image has none; SIZE_MAX, since a buffer of any size is served;
//! LIFETIME, since no backend measures wear (5.2.6.2 then forbids it); ZONED, since no backend has
//! zones; the legacy interface, and with it BARRIER and SCSI. Requests of these kinds are answered
//! VIRTIO_BLK_S_UNSUPP.
//!
//! Requests must be multiples of the logical block; others are answered VIRTIO_BLK_S_IOERR, although
//! the specification calls blk_size a matter of performance: drivers take it for the unit that it is.
//!
//! Memory, per started queue of `n` entries: `n` slots of about 100 bytes, the queue's own bookkeeping
//! and what the backend needs for a depth of `n`; 24 bytes (48 while a list grows) for each buffer of
//! the requests in flight, which are limited to 16384 buffers and one chain more; and 16 bytes for each range of the longest discard,
//! write zeroes or secure erase request that a slot has seen, [`MAX_RANGES`] at most. Nothing is
//! allocated for a read or write of up to four buffers, except one reference count for each round of
//! work.

mod config;
mod device;
mod request;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod worker;

pub use config::{MAX_RANGES, Options};
pub use device::VirtioBlk;
pub use shared::Control;
