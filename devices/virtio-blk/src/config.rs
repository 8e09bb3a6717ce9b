//! How the device is configured, and what the driver sees of that.

use paraslot_backends::block::BlockInfo;
use paraslot_device::DeviceError;
use paraslot_spec::virtio::feature as virtio;
use paraslot_spec::virtio::split::MAX_QUEUE_SIZE;
use paraslot_spec::virtio_blk::{Config, ID_LEN, SECTOR_SIZE, Topology, feature};
use paraslot_virtio::MAX_CHAIN;

/// Most ranges in one discard, write zeroes or secure erase request.
pub const MAX_RANGES: u32 = 256;

/// Descriptors of a request that are not data: its header and its status.
const OVERHEAD: u32 = 2;

/// How a [`VirtioBlk`](crate::VirtioBlk) presents itself. The rest (capacity, block sizes, what it
/// can do) is the backend's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Queues, from 1 to 1024. One for each processor of the guest is best.
    pub queues: u16,
    /// Entries of each, a power of two from 4 to 32768.
    pub queue_size: u16,
    /// Most data buffers in a request; without, as many as a chain as long as the queue holds. At
    /// most 1022, or the queue size less 2 if that is more.
    pub seg_max: Option<u32>,
    /// Refuse writes, even if the backend would take them.
    pub read_only: bool,
    /// Serial number, up to 20 bytes of ASCII; without, the backend's.
    pub id: Option<String>,
    /// Whether completed writes may wait for a flush, until the driver says otherwise (CONFIG_WCE).
    /// Without, as the backend has it.
    pub write_cache: Option<bool>,
    /// Most sectors (512 bytes) in one range of a discard.
    pub max_discard_sectors: u32,
    /// Most sectors in one range of a write zeroes. A backend may have to write them all.
    pub max_write_zeroes_sectors: u32,
    /// Most sectors in one range of a secure erase. A backend may have to write them all.
    pub max_secure_erase_sectors: u32,
    /// Most ranges in one of these requests, from 1 to [`MAX_RANGES`].
    pub max_ranges: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 256,
            seg_max: None,
            read_only: false,
            id: None,
            write_cache: None,
            max_discard_sectors: 1 << 22,
            max_write_zeroes_sectors: 1 << 22,
            max_secure_erase_sectors: 1 << 17,
            max_ranges: 64,
        }
    }
}

/// What the device makes of its options and its backend; fixed but for the capacity, which is not
/// here.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) logical_block: u64,
    pub(crate) read_only: bool,
    /// Writes that have completed may be lost by the backend.
    pub(crate) volatile: bool,
    /// Whether writes may be volatile before the driver says anything.
    pub(crate) write_cache: bool,
    pub(crate) max_discard: u64,
    pub(crate) max_write_zeroes: u64,
    pub(crate) max_secure_erase: u64,
    pub(crate) max_ranges: u32,
    pub(crate) id: [u8; ID_LEN],
}

fn refuse<T>(problem: String) -> Result<T, DeviceError> {
    Err(DeviceError::Config(format!("virtio-blk: {problem}")))
}

impl Options {
    /// What is wrong with them for such a backend.
    fn check(&self, info: &BlockInfo) -> Result<(), DeviceError> {
        let Self { queues, queue_size, seg_max, id, max_ranges, .. } = self;
        if !(1..=1024).contains(queues) {
            return refuse(format!("{queues} queues; choose 1 to 1024"));
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
        if let Some(id) = id.as_ref().filter(|id| id.len() > ID_LEN || !id.is_ascii()) {
            return refuse(format!("serial number {id:?}; choose up to {ID_LEN} ASCII characters"));
        }
        if !(1..=MAX_RANGES).contains(max_ranges) {
            return refuse(format!("{max_ranges} ranges in a request; choose 1 to {MAX_RANGES}"));
        }
        let block = info.logical_block;
        if !block.is_power_of_two() || !(512..=65536).contains(&block) {
            return refuse(format!(
                "the backend's block size is {block}; it must be a power of two from 512 to 65536"
            ));
        }
        for (what, sectors) in [
            ("discard", self.max_discard_sectors),
            ("write zeroes", self.max_write_zeroes_sectors),
            ("secure erase", self.max_secure_erase_sectors),
        ] {
            if u64::from(sectors) * SECTOR_SIZE < u64::from(block) {
                return refuse(format!(
                    "at most {sectors} sectors in a {what}; that is less than a block of {block} bytes"
                ));
            }
        }
        Ok(())
    }

    /// Features, configuration and limits for such a backend.
    pub(crate) fn resolve(&self, info: &BlockInfo) -> Result<(u64, Config, Limits), DeviceError> {
        self.check(info)?;
        let read_only = self.read_only || info.read_only;
        let mut id = [0; ID_LEN];
        let name = self.id.as_deref().unwrap_or(&info.id).as_bytes();
        for (to, from) in id.iter_mut().zip(name) {
            *to = *from;
        }
        let limits = Limits {
            logical_block: info.logical_block.into(),
            read_only,
            volatile: info.volatile_cache,
            write_cache: self.write_cache.unwrap_or(info.volatile_cache),
            max_discard: self.max_discard_sectors.into(),
            max_write_zeroes: self.max_write_zeroes_sectors.into(),
            max_secure_erase: self.max_secure_erase_sectors.into(),
            max_ranges: self.max_ranges,
            id,
        };

        let block = info.logical_block;
        let physical = info.physical_block.max(block);
        let exponent = physical.ilog2().saturating_sub(block.ilog2());
        let seg_max =
            self.seg_max.unwrap_or_else(|| u32::from(self.queue_size.min(MAX_CHAIN)) - OVERHEAD);
        let mut features = virtio::EVENT_IDX
            | virtio::INDIRECT_DESC
            | feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::TOPOLOGY
            | feature::FLUSH
            | feature::CONFIG_WCE;
        let mut config = Config::default();
        config.capacity = sectors(info.capacity).into();
        config.seg_max = seg_max.into();
        config.blk_size = block.into();
        config.topology = Topology {
            physical_block_exp: u8::try_from(exponent).unwrap_or_default(),
            min_io_size: u16::try_from(physical / block).unwrap_or(u16::MAX).into(),
            ..Topology::default()
        };
        config.writeback = limits.write_cache.into();
        if self.queues > 1 {
            features |= feature::MQ;
            config.num_queues = self.queues.into();
        }
        let in_sectors = |bytes: u32| (bytes / 512).max(1);
        if read_only {
            features |= feature::RO;
        } else {
            if info.discard_granularity != 0 {
                features |= feature::DISCARD;
                config.max_discard_sectors = self.max_discard_sectors.into();
                config.max_discard_seg = self.max_ranges.into();
                config.discard_sector_alignment = in_sectors(info.discard_granularity).into();
            }
            if info.write_zeroes {
                features |= feature::WRITE_ZEROES;
                config.max_write_zeroes_sectors = self.max_write_zeroes_sectors.into();
                config.max_write_zeroes_seg = self.max_ranges.into();
                config.write_zeroes_may_unmap = info.write_zeroes_unmap.into();
            }
            if info.secure_erase {
                features |= feature::SECURE_ERASE;
                config.max_secure_erase_sectors = self.max_secure_erase_sectors.into();
                config.max_secure_erase_seg = self.max_ranges.into();
                config.secure_erase_sector_alignment = in_sectors(block).into();
            }
        }
        Ok((features, config, limits))
    }
}

/// Whole sectors in so many bytes.
pub(crate) fn sectors(bytes: u64) -> u64 {
    bytes / SECTOR_SIZE
}
