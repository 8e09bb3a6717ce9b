use super::*;
use std::os::fd::AsRawFd;

/// Counts what is written to an eventfd-like counter; holds back its last item when gated.
struct Counter {
    event: EventFd,
    input: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
    gate: Arc<AtomicBool>,
}

impl Worker for Counter {
    fn sources(&self) -> Vec<Source> {
        vec![Source::Event(self.event.as_raw_fd())]
    }
    fn service(&mut self) -> Progress {
        if self.input.load(Ordering::SeqCst) == 0 {
            return Progress::Idle;
        }
        self.input.fetch_sub(1, Ordering::SeqCst);
        self.done.fetch_add(1, Ordering::SeqCst);
        Progress::More
    }
    fn prepare_to_wait(&mut self) -> Progress {
        if self.input.load(Ordering::SeqCst) == 0 { Progress::Idle } else { Progress::More }
    }
    fn quiesce(&mut self) -> Progress {
        if self.gate.load(Ordering::SeqCst) { Progress::More } else { Progress::Idle }
    }
}

struct Fixture {
    event: EventFd,
    input: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
    gate: Arc<AtomicBool>,
}

impl Fixture {
    fn new() -> (Self, Box<Counter>) {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        let this = Self {
            event: event.try_clone().unwrap(),
            input: Arc::default(),
            done: Arc::default(),
            gate: Arc::default(),
        };
        let worker = Counter {
            event,
            input: this.input.clone(),
            done: this.done.clone(),
            gate: this.gate.clone(),
        };
        (this, Box::new(worker))
    }
    fn until_done(&self, count: usize) {
        while self.done.load(Ordering::SeqCst) != count {
            std::thread::yield_now();
        }
    }
}

fn executor(busy_poll: Duration) -> ThreadExecutor {
    ThreadExecutor::new("test", &ThreadOptions { busy_poll, ..Default::default() }).unwrap()
}

#[test]
fn a_sleeping_worker_is_woken_by_its_source() {
    let executor = executor(Duration::ZERO);
    let (fixture, worker) = Fixture::new();
    let _handle = executor.spawn("counter", worker).unwrap();
    for round in 1..=50 {
        fixture.input.fetch_add(2, Ordering::SeqCst);
        fixture.event.write(1).unwrap();
        fixture.until_done(round * 2);
    }
}

#[test]
fn a_worker_is_given_back_only_when_it_is_quiet() {
    let executor = executor(Duration::from_micros(10));
    let (fixture, worker) = Fixture::new();
    fixture.gate.store(true, Ordering::SeqCst);
    let mut handle = executor.spawn("counter", worker).unwrap();
    handle.stop();
    assert!(handle.wait(Duration::from_millis(5)).is_none());
    assert!(handle.take().is_none());
    fixture.gate.store(false, Ordering::SeqCst);
    let worker = handle.wait(Duration::from_secs(60)).expect("quiet by now");
    // Started again, it goes on.
    let _handle = executor.spawn("counter", worker).unwrap();
    fixture.input.fetch_add(1, Ordering::SeqCst);
    fixture.event.write(1).unwrap();
    fixture.until_done(1);
}

#[test]
fn a_stop_can_be_taken_back() {
    let executor = executor(Duration::ZERO);
    let (fixture, worker) = Fixture::new();
    fixture.gate.store(true, Ordering::SeqCst);
    let mut handle = executor.spawn("counter", worker).unwrap();
    handle.stop();
    assert!(handle.wait(Duration::from_millis(5)).is_none());
    assert!(handle.proceed().is_none());
    fixture.gate.store(false, Ordering::SeqCst);
    fixture.input.fetch_add(1, Ordering::SeqCst);
    fixture.event.write(1).unwrap();
    fixture.until_done(1);
}

#[test]
fn dropping_a_handle_or_the_executor_drops_the_worker() {
    let executor = executor(Duration::ZERO);
    let (first, worker) = Fixture::new();
    drop(executor.spawn("first", worker).unwrap());
    let (second, worker) = Fixture::new();
    let _kept = executor.spawn("second", worker).unwrap();
    drop(executor);
    assert_eq!(Arc::strong_count(&first.input), 1);
    // Its handle could still take it.
    assert_eq!(Arc::strong_count(&second.input), 2);
}

#[test]
fn a_worker_that_cannot_be_watched_is_refused() {
    struct Unwatchable;
    impl Worker for Unwatchable {
        fn sources(&self) -> Vec<Source> {
            vec![Source::Event(-1)]
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
    let executor = executor(Duration::ZERO);
    assert!(executor.spawn("unwatchable", Box::new(Unwatchable)).is_err());
}

#[test]
fn a_processor_that_is_not_there_is_an_error() {
    let options = ThreadOptions { cpus: vec![usize::MAX], ..Default::default() };
    assert!(ThreadExecutor::new("test", &options).is_err());
}
