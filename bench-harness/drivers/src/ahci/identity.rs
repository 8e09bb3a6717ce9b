//! IDENTIFY DEVICE, as far as the driver needs it.

use paraslot_spec::ahci::MAX_SLOTS;
use paraslot_spec::ata::identify::{
    CAPABILITY_LBA, DSM_TRIM, SATA_NCQ, SECTOR_LOGICAL_LONG, SUPPORTED_FLUSH_EXT, SUPPORTED_LBA48,
    VALID, word,
};

use crate::{DmaRegion, Error};

/// What a disk is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) capacity: u64,
    pub(super) block_size: u32,
    /// Commands that it can queue; 0 without NCQ.
    pub(super) queue_depth: u16,
    pub(super) flush: bool,
    pub(super) trim: bool,
}

/// Bits 15:14 of a word that carries data, of which the upper must be 0 and the lower 1.
const VALIDITY: u16 = 0b11 << 14;

impl Identity {
    pub(super) fn parse(data: &DmaRegion) -> Result<Self, Error> {
        let at = |index: usize| data.read16(2 * index);
        let valid = |index: usize| Some(at(index)).filter(|word| word & VALIDITY == VALID);
        let supported = valid(word::SUPPORTED + 1).unwrap_or(0);
        if at(word::CAPABILITIES) & CAPABILITY_LBA == 0 || supported & SUPPORTED_LBA48 == 0 {
            return Err(Error::Unsupported("48-bit addresses"));
        }
        let sectors = (0..4)
            .rev()
            .fold(0, |sectors, index| sectors << 16 | u64::from(at(word::SECTORS_48 + index)));
        let words = match valid(word::SECTOR_SIZE) {
            Some(size) if size & SECTOR_LOGICAL_LONG != 0 => {
                u32::from(at(word::LOGICAL_SECTOR_WORDS + 1)) << 16
                    | u32::from(at(word::LOGICAL_SECTOR_WORDS))
            }
            _ => 256,
        };
        let block_size = words
            .checked_mul(2)
            .filter(|size| size.is_power_of_two() && (512..=65536).contains(size))
            .ok_or(Error::Protocol("its sector size makes no sense"))?;
        let capacity = sectors
            .checked_mul(u64::from(block_size))
            .ok_or(Error::Protocol("its capacity makes no sense"))?;
        let sata = at(word::SATA_CAPABILITIES);
        let queue_depth = match sata {
            u16::MAX => 0,
            _ if sata & SATA_NCQ != 0 => (at(word::QUEUE_DEPTH) & 0x1f) + 1,
            _ => 0,
        };
        debug_assert!(usize::from(queue_depth) <= MAX_SLOTS);
        Ok(Self {
            capacity,
            block_size,
            queue_depth,
            flush: supported & SUPPORTED_FLUSH_EXT != 0,
            trim: at(word::DSM) & DSM_TRIM != 0,
        })
    }
}
