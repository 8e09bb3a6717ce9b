//! What a frame costs in allocations.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use paraslot_backends::net::{NetBackend, Wire, WireOptions};
use paraslot_device::{Progress, Worker};
use paraslot_spec::virtio_net::{class, feature, mq};
use paraslot_virtio::VirtioDevice;
use paraslot_virtio::testing::{Buffer, DriverRing};
use paraslot_virtio_net::{Options, VirtioNet};
use vm_memory::{GuestAddress, GuestMemoryMmap};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Space = Arc<GuestMemoryMmap>;

/// Addresses of a queue's ring, and of its buffers.
fn ring_at(index: u16) -> u64 {
    0x4000 * u64::from(index)
}

fn buffer_at(index: u16, number: u64) -> u64 {
    0x10_0000 + 0x10_0000 * u64::from(index) + 0x1000 * number
}

struct Lane {
    index: u16,
    ring: DriverRing<Space>,
    worker: Box<dyn Worker>,
}

/// A device's queues.
struct Nic {
    _device: VirtioNet,
    lanes: Vec<Lane>,
}

impl Nic {
    fn new(backend: impl NetBackend + 'static, features: u64) -> Self {
        let pairs = backend.info().queues;
        let options = Options { queue_pairs: pairs, ..Options::default() };
        let mut device = VirtioNet::new(Arc::new(backend), &options).unwrap();
        let features = features & VirtioDevice::<Space>::features(&device);
        assert!(VirtioDevice::<Space>::accept_features(&mut device, features));
        let space: Space =
            Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap());
        let lanes = (0..2 * pairs + 1)
            .map(|index| {
                let ring = DriverRing::new(space.clone(), ring_at(index), 256);
                let worker = device.start_queue(index, ring.queue(features).queue).unwrap();
                Lane { index, ring, worker }
            })
            .collect();
        Self { _device: device, lanes }
    }

    /// Allocations while the workers work until they have nothing to do.
    fn work(&mut self) -> u64 {
        let before = ALLOCATIONS.get();
        loop {
            let mut progress = Progress::Idle;
            for lane in &mut self.lanes {
                progress = progress.or(lane.worker.service());
            }
            if progress == Progress::Idle {
                return ALLOCATIONS.get() - before;
            }
        }
    }

    fn post(&mut self, pair: usize, count: u64) {
        let Lane { index, ring, .. } = &mut self.lanes[2 * pair];
        for number in 0..count {
            ring.add(&[Buffer::writable(buffer_at(*index, number), 2048)]);
        }
    }

    fn send(&mut self, count: u64, len: u32) {
        let Lane { index, ring, .. } = &mut self.lanes[1];
        for number in 0..count {
            ring.add(&[Buffer::readable(buffer_at(*index, number), 12 + len)]);
        }
    }

    /// How many chains of a queue came back.
    fn used(&mut self, index: usize) -> u64 {
        std::iter::from_fn(|| self.lanes[index].ring.used()).count() as u64
    }
}

/// Frames from one device to another; allocations by both.
fn exchange(one: &mut Nic, other: &mut Nic, pair: usize, count: u64) -> u64 {
    other.post(pair, count);
    one.send(count, 64);
    let allocations = one.work() + other.work();
    assert_eq!((one.used(1), other.used(2 * pair)), (count, count));
    allocations
}

const FEATURES: u64 = !(feature::CTRL_RX | feature::CTRL_VLAN | feature::HASH_REPORT);

#[test]
fn frames_do_not_allocate() {
    for features in [FEATURES, FEATURES & !feature::MRG_RXBUF, feature::CTRL_VQ] {
        let (left, right) = Wire::new(WireOptions::default()).unwrap();
        let (mut one, mut other) = (Nic::new(left, features), Nic::new(right, features));
        for _ in 0..3 {
            exchange(&mut one, &mut other, 0, 200);
        }
        for _ in 0..10 {
            assert_eq!(exchange(&mut one, &mut other, 0, 1), 0);
            assert_eq!(exchange(&mut one, &mut other, 0, 200), 0);
        }
        assert_eq!((0..100).map(|_| one.work() + other.work()).sum::<u64>(), 0);
    }
}

// By way of another queue's inbox.
#[test]
fn frames_that_are_handed_over_do_not_allocate() {
    let options = WireOptions { queues: 2, ..WireOptions::default() };
    let (left, right) = Wire::new(options).unwrap();
    let features = FEATURES & !feature::MRG_RXBUF;
    let (mut one, mut other) = (Nic::new(left, features), Nic::new(right, features));
    let command = [class::MQ, mq::RSS_CONFIG, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 0, 0];
    let ring = &mut other.lanes[4].ring;
    ring.write(0x7_0000, &command);
    ring.add(&[Buffer::readable(0x7_0000, 15), Buffer::writable(0x7_1000, 1)]);
    other.work();
    assert_eq!(other.lanes[4].ring.read(0x7_1000, 1), [0]);
    for _ in 0..3 {
        exchange(&mut one, &mut other, 1, 100);
    }
    for _ in 0..10 {
        assert_eq!(exchange(&mut one, &mut other, 1, 1), 0);
        assert_eq!(exchange(&mut one, &mut other, 1, 100), 0);
    }
}
