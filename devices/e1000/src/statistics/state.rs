//! The statistics registers, saved.

use std::sync::atomic::Ordering;

use paraslot_device::StateError;
use serde::{Deserialize, Serialize};

use super::{COUNTS, NOTHING, PAIRS, Pair, Statistics, index};
use crate::state::require;

/// What was counted and not read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatisticsState {
    /// The registers of 32 bits, from the first on; those of pairs are 0.
    counts: Vec<u32>,
    pairs: Vec<PairState>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairState {
    count: u64,
    /// What the low register said, if the high one has not been read since.
    latched: Option<u64>,
}

impl Statistics {
    pub(crate) fn save(&self) -> StatisticsState {
        let Self { counts, pairs } = self;
        let pairs = pairs.iter().map(|Pair { count, latched }| {
            let latched = latched.load(Ordering::Relaxed);
            let latched = (latched != NOTHING).then_some(latched);
            PairState { count: count.load(Ordering::Relaxed), latched }
        });
        StatisticsState {
            counts: counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            pairs: pairs.collect(),
        }
    }

    pub(crate) fn restore(&self, state: &StatisticsState) -> Result<(), StateError> {
        let StatisticsState { counts, pairs } = state;
        let all = counts.len() == COUNTS && pairs.len() == self.pairs.len();
        require(all, "other statistics registers")?;
        let halves = PAIRS.iter().flat_map(|low| [index(*low), index(low + 4)]);
        let unused = halves.filter_map(|index| counts.get(index)).all(|count| *count == 0);
        require(unused, "a statistics register of a pair is counted by itself")?;
        for (place, count) in self.counts.iter().zip(counts) {
            place.store(*count, Ordering::Relaxed);
        }
        for (place, PairState { count, latched }) in self.pairs.iter().zip(pairs) {
            // What was latched is taken from the count when the high register is read.
            let latched_before = latched.is_none_or(|latched| latched <= *count);
            require(latched_before && *latched != Some(NOTHING), "more was read than counted")?;
            place.count.store(*count, Ordering::Relaxed);
            place.latched.store(latched.unwrap_or(NOTHING), Ordering::Relaxed);
        }
        Ok(())
    }
}
