//! Devices, built from what the command line says of them.

use std::sync::Arc;

use paraslot_ahci::{Ahci, DiskOptions, PacketOptions};
use paraslot_backends::block::BlockBackend;
use paraslot_backends::net::{NetBackend, NetStatistics};
use paraslot_device::{DeviceError, DmaSpace, Host};
use paraslot_e1000::E1000;
use paraslot_pci::PciDevice;
use paraslot_protocol::Device;
use paraslot_pvscsi::Pvscsi;
use paraslot_scsi::{Address, Bus, BusOptions, CdromOptions, Initiator, LogicalUnit};
use paraslot_spec::virtio_net::feature;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_net::VirtioNet;
use paraslot_virtio_pci::VirtioPci;
use paraslot_virtio_scsi::VirtioScsi;
use paraslot_vmxnet3::Vmxnet3;

use crate::spec::{DiskSpec, Media, NetSpec};

/// Tells a disk's guest of its backend's size, after that has changed, and returns it in bytes; `None` for a
/// drive that has none to tell of.
pub(crate) type Resize = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// Makes the disk that `spec` names, over `backend`, for `host`.
///
/// # Errors
/// When the device refuses its options or its backend.
pub(crate) fn disk<A: DmaSpace>(
    spec: &DiskSpec,
    backend: Arc<dyn BlockBackend>,
    host: Host<A>,
) -> Result<(Box<dyn PciDevice>, Resize), DeviceError> {
    match spec.device {
        Device::VirtioBlk => {
            let options = paraslot_virtio_blk::Options {
                queues: spec.queues.unwrap_or(1),
                read_only: spec.read_only,
                id: spec.id.clone(),
                ..Default::default()
            };
            let device = VirtioBlk::new(backend, &options)?;
            let control = device.control();
            let function = Box::new(VirtioPci::new(device, host)?);
            Ok((function, Box::new(move || Some(control.resize()))))
        }
        Device::VirtioScsi => {
            let options = paraslot_virtio_scsi::Options {
                request_queues: spec.queues.unwrap_or(1),
                ..Default::default()
            };
            let bus = bus(unit(spec, backend)?)?;
            let device = VirtioScsi::new(bus.clone(), &options)?;
            Ok((Box::new(VirtioPci::new(device, host)?), resize(bus)))
        }
        Device::Pvscsi => {
            let options = paraslot_pvscsi::Options::default();
            let bus = bus(unit(spec, backend)?)?;
            Ok((Box::new(Pvscsi::new(bus.clone(), options, host)?), resize(bus)))
        }
        Device::Ahci if spec.media == Media::Cdrom => {
            let mut drive = PacketOptions::new(unit(spec, backend)?);
            if let Some(id) = &spec.id {
                drive.serial.clone_from(id);
            }
            let mut options = paraslot_ahci::Options::new([]);
            if let Some(port) = options.ports.first_mut() {
                *port = Some(drive.into());
            }
            Ok(sata(Ahci::new(options, host)?))
        }
        Device::Ahci => {
            let mut disk = DiskOptions::new(backend);
            if let Some(id) = &spec.id {
                disk.serial.clone_from(id);
            }
            Ok(sata(Ahci::new(paraslot_ahci::Options::new([disk]), host)?))
        }
        other => Err(DeviceError::Config(format!("{other} is no disk"))),
    }
}

/// With the drive at the first port.
fn sata<A: DmaSpace>(device: Ahci<A>) -> (Box<dyn PciDevice>, Resize) {
    let control = device.control();
    (Box::new(device), Box::new(move || control.resize(0)))
}

fn resize(bus: Bus) -> Resize {
    Box::new(move || bus.resize(Address::default()))
}

/// A disk, or a CD-ROM drive with the image in it, as SCSI has them.
fn unit(spec: &DiskSpec, backend: Arc<dyn BlockBackend>) -> Result<Arc<LogicalUnit>, DeviceError> {
    if spec.media == Media::Cdrom {
        let mut options = CdromOptions::new(Some(backend));
        if let Some(id) = &spec.id {
            options.identity.serial.clone_from(id);
        }
        return LogicalUnit::cdrom(options);
    }
    let mut options = paraslot_scsi::DiskOptions::new(backend);
    options.read_only = spec.read_only;
    if let Some(id) = &spec.id {
        options.identity.serial.clone_from(id);
    }
    LogicalUnit::disk(options)
}

/// A bus with one unit, the first of the first target.
fn bus(unit: Arc<LogicalUnit>) -> Result<Bus, DeviceError> {
    let bus = Bus::new(BusOptions {
        initiator: Initiator("paraslot".into()),
        max_target: 63,
        max_lun: 0,
        autosense: true,
    });
    bus.attach(Address::default(), unit).map_err(|error| DeviceError::Config(error.to_string()))?;
    Ok(bus)
}

/// Asks a device what became of its frames.
pub(crate) type Statistics = Box<dyn Fn() -> NetStatistics + Send + Sync>;

/// What the owner of a network adapter can ask it, and do to it, while its guest uses it.
pub(crate) struct Cable {
    /// What became of the frames.
    pub(crate) statistics: Statistics,
    /// Plugs the cable in, or pulls it.
    pub(crate) set_link: Box<dyn Fn(bool) + Send + Sync>,
}

macro_rules! cable {
    ($control:expr) => {{
        let (counts, link) = ($control, $control);
        Cable {
            statistics: Box::new(move || counts.statistics()),
            set_link: Box::new(move |up| link.set_link(up)),
        }
    }};
}

/// Makes the network adapter that `spec` names, over `backend`, with the address `mac`, for `host`.
///
/// # Errors
/// When the device refuses its options or its backend.
pub(crate) fn adapter<A: DmaSpace>(
    spec: &NetSpec,
    backend: Arc<dyn NetBackend>,
    mac: [u8; 6],
    host: Host<A>,
) -> Result<(Box<dyn PciDevice>, Cable), DeviceError> {
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
            let cable = cable!(device.control());
            Ok((Box::new(VirtioPci::new(device, host)?), cable))
        }
        Device::Vmxnet3 => {
            let options = paraslot_vmxnet3::Options {
                queues: spec.queues.unwrap_or(1),
                ..paraslot_vmxnet3::Options::new(mac)
            };
            let device = Vmxnet3::new(backend, options, host)?;
            let cable = cable!(device.control());
            Ok((Box::new(device), cable))
        }
        Device::E1000 => {
            let device = E1000::new(backend, paraslot_e1000::Options::new(mac), host)?;
            let cable = cable!(device.control());
            Ok((Box::new(device), cable))
        }
        other => Err(DeviceError::Config(format!("{other} is no network adapter"))),
    }
}
