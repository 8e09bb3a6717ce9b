//! What the port's worker asks of the device at the other end of the link.

use paraslot_device::{DmaSpace, Memory, Progress, Sources, StateError};
use paraslot_spec::ahci::fis::RegisterH2d;

use super::start::Fetched;
use super::{Command, Commands};
use crate::command::{Failure, Output, Protocol, Then};

/// A device, with its way to what it stores. The worker does for it all that has to do with slots,
/// registers and FISes.
pub(crate) trait Attached: Send + 'static {
    /// The registers that it sends after a reset.
    const SIGNATURE: Output;
    /// PxSIG then.
    const PXSIG: u32;

    /// Whether a command is a queued one, which decides how its end is reported, whatever it is.
    fn is_queued(fis: &RegisterH2d) -> bool;

    /// Its state, apart from commands.
    type Saved;

    /// # Errors
    /// When it has a command.
    fn save(&self) -> Result<Self::Saved, StateError>;

    /// Whether it would take `saved`.
    fn check(&self, saved: &Self::Saved) -> Result<(), StateError>;

    /// Takes over what was saved, and checked, when it has no command.
    fn restore(&mut self, saved: Self::Saved) -> Result<(), StateError>;

    /// Whether there is a command that moves its data like this, and does `then` at its end.
    fn has(&self, protocol: Protocol, then: Then) -> bool;

    /// What wakes the worker.
    fn sources(&self) -> Sources;

    /// Decodes a command and does it, or begins to: then returns true, and
    /// [`complete`](Self::complete) tells when it has ended. What it is to do must not be begun before
    /// [`commit`](Self::commit).
    fn perform<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        fetched: &Fetched,
        slot: u32,
        command: &mut Command,
    ) -> Result<bool, Failure>;

    /// Begins what was performed.
    fn commit(&mut self);

    /// Notes in `commands` how those ended that have, and returns their slots as a mask; and whether
    /// there was anything to do.
    fn complete(&mut self, commands: &mut Commands) -> (u32, Progress);

    /// A command has succeeded, and the host is told.
    fn apply(&mut self, then: Then);

    /// A queued command has failed; or, without a slot, another one that came while there were some.
    fn queued_failed(&mut self, slot: Option<u32>, fis: &RegisterH2d, failure: &Failure);

    /// COMRESET, HBA reset or power-on. Nothing is in flight.
    fn hard_reset(&mut self);

    /// The worker is to stop: what a limit holds back goes.
    fn hurry(&mut self);

    /// Nobody waits any more for what is in flight: it may end early.
    fn abandon(&mut self) {}

    /// Whether somebody else than this port's host has asked something of the device.
    fn ordered(&self) -> bool {
        false
    }

    /// The host has been told of all that [`complete`](Self::complete) has given.
    fn settle(&mut self) {}

    /// The worker goes to sleep; says whether it must not after all.
    fn prepare_to_wait(&mut self) -> bool {
        false
    }
}
