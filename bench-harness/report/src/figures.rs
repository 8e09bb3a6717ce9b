//! Figures as text.

use crate::{
    Comparison, Family, GuestKind, Latency, Manifest, Measure, Path, Record, Size, Verdict,
    coverage,
};

/// Shown for what was not measured.
pub(crate) const NOT_MEASURED: &str = "-";

/// What no device does; it is written with a power of ten, so that a file cannot fill a page with digits.
const HUGE: f64 = 1e15;

/// Bytes from which a frame is long enough for its bits to say more than its number.
pub(crate) const LONG_FRAME: u64 = 1514;

/// Thousands a second, to three or four digits.
pub(crate) fn thousands(per_second: f64) -> String {
    digits(per_second / 1e3)
}

/// Millions of bytes a second.
pub(crate) fn megabytes(bytes_per_second: f64) -> String {
    digits(bytes_per_second / 1e6)
}

/// Thousands of millions of bits a second.
pub(crate) fn gigabits(bytes_per_second: f64) -> String {
    digits(bytes_per_second * 8.0 / 1e9)
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
    if value.abs() >= HUGE {
        return format!("{value:.2e}");
    }
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
    decimals(count, 2)
}

/// A whole number for each operation.
pub(crate) fn whole(count: Option<f64>) -> String {
    decimals(count, 0)
}

fn decimals(count: Option<f64>, decimals: usize) -> String {
    match count {
        None => NOT_MEASURED.into(),
        Some(count) if count.abs() >= HUGE => format!("{count:.2e}"),
        Some(count) => format!("{count:.decimals$}"),
    }
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

/// The device, with its monitor if that is another's, and its address if it is the host's.
pub(crate) fn device(record: &Record) -> String {
    let address = record.backend.strip_prefix("host=").filter(|_| record.path == Path::Passthrough);
    if let Some(address) = address.and_then(|rest| rest.split(',').next()) {
        // Few hosts have PCI addresses in more domains than the first.
        let short = address.strip_prefix("0000:").unwrap_or(address);
        return format!("{} ({short})", record.device);
    }
    match record.vmm.as_str() {
        "paraslot" | "none" => record.device.clone(),
        other => format!("{} ({other})", record.device),
    }
}

/// The comparison of that figure that `record` is the paravirtual side of, if there is one.
pub(crate) fn comparison_of<'a, 'b>(
    comparisons: &'b [Comparison<'a>],
    record: &Record,
    measure: Measure,
) -> Option<&'b Comparison<'a>> {
    comparisons.iter().find(|comparison| {
        std::ptr::eq(comparison.paravirtual, record) && comparison.measure == measure
    })
}

/// What there is to say of frames that did not arrive, or not in their order.
pub(crate) fn missing(record: &Record) -> Option<String> {
    let (lost, reordered) = (record.frames_lost.unwrap_or(0), record.frames_reordered.unwrap_or(0));
    if lost == 0 && reordered == 0 {
        return None;
    }
    let mut parts = Vec::new();
    for (count, what) in [(lost, "lost"), (reordered, "out of order")] {
        if count != 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    Some(format!(
        "{}, batch {}, {}, {}: {} of {} frames",
        device(record),
        record.queue_depth,
        record.completion,
        record.path,
        parts.join(" and "),
        record.operations.saturating_add(lost),
    ))
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
    lines.extend(terms(records).map(str::to_owned));
    if records.iter().any(|record| record.family == Family::Passthrough) {
        lines.push(
            "passthrough: the host's own device, at that address; in all tables of its work."
                .into(),
        );
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

fn is_net(record: &Record) -> bool {
    matches!(record.size, Size::Frame(_))
}

/// What the words in networks' tables mean.
fn terms(records: &[Record]) -> impl Iterator<Item = &'static str> {
    let has = |test: fn(&Record) -> bool| records.iter().any(test);
    let calls = has(|record| is_net(record) && record.guest == GuestKind::Linux).then_some(
        "kpps: of TCP, thousand calls a second; of tcp-rr, round trips. Gbit/s: of what TCP carries.",
    );
    let frames = has(|record| is_net(record) && record.guest != GuestKind::Linux).then_some(
        "kpps: thousand frames a second; of rr, round trips. batch: frames handed over at once.",
    );
    let is_long = |record: &Record| {
        let long = matches!(record.size, Size::Frame(bytes) if bytes >= LONG_FRAME);
        long && record.guest != GuestKind::Linux
    };
    let long = has(is_long).then_some("Gbit/s: of frames as they are in memory.");
    let offered: &[_] = if has(|record| record.offered_per_second.is_some()) {
        &[
            "With a load offered, latency is from when a frame was due. The ratios are of latencies:",
            "the emulated device's for each unit of the paravirtual one's.",
        ]
    } else {
        &[]
    };
    frames.into_iter().chain(calls).chain(long).chain(offered.iter().copied())
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
    if let Some(name) = manifest.guest.as_ref().and_then(|guest| guest.name.as_ref()) {
        lines.push(format!("guest: {name}"));
    }
    if !manifest.backend.is_empty() {
        lines.push(manifest.backend.join("; "));
    }
    lines
}
