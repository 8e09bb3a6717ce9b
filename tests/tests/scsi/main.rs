//! What logical units do with commands and with task management, as initiators see it.
//!
//! The tests are written once, for an [`initiator::Initiator`], and run on each way to a unit: straight
//! on a lane, by the virtio-scsi and pvscsi drivers over the devices, and (a CD-ROM drive) as ATAPI
//! behind AHCI. Expected bytes are written down here as the standards have them (SAM-5, SPC-4, SBC-3,
//! MMC-6), not taken from what the units are made with.

mod atapi;
mod attention;
mod cdb;
mod cdrom;
mod drivers;
mod failures;
mod initiator;
mod inquiry;
mod lane;
mod mode;
mod provisioning;
mod report;
mod reservations;
mod reserve;
mod tasks;
mod transfer;
mod verify;
mod ways;
mod world;
