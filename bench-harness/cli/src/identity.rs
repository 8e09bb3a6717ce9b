//! Who a device says it is, asked of a live one.

use std::fmt;

use paraslot_catalogue::live::Live;
use paraslot_pci::Picture;
use paraslot_protocol::Device;
use paraslot_vfio::HostFunction;
use pci_ids::FromId;

/// A function's vendor and device ID, with the names that the PCI ID list has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    vendor: u16,
    device: u16,
}

impl Identity {
    /// That of a function of the host's.
    pub(crate) fn of(function: &HostFunction) -> Self {
        Self { vendor: function.vendor, device: function.device }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)?;
        if let Some(vendor) = pci_ids::Vendor::from_id(self.vendor) {
            write!(f, " {}", vendor.name())?;
        }
        if let Some(device) = pci_ids::Device::from_vid_pid(self.vendor, self.device) {
            write!(f, ", {}", device.name())?;
        }
        Ok(())
    }
}

/// The identity of a device of ours; `None` if the catalogue has none, or the host lacks what it takes to make
/// one.
pub(crate) fn of(device: Device) -> Option<Identity> {
    let mut function = (paraslot_catalogue::find(device.name())?.make)().ok()?;
    let Picture { vendor, device, .. } = Live::of(function.as_mut()).picture;
    Some(Identity { vendor, device })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_are_who_they_should_be() {
        let text = |device| of(device).map(|identity| identity.to_string()).unwrap_or_default();
        let virtio = text(Device::VirtioBlk);
        assert!(virtio.starts_with("1af4:1042 ") && virtio.contains("block"), "{virtio}");
        let ahci = text(Device::Ahci);
        assert!(ahci.starts_with("8086:2922 Intel") && ahci.contains("SATA"), "{ahci}");
        let virtio = text(Device::VirtioScsi);
        assert!(virtio.starts_with("1af4:1048 ") && virtio.contains("SCSI"), "{virtio}");
        let pvscsi = text(Device::Pvscsi);
        assert!(pvscsi.starts_with("15ad:07c0 VMware, PVSCSI"), "{pvscsi}");
        let vmxnet3 = text(Device::Vmxnet3);
        assert!(vmxnet3.starts_with("15ad:07b0 VMware, VMXNET3"), "{vmxnet3}");
        let virtio = text(Device::VirtioNet);
        assert!(virtio.starts_with("1af4:1041 ") && virtio.contains("network"), "{virtio}");
        let e1000 = text(Device::E1000);
        assert!(e1000.starts_with("8086:100e Intel") && e1000.contains("82540EM"), "{e1000}");
    }
}
