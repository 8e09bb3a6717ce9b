//! virtio-net: both directions, and commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use paraslot_device::Progress;
use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use paraslot_spec::virtio_net::{Header, ack, class, feature, mac, mq};
use paraslot_virtio::testing::Buffer;
use vm_memory::{Bytes, GuestAddress};

use super::{LONGEST, ROUND, chain_cost};
use crate::net::{BUFFERS, MEMORY, Net, RECEIVE, Setting, TRANSMIT, frame};

/// Most frames of one direction in one unit of work, and most commands.
const FRAMES: u64 = 64;
const COMMANDS: u64 = 16;

fn guest(queue_size: u16) -> Net {
    Net::new(Setting { queue_size, ..Setting::default() })
}

/// The cost of one unit of work of all workers together.
fn step(guest: &Net) -> u64 {
    guest.bench.memory.take_accesses();
    let _ = guest.bench.executor.step_all();
    guest.bench.memory.take_accesses()
}

#[test]
fn a_frame_costs_virtio_net_few_accesses() {
    let mut guest = guest(64);
    step(&guest);
    // Out: the avail index and entry, the table, the buffer, the used element and index, the flags.
    guest.send(&frame(100));
    let cost = step(&guest);
    assert!((6..=ROUND + 6).contains(&cost), "{cost}");
    for _ in 0..10 {
        guest.send(&frame(100));
    }
    let cost = step(&guest);
    assert!((10 * 4..=10 * 6 + ROUND).contains(&cost), "{cost}");
    // In: the same, and the header. Room for the longest is taken once, and kept.
    guest.supply(RECEIVE, 60, 1600);
    guest.port.deliver(&frame(100));
    step(&guest);
    guest.run();
    for _ in 0..10 {
        guest.port.deliver(&frame(100));
    }
    let cost = step(&guest);
    assert!((10 * 3..=10 * 8 + ROUND).contains(&cost), "{cost}");
    // And nothing costs nothing, but a look at both rings.
    assert!(step(&guest) <= 2 * ROUND);
}

// As for virtio-blk: tables beyond which there is no memory, so that no lookup serves two descriptors.
#[test]
fn the_longest_chains_cost_virtio_net_a_bounded_number_of_accesses() {
    for queue in [TRANSMIT, RECEIVE] {
        let mut guest = guest(256);
        step(&guest);
        let table = MEMORY as u64 - LONGEST * 16;
        let writable = queue == RECEIVE;
        let chain: Vec<Buffer> = (0..LONGEST)
            .map(|index| Buffer { address: BUFFERS + 60 * index, len: 60, writable })
            .collect();
        guest.ring_of(queue).set_table(table, &chain);
        for head in 0..256 {
            let len = u32::try_from(16 * (LONGEST + 1)).expect("small");
            guest.ring_of(queue).set_descriptor(head, table, len, DESC_F_INDIRECT, 0);
            guest.ring_of(queue).publish(head);
        }
        let mut total = 0;
        for _ in 0..1000 {
            if queue == RECEIVE {
                guest.port.deliver(&frame(1000));
            }
            let before = guest.ring_of(queue).used_idx();
            let cost = step(&guest);
            let taken = u64::from(guest.ring_of(queue).used_idx() - before);
            assert!(taken <= FRAMES);
            // What is taken to receive into is a few more than what was filled.
            assert!(cost <= (taken + 2) * chain_cost(LONGEST) + 3 * ROUND, "{cost} for {taken}");
            total += taken;
            if total == 256 {
                break;
            }
        }
        assert_eq!(total, 256);
        guest.run();
        guest.port.take_sent();
        assert!(step(&guest) <= 2 * ROUND);
    }
}

// CVE-2016-6490 and OpenVMM e375025c7, and buffers for the wrong direction: looked at once, and then
// the worker is at rest.
#[test]
fn a_chain_that_is_refused_costs_virtio_net_once() {
    type Chain = fn(&mut Net, u16);
    let chains: [(&str, Chain); 6] = [
        ("a loop", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, BUFFERS, 16, DESC_F_NEXT, 0);
        }),
        ("a loop of nothing", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, BUFFERS, 0, DESC_F_NEXT, 1);
            guest.ring_of(queue).set_descriptor(1, BUFFERS, 0, DESC_F_NEXT, 0);
        }),
        ("a loop in a table", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, BUFFERS, 16 * 0xffff, DESC_F_INDIRECT, 0);
            guest.ring_of(queue).set_entry(BUFFERS, 0, BUFFERS, 0, DESC_F_NEXT, 0);
        }),
        ("a table of nothing", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, BUFFERS, 0, DESC_F_INDIRECT, 0);
        }),
        ("a head that is not there", |guest, queue| {
            guest.ring_of(queue).set_descriptor(0, 1 << 60, 1, DESC_F_NEXT, 0xffff);
        }),
        ("a buffer that is not memory", |guest, queue| {
            // Written, for a frame to be sent; read, where one should be received.
            let flags = if queue == TRANSMIT { DESC_F_WRITE } else { 0 };
            guest.ring_of(queue).set_descriptor(0, 1 << 60, 100, flags, 0);
        }),
    ];
    for (what, chain) in chains {
        for queue in [RECEIVE, TRANSMIT, 2] {
            let mut guest = guest(256);
            step(&guest);
            chain(&mut guest, queue);
            for _ in 0..200 {
                guest.ring_of(queue).publish(0);
            }
            guest.port.deliver(&frame(100));
            let cost = step(&guest);
            assert!(cost <= FRAMES * 8 + chain_cost(LONGEST) + 3 * ROUND, "{what}: {cost}");
            guest.run();
            for _ in 0..10 {
                guest.notify(queue);
                guest.bench.memory.take_accesses();
                assert_eq!(guest.bench.executor.step_all(), Progress::Idle, "{what}, {queue}");
                assert!(guest.bench.memory.take_accesses() <= 3 * ROUND, "{what}, {queue}");
            }
            guest.set_status(0);
            assert!(guest.bench.executor.run(4), "{what}: it cannot be stopped");
            assert!(guest.status().is_empty(), "{what}: no reset");
            guest.port.drain();
            guest.start();
            guest.works();
        }
    }
}

// crosvm 28a9d2b70: frames that wait for buffers keep nobody busy, and are given when there are some.
#[test]
fn without_receive_buffers_virtio_net_is_at_rest() {
    for without in [0, feature::MRG_RXBUF] {
        let mut guest = Net::new(Setting { without, ..Setting::default() });
        for len in 100..140 {
            guest.port.deliver(&frame(len));
        }
        guest.run();
        let calls = guest.port.calls();
        for _ in 0..20 {
            assert_eq!(guest.bench.executor.step_all(), Progress::Idle);
            assert!(step(&guest) <= 3 * ROUND);
        }
        assert_eq!((guest.port.calls(), guest.port.waiting()), (calls, 40));
        guest.supply(RECEIVE, 40, if without == 0 { 1600 } else { 4000 });
        guest.notify(RECEIVE);
        guest.run();
        // With few buffers for the longest that may come, or ones too small for it, as it can be.
        for len in 100..140 {
            assert_eq!(guest.arrived().map(|arrived| arrived.bytes), Some(frame(len)));
        }
    }
}

// A frame that needs more buffers than there are waits for them, a bounded time, at rest.
#[test]
fn a_frame_that_is_short_of_buffers_leaves_virtio_net_at_rest() {
    let mut guest = guest(64);
    guest.supply(RECEIVE, 2, 300);
    guest.notify(RECEIVE);
    guest.port.deliver(&frame(1000));
    guest.port.deliver(&frame(100));
    guest.run();
    for _ in 0..20 {
        assert_eq!(guest.bench.executor.step_all(), Progress::Idle);
        assert!(step(&guest) <= 3 * ROUND);
    }
    // The driver is slow.
    guest.supply(RECEIVE, 2, 300);
    guest.notify(RECEIVE);
    guest.run();
    let arrived = guest.arrived().expect("there are enough");
    assert_eq!((arrived.chains.len(), arrived.header.header.num_buffers.get()), (4, 4));
    assert!(arrived.bytes == frame(1000));
    // The driver gives no more: the frame is lost, and the next one is not.
    guest.supply(RECEIVE, 2, 300);
    guest.notify(RECEIVE);
    guest.run();
    assert!(guest.arrived().expect("the next").bytes == frame(100));
    guest.port.deliver(&frame(1000));
    guest.port.deliver(&frame(101));
    guest.run();
    assert!(guest.arrived().is_none());
    while let Some(next) = guest.bench.clock.next() {
        guest.bench.clock.advance(next);
        guest.run();
    }
    assert!(guest.arrived().expect("the next").bytes == frame(101));
    assert_eq!(guest.control.statistics().no_guest_buffers, 1);
}

// A guest that makes chains available as fast as they are taken: a unit of work ends all the same.
#[test]
fn a_driver_that_never_rests_does_not_keep_virtio_net_in_one_unit_of_work() {
    for queue in [RECEIVE, TRANSMIT, 2] {
        let mut guest = guest(256);
        step(&guest);
        let place = guest.place();
        let chain = match queue {
            RECEIVE => vec![Buffer::writable(place, 1600)],
            TRANSMIT => vec![Buffer::readable(place, 200)],
            _ => vec![Buffer::readable(place, 3), Buffer::writable(place + 16, 1)],
        };
        let table = guest.place();
        guest.ring_of(queue).set_table(table, &chain);
        let len = u32::try_from(16 * chain.len()).expect("small");
        for head in 0..256 {
            guest.ring_of(queue).set_descriptor(head, table, len, DESC_F_INDIRECT, 0);
            guest.ring_of(queue).publish(head);
        }
        let (avail, used) = (guest.ring_of(queue).avail_ring(), guest.ring_of(queue).used_ring());
        let available = Arc::new(AtomicU16::new(256));
        let port = guest.port.clone();
        guest.bench.memory.set_hook(Some(Box::new(move |memory, _| {
            let done: u16 =
                memory.load(GuestAddress(used + 2), Ordering::SeqCst).expect("in memory");
            let next = done.wrapping_add(256);
            if available.swap(next, Ordering::SeqCst) != next {
                memory.store(next, GuestAddress(avail + 2), Ordering::SeqCst).expect("in memory");
            }
            if queue == RECEIVE && port.waiting() < 10 {
                port.deliver(&frame(100));
            }
        })));
        for _ in 0..20 {
            let before = guest.ring_of(queue).used_idx();
            step(&guest);
            let taken = u64::from(guest.ring_of(queue).used_idx().wrapping_sub(before));
            let most = if queue == 2 { COMMANDS } else { FRAMES };
            assert!((1..=most).contains(&taken), "{taken} on {queue}");
        }
        guest.bench.memory.set_hook(None);
    }
}

// The longest commands, in pieces of one byte: at most a few accesses a byte, and none for what is
// stepped over (CVE-2014-0150: counts that wrap when they are added).
#[test]
fn the_longest_commands_cost_virtio_net_a_bounded_number_of_accesses() {
    let mut guest = Net::new(Setting { pairs: 2, ..Setting::default() });
    let control = guest.control_queue();
    // As many addresses as fit, then more than there are bytes, then sums that wrap.
    for (unicast, multicast, bytes, expected) in [
        (10u32, 10u32, 128u32, ack::OK),
        (160, 0, 968, ack::OK),
        (0x1_0000, 0, 900, ack::ERR),
        (0xffff_ffff, 0xffff_ffff, 900, ack::ERR),
        (0x2aaa_aaab, 0, 900, ack::ERR),
        (0, 0xd555_5556, 900, ack::ERR),
    ] {
        let place = BUFFERS;
        let mut command = vec![class::MAC, mac::TABLE_SET];
        command.extend_from_slice(&unicast.to_le_bytes());
        // The second table is behind the first, if there is one.
        let first = usize::try_from(unicast).unwrap_or(0).min(200) * 6;
        command.resize(command.len() + first, 2);
        command.extend_from_slice(&multicast.to_le_bytes());
        command.resize(command.len() + 1024, 2);
        guest.bench.poke(place, &command);
        let mut chain: Vec<Buffer> =
            (0..u64::from(bytes) + 2).map(|at| Buffer::readable(place + at, 1)).collect();
        chain.push(Buffer::writable(place + 0x2000, 1));
        guest.ring_of(control).add_indirect(place + 0x4000, &chain);
        guest.notify(control);
        let cost = step(&guest);
        let most = chain_cost(u64::from(bytes) + 3) + 2 * u64::from(bytes) + 3 * ROUND;
        assert!(cost <= most, "{unicast}, {multicast}: {cost}");
        let mut answer = [0xee];
        guest.bench.peek(place + 0x2000, &mut answer);
        assert_eq!(answer, [expected], "{unicast}, {multicast}");
        while guest.ring_of(control).used().is_some() {}
    }
    // An indirection table of all that its mask can say (QEMU cd76e8fcbe): refused before it is read.
    let mut config = vec![0; 8];
    config[4..6].copy_from_slice(&0xffffu16.to_le_bytes());
    config.resize(3000, 0);
    guest.bench.memory.take_accesses();
    assert_eq!(guest.command(class::MQ, mq::RSS_CONFIG, &config), ack::ERR);
    assert!(guest.bench.memory.take_accesses() <= 10 * ROUND);
    guest.works();
}

// A TSO frame of the greatest length in the smallest segments that the port cuts: one call.
#[test]
fn a_frame_to_be_cut_costs_virtio_net_no_more_than_another() {
    let mut guest = guest(64);
    step(&guest);
    let shape = paraslot_tests::frames::Shape { tcp: true, payload: 3000, ..Default::default() };
    let offload = paraslot_backends::net::Offload {
        checksum: Some(shape.partial()),
        segmentation: Some(shape.segmentation(8)),
        checksum_valid: false,
    };
    let header: Header = paraslot_tests::scripts::header_of(&offload);
    guest.send_on(TRANSMIT, header, &shape.frame(true));
    let cost = step(&guest);
    assert!(cost <= 2 * ROUND, "{cost}");
    let sent = guest.port.take_sent();
    assert_eq!((sent.len(), sent[0].offload), (1, offload));
}
