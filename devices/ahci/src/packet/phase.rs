//! How a packet command's data goes over the link, and which PIO setup FIS is the last one.

use paraslot_device::dma::Direction;
use paraslot_spec::ahci::PortInterrupt;
use paraslot_spec::ahci::fis::{
    FLAG_DIRECTION, FLAG_INTERRUPT, PioSetup, RegisterH2d, TYPE_PIO_SETUP,
};
use paraslot_spec::ata::packet::{BYTE_COUNT_MAX, LEN, features, reason};
use paraslot_spec::ata::status;
use serde::{Deserialize, Serialize};

use crate::disk::READY;

/// The way of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Phase {
    to_host: bool,
    /// Most bytes at a time, if it goes by PIO.
    limit: Option<u16>,
}

impl Phase {
    /// The way that a PACKET asks for.
    pub(crate) fn new(fis: &RegisterH2d, direction: Direction) -> Self {
        let [_, low, high] = fis.lba;
        let limit = match u16::from_le_bytes([low, high]) {
            // IDENTIFY PACKET DEVICE says so of 0 (word 125).
            0 | u16::MAX => BYTE_COUNT_MAX,
            limit => limit,
        };
        let pio = fis.features & features::DMA == 0;
        Self { to_host: direction == Direction::FromDevice, limit: pio.then_some(limit) }
    }

    /// The last PIO setup FIS of a command that has moved `bytes` bytes: that of the last block of
    /// data, or, if no data went by PIO, that of the command packet itself. And what it causes.
    pub(crate) fn setup(self, bytes: u32) -> (PioSetup, PortInterrupt) {
        let mut fis = PioSetup {
            fis_type: TYPE_PIO_SETUP,
            status: READY | status::DRQ,
            e_status: READY | status::BSY,
            ..PioSetup::default()
        };
        let Some(limit) = self.limit.filter(|_| bytes != 0) else {
            fis.count = u16::from(reason::CD).into();
            fis.transfer_count = u16::try_from(LEN).unwrap_or(u16::MAX).into();
            return (fis, PortInterrupt::empty());
        };
        let block = last_block(bytes, limit);
        let [low, high] = block.to_le_bytes();
        let (flags, way) = if self.to_host { (FLAG_DIRECTION, reason::IO) } else { (0, 0) };
        fis.flags = flags | FLAG_INTERRUPT;
        fis.count = u16::from(way).into();
        fis.lba = [0, low, high];
        // On the link there are only whole words.
        fis.transfer_count = block.next_multiple_of(2).into();
        (fis, PortInterrupt::PSS)
    }
}

/// Bytes of the last block, when `bytes` bytes (not 0) go in blocks of at most `limit` bytes. Only the
/// last may be odd.
fn last_block(bytes: u32, limit: u16) -> u16 {
    if let Ok(bytes) = u16::try_from(bytes)
        && bytes <= limit
    {
        return bytes;
    }
    // A limit of one byte cannot be kept with more than one to move: two is the least there is.
    let block = (limit & !1).max(2);
    match u16::try_from(bytes % u32::from(block)) {
        Ok(0) | Err(_) => block,
        Ok(rest) => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_is_what_remains() {
        for (bytes, limit, last) in [
            (1, 0xfffe, 1),
            (2048, 2048, 2048),
            (2048, 2047, 2),
            (2049, 2048, 1),
            (5, 1, 1),
            (6, 1, 2),
            (5, 3, 1),
            (0xffff, 0xfffe, 1),
            (0x1_fffc, 0xfffe, 0xfffe),
            (u32::MAX, 2, 1),
        ] {
            assert_eq!(last_block(bytes, limit), last, "{bytes} by {limit}");
        }
    }

    #[test]
    fn the_limit_is_of_pio_alone_and_0_is_the_most() {
        let mut fis = RegisterH2d::default();
        for (lba, limit) in [([9, 0, 8], 2048), ([9, 0, 0], 0xfffe), ([9, 0xff, 0xff], 0xfffe)] {
            fis.lba = lba;
            fis.features = 0;
            assert_eq!(Phase::new(&fis, Direction::FromDevice).limit, Some(limit));
            fis.features = features::DMA;
            assert_eq!(Phase::new(&fis, Direction::FromDevice).limit, None);
        }
    }
}
