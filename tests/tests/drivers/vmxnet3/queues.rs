//! Several receive queues, and which of them a frame goes to.

use std::collections::{BTreeMap, BTreeSet};

use paraslot_backends::net::Offload;
use paraslot_drivers::Platform;
use paraslot_drivers::vmxnet3::{Options, Signalling, Vectors};
use paraslot_protocol::traffic::Flow;
use paraslot_spec::vmxnet3::rcd;
use paraslot_tests::frames::Shape;
use paraslot_tests::port::{Carried, Port};

use super::{Driver, Plugged, SLOT, check_statistics, driver, plugged, received_at};
use crate::net::{MAC, finished, wait_until};
use crate::place::{Place, in_both_places};

/// The key of Microsoft's verification suite for receive-side scaling, which the driver uses.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// A Toeplitz hash, bit by bit.
fn toeplitz(input: &[u8]) -> u32 {
    let key = |bit: usize| u32::from(KEY[bit / 8] >> (7 - bit % 8) & 1);
    let window = |at: usize| (at..at + 32).fold(0, |window, bit| window << 1 | key(bit));
    let set = |bit: &usize| input[bit / 8] >> (7 - bit % 8) & 1 != 0;
    (0..input.len() * 8).filter(set).fold(0, |hash, bit| hash ^ window(bit))
}

// From the verification suite: addresses, and with ports.
fn the_hash_of_these_tests_is_right(_: Place) {
    let v4 = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
    assert_eq!(toeplitz(&v4[..8]), 0x323e_8fc2);
    assert_eq!(toeplitz(&v4), 0x51cc_c178);
}

/// Places in the driver's indirection table.
const TABLE: u32 = 32;

/// A frame for the adapter, with what is left to do to it, the type of its hash, and the hash.
struct Hashed {
    frame: Carried,
    kind: u32,
    hash: u32,
}

impl Hashed {
    /// The queue that it goes to, of so many.
    fn queue(&self, queues: u8) -> u8 {
        u8::try_from(self.hash % TABLE % u32::from(queues)).unwrap()
    }
}

/// A frame of TCP or UDP, over IPv4 or IPv6, from one of 65536 flows.
fn packet(tcp: bool, v6: bool, flow: u16, number: usize) -> Hashed {
    let shape = Shape { tcp, v6, payload: 20 + number, ..Shape::default() };
    let mut bytes = shape.frame(true);
    bytes[..6].copy_from_slice(&MAC);
    let at = shape.transport();
    bytes[at..at + 2].copy_from_slice(&flow.to_be_bytes());
    let (addresses, kind) = match (v6, tcp) {
        (false, false) => (26..34, rcd::RSS_TYPE_IPV4),
        (false, true) => (26..34, rcd::RSS_TYPE_TCPIPV4),
        (true, false) => (22..54, rcd::RSS_TYPE_IPV6),
        (true, true) => (22..54, rcd::RSS_TYPE_TCPIPV6),
    };
    // There is no hash over UDP's ports in these revisions.
    let ports = if tcp { at..at + 4 } else { at..at };
    let hash = toeplitz(&[&bytes[addresses], &bytes[ports]].concat());
    let offload = Offload { checksum: Some(shape.partial()), ..Offload::default() };
    Hashed { frame: Carried { bytes, offload }, kind, hash }
}

/// UDP, one flow for each station that sends.
fn from_station(last: u8) -> Hashed {
    let source = [2, 0, 0, 0, 1, last];
    let bytes = finished(Flow { source, destination: MAC }, 1, 64);
    let hash = toeplitz(&bytes[26..34]);
    let frame = Carried { bytes, offload: Offload::default() };
    Hashed { frame, kind: rcd::RSS_TYPE_IPV4, hash }
}

/// Delivers a frame, and says which queue it came to.
fn queue_of(
    plugged: &Plugged,
    port: &Port,
    nic: &mut Driver<'_>,
    queues: u8,
    frame: &Carried,
) -> u8 {
    port.deliver_to(0, frame.clone());
    plugged.platform.settle();
    let mut places = vec![];
    for queue in 0..queues {
        let frames = received_at(nic, queue).unwrap();
        places.extend(frames.iter().map(|_| queue));
        let same =
            |bytes: &[u8]| bytes.len() == frame.bytes.len() && bytes[..34] == frame.bytes[..34];
        assert!(frames.iter().all(|(bytes, ..)| same(bytes)));
    }
    assert_eq!(places.len(), 1, "one frame is one frame");
    places[0]
}

// The hash and its type are told, and the queue is the one that the table says.
fn frames_go_where_their_hash_says(place: Place) {
    for revision in [1, 3] {
        for queues in [2, 3, 8] {
            let port = Port::new(1);
            let plugged = plugged(&place.stepped(), port.clone());
            let options = Options { revision, receive_queues: queues, ..Options::new() };
            let mut nic = driver(&plugged.platform, options);
            assert_eq!(nic.receive_queues(), queues);
            let flows = (0..24).flat_map(|flow| {
                let flow = flow * 2000 + 7;
                [(true, false), (true, true), (false, true)]
                    .map(|(tcp, v6)| packet(tcp, v6, flow, 0))
            });
            let mut used = BTreeSet::new();
            for sent in flows.chain((0..24).map(from_station)) {
                let queue = queue_of(&plugged, &port, &mut nic, queues, &sent.frame);
                assert_eq!(nic.last_hash(queue), Some((sent.kind, sent.hash)));
                assert_eq!(queue, sent.queue(queues));
                used.insert(queue);
            }
            assert!(used.into_iter().eq(0..queues), "all are used");
            // What has no addresses goes to the first.
            let mut other = finished(Flow { source: MAC, destination: MAC }, 1, 64);
            other[12..14].copy_from_slice(&[0x88, 0xb5]);
            let frame = Carried { bytes: other, offload: Offload::default() };
            assert_eq!(queue_of(&plugged, &port, &mut nic, queues, &frame), 0);
            assert_eq!(nic.last_hash(0), Some((rcd::RSS_TYPE_NONE, 0)));
            check_statistics(&plugged.control.statistics());
        }
    }
}

/// Whichever of the network's queues it comes by.
fn each_flow_stays_in_order_on_one_queue(place: Place) {
    const FLOWS: u16 = 24;
    const EACH: usize = 30;
    for (name, machine) in place.machines() {
        for (network, queues) in [(1, 4), (4, 4), (8, 3)] {
            let port = Port::new(network);
            let plugged = plugged(&machine, port.clone());
            let options = Options { receive_queues: queues, ..Options::new() };
            let mut nic = driver(&plugged.platform, options);
            // With fewer of the driver's, the network uses no more.
            let network = network.min(queues.into());
            assert_eq!(port.pairs(), network, "{name}");
            let flow = |flow: u16| flow * 1000 + 3;
            for number in 0..EACH {
                for one in 0..FLOWS {
                    let sent = packet(true, one % 2 == 0, flow(one), number);
                    port.deliver_to(one % network, sent.frame);
                }
            }
            // Flow, and queue: the numbers that arrived, in order.
            let mut seen: BTreeMap<(u16, u8), Vec<usize>> = BTreeMap::new();
            let mut count = 0;
            wait_until(&plugged.platform, || {
                for queue in 0..queues {
                    for (bytes, ..) in received_at(&mut nic, queue).unwrap() {
                        let v6 = bytes[12..14] == [0x86, 0xdd];
                        let at = Shape { tcp: true, v6, ..Shape::default() };
                        let source = [bytes[at.transport()], bytes[at.transport() + 1]];
                        let key = (u16::from_be_bytes(source), queue);
                        seen.entry(key).or_default().push(bytes.len() - at.headers() - 20);
                        count += 1;
                    }
                }
                count == EACH * usize::from(FLOWS)
            });
            assert_eq!(seen.len(), usize::from(FLOWS), "{name}: one queue each");
            for one in 0..FLOWS {
                let sent = packet(true, one % 2 == 0, flow(one), 0);
                let numbers = &seen[&(flow(one), sent.queue(queues))];
                assert!(numbers.iter().copied().eq(0..EACH), "{name}: {numbers:?}");
            }
            check_statistics(&plugged.control.statistics());
        }
    }
}

/// Messages of each of the first vectors.
fn messages(platform: &paraslot_vmm::in_process::InProcess) -> [u64; 5] {
    [0, 1, 2, 3, 4].map(|vector| platform.messages_sent(SLOT, vector))
}

fn queues_interrupt_by_vectors_of_their_own(place: Place) {
    for (vectors, expected) in [
        (Vectors::Directions, [1, 0, 0, 0, 0]),
        (Vectors::Shared, [1, 0, 0, 0, 0]),
        (Vectors::Each, [1, 1, 1, 1, 0]),
    ] {
        let port = Port::new(1);
        let plugged = plugged(&place.stepped(), port.clone());
        let options = Options { receive_queues: 4, vectors, ..Options::new() };
        let mut nic = driver(&plugged.platform, options);
        paraslot_drivers::Nic::set_interrupts(&mut nic, true).unwrap();
        plugged.platform.settle();
        let before = messages(&plugged.platform);
        // Stations until each queue had one.
        let mut queues = BTreeSet::new();
        for sent in (0..).map(from_station) {
            if queues.len() == 4 {
                break;
            }
            if queues.insert(sent.queue(4)) {
                port.deliver_to(0, sent.frame);
            }
        }
        plugged.platform.settle();
        let after = messages(&plugged.platform);
        let sent: Vec<u64> =
            after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(sent, expected, "{vectors:?}");
        let taken = plugged.platform.interrupts_taken(0);
        assert_eq!(taken, after.iter().sum::<u64>(), "all reach the driver");
        assert_eq!(plugged.platform.stray_interrupts(), 0);
    }
}

/// As in Linux: there must be a vector for each.
fn without_msix_there_is_one_queue(place: Place) {
    for signalling in [Signalling::Msi, Signalling::Pin] {
        let port = Port::new(4);
        let plugged = plugged(&place.stepped(), port.clone());
        let options = Options { receive_queues: 4, signalling, ..Options::new() };
        let mut nic = driver(&plugged.platform, options);
        assert_eq!((nic.receive_queues(), nic.signalling(), port.pairs()), (1, signalling, 1));
        for sent in (0..8).map(from_station) {
            assert_eq!(queue_of(&plugged, &port, &mut nic, 1, &sent.frame), 0);
            assert_eq!(nic.last_hash(0), Some((rcd::RSS_TYPE_NONE, 0)));
        }
    }
}

in_both_places! {
    the_hash_of_these_tests_is_right,
    frames_go_where_their_hash_says,
    each_flow_stays_in_order_on_one_queue,
    queues_interrupt_by_vectors_of_their_own,
    without_msix_there_is_one_queue,
}
