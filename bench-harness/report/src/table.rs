//! The table for a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::column::Column;
use crate::figures::{self, LONG_FRAME};
use crate::groups::{Group, groups};
use crate::{Comparison, Measure, Report, Size, comparisons};

/// Columns of the terminal that the table may use.
const WIDTH: u16 = 100;

/// The report as text for a terminal: at most 100 columns wide, a table for each workload, and in it
/// the devices that did the same work below each other, with the ratio of the paravirtual one to the
/// emulated one. Below a network's table is what was lost on the way.
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
    for group in groups(&report.results) {
        line(&["\n", &group.title, "\n", &table_of(&group, &compared).trim_fmt()]);
        let records = group.records();
        for missing in records.filter_map(figures::missing) {
            line(&["! ", &missing]);
        }
    }
    line(&[]);
    for sentence in figures::legend(&report.results, &compared) {
        line(&[&sentence]);
    }
    text
}

/// The columns that a group has, with their headers.
fn columns(group: &Group<'_>) -> Vec<(&'static str, Column)> {
    let (depth, rate) = match group.size {
        Size::Block(_) => ("QD", "kIOPS"),
        Size::Frame(_) => ("batch", "kpps"),
    };
    let mut columns = vec![
        (depth, Column::Depth),
        ("completion", Column::Completion),
        ("path", Column::Path),
        ("device", Column::Device),
        (rate, Column::Rate),
    ];
    if group.offered.is_none() {
        columns.push(("interval", Column::Interval));
    }
    match group.size {
        Size::Frame(bytes) if bytes >= LONG_FRAME => columns.push(("Gbit/s", Column::Gigabits)),
        Size::Frame(_) | Size::Block(_) => {
            columns.extend([("p50 µs", Column::P50), ("p99 µs", Column::P99)]);
        }
    }
    columns.extend([("exits/op", Column::Exits), ("CPU µs/op", Column::HostCpu)]);
    if group.offered.is_some() {
        let ratio = |measure| Column::Ratio(measure);
        columns.extend([("p50 ratio", ratio(Measure::P50)), ("p99 ratio", ratio(Measure::P99))]);
    } else {
        columns.push(("ratio", Column::Ratio(Measure::Rate)));
    }
    columns
}

fn table_of(group: &Group<'_>, compared: &[Comparison<'_>]) -> Table {
    let columns = columns(group);
    let mut table = Table::new();
    table
        .force_no_tty()
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(columns.iter().map(|(name, _)| *name));
    for (_, records) in &group.rows {
        for (index, record) in records.iter().enumerate() {
            // The key once, so that what belongs together is seen to.
            let cell = |(_, column): &(_, Column)| match column.is_key() && index > 0 {
                true => String::new(),
                false => column.cell(record, compared),
            };
            table.add_row(columns.iter().map(cell));
        }
    }
    for (column, (_, shown)) in table.column_iter_mut().zip(&columns) {
        column.set_padding((0, 1));
        if !shown.is_text() {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
