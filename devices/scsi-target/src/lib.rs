//! SCSI logical units, disks and CD-ROMs, over block backends, and the way from an initiator to them.
//!
//! A [`LogicalUnit`] is shared state: the medium, mode parameters, reservations. A [`Bus`] is what one
//! initiator port sees: which units there are, at which target and LUN. A [`Lane`] is one worker's way
//! to all units of a bus: commands go in, and come out completed, in any order. Task management goes
//! to the bus, which has every lane that it concerns carry it out.

mod bus;
mod command;
mod decode;
mod lane;
mod nexus;
mod plan;
mod reservation;
mod sense;
mod task;
mod unit;

pub use bus::{Address, Bus, BusError, BusEvent, BusOptions, BusState, Initiator, Listener};
pub use command::{Attribute, Cdb, Command, Completion, Outcome, Status};
pub use lane::Lane;
pub use sense::{Sense, SenseFormat};
pub use task::{Function, Response, Ticket};
pub use unit::{CdromOptions, DiskOptions, Identity, LogicalUnit};
