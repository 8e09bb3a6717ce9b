//! The records as a table for spreadsheets and programs.

use crate::{Comparison, Distribution, Family, Latency, Measure, Record, Report, Size, Verdict};
use crate::{comparisons, figures};

/// How a column is filled; `None` is an empty field.
type Value = fn(&Record) -> Option<String>;

/// The columns, by the names and in the units of `results.json`.
const COLUMNS: &[(&str, Value)] = &[
    ("device", |record| text(&record.device)),
    ("family", |record| text(&record.family.to_string())),
    ("path", |record| text(&record.path.to_string())),
    ("guest", |record| text(&record.guest.to_string())),
    ("completion", |record| text(&record.completion.to_string())),
    ("workload", |record| text(&record.workload)),
    ("block_size", |record| match record.size {
        Size::Block(bytes) => exact(bytes),
        Size::Frame(_) => None,
    }),
    ("frame_size", |record| match record.size {
        Size::Block(_) => None,
        Size::Frame(bytes) => exact(bytes),
    }),
    ("queue_depth", |record| exact(record.queue_depth)),
    ("offered_per_second", |record| record.offered_per_second.and_then(exact)),
    ("queues", |record| exact(record.queues)),
    ("vmm", |record| text(&record.vmm)),
    ("backend", |record| text(&record.backend)),
    ("runs", |record| exact(record.runs)),
    ("operations", |record| exact(record.operations)),
    ("seconds", |record| exact(record.seconds)),
    ("ops_per_second", |record| exact(record.ops_per_second.median)),
    ("ops_per_second_low", |record| several(record, record.ops_per_second.low)),
    ("ops_per_second_high", |record| several(record, record.ops_per_second.high)),
    ("bytes_per_second", |record| exact(record.bytes_per_second.median)),
    ("bytes_per_second_low", |record| several(record, record.bytes_per_second.low)),
    ("bytes_per_second_high", |record| several(record, record.bytes_per_second.high)),
    ("latency_p50_ns", |record| latency(record, |latency| latency.p50)),
    ("latency_p90_ns", |record| latency(record, |latency| latency.p90)),
    ("latency_p99_ns", |record| latency(record, |latency| latency.p99)),
    ("latency_p999_ns", |record| latency(record, |latency| latency.p999)),
    ("latency_max_ns", |record| latency(record, |latency| latency.max)),
    ("run_p50_ns", |record| of_runs(record.p50_ns, |runs| runs.median)),
    ("run_p50_ns_low", |record| of_runs(record.p50_ns, |runs| runs.low)),
    ("run_p50_ns_high", |record| of_runs(record.p50_ns, |runs| runs.high)),
    ("run_p99_ns", |record| of_runs(record.p99_ns, |runs| runs.median)),
    ("run_p99_ns_low", |record| of_runs(record.p99_ns, |runs| runs.low)),
    ("run_p99_ns_high", |record| of_runs(record.p99_ns, |runs| runs.high)),
    ("exits_per_op", |record| record.exits_per_op.and_then(exact)),
    ("doorbells_per_op", |record| record.doorbells_per_op.and_then(exact)),
    ("interrupts_per_op", |record| record.interrupts_per_op.and_then(exact)),
    ("host_cpu_ns_per_op", |record| record.host_cpu_ns_per_op.and_then(exact)),
    ("guest_cycles_per_op", |record| record.guest_cycles_per_op.and_then(exact)),
    ("copied_bytes_per_op", |record| record.copied_bytes_per_op.and_then(exact)),
    ("frames_lost", |record| record.frames_lost.and_then(exact)),
    ("frames_reordered", |record| record.frames_reordered.and_then(exact)),
];

/// What sets a paravirtual device against the emulated one that did the same.
const COMPARED: [&str; 6] =
    ["against", "compared_by", "ratio", "ratio_low", "ratio_high", "verdict"];

/// The records as CSV (RFC 4180), one a line below a line of names: every figure as it was measured, in
/// the units of `results.json`. A field is empty where nothing was measured. The last six are of
/// paravirtual devices alone, and empty where no emulated one did the same: whom the record is set
/// [`against`](crate::comparisons), by `rate` or, at a fixed load, by `p50`, and what came of that.
///
/// A text that a spreadsheet would take for a formula has an apostrophe before it.
pub fn csv(report: &Report) -> String {
    let compared = comparisons(&report.results);
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = COLUMNS.iter().map(|(name, _)| *name).chain(COMPARED);
    // Writing to memory does not fail, and all lines are of one length.
    let _ = writer.write_record(names);
    for record in &report.results {
        let own = COLUMNS.iter().map(|(_, value)| value(record).unwrap_or_default());
        let _ = writer.write_record(own.chain(of(record, &compared)));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last fields of a record.
fn of(record: &Record, compared: &[Comparison<'_>]) -> [String; 6] {
    let measures = [(Measure::Rate, "rate"), (Measure::P50, "p50")];
    let found = measures.into_iter().find_map(|(measure, name)| {
        figures::comparison_of(compared, record, measure).map(|found| (found, name))
    });
    let Some((found, measure)) = found.filter(|_| record.family == Family::Paravirtual) else {
        return Default::default();
    };
    let verdict = match found.verdict {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::WithinNoise => "within-noise",
        Verdict::TooFewRuns => "too-few-runs",
    };
    let ranged = |end: f64| match found.verdict {
        Verdict::TooFewRuns => String::new(),
        Verdict::Faster | Verdict::Slower | Verdict::WithinNoise => end.to_string(),
    };
    [
        text(&found.emulated.device).unwrap_or_default(),
        measure.into(),
        found.ratio.to_string(),
        ranged(found.low),
        ranged(found.high),
        verdict.into(),
    ]
}

/// A text from a file of anybody's.
fn text(text: &str) -> Option<String> {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    Some(if is_formula { format!("'{text}") } else { text.to_owned() })
}

/// A number, all of it.
#[expect(clippy::unnecessary_wraps, reason = "what a column's function gives")]
fn exact(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// An end of an interval; there is none of one run.
fn several(record: &Record, end: f64) -> Option<String> {
    (record.runs >= 2).then(|| end.to_string())
}

fn latency(record: &Record, pick: fn(&Latency) -> u64) -> Option<String> {
    record.latency_ns.as_ref().map(pick).and_then(exact)
}

fn of_runs(runs: Option<Distribution>, pick: fn(&Distribution) -> f64) -> Option<String> {
    runs.as_ref().map(pick).and_then(exact)
}
