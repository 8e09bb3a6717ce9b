//! Operations by a pool of threads that make the system calls and wait for them.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use paraslot_device::{Source, Sources};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::image::Image;
use super::plan::{Plan, Step, Workspace};
use super::sys;
use crate::block::{BlockCompletion, BlockError, BlockQueue, BlockRequest};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The threads of one image, for all its queues. Dropping it ends them.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    image: Arc<Image>,
    work: Mutex<Work>,
    posted: Condvar,
}

#[derive(Default)]
struct Work {
    jobs: VecDeque<Job>,
    exit: bool,
}

struct Job {
    plan: Plan,
    results: Arc<Results>,
}

/// What comes back to one queue.
struct Results {
    list: Mutex<List>,
    /// The queue's jobs have all ended; only used when it is dropped.
    quiet: Condvar,
    /// Whether the list holds something, for a look without the lock.
    ready: AtomicBool,
    event: EventFd,
    /// The queue is being dropped: long operations stop half-way.
    closing: AtomicBool,
    copied: AtomicU64,
}

#[derive(Default)]
struct List {
    done: Vec<BlockCompletion>,
    /// Jobs that are with the pool.
    running: usize,
}

impl Pool {
    pub(super) fn new(image: Arc<Image>, threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared { image, work: Mutex::default(), posted: Condvar::new() });
        let mut pool = Self { shared, threads: Vec::new() };
        for index in 0..threads.max(1) {
            let shared = pool.shared.clone();
            let name = format!("image-io-{index}");
            let thread = std::thread::Builder::new().name(name).spawn(move || shared.run())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.work).exit = true;
        self.shared.posted.notify_all();
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut workspace = Workspace::default();
        loop {
            let job = {
                let idle = |work: &mut Work| work.jobs.is_empty() && !work.exit;
                let mut work = self
                    .posted
                    .wait_while(lock(&self.work), idle)
                    .unwrap_or_else(PoisonError::into_inner);
                match work.jobs.pop_front() {
                    Some(job) => job,
                    None => return,
                }
            };
            let Job { mut plan, results } = job;
            let result = loop {
                let step = plan.step(&self.image, &mut workspace);
                if let Step::Done(result) = step {
                    break result;
                }
                if results.closing.load(Ordering::Acquire) {
                    break Err(io::Error::from_raw_os_error(libc::ECANCELED).into());
                }
                let entry = step.entry();
                if let Some(entry) = entry {
                    self.image.sync.enter(entry);
                }
                let result = self.call(&step, &workspace);
                plan.result(&self.image, &workspace, result);
                // Only now that a loss is known may others look.
                if let Some(entry) = entry {
                    self.image.sync.leave(entry);
                }
            };
            results.copied.fetch_add(plan.copied(), Ordering::Relaxed);
            // The buffers are given up here, before anyone hears of it.
            let completion = plan.complete(result);
            results.push(completion);
        }
    }

    fn call(&self, step: &Step, work: &Workspace) -> io::Result<u64> {
        let file = &self.image.file;
        match *step {
            Step::Read { at } => sys::preadv(file, &work.iov, at),
            Step::Write { at, durable } => sys::pwritev(file, &work.iov, at, durable),
            Step::Fallocate { mode, at, len } => sys::fallocate(file, mode, at, len).map(|()| 0),
            Step::Sync => file.sync_data().map(|()| 0),
            Step::Done(_) => Ok(0),
        }
    }
}

impl Results {
    fn push(&self, completion: BlockCompletion) {
        let mut list = lock(&self.list);
        list.done.push(completion);
        list.running -= 1;
        let first = !self.ready.swap(true, Ordering::AcqRel);
        if first {
            // It can fail only by being full, and then it has rung. Under the lock, since the
            // queue may be gone as soon as nothing is running.
            let _ = self.event.write(1);
        }
        if list.running == 0 {
            self.quiet.notify_all();
        }
    }
}

/// A queue whose operations the pool does.
pub(super) struct ThreadsQueue {
    pool: Arc<Pool>,
    depth: usize,
    held: Vec<Job>,
    in_flight: usize,
    results: Arc<Results>,
}

impl ThreadsQueue {
    pub(super) fn new(pool: Arc<Pool>, depth: u32) -> io::Result<Self> {
        let results = Results {
            list: Mutex::default(),
            quiet: Condvar::new(),
            ready: AtomicBool::new(false),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            closing: AtomicBool::new(false),
            copied: AtomicU64::new(0),
        };
        let depth = usize::try_from(depth.max(1)).unwrap_or(usize::MAX);
        Ok(Self { pool, depth, held: Vec::new(), in_flight: 0, results: Arc::new(results) })
    }
}

impl BlockQueue for ThreadsQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        if self.in_flight >= self.depth {
            return Err(request);
        }
        self.in_flight += 1;
        let plan = Plan::new(request, &self.pool.shared.image);
        self.held.push(Job { plan, results: self.results.clone() });
        Ok(())
    }

    fn commit(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let many = self.held.len() > 1;
        lock(&self.results.list).running += self.held.len();
        lock(&self.pool.shared.work).jobs.extend(self.held.drain(..));
        if many {
            self.pool.shared.posted.notify_all();
        } else {
            self.pool.shared.posted.notify_one();
        }
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        if !self.results.ready.load(Ordering::Acquire) {
            return;
        }
        let mut list = lock(&self.results.list);
        self.results.ready.store(false, Ordering::Release);
        self.in_flight -= list.done.len();
        completions.append(&mut list.done);
    }

    fn sources(&self) -> Sources {
        Sources::from_iter([Source::Event(self.results.event.as_raw_fd())])
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes out what no thread has begun; the rest goes on.
    fn cancel(&mut self, token: u64) {
        let before = self.held.len();
        self.held.retain(|job| job.plan.token() != token);
        let held = before - self.held.len();
        let posted = {
            let mut work = lock(&self.pool.shared.work);
            let before = work.jobs.len();
            work.jobs.retain(|job| {
                job.plan.token() != token || !Arc::ptr_eq(&job.results, &self.results)
            });
            before - work.jobs.len()
        };
        // They end as if a thread had ended them.
        lock(&self.results.list).running += held;
        for _ in 0..held + posted {
            self.results.push(BlockCompletion { token, result: Err(BlockError::Cancelled) });
        }
    }

    fn copied_bytes(&self) -> u64 {
        self.results.copied.load(Ordering::Relaxed)
    }
}

impl Drop for ThreadsQueue {
    /// What no thread has begun is not begun; the rest is waited for, since it may write to memory
    /// until it is over.
    fn drop(&mut self) {
        self.results.closing.store(true, Ordering::Release);
        let before = {
            let mut work = lock(&self.pool.shared.work);
            let before = work.jobs.len();
            work.jobs.retain(|job| !Arc::ptr_eq(&job.results, &self.results));
            before - work.jobs.len()
        };
        let mut list = lock(&self.results.list);
        list.running -= before;
        let waited = self.results.quiet.wait_while(list, |list| list.running != 0);
        drop(waited);
    }
}
