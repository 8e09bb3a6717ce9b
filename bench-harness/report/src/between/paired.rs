//! Runs of two builds that were made in pairs.

use super::{
    Basis, Between, Change, Work, ln_speeds, median, own, share_of_error, shift, too_many,
};
use crate::statistics::{float, rank_within};
use crate::{Manifest, Measure};

/// What is to be found: 5 % slower.
const SLOWDOWN: f64 = 0.05;
/// How much the two of a pair differ by chance, as a standard deviation.
const SPREAD: f64 = 0.05;
/// How often that is to be found, leaving some for the noise that a change must exceed besides.
const POWER: f64 = 0.99;

/// One measurement of two builds: a figure of each in each round.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    /// What was done.
    pub work: Work,
    /// What the figures are: operations a second, or nanoseconds.
    pub measure: Measure,
    /// The first build's, in the order of the rounds.
    pub before: Vec<f64>,
    /// The second's.
    pub after: Vec<f64>,
}

impl Between {
    /// What pairs of runs say of two builds.
    pub fn paired(before: &Manifest, after: &Manifest, measurements: Vec<Pairs>) -> Self {
        let mut this = Self::new(before, after);
        let error = share_of_error(measurements.len());
        this.changes = measurements.into_iter().map(|pairs| change(pairs, error)).collect();
        this
    }
}

fn change(pairs: Pairs, error: f64) -> Change {
    let Pairs { work, measure, before, after } = pairs;
    let runs = [before.len(), after.len()];
    let change = Change::new(work, measure, Basis::Pairs, runs);
    if too_many(runs) {
        return change.because("there are more runs than this program makes");
    }
    if runs[0] != runs[1] {
        return change.because("a run is not one of a pair");
    }
    let Some((first, second)) = ln_speeds(measure, &before).zip(ln_speeds(measure, &after)) else {
        return change.because("a run's figure is none");
    };
    let differences: Vec<f64> = first.iter().zip(&second).map(|(one, other)| other - one).collect();
    let Some(shift) = shift::of_pairs(&differences, error) else {
        return change.because("there are no runs");
    };
    let medians = median(&before).zip(median(&after)).map(<[f64; 2]>::from);
    let own = own::of_pairs(&first, &second);
    Change { medians, pairs: Some([before, after]), ..change }.judged(shift, own)
}

/// The rounds in which a build that is 5 % slower is found with a probability of 99 %, if the two of a pair differ
/// by 5 % by chance (the standard deviation of a normal distribution) and so many measurements are compared.
///
/// The interval is below 0 if all but as many pairs say slower as it leaves out at either end. Each pair does so with
/// a probability of 0.835, that of a normal value to be above −ln 1.05 / 0.05.
pub fn rounds_for(measurements: usize) -> usize {
    let error = share_of_error(measurements);
    let slower = normal_below(SLOWDOWN.ln_1p() / SPREAD);
    let suffices = |rounds: &usize| {
        rank_within(*rounds, error).is_some_and(|rank| misses(*rounds, rank, slower) <= 1.0 - POWER)
    };
    // A round more may be one that makes the ranks no better; it must not be worse than what was promised.
    let lasting = |rounds: &usize| (*rounds..*rounds + 4).all(|rounds| suffices(&rounds));
    (2..shift::RUNS_MAX).find(lasting).unwrap_or(shift::RUNS_MAX)
}

/// Probability that more than `spared` of so many pairs say otherwise than they do with probability `slower`.
fn misses(rounds: usize, spared: usize, slower: f64) -> f64 {
    let mut term = float(rounds) * slower.ln();
    let mut found = 0.0;
    for count in 0..=spared.min(rounds) {
        found += term.exp();
        term += (float(rounds - count) / float(count + 1)).ln() + (1.0 - slower).ln() - slower.ln();
    }
    1.0 - found
}

/// Probability that a normally distributed value is below so many standard deviations.
fn normal_below(value: f64) -> f64 {
    // Abramowitz and Stegun, 26.2.17: within 7.5e-8.
    if value < 0.0 {
        return 1.0 - normal_below(-value);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * value);
    let coefficients =
        [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let sum = coefficients.iter().fold(0.0, |sum, coefficient| (sum + coefficient) * t);
    1.0 - (-value * value / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out elsewhere, by summing binomial coefficients.
    #[test]
    fn rounds_are_as_many_as_the_calculation_has() {
        let rounds =
            [(1, 47), (2, 51), (5, 59), (10, 61), (20, 68), (50, 73), (100, 74), (200, 79)];
        for (measurements, expected) in rounds {
            assert_eq!(rounds_for(measurements), expected, "{measurements} measurements");
        }
        assert_eq!(rounds_for(0), rounds_for(1));
        assert!(rounds_for(usize::MAX) <= shift::RUNS_MAX);
    }

    #[test]
    fn the_normal_distribution_is_that_of_the_tables() {
        for (value, probability) in
            [(0.0, 0.5), (1.0, 0.841_345), (-1.96, 0.024_998), (3.0, 0.998_65)]
        {
            assert!((normal_below(value) - probability).abs() < 1e-6, "{value}");
        }
    }

    #[test]
    fn so_many_coins_fall_so() {
        assert!((misses(3, 0, 0.5) - 7.0 / 8.0).abs() < 1e-12);
        assert!((misses(3, 1, 0.5) - 4.0 / 8.0).abs() < 1e-12);
        assert!(misses(3, 3, 0.9).abs() < 1e-12);
    }
}
