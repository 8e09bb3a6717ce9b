//! What the adapters of SCSI units have in common.

use super::{attack, feature};
use crate::entry::Evidence::Told;
use crate::entry::State::{Implemented, Refused};
use crate::entry::{Attack, Feature};

use paraslot_device::DeviceError;
use paraslot_scsi::{Address, Bus, BusOptions, DiskOptions, Initiator, LogicalUnit};

use crate::live;

/// A bus with one disk.
pub(super) fn bus() -> Result<Bus, DeviceError> {
    let bus = Bus::new(BusOptions {
        initiator: Initiator("catalogue".into()),
        max_target: 63,
        max_lun: 16383,
        autosense: true,
    });
    let disk = LogicalUnit::disk(DiskOptions::new(live::image()?))?;
    let attached = bus.attach(Address::default(), disk);
    attached.map_err(|error| DeviceError::Config(error.to_string()))?;
    Ok(bus)
}

/// What the units can do, whichever adapter they are behind.
pub(super) const DISKS: Feature = feature(
    "disks (SBC)",
    Implemented,
    "READ and WRITE of all lengths with FUA, VERIFY, SYNCHRONIZE CACHE, UNMAP, WRITE SAME, COMPARE AND WRITE, mode and log pages.",
    Told,
);
pub(super) const CDROMS: Feature =
    feature("CD-ROM drives (MMC)", Implemented, "With discs that come and go, and a tray.", Told);
pub(super) const RESERVATIONS: Feature = feature(
    "persistent reservations",
    Implemented,
    "Registrations, all types of reservations, PREEMPT AND ABORT, between adapters that share a unit.",
    Told,
);
pub(super) const MULTIPATH: Feature = feature(
    "identification (VPD)",
    Implemented,
    "Serial number, NAA and T10 designators, limits, thin provisioning.",
    Told,
);
pub(super) const PROTECTION: Feature =
    feature("protection information (T10 PI)", Refused, "No backend keeps any.", Told);

/// What went wrong in others' units.
pub(super) const OTHERS: [Attack; 4] = [
    attack(
        "CVE-2023-42467",
        "QEMU's disk: a block size of 256 that the guest set, division by zero.",
    ),
    attack("CVE-2021-3930", "QEMU's disk: MODE SELECT of page 3fh, one too far."),
    attack("CVE-2015-5158", "QEMU: the length of an unknown CDB unchecked, stack overflow."),
    attack("CVE-2013-4344", "QEMU: REPORT LUNS of more than 256 units, buffer overflow."),
];
