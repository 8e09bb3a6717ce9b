//! What a request costs in allocations.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use paraslot_backends::block::{MemoryBackend, MemoryOptions};
use paraslot_device::{Progress, Worker};
use paraslot_spec::virtio_blk::{RequestHeader, request};
use paraslot_virtio::VirtioDevice;
use paraslot_virtio::testing::{Buffer, DriverRing};
use paraslot_virtio_blk::{Options, VirtioBlk};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

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

struct Fixture {
    ring: DriverRing<Space>,
    worker: Box<dyn Worker>,
}

impl Fixture {
    fn new() -> Self {
        let backend = MemoryBackend::new(1 << 20, MemoryOptions::default()).unwrap();
        let mut device = VirtioBlk::new(Arc::new(backend), &Options::default()).unwrap();
        let space: Space =
            Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
        let ring = DriverRing::new(space, 0, 256);
        let features = VirtioDevice::<Space>::features(&device);
        assert!(VirtioDevice::<Space>::accept_features(&mut device, features));
        let worker = device.start_queue(0, ring.queue(features).queue).unwrap();
        Self { ring, worker }
    }

    /// Allocations while the worker serves so many reads, made available at once.
    fn serve(&mut self, count: u64) -> u64 {
        for index in 0..count {
            let header = 0x1_0000 + 16 * index;
            self.ring.write(header, RequestHeader::new(request::IN, index).as_bytes());
            let data = Buffer::writable(0x2_0000 + 4096 * index, 4096);
            let status = Buffer::writable(0x1_8000 + index, 1);
            self.ring.add(&[Buffer::readable(header, 16), data, status]);
        }
        let before = ALLOCATIONS.get();
        while self.worker.service() == Progress::More {}
        let allocations = ALLOCATIONS.get() - before;
        for _ in 0..count {
            assert!(self.ring.used().is_some_and(|(_, written)| written == 4097));
        }
        allocations
    }
}

// One reference count keeps the memory map for all requests of a round; the requests need nothing.
#[test]
fn requests_do_not_allocate() {
    let mut fixture = Fixture::new();
    fixture.serve(32);
    fixture.serve(32);
    for _ in 0..10 {
        assert!(fixture.serve(1) <= 1);
        assert!(fixture.serve(32) <= 1);
    }
    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        assert_eq!(fixture.worker.service(), Progress::Idle);
    }
    assert_eq!(ALLOCATIONS.get(), before);
}
