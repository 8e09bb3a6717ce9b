//! What the disk's blocks should hold.

use paraslot_protocol::{PATTERN_BLOCK, PATTERN_STEP, pattern_base};

use crate::{DmaRegion, Error, Platform};

/// Set in a block's entry while a write to it is in flight.
const BUSY: u16 = 1 << 15;

/// How often each block was written, modulo 2¹⁵. Kept in two bytes for each block of a job that
/// writes, in nothing for one that does not.
pub(super) struct Contents {
    table: Option<DmaRegion>,
    block_size: u32,
    blocks: u64,
}

impl Contents {
    pub(super) fn new<P: Platform>(
        platform: &P,
        block_size: u32,
        span: u64,
        writes: bool,
    ) -> Result<Self, Error> {
        let blocks = span / u64::from(block_size);
        let table = if writes {
            let len = blocks.checked_mul(2).and_then(|len| usize::try_from(len).ok());
            let len = len.ok_or(Error::NoMemory)?;
            Some(platform.allocate(len).ok_or(Error::NoMemory)?)
        } else {
            None
        };
        Ok(Self { table, block_size, blocks })
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(super) fn offset(&self, block: u64) -> u64 {
        block * u64::from(self.block_size)
    }

    fn entry(&self, block: u64) -> Option<(&DmaRegion, usize)> {
        let index = usize::try_from(block).ok().filter(|_| block < self.blocks)?;
        self.table.as_ref().map(|table| (table, 2 * index))
    }

    fn get(&self, block: u64) -> u16 {
        self.entry(block).map_or(0, |(table, offset)| table.read16(offset))
    }

    fn set(&self, block: u64, value: u16) {
        if let Some((table, offset)) = self.entry(block) {
            table.write16(offset, value);
        }
    }

    /// The first block from `block` on, around the end, to which no write is in flight. Fewer writes
    /// must be in flight than there are blocks.
    pub(super) fn idle_from(&self, block: u64) -> u64 {
        let idle = |block: &u64| self.get(*block) & BUSY == 0;
        // One of them is idle, unless the device has written over the table.
        (block..self.blocks).chain(0..block).find(idle).unwrap_or(block)
    }

    /// Starts a write: raises the block's generation and fills `buffer` with what it stands for.
    pub(super) fn start_write(&self, block: u64, buffer: &DmaRegion) {
        let generation = self.get(block).wrapping_add(1) & !BUSY;
        self.set(block, generation | BUSY);
        self.write_pattern(block, generation, buffer);
    }

    /// Fills `buffer` with what the block holds as long as nothing was written to it.
    pub(super) fn fill(&self, block: u64, buffer: &DmaRegion) {
        self.write_pattern(block, 0, buffer);
    }

    fn write_pattern(&self, block: u64, generation: u16, buffer: &DmaRegion) {
        for start in (0..buffer.len()).step_by(PATTERN_BLOCK) {
            let base = pattern_base(self.offset(block) + start as u64, u32::from(generation));
            buffer.fill_pattern(start, PATTERN_BLOCK, base, PATTERN_STEP);
        }
    }

    /// A write has completed.
    pub(super) fn end_write(&self, block: u64) {
        self.set(block, self.get(block) & !BUSY);
    }

    /// Whether `buffer` is what the block should hold.
    pub(super) fn matches(&self, block: u64, buffer: &DmaRegion) -> bool {
        let generation = u32::from(self.get(block) & !BUSY);
        (0..buffer.len()).step_by(PATTERN_BLOCK).all(|start| {
            let base = pattern_base(self.offset(block) + start as u64, generation);
            buffer.matches_pattern(start, PATTERN_BLOCK, base, PATTERN_STEP)
        })
    }

    /// The first written block from `block` on. One that was written a multiple of 2¹⁵ times counts
    /// as not written.
    pub(super) fn written_from(&self, block: u64) -> Option<u64> {
        self.table.as_ref()?;
        (block..self.blocks).find(|block| self.get(*block) != 0)
    }
}
