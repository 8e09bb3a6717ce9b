//! Device reset and queue reset, with requests in flight.

use std::sync::atomic::Ordering;

use paraslot_spec::virtio::feature::RING_RESET;
use paraslot_spec::virtio::pci::NO_VECTOR;
use paraslot_spec::virtio::{Status, feature};
use paraslot_virtio::testing::DriverRing;
use proptest::prelude::*;

use super::guest::{COPY, Guest, Space};
use crate::layout::DEVICE;
use crate::offsets;

/// Two requests taken and held back, and one that is available only.
fn in_flight(features: u64) -> (Guest, DriverRing<Space>) {
    let (mut guest, mut ring) = Guest::running(features);
    guest.control.gate.store(true, Ordering::SeqCst);
    ring.add(&COPY);
    ring.add(&COPY);
    guest.run();
    assert_eq!(guest.control.taken.load(Ordering::SeqCst), 2);
    ring.add(&COPY);
    guest.ears.silent();
    guest.control.resets.store(0, Ordering::SeqCst);
    (guest, ring)
}

fn open(guest: &mut Guest) {
    guest.control.gate.store(false, Ordering::SeqCst);
    guest.run();
}

// pci.common.7, basic.reset.1, basic.reset.2, CH 7e2e7a164 (buffers freed while the backend writes)
#[test]
fn a_reset_is_acknowledged_only_when_nothing_is_in_flight() {
    let (mut guest, ring) = in_flight(0);
    guest.set_status(0);
    for _ in 0..5 {
        guest.run();
        assert!(guest.status().contains(Status::DRIVER_OK));
        assert_eq!(guest.control.resets.load(Ordering::SeqCst), 0);
    }
    open(&mut guest);
    assert_eq!(guest.status(), Status::empty());
    let finished = guest.control.finished.load(Ordering::SeqCst);
    assert_eq!((finished, guest.control.workers.load(Ordering::SeqCst)), (2, 0));
    assert_eq!(guest.control.resets.load(Ordering::SeqCst), 1);
    // The request that was only available was not taken, and the reset was silent throughout.
    assert_eq!(guest.control.taken.load(Ordering::SeqCst), 2);
    assert!(guest.ears.silent());
    // Quiet from now on, whatever rings.
    let before = ring.read(0, 0x10_0000);
    guest.ring_doorbell(0);
    guest.run();
    guest.control.signals().config_changed();
    guest.control.signals().needs_reset();
    assert_eq!(before, ring.read(0, 0x10_0000));
    assert!(guest.executor.is_empty() && guest.ears.silent() && guest.isr() == 0);
}

#[test]
fn while_a_reset_is_under_way_nothing_else_is_done() {
    let (mut guest, _ring) = in_flight(RING_RESET);
    guest.select(0);
    guest.set_status(0);
    let before = guest.image();
    for offset in (0..64).step_by(2) {
        guest.set_common(offset, &[1, 0]);
        guest.set_common(offset, &[1, 0, 0, 0]);
    }
    guest.set_status(0x0f);
    guest.set_status(0);
    guest.write(DEVICE, &[1]);
    guest.ring_doorbell(0);
    guest.control.signals().needs_reset();
    guest.control.signals().config_changed();
    assert_eq!(guest.image(), before);
    assert!(guest.control.writes.lock().unwrap().is_empty());
    assert!(guest.ears.silent() && guest.isr() == 0);
    open(&mut guest);
    // Once, however often it was asked for.
    assert_eq!(guest.status(), Status::empty());
    assert_eq!(guest.control.resets.load(Ordering::SeqCst), 1);
}

// pci.common.8, pci.common.9, pci.msix.7, vq d951283
#[test]
fn a_reset_takes_everything_back_to_its_start() {
    let mut guest = Guest::new();
    let fresh = guest.image();
    let (mut guest, mut ring) = Guest::running(RING_RESET);
    for _ in 0..3 {
        ring.add(&COPY);
    }
    guest.run();
    guest.select(0);
    guest.set16(offsets::QUEUE_MSIX_VECTOR, 1);
    guest.set_status(0);
    guest.run();
    assert_eq!(guest.image(), fresh);
    assert_eq!(guest.isr(), 0);
    // The indices start from 0 again.
    let mut ring = guest.start(0);
    let head = ring.add(&COPY);
    guest.run();
    assert_eq!(ring.used(), Some((head, 8)));
}

#[test]
fn a_reset_of_an_idle_device_is_immediate() {
    let mut guest = Guest::new();
    guest.negotiate(feature::VERSION_1);
    guest.set_status(0);
    assert_eq!(guest.common(offsets::DEVICE_STATUS, 1), [0]);
}

// pci.common.11, pci.common.12, pci.common.13, basic.vqreset.1
#[test]
fn a_queue_reset_is_acknowledged_only_when_nothing_is_in_flight() {
    let (mut guest, ring) = in_flight(RING_RESET);
    guest.select(0);
    guest.set16(offsets::QUEUE_RESET, 1);
    for _ in 0..5 {
        guest.run();
        assert_eq!(guest.get16(offsets::QUEUE_RESET), 1);
        // Asking again changes nothing; writing 0 does not stop it.
        guest.set16(offsets::QUEUE_RESET, 1);
        guest.set16(offsets::QUEUE_RESET, 0);
    }
    open(&mut guest);
    let image = guest.image();
    assert_eq!((image.queue_reset.get(), image.queue_enable.get()), (0, 0));
    assert_eq!(guest.control.taken.load(Ordering::SeqCst), 2);
    // Completions of a queue that is being reset are not signalled, and afterwards there are none.
    assert!(guest.ears.silent() && guest.isr() == 0);
    let before = ring.read(0, 0x10_0000);
    guest.ring_doorbell(0);
    guest.run();
    assert_eq!(before, ring.read(0, 0x10_0000));
    // The device itself and its other queue go on.
    assert_eq!(guest.control.resets.load(Ordering::SeqCst), 0);
    assert_eq!(guest.executor.len(), 1);
    assert!(guest.status().contains(Status::DRIVER_OK));
}

// basic.vqreset.2, basic.vqreenable.1, pci.common.10
#[test]
fn a_queue_can_be_set_up_anew_after_its_reset() {
    let (mut guest, mut ring) = Guest::running(RING_RESET);
    for _ in 0..3 {
        ring.add(&COPY);
    }
    guest.run();
    guest.select(0);
    guest.set16(offsets::QUEUE_MSIX_VECTOR, 1);
    guest.set16(offsets::QUEUE_RESET, 1);
    guest.run();
    let image = guest.image();
    assert_eq!((image.queue_size.get(), image.queue_msix_vector.get()), (8, NO_VECTOR));
    assert_eq!(
        (image.queue_desc.get(), image.queue_driver.get(), image.queue_device.get()),
        (0, 0, 0)
    );
    // Elsewhere, smaller, and from the first index on.
    let mut ring = DriverRing::new(guest.space.clone(), 0x4_0000, 2);
    guest.set_up(0, &ring);
    let image = guest.image();
    assert_eq!((image.queue_enable.get(), image.queue_reset.get()), (1, 0));
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 3);
    for _ in 0..5 {
        let head = ring.add(&COPY);
        guest.run();
        assert_eq!(ring.used(), Some((head, 8)));
    }
    assert!(guest.ears.line());
    // It is locked again.
    guest.set16(offsets::QUEUE_SIZE, 1);
    guest.set16(offsets::QUEUE_ENABLE, 1);
    assert_eq!(guest.image().queue_size.get(), 2);
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 3);
}

#[test]
fn a_queue_reset_needs_the_feature_and_an_enabled_queue() {
    let (mut guest, _) = Guest::running(0);
    guest.select(0);
    guest.set16(offsets::QUEUE_RESET, 1);
    assert_eq!(guest.image().queue_enable.get(), 1);
    assert_eq!(guest.executor.len(), 2);

    let (mut guest, _) = Guest::running(RING_RESET);
    guest.select(7);
    guest.set16(offsets::QUEUE_RESET, 1);
    guest.select(0);
    guest.set16(offsets::QUEUE_RESET, 2);
    assert_eq!(guest.executor.len(), 2);
    guest.set16(offsets::QUEUE_RESET, 1);
    guest.run();
    let _ = guest.image();
    guest.set16(offsets::QUEUE_RESET, 1);
    assert_eq!(guest.image().queue_reset.get(), 0);
    assert_eq!(guest.executor.len(), 1);
}

// A queue that is reset before DRIVER_OK is at its start, and is started with the others.
#[test]
fn a_queue_can_be_reset_before_the_device_runs() {
    let mut guest = Guest::new();
    guest.negotiate(super::echo::NEEDED | feature::VERSION_1 | RING_RESET);
    let ring = guest.ring(0);
    guest.set_up(0, &ring);
    guest.set16(offsets::QUEUE_RESET, 1);
    assert_eq!(guest.image().queue_enable.get(), 0);
    guest.set_up(0, &ring);
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 0);
    guest.set_status(0xf);
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 1);
}

#[test]
fn a_device_reset_takes_a_queue_reset_along() {
    let (mut guest, _ring) = in_flight(RING_RESET);
    guest.select(0);
    guest.set16(offsets::QUEUE_RESET, 1);
    guest.set_status(0);
    guest.run();
    assert!(!guest.status().is_empty());
    open(&mut guest);
    assert!(guest.status().is_empty());
    guest.select(0);
    assert_eq!(guest.image().queue_reset.get(), 0);
    // And the queue starts as after any device reset.
    let mut ring = guest.start(0);
    ring.add(&COPY);
    guest.run();
    assert_eq!(ring.used(), Some((0, 8)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    // "Reset means quiet": wherever in the flow of requests it comes, once the driver has read the
    // acknowledgement, guest memory stays as it is and nothing is taken, finished or signalled.
    #[test]
    fn an_acknowledged_reset_is_quiet(
        steps in prop::collection::vec((0u8..4, any::<bool>()), 1..40),
        ring_only in any::<bool>(),
    ) {
        let (mut guest, mut ring) = Guest::running(RING_RESET);
        let mut free = 4;
        for (step, gate) in steps {
            guest.control.gate.store(gate, Ordering::SeqCst);
            match step {
                0 if free > 0 => {
                    free -= 1;
                    ring.add(&COPY);
                }
                1 => while ring.used().is_some() { free += 1 },
                _ => { let _ = guest.executor.step_all(); }
            }
        }
        guest.select(0);
        if ring_only {
            guest.set16(offsets::QUEUE_RESET, 1);
        } else {
            guest.set_status(0);
        }
        let resetting = |guest: &mut Guest| match ring_only {
            true => guest.image().queue_reset.get() != 0,
            false => !guest.status().is_empty(),
        };
        let mut rounds = 0;
        while resetting(&mut guest) {
            guest.control.gate.store(rounds % 3 != 0, Ordering::SeqCst);
            let _ = guest.executor.step_all();
            rounds += 1;
            prop_assert!(rounds < 1000);
        }
        guest.control.gate.store(false, Ordering::SeqCst);
        let counts = |guest: &Guest| (
            guest.control.taken.load(Ordering::SeqCst),
            guest.control.finished.load(Ordering::SeqCst),
        );
        let (memory, before) = (ring.read(0x1_0000, 0x1_0000), counts(&guest));
        let target = ring.read(0x9_0000, 8);
        guest.ears.silent();
        guest.ring_doorbell(0);
        guest.run();
        prop_assert_eq!(memory, ring.read(0x1_0000, 0x1_0000));
        prop_assert_eq!(target, ring.read(0x9_0000, 8));
        prop_assert_eq!(before, counts(&guest));
        prop_assert_eq!(before.0, before.1);
        prop_assert!(guest.ears.silent());
    }
}
