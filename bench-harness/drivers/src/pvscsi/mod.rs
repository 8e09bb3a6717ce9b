//! VMware's paravirtual SCSI adapter.
//!
//! # Register accesses
//! The adapter is driven by the register accesses that Linux's `vmw_pvscsi` makes, so that a count of
//! them, or of the exits they cause, means here what it means there:
//! - requests: one write of KICK_RW_IO, which the adapter's threshold may spare; of KICK_NON_RW_IO, if
//!   there is anything but reads and writes;
//! - interrupt by a message: none;
//! - interrupt by the pin: read INTR_STATUS, write INTR_STATUS.
//!
//! There is one difference, in the device's favour: requests submitted before one kick are told by one
//! write, where Linux makes one for each. Polling touches no register.
//!
//! # Rings
//! Of as many pages as the depth needs, where Linux has eight of each kind. Requests for a LUN above 255
//! are made, although VMware's drivers have none.

mod disk;
mod hardware;
mod manage;
mod options;
mod requests;
mod rings;
#[cfg(test)]
mod tests;

pub use crate::pci::Signal;
pub use manage::Message;
pub use options::Options;

use hardware::Hardware;
use requests::Requests;

use crate::scsi::{Address, Cdb, Data, Ended, Host, Unit, find_disk};
use crate::{Error, Platform};

/// The first disk on a PVSCSI adapter.
pub struct Pvscsi<'p, P> {
    requests: Requests<'p, P>,
    unit: Unit,
    options: Options,
    interrupts: bool,
}

impl<'p, P: Platform> Pvscsi<'p, P> {
    /// Sets up the first PVSCSI adapter on bus 0, and the first disk behind it.
    ///
    /// # Errors
    /// When there is none, it cannot be set up, or it cannot interrupt in the way that was asked for.
    pub fn new(platform: &'p P, options: Options) -> Result<Self, Error> {
        options.check()?;
        let hardware = Hardware::new(platform, options)?;
        let targets = hardware.targets()?;
        let mut requests = Requests::new(hardware, options)?;
        let max_transfer = requests.max_transfer();
        match find_disk(&mut requests, targets, max_transfer) {
            Ok(unit) => Ok(Self { requests, unit, options, interrupts: false }),
            Err(error) => {
                requests.hardware.stop();
                Err(error)
            }
        }
    }

    /// The disk.
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Has any command carried out, by any unit, and waits for it. Nothing must be in flight. Unlike a
    /// request's, its ending is reported whatever it is.
    ///
    /// # Errors
    /// When something is in flight, the data has a length that commands cannot say, or the adapter
    /// does not answer or misbehaves.
    pub fn execute(&mut self, address: Address, cdb: &Cdb, data: Data<'_>) -> Result<Ended, Error> {
        self.requests.execute(address, cdb, data)
    }

    /// Whether the adapter says how many requests must wait before it is kicked.
    pub fn uses_threshold(&self) -> bool {
        self.requests.threshold
    }
}
