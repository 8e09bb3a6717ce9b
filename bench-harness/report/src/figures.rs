//! Figures as text.

use crate::{Comparison, Completion, Latency, Manifest, Path, Record, Size, Verdict, coverage};

/// Shown for what was not measured.
pub(crate) const NOT_MEASURED: &str = "-";

/// Thousands a second, to three or four digits.
pub(crate) fn thousands(per_second: f64) -> String {
    digits(per_second / 1e3)
}

/// Millions of bytes a second.
pub(crate) fn megabytes(bytes_per_second: f64) -> String {
    digits(bytes_per_second / 1e6)
}

/// Microseconds, from nanoseconds.
pub(crate) fn microseconds(nanoseconds: f64) -> String {
    digits(nanoseconds / 1e3)
}

/// Microseconds, from whole nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn microseconds_of(nanoseconds: u64) -> String {
    microseconds(nanoseconds as f64)
}

/// As many decimals as leave three digits or so.
fn digits(value: f64) -> String {
    let decimals = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// The interval of the rate, thousands a second; there is none of one run.
pub(crate) fn interval(record: &Record) -> String {
    if record.runs < 2 {
        return NOT_MEASURED.into();
    }
    let rate = record.ops_per_second;
    format!("{}–{}", thousands(rate.low), thousands(rate.high))
}

/// One of the latencies, in microseconds.
pub(crate) fn latency(record: &Record, pick: fn(&Latency) -> u64) -> String {
    let latency = record.latency_ns.as_ref().map(pick);
    latency.map_or_else(|| NOT_MEASURED.into(), microseconds_of)
}

/// A count for each operation, with two decimals.
pub(crate) fn per_op(count: Option<f64>) -> String {
    count.map_or_else(|| NOT_MEASURED.into(), |count| format!("{count:.2}"))
}

/// A whole number for each operation.
pub(crate) fn whole(count: Option<f64>) -> String {
    count.map_or_else(|| NOT_MEASURED.into(), |count| format!("{count:.0}"))
}

/// A ratio, with a mark if it must not be trusted.
pub(crate) fn ratio(comparison: &Comparison<'_>) -> String {
    let mark = match comparison.verdict {
        Verdict::Faster | Verdict::Slower => "",
        Verdict::WithinNoise => " ~",
        Verdict::TooFewRuns => " ?",
    };
    format!("{}×{mark}", digits(comparison.ratio))
}

/// The range of a ratio, where there is one.
pub(crate) fn range(comparison: &Comparison<'_>) -> String {
    if comparison.verdict == Verdict::TooFewRuns {
        return String::new();
    }
    let most = if comparison.high.is_finite() { digits(comparison.high) } else { "∞".to_owned() };
    format!(" ({}–{most})", digits(comparison.low))
}

/// Bytes as people write them.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0 => "0 B".into(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// The device, with its monitor if that is another's.
pub(crate) fn device(record: &Record) -> String {
    match record.vmm.as_str() {
        "paraslot" | "none" => record.device.clone(),
        other => format!("{} ({other})", record.device),
    }
}

/// What one row of a table is about: all that did the same work. Ordered as rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) depth: u32,
    pub(crate) completion: Completion,
    pub(crate) path: Path,
}

/// Everything that one table shows: rows, each with its records.
pub(crate) struct Group<'a> {
    pub(crate) title: String,
    pub(crate) size: Size,
    pub(crate) rows: Vec<(Row, Vec<&'a Record>)>,
}

/// The records, grouped by workload and backend in the order in which these first appear; in a group
/// the rows are sorted, and in a row monitors come in the order in which they first appear,
/// paravirtual devices first.
pub(crate) fn groups(records: &[Record]) -> Vec<Group<'_>> {
    let kind = |record: &Record| (record.workload.clone(), record.size, record.backend.clone());
    let mut kinds = Vec::new();
    let mut monitors: Vec<&str> = Vec::new();
    for record in records {
        if !kinds.contains(&kind(record)) {
            kinds.push(kind(record));
        }
        if !monitors.contains(&record.vmm.as_str()) {
            monitors.push(&record.vmm);
        }
    }
    let one_backend = kinds.windows(2).all(|pair| pair[0].2 == pair[1].2);
    let group = |wanted: &(String, Size, String)| {
        let mut rows: Vec<(Row, Vec<&Record>)> = Vec::new();
        for record in records.iter().filter(|record| kind(record) == *wanted) {
            let row =
                Row { depth: record.queue_depth, completion: record.completion, path: record.path };
            match rows.iter_mut().find(|(other, _)| *other == row) {
                Some((_, members)) => members.push(record),
                None => rows.push((row, vec![record])),
            }
        }
        rows.sort_by_key(|(row, _)| *row);
        for (_, members) in &mut rows {
            members.sort_by_key(|record| {
                (monitors.iter().position(|name| *name == record.vmm), record.family)
            });
        }
        let (workload, size, backend) = wanted;
        let (amount, unit) = match *size {
            Size::Block(amount) => (amount, "blocks"),
            Size::Frame(amount) => (amount, "frames"),
        };
        let mut title = format!("{workload}, {} {unit}", bytes(amount));
        if !one_backend {
            title.push_str(", ");
            title.push_str(backend);
        }
        Group { title, size: *size, rows }
    };
    kinds.iter().map(group).collect()
}

/// The comparison that `record` is the paravirtual side of, if there is one.
pub(crate) fn comparison_of<'a, 'b>(
    comparisons: &'b [Comparison<'a>],
    record: &Record,
) -> Option<&'b Comparison<'a>> {
    comparisons.iter().find(|comparison| std::ptr::eq(comparison.paravirtual, record))
}

/// Sentences that explain the figures: how sure the intervals are, and the marks on ratios.
pub(crate) fn legend(records: &[Record], comparisons: &[Comparison<'_>]) -> Vec<String> {
    let mut lines = Vec::new();
    let runs = records.iter().map(|record| record.runs);
    if let (Some(least), Some(most)) = (runs.clone().min(), runs.max()) {
        let count = match (least, most) {
            (1, 1) => "one run".into(),
            (least, most) if least == most => format!("{least} runs"),
            (least, most) => format!("{least} to {most} runs"),
        };
        let known = usize::try_from(least).map_or(0.0, coverage);
        lines.push(if least < 2 {
            format!("Medians of {count}; one run has no interval.")
        } else {
            format!(
                "Medians of {count}; the interval covers the true median with a confidence of {} % \
                 or more.",
                digits(known * 100.0)
            )
        });
    }
    let has = |verdict| comparisons.iter().any(|comparison| comparison.verdict == verdict);
    if has(Verdict::WithinNoise) {
        lines.push("~ difference within the noise: the intervals overlap.".into());
    }
    if has(Verdict::TooFewRuns) {
        lines.push("? too few runs to tell a difference from noise.".into());
    }
    lines
}

/// How a report begins: what it was measured on, in lines.
pub(crate) fn summary(manifest: &Manifest) -> Vec<String> {
    let unknown = || "unknown".to_owned();
    let mut machine = manifest.cpu_model.clone().unwrap_or_else(unknown);
    machine.push_str(", Linux ");
    machine.push_str(manifest.kernel.as_deref().unwrap_or("unknown"));
    if let Some(hypervisor) = &manifest.hypervisor {
        machine.push_str(", ");
        machine.push_str(hypervisor);
    }
    if manifest.nested == Some(true) {
        machine.push_str(" (nested)");
    }
    let revision = manifest.revision.as_ref().map(|revision| format!(" ({revision})"));
    let mut setting = format!(
        "paraslot {}{}, {} build, {}",
        manifest.version,
        revision.unwrap_or_default(),
        manifest.build,
        manifest.date,
    );
    if setting.ends_with(", ") {
        setting.truncate(setting.len() - 2);
    }
    let placed = manifest.pinned.map_or_else(
        || "not pinned".to_owned(),
        |pinned| format!("guest on CPU {}, device on CPU {}", pinned.vcpu, pinned.device),
    );
    let times = format!(
        "{} + {} ms a run, busy polling {} µs, {placed}",
        manifest.warm_up_ms, manifest.measure_ms, manifest.busy_poll_us
    );
    let mut lines = vec![setting, machine, times];
    if !manifest.backend.is_empty() {
        lines.push(manifest.backend.join("; "));
    }
    lines
}
