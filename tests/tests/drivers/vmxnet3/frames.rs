//! Frames one by one: what the driver makes of what the adapter tells, and the other way round.

use paraslot_backends::net::{Cut, Offload, PartialChecksum, Segmentation};
use paraslot_drivers::vmxnet3::Options;
use paraslot_drivers::{Error, Known, Nic, Task};
use paraslot_tests::port::{Carried, Port};

use super::{
    AWAY, Plugged, check_statistics, driver, plugged, received, received_at, region, send, ways,
};
use crate::net::{INWARD, finished, unfinished, wait_until};
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

// What a driver asks for to be cut has neither its IP checksum nor the length of the packet in the
// pseudo header's sum, as each segment has others; what leaves the adapter has both.
fn tasks_reach_the_network_as_they_were_given(place: Place) {
    for (name, options) in ways() {
        let port = Port::new(1);
        let Plugged { platform, control, .. } = plugged(&place.stepped(), port.clone());
        let mut nic = driver(&platform, options);
        let mut check = |tag, frame: Vec<u8>, task, offload| {
            send(&platform, &mut nic, tag, &frame, task);
            let [Carried { bytes, offload: left }] = &port.take_sent()[..] else {
                panic!("{name}: one frame is one frame")
            };
            assert!(*bytes == frame, "{name}: {task:?}");
            assert_eq!(*left, offload, "{name}");
        };
        // Each tag is used for one thing and then another.
        for round in 0..3 {
            for (tag, size) in [(0, 64), (1, 1514), (100, 333)] {
                let frame = finished(AWAY, round, size);
                check(tag, frame, Task::None, Offload::default());
                if options.checksum {
                    let task = Task::Checksum { start: 34, offset: 6 };
                    check(tag, unfinished(AWAY, round, size), task, PARTIAL);
                }
                if options.segmentation {
                    let task = Task::Segment { size: 1460 };
                    check(tag, unfinished(AWAY, round, 9000), task, to_be_cut(1460));
                    check(tag, unfinished(AWAY, round, 65_536), task, to_be_cut(1460));
                }
            }
        }
        check_statistics(&control.statistics());
    }
}

/// Around the lengths at which a frame takes one place more: in the data ring, in a descriptor.
fn frames_of_every_length_are_sent_whole(place: Place) {
    for (name, machine) in place.machines() {
        for revision in [1, 3] {
            let port = Port::new(1);
            let Plugged { platform, control, .. } = plugged(&machine, port.clone());
            let mut nic = driver(&platform, Options { revision, ..Options::new() });
            let around = |size: u32| size - 3..=size + 3;
            let plain = (64..70).chain(around(128)).chain(around(256)).chain(1500..=1514);
            let long = around(16_384 + 54).chain(around(2 * 16_384 + 54)).chain(65_530..=65_536);
            let frames: Vec<_> = (0..)
                .zip(plain.chain(long))
                .map(|(number, size)| match size > 1514 {
                    true => (unfinished(AWAY, number, size), Task::Segment { size: 1460 }),
                    false => (finished(AWAY, number, size), Task::None),
                })
                .collect();
            let regions: Vec<_> =
                frames.iter().map(|(frame, _)| region(&platform, frame)).collect();
            for (tag, (region, (frame, task))) in (0..).zip(regions.iter().zip(&frames)) {
                nic.transmit(tag, region, frame.len(), *task).unwrap();
            }
            nic.kick().unwrap();
            let mut done = vec![];
            wait_until(&platform, || {
                nic.reclaim(|tag| done.push(usize::from(tag))).unwrap();
                done.len() == frames.len()
            });
            assert!(done.into_iter().eq(0..frames.len()), "{name}");
            let sent = port.take_sent();
            assert_eq!(sent.len(), frames.len(), "{name}");
            for (sent, (frame, _)) in sent.iter().zip(&frames) {
                assert!(sent.bytes == *frame, "{name}: {}", frame.len());
            }
            check_statistics(&control.statistics());
        }
    }
}

fn what_is_known_of_a_frame_reaches_the_driver(place: Place) {
    for (name, options) in ways() {
        let port = Port::new(1);
        let Plugged { platform, control, .. } = plugged(&place.stepped(), port.clone());
        let mut nic = driver(&platform, options);
        let valid = Offload { checksum_valid: true, ..Offload::default() };
        let damaged = |number, size| {
            let mut frame = finished(INWARD, number, size);
            *frame.last_mut().unwrap() ^= 1;
            frame
        };
        let no_ip = {
            let mut frame = finished(INWARD, 9, 64);
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            frame
        };
        // What is delivered, what the driver is to get, and what it is to know if it asks.
        for (bytes, offload, expected, known) in [
            (finished(INWARD, 1, 64), Offload::default(), finished(INWARD, 1, 64), Known::Right),
            (finished(INWARD, 2, 1514), valid, finished(INWARD, 2, 1514), Known::Right),
            (damaged(3, 300), Offload::default(), damaged(3, 300), Known::Nothing),
            // It is finished on the way.
            (unfinished(INWARD, 4, 700), PARTIAL, finished(INWARD, 4, 700), Known::Right),
            (no_ip.clone(), Offload::default(), no_ip.clone(), Known::Nothing),
        ] {
            port.deliver_to(0, Carried { bytes, offload });
            platform.settle();
            let known = if options.checksum { known } else { Known::Nothing };
            assert!(received_at(&mut nic, 0).unwrap() == [(expected, known, 1)], "{name}");
        }
        check_statistics(&control.statistics());
    }
}

/// Pieces of a frame: the head buffer's, of the longest plain frame's length, and pages.
fn pieces(len: usize) -> usize {
    1 + len.saturating_sub(1522).div_ceil(4096)
}

fn frames_that_were_never_cut_arrive_as_one(place: Place) {
    for (name, options) in ways() {
        let port = Port::new(1);
        let Plugged { platform, control, .. } = plugged(&place.stepped(), port.clone());
        let mut nic = driver(&platform, options);
        for (size, mss) in [(2000, 536), (9000, 1460), (65_536, 1460)] {
            let bytes = unfinished(INWARD, 5, size);
            port.deliver_to(0, Carried { bytes: bytes.clone(), offload: to_be_cut(mss) });
            platform.settle();
            let arrived = received_at(&mut nic, 0).unwrap();
            if nic.offers().large_receive {
                let pieces = pieces(bytes.len());
                assert!(arrived == [(bytes, Known::Right, pieces)], "{name}, {size}");
            } else {
                // It was not asked for, so that the network has no business to deliver it.
                assert!(arrived.is_empty(), "{name}, {size}");
            }
        }
        let errors = if nic.offers().large_receive { 0 } else { 3 };
        assert_eq!(control.statistics().receive_errors, errors, "{name}");
    }
}

/// Frames of every length around the places where buffers end.
fn frames_of_every_length_arrive_whole(place: Place) {
    for (name, machine) in place.machines() {
        for (revision, mtu) in [(1, 1500), (2, 60), (3, 1500), (3, 9000)] {
            let port = Port::new(1);
            let Plugged { platform, control, .. } = plugged(&machine, port.clone());
            let mut nic = driver(&platform, Options { revision, mtu, ..Options::new() });
            let head = (u32::from(mtu) + 22).clamp(128, 3072);
            let near = |size: u32| size - 4..=size + 4;
            let plain = (64..=132).chain(1500..=1514).filter(|size| *size <= u32::from(mtu) + 14);
            let long = near(head.max(1519)).chain(near(head.max(1519) + 4096));
            let long = long.chain(near(head.max(1519) + 8192)).chain([65_535, 65_536]);
            let mut expected = vec![];
            for (number, size) in (0..).zip(plain.chain(long)) {
                let (bytes, offload) = match size > 1514 {
                    true => (unfinished(INWARD, number, size), to_be_cut(1460)),
                    false => (finished(INWARD, number, size), Offload::default()),
                };
                port.deliver_to(0, Carried { bytes: bytes.clone(), offload });
                expected.push(bytes);
            }
            let mut frames = vec![];
            wait_until(&platform, || {
                frames.extend(received(&mut nic));
                frames.len() >= expected.len()
            });
            assert!(frames == expected, "{name}, revision {revision}, MTU {mtu}");
            check_statistics(&control.statistics());
        }
    }
}

fn frames_longer_than_the_mtu_are_kept_out(place: Place) {
    for (mtu, large_receive) in [(60, true), (60, false), (1500, false), (9000_u16, false)] {
        let port = Port::new(1);
        let Plugged { platform, control, .. } = plugged(&place.stepped(), port.clone());
        let mut nic = driver(&platform, Options { mtu, large_receive, ..Options::new() });
        // An Ethernet header, and two tags; and what others may send on an Ethernet at any rate.
        let longest = usize::from(mtu).max(1500) + 22;
        for len in [longest, longest + 1] {
            let mut frame = finished(INWARD, 1, 64);
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            frame.resize(len, 0x5a);
            port.deliver(&frame);
            platform.settle();
            let expected: &[_] = if len == longest { &[frame] } else { &[] };
            assert!(received(&mut nic) == expected, "{mtu}, {len}");
        }
        assert_eq!(control.statistics().received_too_long, 1, "{mtu}");
        // Nor are they sent: with one tag, that is.
        let longest = usize::from(mtu) + 18;
        let region = region(&platform, &vec![0x5a; longest + 1]);
        let sent = nic.transmit(0, &region, longest + 1, Task::None);
        assert!(matches!(sent, Err(Error::Request(_))), "{mtu}: {sent:?}");
        nic.transmit(0, &region, longest, Task::None).unwrap();
        nic.kick().unwrap();
        wait_until(&platform, || !port.take_sent().is_empty());
    }
}

fn what_was_not_offered_is_refused(place: Place) {
    let Plugged { platform, .. } = plugged(&place.stepped(), Port::new(1));
    let (checksum, segmentation) = (false, false);
    let mut nic = driver(&platform, Options { checksum, segmentation, ..Options::new() });
    let region = region(&platform, &unfinished(AWAY, 1, 2000));
    let depth = nic.depth();
    for (tag, len, task) in [
        (0, 64, Task::Checksum { start: 34, offset: 6 }),
        (0, 2000, Task::Segment { size: 1460 }),
        (depth, 64, Task::None),
        (0, 13, Task::None),
        (0, 2001, Task::None),
    ] {
        let result = nic.transmit(tag, &region, len, task);
        assert!(matches!(result, Err(Error::Request(_))), "{len}, {task:?}: {result:?}");
    }
    nic.transmit(0, &region, 64, Task::None).unwrap();
    assert!(nic.transmit(0, &region, 64, Task::None).is_err(), "the tag is in use");
}

in_both_places! {
    tasks_reach_the_network_as_they_were_given,
    frames_of_every_length_are_sent_whole,
    what_is_known_of_a_frame_reaches_the_driver,
    frames_that_were_never_cut_arrive_as_one,
    frames_of_every_length_arrive_whole,
    frames_longer_than_the_mtu_are_kept_out,
    what_was_not_offered_is_refused,
}
