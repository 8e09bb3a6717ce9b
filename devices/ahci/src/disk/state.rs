//! A disk, saved.

use paraslot_device::StateError;
use paraslot_spec::ahci::MAX_SLOTS;
use paraslot_spec::ata::LBA_48_END;
use serde::{Deserialize, Serialize};

use super::{Disk, MULTIPLE_MAX, NcqError, Power, Settings, Smart};
use crate::command::is_transfer_mode;

/// What a host has made of a disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskState {
    /// Bytes of a logical sector, and how many of them there are, as the host was last told.
    sector_size: u32,
    sectors: u64,
    settings: Settings,
    power: Power,
    smart: Smart,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ncq_error: Option<NcqError>,
    srst: bool,
}

impl DiskState {
    /// The capacity as the host knows it, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.sectors.saturating_mul(self.sector())
    }

    /// Bytes of a sector.
    pub(crate) fn sector(&self) -> u64 {
        self.sector_size.into()
    }
}

impl Disk {
    pub(crate) fn save(&self) -> DiskState {
        let Self {
            backend: _,
            serial: _,
            model: _,
            firmware: _,
            world_wide_name: _,
            geometry,
            settings,
            power,
            smart,
            ncq_error,
            srst,
        } = self;
        DiskState {
            sector_size: geometry.sector_size,
            sectors: geometry.sectors,
            settings: *settings,
            power: *power,
            smart: *smart,
            ncq_error: *ncq_error,
            srst: *srst,
        }
    }

    /// Whether commands can lead there.
    pub(crate) fn check(&self, saved: &DiskState) -> Result<(), StateError> {
        let DiskState { sector_size, sectors, settings, power: _, smart: _, ncq_error, srst: _ } =
            saved;
        let impossible = |what: &str| Err(StateError::impossible(what));
        if *sector_size != self.geometry.sector_size || !(1..LBA_48_END).contains(sectors) {
            return impossible("a disk with other sectors");
        }
        let Settings { write_cache, look_ahead: _, multiple, transfer_mode, keep: _ } = *settings;
        let blocks = multiple == 0 || multiple <= MULTIPLE_MAX && multiple.is_power_of_two();
        let cache = write_cache || self.geometry.volatile_cache;
        if !blocks || !cache || !is_transfer_mode(transfer_mode) {
            return impossible("settings that the disk refuses");
        }
        if let Some(NcqError { tag, lba, .. }) = ncq_error
            && (tag.is_some_and(|tag| usize::from(tag) >= MAX_SLOTS) || *lba >= LBA_48_END)
        {
            return impossible("an error of a command that there cannot be");
        }
        Ok(())
    }

    /// Takes over what was checked. An image of another size is told by the next hardware reset, as
    /// ever.
    pub(crate) fn restore(&mut self, saved: DiskState) {
        let DiskState { sector_size: _, sectors, settings, power, smart, ncq_error, srst } = saved;
        self.geometry.sectors = sectors;
        self.settings = settings;
        self.power = power;
        self.smart = smart;
        self.ncq_error = ncq_error;
        self.srst = srst;
    }
}
