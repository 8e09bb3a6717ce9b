//! Status, features, configuration.

use std::sync::atomic::Ordering;

use paraslot_spec::virtio::{Status, feature};

use super::echo::{CONFIG, NEEDED, OPTIONAL};
use super::guest::{COPY, Guest};
use crate::layout::DEVICE;
use crate::offsets;

const READY: Status = Status::ACKNOWLEDGE.union(Status::DRIVER);

// basic.features.2, basic.features.5
#[test]
fn every_consistent_choice_is_accepted_and_again_after_a_reset() {
    let mut guest = Guest::new();
    let offered = guest.offered();
    let must = NEEDED | feature::VERSION_1;
    let bits: Vec<u64> =
        (0..64).map(|bit| 1 << bit).filter(|bit| offered & !must & bit != 0).collect();
    for _ in 0..2 {
        for choice in 0..1u32 << bits.len() {
            let chosen = bits.iter().enumerate().fold(must, |chosen, (index, bit)| {
                if choice & (1 << index) != 0 { chosen | bit } else { chosen }
            });
            guest.set_status(0);
            assert_eq!(guest.negotiate(chosen), READY | Status::FEATURES_OK);
            assert_eq!(guest.control.accepted.load(Ordering::SeqCst), chosen);
        }
    }
}

// basic.features.3, basic.reserved-bits.2
#[test]
fn an_inconsistent_choice_leaves_features_ok_clear() {
    let mut guest = Guest::new();
    for chosen in [
        NEEDED,
        feature::VERSION_1,
        0,
        NEEDED | feature::VERSION_1 | 2,
        NEEDED | feature::VERSION_1 | feature::RING_PACKED,
        u64::MAX,
    ] {
        guest.set_status(0);
        assert_eq!(guest.negotiate(chosen), READY);
        // A device that was not agreed with is not started either.
        let status = READY | Status::FEATURES_OK | Status::DRIVER_OK;
        guest.set_status(status.bits());
        assert_eq!(guest.status(), READY);
        // The driver may choose again.
        guest.write_features(NEEDED | feature::VERSION_1);
        guest.set_status((READY | Status::FEATURES_OK).bits());
        assert_eq!(guest.status(), READY | Status::FEATURES_OK);
    }
}

#[test]
fn the_order_of_initialisation_is_kept() {
    let mut guest = Guest::new();
    guest.write_features(NEEDED | feature::VERSION_1);
    for status in [Status::FEATURES_OK, Status::DRIVER_OK, Status::DRIVER | Status::FEATURES_OK] {
        guest.set_status(0);
        guest.write_features(NEEDED | feature::VERSION_1);
        guest.set_status(status.bits());
        assert_eq!(guest.status(), status & Status::DRIVER);
    }
    // All at once is fine, in the order of the bits' meaning.
    let all = READY | Status::FEATURES_OK | Status::DRIVER_OK;
    guest.set_status(all.bits());
    assert_eq!(guest.status(), all);
}

#[test]
fn status_bits_are_cleared_by_a_reset_alone() {
    let (mut guest, _) = Guest::running(0);
    let all = READY | Status::FEATURES_OK | Status::DRIVER_OK;
    guest.set_status(Status::ACKNOWLEDGE.bits());
    assert_eq!(guest.status(), all);
    // DEVICE_NEEDS_RESET and bits that mean nothing are not the driver's to set.
    guest.set_status((Status::DEVICE_NEEDS_RESET | Status::FAILED).bits() | 0x30);
    assert_eq!(guest.status(), all | Status::FAILED);
    guest.set_status(0);
    guest.run();
    assert_eq!(guest.status(), Status::empty());
}

// pci.common.4
#[test]
fn chosen_features_can_be_read_back() {
    let mut guest = Guest::new();
    guest.set32(offsets::DRIVER_FEATURE_SELECT, 1);
    guest.set32(offsets::DRIVER_FEATURE, 0x1234_5678);
    guest.set32(offsets::DRIVER_FEATURE_SELECT, 0);
    guest.set32(offsets::DRIVER_FEATURE, 0x9abc_def0);
    guest.set32(offsets::DRIVER_FEATURE_SELECT, 2);
    guest.set32(offsets::DRIVER_FEATURE, 0xffff_ffff);
    for (select, value) in [(0, 0x9abc_def0), (1, 0x1234_5678), (2, 0), (0xffff_ffff, 0)] {
        guest.set32(offsets::DRIVER_FEATURE_SELECT, select);
        assert_eq!(guest.get32(offsets::DRIVER_FEATURE), value);
    }
}

#[test]
fn features_are_fixed_once_agreed() {
    let mut guest = Guest::new();
    guest.negotiate(NEEDED | feature::VERSION_1);
    guest.write_features(NEEDED | OPTIONAL | feature::VERSION_1);
    guest.set32(offsets::DRIVER_FEATURE_SELECT, 1);
    assert_eq!(guest.get32(offsets::DRIVER_FEATURE), 1);
    // Setting the bit again asks the device nothing.
    guest.control.accepted.store(77, Ordering::SeqCst);
    guest.set_status((READY | Status::FEATURES_OK).bits());
    assert_eq!(guest.control.accepted.load(Ordering::SeqCst), 77);
}

// basic.status.1
#[test]
fn nothing_is_consumed_or_signalled_before_driver_ok() {
    let mut guest = Guest::new();
    guest.negotiate(NEEDED | feature::VERSION_1);
    let mut ring = guest.ring(0);
    guest.set_up(0, &ring);
    ring.add(&COPY);
    guest.ring_doorbell(0);
    guest.run();
    guest.control.signals().config_changed();
    assert_eq!((ring.used_idx(), guest.control.starts.load(Ordering::SeqCst)), (0, 0));
    assert!(guest.ears.silent() && guest.isr() == 0);
    // What was made available meanwhile is seen then, without another notification.
    guest.set_status((READY | Status::FEATURES_OK | Status::DRIVER_OK).bits());
    guest.run();
    assert_eq!(ring.used(), Some((0, 8)));
}

// FC dcdcd800d: a second DRIVER_OK starts nothing.
#[test]
fn queues_are_started_once() {
    let (mut guest, _) = Guest::running(0);
    let status = guest.status();
    for _ in 0..3 {
        guest.set_status(status.bits());
    }
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 2);
    assert_eq!(guest.executor.len(), 2);
}

#[test]
fn queues_that_were_not_enabled_are_not_started() {
    let mut guest = Guest::new();
    guest.negotiate(NEEDED | feature::VERSION_1);
    let ring = guest.ring(1);
    guest.set_up(1, &ring);
    guest.set_status((READY | Status::FEATURES_OK | Status::DRIVER_OK).bits());
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 1);
}

// basic.config.1, pci.layout.1
#[test]
fn the_configuration_can_be_read_at_any_time_and_width() {
    let mut guest = Guest::new();
    assert_eq!(guest.read(DEVICE, 12), CONFIG);
    assert_eq!(guest.read(DEVICE, 4), CONFIG[..4]);
    assert_eq!(guest.read(DEVICE + 4, 4), CONFIG[4..8]);
    assert_eq!(guest.read(DEVICE + 3, 2), CONFIG[3..5]);
    assert_eq!(guest.read(DEVICE + 10, 4), [11, 12, 0, 0]);
    assert_eq!(guest.read(DEVICE + 4094, 4), [0; 4]);
    guest.write(DEVICE + 4, &[1, 2]);
    guest.write(DEVICE + 4095, &[1, 2, 3, 4]);
    let writes = guest.control.writes.lock().unwrap().clone();
    assert_eq!(writes, [(4, vec![1, 2]), (4095, vec![1, 2, 3, 4])]);
}

// pci.common.6
#[test]
fn the_generation_differs_after_any_number_of_changes() {
    let mut guest = Guest::new();
    let config = guest.function.device().config.clone();
    let mut last = guest.image().config_generation;
    assert_eq!(guest.image().config_generation, last);
    for changes in [1u32, 2, 255, 256, 512, 65_536] {
        for _ in 0..changes {
            config.update(|bytes| bytes[0] = bytes[0].wrapping_add(1));
        }
        let now = guest.image().config_generation;
        assert_ne!(now, last, "{changes} changes");
        assert_eq!(guest.image().config_generation, now);
        last = now;
    }
}

// basic.status.2, basic.status.3
#[test]
fn a_broken_queue_costs_the_driver_a_reset() {
    let (mut guest, mut ring) = Guest::running(0);
    ring.set_avail_idx(1000);
    guest.run();
    assert!(guest.status().contains(Status::DEVICE_NEEDS_RESET | Status::DRIVER_OK));
    assert_eq!((guest.isr(), guest.ears.line()), (2, false));
    // Said once.
    guest.run();
    guest.control.signals().needs_reset();
    assert_eq!(guest.isr(), 0);
    // And a reset cures it.
    let mut ring = guest.start(0);
    ring.add(&COPY);
    guest.run();
    assert_eq!(ring.used(), Some((0, 8)));
    assert!(!guest.status().contains(Status::DEVICE_NEEDS_RESET));
}

// basic.status.3: without DRIVER_OK the bit is all there is.
#[test]
fn before_driver_ok_a_failure_is_not_signalled() {
    let mut guest = Guest::new();
    guest.negotiate(NEEDED | feature::VERSION_1);
    guest.control.signals().needs_reset();
    assert!(guest.status().contains(Status::DEVICE_NEEDS_RESET));
    assert!(guest.ears.silent() && guest.isr() == 0);
    // Such a device is not started.
    let ring = guest.ring(0);
    guest.set_up(0, &ring);
    guest.set_status((READY | Status::FEATURES_OK | Status::DRIVER_OK).bits());
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 0);
}

// FC 14108ca14: an error at the start is not dropped.
#[test]
fn a_queue_that_cannot_be_started_costs_a_reset() {
    let mut guest = Guest::new();
    guest.control.refuse_start.store(true, Ordering::SeqCst);
    guest.start(feature::RING_RESET);
    assert!(guest.status().contains(Status::DEVICE_NEEDS_RESET | Status::DRIVER_OK));
    assert_eq!(guest.isr(), 2);
    assert_eq!(guest.function.fault().unwrap().to_string(), "refused");
    guest.control.refuse_start.store(false, Ordering::SeqCst);
    // Enabling it again does not try again.
    guest.select(0);
    guest.set16(offsets::QUEUE_ENABLE, 1);
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 0);
    guest.start(0);
    assert!(guest.function.fault().is_none());
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 2);
}
