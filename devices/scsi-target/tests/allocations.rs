//! Reads and writes of a ready disk cost no allocation.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use paraslot_backends::block::testing::GuestPages;
use paraslot_backends::block::{MemoryBackend, MemoryOptions};
use paraslot_device::dma::Direction;
use paraslot_scsi::{
    Address, Attribute, Bus, BusOptions, Cdb, Command, DiskOptions, Initiator, LogicalUnit,
    Outcome, Status,
};
use vm_memory::GuestAddress;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: it does as the system's allocator does, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HERE: Address = Address { target: 0, lun: 0 };

#[test]
fn reads_and_writes_allocate_nothing() {
    let image = MemoryBackend::new(1 << 20, MemoryOptions::default()).unwrap();
    let unit = LogicalUnit::disk(DiskOptions::new(Arc::new(image))).unwrap();
    let bus = Bus::new(BusOptions {
        initiator: Initiator("one".into()),
        max_target: 0,
        max_lun: 0,
        autosense: true,
    });
    bus.attach(HERE, unit).unwrap();
    let mut lane = bus.open_lane(64).unwrap();
    let guest = GuestPages::new(1 << 20);
    let memory = guest.dma().memory().unwrap();
    let mut completions = Vec::new();
    let mut good = 0;
    for round in 0..20 {
        let before = COUNT.with(Cell::get);
        for token in 0..64_u8 {
            let mut cdb = [0; 16];
            let direction =
                if token % 2 == 0 { Direction::FromDevice } else { Direction::ToDevice };
            let place = if token % 4 < 2 {
                // READ (10), WRITE (10)
                (cdb[0], cdb[8]) = (if token % 2 == 0 { 0x28 } else { 0x2a }, 8);
                5
            } else {
                // READ (16), WRITE (16)
                (cdb[0], cdb[13]) = (if token % 2 == 0 { 0x88 } else { 0x8a }, 8);
                9
            };
            cdb[place] = token;
            let segment = (GuestAddress(u64::from(token) * 4096), 4096);
            let data = memory.buffers([segment], direction).unwrap();
            lane.submit(Command {
                token: token.into(),
                tag: token.into(),
                address: HERE,
                cdb: Cdb::new(&cdb),
                attribute: Attribute::Simple,
                data,
            });
        }
        lane.obey();
        lane.commit();
        lane.complete(&mut completions);
        lane.settle();
        assert!(!lane.prepare_to_wait());
        let ended = Outcome::Ended { status: Status::Good, sense: None };
        good += completions.iter().filter(|completion| completion.outcome == ended).count();
        completions.clear();
        let allocated = COUNT.with(Cell::get) - before;
        // The first rounds make what is used again, and report the attention of the start.
        assert!(round < 2 || allocated == 0, "{allocated} allocations in round {round}");
    }
    assert_eq!(good, 20 * 64 - 1, "all but the one that was told of the power-on");
}
