//! One build's figures against another's.
//!
//! Of each measurement that both have: how fast the second is for each of the first, with an interval, and what
//! may be said of that. Speed is operations a second, or the inverse of the median latency where the load is
//! fixed, so that a ratio below 1 is slower whatever was measured.
//!
//! **False alarms.** One comparison is many: each interval's probability to miss is [`FALSE_ALARM_MAX`] divided by
//! their number (Bonferroni), so that with two builds alike *all* intervals hold with a probability of 1 less
//! [`FALSE_ALARM_MAX`]. They assume nothing of how runs are distributed, but that what chance does to one build's
//! runs it does to the other's. Therefore a change must also exceed what each build's runs differ by from its own,
//! and 1 % (of latencies 2 %, as their buckets are 1.6 % wide).

mod manifests;
mod own;
mod paired;
mod shift;
mod show;
mod stored;
#[cfg(test)]
mod tests;
mod work;

use serde::{Serialize, Serializer};

use crate::statistics::middle;
use crate::{Distribution, Manifest, Measure, ReportError};
use shift::{RUNS_MAX, Shift};

pub use manifests::shared_memory;
pub use paired::{Pairs, rounds_for};
pub use work::Work;

/// The most that the probability of any false finding is in one comparison, of builds that are alike.
pub const FALSE_ALARM_MAX: f64 = 0.01;

/// The version of the format of [`Between::to_json`].
const SCHEMA: u32 = 1;

/// What may be said of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// The second build is slower.
    Slower,
    /// It is faster.
    Faster,
    /// The runs do not tell the two apart.
    NoDifference,
    /// There are too few runs to be sure enough of anything.
    TooFewRuns,
    /// The figures are none that can be compared.
    NotComparable,
}

/// What a change was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Runs that were made in pairs, one of each build.
    Pairs,
    /// Runs of each build that have nothing to do with each other.
    Runs,
    /// The intervals of medians: one record at least does not have its runs.
    Intervals,
}

/// One measurement of both builds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What was done.
    #[serde(flatten)]
    pub work: Work,
    /// What is compared.
    pub measure: Measure,
    /// What the change was taken from.
    pub basis: Basis,
    /// Runs of the first build and of the second.
    pub runs: [usize; 2],
    /// Their medians: operations a second, or nanoseconds.
    pub medians: Option<[f64; 2]>,
    /// The second's speed for each of the first's, by the middle of all differences.
    pub ratio: Option<f64>,
    /// The least it is, all intervals holding together; `None` with too few runs.
    pub low: Option<f64>,
    /// The most.
    pub high: Option<f64>,
    /// What a change must exceed, as the share by which a build's own runs differ: 0.02 is 2 %.
    pub noise: Option<f64>,
    /// What may be said.
    pub finding: Finding,
    /// With too few runs, how many of each build would do.
    pub runs_needed: Option<usize>,
    /// Why the figures cannot be compared.
    pub why: Option<String>,
    /// The runs of both builds, if they came in pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<[Vec<f64>; 2]>,
}

/// Two builds' figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Between {
    /// Version of the format.
    schema: u32,
    /// Where and how the first build was measured.
    pub before: Manifest,
    /// Where and how the second was.
    pub after: Manifest,
    /// The most that the probability of any false finding is.
    pub false_alarm_max: f64,
    /// What makes the figures less comparable than they should be.
    pub warnings: Vec<String>,
    /// What both have.
    pub changes: Vec<Change>,
    /// What the first alone has.
    #[serde(serialize_with = "names")]
    pub only_before: Vec<Work>,
    /// What the second alone has.
    #[serde(serialize_with = "names")]
    pub only_after: Vec<Work>,
}

fn names<S: Serializer>(all: &[Work], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(all.iter().map(ToString::to_string))
}

impl Between {
    fn new(before: &Manifest, after: &Manifest) -> Self {
        Self {
            schema: SCHEMA,
            before: before.clone(),
            after: after.clone(),
            false_alarm_max: FALSE_ALARM_MAX,
            warnings: manifests::differences(before, after),
            changes: Vec::new(),
            only_before: Vec::new(),
            only_after: Vec::new(),
        }
    }

    /// Whether anything is slower.
    pub fn is_slower(&self) -> bool {
        self.changes.iter().any(|change| change.finding == Finding::Slower)
    }

    /// The comparison as JSON, indented, with a newline at its end.
    ///
    /// # Errors
    /// When a number cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, ReportError> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}

/// How improbable a false finding must be in one of so many measurements.
fn share_of_error(measurements: usize) -> f64 {
    FALSE_ALARM_MAX / crate::statistics::float(measurements.max(1))
}

/// The least change that counts.
fn least(measure: Measure) -> f64 {
    match measure {
        Measure::Rate => 0.01,
        Measure::P50 | Measure::P99 => 0.02,
    }
}

/// A figure's speed as a logarithm. What does nothing in a second is as slow as makes no difference, and so is
/// what takes no time fast: ratios stay numbers.
fn ln_speed(measure: Measure, figure: f64) -> f64 {
    let ln = figure.clamp(1e-100, 1e100).ln();
    match measure {
        Measure::Rate => ln,
        Measure::P50 | Measure::P99 => -ln,
    }
}

/// Figures as speeds; `None` unless each is one.
fn ln_speeds(measure: Measure, figures: &[f64]) -> Option<Vec<f64>> {
    let is_one = |figure: &f64| figure.is_finite() && *figure >= 0.0;
    figures
        .iter()
        .all(is_one)
        .then(|| figures.iter().map(|figure| ln_speed(measure, *figure)).collect())
}

/// The median of figures that are as they should be.
fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted)
}

impl Change {
    /// A measurement of which nothing is known yet.
    fn new(work: Work, measure: Measure, basis: Basis, runs: [usize; 2]) -> Self {
        Self {
            work,
            measure,
            basis,
            runs,
            medians: None,
            ratio: None,
            low: None,
            high: None,
            noise: None,
            finding: Finding::NotComparable,
            runs_needed: None,
            why: None,
            pairs: None,
        }
    }

    /// The same, with a reason why nothing will be known.
    fn because(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), finding: Finding::NotComparable, ..self }
    }

    /// The same, with what is known of it; `own` is what each build's runs differ by, as a logarithm.
    fn judged(self, shift: Shift, own: f64) -> Self {
        let noise = own.exp_m1().max(least(self.measure));
        let fewest = self.runs[0].min(self.runs[1]);
        let known = match shift {
            // Of fewer there is no telling what their own differ by.
            Shift::Known(known) if fewest < own::FEWEST_RUNS => {
                Shift::Few { guess: known.median, enough: Some(own::FEWEST_RUNS) }
            }
            other => other,
        };
        match known {
            Shift::Few { guess, enough } => Self {
                ratio: Some(guess.exp()),
                finding: Finding::TooFewRuns,
                runs_needed: enough.map(|enough| enough.max(own::FEWEST_RUNS)),
                ..self
            },
            Shift::Known(Distribution { median, low, high }) => {
                let large = median.abs() > noise.ln_1p();
                let finding = match (large, low > 0.0, high < 0.0) {
                    (true, true, _) => Finding::Faster,
                    (true, _, true) => Finding::Slower,
                    _ => Finding::NoDifference,
                };
                Self {
                    ratio: Some(median.exp()),
                    low: Some(low.exp()),
                    high: Some(high.exp()),
                    noise: Some(noise),
                    finding,
                    ..self
                }
            }
        }
    }
}

/// Whether there are more runs than are compared.
fn too_many(runs: [usize; 2]) -> bool {
    runs.iter().any(|runs| *runs > RUNS_MAX)
}
