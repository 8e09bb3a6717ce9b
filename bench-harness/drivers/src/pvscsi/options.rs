//! What the driver is asked for.

use crate::pci::Signal;
use crate::{Error, MAX_DEPTH};

/// How a disk is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Requests in flight, 1 to [`MAX_DEPTH`].
    pub depth: u16,
    /// The platform's number of the interrupt to use.
    pub interrupt: u8,
    /// The way in which it is raised.
    pub signal: Signal,
    /// Let the adapter say how many requests must wait before it is kicked, if it can.
    pub threshold: bool,
    /// Bytes of one piece of memory, 512 at least: longer data is described by a list of up to 128
    /// pieces.
    pub segment: u32,
}

impl Options {
    /// As Linux drives it, with memory in one piece, interrupt 0.
    pub const fn new(depth: u16) -> Self {
        Self { depth, interrupt: 0, signal: Signal::Best, threshold: true, segment: u32::MAX }
    }

    pub(super) fn check(self) -> Result<(), Error> {
        if !(1..=MAX_DEPTH).contains(&usize::from(self.depth)) {
            return Err(Error::Request("depth"));
        }
        if self.segment < 512 {
            return Err(Error::Request("bytes of a piece of memory"));
        }
        Ok(())
    }
}
