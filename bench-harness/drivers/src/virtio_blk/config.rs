//! What the driver is asked for, and what the device says of itself (5.2.3, 5.2.4).

use core::mem::offset_of;

use paraslot_spec::virtio::feature;
use paraslot_spec::virtio_blk::{Config, SECTOR_SIZE, feature as blk};

use crate::virtio::Transport;
use crate::{Error, Platform};

/// How a disk is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Requests in flight, 1 to [`MAX_DEPTH`](crate::MAX_DEPTH).
    pub depth: u16,
    /// Queues to use, 1 to [`MAX_QUEUES`](super::MAX_QUEUES); tags are dealt to them in turn.
    pub queues: u16,
    /// The platform's number of the interrupt to use.
    pub interrupt: u8,
    /// Features to use if the device offers them.
    pub accept: u64,
}

impl Options {
    /// Every feature that this driver knows.
    pub const ALL_FEATURES: u64 = feature::INDIRECT_DESC
        | feature::EVENT_IDX
        | feature::RING_RESET
        | blk::BLK_SIZE
        | blk::FLUSH
        | blk::MQ
        | blk::DISCARD
        | blk::WRITE_ZEROES
        | blk::RO;

    /// One queue, every feature, interrupt 0.
    pub const fn new(depth: u16) -> Self {
        Self { depth, queues: 1, interrupt: 0, accept: Self::ALL_FEATURES }
    }
}

/// Limits of discard and write zeroes, in sectors; 0 if not supported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) discard: u32,
    pub(super) write_zeroes: u32,
}

pub(super) fn read_config<P: Platform>(
    transport: &Transport<'_, P>,
) -> Result<(u64, u32, Limits), Error> {
    let has = |mask| transport.has(mask);
    let (capacity, block_size, limits) = transport.consistent(|transport| {
        let field = |offset, mask| if has(mask) { transport.config32(offset) } else { 0 };
        let at = offset_of!(Config, capacity);
        let low = u64::from(transport.config32(at));
        let capacity = low | u64::from(transport.config32(at + 4)) << 32;
        let limits = Limits {
            discard: field(offset_of!(Config, max_discard_sectors), blk::DISCARD),
            write_zeroes: field(offset_of!(Config, max_write_zeroes_sectors), blk::WRITE_ZEROES),
        };
        (capacity, field(offset_of!(Config, blk_size), blk::BLK_SIZE), limits)
    })?;
    let block_size = if has(blk::BLK_SIZE) { block_size } else { 512 };
    if !block_size.is_power_of_two() || !(512..=65536).contains(&block_size) {
        return Err(transport.fail(Error::Protocol("its block size makes no sense")));
    }
    let capacity =
        capacity.checked_mul(SECTOR_SIZE).ok_or(Error::Protocol("its capacity makes no sense"))?;
    Ok((capacity, block_size, limits))
}
