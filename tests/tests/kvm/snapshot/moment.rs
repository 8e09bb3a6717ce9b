//! When a machine is to stand still.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use paraslot_device::{Executor, Progress, Source, Worker, WorkerHandle};
use paraslot_vmm::VmHandle;

/// Suspends a machine when its device's workers have been serviced so many times, while the worker works
/// and the guest runs.
#[derive(Clone)]
struct Moment {
    left: Arc<AtomicU64>,
    machine: VmHandle,
}

impl Moment {
    fn count(&self) {
        let one_less = |left: u64| left.checked_sub(1);
        let left = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
        if left == Ok(1) {
            self.machine.suspend();
        }
    }
}

/// An executor that counts.
pub(super) struct Counting {
    inner: Arc<dyn Executor>,
    moment: Moment,
}

impl Counting {
    /// Suspends `machine` when `inner`'s workers have been serviced `services` times.
    pub(super) fn new(inner: Arc<dyn Executor>, machine: VmHandle, services: u64) -> Self {
        Self { inner, moment: Moment { left: Arc::new(AtomicU64::new(services)), machine } }
    }
}

impl Executor for Counting {
    fn spawn(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Box<dyn WorkerHandle>> {
        let counted = Counted { inner: worker, moment: self.moment.clone() };
        let handle = self.inner.spawn(name, Box::new(counted))?;
        Ok(Box::new(Handle { inner: handle }))
    }
}

struct Counted {
    inner: Box<dyn Worker>,
    moment: Moment,
}

impl Worker for Counted {
    fn sources(&self) -> Vec<Source> {
        self.inner.sources()
    }

    fn service(&mut self) -> Progress {
        self.moment.count();
        self.inner.service()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        self.inner.prepare_to_wait()
    }

    fn quiesce(&mut self) -> Progress {
        self.inner.quiesce()
    }
}

struct Handle {
    inner: Box<dyn WorkerHandle>,
}

/// The worker that a device knows.
fn unwrapped(worker: Box<dyn Worker>) -> Box<dyn Worker> {
    let worker: Box<dyn Any> = worker;
    worker.downcast::<Counted>().expect("a worker that was counted").inner
}

impl WorkerHandle for Handle {
    fn wake(&self) {
        self.inner.wake();
    }
    fn stop(&mut self) {
        self.inner.stop();
    }
    fn take(&mut self) -> Option<Box<dyn Worker>> {
        self.inner.take().map(unwrapped)
    }
    fn proceed(&mut self) -> Option<Box<dyn Worker>> {
        self.inner.proceed().map(unwrapped)
    }
    fn wait(&mut self, limit: Duration) -> Option<Box<dyn Worker>> {
        self.inner.wait(limit).map(unwrapped)
    }
}
