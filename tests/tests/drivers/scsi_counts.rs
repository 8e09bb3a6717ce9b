//! What requests cost on the SCSI adapters: exact register accesses, doorbells and interrupts.

use paraslot_drivers::pvscsi::{Options, Pvscsi, Signal};
use paraslot_drivers::{Accesses, Completions, Disk, Op, Platform, virtio_scsi};
use paraslot_protocol::Device;
use paraslot_spec::pvscsi::register;
use paraslot_spec::virtio::feature;
use paraslot_vmm::in_process::{Access, AccessKind, InProcess, Machine, Run};

use crate::machine::*;
use crate::place::{Place, in_both_places};

/// The request queue of virtio-scsi.
const REQUESTS: u64 = 2;

// As virtio-blk's.
fn a_batch_of_virtio_scsi_requests_costs_one_doorbell_and_at_most_one_interrupt(place: Place) {
    for accept in [
        virtio_scsi::Options::ALL_FEATURES,
        virtio_scsi::Options::ALL_FEATURES & !feature::EVENT_IDX,
    ] {
        for doorbell_events in [false, true] {
            for interrupts in [false, true] {
                for depth in [1, 32] {
                    let machine = Machine { doorbell_events, ..place.stepped() };
                    let platform = plugged(Device::VirtioScsi, &machine, image());
                    let options =
                        virtio_scsi::Options { accept, ..virtio_scsi::Options::new(depth) };
                    let disk = virtio_scsi::VirtioScsi::new(&platform, options);
                    let mut driver = Driver::new(&platform, disk, interrupts);
                    let regions = regions(&platform, depth.into());
                    let counted = driver.disk.accesses();
                    let taken = platform.interrupts_sent();
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
                            matches!(
                                &trace[..],
                                [Access { kind: one, value: REQUESTS, .. }] if *one == kind
                            ),
                            "{trace:?}"
                        );
                        let expected = Accesses { reads: 0, writes: batch, doorbells: batch };
                        assert_eq!(driver.disk.accesses().since(counted), expected);
                        let raised = if interrupts { batch } else { 0 };
                        assert_eq!(platform.interrupts_sent() - taken, raised);
                    }
                    assert_eq!(platform.stray_interrupts(), 0);
                }
            }
        }
    }
}

/// Messages sent by any vector of the disk.
trait Sent {
    fn interrupts_sent(&self) -> u64;
}

impl Sent for InProcess {
    fn interrupts_sent(&self) -> u64 {
        (0..8).map(|vector| self.messages_sent(SLOT, vector)).sum()
    }
}

/// The accesses, as kind and register.
fn trace(platform: &InProcess) -> Vec<(AccessKind, u32)> {
    let accesses = platform.take_trace().into_iter();
    accesses.map(|access| (access.kind, u32::try_from(access.offset).unwrap())).collect()
}

/// What it costs to learn of completions.
fn handling(signal: Signal, interrupts: bool, read: AccessKind) -> Vec<(AccessKind, u32)> {
    match signal {
        Signal::Pin if interrupts => {
            vec![(read, register::INTR_STATUS), (AccessKind::Write, register::INTR_STATUS)]
        }
        _ => vec![],
    }
}

// The register accesses of Linux's driver: a kick; and by the pin a read and a write of the status.
fn a_batch_of_pvscsi_requests_costs_one_kick_and_at_most_one_interrupt(place: Place) {
    for events in [false, true] {
        let (doorbell, read) = match events {
            true => (AccessKind::Doorbell, AccessKind::WindowRead),
            false => (AccessKind::Write, AccessKind::Read),
        };
        for signal in SIGNALS {
            for (interrupts, threshold) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                for depth in [1, 32] {
                    let machine = Machine {
                        doorbell_events: events,
                        read_windows: events,
                        ..place.stepped()
                    };
                    let platform = plugged(Device::Pvscsi, &machine, image());
                    let options = Options { signal, threshold, ..Options::new(depth) };
                    let disk = Pvscsi::new(&platform, options);
                    let mut driver = Driver::new(&platform, disk, interrupts);
                    assert_eq!(driver.disk.uses_threshold(), threshold);
                    platform.settle();
                    let regions = regions(&platform, depth.into());
                    let name = format!("{events} {signal:?} {interrupts} {threshold} {depth}");
                    let before = platform.interrupts_taken(0);
                    for batch in 1..=5 {
                        let handling = handling(signal, interrupts, read);
                        platform.start_trace();
                        driver.start(0, &regions, batch % 2 == 0);
                        driver.wait(regions.len());
                        let kick = [(doorbell, register::KICK_RW_IO)];
                        assert_eq!(trace(&platform), [&kick[..], &handling].concat(), "{name}");
                        // Anything else has another doorbell.
                        platform.start_trace();
                        driver.good(0, Op::Flush);
                        let kick = [(doorbell, register::KICK_NON_RW_IO)];
                        assert_eq!(trace(&platform), [&kick[..], &handling].concat(), "{name}");
                        let taken = platform.interrupts_taken(0);
                        let raised = if interrupts { 2 * batch } else { 0 };
                        assert_eq!(taken - before, raised, "{name}");
                    }
                    assert_eq!(platform.stray_interrupts(), 0, "{name}");
                }
            }
        }
    }
}

// While the adapter works it looks anyway; a driver that goes by the threshold does not kick then.
fn an_adapter_at_work_is_kicked_only_without_the_threshold(place: Place) {
    for threshold in [false, true] {
        let machine = Machine { run: Run::Stepped(Some(1)), ..place.stepped() };
        let platform = plugged(Device::Pvscsi, &machine, image());
        let options = Options { threshold, ..Options::new(200) };
        let mut disk = Pvscsi::new(&platform, options).unwrap();
        platform.settle();
        let region = platform.allocate(4096).unwrap();
        for _ in 0..3 {
            let before = disk.accesses().doorbells;
            let push = |disk: &mut Pvscsi<'_, InProcess>, tags: std::ops::Range<u16>| {
                for tag in tags {
                    disk.submit(tag, 0, Op::Read(&region)).unwrap();
                }
                disk.kick().unwrap();
            };
            push(&mut disk, 0..150);
            // It takes a batch and another, and has not come to its end.
            (0..2).for_each(|_| platform.relax());
            (150..200).for_each(|tag| push(&mut disk, tag..tag + 1));
            let kicks = if threshold { 1 } else { 51 };
            assert_eq!(disk.accesses().doorbells - before, kicks);
            let mut completions = Completions::new();
            crate::net::wait_until(&platform, || {
                disk.poll(&mut completions).unwrap();
                completions.len() == 200
            });
            assert!(completions.as_slice().iter().all(|done| done.result.is_ok()));
            platform.settle();
        }
    }
}

fn a_look_while_polling_costs_nothing(place: Place) {
    let platform = plugged(Device::Pvscsi, &place.stepped(), image());
    let mut disk = Pvscsi::new(&platform, Options::new(4)).unwrap();
    let region = platform.allocate(4096).unwrap();
    let mut completions = Completions::new();
    disk.submit(0, 0, Op::Read(&region)).unwrap();
    disk.kick().unwrap();
    platform.start_trace();
    for _ in 0..3 {
        disk.poll(&mut completions).unwrap();
    }
    assert!(completions.is_empty());
    platform.settle();
    disk.poll(&mut completions).unwrap();
    assert_eq!((completions.len(), trace(&platform)), (1, vec![]));
}

in_both_places! {
    a_batch_of_virtio_scsi_requests_costs_one_doorbell_and_at_most_one_interrupt,
    a_batch_of_pvscsi_requests_costs_one_kick_and_at_most_one_interrupt,
    an_adapter_at_work_is_kicked_only_without_the_threshold,
    a_look_while_polling_costs_nothing,
}
