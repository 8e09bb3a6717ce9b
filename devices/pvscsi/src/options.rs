//! How an adapter is to be built.

use std::time::Duration;

use paraslot_spec::pci::VENDOR_VMWARE;
use paraslot_spec::pvscsi::DEVICE_PVSCSI;

/// How a [`Pvscsi`](crate::Pvscsi) is to be built.
#[derive(Clone, Debug)]
pub struct Options {
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Whether the function has a PCI Express capability, with function level reset.
    pub express: bool,
    /// How long a write to the command register waits for the requests that its command ends, and a
    /// reset for those in flight. A vCPU does nothing else for that time.
    pub patience: Duration,
}

impl Default for Options {
    /// VMware's IDs, PCI Express, and two seconds.
    fn default() -> Self {
        Self {
            subsystem_vendor: VENDOR_VMWARE,
            subsystem: DEVICE_PVSCSI,
            express: true,
            patience: Duration::from_secs(2),
        }
    }
}
