//! What one build's own runs differ by.
//!
//! An interval covers what it says if runs are alike but for chance. Hosts are not like that: they get slower or
//! faster while one measures. So a build's runs are set against each other as two builds' are, and a difference
//! that one build shows from itself is none between two.

use crate::statistics::middle;

/// Fewest runs of which halves mean something.
pub(super) const FEWEST_RUNS: usize = 4;

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted).unwrap_or(0.0)
}

/// The difference between the medians of the first half and the second.
fn halves(values: &[f64]) -> f64 {
    let (first, second) = values.split_at(values.len() / 2);
    if first.is_empty() {
        return 0.0;
    }
    (median(first.iter().copied()) - median(second.iter().copied())).abs()
}

/// The difference between the highest and the lowest median of the four quarters.
fn quarters(values: &[f64]) -> f64 {
    let (first, second) = values.split_at(values.len() / 2);
    let quarters = [first, second].map(|half| half.split_at(half.len() / 2));
    let medians = quarters.iter().flat_map(|(one, other)| [one, other]);
    let medians = medians.filter(|part| !part.is_empty()).map(|part| median(part.iter().copied()));
    let (low, high) = medians.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), median| {
        (low.min(median), high.max(median))
    });
    (high - low).max(0.0)
}

/// The difference between the medians of every other round and the rounds in between.
fn alternate(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let of = |offset| median(values.iter().skip(offset).step_by(2).copied());
    (of(0) - of(1)).abs()
}

/// The median difference between a round and the one after it.
fn neighbours(values: &[f64]) -> f64 {
    median(values.chunks_exact(2).map(|two| two[1] - two[0])).abs()
}

/// Of runs of two builds that were measured at different times, in logarithms and in the order of their rounds.
/// What each wandered while it was measured, the two together can have wandered in between.
pub(super) fn of_independent(before: &[f64], after: &[f64]) -> f64 {
    let wandered = quarters(before) + quarters(after);
    wandered.max(alternate(before)).max(alternate(after))
}

/// Of runs of two builds that were made in pairs, likewise. What the host does to both of a pair is in neither's
/// difference, so that it is pairs whose halves are compared.
pub(super) fn of_pairs(before: &[f64], after: &[f64]) -> f64 {
    let differences: Vec<f64> =
        before.iter().zip(after).map(|(before, after)| after - before).collect();
    halves(&differences).max(neighbours(before)).max(neighbours(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_wanders_differs_from_itself() {
        let still = [1.0; 8];
        let stepped = [1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 1.5];
        let swinging = [1.0, 1.25, 1.0, 1.25, 1.0, 1.25, 1.0, 1.25];
        assert_eq!(of_independent(&still, &still), 0.0);
        assert_eq!(of_independent(&stepped, &still), 0.5);
        assert_eq!(of_independent(&stepped, &stepped), 1.0);
        assert_eq!(of_independent(&still, &swinging), 0.25);
        // Three quarters of what it wanders in all, where it does so steadily.
        let steady: Vec<f64> = (0..64).map(f64::from).collect();
        assert_eq!(of_independent(&steady, &[1.0; 8]), 48.0);
    }

    #[test]
    fn what_happens_to_both_of_a_pair_is_nobodys_difference() {
        let stepped = [1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 1.5];
        let swinging = [1.0, 1.25, 1.0, 1.25, 1.0, 1.25, 1.0, 1.25];
        assert_eq!(of_pairs(&stepped, &stepped), 0.0);
        assert_eq!(of_pairs(&stepped, &[1.0; 8]), 0.5);
        assert_eq!(of_pairs(&[1.0; 8], &swinging), 0.25);
        // One wild run is not a difference.
        assert_eq!(of_pairs(&[1.0; 8], &[1.0, 1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0]), 0.0);
    }

    #[test]
    fn no_runs_differ_by_nothing() {
        assert_eq!((of_independent(&[], &[]), of_pairs(&[], &[])), (0.0, 0.0));
        assert_eq!((of_independent(&[1.0], &[2.0]), of_pairs(&[1.0], &[2.0])), (0.0, 0.0));
    }
}
