//! What an adapter is made of.

use std::sync::Arc;

use paraslot_device::{Clock, DeviceError, SystemClock};
use paraslot_spec::net::{ETHERNET_GROUP, ETHERNET_LOCAL};

/// How an [`E1000`](crate::E1000) is to be built.
#[derive(Clone)]
pub struct Options {
    /// The Ethernet address in the EEPROM: not a group's, and not zero.
    pub mac: [u8; 6],
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Whether the cable is plugged in at first. [`Control::set_link`](crate::Control::set_link)
    /// changes it.
    pub link: bool,
    /// What interrupt moderation goes by.
    pub clock: Arc<dyn Clock>,
}

impl Options {
    /// An adapter of address `mac` whose cable is plugged in, on the host's clock.
    pub fn new(mac: [u8; 6]) -> Self {
        let clock = Arc::new(SystemClock::new());
        Self { mac, subsystem_vendor: 0x1af4, subsystem: 0x1100, link: true, clock }
    }

    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        let [first, ..] = self.mac;
        if self.mac == [0; 6] || first & ETHERNET_GROUP != 0 {
            let mac = self.mac;
            return Err(DeviceError::Config(format!("{mac:02x?} is not an adapter's address")));
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
