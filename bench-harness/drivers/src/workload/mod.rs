//! Runs a [`Job`].

mod contents;
mod random;
mod runner;
#[cfg(test)]
mod tests;

use core::fmt;

use paraslot_protocol::{Access, Device, Job, JobError, Outcome, Status};
use zerocopy::little_endian::{U32, U64};

use crate::ahci::{Ahci, AhciOptions};
use crate::virtio_blk::{Options, VirtioBlk};
use crate::{Disk, Error, Failed, Platform};
use contents::Contents;
use runner::Runner;

/// The platform's interrupt that is used.
const INTERRUPT: u8 = 0;

/// Why a job did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The job's values are out of range.
    Job(JobError),
    /// The job does not fit the disk that was found.
    Unfit(&'static str),
    /// The disk could not be set up.
    SetUp(Error),
    /// The disk misbehaved.
    Device(Error),
    /// A request failed.
    Request(Failed),
    /// Data was read that is not what was written; at this offset first, in bytes.
    Corrupt(u64),
    /// Nothing completed for a long time.
    Stuck,
}

impl Failure {
    /// The status that stands for it.
    pub const fn status(self) -> Status {
        match self {
            Self::Job(_) | Self::Unfit(_) => Status::BadJob,
            Self::SetUp(_) => Status::NoDevice,
            Self::Device(_) | Self::Request(_) => Status::DeviceError,
            Self::Corrupt(_) => Status::Corrupt,
            Self::Stuck => Status::Stuck,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(error) => error.fmt(f),
            Self::Unfit(what) => write!(f, "the job does not fit the disk: {what}"),
            Self::SetUp(error) | Self::Device(error) => error.fmt(f),
            Self::Request(Failed::Io) => f.write_str("the device reports an error"),
            Self::Request(Failed::Unsupported) => f.write_str("the device refuses a request"),
            Self::Request(Failed::Short) => f.write_str("the device moved too little data"),
            Self::Corrupt(offset) => write!(f, "wrong data at offset {offset:#x}"),
            Self::Stuck => f.write_str("nothing completes"),
        }
    }
}

impl core::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Device(error)
    }
}

/// Runs a job on the first device of the kind that it names, which is reset before and after.
///
/// Before the measured part the same requests run for [`Job::warm_up_ms`]. The measured part begins
/// and ends with nothing in flight, so that its counts belong to its operations alone: a new request
/// takes each completed one's place until the time or the operations are up, and the rest is waited
/// for. It begins after the platform was told so and ends before it is told.
///
/// Latency is the time from before a request is put together for the device to when it is seen to
/// have completed; what completes in one look is seen at one time. Data is checked after that.
/// Afterwards the written blocks, after a flush if the disk knows it, are read back and checked.
///
/// What the outcome says for a job that failed is what was counted until then.
pub fn run<P: Platform>(platform: &P, job: &Job) -> Outcome {
    let mut outcome = Outcome::default();
    // What failed is in the outcome too.
    let _ = run_into(platform, job, &mut outcome);
    outcome
}

/// As [`run`], into an outcome that exists already, and with the reason of a failure.
///
/// # Errors
/// When the job does not end well; the outcome's status says so too.
pub fn run_into<P: Platform>(
    platform: &P,
    job: &Job,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let result = start(platform, job, outcome);
    let status = result.map_or_else(Failure::status, |()| Status::Ok);
    outcome.header.status = U32::new(status as u32);
    result
}

fn start<P: Platform>(platform: &P, job: &Job, outcome: &mut Outcome) -> Result<(), Failure> {
    job.check().map_err(Failure::Job)?;
    match job.device {
        Device::VirtioBlk => {
            let options = Options { interrupt: INTERRUPT, ..Options::new(job.depth) };
            let disk = VirtioBlk::new(platform, options).map_err(|error| match error {
                Error::Unsupported("so many requests in flight") => Failure::Unfit("depth"),
                error => Failure::SetUp(error),
            })?;
            run_on(platform, disk, job, outcome)
        }
        Device::Ahci => {
            let options = AhciOptions { queued: true, interrupt: INTERRUPT };
            let disk = Ahci::new(platform, options).map_err(Failure::SetUp)?;
            run_on(platform, disk, job, outcome)
        }
    }
}

/// Runs a job on a disk that was set up already, whatever [`Job::device`] says, and shuts it down.
///
/// # Errors
/// As for [`run_into`], but the outcome's status is left alone.
pub fn run_on<P: Platform, D: Disk>(
    platform: &P,
    mut disk: D,
    job: &Job,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let hz = if job.tsc_hz == 0 { platform.tsc_hz() } else { job.tsc_hz };
    outcome.header.tsc_hz = U64::new(hz);
    let result = drive(platform, &mut disk, job, outcome);
    let stopped = disk.shutdown();
    result?;
    Ok(stopped?)
}

fn drive<P: Platform, D: Disk>(
    platform: &P,
    disk: &mut D,
    job: &Job,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    job.check().map_err(Failure::Job)?;
    if job.depth > disk.max_depth() {
        return Err(Failure::Unfit("depth"));
    }
    if job.block_size > disk.max_transfer() || !job.block_size.is_multiple_of(disk.block_size()) {
        return Err(Failure::Unfit("block_size"));
    }
    if job.span > disk.capacity() {
        return Err(Failure::Unfit("span"));
    }
    let writes = job.access == Access::RandomWrite;
    let contents = Contents::new(platform, job.block_size, job.span, writes)
        .map_err(|_| Failure::Unfit("span"))?;
    let len = usize::from(job.depth) * usize::try_from(job.block_size).unwrap_or(usize::MAX);
    let buffers = platform.allocate(len).ok_or(Failure::Unfit("depth"))?;
    Runner::new(platform, disk, *job, contents, buffers, outcome).run()
}
