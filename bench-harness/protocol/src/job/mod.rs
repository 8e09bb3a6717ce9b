//! What the guest is to do.

use core::fmt;
use core::str::FromStr;

/// Which driver to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// virtio-blk.
    VirtioBlk,
    /// AHCI, the first port with a disk.
    Ahci,
}

/// How the disk is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads at random offsets.
    RandomRead,
    /// Writes at random offsets, all read back and checked after the measured part.
    RandomWrite,
    /// Reads in order, starting over at the end.
    SequentialRead,
}

/// How the driver learns of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It looks, with the device's interrupts off.
    Poll,
    /// It sleeps until the device interrupts.
    Interrupt,
}

/// One workload on one device. Its text form is `key=value` words in any order; unknown words are
/// ignored, since a loader may add its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
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

/// What is wrong with a job's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobError {
    /// A key is missing.
    Missing(&'static str),
    /// A value is not understood or out of its range.
    Invalid(&'static str),
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "the job has no {key}"),
            Self::Invalid(key) => write!(f, "the job's {key} is not valid"),
        }
    }
}

impl core::error::Error for JobError {}

impl Device {
    /// Its name on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtioBlk => "virtio-blk",
            Self::Ahci => "ahci",
        }
    }
}

impl Access {
    /// Its name on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RandomRead => "randread",
            Self::RandomWrite => "randwrite",
            Self::SequentialRead => "read",
        }
    }
}

impl Completion {
    /// Its name on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Interrupt => "interrupt",
        }
    }
}

macro_rules! named {
    ($type:ident, $key:literal, [$($variant:ident),+]) => {
        impl FromStr for $type {
            type Err = JobError;
            fn from_str(text: &str) -> Result<Self, JobError> {
                [$(Self::$variant),+]
                    .into_iter()
                    .find(|value| value.name() == text)
                    .ok_or(JobError::Invalid($key))
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
named!(Device, "device", [VirtioBlk, Ahci]);
named!(Access, "access", [RandomRead, RandomWrite, SequentialRead]);
named!(Completion, "completion", [Poll, Interrupt]);

impl fmt::Display for Job {
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

impl FromStr for Job {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Self, JobError> {
        let find = |key: &'static str| {
            text.split_ascii_whitespace()
                .filter_map(|word| word.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
                .ok_or(JobError::Missing(key))
        };
        fn number<T: FromStr>(key: &'static str, text: &str) -> Result<T, JobError> {
            text.parse().map_err(|_| JobError::Invalid(key))
        }
        let job = Self {
            device: find("device")?.parse()?,
            access: find("access")?.parse()?,
            completion: find("completion")?.parse()?,
            block_size: number("block_size", find("block_size")?)?,
            depth: number("depth", find("depth")?)?,
            span: number("span", find("span")?)?,
            warm_up_ms: number("warm_up_ms", find("warm_up_ms")?)?,
            measure_ms: number("measure_ms", find("measure_ms")?)?,
            operations: number("operations", find("operations")?)?,
            verify: number::<u8>("verify", find("verify")?)? != 0,
            seed: number("seed", find("seed")?)?,
            tsc_hz: number("tsc_hz", find("tsc_hz")?)?,
        };
        job.check()?;
        Ok(job)
    }
}

impl Job {
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

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    const JOB: Job = Job {
        device: Device::Ahci,
        access: Access::RandomWrite,
        completion: Completion::Interrupt,
        block_size: 4096,
        depth: 32,
        span: 1 << 30,
        warm_up_ms: 10,
        measure_ms: 100,
        operations: 5,
        verify: true,
        seed: u64::MAX,
        tsc_hz: 0,
    };

    #[test]
    fn text_and_back() {
        let text = JOB.to_string() + " console=ttyS0 quiet";
        assert_eq!(text.parse(), Ok(JOB));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert_eq!("".parse::<Job>(), Err(JobError::Missing("device")));
        let text = JOB.to_string();
        for (from, to, key) in [
            ("device=ahci", "device=floppy", "device"),
            ("depth=32", "depth=0", "depth"),
            ("depth=32", "depth=99999", "depth"),
            ("block_size=4096", "block_size=512", "block_size"),
            ("span=1073741824", "span=4097", "span"),
        ] {
            assert_eq!(text.replace(from, to).parse::<Job>(), Err(JobError::Invalid(key)), "{to}");
        }
    }
}
