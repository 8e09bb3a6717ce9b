//! What SCSI host adapters may hold: commands, pieces of memory, and news of units.

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::block::testing::GatedBackend;
use paraslot_scsi::{Address, DiskOptions, LogicalUnit};
use paraslot_spec::pvscsi::command;
use paraslot_tests::bench::Bench;
use paraslot_tests::scsi::{bus, one_disk};
use paraslot_tests::targets;

use super::{BENCH, measure, scripts};
use crate::pvscsi::PvHba;
use crate::scsi::Hba;
use crate::support::{Random, image};
use crate::virtio_scsi::{REQUESTS, VirtioHba};

/// Of a command: its place in the device and in the target's lane, and in the backend under test.
const COMMAND: i64 = 700;
/// Bytes of a piece of guest memory in a list that grows.
const PIECE: i64 = 2 * 24;
/// Pieces above which virtio-scsi takes no further command, and those of the longest chain.
const MOST: i64 = 16 * 1024;
const CHAIN: i64 = 1024;
/// The same of pvscsi, and its most commands.
const MOST_PV: i64 = 128 * 1024;
const LIST: i64 = 16 * 1024;
const DEPTH: i64 = 1024;
/// What is behind an adapter in the random scripts: a bus, three units, and a queue to each.
const UNITS: i64 = 128 * 1024;

/// What a request queue of `entries` holds at most, as the crate's page has it.
fn queue(entries: i64, pieces: i64) -> i64 {
    entries * COMMAND + PIECE * pieces + 3 * 16 * CHAIN + 8 * 1024
}

/// What pvscsi holds at most, as the crate's page has it.
const ADAPTER: i64 = DEPTH * COMMAND + PIECE * (MOST_PV - 1 + LIST) + 16 * 1024;

#[test]
fn virtio_scsi_is_bounded_under_random_scripts() {
    let queues = 2 * queue(256, MOST + CHAIN) + 2 * queue(256, 0);
    scripts(targets::virtio_scsi, queues + UNITS + BENCH, 4 * 1024);
}

#[test]
fn pvscsi_is_bounded_under_random_scripts() {
    scripts(targets::pvscsi, ADAPTER + UNITS + BENCH, 4 * 1024);
}

// The most that a driver can have in flight: commands of the longest chain, out of one table.
#[test]
fn a_virtio_scsi_queue_holds_a_bounded_number_of_buffers() {
    const ENTRIES: u16 = 64;
    let backend = GatedBackend::new(image());
    let gate = backend.gate();
    let mut guest = VirtioHba::with(one_disk(Arc::new(backend)), ENTRIES);
    guest.hear();
    let taken_before = guest.ring_of(REQUESTS).used_idx();
    guest.longest_chains(0, ENTRIES);
    let (peak, held, _) = measure(|| guest.bench.executor.run(50));
    let taken = i64::try_from(gate.held()).expect("small");
    assert_eq!(taken, MOST / CHAIN);
    assert!(peak <= queue(ENTRIES.into(), MOST + CHAIN), "{peak}");
    assert!(held >= 24 * taken * (CHAIN - 2), "the longest chains were not held: {held}");
    // For each that completes, another one is taken.
    gate.release(1);
    let (_, more, _) = measure(|| guest.bench.executor.run(50));
    assert!(more <= 0, "{more} bytes more");
    assert_eq!(i64::try_from(gate.held()).expect("small"), taken);
    // All of it is given back.
    let (_, freed, _) = measure(|| {
        gate.open();
        guest.bench.executor.run(200)
    });
    assert_ne!(guest.ring_of(REQUESTS).used_idx(), taken_before);
    let kept = held + freed;
    assert!(kept <= 32 * 1024, "{kept} bytes kept of {held}");
}

// Just below the number of pieces at which no further command is taken, and then the longest list.
#[test]
fn a_pvscsi_adapter_holds_what_is_documented_at_most() {
    let backend = GatedBackend::new(image());
    let gate = backend.gate();
    let mut guest = PvHba::of(Arc::new(backend));
    guest.hear();
    let len = guest.list(16 * 1024, &[1]);
    let sectors = u16::try_from(len / 512).expect("small");
    // 131,072 less 512, and then one that has 16,384.
    let (peak, held, ()) = measure(|| {
        for _ in 0..7 {
            guest.put_list(sectors, len);
        }
        guest.put_list(sectors - 1, len - 512);
        for _ in 0..20 {
            guest.put_list(sectors, len);
        }
        guest.kick();
        guest.run();
    });
    assert_eq!(gate.held(), 9, "nine commands, and the rest wait");
    assert!(peak <= ADAPTER, "{peak}");
    assert!(held >= 24 * (MOST_PV + 15 * 1024), "the longest lists were not held: {held}");
    // A reset gives all of it back, once the backend has.
    let (_, freed, ()) = measure(|| {
        guest.order(command::ADAPTER_RESET, &[]);
        gate.open();
        guest.run();
    });
    assert!(held + freed <= 128 * 1024, "{} bytes kept of {held}", held + freed);
    guest.start();
    guest.works();
}

// Units that come and go, and a driver that takes no notice.
fn news<A: Hba>(most: i64) {
    let bus = bus();
    let mut guest = A::make(bus.clone(), Duration::ZERO);
    guest.run();
    let unit = LogicalUnit::disk(DiskOptions::new(Arc::new(image()))).expect("a disk");
    let mut change = |rounds: u32| {
        for round in 0..rounds {
            let target = u8::try_from(round % 8).expect("small");
            let address = Address { target, lun: 0 };
            bus.attach(address, unit.clone()).expect("it is free");
            if round % 3 == 0 {
                guest.run();
            }
            let _ = bus.detach(address);
            guest.run();
        }
    };
    change(16);
    let (peak, left, ()) = measure(|| change(3000));
    assert!(peak <= most + 32 * 1024, "{}: {peak}", A::NAME);
    assert!(left <= most, "{}: {left} bytes are kept", A::NAME);
}

#[test]
fn what_virtio_scsi_has_to_tell_is_bounded() {
    news::<VirtioHba>(i64::try_from(paraslot_virtio_scsi::MAX_EVENTS).expect("small") * 64);
}

#[test]
fn what_pvscsi_has_to_tell_is_bounded() {
    news::<PvHba>(64 * 64);
}

// Plugged in, loaded, reset perhaps, unplugged: whatever is in flight then.
fn gone<A: Hba>(seed: u64) {
    let backend = GatedBackend::new(image());
    let gate = backend.gate();
    let mut random = Random::new(seed);
    let mut guest = A::make(one_disk(Arc::new(backend)), Duration::ZERO);
    guest.hear();
    for _ in 0..random.below(12) {
        guest.put_any(true, &mut random);
        guest.kick();
    }
    guest.run();
    gate.release(usize::try_from(random.below(4)).expect("small"));
    if random.one_in(2) {
        guest.bench().device.reset();
    }
    let Bench { device, executor, .. } = guest.into_bench();
    drop(device);
    gate.open();
    assert!(executor.run(100) && executor.is_empty());
}

#[test]
fn scsi_adapters_that_go_leave_nothing_behind() {
    gone::<VirtioHba>(0);
    gone::<PvHba>(0);
    for seed in 0..100 {
        let (_, left, ()) = measure(|| gone::<VirtioHba>(seed));
        assert_eq!(left, 0, "virtio-scsi, seed {seed}");
        let (_, left, ()) = measure(|| gone::<PvHba>(seed));
        assert_eq!(left, 0, "pvscsi, seed {seed}");
    }
}
