//! Links that go and come, drivers that follow each other, frames in flight when that happens.

use paraslot_backends::net::{Wire, WireOptions};
use paraslot_drivers::e1000::Options;
use paraslot_drivers::{Nic, Platform, Task};

use super::{Peer, driver, finished, plugged, region, wait_until};
use crate::place::{Place, in_both_places};

fn a_link_that_changes_interrupts(place: Place) {
    for (name, machine) in place.machines() {
        let (port, far) = Wire::new(WireOptions::default()).unwrap();
        let (platform, control) = plugged(&machine, port);
        let mut peer = Peer::new(&far);
        let mut nic = driver(&platform, Options::default());
        nic.set_interrupts(true).unwrap();
        for up in [false, true, false, true] {
            // What there may be of the change before, or of frames.
            let seen = platform.interrupts_taken(0);
            let _ = nic.end();
            control.set_link(up);
            platform.wait_for_interrupt(0, seen);
            let start = platform.tsc();
            while nic.link_up() != up {
                assert!(platform.tsc() - start < super::PATIENCE, "{name}");
                let seen = platform.interrupts_taken(0);
                if nic.begin().unwrap() {
                    nic.end().unwrap();
                }
                platform.wait_for_interrupt(0, seen);
            }
            assert!(platform.interrupts_taken(0) > 0, "{name}");
            nic.begin().unwrap();
            nic.end().unwrap();
        }
        // And frames go both ways again.
        let frame = finished(1, 200);
        peer.send(&frame);
        let mut count = 0;
        wait_until(&platform, || {
            count += nic.receive(9, |_| ()).unwrap();
            count == 1
        });
        let region = region(&platform, &frame);
        nic.transmit(0, &region, 200, Task::None).unwrap();
        nic.kick().unwrap();
        let mut frames = vec![];
        wait_until(&platform, || {
            frames.extend(peer.receive());
            !frames.is_empty()
        });
        assert_eq!(frames, [frame], "{name}");
    }
}

/// A reset with frames on both rings: the device lets go of all of them, and the next driver starts
/// with nothing.
fn drivers_follow_each_other_with_frames_in_flight(place: Place) {
    for (name, machine) in place.machines() {
        let (port, far) = Wire::new(WireOptions::default()).unwrap();
        let (platform, _) = plugged(&machine, port);
        let mut peer = Peer::new(&far);
        for round in 0..5 {
            let mut nic = driver(&platform, Options::default());
            nic.set_interrupts(true).unwrap();
            let region = region(&platform, &finished(round, 1514));
            (0..100).for_each(|tag| nic.transmit(tag, &region, 1514, Task::None).unwrap());
            nic.kick().unwrap();
            (0..100).for_each(|number| peer.send(&finished(number, 300)));
            if round % 2 == 0 {
                platform.relax();
            }
            nic.shutdown().unwrap();
            // Nothing is written any more.
            let before = platform.interrupts_taken(0);
            let mut late = 0;
            nic.reclaim(|_| late += 1).unwrap();
            platform.settle();
            assert_eq!((late, platform.interrupts_taken(0)), (0, before), "{name}");
            peer.receive();
        }
        let mut nic = driver(&platform, Options::default());
        // Frames that waited at the wire may come first.
        let mut last = finished(99, 301);
        peer.send(&last);
        let mut found = false;
        wait_until(&platform, || {
            nic.receive(64, |arrival| {
                let mut bytes = vec![0; arrival.len];
                arrival.pieces[0].copy_out(0, &mut bytes);
                found |= bytes == last;
            })
            .unwrap();
            found
        });
        last.truncate(100);
        let region = region(&platform, &last);
        nic.transmit(7, &region, 100, Task::None).unwrap();
        nic.kick().unwrap();
        let mut frames = vec![];
        wait_until(&platform, || {
            frames.extend(peer.receive());
            frames.last().is_some_and(|frame| *frame == last)
        });
        let mut tags = vec![];
        wait_until(&platform, || {
            nic.reclaim(|tag| tags.push(tag)).unwrap();
            !tags.is_empty()
        });
        assert_eq!(tags, [7]);
    }
}

fn a_machine_s_reset_is_survived(place: Place) {
    let (port, far) = Wire::new(WireOptions::default()).unwrap();
    let (platform, _) = plugged(&place.stepped(), port);
    let mut nic = driver(&platform, Options::default());
    let region = region(&platform, &finished(0, 64));
    nic.transmit(0, &region, 64, Task::None).unwrap();
    platform.reset();
    // The registers are nowhere; nothing comes of that.
    nic.kick().unwrap();
    assert!(!nic.link_up() && nic.begin().is_err());
    let mut nic = driver(&platform, Options::default());
    nic.transmit(0, &region, 64, Task::None).unwrap();
    nic.kick().unwrap();
    let mut peer = Peer::new(&far);
    let mut frames = vec![];
    wait_until(&platform, || {
        frames.extend(peer.receive());
        !frames.is_empty()
    });
    assert_eq!(frames.len(), 1);
}

in_both_places! {
    a_link_that_changes_interrupts,
    drivers_follow_each_other_with_frames_in_flight,
    a_machine_s_reset_is_survived,
}
