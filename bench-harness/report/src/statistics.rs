//! Medians of few runs, and how far to trust them.
//!
//! The interval is the one that order statistics give: with `n` runs sorted, the number of runs below
//! the true median is binomial (n, ½) whatever the distribution, so the interval from the k-th
//! smallest to the k-th largest run misses the median with probability 2·P(B < k). The largest `k`
//! for which that is at most 5 % is taken. It assumes independent runs and nothing else: no normal
//! distribution, no resampling of runs that are not there.
//!
//! Fewer than six runs cannot give 95 %. Then the interval is the full range, and it covers the
//! median with the probability that [`coverage`] tells: 50 % of two runs, 75 % of three, 87.5 % of
//! four, 93.75 % of five.

use serde::{Deserialize, Serialize};

/// The fewest runs for which an interval covers the median with a probability of 95 %.
pub const RUNS_FOR_95_PERCENT: usize = 6;

/// A median of several runs, with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// The median.
    pub median: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl Distribution {
    /// The distribution of the runs' values, in any order. `None` without a run, or if a value is
    /// not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = rank(sorted.len());
        Self::between(&sorted, rank)
    }

    /// The median of values that are sorted already, with the interval that leaves `rank` of them out at either
    /// end. `None` if that leaves nothing.
    pub(crate) fn between(sorted: &[f64], rank: usize) -> Option<Self> {
        let last = sorted.len().checked_sub(1)?.checked_sub(rank)?;
        let (low, high) = (*sorted.get(rank)?, *sorted.get(last)?);
        (rank <= last).then_some(Self { median: middle(sorted)?, low, high })
    }

    /// Whether the two intervals have a value in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// Runs beyond which the coverage is not computed.
const MANY: usize = 100_000;

/// Probability that the interval of `runs` independent runs covers the median; 0 below two runs. Of
/// very many runs it is the 95 % that it is not below.
pub fn coverage(runs: usize) -> f64 {
    match runs {
        0 | 1 => 0.0,
        // The number may be a file's, and need not be that of anything in it.
        MANY.. => 0.95,
        _ => 1.0 - 2.0 * tails(runs).nth(rank(runs)).unwrap_or(0.5),
    }
}

/// The median of values that are sorted already; `None` without any.
pub(crate) fn middle(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if !sorted.len().is_multiple_of(2) {
        return Some(upper);
    }
    // Half of each, since their sum might not be finite.
    Some(sorted.get(middle.checked_sub(1)?)? / 2.0 + upper / 2.0)
}

/// How many runs to leave out at either end, of whatever there is.
pub(crate) fn rank(runs: usize) -> usize {
    rank_within(runs, 0.05).unwrap_or(0)
}

/// How many runs can be left out at either end for the interval to miss the median with a probability of at most
/// `error`; `None` if the full range misses it more often than that.
pub(crate) fn rank_within(runs: usize, error: f64) -> Option<usize> {
    if runs < 2 {
        return None;
    }
    let within = tails(runs).take(runs.div_ceil(2)).take_while(|tail| 2.0 * tail <= error);
    within.count().checked_sub(1)
}

/// A count as a number. Those of runs are exact.
pub(crate) fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// P(B ≤ 0), P(B ≤ 1) and so on for B binomial (`n`, ½).
fn tails(n: usize) -> impl Iterator<Item = f64> {
    // In logarithms, as 2⁻ⁿ is not a number any more for large n.
    let first = -float(n) * std::f64::consts::LN_2;
    let terms = (0..n).scan(first, move |term, count| {
        let this = *term;
        *term += (float(n - count) / float(count + 1)).ln();
        Some(this)
    });
    terms.scan(0.0, |sum, term: f64| {
        *sum += term.exp();
        Some(*sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_or_nonsense_has_no_distribution() {
        assert_eq!(Distribution::of(&[]), None);
        assert_eq!(Distribution::of(&[1.0, f64::NAN]), None);
        assert_eq!(Distribution::of(&[f64::INFINITY]), None);
    }

    #[test]
    fn few_runs_give_their_full_range() {
        let of = |values: &[f64]| Distribution::of(values).unwrap();
        assert_eq!(of(&[2.0]), Distribution { median: 2.0, low: 2.0, high: 2.0 });
        assert_eq!(of(&[4.0, 1.0]), Distribution { median: 2.5, low: 1.0, high: 4.0 });
        assert_eq!(of(&[9.0, 1.0, 2.0]), Distribution { median: 2.0, low: 1.0, high: 9.0 });
        assert_eq!(
            of(&[5.0, 4.0, 3.0, 2.0, 1.0]),
            Distribution { median: 3.0, low: 1.0, high: 5.0 }
        );
        assert_eq!(of(&[f64::MAX, f64::MAX]).median, f64::MAX);
    }

    /// The ranks that printed tables of the sign test's interval have, with their coverage.
    #[test]
    fn ranks_are_those_of_the_tables() {
        for (runs, rank_from_one, percent) in [
            (2, 1, 50.0),
            (3, 1, 75.0),
            (5, 1, 93.75),
            (6, 1, 96.88),
            (8, 1, 99.22),
            (9, 2, 96.09),
            (10, 2, 97.85),
            (12, 3, 96.14),
            (15, 4, 96.48),
            (20, 6, 95.86),
            (25, 8, 95.67),
            (50, 18, 96.72),
            (100, 40, 96.48),
        ] {
            assert_eq!(rank(runs) + 1, rank_from_one, "{runs} runs");
            assert!((coverage(runs) * 100.0 - percent).abs() < 0.005, "{runs}: {}", coverage(runs));
        }
        assert_eq!((coverage(0), coverage(1)), (0.0, 0.0));
        // As many as a file may claim.
        assert_eq!(coverage(usize::MAX), 0.95);
        assert!((0.95..0.951).contains(&coverage(MANY - 1)));
        // Far beyond what 2⁻ⁿ can hold. About n/2 - 0.98·√n.
        assert_eq!(rank(5000), 2430);
    }

    #[test]
    fn a_confidence_that_the_full_range_does_not_give_has_no_rank() {
        assert_eq!((rank_within(0, 1.0), rank_within(1, 1.0)), (None, None));
        // 2·2⁻⁷ is the first below 2 %, 2·2⁻¹² the first below 0.05 %.
        assert_eq!((rank_within(6, 0.02), rank_within(7, 0.02)), (None, Some(0)));
        assert_eq!((rank_within(11, 0.0005), rank_within(12, 0.0005)), (None, Some(0)));
        // The printed table for 99 %: the 16th smallest of 50.
        assert_eq!(rank_within(50, 0.01), Some(15));
    }

    #[test]
    fn six_is_the_fewest_for_95_percent() {
        assert!(coverage(RUNS_FOR_95_PERCENT) >= 0.95);
        assert!((0..RUNS_FOR_95_PERCENT).all(|runs| coverage(runs) < 0.95));
        assert!((RUNS_FOR_95_PERCENT..400).all(|runs| coverage(runs) >= 0.95));
    }

    /// Draws from a lopsided distribution whose median is known; the interval must cover it as often
    /// as promised.
    #[test]
    fn the_interval_covers_as_often_as_it_says() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u32::try_from(state >> 32)
                .map(|high| (f64::from(high) + 0.5) / 4_294_967_296.0)
                .unwrap()
        };
        for runs in [3, 5, 6, 10, 25] {
            let rounds = 4000;
            let mut covered = 0;
            for _ in 0..rounds {
                let values: Vec<f64> = (0..runs).map(|_| -uniform().ln()).collect();
                let interval = Distribution::of(&values).unwrap();
                let median = std::f64::consts::LN_2;
                covered += u32::from(interval.low <= median && median <= interval.high);
            }
            let share = f64::from(covered) / f64::from(rounds);
            assert!((share - coverage(runs)).abs() < 0.02, "{runs} runs: {share}");
        }
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_median_and_is_made_of_runs(
            values in prop::collection::vec(0.0..1e9f64, 1..60),
        ) {
            let found = Distribution::of(&values).unwrap();
            prop_assert!(found.low <= found.median && found.median <= found.high);
            prop_assert!(values.contains(&found.low) && values.contains(&found.high));
            let below = values.iter().filter(|value| **value < found.median).count();
            let above = values.iter().filter(|value| **value > found.median).count();
            prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
        }

        #[test]
        fn order_does_not_matter_and_scale_carries_through(
            values in prop::collection::vec(0.0..1e9f64, 1..40),
            power in -20i32..20,
        ) {
            let found = Distribution::of(&values).unwrap();
            let reversed: Vec<f64> = values.iter().rev().copied().collect();
            prop_assert_eq!(Distribution::of(&reversed), Some(found));
            // A power of two, so that nothing is rounded.
            let scale = 2f64.powi(power);
            let scaled: Vec<f64> = values.iter().map(|value| value * scale).collect();
            let expected = Distribution {
                median: found.median * scale,
                low: found.low * scale,
                high: found.high * scale,
            };
            prop_assert_eq!(Distribution::of(&scaled), Some(expected));
        }

        #[test]
        fn one_wild_run_among_many_moves_no_interval_end_to_it(
            mut values in prop::collection::vec(1.0..2.0f64, 9..40),
        ) {
            values.push(1e9);
            prop_assert!(Distribution::of(&values).unwrap().high < 1e9);
        }

        #[test]
        fn overlapping_is_mutual(
            a in prop::collection::vec(0.0..10.0f64, 1..8),
            b in prop::collection::vec(0.0..10.0f64, 1..8),
        ) {
            let (a, b) = (Distribution::of(&a).unwrap(), Distribution::of(&b).unwrap());
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            prop_assert!(a.overlaps(&a));
        }
    }
}
