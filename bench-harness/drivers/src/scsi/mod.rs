//! SCSI disks, as far as it does not matter what they are attached by (SAM-5, SPC-4, SBC-3).
//!
//! A transport has commands carried out and says how they ended. What commands there are, what the
//! disk is like and what an ending means is here, after the model of Linux's `sd` and mid layer:
//! - an ending that says nothing of the command itself (unit attention, ABORTED COMMAND, BUSY, TASK
//!   SET FULL) has it issued again, at once and [`MAX_RETRIES`] times at most;
//! - RECOVERED ERROR and NO SENSE are as good as GOOD;
//! - data is moved by READ and WRITE of 10 bytes where they suffice, otherwise of 16.
//!
//! Sense data must come with the status (autosense). Not used: protection information, FUA, reads and
//! writes of 6, 12 or 32 bytes.

mod cdb;
mod ending;
mod probe;
mod sense;
mod tags;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unit;

pub use cdb::{Cdb, Data};
pub use ending::{Ended, Outcome};
pub use sense::Sense;
pub use unit::{Address, Unit};

pub(crate) use cdb::{Buffer, Direction, Request};
pub(crate) use probe::{Host, find_disk, wait_for};
pub(crate) use tags::Tags;
pub(crate) use unit::PARAMETERS_LEN;

/// How often a command is issued again at most.
pub const MAX_RETRIES: u8 = 5;
/// How long a command may take that a driver waits for, in milliseconds.
pub(crate) const COMMAND_MS: u64 = 5000;
/// Bytes of sense data that a driver has room for: what virtio-scsi and Linux's mid layer have.
pub(crate) const SENSE_LEN: usize = 96;
