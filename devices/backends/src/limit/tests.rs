//! The buckets, and the backends behind them.

use std::sync::atomic::Ordering;

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, ManualClock, Progress, Source, Sources, SystemClock};
use proptest::prelude::*;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::*;
use crate::block::testing::{FaultBackend, GatedBackend, GuestPages, conformance, plain};
use crate::block::{
    BlockBackend, BlockCompletion, BlockError, BlockOp, BlockQueue, FileBackend, FileOptions,
    LimitedBackend, MemoryBackend, MemoryOptions,
};
use crate::net::testing::{Bell, PortEnd, conformance as net_conformance};
use crate::net::{
    Frame, LimitedNet, NetBackend, NetError, NetReceiver, NetSender, Offload, Received, Room, Wire,
    WireOptions,
};

const MIB: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    let number = |value| NonZeroU64::new(value).unwrap();
    Some(Rate { per_second: number(per_second), burst: number(burst) })
}

fn operations(per_second: u64, burst: u64) -> Rates {
    Rates { operations: rate(per_second, burst), bytes: None }
}

fn bytes(per_second: u64, burst: u64) -> Rates {
    Rates { bytes: rate(per_second, burst), operations: None }
}

fn manual(rates: Rates) -> (ManualClock, Arc<Limiter>) {
    let clock = ManualClock::new();
    (clock.clone(), Arc::new(Limiter::new(Arc::new(clock), rates)))
}

fn real(rates: Rates) -> Arc<Limiter> {
    Arc::new(Limiter::new(Arc::new(SystemClock::new()), rates))
}

#[test]
fn a_burst_and_then_the_rate() {
    let (clock, limiter) = manual(operations(10, 3));
    assert_eq!(limiter.rates(), operations(10, 3));
    assert_eq!((0..9).filter(|_| limiter.take(0)).count(), 3);
    assert_eq!(limiter.wait(0), Some(LONGEST_WAIT));
    clock.advance(Duration::from_millis(99));
    assert_eq!(limiter.wait(0), Some(Duration::from_millis(1)));
    assert!(!limiter.take(0));
    clock.advance(Duration::from_millis(2));
    assert_eq!(limiter.wait(0), None);
    assert!(limiter.take(0) && !limiter.take(0));
    clock.advance(SECOND);
    assert_eq!((0..9).filter(|_| limiter.take(0)).count(), 3, "it holds no more than a burst");
}

#[test]
fn what_is_larger_than_the_bucket_is_paid_for_afterwards() {
    let (clock, limiter) = manual(bytes(1000, 10));
    assert!(limiter.take(5000) && !limiter.take(1));
    clock.advance(Duration::from_millis(4980));
    assert!(!limiter.take(1));
    clock.advance(Duration::from_millis(15));
    assert!(limiter.take(1));
    // Not even the greatest there is takes a time that cannot be told.
    limiter.spend(u64::MAX);
    limiter.spend(u64::MAX);
    assert_eq!(limiter.wait(0), Some(LONGEST_WAIT));
}

#[test]
fn both_limits_hold_and_can_be_changed() {
    let both = Rates { bytes: rate(1000, 1000), operations: rate(1, 2) };
    let (_, limiter) = manual(both);
    assert!(limiter.take(1) && limiter.take(1) && !limiter.take(1), "operations");
    limiter.set(both);
    assert!(limiter.take(1000) && !limiter.take(1), "bytes");
    limiter.set(Rates::default());
    assert!((0..100).all(|_| limiter.take(u64::MAX)));
    assert!(!limiter.on.load(Ordering::Relaxed));
}

proptest! {
    // Whatever comes when: never more than the burst, what the rate gives, and the one that overdraws;
    // and who waits as long as it was told gets through.
    #[test]
    fn no_more_than_the_rate_and_no_less(
        per_second in 1_u64..1 << 40,
        burst in 1_u64..1 << 30,
        steps in prop::collection::vec((0_u64..1 << 24, 0_u64..2_000_000_000), 1..60),
    ) {
        let (clock, limiter) = manual(bytes(per_second, burst));
        let mut spent = 0_u128;
        for (bytes, pause) in steps {
            clock.advance(Duration::from_nanos(pause));
            let wait = limiter.lock().wait(limiter.now(), bytes);
            if let Some(wait) = wait {
                prop_assert!(!limiter.take(bytes));
                clock.advance(wait);
            }
            prop_assert!(limiter.take(bytes), "after {wait:?}");
            // It was in the bucket, or all of the bucket was; a picosecond may be worth a byte.
            let given = u128::from(per_second) * clock.now().as_nanos() / 1_000_000_000;
            let was_there = spent + u128::from(bytes.min(burst));
            prop_assert!(was_there <= u128::from(burst) + given + 2, "{spent}, {bytes}, {given}");
            spent += u128::from(bytes);
        }
    }
}

#[test]
fn limited_disks_conform() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(2 * MIB).unwrap();
    for rates in [Rates::default(), operations(20_000, 1), bytes(1 << 30, 512)] {
        let image = MemoryBackend::new(2 * MIB, MemoryOptions::default()).unwrap();
        conformance(&LimitedBackend::new(image, real(rates)), true);
        let image = FileBackend::open(&FileOptions::new(file.path())).unwrap();
        conformance(&LimitedBackend::new(image, real(rates)), true);
    }
}

#[test]
fn limited_ports_conform() {
    for rates in [Rates::default(), operations(50_000, 1), bytes(1 << 32, 100)] {
        let (one, other) = Wire::new(WireOptions { frames: 5, ..WireOptions::default() }).unwrap();
        let limiter = real(rates);
        let one = LimitedNet::new(one, limiter.clone(), limiter);
        if rates == Rates::default() {
            net_conformance(&one, &mut PortEnd::new(&other, true));
        } else {
            frames_pass_in_order(&one, &other);
        }
    }
}

struct Queue {
    guest: GuestPages,
    queue: Box<dyn BlockQueue>,
}

impl Queue {
    fn new(backend: &dyn BlockBackend, depth: u32) -> Self {
        Self { guest: GuestPages::new(1 << 16), queue: backend.open_queue(depth).unwrap() }
    }

    fn read(&mut self, token: u64) -> bool {
        let request = self.guest.read_request(token, 0, &[(0, 4096)]);
        self.queue.submit(request).is_ok()
    }

    fn completed(&mut self) -> Vec<BlockCompletion> {
        self.queue.commit();
        let mut completions = Vec::new();
        self.queue.complete(&mut completions);
        completions
    }

    fn tokens(&mut self) -> Vec<u64> {
        let completed = self.completed();
        completed.iter().for_each(|completion| assert!(completion.result.is_ok()));
        completed.iter().map(|completion| completion.token).collect()
    }
}

fn memory() -> MemoryBackend {
    MemoryBackend::new(MIB, MemoryOptions::default()).unwrap()
}

#[test]
fn held_operations_go_in_order_and_ring() {
    let (clock, limiter) = manual(operations(1, 2));
    let backend = LimitedBackend::new(memory(), limiter.clone());
    let mut disk = Queue::new(&backend, 4);
    let bell = Bell::new(disk.queue.sources());
    assert!((0..4).all(|token| disk.read(token)));
    assert!(!disk.read(4), "those that are held are in flight");
    disk.queue.commit();
    assert!(bell.rings(60_000), "there is something to complete");
    assert_eq!(disk.tokens(), [0, 1]);
    assert_eq!((disk.queue.in_flight(), limiter.delayed()), (2, 2));
    // What is shared is spent.
    let mut other = Queue::new(&backend, 1);
    assert!(other.read(9));
    assert_eq!(other.tokens(), [0; 0]);
    drop(other);
    while bell.rings(0) {}
    for token in [2, 3] {
        for _ in 0..10 {
            assert_eq!(disk.tokens(), [0; 0]);
            assert!(!bell.rings(0));
            clock.advance(LONGEST_WAIT);
            assert!(bell.rings(60_000), "it looks again now and then");
        }
        assert_eq!(disk.tokens(), [token]);
        while bell.rings(0) {}
    }
    clock.advance(SECOND);
    assert!(!bell.rings(0), "nothing is held");
}

#[test]
fn bytes_are_those_of_reads_and_writes() {
    let (_, limiter) = manual(bytes(1, 1));
    let mut disk = Queue::new(&LimitedBackend::new(memory(), limiter), 8);
    let others = [
        BlockOp::Flush,
        BlockOp::Discard,
        BlockOp::WriteZeroes { unmap: true },
        BlockOp::SecureErase,
    ];
    for (token, op) in (0..).zip(others) {
        let len = if op == BlockOp::Flush { 0 } else { 4096 };
        assert!(disk.queue.submit(plain(token, op, 0, len)).is_ok());
    }
    assert_eq!(disk.completed().len(), 4);
    assert!(disk.read(5) && disk.read(6));
    assert_eq!(disk.tokens(), [5]);
}

#[test]
fn held_operations_can_be_cancelled() {
    let (clock, limiter) = manual(operations(1, 1));
    let mut disk = Queue::new(&LimitedBackend::new(memory(), limiter), 4);
    assert!([1, 2, 3, 2].iter().all(|token| disk.read(*token)));
    assert_eq!(disk.tokens(), [1]);
    let bell = Bell::new(disk.queue.sources());
    while bell.rings(0) {}
    disk.queue.cancel(2);
    disk.queue.cancel(7);
    assert!(bell.rings(60_000));
    assert_eq!(disk.queue.in_flight(), 3);
    let cancelled = disk.completed();
    assert_eq!(cancelled.len(), 2);
    for completion in cancelled {
        assert_eq!(completion.token, 2);
        assert!(matches!(completion.result, Err(BlockError::Cancelled)));
    }
    clock.advance(SECOND + SECOND);
    assert_eq!(disk.tokens(), [3]);
    assert_eq!(disk.queue.in_flight(), 0);
}

#[test]
fn a_stop_does_not_wait_and_is_paid_for() {
    let (clock, limiter) = manual(operations(1, 1));
    let mut disk = Queue::new(&LimitedBackend::new(memory(), limiter), 8);
    assert!((0..4).all(|token| disk.read(token)));
    assert_eq!(disk.tokens(), [0]);
    disk.queue.hurry();
    assert_eq!(disk.tokens(), [1, 2, 3]);
    assert!(disk.read(4));
    clock.advance(3 * SECOND);
    assert_eq!(disk.tokens(), [0; 0]);
    clock.advance(SECOND);
    assert_eq!(disk.tokens(), [4]);
}

// A guest that resets its device again and again keeps to the rate all the same.
#[test]
fn stops_do_not_lift_the_limit() {
    let (clock, limiter) = manual(operations(1, 1));
    let backend = LimitedBackend::new(memory(), limiter);
    let mut done = 0;
    for _ in 0..100 {
        let mut disk = Queue::new(&backend, 8);
        assert!((0..8).all(|token| disk.read(token)));
        disk.queue.hurry();
        done += disk.tokens().len();
        clock.advance(Duration::from_millis(100));
    }
    // The burst, ten seconds of debt, one that overdraws, and what ten seconds give.
    assert!((20..=22).contains(&done), "{done}");
}

// Completions of the backend, errors too, come through while something is held.
#[test]
fn what_has_gone_completes_beside_what_is_held() {
    let (_, limiter) = manual(operations(1, 2));
    let gated = GatedBackend::new(memory());
    let gate = gated.gate();
    let mut disk = Queue::new(&LimitedBackend::new(gated, limiter), 8);
    let bell = Bell::new(disk.queue.sources());
    assert!((0..3).all(|token| disk.read(token)));
    disk.queue.commit();
    assert!(!bell.rings(0));
    gate.release(1);
    assert!(bell.rings(60_000));
    assert_eq!(disk.tokens(), [0]);
    assert_eq!((gate.held(), disk.queue.in_flight()), (1, 2));

    let (_, limiter) = manual(operations(1, 1));
    let faulty = FaultBackend::nth(memory(), 0, libc::EIO);
    let mut disk = Queue::new(&LimitedBackend::new(faulty, limiter), 8);
    assert!(disk.read(0) && disk.read(1));
    assert!(matches!(disk.completed()[..], [BlockCompletion { token: 0, result: Err(_) }]));
}

fn send(sender: &mut dyn NetSender, head: &[u8]) -> Result<(), NetError> {
    let body = DmaBuffers::empty(Direction::ToDevice);
    let sent = sender.send(&Frame { head, body: &body, offload: Offload::default() });
    sender.commit();
    sent
}

fn receive(receiver: &mut dyn NetReceiver) -> Option<Vec<u8>> {
    let mut room = [0; 2000];
    let Received { len, .. } = receiver.receive(Room::Host(&mut room)).unwrap()?;
    Some(room[..len].to_vec())
}

fn frames_pass_in_order(one: &dyn NetBackend, other: &dyn NetBackend) {
    const COUNT: u8 = 200;
    for (from, to) in [(one, other), (other, one)] {
        let (mut sender, mut receiver) =
            (from.open_sender(0).unwrap(), to.open_receiver(0).unwrap());
        let bell = Bell::new(sender.sources().into_iter().chain(receiver.sources()).collect());
        let (mut sent, mut got) = (0, 0);
        while got < COUNT {
            let before = (sent, got);
            while sent < COUNT && send(&mut *sender, &[sent; 60]).is_ok() {
                sent += 1;
            }
            while let Some(frame) = receive(&mut *receiver) {
                assert_eq!(frame, [got; 60]);
                got += 1;
            }
            // One of them has something to wait for.
            if before == (sent, got)
                && sender.prepare_to_wait() == Progress::Idle
                && receiver.prepare_to_wait() == Progress::Idle
            {
                bell.wait();
            }
        }
    }
}

#[test]
fn frames_wait_for_their_limit() {
    let (clock, sent) = manual(operations(10, 2));
    let received = Arc::new(Limiter::new(Arc::new(clock.clone()), bytes(1000, 100)));
    let (one, other) = Wire::new(WireOptions::default()).unwrap();
    let one = LimitedNet::new(one, sent.clone(), received.clone());

    let (mut sender, mut far) = (one.open_sender(0).unwrap(), other.open_receiver(0).unwrap());
    let bell = Bell::new(sender.sources());
    assert!(send(&mut *sender, &[0; 60]).is_ok() && send(&mut *sender, &[1; 60]).is_ok());
    for number in 2..5 {
        assert!(matches!(send(&mut *sender, &[number; 60]), Err(NetError::Busy)));
        assert_eq!(sender.prepare_to_wait(), Progress::Idle);
        assert!(!bell.rings(0));
        clock.advance(Duration::from_millis(101));
        assert!(bell.rings(60_000));
        assert!(send(&mut *sender, &[number; 60]).is_ok(), "{number}");
    }
    assert_eq!(std::iter::from_fn(|| receive(&mut *far)).count(), 5);
    assert_eq!(sent.delayed(), 3);
    assert!(matches!(send(&mut *sender, &[9; 60]), Err(NetError::Busy)));
    clock.advance(SECOND);
    assert_eq!(sender.prepare_to_wait(), Progress::More, "time has passed since");
    // It is quiet when nobody waits any more.
    assert!((0..2).all(|_| send(&mut *sender, &[9; 60]).is_ok()));
    assert!(matches!(send(&mut *sender, &[9; 60]), Err(NetError::Busy)));
    assert_eq!(sender.prepare_to_wait(), Progress::Idle);
    sender.stop_waiting();
    clock.advance(SECOND);
    assert!(!bell.rings(0));

    let (mut sender, mut near) = (other.open_sender(0).unwrap(), one.open_receiver(0).unwrap());
    let bell = Bell::new(near.sources());
    assert_eq!(near.prepare_to_wait(), Progress::Idle);
    for number in 0..3 {
        assert!(send(&mut *sender, &[number; 90]).is_ok());
    }
    assert!(bell.rings(60_000));
    assert!(receive(&mut *near).is_some() && receive(&mut *near).is_some());
    assert!(receive(&mut *near).is_none(), "180 of 100 bytes");
    while bell.rings(0) {}
    assert_eq!(near.prepare_to_wait(), Progress::Idle);
    clock.advance(Duration::from_millis(100));
    assert!(bell.rings(60_000));
    assert_eq!(receive(&mut *near), Some(vec![2; 90]));
    assert_eq!(received.delayed(), 1);
}

// A timer's descriptor stays readable until somebody looks at it, and a worker that has nothing to do any
// more does not.
#[test]
fn nothing_rings_on_when_all_is_done() {
    let readable = |sources: Sources| {
        let epoll = Epoll::new().unwrap();
        for source in sources {
            if let Source::Readable(descriptor) = source {
                let event = EpollEvent::new(EventSet::IN, 0);
                epoll.ctl(ControlOperation::Add, descriptor, event).unwrap();
            }
        }
        epoll.wait(20, &mut [EpollEvent::default()]).unwrap()
    };
    let limiter = real(operations(1000, 1));
    let mut disk = Queue::new(&LimitedBackend::new(memory(), limiter.clone()), 8);
    for hurried in [false, true] {
        assert!((0..5).all(|token| disk.read(token)));
        let mut tokens = Vec::new();
        while tokens.len() < 5 {
            if hurried {
                disk.queue.hurry();
            }
            tokens.extend(disk.tokens());
        }
        assert_eq!((disk.queue.in_flight(), readable(disk.queue.sources())), (0, 0));
    }

    let (one, other) = Wire::new(WireOptions::default()).unwrap();
    let one = LimitedNet::new(one, limiter.clone(), limiter);
    let (mut sender, mut far) = (one.open_sender(0).unwrap(), other.open_receiver(0).unwrap());
    for number in 0..5 {
        while send(&mut *sender, &[number; 60]).is_err() {
            let _ = sender.prepare_to_wait();
        }
    }
    assert_eq!(std::iter::from_fn(|| receive(&mut *far)).count(), 5);
    assert_eq!(readable(sender.sources()), 0);
}
