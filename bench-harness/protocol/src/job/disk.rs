//! A disk's job.

use core::fmt;

use super::text::{Words, named};
use super::{Completion, Device, JobError};

/// How the disk is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads at random offsets.
    RandomRead,
    /// Writes at random offsets, all read back and checked after the measured part.
    RandomWrite,
    /// Reads in order, starting over at the end.
    SequentialRead,
    /// Writes in order, starting over at the end: what reads are compared with. For disks that the harness
    /// cannot fill.
    Fill,
}

impl Access {
    /// Its name on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RandomRead => "randread",
            Self::RandomWrite => "randwrite",
            Self::SequentialRead => "read",
            Self::Fill => "fill",
        }
    }
}

named!(Access, "access", [RandomRead, RandomWrite, SequentialRead, Fill]);

/// One workload on one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskJob {
    /// The device.
    pub device: Device,
    /// The access pattern.
    pub access: Access,
    /// Completions.
    pub completion: Completion,
    /// Bytes of each operation, a multiple of 4096.
    pub block_size: u32,
    /// Operations kept in flight, 1 to 256.
    pub depth: u16,
    /// Bytes of the disk that are used, from its start; a multiple of `block_size`.
    pub span: u64,
    /// Milliseconds before the measured part.
    pub warm_up_ms: u32,
    /// Milliseconds of the measured part, unless `operations` ends it earlier.
    pub measure_ms: u32,
    /// Operations after which the measured part ends; 0 for no such limit.
    pub operations: u64,
    /// Whether every read is compared with what was written. Off for backends that store nothing.
    pub verify: bool,
    /// Seed of the random offsets.
    pub seed: u64,
    /// Frequency of the time stamp counter in Hz, where the harness knows it; 0 lets the guest find
    /// out.
    pub tsc_hz: u64,
}

impl DiskJob {
    pub(super) fn read(words: Words<'_>) -> Result<Self, JobError> {
        Ok(Self {
            device: words.get("device")?,
            access: words.get("access")?,
            completion: words.get("completion")?,
            block_size: words.get("block_size")?,
            depth: words.get("depth")?,
            span: words.get("span")?,
            warm_up_ms: words.get("warm_up_ms")?,
            measure_ms: words.get("measure_ms")?,
            operations: words.get("operations")?,
            verify: words.flag("verify")?,
            seed: words.get("seed")?,
            tsc_hz: words.get("tsc_hz")?,
        })
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn check(&self) -> Result<(), JobError> {
        if self.block_size == 0
            || !self.block_size.is_multiple_of(4096)
            || self.block_size > 1 << 20
        {
            return Err(JobError::Invalid("block_size"));
        }
        if !(1..=256).contains(&self.depth) {
            return Err(JobError::Invalid("depth"));
        }
        let block = u64::from(self.block_size);
        if !self.span.is_multiple_of(block) || self.span / block < u64::from(self.depth) {
            return Err(JobError::Invalid("span"));
        }
        Ok(())
    }
}

impl fmt::Display for DiskJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "device={} access={} completion={} block_size={} depth={} span={} warm_up_ms={} \
             measure_ms={} operations={} verify={} seed={} tsc_hz={}",
            self.device,
            self.access,
            self.completion,
            self.block_size,
            self.depth,
            self.span,
            self.warm_up_ms,
            self.measure_ms,
            self.operations,
            u8::from(self.verify),
            self.seed,
            self.tsc_hz,
        )
    }
}
