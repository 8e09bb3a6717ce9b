//! Devices, built from what the command line says of them.

use std::sync::{Arc, Mutex};

use paraslot_ahci::{Ahci, DiskOptions};
use paraslot_backends::block::BlockBackend;
use paraslot_backends::net::{NetBackend, NetStatistics};
use paraslot_device::{DeviceError, DmaSpace, Host};
use paraslot_e1000::E1000;
use paraslot_pci::SharedDevice;
use paraslot_protocol::Device;
use paraslot_spec::virtio_net::feature;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_net::VirtioNet;
use paraslot_virtio_pci::VirtioPci;

use crate::spec::{DiskSpec, NetSpec};

/// A device as a PCI function.
pub(crate) enum Function<A: DmaSpace> {
    /// virtio-blk.
    VirtioBlk(VirtioPci<A, VirtioBlk>),
    /// An HBA with one disk.
    Ahci(Ahci<A>),
    /// virtio-net.
    VirtioNet(VirtioPci<A, VirtioNet>),
    /// e1000.
    E1000(E1000<A>),
}

impl<A: DmaSpace> Function<A> {
    /// As a bus takes it.
    pub(crate) fn shared(self) -> SharedDevice {
        match self {
            Self::VirtioBlk(device) => Arc::new(Mutex::new(device)),
            Self::Ahci(device) => Arc::new(Mutex::new(device)),
            Self::VirtioNet(device) => Arc::new(Mutex::new(device)),
            Self::E1000(device) => Arc::new(Mutex::new(device)),
        }
    }
}

/// Makes the disk that `spec` names, over `backend`, for `host`.
///
/// # Errors
/// When the device refuses its options or its backend.
pub(crate) fn disk<A: DmaSpace>(
    spec: &DiskSpec,
    backend: Arc<dyn BlockBackend>,
    host: Host<A>,
) -> Result<Function<A>, DeviceError> {
    match spec.device {
        Device::VirtioBlk => {
            let options = paraslot_virtio_blk::Options {
                queues: spec.queues.unwrap_or(1),
                read_only: spec.read_only,
                id: spec.id.clone(),
                ..Default::default()
            };
            let device = VirtioBlk::new(backend, &options)?;
            Ok(Function::VirtioBlk(VirtioPci::new(device, host)?))
        }
        Device::Ahci => {
            let mut disk = DiskOptions::new(backend);
            if let Some(id) = &spec.id {
                disk.serial.clone_from(id);
            }
            Ok(Function::Ahci(Ahci::new(paraslot_ahci::Options::new([disk]), host)?))
        }
        other => Err(DeviceError::Config(format!("{other} is no disk"))),
    }
}

/// Asks a device what became of its frames.
pub(crate) type Statistics = Box<dyn Fn() -> NetStatistics + Send + Sync>;

/// Makes the network adapter that `spec` names, over `backend`, with the address `mac`, for `host`.
///
/// # Errors
/// When the device refuses its options or its backend.
pub(crate) fn adapter<A: DmaSpace>(
    spec: &NetSpec,
    backend: Arc<dyn NetBackend>,
    mac: [u8; 6],
    host: Host<A>,
) -> Result<(Function<A>, Statistics), DeviceError> {
    match spec.device {
        Device::VirtioNet => {
            // What needs one of these goes with them.
            let offloads = feature::CSUM | feature::GUEST_CSUM;
            let options = paraslot_virtio_net::Options {
                mac,
                queue_pairs: spec.queues.unwrap_or(1),
                features: if spec.offloads { u64::MAX } else { !offloads },
                ..Default::default()
            };
            let device = VirtioNet::new(backend, &options)?;
            let control = device.control();
            let function = Function::VirtioNet(VirtioPci::new(device, host)?);
            Ok((function, Box::new(move || control.statistics())))
        }
        Device::E1000 => {
            let device = E1000::new(backend, paraslot_e1000::Options::new(mac), host)?;
            let control = device.control();
            Ok((Function::E1000(device), Box::new(move || control.statistics())))
        }
        other => Err(DeviceError::Config(format!("{other} is no network adapter"))),
    }
}
