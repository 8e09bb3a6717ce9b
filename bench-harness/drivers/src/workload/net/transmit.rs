//! Sends.

use super::frames::MAX_TAGS;
use super::pace::Pace;
use super::{Failure, Idle, Run, Until};
use crate::{Nic, Platform};

/// When each tag's frame was handed over, or due.
type Times = [u64; MAX_TAGS];

/// Tags that came back in one look.
struct Done {
    tags: [u16; MAX_TAGS],
    count: usize,
}

impl Done {
    fn push(&mut self, tag: u16) {
        if let Some(place) = self.tags.get_mut(self.count) {
            *place = tag;
            self.count += 1;
        }
    }

    fn tags(&self) -> &[u16] {
        self.tags.get(..self.count).unwrap_or_default()
    }
}

impl<P: Platform, N: Nic> Run<'_, P, N> {
    pub(super) fn keep_transmitting(&mut self, until: Until) -> Result<(), Failure> {
        let start = self.platform.tsc();
        let stuck = self.stuck();
        let mut pace = self.pace(start);
        let mut idle = Idle::default();
        let mut times: Times = [0; MAX_TAGS];
        let mut done = Done { tags: [0; MAX_TAGS], count: 0 };
        let mut left = until.operations;
        let mut now = start;
        loop {
            let mut sent = 0;
            // The first group of a round goes with the time that was taken already.
            let mut stamp = Some(now);
            loop {
                let stamp = stamp.take().unwrap_or_else(|| self.platform.tsc());
                let group = match &mut pace {
                    None => self.submit_group(stamp, left, &mut times)?,
                    Some(pace) => self.submit_due(pace, now, left, &mut times)?,
                };
                if group == 0 {
                    break;
                }
                self.nic.kick()?;
                (left, sent) = (left - group, sent + group);
            }
            // A schedule goes on, unless there is no room for what is due.
            let time = left > 0 && pace.as_ref().is_some_and(|pace| pace.due(now).is_none());
            done.count = 0;
            let looked = self.watch.may_look(self.platform, self.nic)?;
            if looked {
                self.nic.reclaim(|tag| done.push(tag))?;
            }
            now = self.platform.tsc();
            for tag in done.tags() {
                self.frames.give_back(*tag);
                let time = times.get(usize::from(*tag)).copied().unwrap_or(now);
                self.outcome.latency.record(now.wrapping_sub(time));
            }
            self.tally.operations += done.count as u64;
            if now.wrapping_sub(start) >= until.cycles {
                left = 0;
            }
            if left == 0 && self.frames.in_flight() == 0 {
                idle.busy(now, &mut self.tally.waiting);
                return Ok(());
            }
            if sent > 0 || done.count > 0 {
                idle.busy(now, &mut self.tally.waiting);
                continue;
            }
            if idle.idle(now) > stuck && self.frames.in_flight() > 0 {
                return Err(Failure::Stuck);
            }
            if looked {
                self.watch.nothing_left(self.nic)?;
            }
            self.watch.wait(self.platform, self.nic, time && left > 0);
        }
    }

    /// Hands over a group, if there is room for all of it. Returns how many frames are in it: fewer
    /// only where a ring with nothing on it has no room for more.
    fn submit_group(&mut self, stamp: u64, left: u64, times: &mut Times) -> Result<u64, Failure> {
        let group = left.min(self.job.batch.into());
        let room = self.frames.room(self.nic) as u64;
        if room < group && self.frames.in_flight() > 0 {
            return Ok(0);
        }
        for sent in 0..group {
            let Some(tag) = self.send(stamp)? else { return Ok(sent) };
            if let Some(time) = times.get_mut(usize::from(tag)) {
                *time = stamp;
            }
        }
        Ok(group)
    }

    /// Hands over the frames that are due by `now`, a batch at most. Returns how many; what there is
    /// no room for stays due.
    fn submit_due(
        &mut self,
        pace: &mut Pace,
        now: u64,
        left: u64,
        times: &mut Times,
    ) -> Result<u64, Failure> {
        let most = left.min(self.job.batch.into());
        for sent in 0..most {
            let Some(due) = pace.due(now) else { return Ok(sent) };
            let Some(tag) = self.send(due)? else { return Ok(sent) };
            pace.advance();
            if let Some(time) = times.get_mut(usize::from(tag)) {
                *time = due;
            }
        }
        Ok(most)
    }
}
