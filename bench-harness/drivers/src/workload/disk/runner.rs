//! The loop that keeps requests in flight.

use paraslot_protocol::{Access, Completion as Mode, DiskJob, Outcome, PATTERN_BLOCK, Phase};
use zerocopy::little_endian::U64;

use super::super::{Failure, STUCK_MS};
use super::contents::Contents;
use super::random::Random;
use crate::error::cycles;
use crate::{Accesses, Completions, Disk, DmaRegion, Error, MAX_DEPTH, Op, Platform};

/// A request in flight.
#[derive(Clone, Copy, Default)]
struct Flight {
    block: u64,
    submitted: u64,
}

/// When to stop submitting.
#[derive(Clone, Copy)]
struct Until {
    /// Cycles after the start.
    cycles: u64,
    /// Operations submitted; 0 for no limit.
    operations: u64,
}

pub(super) struct Runner<'a, P, D> {
    platform: &'a P,
    disk: &'a mut D,
    job: DiskJob,
    contents: Contents,
    /// A block for each tag.
    buffers: DmaRegion,
    block_size: usize,
    outcome: &'a mut Outcome,
    random: Random,
    /// The next block of sequential accesses.
    next: u64,
    flights: [Flight; MAX_DEPTH],
    completions: Completions,
    /// Interrupts taken, as last seen.
    taken: u64,
    corrupt: Option<u64>,
    hz: u64,
}

impl<'a, P: Platform, D: Disk> Runner<'a, P, D> {
    pub(super) fn new(
        platform: &'a P,
        disk: &'a mut D,
        job: DiskJob,
        contents: Contents,
        buffers: DmaRegion,
        outcome: &'a mut Outcome,
    ) -> Self {
        let hz = outcome.header.tsc_hz.get();
        let block_size = buffers.len() / usize::from(job.depth);
        Self {
            platform,
            disk,
            job,
            contents,
            buffers,
            block_size,
            outcome,
            random: Random::new(job.seed),
            next: 0,
            flights: [Flight::default(); MAX_DEPTH],
            completions: Completions::new(),
            taken: 0,
            corrupt: None,
            hz,
        }
    }

    /// Warm-up, the measured part, and the check of what was written.
    pub(super) fn run(&mut self) -> Result<(), Failure> {
        if self.job.completion == Mode::Interrupt {
            self.disk.set_interrupts(true)?;
            self.taken = self.platform.interrupts_taken(self.disk.interrupt());
        }
        if self.job.warm_up_ms != 0 {
            self.platform.phase(Phase::WarmUp);
            let cycles = cycles(self.hz, self.job.warm_up_ms.into());
            self.keep_busy(Until { cycles, operations: 0 })?;
            self.outcome.latency.clear();
            let header = &mut self.outcome.header;
            header.operations = U64::new(0);
            header.verified = U64::new(0);
            header.waiting_cycles = U64::new(0);
        }
        let until = Until {
            cycles: cycles(self.hz, self.job.measure_ms.into()),
            operations: self.job.operations,
        };
        self.platform.phase(Phase::Measure);
        let accesses = self.disk.accesses();
        let interrupts = self.platform.interrupts_taken(self.disk.interrupt());
        let start = self.platform.tsc();
        let result = self.keep_busy(until);
        let end = self.platform.tsc();
        let accesses = self.disk.accesses().since(accesses);
        let interrupts =
            self.platform.interrupts_taken(self.disk.interrupt()).wrapping_sub(interrupts);
        self.platform.phase(Phase::Done);
        self.report(end.wrapping_sub(start), accesses, interrupts);
        result?;
        if self.job.completion == Mode::Interrupt {
            self.disk.set_interrupts(false)?;
        }
        if self.job.verify && self.job.access == Access::RandomWrite {
            self.read_back()?;
        }
        match self.corrupt {
            None => Ok(()),
            Some(offset) => Err(Failure::Corrupt(offset)),
        }
    }

    fn report(&mut self, cycles: u64, accesses: Accesses, interrupts: u64) {
        let header = &mut self.outcome.header;
        let bytes = header.operations.get().wrapping_mul(self.job.block_size.into());
        header.bytes = U64::new(bytes);
        header.cycles = U64::new(cycles);
        header.doorbells = U64::new(accesses.doorbells);
        header.register_accesses = U64::new(accesses.total());
        header.interrupts = U64::new(interrupts);
        header.max_latency = U64::new(self.outcome.latency.max());
    }

    fn buffer(&self, tag: u16) -> DmaRegion {
        let len = self.block_size;
        self.buffers.part(usize::from(tag) * len, len)
    }

    fn flight(&mut self, tag: u16) -> &mut Flight {
        // Disks give back the tags they were given, which are below MAX_DEPTH.
        let index = usize::from(tag) % MAX_DEPTH;
        &mut self.flights[index]
    }

    /// The next block in order, starting over at the end.
    fn next_block(&mut self) -> u64 {
        let block = self.next;
        self.next = (block + 1) % self.contents.blocks();
        block
    }

    /// Submits the next request of the job.
    fn submit(&mut self, tag: u16) -> Result<(), Error> {
        let buffer = self.buffer(tag);
        let block = match self.job.access {
            Access::SequentialRead => self.next_block(),
            Access::Fill => {
                let block = self.next_block();
                self.contents.fill(block, &buffer);
                block
            }
            Access::RandomRead => self.random.below(self.contents.blocks()),
            Access::RandomWrite => {
                let block = self.random.below(self.contents.blocks());
                let block = self.contents.idle_from(block);
                self.contents.start_write(block, &buffer);
                block
            }
        };
        let op = match self.job.access {
            Access::RandomWrite | Access::Fill => Op::Write(&buffer),
            Access::RandomRead | Access::SequentialRead => {
                if self.job.verify {
                    spoil(&buffer);
                }
                Op::Read(&buffer)
            }
        };
        let offset = self.contents.offset(block);
        *self.flight(tag) = Flight { block, submitted: self.platform.tsc() };
        self.disk.submit(tag, offset, op)
    }

    /// Keeps `depth` requests in flight until it is time to stop, then waits for the last.
    fn keep_busy(&mut self, until: Until) -> Result<(), Failure> {
        let start = self.platform.tsc();
        let mut left = match until.operations {
            0 => u64::MAX,
            operations => operations,
        };
        let mut in_flight = 0;
        for tag in 0..self.job.depth {
            if left == 0 {
                break;
            }
            self.submit(tag)?;
            (left, in_flight) = (left - 1, in_flight + 1);
        }
        self.disk.kick()?;
        while in_flight > 0 {
            let now = self.wait()?;
            if now.wrapping_sub(start) >= until.cycles {
                left = 0;
            }
            for index in 0..self.completions.len() {
                let Some(tag) = self.completed(index, now)? else { continue };
                in_flight -= 1;
                if left > 0 {
                    self.submit(tag)?;
                    (left, in_flight) = (left - 1, in_flight + 1);
                }
            }
            self.disk.kick()?;
        }
        Ok(())
    }

    /// Accounts for one completion that was seen at `now`, and returns its tag.
    fn completed(&mut self, index: usize, now: u64) -> Result<Option<u16>, Failure> {
        let Some(completion) = self.completions.as_slice().get(index).copied() else {
            return Ok(None);
        };
        let tag = completion.tag;
        let flight = *self.flight(tag);
        if let Err(failed) = completion.result {
            self.count_error();
            return Err(Failure::Request(failed));
        }
        self.outcome.latency.record(now.wrapping_sub(flight.submitted));
        let operations = &mut self.outcome.header.operations;
        *operations = U64::new(operations.get() + 1);
        match self.job.access {
            Access::RandomWrite => self.contents.end_write(flight.block),
            Access::RandomRead | Access::SequentialRead if self.job.verify => {
                self.check(tag, flight.block);
            }
            Access::RandomRead | Access::SequentialRead | Access::Fill => {}
        }
        Ok(Some(tag))
    }

    fn count_error(&mut self) {
        let errors = &mut self.outcome.header.errors;
        *errors = U64::new(errors.get() + 1);
    }

    /// Compares what was read from `block` with what should be there.
    fn check(&mut self, tag: u16, block: u64) {
        let verified = &mut self.outcome.header.verified;
        *verified = U64::new(verified.get() + 1);
        if !self.contents.matches(block, &self.buffer(tag)) {
            self.count_error();
            self.corrupt.get_or_insert(self.contents.offset(block));
        }
    }

    /// Waits for completions, and returns when they were seen.
    fn wait(&mut self) -> Result<u64, Failure> {
        self.completions.clear();
        if self.job.completion == Mode::Poll {
            self.disk.poll(&mut self.completions)?;
        } else {
            self.take_interrupt()?;
        }
        let first = self.platform.tsc();
        if !self.completions.is_empty() {
            return Ok(first);
        }
        let limit = cycles(self.hz, STUCK_MS);
        loop {
            if self.job.completion == Mode::Poll {
                self.platform.relax();
                self.disk.poll(&mut self.completions)?;
            } else {
                self.platform.wait_for_interrupt(self.disk.interrupt(), self.taken);
                self.take_interrupt()?;
            }
            let now = self.platform.tsc();
            let waited = now.wrapping_sub(first);
            if !self.completions.is_empty() {
                let waiting = &mut self.outcome.header.waiting_cycles;
                *waiting = U64::new(waiting.get().saturating_add(waited));
                return Ok(now);
            }
            if waited > limit {
                return Err(Failure::Stuck);
            }
        }
    }

    /// Lets the disk handle an interrupt, if one was taken since the last time. Without one it is not
    /// asked: a lost interrupt shall be noticed.
    fn take_interrupt(&mut self) -> Result<(), Error> {
        let taken = self.platform.interrupts_taken(self.disk.interrupt());
        if taken == self.taken {
            return Ok(());
        }
        self.taken = taken;
        self.disk.handle(&mut self.completions)
    }

    /// Reads every written block and checks it.
    fn read_back(&mut self) -> Result<(), Failure> {
        self.job.completion = Mode::Poll;
        let waiting = self.outcome.header.waiting_cycles;
        match self.disk.submit(0, 0, Op::Flush) {
            Ok(()) => {
                self.disk.kick()?;
                self.wait()?;
                self.fail_on_error()?;
            }
            Err(Error::Unsupported(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let mut next = self.contents.written_from(0);
        let mut in_flight = 0;
        for tag in 0..self.job.depth {
            in_flight += u32::from(self.submit_check(tag, &mut next)?);
        }
        self.disk.kick()?;
        while in_flight > 0 {
            self.wait()?;
            self.fail_on_error()?;
            for index in 0..self.completions.len() {
                let Some(tag) = self.completions.as_slice().get(index).map(|done| done.tag) else {
                    continue;
                };
                let block = self.flight(tag).block;
                self.check(tag, block);
                in_flight -= 1;
                in_flight += u32::from(self.submit_check(tag, &mut next)?);
            }
            self.disk.kick()?;
        }
        // That was of the measured part.
        self.outcome.header.waiting_cycles = waiting;
        Ok(())
    }

    fn fail_on_error(&mut self) -> Result<(), Failure> {
        match self.completions.as_slice().iter().find_map(|done| done.result.err()) {
            None => Ok(()),
            Some(failed) => {
                self.count_error();
                Err(Failure::Request(failed))
            }
        }
    }

    /// Submits the read of the next written block, if there is one.
    fn submit_check(&mut self, tag: u16, next: &mut Option<u64>) -> Result<bool, Error> {
        let Some(block) = *next else { return Ok(false) };
        let buffer = self.buffer(tag);
        spoil(&buffer);
        *next = self.contents.written_from(block + 1);
        *self.flight(tag) = Flight { block, submitted: 0 };
        self.disk.submit(tag, self.contents.offset(block), Op::Read(&buffer))?;
        Ok(true)
    }
}

/// Sees to it that what a buffer holds from before does not pass for what is read into it.
fn spoil(buffer: &DmaRegion) {
    for start in (0..buffer.len()).step_by(PATTERN_BLOCK) {
        // No two neighbouring words of a pattern are equal.
        buffer.write64(start, 0);
        buffer.write64(start + 8, 0);
    }
}
