//! The table for a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::figures::{self, NOT_MEASURED};
use crate::{Family, Report, Size, comparisons};

/// Columns of the terminal that the table may use.
const WIDTH: u16 = 100;

/// The report as text for a terminal: at most 100 columns wide, a table for each workload, and in it
/// the devices that did the same work below each other, with the ratio of the paravirtual one to the
/// emulated one.
pub fn table(report: &Report) -> String {
    let compared = comparisons(&report.results);
    let mut text = String::new();
    let mut line = |parts: &[&str]| {
        parts.iter().for_each(|part| text.push_str(part));
        text.push('\n');
    };
    for summary in figures::summary(&report.manifest) {
        line(&[&summary]);
    }
    for note in &report.manifest.notes {
        line(&["! ", note]);
    }
    for group in figures::groups(&report.results) {
        let rate = match group.size {
            Size::Block(_) => "kIOPS",
            Size::Frame(_) => "kpps",
        };
        let mut table = Table::new();
        table
            .force_no_tty()
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(WIDTH)
            .set_header([
                "QD",
                "completion",
                "path",
                "device",
                rate,
                "interval",
                "p50 µs",
                "p99 µs",
                "exits/op",
                "CPU µs/op",
                "ratio",
            ]);
        for (row, records) in &group.rows {
            for (index, record) in records.iter().enumerate() {
                // The key once, so that what belongs together is seen to.
                let key = |text: String| if index == 0 { text } else { String::new() };
                let rate = record.ops_per_second;
                let latency = |pick| figures::latency(record, pick);
                let ratio = figures::comparison_of(&compared, record).map(figures::ratio);
                let none = || match record.family {
                    Family::Paravirtual => NOT_MEASURED.into(),
                    Family::Emulated | Family::Passthrough => String::new(),
                };
                table.add_row([
                    key(row.depth.to_string()),
                    key(row.completion.to_string()),
                    key(row.path.to_string()),
                    figures::device(record),
                    figures::thousands(rate.median),
                    figures::interval(record),
                    latency(|latency| latency.p50),
                    latency(|latency| latency.p99),
                    figures::per_op(record.exits_per_op),
                    record
                        .host_cpu_ns_per_op
                        .map_or_else(|| NOT_MEASURED.into(), figures::microseconds),
                    ratio.unwrap_or_else(none),
                ]);
            }
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 1));
            if index == 0 || index > 3 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        line(&["\n", &group.title, "\n", &table.trim_fmt()]);
    }
    line(&[]);
    for sentence in figures::legend(&report.results, &compared) {
        line(&[&sentence]);
    }
    text
}
