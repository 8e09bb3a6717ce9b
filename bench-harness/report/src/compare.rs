//! Paravirtual devices against emulated ones.

use crate::{Family, Record};

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

/// One paravirtual device and one emulated one that did the same.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The paravirtual device's record.
    pub paravirtual: &'a Record,
    /// The emulated device's.
    pub emulated: &'a Record,
    /// Operations a second of the first for each of the second, by their medians.
    pub ratio: f64,
    /// The least that the ratio is if both medians are in their intervals.
    pub low: f64,
    /// The most; infinite if the emulated device's interval reaches down to 0.
    pub high: f64,
    /// What may be said of the difference.
    pub verdict: Verdict,
}

/// Every paravirtual record with every emulated one that did the same: same path, workload, size,
/// depth, completion, monitor and backend. In the records' order.
///
/// A pair of which the emulated one did nothing has no ratio and is left out.
pub fn comparisons(records: &[Record]) -> Vec<Comparison<'_>> {
    let of = |family| records.iter().filter(move |record| record.family == family);
    let mut found = Vec::new();
    for paravirtual in of(Family::Paravirtual) {
        for emulated in of(Family::Emulated).filter(|other| same_work(paravirtual, other)) {
            found.extend(compare(paravirtual, emulated));
        }
    }
    found
}

fn same_work(a: &Record, b: &Record) -> bool {
    a.path == b.path
        && a.workload == b.workload
        && a.size == b.size
        && a.queue_depth == b.queue_depth
        && a.completion == b.completion
        && a.vmm == b.vmm
        && a.backend == b.backend
}

fn compare<'a>(paravirtual: &'a Record, emulated: &'a Record) -> Option<Comparison<'a>> {
    let (fast, slow) = (paravirtual.ops_per_second, emulated.ops_per_second);
    if slow.median <= 0.0 {
        return None;
    }
    let verdict = if paravirtual.runs.min(emulated.runs) < FEWEST_RUNS {
        Verdict::TooFewRuns
    } else if fast.overlaps(&slow) {
        Verdict::WithinNoise
    } else if fast.median > slow.median {
        Verdict::Faster
    } else {
        Verdict::Slower
    };
    Some(Comparison {
        paravirtual,
        emulated,
        ratio: fast.median / slow.median,
        low: fast.low / slow.high,
        high: fast.high / slow.low,
        verdict,
    })
}
