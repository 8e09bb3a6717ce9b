//! Disks in the middle of a job.

use std::sync::{Arc, Mutex};

use paraslot_backends::block::testing::{Event, Log, RecordingBackend};
use paraslot_backends::block::{BlockBackend, MemoryBackend};
use paraslot_pci::Bdf;
use paraslot_protocol::{Access, Completion, Device, DiskJob, Outcome, Status};
use paraslot_tests::jobs::run;
use paraslot_tests::moving::{Build, Moves, Moving};
use paraslot_tests::parts;
use paraslot_vmm::in_process::InProcess;

use crate::{fingerprint, places, stepped};

pub(crate) const SLOT: Bdf = Bdf::root(3);
const CAPACITY: u64 = 1 << 20;
pub(crate) const DISKS: [Device; 4] =
    [Device::VirtioBlk, Device::VirtioScsi, Device::Pvscsi, Device::Ahci];

/// A job of a few batches, with requests in flight most of the time.
pub(crate) fn job(device: Device, access: Access, completion: Completion) -> DiskJob {
    DiskJob {
        device,
        access,
        completion,
        block_size: 4096,
        depth: 8,
        span: CAPACITY,
        warm_up_ms: 0,
        measure_ms: 60_000,
        operations: 40,
        verify: true,
        seed: 42,
        tsc_hz: 0,
    }
}

fn jobs() -> impl Iterator<Item = DiskJob> {
    DISKS.into_iter().flat_map(|device| {
        [
            job(device, Access::RandomRead, Completion::Interrupt),
            job(device, Access::RandomWrite, Completion::Interrupt),
            job(device, Access::RandomRead, Completion::Poll),
        ]
    })
}

/// How a job went.
struct Course {
    outcome: Outcome,
    operations: u64,
    /// Of guest memory.
    memory: u64,
    events: Vec<Event>,
    interrupts: u64,
    state: String,
}

/// Builds a disk time and again, over one image.
pub(crate) fn build(device: Device, machine: &InProcess, backend: Arc<dyn BlockBackend>) -> Build {
    let host = machine.host(SLOT);
    Box::new(move || parts::disk(device, backend.clone(), host.clone()))
}

fn image() -> (RecordingBackend<MemoryBackend>, Log) {
    let backend = RecordingBackend::new(paraslot_tests::image::patterned(1 << 20));
    let log = backend.log();
    (backend, log)
}

fn course(job: DiskJob, moves: Moves) -> Course {
    let machine = InProcess::new(&stepped()).unwrap();
    let (backend, log) = image();
    let moving = Moving::new(build(job.device, &machine, Arc::new(backend)), moves);
    let moving = Arc::new(Mutex::new(moving));
    machine.plug_shared(SLOT, moving.clone()).unwrap();
    let outcome = run(&machine, job);
    let header = &outcome.header;
    assert_eq!((outcome.status(), header.errors.get()), (Status::Ok, 0), "{job}, {moves:?}");
    assert_eq!(header.operations.get(), job.operations, "{job}, {moves:?}");
    assert_eq!(machine.stray_interrupts(), 0, "{job}, {moves:?}");
    let mut moving = moving.lock().unwrap();
    Course {
        operations: moving.operations(),
        memory: fingerprint(&machine),
        events: log.events(),
        interrupts: (0..8).map(|vector| machine.messages_sent(SLOT, vector)).sum(),
        state: moving.state(),
        outcome,
    }
}

/// At every index of the sequence of operations: what comes after a move is what comes after a pause.
/// Lost doorbells and interrupts: crosvm 078ef31b7, CH 3e3008f36, OV d31d6641d, FC 5958.
#[test]
fn a_disk_moves_before_any_operation_and_nobody_notices() {
    let mut seen = Vec::new();
    for job in jobs() {
        let count = course(job, Moves::PauseBefore(u64::MAX)).operations;
        println!("{job}: {count} operations");
        assert!(count > 20);
        for index in places(&mut seen, job.device, count) {
            let paused = course(job, Moves::PauseBefore(index));
            let moved = course(job, Moves::Before(index));
            let context = format!("{job}, before operation {index}");
            assert_eq!(moved.operations, paused.operations, "{context}");
            assert_eq!(moved.outcome.header, paused.outcome.header, "{context}");
            assert!(moved.events == paused.events, "{context}");
            assert_eq!(moved.interrupts, paused.interrupts, "{context}");
            assert_eq!(moved.memory, paused.memory, "{context}");
            assert_eq!(moved.state, paused.state, "{context}");
        }
    }
}

/// A disk that moves all the time.
#[test]
fn a_disk_that_moves_before_each_operation_loses_nothing() {
    for job in jobs() {
        let job = DiskJob { operations: 200, ..job };
        let moved = course(job, Moves::Always);
        let stayed = course(job, Moves::PauseBefore(u64::MAX));
        assert_eq!(moved.outcome.header.verified, stayed.outcome.header.verified, "{job}");
        let transfers = |course: &Course| {
            let submitted = course.events.iter();
            submitted.filter(|event| matches!(event, Event::Submitted { .. })).count()
        };
        assert_eq!(transfers(&moved), transfers(&stayed), "{job}: none twice");
    }
}
