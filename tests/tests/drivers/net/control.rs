//! Commands, and what they change.

use paraslot_backends::net::{Offload, Offloads, PartialChecksum};
use paraslot_drivers::virtio_net::{Options, Rss};
use paraslot_drivers::{Error, Known, Nic, Platform, Task};
use paraslot_protocol::traffic::Flow;
use paraslot_spec::virtio_net::{Coalesce, feature as net, hash_report, hash_type, rx};
use paraslot_tests::port::{Carried, Port};
use paraslot_vmm::in_process::InProcess;
use zerocopy::little_endian::U32;

use super::{
    Driver, INWARD, MAC, OTHER, OUTWARD, driver, finished, plugged, received, region, unfinished,
};
use crate::place::{Place, in_both_places};

const ALL: Options = Options { accept: Options::ALL_FEATURES, ..Options::new() };
const GROUP: [u8; 6] = [0x03, 0, 0x5e, 0, 0, 1];
const BROADCAST: [u8; 6] = [0xff; 6];

/// Which of the frames for these stations come through.
fn heard<const N: usize>(
    platform: &InProcess,
    port: &Port,
    nic: &mut Driver<'_>,
    stations: [[u8; 6]; N],
) -> [bool; N] {
    stations.map(|destination| {
        port.deliver(&finished(Flow { source: OTHER, destination }, 1, 64));
        platform.settle();
        !received(nic, 0).unwrap().is_empty()
    })
}

fn receive_modes_and_tables_decide_which_frames_come_through(place: Place) {
    let port = Port::new(1);
    let (platform, _) = plugged(&place.stepped(), port.clone());
    let mut nic = driver(&platform, Options::new());
    let stations = [MAC, [2, 1, 1, 1, 1, 1], GROUP, BROADCAST];
    let heard = |nic: &mut Driver<'_>| heard(&platform, &port, nic, stations);
    nic.set_receive_mode(rx::PROMISC, true).unwrap();
    assert_eq!(heard(&mut nic), [true; 4]);
    nic.set_receive_mode(rx::PROMISC, false).unwrap();
    assert_eq!(heard(&mut nic), [true, false, false, true]);
    nic.set_receive_mode(rx::ALLMULTI, true).unwrap();
    assert_eq!(heard(&mut nic), [true, false, true, true]);
    nic.set_receive_mode(rx::ALLMULTI, false).unwrap();
    nic.set_receive_mode(rx::NOBCAST, true).unwrap();
    assert_eq!(heard(&mut nic), [true, false, false, false]);
    nic.set_receive_mode(rx::NOBCAST, false).unwrap();
    nic.set_mac_table(&[stations[1]], &[]).unwrap();
    assert_eq!(heard(&mut nic), [true, true, false, true]);
    nic.set_mac_table(&[], &[GROUP]).unwrap();
    assert_eq!(heard(&mut nic), [true, false, true, true]);
    nic.set_mac_table(&[], &[]).unwrap();
    nic.set_address(stations[1]).unwrap();
    assert_eq!(nic.address(), stations[1]);
    assert_eq!(heard(&mut nic), [false, true, false, true]);
}

fn vlans_come_through_when_they_are_added(place: Place) {
    let port = Port::new(1);
    let (platform, _) = plugged(&place.stepped(), port.clone());
    let mut nic = driver(&platform, ALL);
    let mut frame = finished(INWARD, 1, 64);
    frame.splice(12..12, [0x81, 0, 0, 100]);
    let heard = |nic: &mut Driver<'_>| {
        port.deliver(&frame);
        platform.settle();
        let frames = received(nic, 0).unwrap();
        assert!(frames.iter().all(|(bytes, ..)| *bytes == frame));
        frames.len()
    };
    assert_eq!(heard(&mut nic), 0);
    nic.set_vlan(100, true).unwrap();
    assert_eq!(heard(&mut nic), 1);
    nic.set_vlan(100, false).unwrap();
    assert_eq!(heard(&mut nic), 0);
}

fn pairs_are_spread_over_as_the_driver_says(place: Place) {
    for (name, machine) in place.machines() {
        let port = Port::new(4);
        let (platform, _) = plugged(&machine, port.clone());
        let mut nic = driver(&platform, Options { pairs: 4, ..Options::new() });
        assert_eq!((nic.max_pairs(), port.pairs()), (4, 4), "{name}");
        for pairs in [1, 3, 4] {
            nic.set_pairs(pairs).unwrap();
            assert_eq!(port.pairs(), pairs, "{name}");
        }
        // Tags are dealt to all pairs' queues in turn.
        let frame = finished(OUTWARD, 1, 64);
        let region = region(&platform, &nic, &frame);
        for tag in 0..8 {
            nic.transmit(tag, &region, 64, Task::None).unwrap();
        }
        nic.kick().unwrap();
        let mut done = vec![];
        super::wait_until(&platform, || {
            nic.reclaim(|tag| done.push(tag)).unwrap();
            done.len() == 8
        });
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(port.take_sent().len(), 8);
        for pair in 0..4 {
            port.deliver_to(pair, Carried { bytes: frame_to(MAC), offload: Offload::default() });
            let mut count = 0;
            super::wait_until(&platform, || {
                count += received(&mut nic, pair).unwrap().len();
                count == 1
            });
        }
    }
}

fn frame_to(destination: [u8; 6]) -> Vec<u8> {
    finished(Flow { source: OTHER, destination }, 1, 64)
}

fn hashes_are_told_and_spread_frames(place: Place) {
    let port = Port::new(4);
    let (platform, _) = plugged(&place.stepped(), port.clone());
    let mut nic = driver(&platform, Options { pairs: 4, ..ALL });
    let key: Vec<u8> = (1..=40).collect();
    // One flow for each station that sends.
    let flows = || {
        (0..32).map(|last| {
            let source = [2, 0, 0, 0, 1, last];
            finished(Flow { source, destination: MAC }, 1, 64)
        })
    };
    let arrivals = |nic: &mut Driver<'_>| {
        let mut places = vec![];
        for frame in flows() {
            port.deliver(&frame);
            platform.settle();
            for pair in 0..4 {
                for (bytes, ..) in received(nic, pair).unwrap() {
                    assert!(bytes == frame);
                    let header = nic.last_header(pair);
                    places.push((pair, header.hash_report.get(), header.hash_value.get()));
                }
            }
        }
        assert_eq!(places.len(), 32);
        places
    };
    let rss = Rss {
        hash_types: hash_type::UDPV4,
        table: &[0, 1, 2, 3],
        unclassified: 0,
        transmit_queues: 4,
        key: &key,
    };
    nic.set_rss(&rss).unwrap();
    let spread = arrivals(&mut nic);
    for (pair, report, hash) in &spread {
        assert_eq!((*report, u32::from(*pair)), (hash_report::UDPV4, hash % 4));
    }
    let mut pairs: Vec<u16> = spread.iter().map(|(pair, ..)| *pair).collect();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs, [0, 1, 2, 3], "all are used");
    assert_eq!(arrivals(&mut nic), spread, "a flow stays where it is");
    nic.set_rss(&Rss { table: &[2], ..rss }).unwrap();
    assert!(arrivals(&mut nic).iter().all(|(pair, ..)| *pair == 2));
    // What has no hash goes where it is told to.
    nic.set_rss(&Rss { hash_types: hash_type::TCPV6, unclassified: 3, ..rss }).unwrap();
    assert!(arrivals(&mut nic).iter().all(|place| *place == (3, hash_report::NONE, 0)));
    // A queue that does not exist.
    assert!(nic.set_rss(&Rss { table: &[4], ..rss }).is_err());
}

fn hashes_are_told_without_spreading(place: Place) {
    let port = Port::new(1);
    let (platform, _) = plugged(&place.stepped(), port.clone());
    let accept = Options::ALL_FEATURES & !net::RSS;
    let mut nic = driver(&platform, Options { accept, ..ALL });
    let report = |nic: &mut Driver<'_>| {
        port.deliver(&frame_to(MAC));
        platform.settle();
        assert_eq!(received(nic, 0).unwrap().len(), 1);
        nic.last_header(0).hash_report.get()
    };
    assert_eq!(report(&mut nic), hash_report::NONE);
    nic.set_hashes(hash_type::IPV4, &[1; 40]).unwrap();
    assert_eq!(report(&mut nic), hash_report::IPV4);
    nic.set_hashes(hash_type::IPV4 | hash_type::UDPV4, &[1; 40]).unwrap();
    assert_eq!(report(&mut nic), hash_report::UDPV4);
    nic.set_hashes(0, &[]).unwrap();
    assert_eq!(report(&mut nic), hash_report::NONE);
}

fn offloads_can_be_taken_back(place: Place) {
    let port = Port::new(1);
    let (platform, _) = plugged(&place.stepped(), port.clone());
    let mut nic = driver(&platform, Options::new());
    assert!(port.accepted().contains(Offloads::CHECKSUM | Offloads::TSO4));
    nic.set_guest_offloads(net::GUEST_CSUM).unwrap();
    assert_eq!(port.accepted(), Offloads::CHECKSUM);
    let offload =
        Offload { checksum: Some(PartialChecksum { start: 34, offset: 6 }), ..Offload::default() };
    let bytes = unfinished(INWARD, 1, 64);
    port.deliver_to(0, Carried { bytes: bytes.clone(), offload });
    platform.settle();
    assert_eq!(received(&mut nic, 0).unwrap(), [(bytes, Known::Partial, 1)]);
    nic.set_guest_offloads(0).unwrap();
    assert_eq!(port.accepted(), Offloads::empty());
    // One that was not negotiated, or needs another.
    let tunnel = 1 << 46;
    assert!(matches!(nic.set_guest_offloads(tunnel), Err(Error::Unsupported(_))));
}

fn an_announcement_is_asked_for_and_acknowledged(place: Place) {
    let (platform, control) = plugged(&place.stepped(), Port::new(1));
    let options = Options { config_interrupt: Some(3), ..Options::new() };
    let mut nic = driver(&platform, options);
    assert!(!nic.announcement_wanted());
    assert!(control.announce());
    assert!(nic.announcement_wanted());
    assert_eq!(platform.interrupts_taken(3), 1);
    nic.acknowledge_announcement().unwrap();
    assert!(!nic.announcement_wanted() && nic.link_up());
    control.set_link(false);
    assert!(!nic.link_up());
    control.set_link(true);
    assert!(nic.link_up());
    assert_eq!(platform.interrupts_taken(3), 3);
    assert_eq!(platform.interrupts_taken(0), 0);
}

const fn coalesce(packets: u32, usecs: u32) -> Coalesce {
    Coalesce { max_packets: U32::new(packets), max_usecs: U32::new(usecs) }
}

fn notifications_are_held_back_as_long_as_they_may_be(place: Place) {
    let port = Port::new(1);
    let (platform, _) = plugged(&place.stepped(), port.clone());
    let mut nic = driver(&platform, Options::new());
    nic.set_coalescing(true, coalesce(1, 2)).unwrap();
    nic.set_coalescing(false, coalesce(8, 1000)).unwrap();
    assert_eq!(nic.queue_coalescing(0), Ok(coalesce(8, 1000)));
    assert_eq!(nic.queue_coalescing(1), Ok(coalesce(1, 2)));
    nic.set_queue_coalescing(0, coalesce(4, 50_000)).unwrap();
    assert_eq!(nic.queue_coalescing(0), Ok(coalesce(4, 50_000)));
    // The control queue is none that could be held back.
    assert!(matches!(nic.queue_coalescing(2), Err(Error::Unsupported(_))));
    assert!(nic.set_queue_coalescing(9, coalesce(1, 1)).is_err());
    nic.set_interrupts(true).unwrap();
    let frame = frame_to(MAC);
    for _ in 0..3 {
        port.deliver(&frame);
        platform.settle();
    }
    assert_eq!(platform.interrupts_taken(0), 0);
    port.deliver(&frame);
    platform.settle();
    assert_eq!(platform.interrupts_taken(0), 1);
    nic.begin().unwrap();
    assert_eq!((received(&mut nic, 0).unwrap().len(), nic.end()), (4, Ok(false)));
    // One frame alone waits for 50 ms.
    port.deliver(&frame);
    platform.settle();
    assert_eq!(platform.interrupts_taken(0), 1);
    platform.wait_for_interrupt(0, 1);
    assert_eq!(platform.interrupts_taken(0), 2);
}

fn what_was_not_negotiated_is_not_asked_for(place: Place) {
    let (platform, _) = plugged(&place.stepped(), Port::new(1));
    let mut nic = driver(&platform, Options { accept: net::MAC, ..Options::new() });
    let before = nic.accesses();
    for result in [
        nic.set_receive_mode(rx::PROMISC, true),
        nic.set_mac_table(&[], &[]),
        nic.set_address(OTHER),
        nic.set_vlan(1, true),
        nic.acknowledge_announcement(),
        nic.set_pairs(1),
        nic.set_guest_offloads(0),
        nic.set_coalescing(true, coalesce(0, 0)),
        nic.queue_coalescing(0).map(|_| ()),
        nic.command(0, 0, &[&[1]], &mut []),
    ] {
        assert!(matches!(result, Err(Error::Unsupported(_))));
    }
    assert_eq!(nic.accesses(), before);
    assert!(nic.link_up(), "without a status there is nothing to say that it is not");
}

in_both_places! {
    receive_modes_and_tables_decide_which_frames_come_through,
    vlans_come_through_when_they_are_added,
    pairs_are_spread_over_as_the_driver_says,
    hashes_are_told_and_spread_frames,
    hashes_are_told_without_spreading,
    offloads_can_be_taken_back,
    an_announcement_is_asked_for_and_acknowledged,
    notifications_are_held_back_as_long_as_they_may_be,
    what_was_not_negotiated_is_not_asked_for,
}
