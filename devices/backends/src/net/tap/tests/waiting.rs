//! Workers that sleep on a queue's sources. What must not happen is that they do not get to sleep, or
//! are not woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use paraslot_device::{
    Executor, Progress, Source, ThreadExecutor, ThreadOptions, Worker, WorkerHandle,
};

use super::frames::{GUEST, Guest, PORT, pattern};
use super::interface::{Port, socket};
use crate::net::testing::namespace::in_namespace;
use crate::net::{NetError, NetReceiver, NetSender, Offload};

/// What a worker did.
#[derive(Default)]
struct Seen {
    services: AtomicUsize,
    downs: AtomicUsize,
    /// The guest has no buffers.
    starved: AtomicBool,
}

/// Sends back what it receives.
struct Echo {
    guest: Guest,
    sender: Box<dyn NetSender>,
    receiver: Box<dyn NetReceiver>,
    seen: Arc<Seen>,
}

impl Worker for Echo {
    fn sources(&self) -> Vec<Source> {
        self.sender.sources().into_iter().chain(self.receiver.sources()).collect()
    }

    fn service(&mut self) -> Progress {
        self.seen.services.fetch_add(1, SeqCst);
        if self.seen.starved.load(SeqCst) {
            self.receiver.stop_waiting();
            return Progress::Idle;
        }
        match self.guest.receive(&mut *self.receiver) {
            Ok(Some((mut frame, _))) => {
                // There and back: addresses and ports trade places, which no sum minds.
                for (at, len) in [(0, 6), (26, 4), (34, 2)] {
                    frame[at..at + 2 * len].rotate_left(len);
                }
                let sent = self.guest.send(&mut *self.sender, &frame, Offload::default());
                assert!(matches!(sent, Ok(()) | Err(NetError::Down)), "{sent:?}");
                Progress::More
            }
            Ok(None) => Progress::Idle,
            Err(NetError::Down) => {
                self.seen.downs.fetch_add(1, SeqCst);
                Progress::More
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn prepare_to_wait(&mut self) -> Progress {
        if self.seen.starved.load(SeqCst) {
            return Progress::Idle;
        }
        self.receiver.prepare_to_wait()
    }

    fn quiesce(&mut self) -> Progress {
        Progress::Idle
    }
}

struct Running {
    seen: Arc<Seen>,
    handle: Box<dyn WorkerHandle>,
    _executor: ThreadExecutor,
}

impl Running {
    fn new(guest: Guest, sender: Box<dyn NetSender>, receiver: Box<dyn NetReceiver>) -> Self {
        let seen = Arc::new(Seen::default());
        let worker = Echo { guest, sender, receiver, seen: seen.clone() };
        let options = ThreadOptions { busy_poll: Duration::ZERO, ..ThreadOptions::default() };
        let executor = ThreadExecutor::new("echo", &options).unwrap();
        let handle = executor.spawn("echo", Box::new(worker)).unwrap();
        Self { seen, handle, _executor: executor }
    }

    /// Wakes it, and waits until it was serviced for that.
    fn wake(&self) {
        let before = self.seen.services.load(SeqCst);
        self.handle.wake();
        while self.seen.services.load(SeqCst) == before {
            std::thread::yield_now();
        }
    }

    /// Whether it goes round and round: it is serviced far more often than it is woken.
    fn is_busy(&self) -> bool {
        let before = self.seen.services.load(SeqCst);
        for _ in 0..20 {
            self.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.seen.services.load(SeqCst) - before > 100
    }
}

#[test]
fn a_sleeping_worker_is_woken_by_every_frame() {
    in_namespace(|namespace| {
        let Port { backend: _backend, host: _, guest, sender, receiver } = Port::new(namespace, 1);
        let running = Running::new(guest, sender, receiver);
        let socket = socket();
        let mut data = [0; 2000];
        for index in 0..2000 {
            let sent = pattern(index % 1400);
            socket.send_to(&sent, (GUEST, PORT)).unwrap();
            let count = socket.recv(&mut data).unwrap();
            assert!(data[..count] == sent);
        }
        assert!(!running.is_busy());
    });
}

// Level-triggered, the descriptor itself would ring for as long as the frame is there.
#[test]
fn a_worker_that_can_take_no_frame_sleeps() {
    in_namespace(|namespace| {
        let Port { backend: _backend, host: _, guest, sender, receiver } = Port::new(namespace, 1);
        let running = Running::new(guest, sender, receiver);
        let socket = socket();
        for _ in 0..3 {
            // It has asked to be woken; and then the guest takes its buffers away.
            running.wake();
            running.seen.starved.store(true, SeqCst);
            for _ in 0..5 {
                socket.send_to(b"frame", (GUEST, PORT)).unwrap();
            }
            assert!(!running.is_busy());
            running.seen.starved.store(false, SeqCst);
            running.wake();
            for _ in 0..5 {
                assert_eq!(socket.recv(&mut [0; 100]).unwrap(), 5);
            }
        }
    });
}

#[test]
fn a_worker_sleeps_when_its_interface_is_gone() {
    in_namespace(|namespace| {
        for _ in 0..5 {
            let Port { backend: _backend, host, guest, sender, receiver } = Port::new(namespace, 1);
            let running = Running::new(guest, sender, receiver);
            let socket = socket();
            for _ in 0..10 {
                socket.send_to(b"frame", (GUEST, PORT)).unwrap();
            }
            host.remove();
            while running.seen.downs.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            assert!(!running.is_busy());
            assert_eq!(running.seen.downs.load(SeqCst), 1);
        }
    });
}
