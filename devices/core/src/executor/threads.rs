//! Workers on threads of their own.

#![expect(
    unsafe_code,
    reason = "CPU affinity and reading an eventfd by number have no safe interface"
)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::worker::{Executor, Progress, Source, Worker, WorkerHandle};

/// How a [`ThreadExecutor`] runs its threads.
#[derive(Clone, Debug)]
pub struct ThreadOptions {
    /// How many threads; workers are dealt to them in turn. At least 1.
    pub threads: usize,
    /// Processors to pin the threads to, dealt in turn; none leaves them to the scheduler.
    pub cpus: Vec<usize>,
    /// How long a thread polls its idle workers before it sleeps. Polling saves the guest its
    /// doorbells and the host a wake-up (tens of microseconds), and costs at most this much CPU time
    /// for each time the workers run dry. Zero sleeps at once.
    pub busy_poll: Duration,
}

impl Default for ThreadOptions {
    fn default() -> Self {
        Self { threads: 1, cpus: Vec::new(), busy_poll: Duration::from_micros(50) }
    }
}

/// Runs workers on a fixed set of threads, each an epoll loop over the workers dealt to it.
///
/// Dropping it quiesces all workers, waits for that, and ends the threads.
pub struct ThreadExecutor {
    threads: Vec<Thread>,
    next: AtomicUsize,
}

struct Thread {
    shared: Arc<Shared>,
    join: Option<JoinHandle<()>>,
}

struct Shared {
    epoll: Epoll,
    wake: EventFd,
    /// Whether `inbox` may hold something; lets the loop poll without taking the lock.
    posted: AtomicBool,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    new: Vec<Running>,
    exit: bool,
}

/// What a handle and its thread share.
struct Ticket {
    state: Mutex<TicketState>,
    stopped: Condvar,
    stopping: AtomicBool,
    abandoned: AtomicBool,
}

#[derive(Default)]
struct TicketState {
    /// The worker, back from its thread.
    worker: Option<Box<dyn Worker>>,
}

struct Running {
    worker: Box<dyn Worker>,
    sources: Vec<Source>,
    ticket: Arc<Ticket>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ThreadExecutor {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread, its epoll set or its wake-up eventfd cannot be made, or a processor that was
    /// named cannot be used.
    pub fn new(name: &str, options: &ThreadOptions) -> io::Result<Self> {
        let mut executor = Self { threads: Vec::new(), next: AtomicUsize::new(0) };
        for index in 0..options.threads.max(1) {
            let shared = Arc::new(Shared {
                epoll: Epoll::new()?,
                wake: EventFd::new(EFD_NONBLOCK)?,
                posted: AtomicBool::new(false),
                inbox: Mutex::default(),
            });
            shared.watch(Source::Event(shared.wake.as_raw_fd()))?;
            let mut event_loop = EventLoop::new(shared.clone(), options.busy_poll);
            let cpu = options.cpus.get(index.checked_rem(options.cpus.len()).unwrap_or(0)).copied();
            let (ready, started) = std::sync::mpsc::channel();
            let join =
                std::thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                    let pinned = cpu.map_or(Ok(()), pin_to);
                    let run = pinned.is_ok();
                    let _ = ready.send(pinned);
                    if run {
                        event_loop.run();
                    }
                })?;
            executor.threads.push(Thread { shared, join: Some(join) });
            started.recv().map_err(|_| io::Error::other("device thread died at its start"))??;
        }
        Ok(executor)
    }
}

impl Executor for ThreadExecutor {
    fn spawn(&self, _name: &str, worker: Box<dyn Worker>) -> io::Result<Box<dyn WorkerHandle>> {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let shared = self.threads[index].shared.clone();
        let ticket = Arc::new(Ticket {
            state: Mutex::default(),
            stopped: Condvar::new(),
            stopping: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        });
        let sources = worker.sources();
        for (index, &source) in sources.iter().enumerate() {
            // What rings before the thread has the worker is not lost: it is serviced at once then.
            if let Err(error) = shared.watch(source) {
                sources.iter().take(index).for_each(|&source| shared.unwatch(source));
                return Err(error);
            }
        }
        lock(&shared.inbox).new.push(Running { worker, sources, ticket: ticket.clone() });
        shared.post();
        Ok(Box::new(Handle { shared, ticket }))
    }
}

impl Drop for ThreadExecutor {
    fn drop(&mut self) {
        for thread in &self.threads {
            lock(&thread.shared.inbox).exit = true;
            thread.shared.post();
        }
        for thread in &mut self.threads {
            if let Some(join) = thread.join.take() {
                // A panic there has been reported by the panic hook already.
                let _ = join.join();
            }
        }
    }
}

impl Shared {
    fn watch(&self, source: Source) -> io::Result<()> {
        let (fd, drain) = match source {
            Source::Event(fd) => (fd, DRAIN),
            Source::Readable(fd) => (fd, 0),
        };
        let data = drain | u64::from(fd.cast_unsigned());
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, data))
    }

    fn unwatch(&self, source: Source) {
        let (Source::Event(fd) | Source::Readable(fd)) = source;
        // It fails only if the descriptor is closed, and then it is no longer watched either.
        let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
    }

    fn post(&self) {
        self.posted.store(true, Ordering::Release);
        // It can fail only by being full, and then the loop is awake.
        let _ = self.wake.write(1);
    }
}

struct Handle {
    shared: Arc<Shared>,
    ticket: Arc<Ticket>,
}

impl WorkerHandle for Handle {
    fn wake(&self) {
        self.shared.post();
    }

    fn stop(&mut self) {
        if !self.ticket.stopping.swap(true, Ordering::AcqRel) {
            self.shared.post();
        }
    }

    fn take(&mut self) -> Option<Box<dyn Worker>> {
        lock(&self.ticket.state).worker.take()
    }

    fn proceed(&mut self) -> Option<Box<dyn Worker>> {
        let mut state = lock(&self.ticket.state);
        if state.worker.is_none() {
            // Under the lock: the thread gives the worker back only while it is to stop.
            self.ticket.stopping.store(false, Ordering::Release);
            self.shared.post();
        }
        state.worker.take()
    }

    fn wait(&mut self, limit: Duration) -> Option<Box<dyn Worker>> {
        self.stop();
        let state = lock(&self.ticket.state);
        let (mut state, _) = self
            .ticket
            .stopped
            .wait_timeout_while(state, limit, |state| state.worker.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.worker.take()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.ticket.abandoned.store(true, Ordering::Release);
        self.stop();
    }
}

/// How often a stopping worker is looked at when none of its sources rings.
const STOPPING_TICK_MS: i32 = 1;
/// In an epoll event's data, beside the descriptor: an eventfd to be read.
const DRAIN: u64 = 1 << 32;

struct EventLoop {
    shared: Arc<Shared>,
    busy_poll: Duration,
    workers: Vec<Running>,
    exiting: bool,
}

impl EventLoop {
    fn new(shared: Arc<Shared>, busy_poll: Duration) -> Self {
        Self { shared, busy_poll, workers: Vec::new(), exiting: false }
    }

    fn run(&mut self) {
        let mut idle_since = None;
        loop {
            if self.shared.posted.swap(false, Ordering::AcqRel) {
                self.receive();
                idle_since = None;
            }
            let (progress, stopping) = self.service();
            if self.exiting && self.workers.is_empty() {
                return;
            }
            if progress == Progress::More {
                idle_since = None;
                continue;
            }
            if !stopping {
                let since = *idle_since.get_or_insert_with(Instant::now);
                if since.elapsed() < self.busy_poll {
                    std::hint::spin_loop();
                    continue;
                }
                if self.prepare_to_wait() == Progress::More {
                    idle_since = None;
                    continue;
                }
            }
            self.wait(if stopping { STOPPING_TICK_MS } else { -1 });
            idle_since = None;
        }
    }

    fn receive(&mut self) {
        let (new, exit) = {
            let mut inbox = lock(&self.shared.inbox);
            (std::mem::take(&mut inbox.new), inbox.exit)
        };
        self.exiting |= exit;
        self.workers.extend(new);
    }

    /// One unit of work for every worker; also says whether any is being stopped.
    fn service(&mut self) -> (Progress, bool) {
        let mut all = Progress::Idle;
        let mut stopping = false;
        let mut index = 0;
        while let Some(running) = self.workers.get_mut(index) {
            if !self.exiting && !running.ticket.stopping.load(Ordering::Acquire) {
                all = all.or(running.worker.service());
            } else if running.worker.quiesce() == Progress::Idle {
                let running = self.workers.swap_remove(index);
                if let Some(running) = self.retire(running) {
                    // It goes on after all: to the end, to be serviced in this very round.
                    self.workers.push(running);
                }
                continue;
            } else {
                stopping = true;
            }
            index += 1;
        }
        (all, stopping)
    }

    /// Gives a quiet worker back to its handle, or to the caller if it need not stop any more.
    fn retire(&self, running: Running) -> Option<Running> {
        let ticket = running.ticket.clone();
        let mut state = lock(&ticket.state);
        if !self.exiting && !ticket.stopping.load(Ordering::Acquire) {
            return Some(running);
        }
        let Running { worker, sources, ticket: _ } = running;
        for source in sources {
            self.shared.unwatch(source);
        }
        if ticket.abandoned.load(Ordering::Acquire) {
            return None;
        }
        state.worker = Some(worker);
        ticket.stopped.notify_all();
        None
    }

    fn prepare_to_wait(&mut self) -> Progress {
        self.workers
            .iter_mut()
            .fold(Progress::Idle, |progress, running| progress.or(running.worker.prepare_to_wait()))
    }

    fn wait(&self, timeout_ms: i32) {
        let mut events = [EpollEvent::default(); 32];
        // An error is an interruption by a signal; the loop looks at everything again anyway.
        let count = self.shared.epoll.wait(timeout_ms, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            if event.data() & DRAIN != 0 {
                drain(event.data());
            }
        }
    }
}

fn drain(data: u64) {
    let mut counter = [0u8; 8];
    let fd = RawFd::try_from(data & !DRAIN).unwrap_or(-1);
    // SAFETY: the buffer is valid for its eight bytes; a descriptor that is no longer open makes
    // the call fail without effect.
    unsafe { libc::read(fd, counter.as_mut_ptr().cast(), counter.len()) };
}

/// Pins the calling thread to one processor.
///
/// # Errors
/// When there is no such processor or it is not allowed.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    pin_thread(0, cpu)
}

/// Pins a thread of any process of this user, by its number, to one processor; 0 is the calling
/// thread.
///
/// # Errors
/// When there is no such thread or processor, or it is not allowed.
pub fn pin_thread(thread: libc::pid_t, cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= 8 * size_of_val(&set) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `cpu` was checked against the set's size, and `set` is ours.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is a valid set of the size given.
    let result = unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &raw const set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
