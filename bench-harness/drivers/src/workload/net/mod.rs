//! Frames on a network adapter.

mod check;
mod frames;
mod pace;
mod receive;
mod request;
mod respond;
mod sequence;
mod tally;
#[cfg(test)]
mod tests;
mod transmit;
mod watch;

use paraslot_protocol::traffic::{Flow, is_segmented};
use paraslot_protocol::{Completion as Mode, NetJob, Outcome, Phase, Traffic};
use zerocopy::little_endian::U64;

use super::{Failure, STUCK_MS};
use crate::error::{cycles, wait_until};
use crate::{Accesses, Error, Nic, Platform, Task};
use check::Checker;
use frames::Frames;
use pace::Pace;
use tally::{Idle, Tally};
use watch::Watch;

/// When to stop.
#[derive(Clone, Copy)]
struct Until {
    /// Cycles after the start.
    cycles: u64,
    /// Operations; `u64::MAX` for no limit.
    operations: u64,
}

/// A job on an adapter.
struct Run<'a, P, N> {
    platform: &'a P,
    nic: &'a mut N,
    job: NetJob,
    outcome: &'a mut Outcome,
    watch: Watch,
    frames: Frames,
    checker: Checker,
    tally: Tally,
    /// The number of the next frame to be sent.
    next: u64,
    /// Requests that were given up, of late.
    forsaken: request::Forsaken,
    hz: u64,
}

pub(super) fn drive<P: Platform, N: Nic>(
    platform: &P,
    nic: &mut N,
    job: &NetJob,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    job.check().map_err(Failure::Job)?;
    let (sends, receives) = match job.traffic {
        Traffic::Transmit => (true, false),
        Traffic::Receive => (false, true),
        Traffic::Request | Traffic::Respond => (true, true),
    };
    let offers = nic.offers();
    if is_segmented(job.frame_size)
        && ((sends && !offers.segmentation) || (receives && !offers.large_receive))
    {
        return Err(Failure::Unfit("frame_size"));
    }
    let hz = outcome.header.tsc_hz.get();
    wait_until(platform, STUCK_MS, "the link", || nic.link_up())?;
    // Requests come back as they were sent, also with their addresses exchanged.
    let own = Flow { source: nic.address(), destination: nic.address() };
    let flow = (job.traffic == Traffic::Request).then_some(own);
    let frames = Frames::new(platform, nic, job, own)?;
    let interrupts = job.completion == Mode::Interrupt;
    nic.set_refill(job.batch);
    let watch = Watch::new(nic, interrupts)?;
    nic.set_transmit_interrupts(interrupts && job.traffic == Traffic::Transmit);
    Run {
        platform,
        nic,
        job: *job,
        outcome,
        watch,
        frames,
        checker: Checker::new(job, flow),
        tally: Tally::new(job.verify),
        next: 0,
        forsaken: request::Forsaken::new(),
        hz,
    }
    .run()
}

impl<P: Platform, N: Nic> Run<'_, P, N> {
    /// The first frame, the warm-up, and the measured part.
    fn run(&mut self) -> Result<(), Failure> {
        if self.job.warm_up_ms != 0 {
            self.platform.phase(Phase::WarmUp);
        }
        if self.job.traffic == Traffic::Receive {
            self.keep(Until { cycles: u64::MAX, operations: 1 })?;
        }
        if self.job.warm_up_ms != 0 {
            let cycles = cycles(self.hz, self.job.warm_up_ms.into());
            self.keep(Until { cycles, operations: u64::MAX })?;
        }
        self.outcome.latency.clear();
        self.tally.restart();
        let until = Until {
            cycles: cycles(self.hz, self.job.measure_ms.into()),
            operations: match self.job.operations {
                0 => u64::MAX,
                operations => operations,
            },
        };
        self.platform.phase(Phase::Measure);
        let accesses = self.nic.accesses();
        let interrupts = self.platform.interrupts_taken(self.nic.interrupt());
        let start = self.platform.tsc();
        let result = self.keep(until);
        let end = self.platform.tsc();
        let accesses = self.nic.accesses().since(accesses);
        let interrupts =
            self.platform.interrupts_taken(self.nic.interrupt()).wrapping_sub(interrupts);
        self.platform.phase(Phase::Done);
        self.report(end.wrapping_sub(start), accesses, interrupts);
        match (result, self.tally.corrupt) {
            // What did not come back as it was may be why nothing goes on.
            (Err(Failure::Stuck), Some(number)) => return Err(Failure::Corrupt(number)),
            (result, _) => result?,
        }
        let receives = matches!(self.job.traffic, Traffic::Receive | Traffic::Respond);
        if receives && self.watch.has_lost_one(self.platform, self.nic)? {
            return Err(Failure::Stuck);
        }
        if self.job.completion == Mode::Interrupt {
            self.nic.set_interrupts(false)?;
        }
        match self.tally.corrupt {
            None => Ok(()),
            Some(number) => Err(Failure::Corrupt(number)),
        }
    }

    fn keep(&mut self, until: Until) -> Result<(), Failure> {
        match self.job.traffic {
            Traffic::Transmit => self.keep_transmitting(until),
            Traffic::Receive => self.keep_receiving(until),
            Traffic::Request => self.keep_requesting(until),
            Traffic::Respond => self.keep_responding(until),
        }
    }

    fn report(&mut self, cycles: u64, accesses: Accesses, interrupts: u64) {
        let (header, tally) = (&mut self.outcome.header, &self.tally);
        let bytes = tally.operations.wrapping_mul(self.job.frame_size.into());
        header.operations = U64::new(tally.operations);
        header.bytes = U64::new(bytes);
        header.cycles = U64::new(cycles);
        header.waiting_cycles = U64::new(tally.waiting);
        header.doorbells = U64::new(accesses.doorbells);
        header.register_accesses = U64::new(accesses.total());
        header.interrupts = U64::new(interrupts);
        header.verified = U64::new(tally.verified);
        header.errors = U64::new(tally.errors);
        header.lost = U64::new(tally.lost());
        header.reordered = U64::new(tally.reordered());
        header.max_latency = U64::new(self.outcome.latency.max());
    }

    /// The schedule from `start` on, if there is one.
    fn pace(&self, start: u64) -> Option<Pace> {
        (self.job.rate != 0).then(|| Pace::new(self.hz, self.job.rate, start))
    }

    /// How long nothing may happen, in cycles.
    fn stuck(&self) -> u64 {
        cycles(self.hz, STUCK_MS)
    }

    /// Sends the next frame, from a free tag, which is returned; `None` if there is no room for it.
    fn send(&mut self, stamp: u64) -> Result<Option<u16>, Failure> {
        let Some(tag) = self.frames.take() else { return Ok(None) };
        match self.frames.send(self.nic, tag, self.next, stamp) {
            // A frame may take more than one place on the ring.
            Err(Failure::Device(Error::Busy)) => {
                self.frames.give_back(tag);
                return Ok(None);
            }
            result => result?,
        }
        self.next = self.next.wrapping_add(1);
        Ok(Some(tag))
    }

    /// Sends the tag's frame as it is, once there is room for it on the ring.
    fn send_as_is(&mut self, tag: u16, task: Task) -> Result<(), Failure> {
        let mut idle = Idle::default();
        loop {
            match self.frames.send_as_is(self.nic, tag, task) {
                Err(Failure::Device(Error::Busy)) => self.nic.kick()?,
                result => return result,
            }
            self.wait_for_tags(&mut idle)?;
        }
    }

    /// Takes back the frames that the adapter is done with. They cause no interrupts, but for traffic
    /// that only sends.
    fn reclaim(&mut self) -> Result<usize, Failure> {
        let before = self.frames.free_count();
        let frames = &mut self.frames;
        self.nic.reclaim(|tag| frames.give_back(tag))?;
        Ok(self.frames.free_count() - before)
    }

    /// Takes back what there is, or rests; not for ever.
    fn wait_for_tags(&mut self, idle: &mut Idle) -> Result<(), Failure> {
        let reclaimed = self.reclaim()?;
        let now = self.platform.tsc();
        if reclaimed > 0 {
            idle.busy(now, &mut self.tally.waiting);
        } else if idle.idle(now) > self.stuck() {
            return Err(Failure::Stuck);
        } else {
            self.platform.relax();
        }
        Ok(())
    }

    /// Waits until the adapter is done with all frames.
    fn reclaim_all(&mut self) -> Result<(), Failure> {
        let mut idle = Idle::default();
        while self.frames.in_flight() > 0 {
            self.wait_for_tags(&mut idle)?;
        }
        Ok(())
    }
}
