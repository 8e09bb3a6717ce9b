//! How far one build's runs are from another's, in logarithms, and how sure that is.
//!
//! Nothing is assumed of how runs are distributed. Runs that come in pairs have an interval from the order
//! statistics of the pairs' differences (the sign test's), runs that do not from the order statistics of all
//! differences between one of these and one of those (Mann's and Whitney's, about Hodges' and Lehmann's
//! estimate). Where there are only intervals of medians, that they are apart has a probability that the ranks of
//! their ends give: how often so many of these runs are below so many of those if all come from one
//! distribution.

use crate::Distribution;
use crate::statistics::{float, middle, rank, rank_within};

/// The most runs that are compared: no program of ours makes more.
pub(super) const RUNS_MAX: usize = 1000;

/// The most pairs of runs for which probabilities are counted out rather than taken from the normal distribution,
/// which has the heavier tail and so errs to the safe side.
const EXACT_PAIRS_MAX: usize = 1600;

/// What the runs say of a difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shift {
    /// It is within the interval, as surely as was asked.
    Known(Distribution),
    /// There are too few runs to be that sure.
    Few {
        /// The best guess.
        guess: f64,
        /// How many runs of each would do; `None` if no number that can be had.
        enough: Option<usize>,
    },
}

/// From the differences of runs that were made in pairs; it misses the true median with a probability of `error`
/// at most. `None` without any.
pub(super) fn of_pairs(differences: &[f64], error: f64) -> Option<Shift> {
    let mut sorted = differences.to_vec();
    sorted.sort_by(f64::total_cmp);
    match rank_within(sorted.len(), error) {
        Some(rank) => Distribution::between(&sorted, rank).map(Shift::Known),
        None => Some(Shift::Few {
            guess: middle(&sorted)?,
            enough: (2..=RUNS_MAX).find(|count| rank_within(*count, error).is_some()),
        }),
    }
}

/// From runs of one build and runs of another that have nothing to do with each other; likewise.
pub(super) fn of_independent(before: &[f64], after: &[f64], error: f64) -> Option<Shift> {
    let mut sorted: Vec<f64> =
        after.iter().flat_map(|after| before.iter().map(move |before| after - before)).collect();
    sorted.sort_by(f64::total_cmp);
    match pairs_rank_within(before.len(), after.len(), error) {
        Some(rank) => Distribution::between(&sorted, rank).map(Shift::Known),
        None => Some(Shift::Few {
            guess: middle(&sorted)?,
            enough: (2..=RUNS_MAX).find(|count| pairs_rank_within(*count, *count, error).is_some()),
        }),
    }
}

/// From the intervals of medians of so many runs each, as [`Distribution::of`] has them.
pub(super) fn of_intervals(
    before: (Distribution, usize),
    after: (Distribution, usize),
    error: f64,
) -> Shift {
    let shift = Distribution {
        median: after.0.median - before.0.median,
        low: after.0.low - before.0.high,
        high: after.0.high - before.0.low,
    };
    if apart(before.1, after.1) <= error {
        return Shift::Known(shift);
    }
    let enough = (2..=RUNS_MAX).find(|count| apart(*count, *count) <= error);
    Shift::Few { guess: shift.median, enough }
}

/// The logarithms of 0!, 1!, ... up to that of `most`.
fn ln_factorials(most: usize) -> Vec<f64> {
    let terms = (1..=most).scan(0.0, |sum, count| {
        *sum += float(count).ln();
        Some(*sum)
    });
    std::iter::once(0.0).chain(terms).collect()
}

/// Probability that the intervals of two medians, of so many runs each, have nothing in common although all runs
/// come from one distribution.
fn apart(before: usize, after: usize) -> f64 {
    below(before, after) + below(after, before)
}

/// Probability that the upper end of the interval of `lower` runs is below the lower end of that of `upper` runs.
fn below(lower: usize, upper: usize) -> f64 {
    if lower == 0 || upper == 0 {
        return 1.0;
    }
    let ln = ln_factorials(lower.saturating_add(upper));
    let choose = |n: usize, k: usize| ln[n] - ln[k] - ln[n - k];
    // The end is the upper runs' smallest but `spared`; so many of the lower ones, or more, are below it.
    let (spared, least) = (rank(upper), lower - rank(lower));
    let probability = |count: usize| {
        let (below, above) = (count + spared, lower - count + upper - 1 - spared);
        (choose(below, count) + choose(above, lower - count) - choose(lower + upper, lower)).exp()
    };
    (least..=lower).map(probability).sum()
}

/// How many of all differences to leave out at either end for the interval to miss the true shift with a
/// probability of at most `error`; `None` if the full range misses it more often than that.
fn pairs_rank_within(before: usize, after: usize, error: f64) -> Option<usize> {
    let pairs = before.checked_mul(after).filter(|pairs| *pairs > 0)?;
    let mut sum = 0.0;
    if pairs <= EXACT_PAIRS_MAX {
        let within = probabilities(before, after).into_iter().take_while(|probability| {
            sum += 2.0 * probability;
            sum <= error
        });
        return within.count().min(pairs.div_ceil(2)).checked_sub(1);
    }
    // Mann's and Whitney's moments; half a step of continuity, and one more so as not to round up.
    let spread = (float(pairs) * float(before + after + 1) / 12.0).sqrt();
    let quantile = upper_quantile(error / 2.0)?;
    let rank = float(pairs) / 2.0 - quantile * spread - 1.5;
    // As many as that in whole numbers: there are far fewer than a thousand million.
    (0..pairs / 2).rev().find(|count| float(*count) <= rank)
}

/// The distribution of the number of pairs in which the one's run is above the other's, if all come from one
/// distribution: how probable none is, one, and so on.
fn probabilities(before: usize, after: usize) -> Vec<f64> {
    // Whoever has the highest run of all: without it, one has one run less, and with it the other's are all below.
    let mut rows = vec![vec![1.0]; after + 1];
    for first in 1..=before {
        let mut next: Vec<Vec<f64>> = Vec::with_capacity(after + 1);
        next.push(vec![1.0]);
        for second in 1..=after {
            let all = float(first + second);
            let (of_first, of_second) = (float(first) / all, float(second) / all);
            let (without_first, without_second) = (&rows[second], &next[second - 1]);
            let one = |count: usize| {
                let moved = count.checked_sub(second).and_then(|count| without_first.get(count));
                let stayed = without_second.get(count);
                of_first * moved.unwrap_or(&0.0) + of_second * stayed.unwrap_or(&0.0)
            };
            next.push((0..=first * second).map(one).collect());
        }
        rows = next;
    }
    rows.pop().unwrap_or_default()
}

/// The value that a normally distributed one exceeds with that probability, rounded up; `None` if it is none below
/// a half.
fn upper_quantile(probability: f64) -> Option<f64> {
    // Hastings' approximation (Abramowitz and Stegun, 26.2.23), which is within 0.00045.
    const ERROR: f64 = 0.00045;
    if !(probability > 0.0 && probability < 0.5) {
        return None;
    }
    let t = (-2.0 * probability.ln()).sqrt();
    let over = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let under = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    Some(t - over / under + ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Critical values of Mann and Whitney's table, two-sided: the largest count that is significant.
    #[test]
    fn ranks_are_those_of_the_tables() {
        for (before, after, five_percent, one_percent) in [
            (3, 3, None, None),
            (4, 4, Some(0), None),
            (5, 5, Some(2), Some(0)),
            (6, 8, Some(8), Some(4)),
            (8, 8, Some(13), Some(7)),
            (10, 10, Some(23), Some(16)),
            (12, 20, Some(69), Some(54)),
            (20, 20, Some(127), Some(105)),
        ] {
            assert_eq!(pairs_rank_within(before, after, 0.05), five_percent, "{before}, {after}");
            assert_eq!(pairs_rank_within(after, before, 0.01), one_percent, "{before}, {after}");
        }
        assert_eq!(pairs_rank_within(0, 9, 0.05), None);
        // The full range of one run and thirty-nine misses in 2 of 40 orders.
        assert_eq!(pairs_rank_within(1, 39, 0.0501), Some(0));
        assert_eq!(pairs_rank_within(1, 38, 0.05), None);
    }

    #[test]
    fn counting_out_and_the_normal_distribution_agree_where_they_meet() {
        let normal = |before: usize, after: usize, error: f64| {
            let (pairs, runs) = (float(before * after), float(before + after + 1));
            pairs / 2.0 - upper_quantile(error / 2.0).unwrap() * (pairs * runs / 12.0).sqrt()
        };
        for error in [0.05, 0.01, 0.0005, 0.0001] {
            let exact = float(pairs_rank_within(40, 40, error).unwrap());
            let approximate = normal(40, 40, error);
            // On the safe side, and not far off.
            assert!(approximate - 1.5 <= exact && exact - approximate < 20.0, "{error}");
            assert!(
                pairs_rank_within(41, 40, error).unwrap()
                    <= pairs_rank_within(41, 39, error).unwrap() + 30
            );
        }
        assert!((upper_quantile(0.025).unwrap() - 1.96).abs() < 0.001);
        assert_eq!((upper_quantile(0.0), upper_quantile(0.5)), (None, None));
        assert_eq!(upper_quantile(f64::NAN), None);
    }

    #[test]
    fn the_probabilities_are_of_all_orders() {
        // Of the six orders of two and two, none to four pairs are inverted in 1, 1, 2, 1, 1.
        let sixths = probabilities(2, 2).iter().map(|one| (one * 6.0).round()).collect::<Vec<_>>();
        assert_eq!(sixths, [1.0, 1.0, 2.0, 1.0, 1.0]);
        assert!((probabilities(7, 9).iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    /// Full ranges are apart in two of all orders; with ends inside, in more.
    #[test]
    fn intervals_are_apart_as_often_as_orders_are_counted() {
        assert!((apart(3, 3) - 2.0 / 20.0).abs() < 1e-12);
        assert!((apart(6, 6) - 2.0 / 924.0).abs() < 1e-12);
        assert!((apart(4, 7) - 2.0 / 330.0).abs() < 1e-12);
        // Of nine the second and the eighth. Eight of these are below the second of those in 9 times 8 orders (what
        // is before that, and what is after), nine in 10.
        assert!((apart(9, 9) - 2.0 * (72.0 + 10.0) / 48_620.0).abs() < 1e-12, "{}", apart(9, 9));
        assert_eq!((below(0, 5), below(5, 0)), (1.0, 1.0));
        assert!(apart(RUNS_MAX, RUNS_MAX) > 0.0 && apart(RUNS_MAX, RUNS_MAX) < 0.01);
    }

    #[test]
    fn too_few_runs_are_told_how_many_would_do() {
        let few = |shift| match shift {
            Some(Shift::Few { enough, .. }) => enough,
            Some(Shift::Known(_)) | None => panic!("{shift:?}"),
        };
        assert_eq!(few(of_pairs(&[0.0; 6], 0.01)), Some(8));
        assert_eq!(few(of_pairs(&[0.0; 11], 0.0005)), Some(12));
        assert_eq!(few(of_independent(&[0.0; 4], &[0.0; 4], 0.01)), Some(5));
        assert_eq!(few(of_independent(&[0.0; 6], &[0.0; 6], 0.0005)), Some(8));
        let one = |runs| (Distribution { median: 1.0, low: 0.9, high: 1.1 }, runs);
        assert_eq!(few(Some(of_intervals(one(3), one(3), 0.01))), Some(5));
        assert!(matches!(of_intervals(one(6), one(6), 0.01), Shift::Known(_)));
        assert_eq!((of_pairs(&[], 0.01), of_independent(&[], &[1.0], 0.01)), (None, None));
        // Nothing is that sure.
        assert_eq!(few(of_pairs(&[0.0; 6], 0.0)), None);
    }
}
