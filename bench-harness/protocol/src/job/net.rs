//! A network adapter's job.

use core::fmt;

use super::text::{Words, named};
use super::{Completion, Device, JobError};
use crate::traffic::{MAX_FRAME, MIN_FRAME};

/// Most frames that are handed over at once.
pub const MAX_BATCH: u16 = 128;

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// The guest sends. An operation is a frame that the device is done with.
    Transmit,
    /// The guest receives what the other side sends. An operation is a frame received.
    Receive,
    /// The guest sends requests and waits for the same frames to come back. An operation is a
    /// request that was answered; its latency is the round trip.
    Request,
    /// The guest sends back every frame that it receives. An operation is a frame sent back.
    Respond,
}

impl Traffic {
    /// Its name on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transmit => "tx",
            Self::Receive => "rx",
            Self::Request => "rr",
            Self::Respond => "respond",
        }
    }
}

named!(Traffic, "traffic", [Transmit, Receive, Request, Respond]);

/// One workload on one network adapter. The frames are those of [`crate::traffic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetJob {
    /// The device.
    pub device: Device,
    /// Which way.
    pub traffic: Traffic,
    /// Completions.
    pub completion: Completion,
    /// Bytes of each frame, [`MIN_FRAME`] to [`MAX_FRAME`], without the frame check sequence. More
    /// than 1514 are for the device to segment, or were.
    pub frame_size: u32,
    /// Frames that the driver hands over before it rings the doorbell, 1 to [`MAX_BATCH`]; of
    /// requests, also the most that are unanswered at a time. With [`Traffic::Receive`] and
    /// [`Traffic::Respond`], the buffers that it gives back at once.
    pub batch: u16,
    /// Frames offered a second, each at its own time whether or not the ones before are done with;
    /// 0 for as many as go. For transmission and requests.
    pub rate: u32,
    /// Milliseconds before the measured part.
    pub warm_up_ms: u32,
    /// Milliseconds of the measured part, unless `operations` ends it earlier.
    pub measure_ms: u32,
    /// Operations after which the measured part ends; 0 for no such limit.
    pub operations: u64,
    /// Whether frames carry a checksum and contents of their own and are checked on arrival. Frames
    /// are numbered in any case, so that loss and reordering are counted.
    pub verify: bool,
    /// Frequency of the time stamp counter in Hz, where the harness knows it; 0 lets the guest find
    /// out.
    pub tsc_hz: u64,
}

impl NetJob {
    pub(super) fn read(words: Words<'_>) -> Result<Self, JobError> {
        Ok(Self {
            device: words.get("device")?,
            traffic: words.get("traffic")?,
            completion: words.get("completion")?,
            frame_size: words.get("frame_size")?,
            batch: words.get("batch")?,
            rate: words.get("rate")?,
            warm_up_ms: words.get("warm_up_ms")?,
            measure_ms: words.get("measure_ms")?,
            operations: words.get("operations")?,
            verify: words.flag("verify")?,
            tsc_hz: words.get("tsc_hz")?,
        })
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn check(&self) -> Result<(), JobError> {
        if !(MIN_FRAME..=MAX_FRAME).contains(&self.frame_size) {
            return Err(JobError::Invalid("frame_size"));
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return Err(JobError::Invalid("batch"));
        }
        if self.rate != 0 && matches!(self.traffic, Traffic::Receive | Traffic::Respond) {
            return Err(JobError::Invalid("rate"));
        }
        Ok(())
    }
}

impl fmt::Display for NetJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "device={} traffic={} completion={} frame_size={} batch={} rate={} warm_up_ms={} \
             measure_ms={} operations={} verify={} tsc_hz={}",
            self.device,
            self.traffic,
            self.completion,
            self.frame_size,
            self.batch,
            self.rate,
            self.warm_up_ms,
            self.measure_ms,
            self.operations,
            u8::from(self.verify),
            self.tsc_hz,
        )
    }
}
