//! What an HBA is made of.

use std::sync::Arc;

use paraslot_backends::block::{BlockBackend, BlockInfo};
use paraslot_device::DeviceError;
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

    fn check(&self, port: usize) -> Result<(), DeviceError> {
        let refuse = |what: String| Err(DeviceError::Config(format!("port {port}: {what}")));
        let strings = [
            ("serial number", &self.serial, SERIAL_LEN),
            ("model number", &self.model, MODEL_LEN),
            ("firmware revision", &self.firmware, FIRMWARE_LEN),
        ];
        for (name, value, most) in strings {
            if value.len() > most || !value.chars().all(|c| printable(&c)) {
                return refuse(format!("the {name} is not {most} printable ASCII characters"));
            }
        }
        if self.model.is_empty() {
            return refuse("the model number is empty".into());
        }
        let BlockInfo { capacity, logical_block, physical_block, .. } = self.backend.info();
        if logical_block != 512 && logical_block != 4096 {
            return refuse(format!("sectors of {logical_block} bytes; 512 and 4096 can be served"));
        }
        let sectors = capacity / u64::from(logical_block);
        if sectors == 0 || sectors >= LBA_48_END {
            return refuse(format!("a capacity of {sectors} sectors"));
        }
        if !physical_block.is_power_of_two() || physical_block < logical_block {
            return refuse(format!("physical sectors of {physical_block} bytes"));
        }
        Ok(())
    }
}

fn printable(c: &char) -> bool {
    matches!(c, ' '..='~')
}

/// How an [`Ahci`](crate::Ahci) is to be built.
#[derive(Clone)]
pub struct Options {
    /// The ports, 1 to 32, and the disks at them.
    pub ports: Vec<Option<DiskOptions>>,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

impl Options {
    /// Six ports, `disks` at the first ones (and more ports if there are more disks).
    pub fn new(disks: impl IntoIterator<Item = DiskOptions>) -> Self {
        let mut ports: Vec<_> = disks.into_iter().map(Some).collect();
        ports.resize_with(ports.len().max(DEFAULT_PORTS), || None);
        Self { ports, subsystem_vendor: 0x1af4, subsystem: 0x1100 }
    }

    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        if !(1..=MAX_PORTS).contains(&self.ports.len()) {
            let count = self.ports.len();
            return Err(DeviceError::Config(format!("an HBA has 1 to 32 ports, not {count}")));
        }
        for (index, disk) in self.ports.iter().enumerate() {
            disk.as_ref().map_or(Ok(()), |disk| disk.check(index))?;
        }
        Ok(())
    }
}
