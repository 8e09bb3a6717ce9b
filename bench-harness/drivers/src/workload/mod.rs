//! Runs a [`Job`].

mod disk;
mod net;

use core::fmt;

use paraslot_protocol::traffic::is_segmented;
use paraslot_protocol::{Device, DiskJob, Job, JobError, NetJob, Outcome, Status};
use zerocopy::little_endian::{U32, U64};

use crate::ahci::{Ahci, AhciOptions};
use crate::e1000::{self, E1000};
use crate::nvme::{self, Nvme};
use crate::pvscsi::{self, Pvscsi};
use crate::virtio_blk::{Options, VirtioBlk};
use crate::virtio_net::{self, VirtioNet};
use crate::virtio_scsi::{self, VirtioScsi};
use crate::vmxnet3::{self, Vmxnet3};
use crate::{Disk, Error, Failed, Nic, Platform};

/// The platform's interrupt that is used.
const INTERRUPT: u8 = 0;
/// How long nothing may complete, in milliseconds.
const STUCK_MS: u64 = 5000;

/// Why a job did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The job's values are out of range.
    Job(JobError),
    /// The job does not fit the device that was found.
    Unfit(&'static str),
    /// The device could not be set up.
    SetUp(Error),
    /// The device misbehaved.
    Device(Error),
    /// A request failed.
    Request(Failed),
    /// Data was read that is not what was written; at this offset first, in bytes. Or a frame was
    /// received that is not what was sent, or that was received before; with this number first.
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
            Self::Unfit(what) => write!(f, "the job does not fit the device: {what}"),
            Self::SetUp(error) | Self::Device(error) => error.fmt(f),
            Self::Request(Failed::Io) => f.write_str("the device reports an error"),
            Self::Request(Failed::Unsupported) => f.write_str("the device refuses a request"),
            Self::Request(Failed::Short) => f.write_str("the device moved too little data"),
            Self::Request(Failed::Aborted) => f.write_str("the device dropped a request"),
            Self::Corrupt(offset) => write!(f, "wrong data at offset, or in frame, {offset:#x}"),
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
/// Before the measured part the same runs for [`Job::times_ms`]'s first. The measured part begins
/// after the platform was told so and ends before it is told.
///
/// # Disks
/// The measured part begins and ends with nothing in flight, so that its counts belong to its
/// operations alone: a new request takes each completed one's place until the time or the operations
/// are up, and the rest is waited for.
///
/// Latency is the time from before a request is put together for the device to when it is seen to
/// have completed; what completes in one look is seen at one time. Data is checked after that.
/// Afterwards the written blocks, after a flush if the disk knows it, are read back and checked.
///
/// # Networks
/// What is sent is addressed to the adapter itself, so that it passes the adapter's filter when it
/// comes back; other frames than those of [`paraslot_protocol::traffic`] are ignored.
///
/// - [`Transmit`]: groups of [`NetJob::batch`] frames, one doorbell each, are handed over whenever the
///   adapter has room for a whole group. Latency is the time from then to when the frame is seen to be
///   done with; the measured part ends when all are.
/// - [`Receive`]: begins with the first frame, which does not count. There is no latency.
/// - [`Request`]: the latency is the round trip. A request that is not answered within a second while
///   later ones are is lost.
/// - [`Respond`]: an operation counts when the answer is on its way, and there is no latency. That no
///   request comes is no failure.
///
/// With [`NetJob::rate`] latency counts from the time at which the frame was due, whatever kept it
/// from being sent then. Lost are the numbers that are missing between the first and the last that
/// were received; a frame that comes more than 4095 numbers late is lost too.
///
/// While the adapter's interrupts are on it is not looked at before one was taken, so that a lost one
/// is noticed, and a time that is up may be noticed up to a second late.
///
/// [`Transmit`]: paraslot_protocol::Traffic::Transmit
/// [`Receive`]: paraslot_protocol::Traffic::Receive
/// [`Request`]: paraslot_protocol::Traffic::Request
/// [`Respond`]: paraslot_protocol::Traffic::Respond
///
/// # Failures
/// What the outcome says for a job that failed is what was counted until then.
pub fn run<P: Platform>(platform: &P, job: impl Into<Job>) -> Outcome {
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
    job: impl Into<Job>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let result = start(platform, &job.into(), outcome);
    let status = result.map_or_else(Failure::status, |()| Status::Ok);
    outcome.header.status = U32::new(status as u32);
    result
}

fn start<P: Platform>(platform: &P, job: &Job, outcome: &mut Outcome) -> Result<(), Failure> {
    job.check().map_err(Failure::Job)?;
    match job {
        Job::Disk(job) => start_disk(platform, job, outcome),
        Job::Net(job) => start_net(platform, job, outcome),
    }
}

fn start_net<P: Platform>(
    platform: &P,
    job: &NetJob,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    match job.device {
        Device::VirtioNet => {
            // Frames that were never segmented go into pages, others into buffers of their own.
            let buffer = if is_segmented(job.frame_size) { 4096 } else { 1536 };
            let (interrupt, layout) = (INTERRUPT, virtio_net::Layout::Headroom);
            let options =
                virtio_net::Options { interrupt, layout, buffer, ..virtio_net::Options::new() };
            let nic = VirtioNet::new(platform, options).map_err(Failure::SetUp)?;
            run_on_nic(platform, nic, job, outcome)
        }
        Device::Vmxnet3 => {
            let options = vmxnet3::Options { interrupt: INTERRUPT, ..vmxnet3::Options::new() };
            let nic = Vmxnet3::new(platform, options).map_err(Failure::SetUp)?;
            run_on_nic(platform, nic, job, outcome)
        }
        Device::E1000 => {
            let options = e1000::Options { interrupt: INTERRUPT, ..e1000::Options::default() };
            let nic = E1000::new(platform, options).map_err(Failure::SetUp)?;
            run_on_nic(platform, nic, job, outcome)
        }
        Device::VirtioBlk | Device::VirtioScsi | Device::Pvscsi | Device::Ahci | Device::Nvme => {
            Err(Failure::Job(JobError::Invalid("device")))
        }
    }
}

fn start_disk<P: Platform>(
    platform: &P,
    job: &DiskJob,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    match job.device {
        Device::VirtioBlk => {
            let options = Options { interrupt: INTERRUPT, ..Options::new(job.depth) };
            let disk = VirtioBlk::new(platform, options).map_err(unfit)?;
            run_on(platform, disk, job, outcome)
        }
        Device::VirtioScsi => {
            let options = virtio_scsi::Options {
                interrupt: INTERRUPT,
                ..virtio_scsi::Options::new(job.depth)
            };
            let disk = VirtioScsi::new(platform, options).map_err(unfit)?;
            run_on(platform, disk, job, outcome)
        }
        Device::Pvscsi => {
            let options =
                pvscsi::Options { interrupt: INTERRUPT, ..pvscsi::Options::new(job.depth) };
            let disk = Pvscsi::new(platform, options).map_err(unfit)?;
            run_on(platform, disk, job, outcome)
        }
        Device::Ahci => {
            let options = AhciOptions { interrupt: INTERRUPT, ..AhciOptions::default() };
            let disk = Ahci::new(platform, options).map_err(Failure::SetUp)?;
            run_on(platform, disk, job, outcome)
        }
        Device::Nvme => {
            let options = nvme::Options { interrupt: INTERRUPT, ..nvme::Options::new(job.depth) };
            let disk = Nvme::new(platform, options).map_err(unfit)?;
            run_on(platform, disk, job, outcome)
        }
        Device::VirtioNet | Device::Vmxnet3 | Device::E1000 => {
            Err(Failure::Job(JobError::Invalid("device")))
        }
    }
}

/// Why a disk could not be set up for its job's depth.
fn unfit(error: Error) -> Failure {
    match error {
        Error::Unsupported("so many requests in flight") => Failure::Unfit("depth"),
        error => Failure::SetUp(error),
    }
}

/// Runs a job on a disk that was set up already, whatever [`DiskJob::device`] says, and shuts it
/// down.
///
/// # Errors
/// As for [`run_into`], but the outcome's status is left alone.
pub fn run_on<P: Platform, D: Disk>(
    platform: &P,
    mut disk: D,
    job: &DiskJob,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let hz = if job.tsc_hz == 0 { platform.tsc_hz() } else { job.tsc_hz };
    outcome.header.tsc_hz = U64::new(hz);
    let result = disk::drive(platform, &mut disk, job, outcome);
    let stopped = disk.shutdown();
    result?;
    Ok(stopped?)
}

/// Runs a job on a network adapter that was set up already, whatever [`NetJob::device`] says, and
/// shuts it down.
///
/// # Errors
/// As for [`run_into`], but the outcome's status is left alone.
pub fn run_on_nic<P: Platform, N: Nic>(
    platform: &P,
    mut nic: N,
    job: &NetJob,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let hz = if job.tsc_hz == 0 { platform.tsc_hz() } else { job.tsc_hz };
    outcome.header.tsc_hz = U64::new(hz);
    let result = net::drive(platform, &mut nic, job, outcome);
    let stopped = nic.shutdown();
    result?;
    Ok(stopped?)
}
