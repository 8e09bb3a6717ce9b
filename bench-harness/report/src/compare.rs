//! Paravirtual devices against emulated ones.

use serde::Serialize;

use crate::{Distribution, Family, Record};

/// What may be said of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The paravirtual device is faster: the intervals do not overlap.
    Faster,
    /// It is slower: the intervals do not overlap.
    Slower,
    /// The intervals overlap: the runs do not tell the two apart.
    WithinNoise,
    /// Fewer than three runs of either, so nothing is known about the noise.
    TooFewRuns,
}

/// Fewest runs of each from which a difference is concluded.
const FEWEST_RUNS: u32 = 3;

/// Which figures of two records are set against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Operations a second.
    Rate,
    /// The median latency. At a fixed load the rates are the same for whoever keeps up.
    P50,
    /// The latency that 99 % do not exceed, likewise.
    P99,
}

/// One paravirtual device and one emulated one that did the same.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The paravirtual device's record.
    pub paravirtual: &'a Record,
    /// The emulated device's.
    pub emulated: &'a Record,
    /// What is compared.
    pub measure: Measure,
    /// How many times better the first is, by the medians: its operations a second for each of the
    /// second's, or the second's latency for each unit of its own.
    pub ratio: f64,
    /// The least that the ratio is if both medians are in their intervals.
    pub low: f64,
    /// The most; infinite if what it is divided by reaches down to 0.
    pub high: f64,
    /// What may be said of the difference.
    pub verdict: Verdict,
}

/// Every paravirtual record with every emulated one that did the same: same path, guest, workload,
/// size, depth, completion, offered load, monitor and backend. In the records' order. At a fixed load the
/// latencies are compared, else the rates.
///
/// A pair without a figure to divide by has no ratio and is left out.
pub fn comparisons(records: &[Record]) -> Vec<Comparison<'_>> {
    let of = |family| records.iter().filter(move |record| record.family == family);
    let mut found = Vec::new();
    for paravirtual in of(Family::Paravirtual) {
        let measures: &[Measure] = match paravirtual.offered_per_second {
            None => &[Measure::Rate],
            Some(_) => &[Measure::P50, Measure::P99],
        };
        for emulated in of(Family::Emulated).filter(|other| same_work(paravirtual, other)) {
            let compare = |measure: &Measure| compare(paravirtual, emulated, *measure);
            found.extend(measures.iter().filter_map(compare));
        }
    }
    found
}

fn same_work(a: &Record, b: &Record) -> bool {
    a.path == b.path
        && a.guest == b.guest
        && a.workload == b.workload
        && a.size == b.size
        && a.queue_depth == b.queue_depth
        && a.completion == b.completion
        && a.offered_per_second == b.offered_per_second
        && a.vmm == b.vmm
        && a.backend == b.backend
}

fn compare<'a>(
    paravirtual: &'a Record,
    emulated: &'a Record,
    measure: Measure,
) -> Option<Comparison<'a>> {
    // The better the first is, the more of `over` there is for each of `under`.
    let (over, under): (Distribution, Distribution) = match measure {
        Measure::Rate => (paravirtual.ops_per_second, emulated.ops_per_second),
        Measure::P50 => (emulated.p50_ns?, paravirtual.p50_ns?),
        Measure::P99 => (emulated.p99_ns?, paravirtual.p99_ns?),
    };
    if under.median <= 0.0 {
        return None;
    }
    let verdict = if paravirtual.runs.min(emulated.runs) < FEWEST_RUNS {
        Verdict::TooFewRuns
    } else if over.overlaps(&under) {
        Verdict::WithinNoise
    } else if over.median > under.median {
        Verdict::Faster
    } else {
        Verdict::Slower
    };
    Some(Comparison {
        paravirtual,
        emulated,
        measure,
        ratio: over.median / under.median,
        low: over.low / under.high,
        high: over.high / under.low,
        verdict,
    })
}
