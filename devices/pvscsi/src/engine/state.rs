//! The engine, saved.

use paraslot_device::{DmaSpace, StateError};
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::request::{Over, OverState};
use crate::rings::{Rings, RingsState};
use crate::shared::ChangeState;

/// The rings, and what the driver has not been told of.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rings: Option<RingsState>,
    threshold: bool,
    busy: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    over: Vec<OverState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    news: Vec<ChangeState>,
}

impl<A: DmaSpace> Engine<A> {
    /// What [`restore`](Self::restore) takes.
    ///
    /// # Errors
    /// When the engine works, or a request is with the target: a PREEMPT AND ABORT that waits for
    /// requests of another adapter to end.
    pub(crate) fn save(&self) -> Result<EngineState, StateError> {
        let Self {
            shared,
            dma: _,
            bus: _,
            lane,
            rings,
            // Empty, like the lane.
            slots: _,
            free: _,
            over,
            completions: _,
            segments: _,
            live: _,
            threshold,
            busy,
            paused,
            power_on: _,
        } = self;
        if !paused {
            return Err(StateError::NotPaused);
        }
        if lane.in_flight() != 0 {
            return Err(StateError::Busy("a request waits for requests of others"));
        }
        Ok(EngineState {
            rings: rings.as_ref().map(Rings::save),
            threshold: *threshold,
            busy: *busy,
            over: over.iter().map(OverState::from).collect(),
            news: shared.news(),
        })
    }

    /// Takes a saved state over, after a reset that has left no request with the target.
    ///
    /// # Errors
    /// When it is none that a driver could bring about.
    pub(crate) fn restore(&mut self, state: EngineState) -> Result<(), StateError> {
        let EngineState { rings, threshold, busy, over, news } = state;
        let rings = rings.as_ref().map(Rings::restore).transpose()?;
        // Each request that was taken had room for its completion.
        let most = rings.as_ref().map_or(0, Rings::completions);
        if over.len() > most {
            return Err(StateError::impossible("more requests than there is room to report"));
        }
        let over = over.into_iter().map(Over::try_from).collect::<Result<_, _>>()?;
        let wanted = rings.as_ref().is_some_and(Rings::has_messages);
        self.shared.restore_news(wanted, &news, &self.bus)?;
        (self.rings, self.threshold, self.busy, self.over) = (rings, threshold, busy, over);
        Ok(())
    }

    /// Whether nothing is done until it is said so.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }
}
