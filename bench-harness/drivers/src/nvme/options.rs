//! What the driver is asked for.

use super::MAX_QUEUES;
use crate::pci::Signal;
use crate::{Error, MAX_DEPTH};

/// How a namespace is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Requests in flight, 1 to [`MAX_DEPTH`].
    pub depth: u16,
    /// Pairs of queues to use, 1 to [`MAX_QUEUES`]; tags are dealt to them in turn.
    pub queues: u16,
    /// The platform's number of the interrupt to use.
    pub interrupt: u8,
    /// The way in which it is raised. By MSI-X each pair has a vector of its own, if there are enough.
    pub signal: Signal,
}

impl Options {
    /// One pair of queues, interrupt 0 in the best way that there is.
    pub const fn new(depth: u16) -> Self {
        Self { depth, queues: 1, interrupt: 0, signal: Signal::Best }
    }

    pub(super) fn check(self) -> Result<(), Error> {
        if !(1..=MAX_DEPTH).contains(&usize::from(self.depth))
            || !(1..=MAX_QUEUES).contains(&usize::from(self.queues))
        {
            return Err(Error::Request("depth or queues"));
        }
        Ok(())
    }
}
