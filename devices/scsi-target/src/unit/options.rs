//! What units are made of.

use std::sync::Arc;

use paraslot_backends::block::{BlockBackend, BlockInfo};
use paraslot_device::DeviceError;
use paraslot_spec::scsi::mmc;

/// How a unit identifies itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// T10 VENDOR IDENTIFICATION, up to 8 printable ASCII characters.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, up to 16 printable ASCII characters.
    pub product: String,
    /// PRODUCT REVISION LEVEL, up to 4 printable ASCII characters.
    pub revision: String,
    /// Unit serial number (VPD page 80h), up to 36 printable ASCII characters; may be empty.
    pub serial: String,
    /// NAA designator (VPD page 83h).
    pub world_wide_name: Option<u64>,
}

impl Identity {
    fn check(&self) -> Result<(), DeviceError> {
        let strings = [
            ("vendor", &self.vendor, 8),
            ("product", &self.product, 16),
            ("revision", &self.revision, 4),
            ("serial number", &self.serial, MAX_SERIAL),
        ];
        for (name, value, most) in strings {
            if value.len() > most || !value.chars().all(|c| printable(&c)) {
                let problem = format!("the {name} is not up to {most} printable ASCII characters");
                return Err(DeviceError::Config(problem));
            }
        }
        Ok(())
    }
}

/// Characters of the longest serial number.
const MAX_SERIAL: usize = 36;
/// Bytes of the largest disk, so that the end of every range in it is a number of 64 bits, too.
const MAX_BYTES: u64 = 1 << 62;

fn printable(c: &char) -> bool {
    matches!(c, ' '..='~')
}

/// A disk. The image's logical blocks are the disk's.
#[derive(Clone)]
pub struct DiskOptions {
    /// Where the data is.
    pub backend: Arc<dyn BlockBackend>,
    /// Who it is.
    pub identity: Identity,
    /// Writes are refused although the image takes them.
    pub read_only: bool,
}

impl DiskOptions {
    /// A disk on `backend`, with the serial number that the backend names.
    pub fn new(backend: Arc<dyn BlockBackend>) -> Self {
        let serial = backend.info().id.chars().filter(printable).take(MAX_SERIAL).collect();
        let identity = Identity {
            vendor: "PARASLOT".into(),
            product: "DISK".into(),
            revision: "1".into(),
            serial,
            world_wide_name: None,
        };
        Self { backend, identity, read_only: false }
    }

    pub(super) fn check(&self) -> Result<BlockInfo, DeviceError> {
        self.identity.check()?;
        let info = self.backend.info();
        let refuse = |what: String| Err(DeviceError::Config(what));
        let block = info.logical_block;
        if !block.is_power_of_two() || !(512..=65536).contains(&block) {
            return refuse(format!("logical blocks of {block} bytes"));
        }
        if !info.physical_block.is_power_of_two() || info.physical_block < block {
            return refuse(format!("physical blocks of {} bytes", info.physical_block));
        }
        if info.capacity < block.into() || info.capacity > MAX_BYTES {
            return refuse(format!("a capacity of {} bytes", info.capacity));
        }
        Ok(info)
    }
}

/// A CD-ROM drive. Its blocks have 2048 bytes; an image's last part that does not fill one is not seen.
#[derive(Clone)]
pub struct CdromOptions {
    /// The disc in it, if there is one.
    pub medium: Option<Arc<dyn BlockBackend>>,
    /// Who it is.
    pub identity: Identity,
}

impl CdromOptions {
    /// A drive with `medium` in it, without a serial number.
    pub fn new(medium: Option<Arc<dyn BlockBackend>>) -> Self {
        let identity = Identity {
            vendor: "PARASLOT".into(),
            product: "CD-ROM".into(),
            revision: "1".into(),
            serial: String::new(),
            world_wide_name: None,
        };
        Self { medium, identity }
    }

    pub(super) fn check(&self) -> Result<(), DeviceError> {
        self.identity.check()?;
        self.medium.as_ref().map_or(Ok(()), |medium| check_disc(&medium.info()))
    }
}

/// Whether an image can be a disc: blocks of 2048 bytes can be read from it, and the last one has a
/// number of 32 bits.
pub(super) fn check_disc(info: &BlockInfo) -> Result<(), DeviceError> {
    let block = u64::from(mmc::BLOCK);
    let problem = if !info.logical_block.is_power_of_two() || info.logical_block > mmc::BLOCK {
        format!("an image with blocks of {} bytes is no disc", info.logical_block)
    } else if !(1..u64::from(u32::MAX)).contains(&(info.capacity / block)) {
        format!("an image of {} bytes is no disc", info.capacity)
    } else {
        return Ok(());
    };
    Err(DeviceError::Config(problem))
}
