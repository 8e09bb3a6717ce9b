//! What requests cost: exact register accesses, doorbells and interrupts.

use paraslot_drivers::ahci::{Ahci, AhciOptions};
use paraslot_drivers::virtio_blk::{Options, VirtioBlk};
use paraslot_drivers::{Accesses, Disk, Op, Platform};
use paraslot_spec::ahci::{ABAR, host, port, port_base};
use paraslot_spec::virtio::feature;
use paraslot_vmm::in_process::{Access, AccessKind, InProcess, Machine};

use crate::machine::*;
use crate::place::{Place, in_both_places};

/// The accesses, as kind and offset.
fn trace(platform: &InProcess) -> Vec<(AccessKind, u64)> {
    platform.take_trace().into_iter().map(|access| (access.kind, access.offset)).collect()
}

fn a_batch_of_virtio_requests_costs_one_doorbell_and_at_most_one_interrupt(place: Place) {
    for doorbell_events in [false, true] {
        for interrupts in [false, true] {
            for depth in [1, 32] {
                let machine = Machine { doorbell_events, ..place.stepped() };
                let platform = virtio_blk(&machine, image());
                let disk = VirtioBlk::new(&platform, Options::new(depth));
                let mut driver = Driver::new(&platform, disk, interrupts);
                let regions = regions(&platform, depth.into());
                let counted = driver.disk.accesses();
                let sent = platform.messages_sent(SLOT, 0);
                for batch in 1..=5 {
                    platform.start_trace();
                    driver.start(0, &regions, batch % 2 == 0);
                    driver.wait(regions.len());
                    let trace = platform.take_trace();
                    let kind = match doorbell_events {
                        true => AccessKind::Doorbell,
                        false => AccessKind::Write,
                    };
                    assert!(
                        matches!(&trace[..], [Access { kind: one, value: 0, .. }] if *one == kind),
                        "{trace:?}"
                    );
                    let expected = Accesses { reads: 0, writes: batch, doorbells: batch };
                    assert_eq!(driver.disk.accesses().since(counted), expected);
                    let raised = if interrupts { batch } else { 0 };
                    assert_eq!(platform.messages_sent(SLOT, 0) - sent, raised);
                }
                assert_eq!(platform.stray_interrupts(), 0);
            }
        }
    }
}

fn without_event_idx_a_batch_costs_the_same(place: Place) {
    let platform = virtio_blk(&place.stepped(), image());
    let accept = Options::ALL_FEATURES & !feature::EVENT_IDX;
    let options = Options { accept, ..Options::new(32) };
    let mut driver = Driver::new(&platform, VirtioBlk::new(&platform, options), true);
    let regions = regions(&platform, 32);
    for batch in 1..=3 {
        driver.start(0, &regions, false);
        driver.wait(32);
        assert_eq!(driver.disk.accesses().doorbells, batch);
        assert_eq!(platform.messages_sent(SLOT, 0), batch);
    }
}

// Doorbells that the device does not want are not rung: while it works, it looks anyway.
fn a_device_at_work_is_not_notified(place: Place) {
    let platform = virtio_blk(&place.stepped(), image());
    let mut driver = Driver::new(&platform, VirtioBlk::new(&platform, Options::new(2)), false);
    let region = platform.allocate(4096).unwrap();
    let before = driver.disk.accesses().doorbells;
    for tag in 0..2 {
        driver.disk.submit(tag, 0, Op::Read(&region)).unwrap();
        // The workers do not run in between, so the device still has to look for the first.
        driver.disk.kick().unwrap();
    }
    assert_eq!(driver.disk.accesses().doorbells - before, 1);
    driver.wait(2);
}

fn queues_interrupt_by_vectors_of_their_own(place: Place) {
    let device = paraslot_virtio_blk::Options { queues: 4, ..Default::default() };
    let platform = virtio_blk_with(&place.stepped(), image(), &device);
    let options = Options { queues: 4, ..Options::new(4) };
    let mut driver = Driver::new(&platform, VirtioBlk::new(&platform, options), true);
    driver.start(0, &regions(&platform, 4), false);
    driver.wait(4);
    for vector in 0..4 {
        assert_eq!(platform.messages_sent(SLOT, vector), 1, "vector {vector}");
    }
    assert_eq!(platform.interrupts_taken(0), 4);
}

const PORT: u64 = port_base(AHCI_PORT) as u64;
const SACT: u64 = PORT + port::SACT as u64;
const CI: u64 = PORT + port::CI as u64;
const PORT_IS: u64 = PORT + port::IS as u64;
const IS: u64 = host::IS as u64;

/// What the driver writes to issue, and accesses when interrupted.
fn ahci_sequence(read: AccessKind, queued: bool) -> Vec<(AccessKind, u64)> {
    let write = AccessKind::Write;
    let mut sequence = vec![(write, SACT)];
    if !queued {
        sequence.clear();
    }
    let running = if queued { SACT } else { CI };
    sequence.extend([
        (write, CI),
        (read, IS),
        (read, PORT_IS),
        (write, PORT_IS),
        (read, running),
        (write, IS),
    ]);
    sequence
}

// The register accesses of Linux's driver: 7 a command at depth 1, of which 4 are writes.
fn ahci_costs_seven_accesses_at_depth_1(place: Place) {
    for (read_windows, read) in [(false, AccessKind::Read), (true, AccessKind::WindowRead)] {
        for queued in [false, true] {
            let machine = Machine { read_windows, ..place.stepped() };
            let platform = ahci(&machine, image());
            let disk = Ahci::new(&platform, AhciOptions { queued, ..AhciOptions::default() });
            let mut driver = Driver::new(&platform, disk, true);
            let region = platform.allocate(4096).unwrap();
            let sent = platform.messages_sent(SLOT, 0);
            let doorbells = driver.disk.accesses().doorbells;
            for command in 1..=3 {
                platform.start_trace();
                driver.good(4096 * command, Op::Read(&region));
                assert_eq!(trace(&platform), ahci_sequence(read, queued));
                assert_eq!(platform.messages_sent(SLOT, 0) - sent, command);
                assert_eq!(driver.disk.accesses().doorbells - doorbells, command);
            }
            platform.start_trace();
            driver.good(0, Op::Flush);
            assert_eq!(trace(&platform), ahci_sequence(read, false));
            assert_eq!(platform.stray_interrupts(), 0);
        }
    }
}

fn a_batch_of_ahci_commands_costs_what_one_does(place: Place) {
    let platform = ahci(&place.stepped(), image());
    let disk = Ahci::new(&platform, AhciOptions::default());
    let mut driver = Driver::new(&platform, disk, true);
    let regions = regions(&platform, 32);
    let sent = platform.messages_sent(SLOT, 0);
    for batch in 1..=3 {
        platform.start_trace();
        driver.start(0, &regions, false);
        driver.wait(32);
        assert_eq!(trace(&platform), ahci_sequence(AccessKind::Read, true));
        assert_eq!(platform.messages_sent(SLOT, 0) - sent, batch);
    }
}

fn a_look_while_polling_ahci_costs_one_read(place: Place) {
    for queued in [false, true] {
        let platform = ahci(&place.stepped(), image());
        let disk = Ahci::new(&platform, AhciOptions { queued, ..AhciOptions::default() });
        let mut driver = Driver::new(&platform, disk, false);
        let region = platform.allocate(4096).unwrap();
        platform.start_trace();
        let mut completions = paraslot_drivers::Completions::new();
        driver.disk.poll(&mut completions).unwrap();
        assert_eq!(trace(&platform), [], "nothing is in flight");
        platform.start_trace();
        driver.disk.submit(0, 0, Op::Read(&region)).unwrap();
        driver.disk.kick().unwrap();
        for _ in 0..3 {
            driver.disk.poll(&mut completions).unwrap();
        }
        assert!(completions.is_empty());
        platform.settle();
        driver.disk.poll(&mut completions).unwrap();
        assert_eq!(completions.len(), 1);
        let running = if queued { SACT } else { CI };
        let mut expected = ahci_sequence(AccessKind::Read, queued);
        expected.truncate(if queued { 2 } else { 1 });
        expected.extend([(AccessKind::Read, running); 4]);
        assert_eq!(trace(&platform), expected);
        assert_eq!(platform.messages_sent(SLOT, 0), 0);
    }
    assert_eq!(ABAR, 5);
}

in_both_places! {
    a_batch_of_virtio_requests_costs_one_doorbell_and_at_most_one_interrupt,
    without_event_idx_a_batch_costs_the_same,
    a_device_at_work_is_not_notified,
    queues_interrupt_by_vectors_of_their_own,
    ahci_costs_seven_accesses_at_depth_1,
    a_batch_of_ahci_commands_costs_what_one_does,
    a_look_while_polling_ahci_costs_one_read,
}
