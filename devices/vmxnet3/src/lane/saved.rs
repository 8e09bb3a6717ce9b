//! A lane, saved.
//!
//! It holds little between two rounds of work. What it does not say: interrupts that are held back
//! belong to the first worker after a restoration; whether the backend is busy is seen anew; and the
//! second look, 100 µs after a driver has been told to ring, is made by the first round.

use std::time::Duration;

use paraslot_device::{DmaSpace, StateError};
use paraslot_spec::vmxnet3::MAX_TX_QUEUES;
use serde::{Deserialize, Serialize};

use super::{LOOK_FIRST, LOOK_LAST, Lane, LaneWorker, PATIENCE, Starving};
use crate::clock::WHILE;
use crate::receive::{Arrival, ArrivalState};
use crate::save::{elapsed, is_default, require};
use crate::state::Active;

/// What a lane has to itself of an activation.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaneState {
    /// Which of the transmit queues is the next to be looked at first.
    #[serde(default, skip_serializing_if = "is_default")]
    turn: u8,
    /// The frame that waits for buffers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frame: Option<ArrivalState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    starving: Option<StarvingState>,
}

/// Times in nanoseconds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StarvingState {
    /// For how long it has lasted.
    since: u64,
    /// How long it is until the next look.
    next: u64,
    /// How long it was between two looks.
    pause: u64,
}

/// A lane that can be like that.
#[derive(Default)]
pub(crate) struct CheckedLane {
    turn: usize,
    arrival: Option<Arrival>,
    starving: Option<Starving>,
}

impl<A: DmaSpace> LaneWorker<A> {
    /// For a worker that is stopped: everything that was counted has been told.
    pub(crate) fn save(&self, active: &Active, now: Duration) -> LaneState {
        let Self { shared: _, lane } = self;
        let Lane {
            index: _,
            dma: _,
            clock: _,
            timer: _,
            sender: _,
            receiver: _,
            builder: _,
            inbox,
            epoch,
            turn,
            busy: _,
            held: _,
            settle: _,
            starving,
            net: _,
            copied: _,
            waits: _,
        } = lane;
        if *epoch != active.epoch {
            // What it holds is of before.
            return LaneState::default();
        }
        let starving = starving.map(|Starving { since, next, pause }| StarvingState {
            since: elapsed(since, now, PATIENCE),
            next: elapsed(now, next, pause),
            pause: elapsed(Duration::ZERO, pause, LOOK_LAST),
        });
        let turn = u8::try_from(*turn).unwrap_or(0);
        LaneState { turn, frame: inbox.save(), starving }
    }

    /// Takes over what was saved, and checked.
    pub(crate) fn restore(&mut self, state: &LaneState, checked: CheckedLane, active: &Active) {
        self.lane.enter(active);
        let CheckedLane { turn, arrival, starving } = checked;
        self.lane.turn = turn;
        self.lane.starving = starving;
        if let (Some(frame), Some(arrival)) = (&state.frame, arrival) {
            self.lane.inbox.restore(frame, arrival);
        }
    }
}

impl LaneState {
    /// For a device with `queues` receive queues.
    pub(crate) fn check(&self, queues: usize, now: Duration) -> Result<CheckedLane, StateError> {
        let Self { turn, frame, starving } = self;
        let turn = usize::from(*turn);
        require(turn <= MAX_TX_QUEUES, "the turn of a queue that is not there")?;
        let arrival = frame.as_ref().map(|frame| frame.check(queues)).transpose()?;
        let starving = starving.as_ref().map(|state| state.check(now)).transpose()?;
        Ok(CheckedLane { turn, arrival, starving })
    }
}

impl StarvingState {
    fn check(&self, now: Duration) -> Result<Starving, StateError> {
        let Self { since, next, pause } = *self;
        let [since, next, pause] = [since, next, pause].map(Duration::from_nanos);
        let doubled = |last: &Duration| (*last < LOOK_LAST).then(|| (*last * 2).min(LOOK_LAST));
        let known = std::iter::successors(Some(LOOK_FIRST), doubled).any(|one| one == pause);
        let right = known && since <= PATIENCE && next <= pause;
        require(right, "a worker looks for buffers at impossible times")?;
        const { assert!(PATIENCE.as_nanos() <= WHILE.as_nanos()) };
        Ok(Starving { since: now.saturating_sub(since), next: now.saturating_add(next), pause })
    }
}
