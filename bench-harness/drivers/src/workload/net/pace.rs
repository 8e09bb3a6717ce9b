//! When frames are due.

/// A schedule with a fixed rate. Frame `n` is due `n` / rate seconds after the start, rounded down to
/// cycles, without drift.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Cycles from frame to frame, and what that leaves over, in cycles / `rate`.
    period: u64,
    rest: u64,
    rate: u64,
    /// What has been left over so far, below `rate`.
    over: u64,
    next: u64,
}

impl Pace {
    /// `rate` frames a second, not 0, of which the first is due at `start`.
    pub(super) fn new(hz: u64, rate: u32, start: u64) -> Self {
        let rate = u64::from(rate.max(1));
        Self { period: hz / rate, rest: hz % rate, rate, over: 0, next: start }
    }

    /// When the next frame was due, if it is by `now`.
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        // As a signed number, since the counter may wrap.
        let ahead = self.next.wrapping_sub(now);
        (ahead == 0 || ahead >= 1 << 63).then_some(self.next)
    }

    /// The next frame was sent; it is the turn of the one after it.
    pub(super) fn advance(&mut self) {
        self.over += self.rest;
        self.next = self.next.wrapping_add(self.period).wrapping_add(self.over / self.rate);
        self.over %= self.rate;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    #[test]
    fn frames_are_due_at_their_time_and_not_before() {
        for start in [0, 1000, u64::MAX - 500] {
            let mut pace = Pace::new(1000, 3, start);
            let mut due = Vec::new();
            for cycle in 0..2000 {
                let now = start.wrapping_add(cycle);
                while let Some(time) = pace.due(now) {
                    assert_eq!((time, pace.due(now)), (now, Some(now)), "until it is sent");
                    pace.advance();
                    due.push(cycle);
                }
            }
            assert_eq!(due, [0, 333, 666, 1000, 1333, 1666]);
        }
    }

    #[test]
    fn what_was_not_sent_in_time_is_due_at_once_and_keeps_its_time() {
        let times = |mut pace: Pace, now| -> Vec<u64> {
            core::iter::from_fn(|| pace.due(now).inspect(|_| pace.advance())).collect()
        };
        assert_eq!(times(Pace::new(1000, 100, 50), 95), [50, 60, 70, 80, 90]);
        // More frames than cycles.
        assert_eq!(times(Pace::new(10, 25, 0), 1), [0, 0, 0, 1, 1]);
    }
}
