//! The report as a Markdown document.

use std::fmt::Write;

use crate::figures::{self, NOT_MEASURED};
use crate::{Record, Report, comparisons};

/// The columns, and which of them hold text.
const COLUMNS: [(&str, bool); 20] = [
    ("QD", false),
    ("completion", true),
    ("path", true),
    ("device", true),
    ("thousand/s", false),
    ("interval", false),
    ("MB/s", false),
    ("p50 µs", false),
    ("p90 µs", false),
    ("p99 µs", false),
    ("p99.9 µs", false),
    ("max µs", false),
    ("exits/op", false),
    ("doorbells/op", false),
    ("interrupts/op", false),
    ("host CPU µs/op", false),
    ("guest cycles/op", false),
    ("copied bytes/op", false),
    ("runs", false),
    ("ratio (range)", false),
];

/// The report as a Markdown document: everything that the records hold.
pub fn markdown(report: &Report) -> String {
    let compared = comparisons(&report.results);
    let mut text = String::from("# Comparison of PCI devices\n\n");
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    for summary in figures::summary(&report.manifest) {
        line(&format!("- {}", escape(&summary)));
    }
    if let Some(guest) = &report.manifest.guest {
        line(&format!("- guest: {} bytes, FNV-1a {}", guest.bytes, escape(&guest.fnv1a)));
    }
    if !report.manifest.command_line.is_empty() {
        line(&format!("- command: {}", escape(&report.manifest.command_line.join(" "))));
    }
    for note in &report.manifest.notes {
        line(&format!("\n> {}", escape(note)));
    }
    for group in figures::groups(&report.results) {
        line(&format!("\n## {}\n", escape(&group.title)));
        line(&row(COLUMNS.iter().map(|(name, _)| (*name).to_owned())));
        line(&row(COLUMNS.iter().map(|(_, text)| if *text { ":--" } else { "--:" }.to_owned())));
        for record in group.rows.iter().flat_map(|(_, records)| records) {
            let ratio =
                figures::comparison_of(&compared, record).map_or_else(String::new, |comparison| {
                    let range = figures::range(comparison);
                    format!("{}{range}", figures::ratio(comparison))
                });
            line(&row(cells(record).into_iter().chain([ratio])));
        }
    }
    line("");
    for sentence in figures::legend(&report.results, &compared) {
        line(&format!("{}\n", escape(&sentence)));
    }
    line(
        "The ratio is operations a second of the paravirtual device for each of the emulated one.",
    );
    text
}

/// All cells but the ratio.
fn cells(record: &Record) -> [String; 19] {
    let rate = record.ops_per_second;
    let latency = |pick| figures::latency(record, pick);
    [
        record.queue_depth.to_string(),
        record.completion.to_string(),
        record.path.to_string(),
        escape(&figures::device(record)),
        figures::thousands(rate.median),
        figures::interval(record),
        figures::megabytes(record.bytes_per_second.median),
        latency(|latency| latency.p50),
        latency(|latency| latency.p90),
        latency(|latency| latency.p99),
        latency(|latency| latency.p999),
        latency(|latency| latency.max),
        figures::per_op(record.exits_per_op),
        figures::per_op(record.doorbells_per_op),
        figures::per_op(record.interrupts_per_op),
        record.host_cpu_ns_per_op.map_or_else(|| NOT_MEASURED.into(), figures::microseconds),
        figures::whole(record.guest_cycles_per_op),
        figures::whole(record.copied_bytes_per_op),
        record.runs.to_string(),
    ]
}

fn row(cells: impl Iterator<Item = String>) -> String {
    let mut text = String::from("|");
    for cell in cells {
        // Writing to a string does not fail.
        let _ = write!(text, " {cell} |");
    }
    text
}

/// `text` without anything that Markdown would take for its own.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | '|' | '*' | '_' | '`' | '<' | '[' | ']' | '#' | '~') {
            escaped.push('\\');
        }
        escaped.push(if character.is_control() { ' ' } else { character });
    }
    escaped
}
