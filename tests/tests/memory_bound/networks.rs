//! What networks may make a device hold: frames on their way, and pieces of them.

use paraslot_backends::net::Offload;
use paraslot_spec::e1000::{Context, Rctl, TransmitDescriptor, registers, transmit};
use paraslot_spec::virtio::split::DESC_F_INDIRECT;
use paraslot_spec::virtio_net::{RssConfig, ack, class, hash_type, mac, mq};
use paraslot_tests::bench::Bench;
use paraslot_tests::frames::Shape;
use paraslot_tests::port::{Carried, Fate, Port};
use paraslot_tests::targets;
use paraslot_virtio::testing::Buffer;
use zerocopy::IntoBytes;

use super::{BENCH, SEGMENT, measure, scripts};
use crate::e1000::{DESCRIPTORS, Ether, PLACES, SEND};
use crate::net::{BUFFERS, Net, RECEIVE, Setting, TRANSMIT, frame};
use crate::support::Random;

/// Bytes of the longest frame.
const FRAME: i64 = 65_557;
/// What a receive queue of virtio-net lets wait: bytes, of which the ring that holds them may be twice
/// as large, and three times while it grows; and what belongs to each of 256 frames.
const INBOX: i64 = 3 * 256 * 1024 + 2 * 256 * 64;
/// Longest chain, and pieces of memory above which no further chain is taken.
const CHAIN: i64 = 1024;
const PIECES: i64 = 1024;

/// What a pair of queues of virtio-net holds at most, of `entries` each: what waits, a frame being
/// received, chains taken to receive into, and one chain while it is read.
fn pair(entries: i64) -> i64 {
    let chains = (SEGMENT + 2 * 16) * (PIECES + CHAIN) + 3 * 64 * entries;
    INBOX + FRAME + chains + 16 * 3 * CHAIN + 400 * entries + 8 * 1024
}

/// What an e1000 holds at most: a packet and one of its segments, what is looped back, of which each
/// frame costs a little more than its bytes, and what is received.
const ADAPTER: i64 = 2 * FRAME + 2 * FRAME + 2 * 64 * 1024 + 16 * 1024 + 64 * 1024;

/// Frames that the test's own port lets wait: four of the greatest length, and short ones; and one
/// while it is made.
pub(super) const PORT: i64 = 2 * (6 * FRAME + 64 * 2500);

#[test]
fn virtio_net_is_bounded_under_random_scripts() {
    scripts(targets::virtio_net, 2 * pair(256) + PORT + BENCH, 4 * 1024);
}

#[test]
fn e1000_is_bounded_under_random_scripts() {
    scripts(targets::e1000, ADAPTER + PORT + BENCH, 4 * 1024);
}

/// Two pairs of queues, and all frames for the second.
fn for_the_second() -> Net {
    let port = Port::forgetful(2);
    let mut guest = Net::on(port, Setting { pairs: 2, ..Setting::default() });
    let config = RssConfig {
        hash_types: hash_type::ALL.into(),
        indirection_table_mask: 0.into(),
        unclassified_queue: 1.into(),
    };
    let mut command = config.as_bytes().to_vec();
    command.extend_from_slice(&[1, 0, 2, 0, 40]);
    command.resize(command.len() + 40, 0x6d);
    assert_eq!(guest.command(class::MQ, mq::RSS_CONFIG, &command), ack::OK);
    guest
}

/// A frame that is still to be cut, from the network.
pub(super) fn uncut(payload: usize) -> Carried {
    let shape = Shape { tcp: true, payload, ..Shape::default() };
    let mut bytes = shape.frame(true);
    bytes[..6].fill(0xff);
    let segmentation = Some(shape.segmentation(1460));
    let checksum = Some(shape.partial());
    Carried { bytes, offload: Offload { checksum, segmentation, checksum_valid: false } }
}

// Frames for a queue without buffers, received by another: so many wait, and no more.
#[test]
fn what_waits_for_a_virtio_net_queue_is_bounded() {
    for (payload, count, least) in [(60_000, 100, 3 * 60_000), (20, 3000, 200 * 74)] {
        let mut guest = for_the_second();
        let (peak, held, ()) = measure(|| {
            for _ in 0..count {
                guest.port.deliver_to(0, uncut(payload));
                guest.run();
            }
        });
        assert!(peak <= INBOX + 3 * FRAME + BENCH, "{peak}");
        assert!(held >= least, "nothing waits: {held}");
        let lost = guest.control.statistics().no_guest_buffers;
        assert!(lost > count / 2, "{lost} of {count} were lost");
        // With buffers they come, and a reset gives all of them up.
        guest.supply(2, 60, 4000);
        guest.notify(2);
        guest.run();
        assert!(guest.arrived_on(2).is_some());
        guest.port.drain();
        guest.reset();
        guest.start();
        guest.works();
        assert_eq!(guest.control.statistics().no_guest_buffers, lost);
    }
}

// Chains of as many pieces as there can be, each in a queue full of them.
#[test]
fn a_virtio_net_queue_takes_a_bounded_number_of_buffers() {
    for queue in [RECEIVE, TRANSMIT] {
        let mut guest = Net::on(Port::forgetful(1), Setting::default());
        let table = BUFFERS + 0x4_0000;
        let writable = queue == RECEIVE;
        let chain: Vec<Buffer> = (0..1024)
            .map(|index| Buffer { address: BUFFERS + 60 * index, len: 60, writable })
            .collect();
        guest.ring_of(queue).set_table(table, &chain);
        for head in 0..64 {
            let len = u32::try_from(16 * chain.len()).expect("small");
            guest.ring_of(queue).set_descriptor(head, table, len, DESC_F_INDIRECT, 0);
            guest.ring_of(queue).publish(head);
        }
        guest.port.set_fate(Fate::Busy);
        let (peak, held, ()) = measure(|| guest.run());
        assert!(peak <= pair(64) - INBOX, "{peak}");
        assert!(held >= 24 * CHAIN, "the longest chain was not held: {held}");
        // And a reset gives it all back.
        let (_, freed, ()) = measure(|| {
            guest.set_status(0);
            guest.run();
            assert!(guest.status().is_empty());
        });
        assert!(held + freed <= 4 * 1024, "{} of {held} bytes are kept", held + freed);
    }
}

// Tables of addresses of any length.
#[test]
fn what_a_command_leaves_in_virtio_net_is_bounded() {
    let mut guest = Net::on(Port::forgetful(1), Setting::default());
    let (peak, _, ()) = measure(|| {
        for count in [1u32, 64, 65, 600] {
            let mut table = count.to_le_bytes().to_vec();
            table.resize(table.len() + 6 * usize::try_from(count).expect("small"), 2);
            table.extend_from_slice(&[0; 4]);
            let expected = if table.len() < 2000 { ack::OK } else { ack::ERR };
            table.truncate(2000);
            assert_eq!(guest.command(class::MAC, mac::TABLE_SET, &table), expected);
        }
    });
    // Two tables of 64 addresses, and the test's own commands.
    assert!(peak <= 2 * 64 * 6 + 8 * 4096, "{peak}");
}

// Packets without an end, of the greatest length and of the most pieces, cut, and looped back.
#[test]
fn an_e1000_holds_what_is_documented_at_most() {
    let mut guest = Ether::on(Port::forgetful(1));
    let (peak, held, ()) = measure(|| {
        for _ in 0..2000 {
            for _ in 0..DESCRIPTORS - 1 {
                guest.put(TransmitDescriptor::data(PLACES, 1, 0, 0));
            }
            guest.kick();
            guest.run();
        }
    });
    assert!(peak <= 8 * 1024, "{peak} bytes for a packet without an end");
    assert!(held <= 8 * 1024, "{held}");
    guest.start();

    let shape = Shape { tcp: true, payload: 65_000, ..Shape::default() };
    let bytes = shape.frame(true);
    let context = Context { paylen: 65_000, ..Ether::context(&shape, 100) };
    let flags = transmit::TCP | transmit::IP | transmit::TSE;
    for looped in [false, true] {
        for odd in [false, true] {
            guest.start();
            guest.receive_with(if looped { Rctl::LBM_MAC } else { 0 });
            // Nothing is received.
            guest.set(registers::RDT, 0);
            let ipcss = if odd { 13 } else { 14 };
            let (peak, held, ()) = measure(|| {
                for _ in 0..30 {
                    guest.put(TransmitDescriptor::context(&Context { ipcss, ..context }, flags));
                    guest.bench.poke(PLACES, &bytes);
                    let len = u32::try_from(bytes.len()).expect("small");
                    let command = SEND | transmit::TSE;
                    guest.put(TransmitDescriptor::data(PLACES, len, command, 3));
                    guest.kick();
                    guest.run();
                }
            });
            // The port of this test copies a frame, once or twice.
            assert!(peak <= ADAPTER + 3 * FRAME, "looped {looped}, odd {odd}: {peak}");
            assert!(!looped || held >= 40 * 1024, "nothing is looped back: {held}");
            // A reset gives back what is looped.
            let (_, freed, ()) = measure(|| guest.start());
            assert!(!looped || freed <= -40 * 1024, "{freed}");
        }
    }
    guest.works();
}

pub(super) fn drop_loaded(bench: Bench, port: &Port) {
    let Bench { device, executor, .. } = bench;
    drop(device);
    assert!(executor.run(100) && executor.is_empty());
    assert_eq!(port.open_halves(), 0);
}

// Plugged in, loaded, unplugged: whatever is under way then. QEMU abe300d9d8 (a leak after an error).
#[test]
fn networks_that_go_leave_nothing_behind() {
    let load = |port: &Port, random: &mut Random, ask: &mut dyn FnMut(&[u8])| {
        for _ in 0..random.below(12) {
            match random.below(4) {
                0 => port.deliver(&frame(100)),
                1 => port.set_fate(if random.one_in(2) { Fate::Busy } else { Fate::Down }),
                2 => port.fail_receive(0, Fate::Failed),
                _ => ask(&frame(100)),
            }
        }
    };
    let virtio = |seed: u64| {
        let mut random = Random::new(seed);
        let port = Port::forgetful(1);
        let mut guest = Net::on(port.clone(), Setting::default());
        guest.supply(RECEIVE, random.below(40), 1600);
        load(&port, &mut random, &mut |frame| {
            guest.send(frame);
            guest.run();
        });
        drop_loaded(guest.virtio.bench, &port);
    };
    let e1000 = |seed: u64| {
        let mut random = Random::new(seed);
        let port = Port::forgetful(1);
        let mut guest = Ether::on(port.clone());
        guest.receive_with(if random.one_in(2) { Rctl::LBM_MAC } else { 0 });
        load(&port, &mut random, &mut |frame| {
            guest.send(frame);
            guest.kick();
            guest.run();
        });
        drop_loaded(guest.bench, &port);
    };
    virtio(0);
    e1000(0);
    for seed in 0..100 {
        let (_, left, ()) = measure(|| virtio(seed));
        assert_eq!(left, 0, "virtio-net, seed {seed}");
        let (_, left, ()) = measure(|| e1000(seed));
        assert_eq!(left, 0, "e1000, seed {seed}");
    }
}
