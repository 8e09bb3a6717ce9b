//! Queue loops as plain structs.
//!
//! A [`Worker`] is what runs a queue: something that wakes it, and one bounded unit of work at a
//! time. It runs on a thread in production ([`crate::ThreadExecutor`]), by hand in a test or fuzzer
//! ([`crate::ManualExecutor`]), or on the host's own event loop in a fork, which then implements
//! [`Executor`].

use std::any::Any;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use smallvec::SmallVec;

/// Something that wakes a worker. The descriptor stays open for as long as the worker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A non-blocking eventfd. The executor reads it (so that it is quiet again) before it calls
    /// [`Worker::service`].
    Event(RawFd),
    /// Any other descriptor, watched for input, level-triggered; `service` itself must consume what
    /// made it readable.
    Readable(RawFd),
}

/// What rings for one thing that a worker waits for: seldom more than a descriptor or two.
pub type Sources = SmallVec<[Source; 2]>;

/// How a unit of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Nothing was there to do.
    Idle,
    /// Something was done; there may be more.
    More,
}

impl Progress {
    /// [`Progress::More`] if either is.
    pub fn or(self, other: Progress) -> Progress {
        if self == Progress::More { self } else { other }
    }
}

/// A queue's loop. Every method returns after a bounded amount of work and never blocks.
pub trait Worker: Any + Send {
    /// What wakes it. Asked once, when it is started.
    fn sources(&self) -> Vec<Source>;

    /// Does a bounded amount of work: takes what is available, submits it, and completes what has
    /// finished. Called again soon after [`Progress::More`]. A worker that meets malformed input
    /// tells its device (DEVICE_NEEDS_RESET and the like) and is idle from then on.
    fn service(&mut self) -> Progress;

    /// Asks to be woken: after [`Progress::Idle`] the executor may poll `service` for a while, and
    /// calls this before it sleeps. The worker enables its notifications and then looks once more;
    /// [`Progress::More`] means that something came in between, so do not sleep.
    fn prepare_to_wait(&mut self) -> Progress;

    /// Takes nothing new and completes what is in flight. [`Progress::More`] until nothing is, then
    /// [`Progress::Idle`]. Called repeatedly, with time in between for backends to complete. What has
    /// completed and cannot be reported now, because bus mastering is off, is kept for later or, if
    /// the worker is dropped, forgotten; it does not hold up the stop.
    fn quiesce(&mut self) -> Progress;
}

/// A worker that has been handed to an executor.
///
/// Dropping the handle stops the worker too, without waiting for it.
pub trait WorkerHandle: Send {
    /// Has the worker serviced even though none of its sources rang: something it waits for (bus
    /// mastering, say) has changed. Does not block.
    fn wake(&self);
    /// Asks the worker to stop. Does not block; [`take`](Self::take) tells when it has.
    fn stop(&mut self);
    /// The worker, once it was asked to stop and nothing of its is in flight. Does not block.
    fn take(&mut self) -> Option<Box<dyn Worker>>;
    /// Takes [`stop`](Self::stop) back. Returns the worker if it had stopped already, to be started
    /// anew; otherwise it goes on as if nothing had been asked of it, and is serviced soon.
    fn proceed(&mut self) -> Option<Box<dyn Worker>>;
    /// Stops it and waits up to `limit` for it to be quiet.
    fn wait(&mut self, limit: Duration) -> Option<Box<dyn Worker>>;
}

/// Runs workers.
pub trait Executor: Send + Sync {
    /// Starts `worker`. It is serviced at least once, so that what was made available before it
    /// started is seen.
    ///
    /// # Errors
    /// When the executor cannot watch the worker's sources.
    fn spawn(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Box<dyn WorkerHandle>>;
}
