//! Receives.

use super::watch::BUDGET;
use super::{Failure, Idle, Run, Until};
use crate::{Nic, Platform};

impl<P: Platform, N: Nic> Run<'_, P, N> {
    pub(super) fn keep_receiving(&mut self, until: Until) -> Result<(), Failure> {
        let start = self.platform.tsc();
        let stuck = self.stuck();
        let mut idle = Idle::default();
        let mut left = until.operations;
        while left > 0 {
            let limit = u16::try_from(left).unwrap_or(BUDGET).min(BUDGET);
            let looked = self.watch.may_look(self.platform, self.nic)?;
            let (mut arrived, mut good) = (0, 0);
            if looked {
                let (tally, checker) = (&mut self.tally, &mut self.checker);
                arrived = self.nic.receive(limit, |arrival| {
                    good += u64::from(tally.note(checker, &arrival));
                })?;
            }
            let now = self.platform.tsc();
            self.tally.operations += good;
            left -= good;
            if good > 0 {
                idle.busy(now, &mut self.tally.waiting);
            }
            // The time is up even if nothing has come.
            let waited = if good > 0 { 0 } else { idle.idle(now) };
            if now.wrapping_sub(start) >= until.cycles {
                idle.busy(now, &mut self.tally.waiting);
                return Ok(());
            }
            if waited > stuck {
                return Err(Failure::Stuck);
            }
            if arrived < limit {
                if looked {
                    self.watch.nothing_left(self.nic)?;
                }
                if arrived == 0 {
                    self.watch.wait(self.platform, self.nic, false);
                }
            }
        }
        Ok(())
    }
}
