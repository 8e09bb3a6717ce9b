//! vmxnet3: packets without an end, of nothing, or as long as they can be, and buffers of no use.

use std::mem::offset_of;
use std::time::Duration;

use paraslot_backends::net::Offload;
use paraslot_device::Progress;
use paraslot_spec::vmxnet3::registers::{RXPROD, RXPROD2};
use paraslot_spec::vmxnet3::{Features, QueueStatus, TxQueueDesc, command, queue_error, rxd, txd};
use paraslot_tests::frames::Shape;
use paraslot_tests::port::Carried;
use zerocopy::FromBytes;

use super::ROUND;
use crate::net::frame;
use crate::nic::Adapter;
use crate::vmxnet3::{
    DESCRIPTORS, LAST, PLACES, QUEUES, RECEIVE_RINGS, Setup, Side, Vmx, descriptor,
};

/// Packets of one unit of work, and descriptors above which no further one is begun; of a packet.
const PACKETS: u64 = 64;
const SENT: u64 = 256;
const LONGEST: u64 = 64;
/// A descriptor is read, and its bytes are gathered or resolved; a packet is looked for and completed.
const UNIT_OUT: u64 = 3 * (SENT + LONGEST) + 5 * PACKETS;
/// Buffers above which no further frame is begun, and of a frame; each is looked for, perhaps twice,
/// its address read, filled and completed.
const BUFFERS: u64 = 512;
const UNIT_IN: u64 = 6 * (BUFFERS + LONGEST) + 4 * PACKETS;

/// The cost of one unit of work.
fn step(guest: &Vmx) -> u64 {
    guest.bench.memory.take_accesses();
    let _ = guest.bench.executor.step(0);
    guest.bench.memory.take_accesses()
}

/// Until it rests; each unit within its bounds.
fn rest(guest: &Vmx, what: &str) {
    for _ in 0..5000 {
        guest.bench.memory.take_accesses();
        let progress = guest.bench.executor.step(0);
        let cost = guest.bench.memory.take_accesses();
        assert!(cost <= UNIT_OUT + UNIT_IN + ROUND, "{what}: {cost}");
        if progress == Progress::Idle {
            for _ in 0..10 {
                assert_eq!(guest.bench.executor.step(0), Progress::Idle, "{what}");
            }
            return;
        }
    }
    panic!("{what}: it never rests");
}

/// Whether a queue has stopped, and why.
fn stopped(guest: &mut Vmx, queue: u64) -> Option<u32> {
    assert_eq!(guest.order(command::GET_QUEUE_STATUS), 0);
    let mut bytes = [0; size_of::<QueueStatus>()];
    let status = offset_of!(TxQueueDesc, status) as u64;
    guest.bench.peek(QUEUES + 256 * queue + status, &mut bytes);
    let status = QueueStatus::read_from_bytes(&bytes).expect("its size");
    (status.stopped != 0).then_some(status.error.get())
}

#[test]
fn a_packet_costs_vmxnet3_few_accesses() {
    let mut guest = Vmx::new();
    step(&guest);
    guest.send(&frame(60));
    guest.kick();
    let cost = step(&guest);
    // The generation, the descriptor, the packet, the completion in two stores, and who is next; a
    // look at the receive ring, and both once more before it sleeps.
    assert!((6..=ROUND).contains(&cost), "{cost}");
    guest.run();
    for _ in 0..10 {
        guest.send(&frame(60));
    }
    guest.kick();
    let cost = step(&guest);
    assert!((10 * 5..=10 * 5 + ROUND).contains(&cost), "{cost}");
    guest.run();
    for _ in 0..10 {
        guest.port.deliver(&frame(60));
    }
    let cost = step(&guest);
    assert!((10 * 6..=10 * 7 + ROUND).contains(&cost), "{cost}");
    guest.run();
    // Nothing to do costs a look at each ring.
    let cost = step(&guest);
    assert!(cost <= 6, "{cost}");
}

// CVE-2020-16092 (an assertion on the number of fragments): as many descriptors as there are, without
// an end, and one that is not there yet. The queue stops, and the other goes on.
#[test]
fn packets_without_an_end_cost_vmxnet3_their_queue() {
    for (count, error) in [(DESCRIPTORS, queue_error::BIG_PKT), (5, queue_error::NOEOP)] {
        let mut guest = Vmx::new();
        let all = vec![descriptor(PLACES, 20, 0); usize::try_from(count).expect("small")];
        guest.put(&all);
        guest.kick();
        rest(&guest, "no end");
        assert_eq!(stopped(&mut guest, 0), Some(error));
        assert!(guest.port.take_sent().is_empty());
        for _ in 0..10 {
            guest.kick();
            rest(&guest, "stopped");
        }
        guest.port.deliver(&frame(100));
        guest.run();
        assert!(guest.arrived().expect("the other queue works").bytes == frame(100));
        guest.start();
        guest.works();
    }
    // The same in a ring that has more of them than a packet may have.
    let mut guest = Vmx::new();
    start_with_long_ring(&mut guest);
    guest.put(&vec![descriptor(PLACES, 20, 0); 1000]);
    guest.kick();
    rest(&guest, "no end");
    assert_eq!(stopped(&mut guest, 0), Some(queue_error::BIG_PKT));
    guest.start();
    guest.works();
}

// CVE-2016-6834: fragments of no length have the greatest there is. So the packet is too long, and lost.
#[test]
fn fragments_of_nothing_cost_vmxnet3_the_packet() {
    for count in [1, 3, 5, 64] {
        let mut guest = Vmx::new();
        let before = guest.statistics();
        let mut all = vec![descriptor(PLACES, 0, txd::OM_NONE); count];
        all[count - 1].flags = LAST.into();
        guest.put(&all);
        guest.kick();
        rest(&guest, "nothing");
        let counts = guest.statistics();
        assert_eq!(counts.send_invalid - before.send_invalid, 1, "{count}");
        assert!(guest.port.take_sent().is_empty(), "{count}");
        assert_eq!(guest.sent().len(), 1, "{count}");
        guest.works();
    }
    // To be segmented, it is as long as that.
    let mut guest = Vmx::new();
    let shape = Shape { tcp: true, payload: 16_384, ..Shape::default() };
    let bytes = shape.frame(true);
    guest.bench.poke(PLACES, &bytes);
    let headers = u32::try_from(shape.headers()).expect("small");
    guest.put(&[
        descriptor(PLACES, headers | 1000 << txd::MSSCOF_SHIFT, txd::OM_TSO | headers),
        descriptor(PLACES + u64::from(headers), 0, LAST),
    ]);
    guest.kick();
    rest(&guest, "segments");
    let sent = guest.port.take_sent();
    assert!(sent.len() == 1 && sent[0].bytes.len() == bytes.len());
}

/// Descriptors of the longest ring there is.
const ENTRIES: u32 = 4096;

/// Activates the device with such a ring of packets to be sent.
fn start_with_long_ring(guest: &mut Vmx) {
    const RING: u64 = 0xc_0000;
    let mut setup = Setup::default();
    setup.tx.conf.tx_ring_base_pa = RING.into();
    setup.tx.conf.tx_ring_size = ENTRIES.into();
    guest.bench.poke(RING, &[0; 16 * ENTRIES as usize]);
    assert_eq!(guest.start_with(&setup), 0);
    guest.tail = Side::new(RING, ENTRIES);
}

// The longest packets there are, in a ring that is as long as it can be, and the shortest.
#[test]
fn the_longest_packets_cost_vmxnet3_a_bounded_number_of_accesses() {
    for pieces in [64, 1] {
        let mut guest = Vmx::new();
        start_with_long_ring(&mut guest);
        guest.bench.poke(PLACES, &frame(64 * 20));
        for _ in 0..ENTRIES / pieces {
            let mut packet: Vec<_> = (0..pieces)
                .map(|index| {
                    let len = 64 * 20 / pieces;
                    descriptor(PLACES + u64::from(index * len), len, 0)
                })
                .collect();
            packet.last_mut().expect("not empty").flags = LAST.into();
            guest.put(&packet);
        }
        guest.kick();
        let mut total = 0;
        while total < ENTRIES / pieces {
            let cost = step(&guest);
            let sent = guest.port.take_sent();
            let taken = sent.len() as u64;
            let most = if pieces == 64 { SENT / LONGEST } else { PACKETS };
            assert!((1..=most).contains(&taken), "{taken} packets in one unit of work");
            assert!(cost <= UNIT_OUT + ROUND, "{cost}");
            assert!(sent.iter().all(|sent| sent.bytes == frame(64 * 20)));
            total += u32::try_from(taken).expect("few");
        }
        rest(&guest, "all of them");
        guest.start();
        guest.works();
    }
}

// Receive buffers of no use: of no length, too short, of the wrong kind, in no memory.
#[test]
fn buffers_of_no_use_cost_vmxnet3_their_queue_at_most() {
    type Choose = fn(usize, u32) -> (u64, u32);
    let kinds: [(&str, Choose); 6] = [
        ("no length", |ring, _| (PLACES, if ring == 1 { rxd::BTYPE_BODY } else { 0 })),
        ("too short a head", |ring, _| (PLACES, if ring == 1 { rxd::BTYPE_BODY } else { 127 })),
        ("bodies alone", |_, _| (PLACES, rxd::BTYPE_BODY | 2048)),
        ("heads alone", |_, _| (PLACES, 128)),
        ("bodies of nothing", |ring, _| (PLACES, if ring == 1 { rxd::BTYPE_BODY } else { 128 })),
        ("no memory", |ring, index| {
            (u64::MAX - u64::from(index), 2048 | if ring == 1 { rxd::BTYPE_BODY } else { 0 })
        }),
    ];
    for (what, choose) in kinds {
        for most in [18, 0, 1, 0xffff] {
            let mut guest = Vmx::new();
            let mut setup = Setup::default();
            // QEMU 283f0a05e2: a packet of no buffers.
            setup.shared.dev_read.misc.max_num_rx_sg = most.into();
            assert_eq!(guest.start_with(&setup), 0);
            guest.give_all(choose);
            for len in [60, 128, 129, 1514] {
                guest.port.deliver(&frame(len));
            }
            rest(&guest, what);
            // As time passes, too.
            for _ in 0..100 {
                guest.bench.clock.advance(Duration::from_millis(10));
                rest(&guest, what);
            }
            let out = guest.send(&frame(90));
            guest.kick();
            rest(&guest, what);
            assert_eq!(guest.sent(), [out], "{what}");
            guest.port.drain();
            guest.start();
            guest.works();
        }
    }
}

// QEMU 283f0a05e2 with packets that are put together of several: more buffers than a packet may have
// cost it, and there is always one.
#[test]
fn packets_of_too_many_buffers_cost_vmxnet3_themselves() {
    for (most, fits) in [(0, false), (1, false), (8, false), (64, true), (0xffff, true)] {
        let mut guest = Vmx::new();
        let mut setup = Setup::default();
        setup.shared.dev_read.misc.max_num_rx_sg = most.into();
        let features = (Features::LRO | Features::RXCSUM).bits();
        setup.shared.dev_read.misc.upt_features = features.into();
        assert_eq!(guest.start_with(&setup), 0);
        let shape = Shape { tcp: true, payload: 30_000, ..Shape::default() };
        let offload = Offload {
            checksum: Some(shape.partial()),
            segmentation: Some(shape.segmentation(1000)),
            checksum_valid: false,
        };
        let mut bytes = shape.frame(true);
        bytes[..6].fill(0xff);
        guest.port.deliver_to(0, Carried { bytes: bytes.clone(), offload });
        rest(&guest, "large");
        let arrived = guest.arrived();
        assert_eq!(arrived.is_some(), fits, "{most}");
        assert!(arrived.is_none_or(|arrived| arrived.bytes.len() == bytes.len()));
        guest.works();
    }
}

// Frames without buffers wait, or are lost after a while; the worker rests, but for a look now and then.
#[test]
fn without_receive_buffers_vmxnet3_is_at_rest() {
    let mut guest = Vmx::new();
    for ring in RECEIVE_RINGS {
        guest.bench.poke(ring, &[0; 16 * DESCRIPTORS as usize]);
    }
    for len in 100..130 {
        guest.port.deliver(&frame(len));
    }
    rest(&guest, "no buffers");
    let calls = guest.port.calls();
    for _ in 0..1000 {
        guest.bench.clock.advance(Duration::from_millis(10));
        let mut cost = 0;
        for _ in 0..4 {
            cost += step(&guest);
        }
        assert!(cost <= 4 * ROUND, "{cost}");
    }
    assert!(guest.port.calls() <= calls + 60);
    guest.give = RECEIVE_RINGS.map(|ring| Side::new(ring, DESCRIPTORS));
    let len = 2048;
    for index in 0..DESCRIPTORS {
        guest.give_this(0, Vmx::buffer(0, index), len);
    }
    guest.pt(RXPROD, 0);
    guest.pt(RXPROD2, 0);
    rest(&guest, "buffers");
    for len in 100..130 {
        assert!(guest.arrived().expect("they come now").bytes == frame(len));
    }
}
