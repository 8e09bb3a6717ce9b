//! The report as a Markdown document.

use std::fmt::Write;

use crate::column::Column;
use crate::figures;
use crate::groups::{Group, groups};
use crate::{Measure, Report, Size, comparisons};

/// The columns that a group has, with their headers.
fn columns(group: &Group<'_>) -> Vec<(&'static str, Column)> {
    let network = matches!(group.size, Size::Frame(_));
    let mut columns = vec![
        (if network { "batch" } else { "QD" }, Column::Depth),
        ("completion", Column::Completion),
        ("path", Column::Path),
        ("device", Column::Device),
        ("thousand/s", Column::Rate),
        ("interval", Column::Interval),
        if network { ("Gbit/s", Column::Gigabits) } else { ("MB/s", Column::Megabytes) },
        ("p50 µs", Column::P50),
        ("p90 µs", Column::P90),
        ("p99 µs", Column::P99),
        ("p99.9 µs", Column::P999),
        ("max µs", Column::Longest),
        ("exits/op", Column::Exits),
        ("doorbells/op", Column::Doorbells),
        ("interrupts/op", Column::Interrupts),
        ("host CPU µs/op", Column::HostCpu),
        ("guest cycles/op", Column::GuestCycles),
        ("copied bytes/op", Column::Copied),
    ];
    if network {
        columns.extend([("lost", Column::Lost), ("out of order", Column::Reordered)]);
    }
    columns.push(("runs", Column::Runs));
    if group.offered.is_some() {
        columns.extend([
            ("p50 ratio (range)", Column::RatioWithRange(Measure::P50)),
            ("p99 ratio (range)", Column::RatioWithRange(Measure::P99)),
        ]);
    } else {
        columns.push(("ratio (range)", Column::RatioWithRange(Measure::Rate)));
    }
    columns
}

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
    for group in groups(&report.results) {
        line(&format!("\n## {}\n", escape(&group.title)));
        let columns = columns(&group);
        line(&row(columns.iter().map(|(name, _)| (*name).to_owned())));
        let rule = |(_, column): &(_, Column)| if column.is_text() { ":--" } else { "--:" };
        line(&row(columns.iter().map(|column| rule(column).to_owned())));
        for record in group.records() {
            line(&row(columns.iter().map(|(_, column)| match column {
                // The one that holds a name from the outside.
                Column::Device => escape(&column.cell(record, &compared)),
                column => column.cell(record, &compared),
            })));
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
