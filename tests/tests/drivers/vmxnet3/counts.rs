//! What frames cost: exact register accesses and interrupts.

use paraslot_drivers::vmxnet3::{Coalescing, Moderation, Options, Signalling, Vectors};
use paraslot_drivers::{Nic, Platform, Task};
use paraslot_spec::vmxnet3::registers::{ECR, ICR, IMR, RXPROD, STRIDE, TXPROD};
use paraslot_spec::vmxnet3::{PT_BAR, VD_BAR};
use paraslot_tests::port::Port;
use paraslot_vmm::in_process::{AccessKind, InProcess, Machine, Run};

use super::{Driver, Plugged, SLOT, driver, plugged, received, region};
use crate::net::{INWARD, finished, wait_until};
use crate::place::{Place, in_both_places};

/// A register access: its kind, and which register.
type Made = (AccessKind, u8, u64);

/// Accesses since the trace was started.
fn trace(platform: &InProcess) -> Vec<Made> {
    let accesses = platform.take_trace().into_iter();
    accesses.map(|access| (access.kind, access.bar, access.offset)).collect()
}

const fn read(register: u64) -> Made {
    (AccessKind::Read, VD_BAR, register)
}

const fn unmask(interrupt: u64) -> Made {
    (AccessKind::Write, PT_BAR, IMR + STRIDE * interrupt)
}

/// Without moderation, so that each interrupt comes when its cause does.
const AT_ONCE: Options = Options { moderation: Moderation::None, ..Options::new() };

/// The ways of signalling, and what an interrupt costs by them: to learn that it is the adapter's, and
/// to let the next one through. What there is to be done is in memory.
const SIGNALLINGS: [(Options, &[Made], &[Made]); 5] = [
    (AT_ONCE, &[], &[unmask(0)]),
    (Options { vectors: Vectors::Shared, ..AT_ONCE }, &[], &[unmask(0)]),
    (Options { vectors: Vectors::Each, ..AT_ONCE }, &[], &[unmask(0)]),
    (Options { signalling: Signalling::Msi, ..AT_ONCE }, &[], &[unmask(0)]),
    (Options { signalling: Signalling::Pin, ..AT_ONCE }, &[read(ICR)], &[unmask(0)]),
];

/// Hands over so many frames.
fn transmit(nic: &mut Driver<'_>, region: &paraslot_drivers::DmaRegion, count: u16) {
    (0..count).for_each(|tag| nic.transmit(tag, region, region.len(), Task::None).unwrap());
    nic.kick().unwrap();
}

fn reclaim(platform: &InProcess, nic: &mut Driver<'_>, count: u16) {
    let mut done = 0;
    wait_until(platform, || {
        nic.reclaim(|_| done += 1).unwrap();
        done == count
    });
}

fn a_batch_to_be_sent_costs_one_doorbell_and_nothing_else(place: Place) {
    for doorbell_events in [false, true] {
        let kind = if doorbell_events { AccessKind::Doorbell } else { AccessKind::Write };
        for (options, ..) in SIGNALLINGS {
            // With one interrupt for everything, what was sent interrupts whenever any may.
            for interrupts in [false, options.vectors == Vectors::Directions] {
                let machine = Machine { doorbell_events, ..place.stepped() };
                let Plugged { platform, .. } = plugged(&machine, Port::forgetful(1));
                let mut nic = driver(&platform, options);
                let interrupts = interrupts && nic.signalling() == Signalling::MsiX;
                nic.set_interrupts(interrupts).unwrap();
                let region = region(&platform, &[0x55; 64]);
                platform.settle();
                for count in [1, 32, 200, 1, 2] {
                    let before = nic.accesses();
                    platform.start_trace();
                    transmit(&mut nic, &region, count);
                    reclaim(&platform, &mut nic, count);
                    assert_eq!(trace(&platform), [(kind, PT_BAR, TXPROD)], "{options:?}");
                    let made = nic.accesses().since(before);
                    assert_eq!((made.reads, made.writes, made.doorbells), (0, 1, 1));
                }
                assert_eq!((platform.interrupts_taken(0), platform.stray_interrupts()), (0, 0));
            }
        }
    }
}

// Doorbells that the adapter does not want are not rung: while it works, it looks anyway.
fn an_adapter_at_work_is_not_notified(place: Place) {
    let machine = Machine { run: Run::Stepped(Some(1)), ..place.stepped() };
    let Plugged { platform, .. } = plugged(&machine, Port::forgetful(1));
    let mut nic = driver(&platform, Options::new());
    let region = region(&platform, &[0x55; 64]);
    platform.settle();
    for _ in 0..3 {
        let before = nic.accesses().doorbells;
        let mut next = 0;
        let mut push = |nic: &mut Driver<'_>, count: u16| {
            for _ in 0..count {
                nic.transmit(next, &region, 64, Task::None).unwrap();
                next += 1;
            }
            nic.kick().unwrap();
        };
        push(&mut nic, 100);
        // It takes 64 in one round.
        platform.relax();
        (0..10).for_each(|_| push(&mut nic, 20));
        assert_eq!(nic.accesses().doorbells - before, 1);
        reclaim(&platform, &mut nic, 300);
        assert_eq!(nic.accesses().doorbells - before, 1);
        platform.settle();
    }
}

fn an_interrupt_costs_one_write_and_one_read_by_the_pin(place: Place) {
    for (options, begin, end) in SIGNALLINGS {
        for read_windows in [false, true] {
            let port = Port::new(1);
            let machine = Machine { read_windows, ..place.stepped() };
            let Plugged { platform, .. } = plugged(&machine, port.clone());
            let mut nic = driver(&platform, options);
            nic.set_interrupts(true).unwrap();
            platform.settle();
            for (round, count) in [1, 32, 64, 1, 1, 20].into_iter().enumerate() {
                let seen = platform.interrupts_taken(0);
                platform.start_trace();
                (0..count).for_each(|_| port.deliver(&finished(INWARD, 7, 100)));
                platform.wait_for_interrupt(0, seen);
                assert_eq!(platform.interrupts_taken(0), seen + 1);
                assert_eq!(nic.begin(), Ok(true));
                assert_eq!(received(&mut nic).len(), count);
                assert_eq!(nic.end(), Ok(false));
                assert_eq!(trace(&platform), [begin, end].concat(), "{options:?}, {round}");
                // Nothing is left, so nothing interrupts.
                platform.settle();
                assert_eq!(platform.interrupts_taken(0), seen + 1);
            }
            assert_eq!(platform.stray_interrupts(), 0);
        }
    }
}

/// Each of the receive queues' interrupts is let through, as which of them it was is not known.
fn an_interrupt_costs_a_write_for_each_vector(place: Place) {
    let port = Port::new(1);
    let Plugged { platform, .. } = plugged(&place.stepped(), port.clone());
    let mut nic =
        driver(&platform, Options { receive_queues: 3, vectors: Vectors::Each, ..AT_ONCE });
    nic.set_interrupts(true).unwrap();
    platform.settle();
    let seen = platform.interrupts_taken(0);
    platform.start_trace();
    port.deliver(&finished(INWARD, 7, 100));
    platform.wait_for_interrupt(0, seen);
    assert_eq!(nic.begin(), Ok(true));
    assert_eq!(nic.receive(64, |_| ()), Ok(1));
    nic.end().unwrap();
    assert_eq!(trace(&platform), [0, 1, 2].map(unmask));
}

/// What comes while an interrupt is handled, and is not seen to, interrupts when it may.
fn what_comes_meanwhile_is_remembered(place: Place) {
    for (options, ..) in SIGNALLINGS {
        let port = Port::new(1);
        let Plugged { platform, .. } = plugged(&place.stepped(), port.clone());
        let mut nic = driver(&platform, options);
        nic.set_interrupts(true).unwrap();
        platform.settle();
        let frame = finished(INWARD, 7, 100);
        for round in 0..5 {
            port.deliver(&frame);
            platform.wait_for_interrupt(0, 2 * round);
            assert_eq!((platform.interrupts_taken(0), nic.begin()), (2 * round + 1, Ok(true)));
            assert_eq!(received(&mut nic).len(), 1);
            port.deliver(&frame);
            platform.settle();
            assert_eq!(platform.interrupts_taken(0), 2 * round + 1, "{options:?}");
            nic.end().unwrap();
            assert_eq!(platform.interrupts_taken(0), 2 * round + 2, "{options:?}");
            assert_eq!(nic.begin(), Ok(true));
            assert_eq!(received(&mut nic).len(), 1);
            nic.end().unwrap();
        }
    }
}

// Buffers are asked for only when there are none; then there is a doorbell for each group of them.
fn an_adapter_without_buffers_is_told_of_new_ones(place: Place) {
    for doorbell_events in [false, true] {
        let kind = if doorbell_events { AccessKind::Doorbell } else { AccessKind::Write };
        for refill in [16, 64, 256] {
            let port = Port::new(1);
            let machine = Machine { doorbell_events, ..place.stepped() };
            let Plugged { platform, .. } = plugged(&machine, port.clone());
            let mut nic = driver(&platform, Options::new());
            nic.set_refill(refill);
            let frame = finished(INWARD, 7, 100);
            (0..1023).for_each(|_| port.deliver(&frame));
            platform.settle();
            // All buffers that it has.
            platform.start_trace();
            assert_eq!(received(&mut nic).len(), 1023);
            let groups = 1023 / usize::from(refill);
            assert_eq!(trace(&platform), vec![(kind, PT_BAR, RXPROD); groups]);
            platform.settle();
            platform.start_trace();
            (0..700).for_each(|_| port.deliver(&frame));
            platform.settle();
            assert_eq!(received(&mut nic).len(), 700);
            assert_eq!(trace(&platform), [], "it has some left");
        }
    }
}

/// Frames that are sent interrupt if that is asked for, by a vector of their own.
fn frames_that_were_sent_interrupt_if_they_are_to(place: Place) {
    for vectors in [Vectors::Directions, Vectors::Each] {
        let Plugged { platform, .. } = plugged(&place.stepped(), Port::forgetful(1));
        let mut nic = driver(&platform, Options { vectors, ..AT_ONCE });
        nic.set_interrupts(true).unwrap();
        let region = region(&platform, &[0x55; 64]);
        transmit(&mut nic, &region, 50);
        reclaim(&platform, &mut nic, 50);
        assert_eq!(platform.interrupts_taken(0), 0);
        // What was remembered meanwhile comes now.
        nic.set_transmit_interrupts(true);
        assert_eq!(platform.interrupts_taken(0), 1);
        assert_eq!(nic.begin(), Ok(true));
        nic.end().unwrap();
        for round in 1..=5 {
            platform.start_trace();
            transmit(&mut nic, &region, 50);
            platform.wait_for_interrupt(0, round);
            assert_eq!((platform.interrupts_taken(0), nic.begin()), (round + 1, Ok(true)));
            reclaim(&platform, &mut nic, 50);
            nic.end().unwrap();
            let doorbell = (AccessKind::Write, PT_BAR, TXPROD);
            assert_eq!(trace(&platform), [doorbell, unmask(0), unmask(1)]);
        }
        nic.set_transmit_interrupts(false);
        transmit(&mut nic, &region, 50);
        reclaim(&platform, &mut nic, 50);
        assert_eq!(platform.interrupts_taken(0), 6);
        let messages = [0, 1].map(|vector| platform.messages_sent(SLOT, vector));
        assert_eq!(messages, [0, 6]);
    }
}

/// What happens otherwise costs one write more.
fn an_event_costs_its_acknowledgement(place: Place) {
    for (options, begin, end) in SIGNALLINGS {
        let Plugged { platform, control, .. } = plugged(&place.stepped(), Port::new(1));
        let mut nic = driver(&platform, options);
        nic.set_interrupts(true).unwrap();
        platform.settle();
        for (round, up) in [false, true, false].into_iter().enumerate() {
            let seen = platform.interrupts_taken(0);
            platform.start_trace();
            control.set_link(up);
            platform.wait_for_interrupt(0, seen);
            assert_eq!(nic.begin(), Ok(true));
            nic.end().unwrap();
            let acknowledge = &[(AccessKind::Write, VD_BAR, ECR)][..];
            let expected = [begin, acknowledge, end].concat();
            assert_eq!(trace(&platform), expected, "{options:?}, {round}");
        }
    }
}

/// When the interrupts for so many frames come, one frame every 10 µs that an interrupt and its
/// handling take no time of, in counted time.
fn interrupted_at(place: Place, options: Options, frames: u64) -> Vec<u64> {
    let port = Port::new(1);
    let Plugged { platform, .. } = plugged(&place.stepped(), port.clone());
    let mut nic = driver(&platform, options);
    nic.set_interrupts(true).unwrap();
    platform.settle();
    let (start, mut count) = (platform.tsc(), 0);
    let mut times = vec![];
    for number in 0..frames {
        port.deliver(&finished(INWARD, number, 100));
        // Whatever has to wait has not got another chance than the clock's.
        while platform.tsc() - start < 10_000 * (number + 1) {
            platform.settle();
            let taken = platform.interrupts_taken(0);
            if taken != times.len() as u64 {
                times.push(platform.tsc() - start);
                nic.begin().unwrap();
                count += received(&mut nic).len();
                nic.end().unwrap();
            }
        }
    }
    assert!(count <= usize::try_from(frames).unwrap());
    times
}

fn interrupts_keep_the_distance_that_was_asked_for(place: Place) {
    const FRAMES: u64 = 200;
    let distances =
        |times: &[u64]| -> Vec<u64> { times.windows(2).map(|pair| pair[1] - pair[0]).collect() };
    let none = interrupted_at(place, AT_ONCE, FRAMES);
    assert_eq!(none.len(), 200);
    for level in 1..=7_u8 {
        let moderation = Moderation::Level(level);
        let times = interrupted_at(place, Options { moderation, ..AT_ONCE }, FRAMES);
        let apart = 16_000 << (level - 1);
        // By a look of the clock too early: the interrupt was seen later than it was sent.
        let least = apart - 500;
        assert!(times.len() > 1, "{level}");
        assert!(distances(&times).iter().all(|time| *time >= least), "{level}: {times:?}");
        // And not much more than that: to the next frame, if none was there.
        assert!(distances(&times).iter().all(|time| *time < apart + 11_000), "{level}: {times:?}");
    }
    // Single frames are left alone.
    let adaptive =
        interrupted_at(place, Options { moderation: Moderation::Adaptive, ..AT_ONCE }, FRAMES);
    assert_eq!(adaptive.len(), 200);
    let coalesced = |coalescing| {
        interrupted_at(place, Options { coalescing: Some(coalescing), ..AT_ONCE }, FRAMES)
    };
    assert_eq!(coalesced(Coalescing::Disabled).len(), 200);
    let depth = |received| Coalescing::Static { transmit: 0, transmitted: 0, received };
    assert_eq!(coalesced(depth(1)).len(), 200);
    assert_eq!(coalesced(depth(8)).len(), 25);
    // Fewer than that wait a millisecond: for a hundred of these.
    let times = coalesced(depth(128));
    assert!((1..=2).contains(&times.len()), "{times:?}");
    let times = coalesced(Coalescing::Rate(10_000));
    assert!(distances(&times).iter().all(|time| (99_500..111_000).contains(time)), "{times:?}");
}

in_both_places! {
    a_batch_to_be_sent_costs_one_doorbell_and_nothing_else,
    an_adapter_at_work_is_not_notified,
    an_interrupt_costs_one_write_and_one_read_by_the_pin,
    an_interrupt_costs_a_write_for_each_vector,
    what_comes_meanwhile_is_remembered,
    an_adapter_without_buffers_is_told_of_new_ones,
    frames_that_were_sent_interrupt_if_they_are_to,
    an_event_costs_its_acknowledgement,
    interrupts_keep_the_distance_that_was_asked_for,
}
