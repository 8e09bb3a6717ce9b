extern crate std;

use std::vec;
use std::vec::Vec;

use paraslot_protocol::{
    Access, Completion as Mode, Device, DiskJob, JobError, Outcome, PATTERN_BLOCK, PATTERN_STEP,
    Phase, pattern_base,
};

use super::super::{Failure, run, run_on};
use super::contents::Contents;
use crate::testing::Fake;
use crate::{Accesses, Completion, Completions, Disk, DmaRegion, Error, Failed, Op, Platform};

const BLOCKS: usize = 64;

const JOB: DiskJob = DiskJob {
    device: Device::VirtioBlk,
    access: Access::RandomRead,
    completion: Mode::Poll,
    block_size: 4096,
    depth: 8,
    span: (BLOCKS * 4096) as u64,
    warm_up_ms: 0,
    measure_ms: 1000,
    operations: 500,
    verify: true,
    seed: 1,
    tsc_hz: 0,
};

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The `n`th read is not done, but said to be.
    SkipRead(usize),
    /// The `n`th write goes to the next block.
    MisplaceWrite(usize),
    /// The `n`th write is forgotten.
    LoseWrite(usize),
    /// The `n`th request fails.
    Fail(usize),
    /// The `n`th request never ends.
    Hang(usize),
    /// It interrupts no more after the `n`th request.
    Silent(usize),
}

/// A disk in memory that completes the last request first, some at each look.
struct FakeDisk<'p> {
    platform: &'p Fake,
    fault: Fault,
    data: Vec<u8>,
    submitted: Vec<(u16, u64, u8, Option<DmaRegion>)>,
    kicked: usize,
    reads: usize,
    writes: usize,
    requests: usize,
    doorbells: u64,
    interrupts: bool,
    in_flight: Vec<(u64, bool)>,
    flushed: bool,
}

impl<'p> FakeDisk<'p> {
    fn new(platform: &'p Fake, fault: Fault) -> Self {
        let mut data = vec![0; BLOCKS * PATTERN_BLOCK];
        for (index, word) in data.chunks_exact_mut(8).enumerate() {
            let (block, index) = (index / 512, index % 512);
            let base = pattern_base((block * PATTERN_BLOCK) as u64, 0);
            let value = base.wrapping_add(PATTERN_STEP.wrapping_mul(index as u64));
            word.copy_from_slice(&value.to_le_bytes());
        }
        Self {
            platform,
            fault,
            data,
            submitted: Vec::new(),
            kicked: 0,
            reads: 0,
            writes: 0,
            requests: 0,
            doorbells: 0,
            interrupts: false,
            in_flight: Vec::new(),
            flushed: false,
        }
    }

    fn finish(&mut self, kind: u8, offset: u64, region: Option<DmaRegion>) -> Result<(), Failed> {
        let offset = usize::try_from(offset).unwrap();
        match (kind, region) {
            (b'r', Some(region)) => {
                self.reads += 1;
                if self.fault != Fault::SkipRead(self.reads) {
                    region.write_bytes(0, &self.data[offset..offset + region.len()]);
                }
            }
            (b'w', Some(region)) => {
                self.writes += 1;
                let mut start = offset;
                if self.fault == Fault::MisplaceWrite(self.writes) {
                    start = (offset + region.len()) % self.data.len();
                }
                if self.fault != Fault::LoseWrite(self.writes) {
                    region.read_bytes(0, &mut self.data[start..start + region.len()]);
                }
            }
            _ => self.flushed = true,
        }
        if self.fault == Fault::Fail(self.requests) { Err(Failed::Io) } else { Ok(()) }
    }
}

impl Disk for FakeDisk<'_> {
    fn capacity(&self) -> u64 {
        self.data.len() as u64
    }
    fn block_size(&self) -> u32 {
        512
    }
    fn max_depth(&self) -> u16 {
        32
    }
    fn max_transfer(&self) -> u32 {
        8192
    }
    fn submit(&mut self, tag: u16, offset: u64, op: Op<'_>) -> Result<(), Error> {
        let (kind, region) = match op {
            Op::Read(region) => (b'r', Some(region.clone())),
            Op::Write(region) => (b'w', Some(region.clone())),
            _ => (b'f', None),
        };
        assert!(self.submitted.iter().all(|(other, ..)| *other != tag), "tag {tag} is in use");
        let write = kind == b'w';
        let overlaps = self.in_flight.contains(&(offset, true))
            || (write && self.in_flight.contains(&(offset, false)));
        assert!(!overlaps, "a write overlaps another request");
        self.in_flight.push((offset, write));
        self.submitted.push((tag, offset, kind, region));
        Ok(())
    }
    fn kick(&mut self) -> Result<(), Error> {
        if self.kicked != self.submitted.len() {
            self.doorbells += 1;
            self.kicked = self.submitted.len();
            let silent = matches!(self.fault, Fault::Silent(after) if self.requests >= after);
            if self.interrupts && !silent {
                self.platform.interrupts.set(self.platform.interrupts.get() + 1);
            }
        }
        Ok(())
    }
    fn poll(&mut self, completions: &mut Completions) -> Result<(), Error> {
        for _ in 0..self.kicked.min(3) {
            self.requests += 1;
            if matches!(self.fault, Fault::Hang(after) if self.requests >= after) {
                return Ok(());
            }
            let (tag, offset, kind, region) = self.submitted.pop().unwrap();
            self.in_flight.retain(|(other, write)| (*other, *write) != (offset, kind == b'w'));
            self.kicked -= 1;
            let result = self.finish(kind, offset, region);
            completions.push(Completion { tag, result });
        }
        Ok(())
    }
    fn handle(&mut self, completions: &mut Completions) -> Result<(), Error> {
        self.poll(completions)
    }
    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        self.interrupts = on;
        Ok(())
    }
    fn interrupt(&self) -> u8 {
        0
    }
    fn accesses(&self) -> Accesses {
        Accesses { reads: 0, writes: self.doorbells, doorbells: self.doorbells }
    }
    fn shutdown(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

fn run_with(fault: Fault, job: DiskJob) -> (Result<(), Failure>, Outcome, Vec<Phase>) {
    let fake = Fake::new();
    let mut outcome = Outcome::default();
    let result = run_on(&fake, FakeDisk::new(&fake, fault), &job, &mut outcome);
    let phases = fake.phases.borrow().clone();
    (result, outcome, phases)
}

#[test]
fn a_good_disk_passes_every_job_and_is_counted_exactly() {
    for access in [Access::RandomRead, Access::RandomWrite, Access::SequentialRead] {
        for (completion, depth) in [(Mode::Poll, 1), (Mode::Poll, 8), (Mode::Interrupt, 1)] {
            let job = DiskJob { access, completion, depth, ..JOB };
            let (result, outcome, phases) = run_with(Fault::None, job);
            assert_eq!(result, Ok(()), "{job}");
            assert_eq!(phases, [Phase::Measure, Phase::Done]);
            let header = outcome.header;
            assert_eq!((header.operations.get(), header.bytes.get()), (500, 500 * 4096));
            let recorded: u32 = outcome.latency.buckets().map(|(_, count)| count).sum();
            assert_eq!(recorded, 500);
            // After a write 64 blocks are left to check, but for those that were never hit.
            let verified = header.verified.get();
            match access {
                Access::RandomWrite => assert!((60..=64).contains(&verified), "{verified}"),
                _ => assert_eq!(verified, 500),
            }
            if depth == 1 {
                assert_eq!(header.doorbells.get(), 500);
            }
            if completion == Mode::Interrupt {
                assert_eq!(header.interrupts.get(), 500);
            }
            assert_eq!(header.errors.get(), 0);
            assert!(header.waiting_cycles.get() < header.cycles.get());
        }
    }
}

/// What a fill leaves is what reads are compared with, and nothing else passes for it.
#[test]
fn a_filled_disk_is_what_reads_expect() {
    let fake = Fake::new();
    let fresh = FakeDisk::new(&fake, Fault::None).data;
    let drive = |disk: &mut FakeDisk<'_>, job: DiskJob| {
        let mut outcome = Outcome::default();
        outcome.header.tsc_hz = fake.tsc_hz().into();
        let result = super::drive(&fake, disk, &job, &mut outcome);
        assert_eq!(outcome.header.capacity.get(), JOB.span);
        result.map(|()| outcome.header.operations.get())
    };
    for depth in [1, 8] {
        let mut disk = FakeDisk::new(&fake, Fault::None);
        disk.data.fill(0);
        let read = DiskJob { access: Access::SequentialRead, ..JOB };
        assert!(matches!(drive(&mut disk, read), Err(Failure::Corrupt(_))));
        let operations = BLOCKS as u64;
        let fill = DiskJob { access: Access::Fill, depth, operations, verify: false, ..JOB };
        assert_eq!(drive(&mut disk, fill), Ok(operations));
        assert_eq!(disk.data, fresh);
        assert_eq!(drive(&mut disk, read), Ok(500));
    }
}

#[test]
fn the_warm_up_is_not_counted_and_time_ends_the_measured_part() {
    let job = DiskJob { warm_up_ms: 5, measure_ms: 20, operations: 0, ..JOB };
    let (result, outcome, phases) = run_with(Fault::None, job);
    assert_eq!(result, Ok(()));
    assert_eq!(phases, [Phase::WarmUp, Phase::Measure, Phase::Done]);
    let header = outcome.header;
    let recorded: u32 = outcome.latency.buckets().map(|(_, count)| count).sum();
    assert_eq!(u64::from(recorded), header.operations.get());
    assert_eq!(header.verified.get(), header.operations.get());
    // At 1 MHz, with what the last requests take.
    assert!((20_000..21_000).contains(&header.cycles.get()), "{}", header.cycles.get());
}

// The verifier has teeth.
#[test]
fn wrong_data_is_found() {
    for (access, fault) in [
        (Access::RandomRead, Fault::SkipRead(77)),
        (Access::SequentialRead, Fault::SkipRead(77)),
        // The last request of all: what was read before must not pass for it.
        (Access::RandomRead, Fault::SkipRead(500)),
        (Access::RandomWrite, Fault::MisplaceWrite(499)),
        (Access::RandomWrite, Fault::LoseWrite(500)),
        (Access::RandomWrite, Fault::SkipRead(1)),
    ] {
        let (result, outcome, _) = run_with(fault, DiskJob { access, ..JOB });
        assert!(matches!(result, Err(Failure::Corrupt(_))), "{access} {fault:?} {result:?}");
        assert!(outcome.header.errors.get() > 0);
        let (result, ..) = run_with(fault, DiskJob { access, verify: false, ..JOB });
        assert_eq!(result, Ok(()));
    }
}

#[test]
fn failures_and_silence_end_the_job() {
    let (result, outcome, phases) = run_with(Fault::Fail(100), JOB);
    assert_eq!(result, Err(Failure::Request(Failed::Io)));
    assert_eq!((outcome.header.operations.get(), outcome.header.errors.get()), (99, 1));
    assert_eq!(phases, [Phase::Measure, Phase::Done]);
    assert_eq!(run_with(Fault::Hang(100), JOB).0, Err(Failure::Stuck));
    // A lost interrupt is not made up for by looking anyway.
    let job = DiskJob { completion: Mode::Interrupt, depth: 1, ..JOB };
    assert_eq!(run_with(Fault::Silent(100), job).0, Err(Failure::Stuck));
}

#[test]
fn what_does_not_fit_is_refused() {
    for (job, what) in [
        (DiskJob { depth: 33, ..JOB }, "depth"),
        (DiskJob { block_size: 16384, ..JOB }, "block_size"),
        (DiskJob { span: JOB.span + 4096, ..JOB }, "span"),
    ] {
        assert_eq!(run_with(Fault::None, job).0, Err(Failure::Unfit(what)));
    }
    let job = DiskJob { depth: 0, ..JOB };
    assert_eq!(run_with(Fault::None, job).0, Err(Failure::Job(JobError::Invalid("depth"))));
    let status = run(&Fake::new(), JOB).status();
    assert_eq!(status, paraslot_protocol::Status::NoDevice);
}

#[test]
fn generations_tell_writes_apart_and_survive_their_wrap() {
    let fake = Fake::new();
    let contents = Contents::new(&fake, 8192, 8192 * 4, true).unwrap();
    let buffer = fake.allocate(8192).unwrap();
    assert_eq!(contents.written_from(0), None);
    assert!(!contents.matches(2, &buffer));
    contents.start_write(2, &buffer);
    assert_eq!((contents.idle_from(2), contents.idle_from(1)), (3, 1));
    contents.end_write(2);
    assert_eq!((contents.idle_from(2), contents.written_from(0)), (2, Some(2)));
    assert!(contents.matches(2, &buffer));
    assert!(!contents.matches(1, &buffer), "another block's");
    let first = buffer.read64(0);
    contents.start_write(2, &buffer);
    assert_ne!(buffer.read64(0), first);
    for _ in 2..1 << 15 {
        contents.start_write(2, &buffer);
        contents.end_write(2);
    }
    assert!(contents.matches(2, &buffer));
    assert_eq!((contents.written_from(0), contents.idle_from(2)), (None, 2));
    contents.start_write(3, &buffer);
    assert_eq!(contents.idle_from(3), 0, "around the end");
}
