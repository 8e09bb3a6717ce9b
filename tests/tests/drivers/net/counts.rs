//! What frames cost: doorbells, register accesses and interrupts.

use std::sync::Arc;

use paraslot_backends::net::{NetBackend, Sink, Wire, WireOptions};
use paraslot_drivers::virtio_net::{Layout, Options};
use paraslot_drivers::{Nic, Platform, Task};
use paraslot_spec::virtio::feature;
use paraslot_tests::port::Port;
use paraslot_vmm::in_process::{AccessKind, InProcess, Machine};

use super::{INWARD, SLOT, driver, finished, plugged, received, region, wait_until};
use crate::place::{Place, in_both_places};

/// Register accesses since the trace was started, by kind, and the queue that a doorbell is for.
fn trace(platform: &InProcess) -> Vec<(AccessKind, u64)> {
    platform.take_trace().into_iter().map(|access| (access.kind, access.value)).collect()
}

fn a_batch_to_be_sent_costs_one_doorbell_and_nothing_else(place: Place) {
    for doorbell_events in [false, true] {
        for layout in [Layout::Headroom, Layout::Chain, Layout::Indirect] {
            let machine = Machine { doorbell_events, ..place.stepped() };
            let (platform, _) = plugged(&machine, Sink::new(1).unwrap());
            let mut nic = driver(&platform, Options { layout, ..Options::new() });
            nic.set_interrupts(true).unwrap();
            let region = region(&platform, &nic, &[0x55; 64]);
            let kind = if doorbell_events { AccessKind::Doorbell } else { AccessKind::Write };
            platform.settle();
            for _ in 0..20 {
                platform.start_trace();
                for tag in 0..32 {
                    nic.transmit(tag, &region, 64, Task::None).unwrap();
                }
                nic.kick().unwrap();
                let mut done = 0;
                wait_until(&platform, || {
                    nic.reclaim(|_| done += 1).unwrap();
                    done == 32
                });
                assert_eq!(trace(&platform), [(kind, 1)]);
            }
            // They are reclaimed without interrupts.
            assert_eq!(platform.interrupts_taken(0), 0);
        }
    }
}

// Doorbells that the device does not want are not rung: while it works, it looks anyway.
fn a_device_at_work_is_not_notified(place: Place) {
    let (platform, _) = plugged(&place.stepped(), Sink::new(1).unwrap());
    let mut nic = driver(&platform, Options::new());
    let region = region(&platform, &nic, &[0x55; 64]);
    platform.settle();
    let before = nic.accesses().doorbells;
    for tag in 0..32 {
        nic.transmit(tag, &region, 64, Task::None).unwrap();
        // The workers do not run in between, so the device still has to look for the first.
        nic.kick().unwrap();
    }
    assert_eq!(nic.accesses().doorbells - before, 1);
}

fn a_batch_that_arrives_costs_one_interrupt_and_no_access(place: Place) {
    for event_idx in [true, false] {
        let port = Port::new(1);
        let (platform, _) = plugged(&place.stepped(), port.clone());
        let dropped = if event_idx { 0 } else { feature::EVENT_IDX };
        let accept = Options::USUAL_FEATURES & !dropped;
        let mut nic = driver(&platform, Options { accept, ..Options::new() });
        nic.set_refill(64);
        nic.set_interrupts(true).unwrap();
        platform.settle();
        let frame = finished(INWARD, 7, 100);
        for batch in 1..=7 {
            platform.start_trace();
            (0..32).for_each(|_| port.deliver(&frame));
            platform.wait_for_interrupt(0, batch - 1);
            assert_eq!((platform.interrupts_taken(0), nic.begin()), (batch, Ok(true)));
            assert_eq!(received(&mut nic, 0).unwrap().len(), 32);
            assert_eq!(nic.end(), Ok(false));
            // The device has more buffers than it needs, and is not told of those that come back.
            assert_eq!(trace(&platform), [], "{batch}");
        }
        assert_eq!(platform.messages_sent(SLOT, 0), 7);
        assert_eq!(platform.stray_interrupts(), 0);
    }
}

fn a_device_without_buffers_is_told_of_new_ones_once(place: Place) {
    let port = Port::new(1);
    let (platform, _) = plugged(&place.stepped(), port.clone());
    let mut nic = driver(&platform, Options::new());
    let frame = finished(INWARD, 7, 100);
    (0..1000).for_each(|_| port.deliver(&frame));
    platform.settle();
    let mut count = 0;
    for _ in 0..3 {
        platform.start_trace();
        count += received(&mut nic, 0).unwrap().len();
        assert_eq!(trace(&platform), [(AccessKind::Write, 0)]);
        platform.settle();
    }
    assert_eq!(count, 3 * 256);
}

/// Interrupts while frames are sent that cause some.
fn frames_that_were_sent_interrupt_when_three_quarters_are_done(place: Place) {
    let (platform, _) = plugged(&place.stepped(), Sink::new(1).unwrap());
    let mut nic = driver(&platform, Options::new());
    nic.set_interrupts(true).unwrap();
    nic.set_transmit_interrupts(true);
    let region = region(&platform, &nic, &[0x55; 64]);
    for round in 1..=5 {
        for tag in 0..128 {
            nic.transmit(tag, &region, 64, Task::None).unwrap();
        }
        nic.kick().unwrap();
        assert_eq!(nic.end(), Ok(false));
        platform.wait_for_interrupt(0, round - 1);
        assert_eq!((platform.interrupts_taken(0), nic.begin()), (round, Ok(true)));
        platform.settle();
        let mut done = 0;
        nic.reclaim(|_| done += 1).unwrap();
        assert_eq!(done, 128);
    }
    assert_eq!((platform.messages_sent(SLOT, 0), platform.messages_sent(SLOT, 1)), (0, 5));
}

fn queues_interrupt_by_vectors_of_their_own(place: Place) {
    let options = WireOptions { queues: 3, ..WireOptions::default() };
    let backend: Arc<dyn NetBackend> = Arc::new(Wire::loopback(options).unwrap());
    let (platform, _) = plugged(&place.stepped(), backend);
    let mut nic = driver(&platform, Options { pairs: 3, ..Options::new() });
    nic.set_interrupts(true).unwrap();
    let flow = paraslot_protocol::traffic::Flow { source: super::MAC, destination: super::MAC };
    let region = region(&platform, &nic, &finished(flow, 1, 64));
    for tag in 0..3 {
        nic.transmit(tag, &region, 64, Task::None).unwrap();
    }
    nic.kick().unwrap();
    platform.settle();
    for queue in 0..6 {
        let expected = u64::from(queue % 2 == 0);
        assert_eq!(platform.messages_sent(SLOT, queue), expected, "queue {queue}");
    }
    for pair in 0..3 {
        assert_eq!(received(&mut nic, pair).unwrap().len(), 1);
    }
}

in_both_places! {
    a_batch_to_be_sent_costs_one_doorbell_and_nothing_else,
    a_device_at_work_is_not_notified,
    a_batch_that_arrives_costs_one_interrupt_and_no_access,
    a_device_without_buffers_is_told_of_new_ones_once,
    frames_that_were_sent_interrupt_when_three_quarters_are_done,
    queues_interrupt_by_vectors_of_their_own,
}
