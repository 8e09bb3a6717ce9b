//! Sends back what it receives.

use super::watch::BUDGET;
use super::{Failure, Idle, Run, Until};
use crate::{Nic, Platform, Task};

impl<P: Platform, N: Nic> Run<'_, P, N> {
    pub(super) fn keep_responding(&mut self, until: Until) -> Result<(), Failure> {
        let start = self.platform.tsc();
        let stuck = self.stuck();
        let mut idle = Idle::default();
        let mut answers = [(0, Task::None); BUDGET as usize];
        let mut left = until.operations;
        while left > 0 {
            if self.frames.free_count() < usize::from(BUDGET) {
                self.reclaim()?;
            }
            let room = self.frames.free_count().min(usize::from(BUDGET));
            let limit = u16::try_from(left.min(room as u64)).unwrap_or(0);
            let looked = limit > 0 && self.watch.may_look(self.platform, self.nic)?;
            let (mut arrived, mut count) = (0, 0);
            if looked {
                let (tally, checker, frames) =
                    (&mut self.tally, &mut self.checker, &mut self.frames);
                arrived = self.nic.receive(limit, |arrival| {
                    if !tally.note(checker, &arrival) {
                        return;
                    }
                    let (Some(tag), Some(first), Some(place)) =
                        (frames.take(), arrival.pieces.first(), answers.get_mut(count))
                    else {
                        return;
                    };
                    *place = (tag, frames.answer(tag, &arrival, checker.pseudo_of(first)));
                    count += 1;
                })?;
                for (tag, task) in answers.iter().take(count) {
                    self.send_as_is(*tag, *task)?;
                }
                self.nic.kick()?;
            }
            let now = self.platform.tsc();
            self.tally.operations += count as u64;
            left -= count as u64;
            if count > 0 {
                idle.busy(now, &mut self.tally.waiting);
            }
            let waited = if count > 0 { 0 } else { idle.idle(now) };
            if now.wrapping_sub(start) >= until.cycles {
                idle.busy(now, &mut self.tally.waiting);
                break;
            }
            // That no request comes is fine, but not that no answer gets away.
            if limit == 0 && waited > stuck {
                return Err(Failure::Stuck);
            }
            if looked && arrived < limit {
                self.watch.nothing_left(self.nic)?;
            }
            if arrived == 0 {
                self.watch.wait(self.platform, self.nic, limit == 0);
            }
        }
        self.reclaim_all()
    }
}
