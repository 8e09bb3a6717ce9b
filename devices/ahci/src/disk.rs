//! The ATA device behind a port: its identity, its settings, and what a reset does to them.

mod state;

use std::sync::Arc;

use paraslot_backends::block::{BlockBackend, BlockInfo, BlockOp};
use paraslot_spec::ata::{power_mode, set_features::transfer, status};
use serde::{Deserialize, Serialize};

use crate::options::DiskOptions;
pub(crate) use state::DiskState;

/// Status of a device that is ready and has nothing to report. DSC is obsolete, and expected.
pub(crate) const READY: u8 = status::DRDY | status::DSC;
/// Most sectors in a block of READ and WRITE MULTIPLE. A PIO setup FIS tells a block's length in 16
/// bits, and sectors may be of 4096 bytes.
pub(crate) const MULTIPLE_MAX: u8 = 8;
/// Most 512-byte blocks of ranges in one DATA SET MANAGEMENT.
pub(crate) const TRIM_BLOCKS: u16 = 8;

/// The medium's properties, as they were at the last hardware reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Logical sectors.
    pub(crate) sectors: u64,
    /// Bytes in a logical sector.
    pub(crate) sector_size: u32,
    /// Log2 of the logical sectors in a physical one.
    pub(crate) physical_exponent: u16,
    pub(crate) read_only: bool,
    pub(crate) volatile_cache: bool,
    pub(crate) trim: Option<Trim>,
}

/// How the image serves TRIM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trim {
    /// By zeroing and deallocating: what was trimmed reads as zeroes.
    Zeroes,
    /// By discarding: what was trimmed reads as anything.
    Discard,
}

impl Trim {
    pub(crate) fn op(self) -> BlockOp {
        match self {
            Self::Zeroes => BlockOp::WriteZeroes { unmap: true },
            Self::Discard => BlockOp::Discard,
        }
    }
}

impl Geometry {
    fn new(info: &BlockInfo) -> Self {
        let ratio = info.physical_block / info.logical_block.max(1);
        let trim = if info.read_only {
            None
        } else if info.write_zeroes_unmap {
            Some(Trim::Zeroes)
        } else {
            (info.discard_granularity != 0).then_some(Trim::Discard)
        };
        Self {
            sectors: info.capacity / u64::from(info.logical_block.max(1)),
            sector_size: info.logical_block,
            physical_exponent: u16::try_from(ratio.max(1).ilog2().min(15)).unwrap_or(0),
            read_only: info.read_only,
            volatile_cache: info.volatile_cache,
            trim,
        }
    }

    /// Whether the sectors `lba..lba + count` are all there.
    pub(crate) fn holds(&self, lba: u64, count: u64) -> bool {
        lba.checked_add(count).is_some_and(|end| end <= self.sectors)
    }
}

/// What SET FEATURES, SET MULTIPLE MODE and the like have set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) write_cache: bool,
    pub(crate) look_ahead: bool,
    /// Sectors in a block of READ and WRITE MULTIPLE, 0 for none.
    pub(crate) multiple: u8,
    /// As SET FEATURES' count says it.
    pub(crate) transfer_mode: u8,
    /// Settings survive a software reset.
    pub(crate) keep: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            write_cache: true,
            look_ahead: true,
            multiple: 0,
            transfer_mode: transfer::ULTRA_DMA | 6,
            keep: false,
        }
    }
}

/// Power modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Power {
    Active,
    Idle,
    Standby,
    Sleep,
}

impl Power {
    /// CHECK POWER MODE's answer.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Active => power_mode::ACTIVE,
            Self::Idle => power_mode::IDLE,
            Self::Standby | Self::Sleep => power_mode::STANDBY,
        }
    }
}

/// SMART's state. It is kept over all resets.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Smart {
    pub(crate) enabled: bool,
    pub(crate) sectors_written: u64,
    pub(crate) sectors_read: u64,
}

/// What the NCQ command error log tells of the command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NcqError {
    /// `None` if the command that failed was not a queued one.
    pub(crate) tag: Option<u8>,
    pub(crate) status: u8,
    pub(crate) error: u8,
    pub(crate) lba: u64,
    pub(crate) device: u8,
    pub(crate) count: u16,
}

/// The device.
pub(crate) struct Disk {
    backend: Arc<dyn BlockBackend>,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) firmware: String,
    pub(crate) world_wide_name: Option<u64>,
    pub(crate) geometry: Geometry,
    pub(crate) settings: Settings,
    pub(crate) power: Power,
    pub(crate) smart: Smart,
    /// A queued command failed: until the host has read why, everything else is aborted.
    pub(crate) ncq_error: Option<NcqError>,
    /// The host holds SRST.
    pub(crate) srst: bool,
}

impl Disk {
    pub(crate) fn new(options: DiskOptions) -> Self {
        let DiskOptions { backend, serial, model, firmware, world_wide_name } = options;
        let geometry = Geometry::new(&backend.info());
        Self {
            backend,
            serial,
            model,
            firmware,
            world_wide_name,
            geometry,
            settings: Settings::default(),
            power: Power::Active,
            smart: Smart { enabled: true, sectors_written: 0, sectors_read: 0 },
            ncq_error: None,
            srst: false,
        }
    }

    /// COMRESET, HBA reset or power-on.
    pub(crate) fn hard_reset(&mut self) {
        let Self {
            backend,
            serial: _,
            model: _,
            firmware: _,
            world_wide_name: _,
            geometry,
            settings,
            power,
            smart: _,
            ncq_error,
            srst,
        } = self;
        let now = Geometry::new(&backend.info());
        // The rest was checked at construction and does not change.
        geometry.sectors = now.sectors;
        *settings = Settings::default();
        *power = Power::Active;
        *ncq_error = None;
        *srst = false;
    }

    /// Software reset.
    pub(crate) fn soft_reset(&mut self) {
        if !self.settings.keep {
            self.settings = Settings::default();
        }
        self.power = Power::Active;
        self.ncq_error = None;
        self.srst = false;
    }

    /// Whether writes must be durable when they complete.
    pub(crate) fn write_through(&self) -> bool {
        self.geometry.volatile_cache && !self.settings.write_cache
    }
}
