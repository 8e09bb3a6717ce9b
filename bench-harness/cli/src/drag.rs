//! Devices that are slower than they are, on purpose: something to be found.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use paraslot_device::{Executor, Progress, Source, Worker, WorkerHandle};

/// An executor whose workers take `drag` longer for each look at their work; `executor` itself if that is none.
///
/// The time passes before a round, not after it: what a guest is told at a round's end it goes on with at once, and
/// whatever the device's thread did then would cost it nothing.
pub(crate) fn on(executor: Arc<dyn Executor>, drag: Duration) -> Arc<dyn Executor> {
    if drag.is_zero() { executor } else { Arc::new(Dragging { executor, drag }) }
}

struct Dragging {
    executor: Arc<dyn Executor>,
    drag: Duration,
}

struct Dragged {
    worker: Box<dyn Worker>,
    drag: Duration,
}

/// A handle that gives back the worker as it was.
struct Handle(Box<dyn WorkerHandle>);

impl Executor for Dragging {
    fn spawn(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Box<dyn WorkerHandle>> {
        let worker = Box::new(Dragged { worker, drag: self.drag });
        Ok(Box::new(Handle(self.executor.spawn(name, worker)?)))
    }
}

impl Worker for Dragged {
    fn sources(&self) -> Vec<Source> {
        self.worker.sources()
    }

    fn service(&mut self) -> Progress {
        let start = Instant::now();
        while start.elapsed() < self.drag {
            std::hint::spin_loop();
        }
        self.worker.service()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        self.worker.prepare_to_wait()
    }

    fn quiesce(&mut self) -> Progress {
        self.worker.quiesce()
    }
}

/// The worker itself: devices know theirs by type. What comes back is what was handed on, and nothing else.
fn own(worker: Box<dyn Worker>) -> Option<Box<dyn Worker>> {
    let worker: Box<dyn Any> = worker;
    worker.downcast::<Dragged>().ok().map(|dragged| dragged.worker)
}

impl WorkerHandle for Handle {
    fn wake(&self) {
        self.0.wake();
    }

    fn stop(&mut self) {
        self.0.stop();
    }

    fn take(&mut self) -> Option<Box<dyn Worker>> {
        self.0.take().and_then(own)
    }

    fn proceed(&mut self) -> Option<Box<dyn Worker>> {
        self.0.proceed().and_then(own)
    }

    fn wait(&mut self, limit: Duration) -> Option<Box<dyn Worker>> {
        self.0.wait(limit).and_then(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paraslot_device::ManualExecutor;

    /// Counts its rounds, and has something to do in the first two.
    #[derive(Default)]
    struct Counting {
        rounds: u32,
    }

    impl Worker for Counting {
        fn sources(&self) -> Vec<Source> {
            Vec::new()
        }

        fn service(&mut self) -> Progress {
            self.rounds += 1;
            if self.rounds <= 2 { Progress::More } else { Progress::Idle }
        }

        fn prepare_to_wait(&mut self) -> Progress {
            Progress::Idle
        }

        fn quiesce(&mut self) -> Progress {
            Progress::Idle
        }
    }

    #[test]
    fn a_worker_that_is_dragged_does_the_same_and_comes_back_as_it_was() {
        let manual = ManualExecutor::new();
        let executor = on(Arc::new(manual.clone()), Duration::from_nanos(1));
        let mut handle = executor.spawn("counting", Box::new(Counting::default())).unwrap();
        assert!(handle.take().is_none());
        manual.run(10);
        handle.stop();
        manual.run(10);
        let worker: Box<dyn Any> = handle.take().unwrap();
        assert_eq!(worker.downcast::<Counting>().ok().unwrap().rounds, 3);
    }

    #[test]
    fn no_drag_is_nobody_in_between() {
        let executor: Arc<dyn Executor> = Arc::new(ManualExecutor::new());
        assert!(Arc::ptr_eq(&on(executor.clone(), Duration::ZERO), &executor));
        assert!(!Arc::ptr_eq(&on(executor.clone(), Duration::from_nanos(1)), &executor));
    }
}
