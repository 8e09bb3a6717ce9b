//! What can go wrong.

use core::fmt;

use crate::Platform;

/// Why a driver gave up, or would not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such function on the bus, or nothing attached to it.
    NotFound,
    /// The device lacks something that the driver or the request needs.
    Unsupported(&'static str),
    /// The platform has no more memory or address space to give.
    NoMemory,
    /// The device did not do in time what it must.
    Timeout(&'static str),
    /// The device did what it must not.
    Protocol(&'static str),
    /// The request itself is wrong: a tag that is too high or in use, a range outside the disk.
    Request(&'static str),
    /// The request cannot be queued beside those in flight; it can once they have completed.
    Busy,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such device"),
            Self::Unsupported(what) => write!(f, "the device does not support {what}"),
            Self::NoMemory => f.write_str("out of memory or address space"),
            Self::Timeout(what) => write!(f, "the device took too long: {what}"),
            Self::Protocol(what) => write!(f, "the device misbehaves: {what}"),
            Self::Request(what) => write!(f, "bad request: {what}"),
            Self::Busy => f.write_str("other requests are in flight"),
        }
    }
}

impl core::error::Error for Error {}

/// Cycles in `milliseconds` of a counter that runs at `hz`.
pub(crate) fn cycles(hz: u64, milliseconds: u64) -> u64 {
    let cycles = u128::from(hz) * u128::from(milliseconds) / 1000;
    u64::try_from(cycles).unwrap_or(u64::MAX)
}

/// Looks until `done`, for at most `milliseconds`.
pub(crate) fn wait_until<P: Platform>(
    platform: &P,
    milliseconds: u64,
    what: &'static str,
    mut done: impl FnMut() -> bool,
) -> Result<(), Error> {
    let limit = cycles(platform.tsc_hz(), milliseconds);
    let start = platform.tsc();
    loop {
        // The time is taken before the look, so that there is one look after the time is up.
        let late = platform.tsc().wrapping_sub(start) > limit;
        if done() {
            return Ok(());
        }
        if late {
            return Err(Error::Timeout(what));
        }
        platform.relax();
    }
}

/// Lets `microseconds` pass.
pub(crate) fn delay<P: Platform>(platform: &P, microseconds: u64) {
    let limit = cycles(platform.tsc_hz(), microseconds).div_ceil(1000);
    let start = platform.tsc();
    while platform.tsc().wrapping_sub(start) < limit {
        platform.relax();
    }
}
