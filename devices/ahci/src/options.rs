//! What an HBA is made of.

use std::sync::Arc;

use paraslot_backends::block::{BlockBackend, BlockInfo};
use paraslot_device::DeviceError;
use paraslot_scsi::{Initiator, LogicalUnit};
use paraslot_spec::ahci::MAX_PORTS;
use paraslot_spec::ata::LBA_48_END;
use paraslot_spec::ata::identify::{FIRMWARE_LEN, MODEL_LEN, SERIAL_LEN};

/// Ports of an HBA by default, as an ICH9 has them.
pub const DEFAULT_PORTS: usize = 6;

/// A disk at a port: an image, and how the device on it identifies itself.
///
/// The image's logical blocks are the disk's logical sectors; they are 512 or 4096 bytes.
#[derive(Clone)]
pub struct DiskOptions {
    /// Where the data is.
    pub backend: Arc<dyn BlockBackend>,
    /// Serial number, up to 20 printable ASCII characters.
    pub serial: String,
    /// Model number, 1 to 40 printable ASCII characters.
    pub model: String,
    /// Firmware revision, up to 8 printable ASCII characters.
    pub firmware: String,
    /// World wide name (a 64-bit NAA identifier), for a disk that is to have one.
    pub world_wide_name: Option<u64>,
}

impl DiskOptions {
    /// A disk on `backend`, of the serial number that the backend names.
    pub fn new(backend: Arc<dyn BlockBackend>) -> Self {
        let serial: String = backend.info().id.chars().filter(printable).take(SERIAL_LEN).collect();
        Self {
            backend,
            serial,
            model: "PARASLOT SATA DISK".into(),
            firmware: "1.0".into(),
            world_wide_name: None,
        }
    }

    fn check(&self) -> Result<(), String> {
        check_strings(&self.serial, &self.model, &self.firmware)?;
        let BlockInfo { capacity, logical_block, physical_block, .. } = self.backend.info();
        if logical_block != 512 && logical_block != 4096 {
            return Err(format!("sectors of {logical_block} bytes; 512 and 4096 can be served"));
        }
        let sectors = capacity / u64::from(logical_block);
        if sectors == 0 || sectors >= LBA_48_END {
            return Err(format!("a capacity of {sectors} sectors"));
        }
        if !physical_block.is_power_of_two() || physical_block < logical_block {
            return Err(format!("physical sectors of {physical_block} bytes"));
        }
        Ok(())
    }
}

/// What IDENTIFY DEVICE and IDENTIFY PACKET DEVICE are to tell.
fn check_strings(serial: &str, model: &str, firmware: &str) -> Result<(), String> {
    let strings = [
        ("serial number", serial, SERIAL_LEN),
        ("model number", model, MODEL_LEN),
        ("firmware revision", firmware, FIRMWARE_LEN),
    ];
    for (name, value, most) in strings {
        if value.len() > most || !value.chars().all(|c| printable(&c)) {
            return Err(format!("the {name} is not {most} printable ASCII characters"));
        }
    }
    if model.is_empty() { Err("the model number is empty".into()) } else { Ok(()) }
}

fn printable(c: &char) -> bool {
    matches!(c, ' '..='~')
}

/// A CD-ROM drive at a port: a logical unit, and how the ATAPI device around it identifies itself.
#[derive(Clone)]
pub struct PacketOptions {
    /// The drive, made by [`LogicalUnit::cdrom`]. A disc is put in and taken out there, at any time.
    pub unit: Arc<LogicalUnit>,
    /// In whose name the port uses the drive. If there is none, in the name of the port.
    pub initiator: Option<Initiator>,
    /// Serial number, up to 20 printable ASCII characters.
    pub serial: String,
    /// Model number, 1 to 40 printable ASCII characters.
    pub model: String,
    /// Firmware revision, up to 8 printable ASCII characters.
    pub firmware: String,
}

impl PacketOptions {
    /// `unit`, without a serial number.
    pub fn new(unit: Arc<LogicalUnit>) -> Self {
        Self {
            unit,
            initiator: None,
            serial: String::new(),
            model: "PARASLOT SATA CD-ROM".into(),
            firmware: "1.0".into(),
        }
    }

    fn check(&self) -> Result<(), String> {
        if !self.unit.is_cdrom() {
            return Err("the logical unit is no CD-ROM drive".into());
        }
        check_strings(&self.serial, &self.model, &self.firmware)
    }
}

/// What is at a port.
#[derive(Clone)]
pub enum PortDevice {
    /// An ATA disk.
    Disk(DiskOptions),
    /// An ATAPI CD-ROM drive.
    Packet(PacketOptions),
}

impl PortDevice {
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Disk(disk) => disk.check(),
            Self::Packet(drive) => drive.check(),
        }
    }
}

impl From<DiskOptions> for PortDevice {
    fn from(options: DiskOptions) -> Self {
        Self::Disk(options)
    }
}

impl From<PacketOptions> for PortDevice {
    fn from(options: PacketOptions) -> Self {
        Self::Packet(options)
    }
}

/// How an [`Ahci`](crate::Ahci) is to be built.
#[derive(Clone)]
pub struct Options {
    /// The ports, 1 to 32, and the devices at them.
    pub ports: Vec<Option<PortDevice>>,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

impl Options {
    /// Six ports, `disks` at the first ones (and more ports if there are more disks). A CD-ROM drive
    /// is put to one of [`ports`](Self::ports).
    pub fn new(disks: impl IntoIterator<Item = DiskOptions>) -> Self {
        let mut ports: Vec<_> = disks.into_iter().map(|disk| Some(disk.into())).collect();
        ports.resize_with(ports.len().max(DEFAULT_PORTS), || None);
        Self { ports, subsystem_vendor: 0x1af4, subsystem: 0x1100 }
    }

    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        if !(1..=MAX_PORTS).contains(&self.ports.len()) {
            let count = self.ports.len();
            return Err(DeviceError::Config(format!("an HBA has 1 to 32 ports, not {count}")));
        }
        for (index, device) in self.ports.iter().enumerate() {
            let checked = device.as_ref().map_or(Ok(()), PortDevice::check);
            checked.map_err(|what| DeviceError::Config(format!("port {index}: {what}")))?;
        }
        Ok(())
    }
}
