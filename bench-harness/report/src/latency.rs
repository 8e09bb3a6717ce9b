//! Latency percentiles, from the histograms of all runs together.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latency in nanoseconds. A percentile `p` is the smallest latency that at least that share of the
/// operations did not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// Counts of latencies, to which runs are added. Values are kept to three significant digits, the
/// longest exactly.
#[derive(Clone, Debug)]
pub struct LatencyCounts {
    counts: Histogram<u64>,
    max: u64,
}

/// An hour, in nanoseconds; nothing longer is told apart.
const LONGEST: u64 = 3_600_000_000_000;

impl Default for LatencyCounts {
    fn default() -> Self {
        Self::new()
    }
}

impl LatencyCounts {
    /// None yet.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram takes.
    pub fn new() -> Self {
        let counts = Histogram::new_with_bounds(1, LONGEST, 3).expect("constant, valid bounds");
        Self { counts, max: 0 }
    }

    /// Adds one run: its histogram as pairs of a value and its count, in cycles of a counter that
    /// runs at `hz`, and its longest latency. A bucket's value is any one that stands for it, such as
    /// its middle. Without a frequency nothing is added.
    pub fn add(&mut self, buckets: impl IntoIterator<Item = (u64, u64)>, max: u64, hz: u64) {
        if hz == 0 {
            return;
        }
        let nanoseconds = |cycles: u64| {
            let exact = u128::from(cycles) * 1_000_000_000 / u128::from(hz);
            u64::try_from(exact).unwrap_or(u64::MAX)
        };
        let max = nanoseconds(max);
        for (cycles, count) in buckets {
            // A bucket reaches beyond the longest value in it; the value must not.
            let value = nanoseconds(cycles).min(max);
            self.counts.saturating_record_n(value, count);
        }
        self.max = self.max.max(max);
    }

    /// The percentiles, or `None` if there is no operation.
    pub fn percentiles(&self) -> Option<Latency> {
        if self.counts.is_empty() {
            return None;
        }
        let at = |quantile| self.counts.value_at_quantile(quantile).min(self.max);
        Some(Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: self.max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GHZ: u64 = 1_000_000_000;

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(LatencyCounts::new().percentiles(), None);
        let mut counts = LatencyCounts::new();
        counts.add([(5, 1)], 5, 0);
        assert_eq!(counts.percentiles(), None);
    }

    #[test]
    fn cycles_become_nanoseconds() {
        let mut counts = LatencyCounts::new();
        counts.add([(2600, 1)], 2600, 2_600_000_000);
        let expected = Latency { p50: 1000, p90: 1000, p99: 1000, p999: 1000, max: 1000 };
        assert_eq!(counts.percentiles(), Some(expected));
    }

    #[test]
    fn percentiles_are_of_all_runs_together() {
        let mut counts = LatencyCounts::new();
        counts.add([(100, 900)], 100, GHZ);
        counts.add([(300, 99), (2_000_000, 1)], 2_000_001, GHZ);
        let found = counts.percentiles().unwrap();
        assert_eq!((found.p50, found.p90, found.p99, found.p999), (100, 100, 300, 300));
        assert_eq!(found.max, 2_000_001);
    }

    #[test]
    fn what_is_longer_than_can_be_told_apart_is_kept_as_the_longest() {
        let mut counts = LatencyCounts::new();
        counts.add([(u64::MAX, 3)], u64::MAX, GHZ);
        assert_eq!(counts.percentiles().unwrap().max, u64::MAX);
    }

    proptest! {
        #[test]
        fn each_percentile_is_within_a_thousandth_of_the_exact_one(
            mut values in prop::collection::vec(1u64..10_000_000, 1..300),
            split in 0usize..300,
        ) {
            let mut counts = LatencyCounts::new();
            let (first, second) = values.split_at(split.min(values.len()));
            for run in [first, second] {
                let max = run.iter().copied().max().unwrap_or(0);
                counts.add(run.iter().map(|value| (*value, 1)), max, GHZ);
            }
            let found = counts.percentiles().unwrap();
            values.sort_unstable();
            let len = values.len();
            for (value, per_mille) in
                [(found.p50, 500), (found.p90, 900), (found.p99, 990), (found.p999, 999)]
            {
                let exact = values[(len * per_mille).div_ceil(1000).max(1) - 1];
                prop_assert!(value >= exact && value - exact <= exact / 1000 + 1, "{value} {exact}");
            }
            prop_assert_eq!(Some(&found.max), values.last());
        }
    }
}
