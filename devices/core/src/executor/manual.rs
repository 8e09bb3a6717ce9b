//! Workers stepped by hand: no thread, no time, no surprise.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::worker::{Executor, Progress, Worker, WorkerHandle};

#[derive(Default)]
struct Slot {
    worker: Option<Box<dyn Worker>>,
    stopping: bool,
    stopped: bool,
    abandoned: bool,
}

impl Slot {
    fn step(&mut self) -> Progress {
        let Some(worker) = &mut self.worker else { return Progress::Idle };
        if self.stopped {
            return Progress::Idle;
        }
        if self.stopping || self.abandoned {
            let progress = worker.quiesce();
            if progress == Progress::Idle {
                self.stopped = true;
                if self.abandoned {
                    self.worker = None;
                }
            }
            return progress;
        }
        match worker.service() {
            Progress::More => Progress::More,
            Progress::Idle => worker.prepare_to_wait(),
        }
    }
}

type Shared = Arc<Mutex<Slot>>;

fn lock(slot: &Shared) -> std::sync::MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs workers only when told to, in the order they were started or in any order the caller likes.
///
/// It ignores the workers' sources: a step services a worker whether or not it was woken. That makes
/// it deterministic, and blind to a lost wake-up, which the tests on threads are there to see.
#[derive(Clone, Default)]
pub struct ManualExecutor {
    slots: Arc<Mutex<Vec<Shared>>>,
}

impl ManualExecutor {
    /// An executor without workers.
    pub fn new() -> Self {
        Self::default()
    }

    fn slots(&self) -> Vec<Shared> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker that was taken back, or abandoned and done, is gone for good.
        slots.retain(|slot| lock(slot).worker.is_some());
        slots.clone()
    }

    /// Workers that have not been taken back.
    pub fn len(&self) -> usize {
        self.slots().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has one worker do one unit of work; an `index` past the end does nothing. A worker that was
    /// asked to stop is quiesced instead.
    pub fn step(&self, index: usize) -> Progress {
        self.slots().get(index).map_or(Progress::Idle, |slot| lock(slot).step())
    }

    /// One unit of work for every worker.
    pub fn step_all(&self) -> Progress {
        self.slots().iter().fold(Progress::Idle, |progress, slot| progress.or(lock(slot).step()))
    }

    /// Steps all workers until they are idle, `limit` rounds at most; returns whether they are.
    pub fn run(&self, limit: usize) -> bool {
        (0..limit).any(|_| self.step_all() == Progress::Idle)
    }
}

impl Executor for ManualExecutor {
    fn spawn(&self, _name: &str, worker: Box<dyn Worker>) -> io::Result<Box<dyn WorkerHandle>> {
        let slot = Arc::new(Mutex::new(Slot { worker: Some(worker), ..Slot::default() }));
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot.clone());
        Ok(Box::new(Handle(slot)))
    }
}

struct Handle(Shared);

impl WorkerHandle for Handle {
    fn wake(&self) {}

    fn stop(&mut self) {
        lock(&self.0).stopping = true;
    }

    fn take(&mut self) -> Option<Box<dyn Worker>> {
        let mut slot = lock(&self.0);
        if slot.stopped { slot.worker.take() } else { None }
    }

    fn proceed(&mut self) -> Option<Box<dyn Worker>> {
        let mut slot = lock(&self.0);
        if slot.stopped {
            return slot.worker.take();
        }
        slot.stopping = false;
        None
    }

    /// Time stands still here: quiesces the worker a fixed number of times instead.
    fn wait(&mut self, _limit: Duration) -> Option<Box<dyn Worker>> {
        let mut slot = lock(&self.0);
        slot.stopping = true;
        for _ in 0..10_000 {
            if slot.step() == Progress::Idle {
                break;
            }
        }
        if slot.stopped { slot.worker.take() } else { None }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.0).abandoned = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Source;

    struct Never;

    impl Worker for Never {
        fn sources(&self) -> Vec<Source> {
            Vec::new()
        }
        fn service(&mut self) -> Progress {
            Progress::Idle
        }
        fn prepare_to_wait(&mut self) -> Progress {
            Progress::Idle
        }
        fn quiesce(&mut self) -> Progress {
            Progress::Idle
        }
    }

    #[test]
    fn a_stop_can_be_taken_back_until_the_worker_is() {
        let executor = ManualExecutor::new();
        let mut handle = executor.spawn("never", Box::new(Never)).unwrap();
        handle.stop();
        assert!(handle.proceed().is_none());
        assert!(executor.run(10));
        assert!(handle.take().is_none());
        handle.stop();
        assert!(executor.run(10));
        assert!(handle.proceed().is_some());
        assert!(executor.is_empty());
    }
}
