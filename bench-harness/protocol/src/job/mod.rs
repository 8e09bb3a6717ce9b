//! What the guest is to do.

mod disk;
mod net;
mod text;

pub use disk::{Access, DiskJob};
pub use net::{MAX_BATCH, NetJob, Traffic};

use core::fmt;
use core::str::FromStr;

use text::{Words, named};

/// Which driver to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// virtio-blk.
    VirtioBlk,
    /// virtio-scsi, the first disk.
    VirtioScsi,
    /// pvscsi, the first disk.
    Pvscsi,
    /// AHCI, the first port with a disk.
    Ahci,
    /// NVMe, the first namespace.
    Nvme,
    /// virtio-net.
    VirtioNet,
    /// vmxnet3.
    Vmxnet3,
    /// e1000.
    E1000,
}

/// What a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Disks.
    Disk,
    /// Networks.
    Net,
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
/// ignored, since a loader may add its own. The device decides which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// On a disk.
    Disk(DiskJob),
    /// On a network adapter.
    Net(NetJob),
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
    /// All of them: disks, then network adapters, paravirtual ones first.
    pub const ALL: [Self; 8] = [
        Self::VirtioBlk,
        Self::VirtioScsi,
        Self::Pvscsi,
        Self::Ahci,
        Self::Nvme,
        Self::VirtioNet,
        Self::Vmxnet3,
        Self::E1000,
    ];

    /// Those that the project has a model of, in the same order. The others can be driven where
    /// somebody else provides them: another monitor, or a host that passes one through.
    pub const MODELS: [Self; 7] = [
        Self::VirtioBlk,
        Self::VirtioScsi,
        Self::Pvscsi,
        Self::Ahci,
        Self::VirtioNet,
        Self::Vmxnet3,
        Self::E1000,
    ];

    /// Its name on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtioBlk => "virtio-blk",
            Self::VirtioScsi => "virtio-scsi",
            Self::Pvscsi => "pvscsi",
            Self::Ahci => "ahci",
            Self::Nvme => "nvme",
            Self::VirtioNet => "virtio-net",
            Self::Vmxnet3 => "vmxnet3",
            Self::E1000 => "e1000",
        }
    }

    /// What it is for.
    pub const fn class(self) -> Class {
        match self {
            Self::VirtioBlk | Self::VirtioScsi | Self::Pvscsi | Self::Ahci | Self::Nvme => {
                Class::Disk
            }
            Self::VirtioNet | Self::Vmxnet3 | Self::E1000 => Class::Net,
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

named!(Device, "device", [VirtioBlk, VirtioScsi, Pvscsi, Ahci, Nvme, VirtioNet, Vmxnet3, E1000]);
named!(Completion, "completion", [Poll, Interrupt]);

impl From<DiskJob> for Job {
    fn from(job: DiskJob) -> Self {
        Self::Disk(job)
    }
}

impl From<NetJob> for Job {
    fn from(job: NetJob) -> Self {
        Self::Net(job)
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(job) => job.fmt(f),
            Self::Net(job) => job.fmt(f),
        }
    }
}

impl FromStr for Job {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Self, JobError> {
        let words = Words(text);
        let job = match words.get::<Device>("device")?.class() {
            Class::Disk => Self::Disk(DiskJob::read(words)?),
            Class::Net => Self::Net(NetJob::read(words)?),
        };
        job.check()?;
        Ok(job)
    }
}

impl Job {
    /// The device.
    pub const fn device(&self) -> Device {
        match self {
            Self::Disk(job) => job.device,
            Self::Net(job) => job.device,
        }
    }

    /// Milliseconds before the measured part, and of it.
    pub const fn times_ms(&self) -> (u32, u32) {
        match self {
            Self::Disk(job) => (job.warm_up_ms, job.measure_ms),
            Self::Net(job) => (job.warm_up_ms, job.measure_ms),
        }
    }

    /// Frequency of the time stamp counter in Hz, where the harness knows it; 0 lets the guest find
    /// out.
    pub const fn tsc_hz(&self) -> u64 {
        match self {
            Self::Disk(job) => job.tsc_hz,
            Self::Net(job) => job.tsc_hz,
        }
    }

    /// The same with another frequency.
    #[must_use]
    pub const fn with_tsc_hz(mut self, tsc_hz: u64) -> Self {
        match &mut self {
            Self::Disk(job) => job.tsc_hz = tsc_hz,
            Self::Net(job) => job.tsc_hz = tsc_hz,
        }
        self
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn check(&self) -> Result<(), JobError> {
        match self {
            Self::Disk(job) => job.check(),
            Self::Net(job) => job.check(),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    const DISK: DiskJob = DiskJob {
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
    const NET: NetJob = NetJob {
        device: Device::E1000,
        traffic: Traffic::Request,
        completion: Completion::Poll,
        frame_size: 1514,
        batch: 32,
        rate: 10_000,
        warm_up_ms: 10,
        measure_ms: 100,
        operations: 5,
        verify: true,
        tsc_hz: 1,
    };

    #[test]
    fn every_device_has_a_name_of_its_own() {
        for device in Device::ALL {
            assert_eq!(device.name().parse(), Ok(device));
        }
        let modelled = Device::ALL.into_iter().filter(|device| *device != Device::Nvme);
        assert!(modelled.eq(Device::MODELS));
    }

    #[test]
    fn text_and_back() {
        for job in [Job::Disk(DISK), Job::Net(NET)] {
            let text = job.to_string() + " console=ttyS0 quiet";
            assert_eq!(text.parse(), Ok(job));
        }
        assert_eq!(Job::Net(NET).with_tsc_hz(7).tsc_hz(), 7);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert_eq!("".parse::<Job>(), Err(JobError::Missing("device")));
        assert_eq!("device=e1000".parse::<Job>(), Err(JobError::Missing("traffic")));
        let (disk, net) = (Job::Disk(DISK).to_string(), Job::Net(NET).to_string());
        for (text, from, to, key) in [
            (&disk, "device=ahci", "device=floppy", "device"),
            (&disk, "depth=32", "depth=0", "depth"),
            (&disk, "depth=32", "depth=99999", "depth"),
            (&disk, "block_size=4096", "block_size=512", "block_size"),
            (&disk, "span=1073741824", "span=4097", "span"),
            (&net, "frame_size=1514", "frame_size=63", "frame_size"),
            (&net, "frame_size=1514", "frame_size=65537", "frame_size"),
            (&net, "batch=32", "batch=0", "batch"),
            (&net, "batch=32", "batch=129", "batch"),
            (&net, "traffic=rr", "traffic=walk", "traffic"),
        ] {
            assert_eq!(text.replace(from, to).parse::<Job>(), Err(JobError::Invalid(key)), "{to}");
        }
        let unpaced = Job::Net(NetJob { traffic: Traffic::Receive, ..NET });
        assert_eq!(unpaced.check(), Err(JobError::Invalid("rate")));
    }
}
