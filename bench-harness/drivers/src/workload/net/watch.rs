//! When the adapter is looked at.

use crate::{Error, Nic, Platform};

/// Frames that are taken in one look at most, as by Linux's NAPI.
pub(super) const BUDGET: u16 = 64;

/// Sees to it that an adapter whose interrupts are on is not looked at before one was taken.
#[derive(Debug)]
pub(super) struct Watch {
    /// Whether its interrupts are used.
    interrupts: bool,
    /// Whether the next look must wait for one.
    armed: bool,
    /// Interrupts taken before the last look.
    taken: u64,
}

impl Watch {
    /// Turns the adapter's interrupts on, if they are to be used. The first look needs none.
    pub(super) fn new<N: Nic>(nic: &mut N, interrupts: bool) -> Result<Self, Error> {
        if interrupts {
            nic.set_interrupts(true)?;
        }
        Ok(Self { interrupts, armed: false, taken: 0 })
    }

    /// Whether the adapter may be looked at now.
    pub(super) fn may_look<P: Platform, N: Nic>(
        &mut self,
        platform: &P,
        nic: &mut N,
    ) -> Result<bool, Error> {
        if !self.interrupts {
            return Ok(true);
        }
        // Before the look: not all interrupts are masked while one is handled, and one that comes after the look
        // tells of something that it has not seen.
        let taken = platform.interrupts_taken(nic.interrupt());
        if self.armed {
            if taken == self.taken {
                return Ok(false);
            }
            self.armed = !nic.begin()?;
        }
        self.taken = taken;
        Ok(!self.armed)
    }

    /// A look has left nothing behind.
    pub(super) fn nothing_left<N: Nic>(&mut self, nic: &mut N) -> Result<(), Error> {
        if self.interrupts && !self.armed {
            self.armed = !nic.end()?;
        }
        Ok(())
    }

    /// Waits. With `time`, there is something to do at some time, whatever the adapter does.
    pub(super) fn wait<P: Platform, N: Nic>(&self, platform: &P, nic: &N, time: bool) {
        if self.armed && !time {
            platform.wait_for_interrupt(nic.interrupt(), self.taken);
        } else {
            platform.relax();
        }
    }

    /// Whether a frame has arrived for which no interrupt came. The adapter is of no use afterwards.
    pub(super) fn has_lost_one<P: Platform, N: Nic>(
        &self,
        platform: &P,
        nic: &mut N,
    ) -> Result<bool, Error> {
        let taken = |nic: &N| platform.interrupts_taken(nic.interrupt()) != self.taken;
        if !self.armed || taken(nic) || nic.receive(1, |_| ())? == 0 {
            return Ok(false);
        }
        // The frame may have come just now, with the interrupt on its way.
        platform.wait_for_interrupt(nic.interrupt(), self.taken);
        Ok(!taken(nic))
    }
}
