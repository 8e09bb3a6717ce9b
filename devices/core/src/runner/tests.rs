//! Tests of the runner.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::{ManualExecutor, Progress, Source, ThreadExecutor, ThreadOptions};

/// What a test sees of its worker, and has it do.
#[derive(Default)]
struct Watch {
    serviced: AtomicUsize,
    /// Something is in flight.
    busy: AtomicBool,
    dropped: AtomicBool,
}

struct Watched(Arc<Watch>);

impl Worker for Watched {
    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }

    fn service(&mut self) -> Progress {
        self.0.serviced.fetch_add(1, Ordering::Relaxed);
        Progress::Idle
    }

    fn prepare_to_wait(&mut self) -> Progress {
        Progress::Idle
    }

    fn quiesce(&mut self) -> Progress {
        if self.0.busy.load(Ordering::Relaxed) { Progress::More } else { Progress::Idle }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::Relaxed);
    }
}

const LIMIT: Duration = Duration::from_secs(10);

fn runner(executor: &ManualExecutor) -> (Runner, Arc<Watch>) {
    let watch = Arc::<Watch>::default();
    let worker = Box::new(Watched(watch.clone()));
    (Runner::new("watched", Arc::new(executor.clone()), worker).unwrap(), watch)
}

fn steps(executor: &ManualExecutor, watch: &Watch) -> usize {
    let before = watch.serviced.load(Ordering::Relaxed);
    assert!(executor.run(10));
    watch.serviced.load(Ordering::Relaxed) - before
}

#[test]
fn a_parked_worker_rests_until_it_is_started() {
    let executor = ManualExecutor::new();
    let (mut runner, watch) = runner(&executor);
    assert_eq!(steps(&executor, &watch), 1, "it runs from the start");
    runner.start().unwrap();
    assert_eq!(executor.len(), 1, "one that runs is not started twice");

    assert!(runner.park(LIMIT));
    assert!(executor.is_empty());
    assert_eq!(steps(&executor, &watch), 0);
    runner.stop();
    runner.wake();
    assert!(runner.park(LIMIT), "parked already");

    runner.start().unwrap();
    assert_eq!(steps(&executor, &watch), 1);
    assert!(runner.park(LIMIT));
    runner.proceed().unwrap();
    assert_eq!(steps(&executor, &watch), 1, "proceed starts what is parked");
    assert!(!watch.dropped.load(Ordering::Relaxed), "it was the same worker all the time");
}

#[test]
fn a_worker_that_is_busy_is_not_parked_and_goes_on() {
    let executor = ManualExecutor::new();
    let (mut runner, watch) = runner(&executor);
    watch.busy.store(true, Ordering::Relaxed);
    assert!(!runner.park(LIMIT));
    assert!(!executor.run(10), "it is still stopping");
    runner.proceed().unwrap();
    assert_eq!(steps(&executor, &watch), 1);

    // One that had come to rest after all is started anew.
    assert!(!runner.park(LIMIT));
    watch.busy.store(false, Ordering::Relaxed);
    assert_eq!(steps(&executor, &watch), 0);
    runner.proceed().unwrap();
    assert_eq!((executor.len(), steps(&executor, &watch)), (1, 1));

    // And one that is late can be parked later.
    runner.stop();
    assert_eq!(steps(&executor, &watch), 0);
    assert!(runner.park(LIMIT));
}

#[test]
fn a_runner_takes_its_worker_with_it() {
    let executor = ManualExecutor::new();
    let (parked, watch) = runner(&executor);
    let mut parked = parked;
    assert!(parked.park(LIMIT));
    drop(parked);
    assert!(watch.dropped.load(Ordering::Relaxed));

    let (running, watch) = runner(&executor);
    watch.busy.store(true, Ordering::Relaxed);
    drop(running);
    assert!(!executor.run(10));
    assert!(!watch.dropped.load(Ordering::Relaxed), "something of it is in flight");
    watch.busy.store(false, Ordering::Relaxed);
    assert!(executor.run(10) && executor.is_empty());
    assert!(watch.dropped.load(Ordering::Relaxed));
}

/// Takes as many workers as it is told.
struct Refusing(ManualExecutor, AtomicUsize);

impl Executor for Refusing {
    fn spawn(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Box<dyn WorkerHandle>> {
        let left = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        left.map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
        self.0.spawn(name, worker)
    }
}

#[test]
fn a_worker_that_is_refused_is_lost_and_everybody_is_told() {
    let refusing = |takes| Arc::new(Refusing(ManualExecutor::new(), AtomicUsize::new(takes)));
    let watch = Arc::<Watch>::default();
    let worker = || Box::new(Watched(watch.clone()));
    assert!(matches!(
        Runner::new("watched", refusing(0), worker()),
        Err(DeviceError::Worker(error)) if error.kind() == io::ErrorKind::ResourceBusy
    ));
    assert!(watch.dropped.swap(false, Ordering::Relaxed));

    let mut runner = Runner::new("watched", refusing(1), worker()).unwrap();
    assert!(runner.park(LIMIT));
    assert!(matches!(
        runner.start(),
        Err(DeviceError::Worker(error)) if error.kind() == io::ErrorKind::ResourceBusy
    ));
    assert!(watch.dropped.load(Ordering::Relaxed));
    assert!(matches!(runner.start(), Err(DeviceError::Worker(_))));
    assert!(matches!(runner.proceed(), Err(DeviceError::Worker(_))));
    // Nothing of it is in flight, so a pause or reset has nothing to wait for.
    runner.stop();
    runner.wake();
    assert!(runner.park(LIMIT));
}

#[test]
fn on_a_thread_it_is_woken_and_parked() {
    let executor = ThreadExecutor::new("watched", &ThreadOptions::default()).unwrap();
    let executor = Arc::new(executor);
    let watch = Arc::<Watch>::default();
    let mut runner = Runner::new("watched", executor, Box::new(Watched(watch.clone()))).unwrap();
    let serviced = || watch.serviced.load(Ordering::Relaxed);
    let wait = |target| {
        while serviced() < target {
            std::thread::yield_now();
        }
    };
    wait(1);
    let before = serviced();
    runner.wake();
    wait(before + 1);
    assert!(runner.park(LIMIT));
    let before = serviced();
    runner.wake();
    runner.proceed().unwrap();
    wait(before + 1);
    assert!(runner.park(LIMIT));
}
