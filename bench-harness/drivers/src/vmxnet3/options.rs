//! How an adapter is to be driven.

use paraslot_spec::net::ETHERNET_MTU;
use paraslot_spec::vmxnet3::{MAX_MTU, MIN_MTU};

use super::{Coalescing, MAX_QUEUES, Moderation};
use crate::Error;

/// The newest revision that this driver knows.
const NEWEST: u8 = 3;

/// How an adapter signals interrupts, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signalling {
    /// By MSI-X: no register is read.
    #[default]
    MsiX,
    /// By MSI: no register is read, and there is one interrupt for everything.
    Msi,
    /// By the pin: ICR is read, and there is one interrupt for everything.
    Pin,
}

/// Which vectors queues have with MSI-X. All of them send the same message. Events are with the first
/// receive queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vectors {
    /// One for what arrives and one for what was sent, which so can be kept from interrupting.
    #[default]
    Directions,
    /// One for everything, as in Linux where there are as many queues of either kind. What was sent
    /// interrupts whenever interrupts are on.
    Shared,
    /// One for each queue. Each of the receive queues' is unmasked after an interrupt, at a register
    /// write each, as which of them it was is not known.
    Each,
}

/// How an adapter is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The platform's number of the interrupt to use.
    pub interrupt: u8,
    /// The newest revision of the interface to use: 1 to 3.
    pub revision: u8,
    /// Have it fill in the checksums of what is sent, and check those of what is received.
    pub checksum: bool,
    /// Have it segment.
    pub segmentation: bool,
    /// Have it hand over as one what was put together or never segmented. Only along with
    /// [`checksum`](Self::checksum), as in Linux: the checksum of such a frame need not be filled in.
    pub large_receive: bool,
    /// Receive queues, 1 to [`MAX_QUEUES`]. It spreads frames over them by RSS if there are several.
    /// They need MSI-X, as in Linux; without it there is one.
    pub receive_queues: u8,
    /// The best way of signalling interrupts to use. What the adapter asks for or lacks may make it
    /// one of those after it.
    pub signalling: Signalling,
    /// Which vectors queues have.
    pub vectors: Vectors,
    /// How much each interrupt is moderated.
    pub moderation: Moderation,
    /// How packets are gathered for an interrupt; as the adapter does it already if `None`.
    pub coalescing: Option<Coalescing>,
    /// The largest IP packet in bytes, 60 to 9000.
    pub mtu: u16,
    /// Its station address; its own if `None`.
    pub address: Option<[u8; 6]>,
}

impl Options {
    /// Everything that it can do for its driver but more than one receive queue, an Ethernet's usual
    /// MTU, and interrupt 0 by MSI-X.
    pub const fn new() -> Self {
        Self {
            interrupt: 0,
            revision: NEWEST,
            checksum: true,
            segmentation: true,
            large_receive: true,
            receive_queues: 1,
            signalling: Signalling::MsiX,
            vectors: Vectors::Directions,
            moderation: Moderation::Adaptive,
            coalescing: None,
            mtu: 1500,
            address: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if !(1..=NEWEST).contains(&self.revision) {
            return Err(Error::Request("the revision"));
        }
        if !(1..=MAX_QUEUES).contains(&usize::from(self.receive_queues)) {
            return Err(Error::Request("receive queues"));
        }
        if !(MIN_MTU..=MAX_MTU).contains(&u32::from(self.mtu)) {
            return Err(Error::Request("the MTU"));
        }
        self.moderation.check()?;
        self.coalescing.map_or(Ok(()), Coalescing::check)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(Options::new().mtu as usize == ETHERNET_MTU);
