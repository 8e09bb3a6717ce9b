//! What the driver is asked for, and what the device says of itself (5.6.3, 5.6.4).

use core::mem::offset_of;

use paraslot_spec::virtio::feature;
use paraslot_spec::virtio_scsi::{Config, DEFAULT_CDB_SIZE, feature as scsi};

use super::events::LAYOUT_LEN;
use crate::scsi::SENSE_LEN;
use crate::virtio::Transport;
use crate::{Error, MAX_DEPTH, Platform};

/// How a disk is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Requests in flight, 1 to [`MAX_DEPTH`].
    pub depth: u16,
    /// The platform's number of the interrupt to use.
    pub interrupt: u8,
    /// Features to use if the device offers them.
    pub accept: u64,
}

impl Options {
    /// Every feature that this driver knows.
    pub const ALL_FEATURES: u64 =
        feature::INDIRECT_DESC | feature::EVENT_IDX | scsi::HOTPLUG | scsi::CHANGE;

    /// Every feature, interrupt 0.
    pub const fn new(depth: u16) -> Self {
        Self { depth, interrupt: 0, accept: Self::ALL_FEATURES }
    }

    pub(super) fn check(self) -> Result<(), Error> {
        match (1..=MAX_DEPTH).contains(&usize::from(self.depth)) {
            true => Ok(()),
            false => Err(Error::Request("depth")),
        }
    }
}

/// Bytes of a sector, the unit of max_sectors.
const SECTOR: u64 = 512;
/// max_sectors of a device that does not say, as Linux takes it.
const USUAL_SECTORS: u32 = 0xffff;
/// Bytes of an event buffer at most.
const MAX_EVENT: u32 = 64;

/// The device's limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most commands for one unit.
    per_unit: u32,
    /// Targets that there can be.
    pub(super) targets: u16,
    /// Most bytes that a command moves.
    pub(super) max_transfer: u64,
    /// Bytes of an event buffer.
    pub(super) event_len: u32,
}

impl Limits {
    pub(super) fn read<P: Platform>(transport: &Transport<'_, P>) -> Result<Self, Error> {
        let (queues, sectors, per_unit, event, target) = transport.consistent(|transport| {
            (
                transport.config32(offset_of!(Config, num_queues)),
                transport.config32(offset_of!(Config, max_sectors)),
                transport.config32(offset_of!(Config, cmd_per_lun)),
                transport.config32(offset_of!(Config, event_info_size)),
                transport.config16(offset_of!(Config, max_target)),
            )
        })?;
        if queues == 0 {
            return Err(Error::Protocol("it has no request queue"));
        }
        let sectors = if sectors == 0 { USUAL_SECTORS } else { sectors };
        Ok(Self {
            // 0 does not say how many.
            per_unit: per_unit.max(1),
            // 5.6.4: one byte of the address says which.
            targets: target.min(u8::MAX.into()) + 1,
            max_transfer: u64::from(sectors) * SECTOR,
            event_len: event.clamp(LAYOUT_LEN, MAX_EVENT),
        })
    }

    pub(super) fn check(&self, options: Options) -> Result<(), Error> {
        match u32::from(options.depth) <= self.per_unit {
            true => Ok(()),
            false => Err(Error::Unsupported("so many requests in flight")),
        }
    }

    /// Sets the sizes that the device lets the driver choose: those that it has after a reset, in
    /// case that it has others.
    pub(super) fn write<P: Platform>(&self, transport: &Transport<'_, P>) {
        let sense = u32::try_from(SENSE_LEN).unwrap_or(0);
        transport.set_config32(offset_of!(Config, cdb_size), DEFAULT_CDB_SIZE);
        transport.set_config32(offset_of!(Config, sense_size), sense);
    }
}
