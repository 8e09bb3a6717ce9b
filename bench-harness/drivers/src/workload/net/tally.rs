//! What is counted.

use super::check::{Checker, Verdict};
use super::sequence::{Duplicate, Sequence};
use crate::Arrival;

/// Counts of one part of a run, warm-up or measured. Errors are of all parts.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) operations: u64,
    pub(super) verified: u64,
    pub(super) errors: u64,
    /// Requests that were given up, and answers that came late.
    pub(super) given_up: u64,
    pub(super) overtaken: u64,
    /// Cycles in which there was nothing to do but wait.
    pub(super) waiting: u64,
    pub(super) sequence: Sequence,
    /// The number of the first frame that was not as it should be.
    pub(super) corrupt: Option<u64>,
    verify: bool,
}

impl Tally {
    pub(super) fn new(verify: bool) -> Self {
        Self {
            operations: 0,
            verified: 0,
            errors: 0,
            given_up: 0,
            overtaken: 0,
            waiting: 0,
            sequence: Sequence::new(),
            corrupt: None,
            verify,
        }
    }

    /// Starts to count anew, errors apart.
    pub(super) fn restart(&mut self) {
        (self.operations, self.verified, self.waiting) = (0, 0, 0);
        (self.given_up, self.overtaken) = (0, 0);
        self.sequence.restart();
    }

    /// Frames that are missing, however that was found out.
    pub(super) fn lost(&self) -> u64 {
        self.given_up.saturating_add(self.sequence.lost())
    }

    /// Frames that came after later ones.
    pub(super) fn reordered(&self) -> u64 {
        self.overtaken.saturating_add(self.sequence.reordered())
    }

    /// A frame was not as it should be.
    pub(super) fn bad(&mut self, number: u64) {
        self.errors += 1;
        self.corrupt.get_or_insert(number);
    }

    /// Looks at a frame, and counts it if it is a bad one.
    pub(super) fn look(&mut self, checker: &mut Checker, arrival: &Arrival<'_>) -> Verdict {
        let verdict = checker.look(arrival);
        if self.verify && verdict != Verdict::Foreign {
            self.verified += 1;
        }
        if let Verdict::Bad(number) = verdict {
            self.bad(number);
        }
        verdict
    }

    /// As [`look`](Self::look) for frames that arrive in one stream. Says whether the frame was a good
    /// one that did not come before.
    pub(super) fn note(&mut self, checker: &mut Checker, arrival: &Arrival<'_>) -> bool {
        let Verdict::Good { number, .. } = self.look(checker, arrival) else { return false };
        match self.sequence.note(number) {
            Ok(()) => true,
            Err(Duplicate) => {
                self.bad(number);
                false
            }
        }
    }
}

/// Time in which there is nothing to do.
#[derive(Debug, Default)]
pub(super) struct Idle(Option<u64>);

impl Idle {
    /// There was something to do at `now`; what was waited goes to `waiting`.
    pub(super) fn busy(&mut self, now: u64, waiting: &mut u64) {
        if let Some(since) = self.0.take() {
            *waiting = waiting.saturating_add(now.wrapping_sub(since));
        }
    }

    /// There was nothing to do at `now`. Returns for how long there was not.
    pub(super) fn idle(&mut self, now: u64) -> u64 {
        now.wrapping_sub(*self.0.get_or_insert(now))
    }
}
