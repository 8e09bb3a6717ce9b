//! Devices, built from what the command line says of them.

use std::sync::Arc;

use paraslot_ahci::{Ahci, DiskOptions};
use paraslot_backends::block::BlockBackend;
use paraslot_device::{DeviceError, DmaSpace, Host};
use paraslot_protocol::Device;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_pci::VirtioPci;

use crate::spec::DeviceSpec;

/// A disk as a PCI function.
pub(crate) enum Disk<A: DmaSpace> {
    /// virtio-blk.
    VirtioBlk(VirtioPci<A, VirtioBlk>),
    /// An HBA with one disk.
    Ahci(Ahci<A>),
}

/// Makes the function that `spec` names, over `backend`, for `host`.
///
/// # Errors
/// When the device refuses its options or its backend.
pub(crate) fn build<A: DmaSpace>(
    spec: &DeviceSpec,
    backend: Arc<dyn BlockBackend>,
    host: Host<A>,
) -> Result<Disk<A>, DeviceError> {
    match spec.device {
        Device::VirtioBlk => {
            let options = paraslot_virtio_blk::Options {
                queues: spec.queues.unwrap_or(1),
                read_only: spec.read_only,
                id: spec.id.clone(),
                ..Default::default()
            };
            let device = VirtioBlk::new(backend, &options)?;
            Ok(Disk::VirtioBlk(VirtioPci::new(device, host)?))
        }
        Device::Ahci => {
            let mut disk = DiskOptions::new(backend);
            if let Some(id) = &spec.id {
                disk.serial.clone_from(id);
            }
            Ok(Disk::Ahci(Ahci::new(paraslot_ahci::Options::new([disk]), host)?))
        }
    }
}
