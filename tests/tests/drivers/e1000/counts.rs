//! What frames cost: exact register accesses and interrupts.

use paraslot_backends::net::{Wire, WireOptions};
use paraslot_drivers::e1000::Options;
use paraslot_drivers::{Known, Nic, Platform, Task};
use paraslot_spec::e1000::registers::{ICR, IMC, IMS, ITR, RDT, STATUS, TDT};
use paraslot_vmm::in_process::{AccessKind, InProcess, Machine};

use super::{Peer, driver, finished, plugged, region, unfinished};
use crate::place::{Place, in_both_places};

/// The accesses, as kind and register. Reads of a page that the device shares are reads.
fn trace(platform: &InProcess) -> Vec<(AccessKind, u32)> {
    let accesses = platform.take_trace().into_iter();
    accesses
        .map(|access| {
            let kind = match access.kind {
                AccessKind::WindowRead => AccessKind::Read,
                kind => kind,
            };
            (kind, u32::try_from(access.offset).unwrap())
        })
        .collect()
}

const READ: AccessKind = AccessKind::Read;
const WRITE: AccessKind = AccessKind::Write;

/// Machines with and without pages that are read in place.
fn both(place: Place) -> [Machine; 2] {
    [place.stepped(), Machine { read_windows: true, ..place.stepped() }]
}

fn a_batch_to_be_sent_costs_one_doorbell(place: Place) {
    for machine in both(place) {
        let (port, far) = Wire::new(WireOptions::default()).unwrap();
        let (platform, _) = plugged(&machine, port);
        let mut peer = Peer::new(&far);
        let mut nic = driver(&platform, Options::default());
        let frames: Vec<_> =
            (0..32u32).map(|number| unfinished(number.into(), 64 + number)).collect();
        let regions: Vec<_> = frames.iter().map(|frame| region(&platform, frame)).collect();
        for _ in 0..5 {
            platform.start_trace();
            for (tag, region) in (0..).zip(&regions) {
                let task = Task::Checksum { start: 34, offset: 6 };
                nic.transmit(tag, region, region.len(), task).unwrap();
            }
            nic.kick().unwrap();
            let mut done = vec![];
            while done.len() < 32 {
                platform.relax();
                nic.reclaim(|tag| done.push(tag)).unwrap();
            }
            assert_eq!(done, (0..32).collect::<Vec<_>>());
            assert_eq!(trace(&platform), [(WRITE, TDT)]);
            let expected: Vec<_> =
                (0..32u32).map(|number| finished(number.into(), 64 + number)).collect();
            assert!(peer.receive() == expected);
        }
        assert_eq!(platform.stray_interrupts(), 0);
    }
}

fn an_interrupt_costs_what_it_costs_linux(place: Place) {
    for machine in both(place) {
        let (port, far) = Wire::new(WireOptions::default()).unwrap();
        let (platform, _) = plugged(&machine, port);
        let mut peer = Peer::new(&far);
        let mut nic = driver(&platform, Options { interrupt: 9, ..Options::default() });
        nic.set_interrupts(true).unwrap();
        // The link coming up is a cause too.
        settle(&platform, &mut nic);
        for round in 0..40 {
            let frame = finished(round, 100);
            let seen = platform.interrupts_taken(9);
            platform.start_trace();
            peer.send(&frame);
            platform.wait_for_interrupt(9, seen);
            assert_eq!(platform.interrupts_taken(9), seen + 1);
            assert_eq!(nic.begin(), Ok(true));
            let mut frames = vec![];
            let count = nic.receive(64, |arrival| {
                let mut bytes = vec![0; arrival.len];
                arrival.pieces[0].copy_out(0, &mut bytes);
                frames.push((bytes, arrival.checksum));
            });
            assert_eq!((count, &frames), (Ok(1), &vec![(frame, Known::Right)]));
            assert_eq!(nic.end(), Ok(false));
            let begin = [(READ, ICR), (WRITE, IMC), (READ, STATUS)];
            let end = [(WRITE, IMS), (READ, STATUS)];
            // Every sixteenth buffer is the last of those that are given back.
            let refill: &[_] = if round % 16 == 15 { &[(WRITE, RDT)] } else { &[] };
            let expected = [&begin[..], refill, &end[..]].concat();
            assert_eq!(trace(&platform), expected, "{round}");
            // Nothing is left, so nothing interrupts.
            platform.settle();
            assert_eq!(platform.interrupts_taken(9), seen + 1);
        }
        assert_eq!(platform.stray_interrupts(), 0);
    }
}

/// Handles what there is until there is nothing.
fn settle(platform: &InProcess, nic: &mut impl Nic) {
    let index = nic.interrupt();
    let mut seen = platform.interrupts_taken(index);
    let _ = nic.end();
    loop {
        platform.wait_for_interrupt(index, seen);
        let taken = platform.interrupts_taken(index);
        if taken == seen {
            return;
        }
        seen = taken;
        if nic.begin().unwrap() {
            nic.receive(64, |_| ()).unwrap();
            nic.end().unwrap();
        }
    }
}

/// Many frames are handled with few interrupts, and the throttling follows them.
fn bulk_is_throttled(place: Place) {
    let (port, far) = Wire::new(WireOptions::default()).unwrap();
    let (platform, _) = plugged(&place.stepped(), port);
    let mut peer = Peer::new(&far);
    let mut nic = driver(&platform, Options::default());
    nic.set_interrupts(true).unwrap();
    settle(&platform, &mut nic);
    (0..60).for_each(|number| peer.send(&finished(number, 1514)));
    platform.start_trace();
    let seen = platform.interrupts_taken(0);
    platform.wait_for_interrupt(0, seen);
    assert_eq!(nic.begin(), Ok(true));
    assert_eq!(nic.receive(64, |_| ()), Ok(60));
    nic.end().unwrap();
    let trace = trace(&platform);
    assert_eq!(trace.iter().filter(|access| **access == (WRITE, ITR)).count(), 1);
    assert_eq!(trace.iter().filter(|access| **access == (WRITE, RDT)).count(), 3);
}

in_both_places! {
    a_batch_to_be_sent_costs_one_doorbell,
    an_interrupt_costs_what_it_costs_linux,
    bulk_is_throttled,
}
