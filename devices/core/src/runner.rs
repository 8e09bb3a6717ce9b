//! A device's worker, wherever it is: with its executor, or stopped.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{DeviceError, Executor, Worker, WorkerHandle};

/// Holds a worker for as long as its device exists: running, or parked while the device is paused.
pub struct Runner {
    name: String,
    executor: Arc<dyn Executor>,
    state: State,
}

enum State {
    Running(Box<dyn WorkerHandle>),
    Parked(Box<dyn Worker>),
    /// The executor refused it.
    Lost,
}

impl Runner {
    /// Starts `worker`.
    ///
    /// # Errors
    /// When the executor refuses it.
    pub fn new(
        name: impl Into<String>,
        executor: Arc<dyn Executor>,
        worker: Box<dyn Worker>,
    ) -> Result<Self, DeviceError> {
        let mut this = Self::idle(name, executor, worker);
        this.start()?;
        Ok(this)
    }

    /// With `worker` parked: [`start`](Self::start) has it run.
    pub fn idle(
        name: impl Into<String>,
        executor: Arc<dyn Executor>,
        worker: Box<dyn Worker>,
    ) -> Self {
        Self { name: name.into(), executor, state: State::Parked(worker) }
    }

    /// Has the worker run, if it was parked.
    ///
    /// # Errors
    /// When the executor refuses it; the worker is gone then.
    pub fn start(&mut self) -> Result<(), DeviceError> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Parked(worker) => {
                let handle =
                    self.executor.spawn(&self.name, worker).map_err(DeviceError::Worker)?;
                self.state = State::Running(handle);
                Ok(())
            }
            state @ State::Running(_) => {
                self.state = state;
                Ok(())
            }
            State::Lost => Err(DeviceError::Worker(std::io::Error::other("worker lost"))),
        }
    }

    /// The worker while it is parked, as what it is; `None` while it runs, or if it is no `W`.
    pub fn parked<W: Worker>(&mut self) -> Option<&mut W> {
        let State::Parked(worker) = &mut self.state else { return None };
        let worker: &mut dyn Any = &mut **worker;
        worker.downcast_mut()
    }

    /// Asks the worker to stop. [`park`](Self::park) waits for it.
    pub fn stop(&mut self) {
        if let State::Running(handle) = &mut self.state {
            handle.stop();
        }
    }

    /// Stops the worker and waits up to `limit` until it has nothing in flight; says whether that
    /// came about. If not, it is still stopping: see [`proceed`](Self::proceed).
    pub fn park(&mut self, limit: Duration) -> bool {
        if let State::Running(handle) = &mut self.state {
            let Some(worker) = handle.wait(limit) else { return false };
            self.state = State::Parked(worker);
        }
        true
    }

    /// Stops all of `runners` and waits up to `limit` until none has anything in flight.
    ///
    /// # Errors
    /// When one still has, or could not go on: then all go on.
    pub fn pause_all<'a>(
        runners: impl Iterator<Item = &'a mut Self>,
        limit: Duration,
    ) -> Result<(), DeviceError> {
        let mut runners: Vec<_> = runners.collect();
        runners.iter_mut().for_each(|runner| runner.stop());
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        if runners.iter_mut().all(|runner| runner.park(left())) {
            return Ok(());
        }
        runners.iter_mut().try_for_each(|runner| runner.proceed())?;
        Err(DeviceError::Busy(limit))
    }

    /// Has the worker go on, whether it had stopped or not.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn proceed(&mut self) -> Result<(), DeviceError> {
        if let State::Running(handle) = &mut self.state
            && let Some(worker) = handle.proceed()
        {
            self.state = State::Parked(worker);
        }
        self.start()
    }

    /// Has the worker serviced even though none of its sources rang.
    pub fn wake(&self) {
        if let State::Running(handle) = &self.state {
            handle.wake();
        }
    }
}

#[cfg(test)]
mod tests;
