//! Limits on what a guest may take of a backend's time.
//!
//! A [`Limiter`] counts bytes and operations (or frames) in a token bucket each. Any number of queues
//! share one, and so may the backends of several devices: together they keep to its rates, which can be
//! changed while they are in use. [`LimitedBackend`](crate::block::LimitedBackend) and
//! [`LimitedNet`](crate::net::LimitedNet) put one before a backend; no device knows.
//!
//! What costs more than a bucket holds goes when the bucket is full, and overdraws it: what comes next waits
//! for longer. So does a stop that does not wait for its limit
//! ([`BlockQueue::hurry`](crate::block::BlockQueue::hurry)), and a received frame, whose length nobody knows
//! before it is there.

#[cfg(test)]
mod tests;

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use paraslot_device::{Clock, Timer};

/// A waiting queue looks at the limit again after this time at most, since it may have been changed.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// A stop is not held up by less debt than this. With more it is: else a guest that resets its device
/// again and again would have no limit.
const MOST_DEBT: Duration = Duration::from_secs(10);

const PICOSECONDS: u128 = 1_000_000_000_000;

/// How fast a bucket is filled, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes or operations in a second.
    pub per_second: NonZeroU64,
    /// How many may be used at once after a pause.
    pub burst: NonZeroU64,
}

/// What is limited. Without a rate there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bytes of reads and writes, or of frames.
    pub bytes: Option<Rate>,
    /// Operations of all kinds, or frames.
    pub operations: Option<Rate>,
}

/// A token bucket, as the time at which it will be full.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// Picoseconds of the clock.
    full: u128,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { rate, full: 0 }
    }

    /// How long it takes to come by so many tokens, in picoseconds.
    fn time(&self, tokens: u64) -> u128 {
        (u128::from(tokens) * PICOSECONDS).div_ceil(self.rate.per_second.get().into())
    }

    /// How long until there are so many in it, or it is full.
    fn wait(&self, now: u128, tokens: u64) -> u128 {
        let burst = self.rate.burst.get();
        let rest = self.time(burst - tokens.min(burst));
        self.full.saturating_sub(rest).saturating_sub(now)
    }

    /// How long it takes until nothing is owed, in picoseconds.
    fn debt(&self, now: u128) -> u128 {
        self.wait(now, 0)
    }

    fn spend(&mut self, now: u128, tokens: u64) {
        self.full = self.full.max(now).saturating_add(self.time(tokens));
    }
}

#[derive(Debug, Default)]
struct Buckets {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl Buckets {
    /// How long an operation of so many bytes has to wait; `None` if it may go.
    fn wait(&self, now: u128, bytes: u64) -> Option<Duration> {
        let bytes = self.bytes.as_ref().map_or(0, |bucket| bucket.wait(now, bytes));
        let operations = self.operations.as_ref().map_or(0, |bucket| bucket.wait(now, 1));
        let wait = Some(bytes.max(operations)).filter(|wait| *wait != 0)?;
        let nanoseconds = u64::try_from(wait.div_ceil(1000)).unwrap_or(u64::MAX);
        Some(Duration::from_nanos(nanoseconds))
    }

    fn spend(&mut self, now: u128, bytes: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.spend(now, bytes);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.spend(now, 1);
        }
    }
}

/// A limit, shared by those who keep to it.
pub struct Limiter {
    clock: Arc<dyn Clock>,
    /// Whether there is any limit: those who are not limited pay for this look alone.
    on: AtomicBool,
    buckets: Mutex<Buckets>,
    delayed: AtomicU64,
}

impl Limiter {
    /// A limit of these rates, by the time that `clock` tells. The buckets are full.
    pub fn new(clock: Arc<dyn Clock>, rates: Rates) -> Self {
        let this = Self {
            clock,
            on: AtomicBool::new(false),
            buckets: Mutex::default(),
            delayed: AtomicU64::new(0),
        };
        this.set(rates);
        this
    }

    /// Changes the rates. The buckets are full again. Who waits learns of it within a tenth of a second.
    pub fn set(&self, rates: Rates) {
        let mut buckets = self.lock();
        *buckets = Buckets {
            bytes: rates.bytes.map(Bucket::new),
            operations: rates.operations.map(Bucket::new),
        };
        self.on.store(rates != Rates::default(), Ordering::Release);
    }

    /// The rates.
    pub fn rates(&self) -> Rates {
        let buckets = self.lock();
        let rate = |bucket: &Option<Bucket>| bucket.as_ref().map(|bucket| bucket.rate);
        Rates { bytes: rate(&buckets.bytes), operations: rate(&buckets.operations) }
    }

    /// How many operations had to wait, and how often a queue of frames.
    pub fn delayed(&self) -> u64 {
        self.delayed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u128 {
        self.clock.now().as_nanos() * 1000
    }

    /// A timer of its clock, for one that keeps to it.
    pub(crate) fn timer(&self) -> std::io::Result<Box<dyn Timer>> {
        self.clock.timer()
    }

    /// Pays for an operation, if it may go now.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        if !self.on.load(Ordering::Acquire) {
            return true;
        }
        let mut buckets = self.lock();
        let now = self.now();
        let goes = buckets.wait(now, bytes).is_none();
        if goes {
            buckets.spend(now, bytes);
        }
        goes
    }

    /// Pays for an operation that is not to wait, unless too much is owed already.
    pub(crate) fn overdraw(&self, bytes: u64) -> bool {
        let mut buckets = self.lock();
        let now = self.now();
        let Buckets { bytes: one, operations: other } = &*buckets;
        let debt = one.iter().chain(other).map(|bucket| bucket.debt(now)).max().unwrap_or(0);
        let goes = debt < MOST_DEBT.as_nanos() * 1000;
        if goes {
            buckets.spend(now, bytes);
        }
        goes
    }

    /// Pays for one that goes in any case.
    pub(crate) fn spend(&self, bytes: u64) {
        if self.on.load(Ordering::Acquire) {
            let now = self.now();
            self.lock().spend(now, bytes);
        }
    }

    /// How long until one of so many bytes may go, or until it is time to ask again; `None`: now.
    pub(crate) fn wait(&self, bytes: u64) -> Option<Duration> {
        if !self.on.load(Ordering::Acquire) {
            return None;
        }
        self.lock().wait(self.now(), bytes).map(|wait| wait.min(LONGEST_WAIT))
    }

    /// Something had to wait.
    pub(crate) fn count(&self) {
        self.delayed.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("rates", &self.rates()).finish_non_exhaustive()
    }
}
