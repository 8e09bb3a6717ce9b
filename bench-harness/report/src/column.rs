//! The columns of a table, and how a record fills them.

use crate::figures::{self, NOT_MEASURED};
use crate::{Comparison, Family, Measure, Record};

/// What a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Operations in flight, or frames handed over at once.
    Depth,
    Completion,
    Path,
    Device,
    /// Thousands a second.
    Rate,
    Interval,
    Megabytes,
    Gigabits,
    P50,
    P90,
    P99,
    P999,
    Longest,
    Exits,
    Doorbells,
    Interrupts,
    HostCpu,
    GuestCycles,
    Copied,
    Lost,
    Reordered,
    Runs,
    /// A ratio, in the row of the paravirtual device.
    Ratio(Measure),
    /// The same with its range.
    RatioWithRange(Measure),
}

impl Column {
    /// Whether it holds words rather than figures.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Completion | Self::Path | Self::Device)
    }

    /// Whether it is part of what a row's records have in common.
    pub(crate) fn is_key(self) -> bool {
        matches!(self, Self::Depth | Self::Completion | Self::Path)
    }

    /// What it shows of a record.
    pub(crate) fn cell(self, record: &Record, compared: &[Comparison<'_>]) -> String {
        let microseconds =
            |value: Option<f64>| value.map_or_else(not_measured, figures::microseconds);
        let count = |value: Option<u64>| value.map_or_else(not_measured, |value| value.to_string());
        match self {
            Self::Depth => record.queue_depth.to_string(),
            Self::Completion => record.completion.to_string(),
            Self::Path => record.path.to_string(),
            Self::Device => figures::device(record),
            Self::Rate => figures::thousands(record.ops_per_second.median),
            Self::Interval => figures::interval(record),
            Self::Megabytes => figures::megabytes(record.bytes_per_second.median),
            Self::Gigabits => figures::gigabits(record.bytes_per_second.median),
            Self::P50 => figures::latency(record, |latency| latency.p50),
            Self::P90 => figures::latency(record, |latency| latency.p90),
            Self::P99 => figures::latency(record, |latency| latency.p99),
            Self::P999 => figures::latency(record, |latency| latency.p999),
            Self::Longest => figures::latency(record, |latency| latency.max),
            Self::Exits => figures::per_op(record.exits_per_op),
            Self::Doorbells => figures::per_op(record.doorbells_per_op),
            Self::Interrupts => figures::per_op(record.interrupts_per_op),
            Self::HostCpu => microseconds(record.host_cpu_ns_per_op),
            Self::GuestCycles => figures::whole(record.guest_cycles_per_op),
            Self::Copied => figures::whole(record.copied_bytes_per_op),
            Self::Lost => count(record.frames_lost),
            Self::Reordered => count(record.frames_reordered),
            Self::Runs => record.runs.to_string(),
            Self::Ratio(measure) => match figures::comparison_of(compared, record, measure) {
                Some(comparison) => figures::ratio(comparison),
                None if record.family == Family::Paravirtual => not_measured(),
                None => String::new(),
            },
            Self::RatioWithRange(measure) => figures::comparison_of(compared, record, measure)
                .map_or_else(String::new, |found| {
                    format!("{}{}", figures::ratio(found), figures::range(found))
                }),
        }
    }
}

fn not_measured() -> String {
    NOT_MEASURED.into()
}
