//! Whole jobs.

use std::sync::atomic::{AtomicU64, Ordering};

use paraslot_backends::block::testing::{FaultBackend, GatedBackend};
use paraslot_backends::block::{
    BlockBackend, BlockError, BlockInfo, BlockOp, BlockQueue, MemoryBackend,
};
use paraslot_drivers::workload::Failure;
use paraslot_protocol::{Access, Completion, Device, DiskJob, Outcome, Phase, Status};
use paraslot_tests::jobs::{run, run_into};
use paraslot_vmm::in_process::InProcess;

use crate::machine::*;
use crate::place::{Place, in_both_places};

pub(crate) const JOB: DiskJob = DiskJob {
    device: Device::VirtioBlk,
    access: Access::RandomRead,
    completion: Completion::Poll,
    block_size: 4096,
    depth: 32,
    span: CAPACITY,
    warm_up_ms: 0,
    measure_ms: 60_000,
    operations: 1000,
    verify: true,
    seed: 42,
    tsc_hz: 0,
};

/// Every shape of job.
fn shapes() -> impl Iterator<Item = DiskJob> {
    DISKS.into_iter().flat_map(|device| {
        [Access::RandomRead, Access::RandomWrite, Access::SequentialRead].into_iter().flat_map(
            move |access| {
                [Completion::Poll, Completion::Interrupt].into_iter().flat_map(move |completion| {
                    [(4096, 1), (4096, 32), (65536, 4)].map(move |(block_size, depth)| DiskJob {
                        device,
                        access,
                        completion,
                        block_size,
                        depth,
                        operations: 1000 / u64::from(block_size / 4096),
                        ..JOB
                    })
                })
            },
        )
    })
}

pub(crate) fn check(job: &DiskJob, outcome: &Outcome) {
    let header = &outcome.header;
    assert_eq!((outcome.status(), header.errors.get()), (Status::Ok, 0), "{job}");
    assert_eq!(header.operations.get(), job.operations);
    assert_eq!(header.bytes.get(), job.operations * u64::from(job.block_size));
    let recorded: u32 = outcome.latency.buckets().map(|(_, count)| count).sum();
    assert_eq!(u64::from(recorded), job.operations);
    assert!(header.verified.get() > 0 && header.waiting_cycles.get() <= header.cycles.get());
}

fn every_job_ends_well_and_its_costs_are_exact(place: Place) {
    for job in shapes() {
        let platform = plugged(job.device, &place.stepped(), image());
        let outcome = run(&platform, job);
        check(&job, &outcome);
        assert_eq!(platform.phases(), [Phase::Measure, Phase::Done]);
        let header = outcome.header;
        // The workers run to their end while the driver waits, so all that is in flight completes in
        // one batch, and its successors are submitted in one.
        let batches = job.operations.div_ceil(job.depth.into());
        assert_eq!(header.doorbells.get(), batches, "{job}");
        let interrupts = match job.completion {
            Completion::Poll => 0,
            Completion::Interrupt => batches,
        };
        assert_eq!(header.interrupts.get(), interrupts, "{job}");
        let accesses = match (job.device, job.completion) {
            (Device::VirtioBlk | Device::VirtioScsi | Device::Pvscsi, _) => batches,
            // The two of the issue, one fruitless look and a fruitful one.
            (Device::Ahci, Completion::Poll) => 4 * batches,
            (Device::Ahci, Completion::Interrupt) => 7 * batches,
            (other, _) => panic!("{other} is no disk"),
        };
        assert_eq!(header.register_accesses.get(), accesses, "{job}");
        assert_eq!(platform.stray_interrupts(), 0);
    }
}

fn a_stepped_job_is_the_same_each_time(place: Place) {
    for job in place.some(shapes()) {
        let outcome = || run(&plugged(job.device, &place.stepped(), image()), job);
        let (first, second) = (outcome(), outcome());
        assert_eq!(first.header, second.header);
        assert!(first.latency.buckets().eq(second.latency.buckets()));
    }
}

fn every_job_ends_well_on_every_machine(place: Place) {
    for (name, machine) in place.machines() {
        for job in place.some(shapes()) {
            println!("{name}: {job}");
            let job = DiskJob { operations: job.operations / 5, ..job };
            let platform = plugged(job.device, &machine, image());
            check(&job, &run(&platform, job));
        }
    }
}

fn jobs_follow_each_other_on_one_machine(place: Place) {
    for device in DISKS {
        let platform = plugged(device, &place.threaded(), image());
        for seed in 0..5 {
            let job = DiskJob { device, seed, completion: Completion::Interrupt, ..JOB };
            check(&job, &run(&platform, job));
        }
    }
}

fn time_ends_a_job_and_the_warm_up_does_not_count(place: Place) {
    for device in DISKS {
        let job = DiskJob { device, warm_up_ms: 3, measure_ms: 5, operations: 0, ..JOB };
        let platform = plugged(device, &place.stepped(), image());
        let outcome = run(&platform, job);
        assert_eq!(outcome.status(), Status::Ok);
        assert_eq!(platform.phases(), [Phase::WarmUp, Phase::Measure, Phase::Done]);
        // Time is counted here, not measured: it passes while nothing is to be done.
        assert!(outcome.header.cycles.get() >= 5_000_000);
        assert!(outcome.header.operations.get() > 0);
        let recorded: u32 = outcome.latency.buckets().map(|(_, count)| count).sum();
        assert_eq!(u64::from(recorded), outcome.header.operations.get());
    }
}

fn what_the_disk_cannot_do_is_an_error(place: Place) {
    for (job, what) in [
        (DiskJob { device: Device::Ahci, depth: 33, ..JOB }, "depth"),
        (DiskJob { span: CAPACITY + 4096, ..JOB }, "span"),
        (DiskJob { device: Device::Ahci, span: 1 << 40, ..JOB }, "span"),
    ] {
        let platform = plugged(job.device, &place.stepped(), image());
        let mut outcome = Outcome::default();
        let result = run_into(&platform, job, &mut outcome);
        assert_eq!((result, outcome.status()), (Err(Failure::Unfit(what)), Status::BadJob));
    }
    let platform = InProcess::new(&place.stepped()).unwrap();
    for device in DISKS {
        assert_eq!(run(&platform, DiskJob { device, ..JOB }).status(), Status::NoDevice);
    }
}

/// Damages what one write stores, or where, or one read returns.
struct Corrupting {
    inner: MemoryBackend,
    kind: Corruption,
}

#[derive(Clone, Copy, Debug)]
enum Corruption {
    /// One bit of one block, before anything was read.
    Bit(u64),
    /// Writes to this block are dropped, and said to be done.
    Drop(u64),
    /// Two blocks are exchanged.
    Swap(u64, u64),
}

impl BlockBackend for Corrupting {
    fn info(&self) -> BlockInfo {
        self.inner.info()
    }
    fn open_queue(&self, depth: u32) -> std::io::Result<Box<dyn BlockQueue>> {
        let block = |index: u64| on_image(&self.inner, index * 4096, 4096);
        match self.kind {
            Corruption::Bit(offset) => {
                let mut byte = on_image(&self.inner, offset, 1);
                byte[0] ^= 0x10;
                self.inner.write_at(offset, &byte)?;
            }
            Corruption::Swap(a, b) => {
                let (first, second) = (block(a), block(b));
                self.inner.write_at(a * 4096, &second)?;
                self.inner.write_at(b * 4096, &first)?;
            }
            Corruption::Drop(_) => {}
        }
        let inner = self.inner.open_queue(depth)?;
        Ok(match self.kind {
            Corruption::Drop(block) => Box::new(Dropping { inner, block }),
            _ => inner,
        })
    }
}

struct Dropping {
    inner: Box<dyn BlockQueue>,
    block: u64,
}

impl BlockQueue for Dropping {
    fn submit(
        &mut self,
        mut request: paraslot_backends::block::BlockRequest,
    ) -> Result<(), paraslot_backends::block::BlockRequest> {
        if matches!(request.op, BlockOp::Write { .. }) && request.offset == self.block * 4096 {
            // A flush stores nothing, and completes with the same token.
            (request.op, request.offset, request.len) = (BlockOp::Flush, 0, 0);
        }
        self.inner.submit(request)
    }
    fn commit(&mut self) {
        self.inner.commit();
    }
    fn complete(&mut self, completions: &mut Vec<paraslot_backends::block::BlockCompletion>) {
        self.inner.complete(completions);
    }
    fn sources(&self) -> paraslot_device::Sources {
        self.inner.sources()
    }
    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }
}

// The verifier has teeth, whatever is between it and the disk.
fn corruption_is_found(place: Place) {
    for device in DISKS {
        for completion in [Completion::Poll, Completion::Interrupt] {
            for (access, kind, offset) in [
                (Access::SequentialRead, Corruption::Bit(377 * 4096 + 4095), Some(377 * 4096)),
                (Access::SequentialRead, Corruption::Bit(0), Some(0)),
                (Access::SequentialRead, Corruption::Swap(8, 500), Some(8 * 4096)),
                // Enough reads to come by each block.
                (Access::RandomRead, Corruption::Bit(33 * 4096 + 100), Some(33 * 4096)),
                (Access::RandomWrite, Corruption::Drop(400), Some(400 * 4096)),
            ] {
                let backend = Corrupting { inner: image(), kind };
                let platform = plugged(device, &place.stepped(), backend);
                let job = DiskJob { device, completion, access, operations: 6000, ..JOB };
                let mut outcome = Outcome::default();
                let failure = run_into(&platform, job, &mut outcome).err();
                assert_eq!(failure, offset.map(Failure::Corrupt), "{access} {kind:?}");
                assert_eq!(outcome.status(), Status::Corrupt);
                assert!(outcome.header.errors.get() > 0);
                // All operations were done all the same.
                assert_eq!(outcome.header.operations.get(), 6000);
            }
        }
    }
}

fn a_failing_disk_ends_the_job(place: Place) {
    for device in DISKS {
        for completion in [Completion::Poll, Completion::Interrupt] {
            let reads = AtomicU64::new(0);
            let backend = FaultBackend::new(image(), move |_, request| {
                let read = matches!(request.op, BlockOp::Read);
                let bad = read && reads.fetch_add(1, Ordering::Relaxed) == 100;
                bad.then(|| BlockError::Io(std::io::Error::from_raw_os_error(5)))
            });
            let platform = plugged(device, &place.stepped(), backend);
            let outcome = run(&platform, DiskJob { device, completion, ..JOB });
            assert_eq!(outcome.status(), Status::DeviceError);
            assert_eq!(outcome.header.errors.get(), 1);
            assert!(outcome.header.operations.get() >= 96);
        }
    }
}

fn a_disk_that_does_not_answer_ends_the_job(place: Place) {
    for device in DISKS {
        for completion in [Completion::Poll, Completion::Interrupt] {
            let backend = GatedBackend::new(image());
            let gate = backend.gate();
            let platform = plugged(device, &place.stepped(), backend);
            let outcome = run(&platform, DiskJob { device, completion, ..JOB });
            assert_eq!(outcome.status(), Status::Stuck, "{device} {completion}");
            assert_eq!(outcome.header.operations.get(), 0);
            gate.open();
        }
    }
}

in_both_places! {
    every_job_ends_well_and_its_costs_are_exact,
    a_stepped_job_is_the_same_each_time,
    every_job_ends_well_on_every_machine,
    jobs_follow_each_other_on_one_machine,
    time_ends_a_job_and_the_warm_up_does_not_count,
    what_the_disk_cannot_do_is_an_error,
    corruption_is_found,
    a_failing_disk_ends_the_job,
    a_disk_that_does_not_answer_ends_the_job,
}
