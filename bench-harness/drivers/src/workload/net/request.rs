//! Sends requests, and waits for their answers.

use paraslot_protocol::MAX_BATCH;

use super::check::Verdict;
use super::pace::Pace;
use super::tally::{Idle, Tally};
use super::watch::BUDGET;
use super::{Failure, Run, Until};
use crate::error::cycles;
use crate::{Nic, Platform};

/// How long a request may be unanswered while later ones are answered, in milliseconds.
const LOST_MS: u64 = 1000;
/// How often that is looked at, in milliseconds.
const LOOK_MS: u64 = 10;

/// Requests to which the number alone leads, if no old one is in its way.
const SLOTS: usize = 2 * MAX_BATCH as usize;

/// A request that was not answered yet.
#[derive(Clone, Copy, Default)]
struct Request {
    number: u64,
    /// In the frame: when it was sent, or due.
    stamp: u64,
    /// When it was sent.
    sent: u64,
}

/// Requests that were not answered yet, [`MAX_BATCH`] at most.
struct Requests {
    /// Each at its number, modulo the slots.
    recent: [Option<Request>; SLOTS],
    /// Those whose slot was needed for a later one.
    old: [Option<Request>; MAX_BATCH as usize],
    old_count: usize,
    count: usize,
}

impl Requests {
    fn new() -> Self {
        Self { recent: [None; SLOTS], old: [None; MAX_BATCH as usize], old_count: 0, count: 0 }
    }

    fn slot(number: u64) -> usize {
        // Below the number of slots.
        usize::try_from(number % SLOTS as u64).unwrap_or(0)
    }

    fn push(&mut self, request: Request) {
        if let Some(old) = self.recent[Self::slot(request.number)].replace(request)
            && let Some(place) = self.old.iter_mut().find(|place| place.is_none())
        {
            *place = Some(old);
            self.old_count += 1;
        }
        self.count += 1;
    }

    /// Takes out the request with this number.
    fn take(&mut self, number: u64) -> Option<Request> {
        let is_it = |request: &mut Request| request.number == number;
        let mut found = self.recent[Self::slot(number)].take_if(is_it);
        if found.is_none() && self.old_count > 0 {
            found = self.old.iter_mut().find_map(|place| place.take_if(is_it));
            self.old_count -= usize::from(found.is_some());
        }
        self.count -= usize::from(found.is_some());
        found
    }

    /// The number of a request that was sent before `then`.
    fn before(&self, then: impl Fn(u64) -> bool) -> Option<u64> {
        let mut all = self.recent.iter().chain(&self.old).flatten();
        all.find(|request| then(request.sent)).map(|request| request.number)
    }
}

/// Requests that were given up: their answers may come yet.
pub(super) struct Forsaken {
    numbers: [Option<u64>; SLOTS],
    next: usize,
}

impl Forsaken {
    pub(super) fn new() -> Self {
        Self { numbers: [None; SLOTS], next: 0 }
    }

    fn push(&mut self, number: u64) {
        if let Some(place) = self.numbers.get_mut(self.next) {
            *place = Some(number);
        }
        self.next = (self.next + 1) % SLOTS;
    }

    /// Takes out a number, and says whether it was there.
    fn take(&mut self, number: u64) -> bool {
        let mut places = self.numbers.iter_mut();
        places.find(|place| **place == Some(number)).and_then(Option::take).is_some()
    }
}

/// The stamps of requests that were answered in one look.
struct Answered {
    stamps: [u64; BUDGET as usize],
    count: usize,
    /// The highest number of all.
    highest: u64,
}

impl Answered {
    fn push(&mut self, request: Request) {
        if let Some(place) = self.stamps.get_mut(self.count) {
            *place = request.stamp;
            self.count += 1;
        }
    }
}

impl<P: Platform, N: Nic> Run<'_, P, N> {
    pub(super) fn keep_requesting(&mut self, until: Until) -> Result<(), Failure> {
        let start = self.platform.tsc();
        let stuck = self.stuck();
        let (lost, look) = (cycles(self.hz, LOST_MS), cycles(self.hz, LOOK_MS));
        let mut pace = self.pace(start);
        let mut idle = Idle::default();
        let mut requests = Requests::new();
        let mut answered = Answered { stamps: [0; BUDGET as usize], count: 0, highest: 0 };
        // When the last answer came, or the first request was sent after a time without any; and when
        // it was last looked for lost ones.
        let (mut answered_at, mut looked_at) = (start, start);
        let batch = usize::from(self.job.batch);
        let mut left = until.operations;
        loop {
            let (before, mut blocked) = (left, false);
            if left > 0 && requests.count < batch {
                let now = self.platform.tsc();
                if requests.count == 0 {
                    answered_at = now;
                }
                let sent = self.request(now, pace.as_mut(), left, &mut requests)?;
                left -= sent;
                // There are places for requests, so what is due waits for room on the ring.
                blocked = left > 0
                    && requests.count < batch
                    && pace.as_ref().is_none_or(|pace| pace.due(now).is_some());
            }
            let sent = before - left;
            answered.count = 0;
            let looked = self.watch.may_look(self.platform, self.nic)?;
            let mut arrived = 0;
            if looked {
                let (tally, checker) = (&mut self.tally, &mut self.checker);
                let forsaken = &mut self.forsaken;
                arrived = self.nic.receive(BUDGET, |arrival| {
                    let verdict = tally.look(checker, &arrival);
                    settle(verdict, &mut requests, &mut answered, forsaken, tally);
                })?;
            }
            let now = self.platform.tsc();
            for stamp in answered.stamps.iter().take(answered.count) {
                self.outcome.latency.record(now.wrapping_sub(*stamp));
            }
            self.tally.operations += answered.count as u64;
            if answered.count > 0 {
                answered_at = now;
            }
            if now.wrapping_sub(start) >= until.cycles {
                left = 0;
            }
            if now.wrapping_sub(looked_at) > look {
                looked_at = now;
                self.give_up(&mut requests, |sent| {
                    let later = answered_at.wrapping_sub(sent);
                    now.wrapping_sub(sent) > lost && later != 0 && later < 1 << 63
                });
            }
            if looked && arrived < BUDGET {
                self.watch.nothing_left(self.nic)?;
            }
            if requests.count > 0 && now.wrapping_sub(answered_at) > stuck {
                return Err(Failure::Stuck);
            }
            if left == 0 && requests.count == 0 {
                idle.busy(now, &mut self.tally.waiting);
                return self.reclaim_all();
            }
            if sent > 0 || answered.count > 0 {
                idle.busy(now, &mut self.tally.waiting);
                continue;
            }
            if idle.idle(now) > stuck && blocked {
                return Err(Failure::Stuck);
            }
            if arrived == 0 {
                // Frames that were sent cause no interrupts.
                let scheduled = pace.is_some() && requests.count < batch;
                let time = left > 0 && (blocked || scheduled);
                self.watch.wait(self.platform, self.nic, time);
            }
        }
    }

    /// Sends the requests that are due, as far as there are places for them and room on the ring, and
    /// returns how many.
    fn request(
        &mut self,
        now: u64,
        mut pace: Option<&mut Pace>,
        left: u64,
        requests: &mut Requests,
    ) -> Result<u64, Failure> {
        let places = usize::from(self.job.batch) - requests.count;
        if self.frames.free_count() < places {
            self.reclaim()?;
        }
        let most = left.min(places as u64);
        let mut sent = 0;
        while sent < most {
            let due = pace.as_ref().map_or(Some(now), |pace| pace.due(now));
            let Some(stamp) = due else { break };
            let number = self.next;
            // The ring may be full before the tags are used up: then of what was sent before.
            if self.send(stamp)?.is_none() && (self.reclaim()? == 0 || self.send(stamp)?.is_none())
            {
                break;
            }
            if let Some(pace) = &mut pace {
                pace.advance();
            }
            requests.push(Request { number, stamp, sent: now });
            sent += 1;
        }
        if sent > 0 {
            self.nic.kick()?;
        }
        Ok(sent)
    }

    /// Gives up the requests that are lost.
    fn give_up(&mut self, requests: &mut Requests, is_lost: impl Fn(u64) -> bool) {
        while let Some(number) = requests.before(&is_lost) {
            if requests.take(number).is_none() {
                return;
            }
            self.forsaken.push(number);
            self.tally.given_up += 1;
        }
    }
}

/// Finds the request that a frame answers.
fn settle(
    verdict: Verdict,
    requests: &mut Requests,
    answered: &mut Answered,
    forsaken: &mut Forsaken,
    tally: &mut Tally,
) {
    let (number, stamp) = match verdict {
        Verdict::Foreign => return,
        Verdict::Bad(number) => {
            // There will be no other answer to it.
            requests.take(number);
            return;
        }
        Verdict::Good { number, stamp } => (number, stamp),
    };
    match requests.take(number) {
        Some(request) if request.stamp == stamp => answered.push(request),
        None if forsaken.take(number) => {}
        // Not what was sent, or what came before.
        _ => return tally.bad(number),
    }
    if number < answered.highest {
        tally.overtaken += 1;
    }
    answered.highest = answered.highest.max(number);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_found_by_number_also_when_old_ones_are_in_the_way() {
        let mut requests = Requests::new();
        let request = |number| Request { number, stamp: number + 1, sent: number + 2 };
        // Every 64th is never answered.
        for number in 0..2560 {
            requests.push(request(number));
            if number % 64 != 5 {
                let found = requests.take(number).map(|request| request.stamp);
                assert_eq!(found, Some(number + 1));
                assert!(requests.take(number).is_none());
            }
        }
        assert_eq!(requests.count, 40);
        for number in (0..2560).filter(|number| number % 64 == 5).rev() {
            let found = requests.take(number).map(|request| request.number);
            assert_eq!(found, Some(number));
        }
        assert_eq!((requests.count, requests.old_count), (0, 0));
        assert!(requests.before(|_| true).is_none());
        requests.push(request(7));
        assert_eq!(requests.before(|sent| sent < 10), Some(7));
        assert_eq!(requests.before(|sent| sent < 9), None);
    }

    #[test]
    fn the_last_ones_given_up_are_remembered_once() {
        let mut forsaken = Forsaken::new();
        for number in 0..1000 {
            forsaken.push(number);
        }
        assert!(forsaken.take(999) && !forsaken.take(999));
        assert!(forsaken.take(1000 - SLOTS as u64) && !forsaken.take(999 - SLOTS as u64));
    }
}
