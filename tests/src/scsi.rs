//! SCSI buses to plug into adapters.

use std::sync::Arc;

use paraslot_backends::block::BlockBackend;
use paraslot_scsi::{Address, Bus, BusOptions, DiskOptions, Initiator, LogicalUnit};

/// A bus with nothing on it: 64 targets of 8 units.
pub fn bus() -> Bus {
    let initiator = Initiator("tests".into());
    Bus::new(BusOptions { initiator, max_target: 63, max_lun: 7, autosense: true })
}

/// A bus with one disk, the first of the first target.
///
/// # Panics
/// When the backend is none for a disk.
pub fn one_disk(backend: Arc<dyn BlockBackend>) -> Bus {
    let bus = bus();
    let unit = LogicalUnit::disk(DiskOptions::new(backend)).expect("a disk");
    bus.attach(Address::default(), unit).expect("a free place");
    bus
}
