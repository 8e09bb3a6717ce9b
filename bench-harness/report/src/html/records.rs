//! The table of all records. The page's script makes it sort and filter; without, it is a table.

use maud::{Markup, html};

use crate::column::Column;
use crate::{Comparison, Family, Measure, Record, Size, figures};

use super::words::plain;

/// A column: its heading with the unit, and what fills it.
struct Field {
    heading: &'static str,
    is_text: bool,
    /// Whether the script offers a choice of its values.
    is_choice: bool,
    cell: Cell,
}

/// What fills a column.
enum Cell {
    Of(fn(&Record) -> String),
    Shown(Column),
}

const fn text(heading: &'static str, cell: fn(&Record) -> String) -> Field {
    Field { heading, is_text: true, is_choice: false, cell: Cell::Of(cell) }
}

const fn choice(heading: &'static str, cell: fn(&Record) -> String) -> Field {
    Field { heading, is_text: true, is_choice: true, cell: Cell::Of(cell) }
}

const fn figure(heading: &'static str, column: Column) -> Field {
    Field { heading, is_text: false, is_choice: false, cell: Cell::Shown(column) }
}

const BYTES: Field = Field {
    heading: "size, bytes",
    is_text: false,
    is_choice: false,
    cell: Cell::Of(|record| match record.size {
        Size::Block(bytes) | Size::Frame(bytes) => bytes.to_string(),
    }),
};
const DEPTH: Field =
    Field { heading: "at once", is_text: false, is_choice: true, cell: Cell::Shown(Column::Depth) };
const OFFERED: Field = Field {
    heading: "offered, 1/s",
    is_text: false,
    is_choice: false,
    cell: Cell::Of(|record| {
        record.offered_per_second.map_or_else(|| "as many as go".into(), |rate| rate.to_string())
    }),
};
const QUEUES: Field = Field {
    heading: "queues",
    is_text: false,
    is_choice: false,
    cell: Cell::Of(|record| record.queues.to_string()),
};

/// The columns of these records. Those in which all would be alike are left out.
fn fields(records: &[Record]) -> Vec<Field> {
    let differ = |of: fn(&Record) -> String| {
        let mut all = records.iter().map(of);
        all.next().is_some_and(|first| all.any(|other| other != first))
    };
    let mut fields = vec![
        choice("device", |record| plain(&figures::device(record))),
        choice("workload", |record| plain(&record.workload)),
        BYTES,
    ];
    if records.iter().any(|record| record.offered_per_second.is_some()) {
        fields.push(OFFERED);
    }
    fields.extend([
        DEPTH,
        choice("completion", |record| record.completion.to_string()),
        choice("path", |record| record.path.to_string()),
    ]);
    if differ(|record| record.guest.to_string()) {
        fields.push(choice("guest", |record| record.guest.to_string()));
    }
    if differ(|record| record.vmm.clone()) {
        fields.push(choice("monitor", |record| plain(&record.vmm)));
    }
    if differ(|record| record.queues.to_string()) {
        fields.push(QUEUES);
    }
    fields.extend([
        figure("operations, thousand/s", Column::Rate),
        figure("interval, thousand/s", Column::Interval),
        figure("data, MB/s", Column::Megabytes),
        figure("latency p50, µs", Column::P50),
        figure("p90, µs", Column::P90),
        figure("p99, µs", Column::P99),
        figure("p99.9, µs", Column::P999),
        figure("longest, µs", Column::Longest),
        figure("exits, per operation", Column::Exits),
        figure("doorbells, per operation", Column::Doorbells),
        figure("interrupts, per operation", Column::Interrupts),
        figure("host CPU, µs per operation", Column::HostCpu),
        figure("guest cycles, per operation", Column::GuestCycles),
        figure("copied, bytes per operation", Column::Copied),
    ]);
    if records.iter().any(|record| matches!(record.size, Size::Frame(_))) {
        fields.extend([
            figure("lost, frames", Column::Lost),
            figure("out of order, frames", Column::Reordered),
        ]);
    }
    fields.push(figure("runs", Column::Runs));
    if records.iter().any(|record| record.offered_per_second.is_none()) {
        fields.push(figure("ratio of rates (range)", Column::RatioWithRange(Measure::Rate)));
    }
    if records.iter().any(|record| record.offered_per_second.is_some()) {
        fields.extend([
            figure("ratio of p50 (range)", Column::RatioWithRange(Measure::P50)),
            figure("ratio of p99 (range)", Column::RatioWithRange(Measure::P99)),
        ]);
    }
    fields.push(choice("family", |record| record.family.to_string()));
    if differ(|record| record.backend.clone()) {
        fields.push(text("behind it", |record| plain(&record.backend)));
    }
    fields
}

/// The table.
pub(super) fn table(records: &[Record], compared: &[Comparison<'_>]) -> Markup {
    let fields = fields(records);
    let cell = |field: &Field, record: &Record| match &field.cell {
        Cell::Of(of) => of(record),
        Cell::Shown(column) => column.cell(record, compared),
    };
    html! {
        // The script shows and fills it.
        form.controls #controls hidden {
            label { "Containing " input #search type="search" autocomplete="off"; }
            span #choices {}
            button #show-all type="button" { "Show all" }
            output #shown for="search" role="status" {}
        }
        div.wide tabindex="0" role="region" aria-labelledby="all-records" {
            table #records {
                caption { "A row for each record. “-”: not measured. “~”: the intervals overlap, so \
                           the runs do not tell a difference. “?”: too few runs." }
                thead {
                    tr {
                        @for field in &fields {
                            th scope="col" class=[(!field.is_text).then_some("number")]
                                data-choice[field.is_choice] { (field.heading) }
                        }
                    }
                }
                tbody {
                    @for record in records {
                        tr.(family(record)) {
                            @for (index, field) in fields.iter().enumerate() {
                                @if index == 0 {
                                    th scope="row" { (cell(field, record)) }
                                } @else {
                                    td class=[(!field.is_text).then_some("number")] {
                                        (cell(field, record))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The class of a device's kind.
pub(super) fn family(record: &Record) -> &'static str {
    match record.family {
        Family::Paravirtual => "paravirtual",
        Family::Emulated => "emulated",
        Family::Passthrough => "passthrough",
    }
}
