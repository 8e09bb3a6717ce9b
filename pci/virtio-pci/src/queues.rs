//! A queue's registers, and the worker that runs it.

use std::sync::Arc;
use std::time::Instant;

use paraslot_device::{DeviceError, Executor, Worker, WorkerHandle};
use paraslot_spec::virtio::pci::NO_VECTOR;
use paraslot_virtio::QueueConfig;

use crate::signals::QueueInterrupt;

/// A queue as its registers show it.
pub(crate) struct QueueSlot {
    /// Largest size.
    max_size: u16,
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    pub(crate) vector: u16,
    pub(crate) enabled: bool,
    /// It was reset since DRIVER_OK, so it may be enabled again (2.6.2).
    pub(crate) reset_since_start: bool,
    run: Run,
}

enum Run {
    /// There is no worker.
    Idle,
    Running(Box<dyn WorkerHandle>, Arc<QueueInterrupt>),
    /// The function is paused.
    Paused(Box<dyn Worker>, Arc<QueueInterrupt>),
    /// The queue or the device is being reset, and the worker has requests in flight.
    Stopping(Box<dyn WorkerHandle>),
    /// Likewise, and the worker is quiet; the reset can be completed.
    Stopped,
}

impl QueueSlot {
    pub(crate) fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            desc: 0,
            driver: 0,
            device: 0,
            vector: NO_VECTOR,
            enabled: false,
            reset_since_start: false,
            run: Run::Idle,
        }
    }

    /// The registers as after a reset. The worker, if any, is dropped.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }

    /// Takes a size that the driver may choose (2.7), and no other.
    pub(crate) fn set_size(&mut self, size: u16) {
        if size.is_power_of_two() && size <= self.max_size {
            self.size = size;
        }
    }

    pub(crate) fn set_vector(&mut self, vector: u16) {
        self.vector = vector;
        if let Run::Running(_, interrupt) | Run::Paused(_, interrupt) = &self.run {
            interrupt.set_vector(vector);
        }
    }

    pub(crate) fn config(&self, features: u64) -> QueueConfig {
        QueueConfig {
            size: self.size,
            descriptor_table: self.desc,
            avail_ring: self.driver,
            used_ring: self.device,
            features,
        }
    }

    /// Whether there is no worker and no reset to complete.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.run, Run::Idle)
    }

    /// Whether its reset has been asked for and is not complete.
    pub(crate) fn is_resetting(&self) -> bool {
        matches!(self.run, Run::Stopping(_) | Run::Stopped)
    }

    /// Hands a worker to the executor.
    pub(crate) fn run(
        &mut self,
        executor: &dyn Executor,
        name: &str,
        worker: Box<dyn Worker>,
        interrupt: Arc<QueueInterrupt>,
    ) -> Result<(), DeviceError> {
        let handle = executor.spawn(name, worker).map_err(DeviceError::Worker)?;
        self.run = Run::Running(handle, interrupt);
        Ok(())
    }

    /// Keeps a worker until the function is resumed.
    pub(crate) fn hold(&mut self, worker: Box<dyn Worker>, interrupt: Arc<QueueInterrupt>) {
        self.run = Run::Paused(worker, interrupt);
    }

    /// The worker that [`hold`](Self::hold) or [`wait`](Self::wait) keeps.
    pub(crate) fn held(&self) -> Option<&dyn Worker> {
        if let Run::Paused(worker, _) = &self.run { Some(&**worker) } else { None }
    }

    /// Begins a reset: no interrupt from here on, and no new request. Changes nothing if one has
    /// begun.
    pub(crate) fn begin_reset(&mut self) {
        self.run = match std::mem::replace(&mut self.run, Run::Idle) {
            Run::Running(mut handle, interrupt) => {
                interrupt.silence();
                handle.stop();
                Run::Stopping(handle)
            }
            Run::Idle | Run::Paused(..) => Run::Stopped,
            other => other,
        };
    }

    /// Whether a reset that was begun can be completed.
    pub(crate) fn reset_ready(&mut self) -> bool {
        if let Run::Stopping(handle) = &mut self.run
            && handle.take().is_some()
        {
            self.run = Run::Stopped;
        }
        matches!(self.run, Run::Stopped)
    }

    /// Asks the worker to stop, without waiting for it.
    pub(crate) fn ask_to_stop(&mut self) {
        if let Run::Running(handle, _) | Run::Stopping(handle) = &mut self.run {
            handle.stop();
        }
    }

    /// Waits for the worker after [`ask_to_stop`](Self::ask_to_stop): a running queue becomes a
    /// paused one, and the reset of one that is being reset can be completed. Says whether it is
    /// quiet.
    pub(crate) fn wait(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let (run, quiet) = match std::mem::replace(&mut self.run, Run::Idle) {
            Run::Running(mut handle, interrupt) => match handle.wait(left) {
                Some(worker) => (Run::Paused(worker, interrupt), true),
                None => (Run::Running(handle, interrupt), false),
            },
            Run::Stopping(mut handle) => match handle.wait(left) {
                Some(_) => (Run::Stopped, true),
                None => (Run::Stopping(handle), false),
            },
            other => (other, true),
        };
        self.run = run;
        quiet
    }

    /// Undoes [`ask_to_stop`](Self::ask_to_stop) and [`wait`](Self::wait).
    pub(crate) fn proceed(
        &mut self,
        executor: &dyn Executor,
        name: &str,
    ) -> Result<(), DeviceError> {
        match std::mem::replace(&mut self.run, Run::Idle) {
            Run::Running(mut handle, interrupt) => match handle.proceed() {
                Some(worker) => self.run(executor, name, worker, interrupt)?,
                None => self.run = Run::Running(handle, interrupt),
            },
            Run::Paused(worker, interrupt) => self.run(executor, name, worker, interrupt)?,
            other => self.run = other,
        }
        Ok(())
    }

    /// Has the worker look around.
    pub(crate) fn wake(&self) {
        if let Run::Running(handle, _) | Run::Stopping(handle) = &self.run {
            handle.wake();
        }
    }
}
