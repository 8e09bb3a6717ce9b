//! SCSI host adapters: chains and lists as long as they can be, refused, or never at an end.
//!
//! CVE-2016-7156 (lists of empty elements, a length that is cut to 32 bits), CVE-2016-7421 (a ring that
//! always has one more), CVE-2017-8112 (a ring of no pages), CVE-2025-41238 (more elements than anybody
//! thought of).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use paraslot_device::Progress;
use paraslot_spec::pvscsi::{
    ResetDevice, SetupMsgRing, command, command_status, host_status, state,
};
use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use paraslot_spec::virtio_scsi::tmf;
use paraslot_tests::scsi::one_disk;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use super::{BATCH, LONGEST, ROUND, chain_cost};
use crate::pvscsi::{self, PvHba, REQUEST_ENTRIES};
use crate::scsi::{Command, DATA, Hba};
use crate::support::image;
use crate::virtio_scsi::{REQUESTS, VirtioHba};

/// The cost of one unit of work of all workers together.
fn step(guest: &mut impl Hba) -> u64 {
    let bench = guest.bench();
    bench.memory.take_accesses();
    let _ = bench.executor.step_all();
    bench.memory.take_accesses()
}

fn few<A: Hba>(alone: std::ops::RangeInclusive<u64>, each: u64) {
    let mut guest = A::of(Arc::new(image()));
    guest.hear();
    let read = Command::read(3, 1, DATA);
    step(&mut guest);
    guest.put(&read);
    guest.kick();
    let cost = step(&mut guest);
    assert!(alone.contains(&cost), "{}: {cost}", A::NAME);
    guest.run();
    guest.take().expect("an answer");
    step(&mut guest);
    // Each further one of a batch costs no index and no flags.
    (0..10).for_each(|_| drop(guest.put(&read)));
    guest.kick();
    let cost = step(&mut guest);
    assert!((10 * (each - 1)..=10 * each + ROUND).contains(&cost), "{}: {cost}", A::NAME);
    guest.run();
    // And nothing costs nothing, but a look.
    assert!(step(&mut guest) <= ROUND, "{}", A::NAME);
}

#[test]
fn a_read_costs_virtio_scsi_few_accesses() {
    few::<VirtioHba>(8..=20, 9);
}

#[test]
fn a_read_costs_pvscsi_few_accesses() {
    few::<PvHba>(6..=14, 4);
}

#[test]
fn the_longest_chains_cost_virtio_scsi_a_bounded_number_of_accesses() {
    // Of commands, and of what is for nobody.
    for (target, most) in [(0, BATCH / 2), (9, BATCH)] {
        let mut guest = VirtioHba::with(one_disk(Arc::new(image())), 256);
        guest.run();
        guest.longest_chains(target, 256);
        let (mut total, mut rounds) = (0, 0);
        while total < 256 && rounds < 1000 {
            let before = guest.ring_of(REQUESTS).used_idx();
            let cost = step(&mut guest);
            let taken = u64::from(guest.ring_of(REQUESTS).used_idx() - before);
            assert!(taken <= most, "{taken} chains in one unit of work");
            assert!(cost <= most * chain_cost(LONGEST) + 4 * ROUND, "{cost} for {taken}");
            total += taken;
            rounds += 1;
        }
        assert_eq!(total, 256);
        assert!(step(&mut guest) <= 2 * ROUND);
        guest.start();
        guest.works();
    }
}

// Task management finds all that was made available, and no more: as much as the queue holds.
#[test]
fn task_management_costs_virtio_scsi_no_more_than_its_queue() {
    let mut guest = VirtioHba::with(one_disk(Arc::new(image())), 256);
    guest.run();
    guest.longest_chains(0, 256);
    guest.manage(tmf::ABORT_TASK_SET, 0, 0);
    for _ in 0..20 {
        let cost = step(&mut guest);
        assert!(cost <= (256 + BATCH) * chain_cost(LONGEST) + 4 * ROUND, "{cost}");
    }
    guest.run();
    assert_eq!(guest.ring_of(REQUESTS).used_idx(), 256);
    guest.start();
    guest.works();
}

// As for virtio-blk, on each queue: looked at once, idle from then on, and a reset is acknowledged.
#[test]
fn a_chain_that_is_refused_costs_virtio_scsi_once() {
    type Chain = fn(&mut VirtioHba, u16);
    let chains: [(&str, Chain); 6] = [
        ("a loop", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, DATA, 16, DESC_F_NEXT, 0);
        }),
        ("a loop of nothing", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, DATA, 0, DESC_F_NEXT, 1);
            guest.ring_of(queue).set_descriptor(1, DATA, 0, DESC_F_NEXT, 0);
        }),
        ("a loop in a table", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, DATA, 16 * 0xffff, DESC_F_INDIRECT, 0);
            guest.ring_of(queue).set_entry(DATA, 0, DATA, 0, DESC_F_NEXT, 0);
        }),
        ("a table of nothing", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, DATA, 0, DESC_F_INDIRECT, 0);
        }),
        ("only what is empty", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, DATA, 0, DESC_F_WRITE, 0);
        }),
        ("no place for an answer", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, DATA, 51, 0, 0);
        }),
    ];
    for (what, chain) in chains {
        for queue in 0..3 {
            let mut guest = VirtioHba::of(Arc::new(image()));
            guest.run();
            chain(&mut guest, queue);
            (0..64).for_each(|_| guest.ring_of(queue).publish(0));
            guest.notify(queue);
            if queue == 1 {
                // Buffers for events are looked at when there is one.
                let _ = step(&mut guest);
            }
            let cost = step(&mut guest);
            assert!(cost <= chain_cost(LONGEST) + 3 * ROUND, "{what}, queue {queue}: {cost}");
            for _ in 0..10 {
                guest.notify(queue);
                guest.bench.memory.take_accesses();
                assert_eq!(guest.bench.executor.step_all(), Progress::Idle, "{what}, {queue}");
                assert!(guest.bench.memory.take_accesses() <= 2 * ROUND, "{what}, {queue}");
            }
            if queue != 1 {
                assert_eq!(guest.status().bits(), 0x4f, "{what}, queue {queue}");
            }
            guest.start();
            guest.works();
        }
    }
}

/// Most elements of a request, and most that are looked at before no further request is begun.
const ELEMENTS: u64 = 16_384;
/// What an element may cost: fetched, alone if it leads elsewhere, and resolved.
const ELEMENT: u64 = 2;
/// What else a request may cost: its descriptor, its completion and sense data.
const REQUEST: u64 = 4;

#[test]
fn the_longest_lists_cost_pvscsi_a_bounded_number_of_accesses() {
    for (kinds, right) in [
        (&[1][..], true),
        (&[1, 2], true),
        (&[0, 0, 0, 0, 0, 0, 0, 1], true),
        (&[2], false),
        (&[0], false),
        (&[3], false),
        (&[0, 0, 3], false),
    ] {
        for at_once in [false, true] {
            let what = format!("{kinds:?}, {at_once}");
            let mut guest = PvHba::of(Arc::new(image()));
            guest.hear();
            let len = guest.list(ELEMENTS, kinds);
            let sectors = u16::try_from(len / 512).expect("small");
            let len = if right { u64::from(sectors) * 512 } else { 512 };
            (0..REQUEST_ENTRIES).for_each(|_| guest.put_list(sectors, len));
            guest.bench.memory.take_accesses();
            if at_once {
                // All that is there is taken by the write of a register.
                let lun = [0; 8];
                let reset = ResetDevice { target: 0.into(), lun };
                guest.order(command::RESET_DEVICE, reset.as_bytes());
                let cost = guest.bench.memory.take_accesses();
                let most = (ELEMENT * ELEMENTS + REQUEST) * u64::from(REQUEST_ENTRIES) + ROUND;
                assert!((ELEMENTS / 16..=most).contains(&cost), "{what}: {cost}");
            } else {
                guest.kick();
            }
            let mut over = 0;
            for _ in 0..100 {
                let cost = step(&mut guest);
                let most = ELEMENT * 2 * ELEMENTS + REQUEST * BATCH + ROUND;
                assert!(cost <= most, "{what}: {cost}");
                while let Some(completion) = guest.completed() {
                    let status = completion.host_status.get();
                    let reset = at_once && status == host_status::BUSRESET;
                    let expected = if right { host_status::SUCCESS } else { host_status::INVPARAM };
                    assert!(reset || status == expected, "{what}: {status:#x}");
                    over += 1;
                }
            }
            assert_eq!(over, REQUEST_ENTRIES, "{what}");
            guest.works();
        }
    }
}

// CVE-2016-7421 and CVE-2017-8112: rings that always have one more, or no pages. No work, and rest.
#[test]
fn rings_that_make_no_sense_cost_pvscsi_nothing() {
    let mut guest = PvHba::of(Arc::new(image()));
    guest.hear();
    let produced = guest.produced;
    for ahead in [33, 0x8000_0000, u32::MAX] {
        guest.set_state(state::REQUEST_PRODUCER, produced.wrapping_add(ahead));
        for _ in 0..10 {
            guest.kick();
            guest.bench.memory.take_accesses();
            assert_eq!(guest.bench.executor.step_all(), Progress::Idle, "{ahead}");
            assert!(guest.bench.memory.take_accesses() <= ROUND, "{ahead}");
        }
    }
    guest.set_state(state::REQUEST_PRODUCER, produced);
    // No room for completions, whatever the driver says it has taken.
    for consumer in [guest.consumed.wrapping_sub(128), guest.consumed.wrapping_add(1), 1 << 31] {
        guest.set_state(state::COMPLETION_CONSUMER, consumer);
        let pending = guest.put(&Command::read(3, 1, DATA));
        for _ in 0..10 {
            guest.kick();
            assert!(step(&mut guest) <= 2 * ROUND);
        }
        assert_eq!(guest.bench.executor.step_all(), Progress::Idle);
        guest.set_state(state::COMPLETION_CONSUMER, guest.consumed);
        guest.kick();
        guest.run();
        assert_eq!(guest.take().expect("there is room").tag, pending.tag);
    }
    for pages in [0, 3, 33, u32::MAX] {
        let mut setup = PvHba::setup();
        setup.request_pages.set(pages);
        assert_eq!(guest.order(command::SETUP_RINGS, setup.as_bytes()), command_status::FAILED);
        let mut messages = SetupMsgRing::default();
        messages.pages.set(pages);
        let status = guest.order(command::SETUP_MSG_RING, messages.as_bytes());
        assert_eq!(status, command_status::FAILED);
        guest.kick();
        assert_eq!(step(&mut guest), 0);
    }
    guest.start();
    guest.works();
}

// A driver that makes a request available for each that is taken, and has room for each completion.
#[test]
fn a_driver_that_never_rests_does_not_keep_pvscsi_in_one_unit_of_work() {
    let mut guest = PvHba::of(Arc::new(image()));
    guest.hear();
    for _ in 0..REQUEST_ENTRIES {
        let (request, _) = guest.describe(&Command::read(3, 1, DATA));
        guest.put_descriptor(&request);
    }
    let looks = Arc::new(AtomicU32::new(0));
    let seen = looks.clone();
    guest.bench.memory.set_hook(Some(Box::new(move |memory, _| {
        let load = |offset: u64| -> u32 {
            memory.load(GuestAddress(pvscsi::STATE + offset), Ordering::SeqCst).expect("there")
        };
        let store = |offset: u64, value: u32| {
            let place = GuestAddress(pvscsi::STATE + offset);
            memory.store(value, place, Ordering::SeqCst).expect("there");
        };
        store(state::REQUEST_PRODUCER, load(state::REQUEST_CONSUMER).wrapping_add(32));
        store(state::COMPLETION_CONSUMER, load(state::COMPLETION_PRODUCER));
        seen.fetch_add(1, Ordering::SeqCst);
    })));
    guest.kick();
    for _ in 0..50 {
        let before = guest.state(state::REQUEST_CONSUMER);
        let cost = step(&mut guest);
        let taken = guest.state(state::REQUEST_CONSUMER).wrapping_sub(before);
        assert!((1..=64).contains(&taken), "{taken}");
        assert!(cost <= 64 * 8 + 300, "{cost}");
    }
    guest.bench.memory.set_hook(None);
    assert!(looks.load(Ordering::SeqCst) > 1000);
    guest.start();
    guest.works();
}

#[test]
fn a_driver_that_never_rests_does_not_keep_virtio_scsi_in_one_unit_of_work() {
    let mut guest = VirtioHba::with(one_disk(Arc::new(image())), 256);
    guest.hear();
    let (chain, place) = guest.chain(&Command::read(3, 1, DATA));
    let ring = guest.ring_of(REQUESTS);
    let table = place + crate::scsi::LIST;
    ring.set_table(table, &chain);
    for head in 0..256 {
        ring.set_descriptor(head, table, 48, DESC_F_INDIRECT, 0);
        ring.publish(head);
    }
    let (avail, used) = (ring.avail_ring(), ring.used_ring());
    // At each access of the device everything is made available again that was given back.
    guest.bench.memory.set_hook(Some(Box::new(move |memory, _| {
        let done: u16 = memory.load(GuestAddress(used + 2), Ordering::SeqCst).expect("there");
        let next = done.wrapping_add(255);
        memory.store(next, GuestAddress(avail + 2), Ordering::SeqCst).expect("there");
    })));
    for _ in 0..30 {
        let before = guest.ring_of(REQUESTS).used_idx();
        step(&mut guest);
        let taken = u64::from(guest.ring_of(REQUESTS).used_idx().wrapping_sub(before));
        assert!((1..=2 * BATCH).contains(&taken), "{taken}");
    }
    guest.bench.memory.set_hook(None);
    guest.start();
    guest.works();
}
