//! Frames one by one: what the driver makes of what the device tells, and the other way round.

use paraslot_backends::net::{Cut, Offload, PartialChecksum, Segmentation};
use paraslot_drivers::virtio_net::{Layout, Options};
use paraslot_drivers::{Known, Nic, Task};
use paraslot_spec::virtio_net::{feature as net, gso};
use paraslot_tests::port::{Carried, Port};

use super::{INWARD, OUTWARD, driver, finished, plugged, received, region, unfinished, wait_until};
use crate::place::{Place, in_both_places};

const PARTIAL: Offload = Offload {
    checksum: Some(PartialChecksum { start: 34, offset: 6 }),
    segmentation: None,
    checksum_valid: false,
};

fn to_be_cut(size: u16) -> Offload {
    Offload {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        segmentation: Some(Segmentation { cut: Cut::Tcp4, size, header_len: 54, ecn: false }),
        checksum_valid: false,
    }
}

fn tasks_reach_the_network_as_they_were_given(place: Place) {
    for layout in [Layout::Headroom, Layout::Chain, Layout::Indirect] {
        let port = Port::new(1);
        let (platform, _) = plugged(&place.stepped(), port.clone());
        let mut nic = driver(&platform, Options { layout, ..Options::new() });
        let mut check = |tag, frame: Vec<u8>, task, offload| {
            let region = region(&platform, &nic, &frame);
            nic.transmit(tag, &region, frame.len(), task).unwrap();
            nic.kick().unwrap();
            let mut done = vec![];
            wait_until(&platform, || {
                nic.reclaim(|tag| done.push(tag)).unwrap();
                !done.is_empty()
            });
            assert_eq!(done, [tag]);
            assert_eq!(port.take_sent(), [Carried { bytes: frame, offload }]);
        };
        // Each tag is used for one thing and then another.
        for round in 0..3 {
            for (tag, size) in [(0, 60), (1, 1514), (100, 333)] {
                let frame = finished(OUTWARD, round, size);
                check(tag, frame, Task::None, Offload::default());
                let task = Task::Checksum { start: 34, offset: 6 };
                check(tag, unfinished(OUTWARD, round, size), task, PARTIAL);
                let task = Task::Segment { size: 1460 };
                check(tag, unfinished(OUTWARD, round, 9000), task, to_be_cut(1460));
            }
        }
    }
}

fn what_is_left_to_do_reaches_the_driver_as_the_network_says(place: Place) {
    let port = Port::new(1);
    let (platform, _) = plugged(&place.stepped(), port.clone());
    let mut nic = driver(&platform, Options::new());
    let valid = Offload { checksum_valid: true, ..Offload::default() };
    for (bytes, offload, known, kind) in [
        (finished(INWARD, 1, 64), Offload::default(), Known::Nothing, gso::NONE),
        (finished(INWARD, 2, 64), valid, Known::Right, gso::NONE),
        (unfinished(INWARD, 3, 64), PARTIAL, Known::Partial, gso::NONE),
        (unfinished(INWARD, 4, 65_000), to_be_cut(1460), Known::Partial, gso::TCPV4),
        (unfinished(INWARD, 5, 2000), to_be_cut(536), Known::Partial, gso::TCPV4),
    ] {
        let pieces = (bytes.len() + 12).div_ceil(1536);
        port.deliver_to(0, Carried { bytes: bytes.clone(), offload });
        platform.settle();
        assert!(received(&mut nic, 0).unwrap() == [(bytes, known, pieces)]);
        let header = nic.last_header(0).header;
        assert_eq!((header.gso_type, usize::from(header.num_buffers.get())), (kind, pieces));
        let size = offload.segmentation.map_or(0, |segmentation| segmentation.size);
        assert_eq!(header.gso_size.get(), size);
    }
}

/// Frames of every length around the places where buffers end.
fn frames_of_every_length_arrive_whole(place: Place) {
    for (name, machine) in place.machines() {
        for accept in [
            Options::ALL_FEATURES,
            Options::USUAL_FEATURES,
            Options::USUAL_FEATURES & !net::MRG_RXBUF,
        ] {
            let port = Port::new(1);
            let (platform, _) = plugged(&machine, port.clone());
            let buffer = 1088;
            let mut nic = driver(&platform, Options { accept, buffer, ..Options::new() });
            let len = |size: u32| usize::try_from(size).unwrap();
            let near = |size: u32| size - 22..=size + 2;
            let sizes = (60..80).chain(near(1088)).chain(near(2 * 1088)).chain(near(5 * 1088));
            let mut expected = vec![];
            for (number, size) in (0..).zip(sizes) {
                let (bytes, offload) = match size > 1514 {
                    true => (unfinished(INWARD, number, size), to_be_cut(1460)),
                    false => (unfinished(INWARD, number, size), PARTIAL),
                };
                assert_eq!(bytes.len(), len(size));
                port.deliver_to(0, Carried { bytes: bytes.clone(), offload });
                expected.push(bytes);
            }
            let mut frames = vec![];
            wait_until(&platform, || {
                frames.extend(received(&mut nic, 0).unwrap().into_iter().map(|(bytes, ..)| bytes));
                frames.len() == expected.len()
            });
            assert!(frames == expected, "{name}");
        }
    }
}

fn queues_are_reset_alone_with_frames_in_flight(place: Place) {
    for (name, machine) in place.machines() {
        let port = Port::new(1);
        let (platform, _) = plugged(&machine, port.clone());
        let mut nic = driver(&platform, Options::new());
        let frame = finished(OUTWARD, 1, 64);
        let region = region(&platform, &nic, &frame);
        for round in 0..5 {
            for tag in 0..100 {
                nic.transmit(tag, &region, 64, Task::None).unwrap();
            }
            nic.kick().unwrap();
            port.deliver(&finished(INWARD, round, 64));
            nic.reset_queues().unwrap();
            // What comes before the device has started again is lost, and what came before the reset
            // may be.
            let sent: Vec<_> =
                [round, 100 + round].map(|number| finished(INWARD, number, 64)).into();
            let mut frames = vec![];
            wait_until(&platform, || {
                port.deliver(&sent[1]);
                frames.extend(received(&mut nic, 0).unwrap().into_iter().map(|(bytes, ..)| bytes));
                frames.contains(&sent[1])
            });
            let ours = |frame| sent.contains(frame) || frame[42] >= 100;
            assert!(frames.iter().all(ours), "{name}");
            port.take_sent();
            nic.transmit(0, &region, 64, Task::None).unwrap();
            nic.kick().unwrap();
            let mut done = 0;
            wait_until(&platform, || {
                nic.reclaim(|_| done += 1).unwrap();
                done == 1
            });
            assert_eq!(port.take_sent().len(), 1, "{name}");
        }
        nic.shutdown().unwrap();
        platform.settle();
        assert_eq!(port.open_halves(), 0, "{name}");
    }
}

in_both_places! {
    tasks_reach_the_network_as_they_were_given,
    what_is_left_to_do_reaches_the_driver_as_the_network_says,
    frames_of_every_length_arrive_whole,
    queues_are_reset_alone_with_frames_in_flight,
}
