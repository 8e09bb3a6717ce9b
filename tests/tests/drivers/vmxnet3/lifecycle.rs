//! Links that go and come, drivers that follow each other, machines that are paused and reset: with
//! frames in flight when that happens.

use paraslot_drivers::pci::functions;
use paraslot_drivers::vmxnet3::Options;
use paraslot_drivers::{Nic, Platform, Task};
use paraslot_spec::pci::{VENDOR_VMWARE, capability, express};
use paraslot_spec::vmxnet3::DEVICE_VMXNET3;
use paraslot_tests::port::{Fate, Port};
use paraslot_vmm::in_process::InProcess;

use super::{
    AWAY, Driver, Plugged, check_statistics, driver, plugged, received, region, send, ways,
};
use crate::net::{INWARD, finished, wait_until};
use crate::place::{Place, in_both_places};

/// Receives a frame and sends one.
fn works(platform: &InProcess, nic: &mut Driver<'_>, port: &Port, number: u64) {
    let frame = finished(INWARD, number, 200);
    port.deliver(&frame);
    let mut frames = vec![];
    wait_until(platform, || {
        frames.extend(received(nic));
        frames.contains(&frame)
    });
    port.take_sent();
    let frame = finished(AWAY, number, 300);
    send(platform, nic, 9, &frame, Task::None);
    let [sent] = &port.take_sent()[..] else { panic!("one frame") };
    assert!(sent.bytes == frame);
}

fn a_link_that_changes_interrupts(place: Place) {
    for (name, machine) in place.machines() {
        for (way, options) in ways() {
            let port = Port::new(1);
            let Plugged { platform, control, .. } = plugged(&machine, port.clone());
            let mut nic = driver(&platform, options);
            nic.set_interrupts(true).unwrap();
            for up in [false, true, false, true] {
                let mut seen = platform.interrupts_taken(0);
                control.set_link(up);
                wait_until(&platform, || {
                    platform.wait_for_interrupt(0, seen);
                    let taken = platform.interrupts_taken(0);
                    if taken == seen {
                        return false;
                    }
                    seen = taken;
                    // Events are acknowledged when an interrupt is handled.
                    let ours = nic.begin().unwrap();
                    assert!(ours && nic.link_up() == up, "{name}, {way}");
                    nic.end().unwrap();
                    true
                });
                // It was one interrupt, for it was acknowledged.
                platform.settle();
                assert_eq!(platform.interrupts_taken(0), seen, "{name}, {way}");
            }
            works(&platform, &mut nic, &port, 1);
        }
    }
}

/// While the link is down nothing arrives, and what is sent is lost; what waits in the network waits.
fn no_frame_goes_over_a_link_that_is_down(place: Place) {
    for (name, machine) in place.machines() {
        let port = Port::new(1);
        let Plugged { platform, control, .. } = plugged(&machine, port.clone());
        let mut nic = driver(&platform, Options::new());
        control.set_link(false);
        let before = finished(INWARD, 1, 100);
        port.deliver(&before);
        let frame = finished(AWAY, 2, 100);
        send(&platform, &mut nic, 0, &frame, Task::None);
        assert!(received(&mut nic).is_empty() && port.take_sent().is_empty(), "{name}");
        assert_eq!(port.waiting(), 1, "{name}");
        wait_until(&platform, || control.statistics().send_down == 1);
        control.set_link(true);
        let mut frames = vec![];
        wait_until(&platform, || {
            frames.extend(received(&mut nic));
            !frames.is_empty()
        });
        assert!(frames == [before], "{name}");
        works(&platform, &mut nic, &port, 3);
    }
}

/// Puts many frames on both rings.
fn load(platform: &InProcess, nic: &mut Driver<'_>, port: &Port, round: u64) {
    let region = region(platform, &finished(AWAY, round, 1514));
    for tag in 0..100 {
        nic.transmit(tag, &region, 1514, Task::None).unwrap();
    }
    nic.kick().unwrap();
    for number in 0..100 {
        port.deliver(&finished(INWARD, number, 300));
    }
}

/// A driver stops with frames on both rings, or does not: the adapter lets go of all of them, and the
/// next driver starts with nothing.
fn drivers_follow_each_other_with_frames_in_flight(place: Place) {
    for (name, machine) in place.machines() {
        for (way, options) in ways() {
            let port = Port::new(1);
            let Plugged { platform, .. } = plugged(&machine, port.clone());
            for round in 0..4 {
                let mut nic = driver(&platform, options);
                nic.set_interrupts(true).unwrap();
                load(&platform, &mut nic, &port, round);
                if round % 2 == 0 {
                    platform.relax();
                }
                if round == 3 {
                    // It is gone as it is.
                    continue;
                }
                nic.shutdown().unwrap();
                // Nothing is sent or written any more, and nothing interrupts.
                let (sent, taken) = (port.take_sent().len(), platform.interrupts_taken(0));
                assert!(sent <= 100);
                let waiting = port.waiting();
                let mut late = 0;
                nic.reclaim(|_| late += 1).unwrap();
                port.deliver(&finished(INWARD, 1, 300));
                platform.settle();
                assert_eq!(late, 0, "{name}, {way}");
                assert_eq!(platform.interrupts_taken(0), taken, "{name}, {way}");
                assert_eq!((port.take_sent().len(), port.waiting()), (0, waiting + 1));
            }
            // The one before has sent all that it had, or was stopped amid it.
            let mut nic = driver(&platform, options);
            works(&platform, &mut nic, &port, 7);
            nic.shutdown().unwrap();
        }
    }
}

/// A pause keeps frames where they are, and none is lost or goes twice.
fn a_pause_is_not_noticed(place: Place) {
    for (name, machine) in place.machines() {
        for interrupts in [false, true] {
            let port = Port::new(1);
            let Plugged { platform, control, function } = plugged(&machine, port.clone());
            let mut nic = driver(&platform, Options::new());
            if interrupts {
                nic.set_interrupts(true).unwrap();
            }
            let (mut tags, mut numbers, mut sent) = (vec![], vec![], 0);
            for round in 0..6 {
                load(&platform, &mut nic, &port, round);
                if round % 2 == 1 {
                    platform.relax();
                }
                function.lock().unwrap().pause().unwrap();
                let still = (port.take_sent(), port.waiting());
                sent += still.0.len();
                // As long as it lasts nothing happens, whatever the driver does.
                nic.kick().unwrap();
                port.deliver(&finished(INWARD, 100, 300));
                platform.settle();
                assert_eq!((port.take_sent().len(), port.waiting()), (0, still.1 + 1), "{name}");
                function.lock().unwrap().resume().unwrap();
                let rounds = usize::try_from(round).unwrap() + 1;
                wait_until(&platform, || {
                    nic.reclaim(|tag| tags.push(tag)).unwrap();
                    numbers.extend(received(&mut nic).iter().map(|frame| frame[42]));
                    nic.begin().unwrap();
                    nic.end().unwrap();
                    (tags.len(), numbers.len()) == (100 * rounds, 101 * rounds)
                });
                sent += port.take_sent().len();
            }
            assert_eq!(sent, 600, "{name}");
            assert!(tags.into_iter().eq((0..6).flat_map(|_| 0..100)), "{name}");
            assert!(numbers.into_iter().eq((0..6).flat_map(|_| 0..=100)), "{name}");
            check_statistics(&control.statistics());
        }
    }
}

/// An adapter that is paused can be reset, by its driver or by the machine.
fn a_reset_during_a_pause_holds(place: Place) {
    for (name, machine) in place.machines() {
        for whole in [false, true] {
            let port = Port::new(1);
            let Plugged { platform, function, .. } = plugged(&machine, port.clone());
            let mut nic = driver(&platform, Options::new());
            load(&platform, &mut nic, &port, 1);
            function.lock().unwrap().pause().unwrap();
            let sent = port.take_sent().len();
            if whole {
                platform.reset();
            } else {
                nic.shutdown().unwrap();
            }
            let waiting = port.waiting();
            function.lock().unwrap().resume().unwrap();
            platform.settle();
            let after = (port.take_sent().len(), port.waiting());
            assert!(sent <= 100 && after == (0, waiting), "{name}");
            let mut nic = driver(&platform, Options::new());
            works(&platform, &mut nic, &port, 2);
        }
    }
}

/// Asks the adapter's function to reset itself.
fn reset_function(platform: &InProcess) {
    let is_ours = |vendor, device| (vendor, device) == (VENDOR_VMWARE, DEVICE_VMXNET3);
    let function =
        functions(platform).find(|function| is_ours(function.vendor(), function.device())).unwrap();
    let at = function.capability(capability::PCI_EXPRESS).unwrap();
    let control = at + express::DEVICE_CONTROL;
    function.write32(control, u32::from(express::INITIATE_FLR));
}

fn resets_of_the_machine_and_of_the_function_are_survived(place: Place) {
    for (name, machine) in place.machines() {
        for reset in [InProcess::reset, reset_function] {
            let port = Port::new(1);
            let Plugged { platform, .. } = plugged(&machine, port.clone());
            let mut nic = driver(&platform, Options::new());
            nic.set_interrupts(true).unwrap();
            load(&platform, &mut nic, &port, 0);
            reset(&platform);
            let sent = port.take_sent().len();
            let (waiting, taken) = (port.waiting(), platform.interrupts_taken(0));
            // The registers are nowhere; nothing comes of that.
            nic.kick().unwrap();
            assert!(!nic.link_up(), "{name}");
            platform.settle();
            assert!(sent <= 100 && port.take_sent().is_empty(), "{name}");
            assert_eq!((port.waiting(), platform.interrupts_taken(0)), (waiting, taken), "{name}");
            let mut nic = driver(&platform, Options::new());
            works(&platform, &mut nic, &port, 1);
        }
    }
}

/// Frames that a busy network does not take stay on the ring; a driver that stops takes them back.
fn a_network_that_takes_nothing_is_waited_for(place: Place) {
    for (name, machine) in place.machines() {
        let port = Port::new(1);
        let Plugged { platform, .. } = plugged(&machine, port.clone());
        let mut nic = driver(&platform, Options::new());
        let mut tags = vec![];
        for round in 0..3 {
            port.set_fate(Fate::Busy);
            load(&platform, &mut nic, &port, round);
            platform.settle();
            tags.clear();
            nic.reclaim(|tag| tags.push(tag)).unwrap();
            assert!(tags.is_empty() && port.take_sent().is_empty(), "{name}");
            port.set_fate(Fate::Through);
            let mut frames = 0;
            wait_until(&platform, || {
                nic.reclaim(|tag| tags.push(tag)).unwrap();
                frames += received(&mut nic).len();
                (tags.len(), frames) == (100, 100)
            });
            assert!(tags.iter().copied().eq(0..100) && port.take_sent().len() == 100, "{name}");
        }
        port.set_fate(Fate::Busy);
        load(&platform, &mut nic, &port, 3);
        platform.settle();
        nic.shutdown().unwrap();
        port.set_fate(Fate::Through);
        platform.settle();
        assert!(port.take_sent().is_empty(), "{name}");
        let mut nic = driver(&platform, Options::new());
        works(&platform, &mut nic, &port, 5);
    }
}

/// The network's queues are given back with the adapter.
fn an_adapter_that_goes_lets_go_of_the_network(place: Place) {
    for (name, machine) in place.machines() {
        let port = Port::new(3);
        let Plugged { platform, function, .. } = plugged(&machine, port.clone());
        assert_eq!(port.open_halves(), 6, "{name}");
        let mut nic = driver(&platform, Options { receive_queues: 3, ..Options::new() });
        load(&platform, &mut nic, &port, 0);
        drop(platform);
        drop(function);
        assert_eq!(port.open_halves(), 0, "{name}");
    }
}

in_both_places! {
    a_link_that_changes_interrupts,
    no_frame_goes_over_a_link_that_is_down,
    drivers_follow_each_other_with_frames_in_flight,
    a_pause_is_not_noticed,
    a_reset_during_a_pause_holds,
    resets_of_the_machine_and_of_the_function_are_survived,
    a_network_that_takes_nothing_is_waited_for,
    an_adapter_that_goes_lets_go_of_the_network,
}
