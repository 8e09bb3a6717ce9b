//! What the guest found out.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{BUCKETS, Histogram};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// The measured part ran and everything that was verified was right.
    Ok = 0,
    /// The job's text was not understood.
    BadJob = 1,
    /// There is no such device, or its driver could not set it up.
    NoDevice = 2,
    /// The device reported an error, or did something it must not.
    DeviceError = 3,
    /// Data was read that is not what was written.
    Corrupt = 4,
    /// Nothing completed for a long time.
    Stuck = 5,
    /// The guest met an exception or a bug of its own.
    Crashed = 6,
}

impl Status {
    /// The status with this number.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::Ok,
            1 => Self::BadJob,
            2 => Self::NoDevice,
            3 => Self::DeviceError,
            4 => Self::Corrupt,
            5 => Self::Stuck,
            6 => Self::Crashed,
            _ => return None,
        })
    }
}

/// The fixed part of an outcome, as it is sent. Counts are of the measured part; times are in cycles
/// of the guest's time stamp counter.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// A [`Status`].
    pub status: U32,
    /// Buckets that follow.
    pub buckets: U32,
    /// Operations completed.
    pub operations: U64,
    /// Bytes moved by them.
    pub bytes: U64,
    /// Length of the measured part.
    pub cycles: U64,
    /// Of those, spent with nothing to do but wait for the device.
    pub waiting_cycles: U64,
    /// Frequency of the counter in Hz.
    pub tsc_hz: U64,
    /// Largest latency.
    pub max_latency: U64,
    /// Doorbells rung; for AHCI, writes to PxCI; for e1000, to TDT and RDT; for NVMe, to those of both
    /// kinds of queues.
    pub doorbells: U64,
    /// Register accesses of any kind, doorbells included.
    pub register_accesses: U64,
    /// Interrupts taken.
    pub interrupts: U64,
    /// Operations whose data was compared, in or after the measured part.
    pub verified: U64,
    /// Operations that failed or whose data was wrong.
    pub errors: U64,
    /// Frames that were sent and are missing, by their numbers; for disks 0.
    pub lost: U64,
    /// Frames that came after one with a higher number; for disks 0.
    pub reordered: U64,
    /// Bytes of the whole disk, whatever of it is used; for networks 0.
    pub capacity: U64,
}

/// One bucket of the latency histogram, as it is sent.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Bucket {
    /// Number of the bucket.
    pub index: U16,
    /// Values in it.
    pub count: U32,
}

/// An outcome as the guest makes it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The counts; `buckets` is filled in when it is sent.
    pub header: Header,
    /// Latencies in cycles.
    pub latency: Histogram,
}

/// Why bytes are not an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeError {
    /// Too few or too many bytes for what they say.
    Length,
    /// A bucket that does not exist, or a status that does not.
    Value,
}

impl core::fmt::Display for OutcomeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Length => "the guest's outcome has the wrong length",
            Self::Value => "the guest's outcome has a value that does not exist",
        })
    }
}

impl core::error::Error for OutcomeError {}

impl Outcome {
    /// An outcome of a job that did not run.
    pub fn failed(status: Status) -> Self {
        let header = Header { status: U32::new(status as u32), ..Header::default() };
        Self { header, latency: Histogram::new() }
    }

    /// How the job ended; [`Status::Crashed`] for a number that is none.
    pub fn status(&self) -> Status {
        Status::from_raw(self.header.status.get()).unwrap_or(Status::Crashed)
    }

    /// Sends it as a frame.
    pub fn send(&self, out: impl FnMut(u8)) {
        let mut buckets = [Bucket::default(); BUCKETS];
        let mut used = 0;
        for ((index, count), place) in self.latency.buckets().zip(&mut buckets) {
            place.index = U16::new(u16::try_from(index).unwrap_or(u16::MAX));
            place.count = U32::new(count);
            used += 1;
        }
        let mut header = self.header;
        header.buckets = U32::new(u32::try_from(used).unwrap_or(0));
        header.max_latency = U64::new(self.latency.max());
        let buckets = buckets.get(..used).unwrap_or_default();
        let payload = [header.as_bytes(), buckets.as_bytes()];
        crate::frame::send(crate::frame::Kind::Outcome, &payload, out);
    }

    /// Reads a frame's payload back: the fixed part, and the buckets.
    ///
    /// # Errors
    /// When the bytes are not what [`send`](Self::send) makes.
    pub fn parse(payload: &[u8]) -> Result<(Header, &[Bucket]), OutcomeError> {
        let (header, rest) = Header::read_from_prefix(payload).map_err(|_| OutcomeError::Length)?;
        let buckets = <[Bucket]>::ref_from_bytes(rest).map_err(|_| OutcomeError::Length)?;
        if u32::try_from(buckets.len()) != Ok(header.buckets.get()) {
            return Err(OutcomeError::Length);
        }
        let known = buckets.iter().all(|bucket| usize::from(bucket.index.get()) < BUCKETS);
        if !known || Status::from_raw(header.status.get()).is_none() {
            return Err(OutcomeError::Value);
        }
        Ok((header, buckets))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::frame;
    use std::vec::Vec;

    #[test]
    fn sent_and_parsed() {
        let mut outcome = Outcome::default();
        outcome.header.operations = U64::new(3);
        for value in [100, 100, 1 << 20] {
            outcome.latency.record(value);
        }
        let mut bytes = Vec::new();
        outcome.send(|byte| bytes.push(byte));
        let (kind, payload, _) = frame::find(&bytes).unwrap();
        assert_eq!(kind, frame::Kind::Outcome);
        let (header, buckets) = Outcome::parse(payload).unwrap();
        assert_eq!((header.operations.get(), header.max_latency.get()), (3, 1 << 20));
        let counts: Vec<u32> = buckets.iter().map(|bucket| bucket.count.get()).collect();
        assert_eq!(counts, [2, 1]);
        assert_eq!(Outcome::parse(&payload[1..]), Err(OutcomeError::Length));
        assert_eq!(Outcome::parse(&payload[..payload.len() - 6]), Err(OutcomeError::Length));
        let mut wrong = payload.to_vec();
        wrong[0] = 77;
        assert_eq!(Outcome::parse(&wrong), Err(OutcomeError::Value));
    }
}
