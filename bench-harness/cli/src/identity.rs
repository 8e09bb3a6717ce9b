//! Who a device says it is, asked of a live one.

use std::fmt;
use std::sync::{Arc, PoisonError};

use paraslot_backends::block::{NullBackend, NullOptions};
use paraslot_backends::net::Sink;
use paraslot_device::interrupt::NoInterrupts;
use paraslot_device::{Host, ManualExecutor};
use paraslot_protocol::Device;
use paraslot_spec::pci::header;
use paraslot_vfio::HostFunction;
use pci_ids::FromId;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::spec::DeviceSpec;
use crate::{devices, network};

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

/// The identity of a device with the options it has by default; `None` if the host lacks what it
/// takes to make one.
pub(crate) fn of(device: Device) -> Option<Identity> {
    const MEMORY: usize = 4096;
    const DISK: u64 = 1 << 20;
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)]).ok()?;
    let host = Host {
        memory: Arc::new(memory),
        msi: Arc::new(NoInterrupts),
        intx: Arc::new(NoInterrupts),
        executor: Arc::new(ManualExecutor::new()),
    };
    let function = match DeviceSpec::new(device) {
        DeviceSpec::Disk(spec) => {
            let backend = Arc::new(NullBackend::new(DISK, NullOptions::default()).ok()?);
            devices::disk::<devices::Shared, _>(&spec, backend, host).ok()?.0
        }
        DeviceSpec::Net(spec) => {
            let backend = Arc::new(Sink::new(1).ok()?);
            devices::adapter::<devices::Shared, _>(&spec, backend, network::address(&spec), host)
                .ok()?
                .0
        }
        DeviceSpec::Passed(_) => return None,
    };
    let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
    let mut read = |offset| {
        let mut id = [0; 2];
        function.config_read(offset, &mut id);
        u16::from_le_bytes(id)
    };
    Some(Identity { vendor: read(header::VENDOR_ID), device: read(header::DEVICE_ID) })
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
