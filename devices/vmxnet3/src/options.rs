//! What an adapter is made of.

use std::sync::Arc;

use paraslot_device::{Clock, DeviceError, SystemClock};
use paraslot_spec::net::{ETHERNET_GROUP, ETHERNET_LOCAL};

/// Most pairs of a backend's queues that an adapter uses.
const MOST_PAIRS: u16 = 8;

/// How a [`Vmxnet3`](crate::Vmxnet3) is to be built.
#[derive(Clone)]
pub struct Options {
    /// The permanent Ethernet address: not a group's, and not zero.
    pub mac: [u8; 6],
    /// Pairs of the backend's queues to use, 1 to 8, each with a worker. More than the backend has is
    /// all.
    pub queues: u16,
    /// Whether it has a PCI Express capability, with function level reset.
    pub express: bool,
    /// Whether the link is up at first. [`Control::set_link`](crate::Control::set_link) changes it.
    pub link: bool,
    /// What interrupt moderation goes by.
    pub clock: Arc<dyn Clock>,
}

impl Options {
    /// A PCI Express adapter of address `mac` whose link is up, with one pair of queues, on the host's
    /// clock.
    pub fn new(mac: [u8; 6]) -> Self {
        Self { mac, queues: 1, express: true, link: true, clock: Arc::new(SystemClock::new()) }
    }

    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        let [first, ..] = self.mac;
        if self.mac == [0; 6] || first & ETHERNET_GROUP != 0 {
            let mac = self.mac;
            return Err(DeviceError::Config(format!("{mac:02x?} is not an adapter's address")));
        }
        if !(1..=MOST_PAIRS).contains(&self.queues) {
            let queues = self.queues;
            return Err(DeviceError::Config(format!("{queues} queue pairs: 1 to {MOST_PAIRS}")));
        }
        Ok(())
    }
}

impl Default for Options {
    /// An address of those that are nobody's (02:...), the same each time.
    fn default() -> Self {
        Self::new([ETHERNET_LOCAL, 0, 0, 0, 0, 1])
    }
}
