//! How the device is configured, and what the driver sees of that.

use paraslot_device::DeviceError;
use paraslot_scsi::Address;
use paraslot_spec::scsi::lun::FLAT_MAX;
use paraslot_spec::virtio::feature as virtio;
use paraslot_spec::virtio::split::MAX_QUEUE_SIZE;
use paraslot_spec::virtio_scsi::{
    Config, DEFAULT_CDB_SIZE, DEFAULT_SENSE_SIZE, Event, FIRST_REQUEST_QUEUE, feature,
};
use paraslot_virtio::MAX_CHAIN;

/// Most request queues.
pub const MAX_REQUEST_QUEUES: u16 = 256;
/// Largest sense_size that a driver can set: no sense data is longer (SPC-4, 4.5.2.1).
pub const MAX_SENSE_SIZE: u32 = 252;
/// Largest cdb_size that a driver can set: no command is longer (SPC-4, 4.2.3).
pub const MAX_CDB_SIZE: u32 = 260;

/// Most commands for one unit that may be asked for: Linux keeps the number in 16 bits with a sign.
const MOST_PER_LUN: u32 = 4096;
/// Fewest sectors that a transfer can be limited to: a page.
const FEWEST_SECTORS: u32 = 8;
/// Most entries of the control and the event queue. What they carry is rare.
const MOST_SLOW_ENTRIES: u16 = 256;
/// Descriptors of a request that are not data: its header and its response.
const OVERHEAD: u32 = 2;

/// All that this device can do.
const SERVED: u64 = virtio::EVENT_IDX | virtio::INDIRECT_DESC | feature::HOTPLUG | feature::CHANGE;

/// How a [`VirtioScsi`](crate::VirtioScsi) presents itself. Which units there can be is the bus's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Request queues, from 1 to [`MAX_REQUEST_QUEUES`]. One for each processor of the guest is best.
    pub request_queues: u16,
    /// Entries of each, a power of two from 4 to 32768. The control and the event queue have as many,
    /// and at most 256.
    pub queue_size: u16,
    /// Most data buffers in a command; without, as many as a chain as long as the queue holds. At
    /// most 1022, or the queue size less 2 if that is more.
    pub seg_max: Option<u32>,
    /// Longest transfer that the driver is told to use, in sectors of 512 bytes, at least 8. Longer
    /// ones are served all the same.
    pub max_sectors: u32,
    /// Most commands for one unit at once, from 1 to the queue size and 4096; without, as many.
    pub cmd_per_lun: Option<u32>,
    /// What may be offered, as feature bits.
    pub features: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_queues: 1,
            queue_size: 256,
            seg_max: None,
            max_sectors: 0xffff,
            cmd_per_lun: None,
            features: u64::MAX,
        }
    }
}

fn refuse<T>(problem: String) -> Result<T, DeviceError> {
    Err(DeviceError::Config(format!("virtio-scsi: {problem}")))
}

impl Options {
    /// What is wrong with them for such a bus.
    fn check(&self, limits: Address) -> Result<(), DeviceError> {
        let Self { request_queues, queue_size, seg_max, max_sectors, cmd_per_lun, .. } = self;
        if !(1..=MAX_REQUEST_QUEUES).contains(request_queues) {
            return refuse(format!(
                "{request_queues} request queues; choose 1 to {MAX_REQUEST_QUEUES}"
            ));
        }
        if !queue_size.is_power_of_two() || !(4..=MAX_QUEUE_SIZE).contains(queue_size) {
            return refuse(format!(
                "queue size {queue_size}; choose a power of two from 4 to {MAX_QUEUE_SIZE}"
            ));
        }
        let longest = u32::from(MAX_CHAIN.max(*queue_size)) - OVERHEAD;
        if let Some(seg_max) = seg_max.filter(|seg_max| !(1..=longest).contains(seg_max)) {
            return refuse(format!("seg_max {seg_max}; choose 1 to {longest}"));
        }
        if *max_sectors < FEWEST_SECTORS {
            return refuse(format!("max_sectors {max_sectors}; choose at least {FEWEST_SECTORS}"));
        }
        let most = self.most_per_lun();
        if let Some(wanted) = cmd_per_lun.filter(|wanted| !(1..=most).contains(wanted)) {
            return refuse(format!("cmd_per_lun {wanted}; choose 1 to {most}"));
        }
        if limits.lun > FLAT_MAX {
            let lun = limits.lun;
            return refuse(format!("LUNs up to {lun}; {FLAT_MAX} is the highest there is"));
        }
        Ok(())
    }

    fn most_per_lun(&self) -> u32 {
        u32::from(self.queue_size).min(MOST_PER_LUN)
    }

    /// Features and configuration for a bus with such limits.
    pub(crate) fn resolve(&self, limits: Address) -> Result<(u64, Config), DeviceError> {
        self.check(limits)?;
        let seg_max =
            self.seg_max.unwrap_or_else(|| u32::from(self.queue_size.min(MAX_CHAIN)) - OVERHEAD);
        let info_size = u32::try_from(size_of::<Event>()).unwrap_or(u32::MAX);
        let config = Config {
            num_queues: u32::from(self.request_queues).into(),
            seg_max: seg_max.into(),
            max_sectors: self.max_sectors.into(),
            cmd_per_lun: self.cmd_per_lun.unwrap_or_else(|| self.most_per_lun()).into(),
            event_info_size: info_size.into(),
            sense_size: DEFAULT_SENSE_SIZE.into(),
            cdb_size: DEFAULT_CDB_SIZE.into(),
            max_channel: 0.into(),
            max_target: u16::from(limits.target).into(),
            max_lun: u32::from(limits.lun).into(),
        };
        Ok((SERVED & self.features, config))
    }

    /// Largest sizes of all queues.
    pub(crate) fn queue_sizes(&self) -> Box<[u16]> {
        let slow = self.queue_size.min(MOST_SLOW_ENTRIES);
        let queues = FIRST_REQUEST_QUEUE.saturating_add(self.request_queues);
        let size = |index| if index < FIRST_REQUEST_QUEUE { slow } else { self.queue_size };
        (0..queues).map(size).collect()
    }
}
