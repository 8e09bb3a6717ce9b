//! The host memory that a guest can make a device hold is bounded by the device's configuration.
//!
//! CVE-2016-5403 (more requests in flight than the queue has entries), QEMU 5839df7b71 and d68f0f778e
//! (lists that are never freed), QEMU abe300d9d8 (one that is leaked by an error), and whatever takes a
//! size from the guest.

#![expect(unsafe_code, reason = "an allocator that counts")]

#[path = "../bug_classes/ahci.rs"]
#[expect(dead_code, reason = "shared with the tests of other bug classes")]
mod ahci;
#[path = "../bug_classes/blk.rs"]
#[expect(dead_code, reason = "shared with the tests of other bug classes")]
mod blk;
#[path = "../bug_classes/e1000.rs"]
#[expect(dead_code, reason = "shared with the tests of other bug classes")]
mod e1000;
#[path = "../bug_classes/net.rs"]
#[expect(dead_code, reason = "shared with the tests of other bug classes")]
mod net;
mod networks;
#[path = "../bug_classes/nic.rs"]
#[expect(dead_code, reason = "shared with the tests of other bug classes")]
mod nic;
#[path = "../bug_classes/pvscsi.rs"]
mod pvscsi;
#[path = "../bug_classes/scsi.rs"]
#[expect(dead_code, reason = "shared with the tests of other bug classes")]
mod scsi;
mod scsi_adapters;
#[path = "../bug_classes/support.rs"]
#[expect(dead_code, reason = "shared with the tests of other bug classes")]
mod support;
#[path = "../bug_classes/virtio.rs"]
#[expect(dead_code, reason = "shared with the tests of other bug classes")]
mod virtio;
#[path = "../bug_classes/virtio_scsi.rs"]
mod virtio_scsi;
#[path = "../bug_classes/vmxnet3.rs"]
#[expect(dead_code, reason = "shared with the tests of other bug classes")]
mod vmxnet3;
mod vmxnet3_adapter;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use paraslot_backends::block::testing::GatedBackend;
use paraslot_spec::ahci::{Ghc, PRD_TABLE, Prd, host, port};
use paraslot_spec::ata::command;
use paraslot_spec::virtio::split::DESC_F_INDIRECT;
use paraslot_spec::virtio_blk::{RangeSegment, request};
use paraslot_tests::targets;
use paraslot_virtio::testing::Buffer;
use paraslot_virtio_blk::Options;
use zerocopy::IntoBytes;

use crate::ahci::{LIST, Sata, data_at, sectors};
use crate::blk::{Blk, DATA};
use crate::support::{Random, image};

/// Counts the bytes that each thread has allocated and not freed; here the one that made them frees
/// them, since workers are stepped by hand.
struct Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn add(bytes: i64) {
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

fn size(layout: Layout) -> i64 {
    i64::try_from(layout.size()).unwrap_or(i64::MAX)
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(size(layout));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-size(layout));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `work` had at its highest, and what it left behind.
fn measure<T>(work: impl FnOnce() -> T) -> (i64, i64, T) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (PEAK.get() - before, LIVE.get() - before, result)
}

/// Bytes of a resolved piece of guest memory, and the spare room of a list of them while it grows: it
/// doubles, and the old one is there until the new one is filled.
const SEGMENT: i64 = 24 * 3;
/// Longest chain, in data buffers.
const CHAIN: i64 = 1022;

/// What a queue of virtio-blk holds at most: for each entry its slot, the ranges of its longest request
/// and the pieces of guest memory of its data; and one chain while it is read.
fn blk_queue(entries: i64, ranges: i64, pieces: i64) -> i64 {
    entries * (400 + 16 * 2 * ranges) + SEGMENT * pieces + 16 * 3 * (CHAIN + 2) + 1024
}

/// What a port of AHCI holds at most, as its documentation has it.
const PORT: i64 = 2 * 24 * (8_191 + 65_535) + 8 * 1024;

/// What the bench itself, the transport and the backend under test take.
const BENCH: i64 = 48 * 1024;

/// Random scripts, of which each must stay below `most` and leave nothing behind.
fn scripts(target: fn(&[u8]), most: i64, low: i64) {
    let mut highest = 0;
    // Whatever is made once and kept.
    target(&[0; 64]);
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let input: Vec<u8> = (0..random.below(3000))
            .map(|_| u8::try_from(random.below(256)).expect("a byte"))
            .collect();
        let (peak, left, ()) = measure(|| target(&input));
        assert!(peak <= most, "seed {seed}: {peak} bytes, of at most {most}");
        assert_eq!(left, 0, "seed {seed}: not everything was freed");
        highest = highest.max(peak);
    }
    assert!(highest >= low, "nothing was measured: {highest}");
}

#[test]
fn a_virtio_blk_queue_is_bounded_under_random_scripts() {
    // In a chain of the script 6 buffers are data, and in any chain no more than the queue has entries
    // can be in flight.
    scripts(targets::virtio_blk, blk_queue(256, 64, 256 * 16) + BENCH, 4 * 1024);
}

#[test]
fn an_ahci_port_is_bounded_under_random_scripts() {
    scripts(targets::ahci, PORT + BENCH, 4 * 1024);
}

/// Buffers in flight above which the device takes no further request.
const MOST_SEGMENTS: i64 = 16 * 1024;

// The most that a driver can have in flight: requests of the longest chain, out of one table. The
// device takes no more of them than it says, and goes on when some have completed.
#[test]
fn a_virtio_blk_queue_holds_a_bounded_number_of_buffers() {
    const ENTRIES: u16 = 64;
    let backend = GatedBackend::new(image());
    let gate = backend.gate();
    let options = Options { queue_size: ENTRIES, ..Options::default() };
    let mut guest = Blk::new(Arc::new(backend), &options);
    assert!(guest.bench.executor.run(10));
    let (header, answer, _) = guest.frame(request::IN, 0);
    let table = DATA + 0x4_0000;
    let mut chain = vec![header];
    chain.extend((0..CHAIN).map(|_| Buffer::writable(DATA, 256)));
    chain.push(answer);
    let len = u32::try_from(16 * chain.len()).expect("small");
    guest.ring.set_table(table, &chain);
    for head in 0..ENTRIES {
        guest.ring.set_descriptor(head, table, len, DESC_F_INDIRECT, 0);
        guest.ring.publish(head);
    }
    let entries = i64::from(ENTRIES);
    let (peak, held, _) = measure(|| guest.bench.executor.run(20));
    let taken = i64::try_from(gate.held()).expect("small");
    assert_eq!(taken, (MOST_SEGMENTS + CHAIN + 1) / (CHAIN + 2));
    assert!(peak <= blk_queue(entries, 0, MOST_SEGMENTS + CHAIN), "{peak}");
    assert!(held >= 24 * taken * CHAIN, "the longest chains were not held: {held}");
    // For each that completes, another one is taken.
    gate.release(1);
    let (_, more, _) = measure(|| guest.bench.executor.run(20));
    assert!(more <= 0, "{more} bytes more");
    assert_eq!(gate.held(), usize::try_from(taken).expect("small"));
    // All of it is given back.
    let (_, freed, _) = measure(|| {
        gate.open();
        guest.bench.executor.run(20)
    });
    let kept = held + freed;
    assert!(kept <= 16 * 1024, "{kept} bytes kept of {held}");
}

// Ranges are kept for the next request of the same slot, up to a bound.
#[test]
fn a_virtio_blk_queue_keeps_the_ranges_of_its_slots_at_most() {
    const ENTRIES: u16 = 64;
    let options = Options { queue_size: ENTRIES, ..Options::default() };
    let mut guest = Blk::new(Arc::new(image()), &options);
    assert!(guest.bench.executor.run(10));
    for index in 0..64 {
        let range = RangeSegment {
            sector: (600 + index).into(),
            num_sectors: 1.into(),
            ..RangeSegment::default()
        };
        guest.bench.poke(DATA + 16 * index, range.as_bytes());
    }
    let (header, answer, table) = guest.frame(request::DISCARD, 0);
    guest.ring.set_table(table, &[header, Buffer::readable(DATA, 16 * 64), answer]);
    let (peak, kept, ()) = measure(|| {
        for round in 0..4 * ENTRIES {
            let head = round % ENTRIES;
            guest.ring.set_descriptor(head, table, 48, DESC_F_INDIRECT, 0);
            guest.ring.publish(head);
            assert!(guest.bench.executor.run(200));
        }
    });
    let entries = i64::from(ENTRIES);
    assert!(peak <= blk_queue(entries, 64, 0), "{peak}");
    assert!((16 * 64 * entries..=peak).contains(&kept), "{kept}");
}

// The most that a port takes: just below the number of entries at which it stops taking commands, and
// then one more command with the longest table.
#[test]
fn an_ahci_port_holds_what_is_documented_at_most() {
    let backend = GatedBackend::new(image());
    let gate = backend.gate();
    let mut guest = Sata::new(Arc::new(backend));
    let code = command::READ_FPDMA_QUEUED;
    let tables = [0x10_0000, 0x14_0000];
    for (slot, entries, len) in [(0, 8191u32, 16), (1, 65_535, 2)] {
        let at = |index: u32| data_at(0) + u64::from(index) * 2;
        let mut prds: Vec<_> = (0..entries - 1).map(|index| Prd::new(at(index), len)).collect();
        prds.push(Prd::new(data_at(0), 2 * len));
        let table = tables[usize::try_from(slot).expect("small")];
        guest.prepare_at(table, slot, &sectors(code, slot, 0, 256), &[]);
        let header = 5 | entries << 16;
        guest.bench.poke(LIST + 32 * u64::from(slot), &header.to_le_bytes());
        guest.bench.poke(table + PRD_TABLE, prds.as_bytes());
    }
    for slot in 2..32 {
        guest.prepare(slot, &sectors(code, slot, 0, 1), &[Prd::new(data_at(0), 512)]);
    }
    let (peak, held, ()) = measure(|| {
        guest.issue(u32::MAX, true);
        guest.run();
    });
    assert_eq!((gate.held(), guest.get(port::CI)), (2, !3), "two commands, and the rest wait");
    assert!(peak <= PORT, "{peak}");
    assert!(held >= 24 * (8_191 + 65_535), "the longest tables were not held: {held}");
    // A reset gives all of it back, once it is acknowledged.
    let (_, freed, ()) = measure(|| {
        guest.write(host::GHC, (Ghc::AE | Ghc::HR).bits());
        gate.release(usize::MAX);
        guest.run();
    });
    assert_eq!(guest.read(host::GHC) & Ghc::HR.bits(), 0);
    assert!(held + freed <= 4096, "{} bytes kept of {held}", held + freed);
}

// Plugged in, loaded, unplugged: whatever is in flight then.
#[test]
fn devices_that_go_leave_nothing_behind() {
    let blk = |seed: u64| {
        let backend = GatedBackend::new(image());
        let gate = backend.gate();
        let mut random = Random::new(seed);
        let options = Options { queue_size: 64, ..Options::default() };
        let mut guest = Blk::new(Arc::new(backend), &options);
        for _ in 0..random.below(12) {
            guest.any_request(&mut random);
        }
        assert!(guest.bench.executor.run(20));
        gate.release(usize::try_from(random.below(4)).expect("small"));
        if random.one_in(2) {
            guest.bench.device.reset();
        }
        let paraslot_tests::bench::Bench { device, executor, .. } = guest.virtio.bench;
        drop(device);
        gate.open();
        assert!(executor.run(100) && executor.is_empty());
    };
    let ahci = |seed: u64| {
        let backend = GatedBackend::new(image());
        let gate = backend.gate();
        let mut random = Random::new(seed);
        let mut guest = Sata::new(Arc::new(backend));
        for slot in 0..u32::try_from(random.below(12)).expect("small") {
            guest.any_command(slot, seed.is_multiple_of(2), &mut random);
        }
        guest.run();
        gate.release(usize::try_from(random.below(4)).expect("small"));
        let paraslot_tests::bench::Bench { device, executor, .. } = guest.bench;
        drop(device);
        gate.open();
        assert!(executor.run(100) && executor.is_empty());
    };
    blk(0);
    ahci(0);
    for seed in 0..100 {
        let (_, left, ()) = measure(|| blk(seed));
        assert_eq!(left, 0, "virtio-blk, seed {seed}");
        let (_, left, ()) = measure(|| ahci(seed));
        assert_eq!(left, 0, "AHCI, seed {seed}");
    }
}
