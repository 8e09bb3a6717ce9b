//! Reports that were written at different times.

use std::collections::BTreeMap;

use super::{
    Basis, Between, Change, Work, ln_speed, ln_speeds, median, own, share_of_error, shared_memory,
    shift, too_many,
};
use crate::{Distribution, Measure, Record, Report};

impl Between {
    /// What two reports have in common, and what one alone has. The runs behind them are taken for independent:
    /// what the host did meanwhile is in the ratio, as far as it does not show within either.
    pub fn of(before: &Report, after: &Report) -> Self {
        let mut this = Self::new(&before.manifest, &after.manifest);
        let memory = |report| if shared_memory(report) { "shared" } else { "the process's own" };
        if memory(before) != memory(after) {
            let (before, after) = (memory(before), memory(after));
            this.warnings.push(format!("guests' memory differs: {before}, now {after}"));
        }
        let mut known: BTreeMap<Work, &Record> = numbered(&before.results).into_iter().collect();
        let mut both = Vec::new();
        for (work, after) in numbered(&after.results) {
            match known.remove(&work) {
                Some(before) => both.push((work, before, after)),
                None => this.only_after.push(work),
            }
        }
        let left = numbered(&before.results).into_iter().map(|(work, _)| work);
        this.only_before = left.filter(|work| known.contains_key(work)).collect();
        let error = share_of_error(both.len());
        let change = |(work, before, after)| change(work, before, after, error);
        this.changes = both.into_iter().map(change).collect();
        if this.changes.iter().any(|change| change.basis == Basis::Intervals) {
            this.warnings.push(
                "a record does not have its runs: the intervals of the medians are compared, which finds less"
                    .into(),
            );
        }
        this
    }
}

/// Records with what they are of, those of the same thing told apart by their order.
fn numbered(records: &[Record]) -> Vec<(Work, &Record)> {
    let mut seen: BTreeMap<Work, usize> = BTreeMap::new();
    let number = |record| {
        let mut work = Work::of(record);
        let count = seen.entry(work.clone()).or_default();
        work.repeated = *count;
        *count += 1;
        (work, record)
    };
    records.iter().map(number).collect()
}

/// The figures of a record's runs, and their distribution.
fn figures(record: &Record, measure: Measure) -> (&[f64], Option<Distribution>) {
    match measure {
        Measure::Rate => (&record.run_ops_per_second, Some(record.ops_per_second)),
        Measure::P50 => (&record.run_p50_ns, record.p50_ns),
        Measure::P99 => (&[], record.p99_ns),
    }
}

fn change(work: Work, before: &Record, after: &Record, error: f64) -> Change {
    // At a fixed load the rates are the same for whoever keeps up.
    let measure = match work.offered_per_second {
        None => Measure::Rate,
        Some(_) => Measure::P50,
    };
    let (first, second) = (figures(before, measure), figures(after, measure));
    if first.0.is_empty() || second.0.is_empty() {
        let count = |record: &Record| usize::try_from(record.runs).unwrap_or(usize::MAX);
        let runs = [count(before), count(after)];
        let change = Change::new(work, measure, Basis::Intervals, runs);
        return intervals(change, first.1, second.1, error);
    }
    let runs = [first.0.len(), second.0.len()];
    let change = Change::new(work, measure, Basis::Runs, runs);
    if too_many(runs) {
        return change.because("there are more runs than this program makes");
    }
    let speeds = ln_speeds(measure, first.0).zip(ln_speeds(measure, second.0));
    let Some((before, after)) = speeds else {
        return change.because("a run's figure is none");
    };
    let Some(shift) = shift::of_independent(&before, &after, error) else {
        return change.because("there are no runs");
    };
    let medians = median(first.0).zip(median(second.0)).map(<[f64; 2]>::from);
    Change { medians, ..change }.judged(shift, own::of_independent(&before, &after))
}

/// A change of which the medians' intervals alone are known.
fn intervals(
    change: Change,
    before: Option<Distribution>,
    after: Option<Distribution>,
    error: f64,
) -> Change {
    let Some((before, after)) = before.zip(after) else {
        return change.because("one has no such figure");
    };
    if too_many(change.runs) {
        return change.because("there are more runs than this program makes");
    }
    let is_one = |one: &Distribution| {
        let ordered = 0.0 <= one.low && one.low <= one.median && one.median <= one.high;
        ordered && one.high.is_finite()
    };
    if !is_one(&before) || !is_one(&after) {
        return change.because("an interval is none");
    }
    let speed = |one: Distribution| {
        let [low, median, high] =
            [one.low, one.median, one.high].map(|figure| ln_speed(change.measure, figure));
        // What is fast is below what is slow where latencies are compared.
        Distribution { median, low: low.min(high), high: low.max(high) }
    };
    let medians = Some([before.median, after.median]);
    let (before, after) = (speed(before), speed(after));
    let shift = shift::of_intervals((before, change.runs[0]), (after, change.runs[1]), error);
    // Half an interval's width, as the runs themselves are not known.
    let own = (before.high - before.low).max(after.high - after.low) / 2.0;
    Change { medians, ..change }.judged(shift, own)
}
