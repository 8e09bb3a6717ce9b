//! What each workload showed: the page's charts.

use maud::{Markup, PreEscaped, html};

use crate::groups::Group;
use crate::{Comparison, Completion, Measure, Path, Record, Size, figures};

use super::charts::{Bar, Block, Chart, Heading, bars, blocks, interval, latencies, ratios};
use super::words::{capital, manner, plain, work_of};

/// The page's chart of ratios, for disks and for networks.
pub(super) fn overview(
    groups: &[Group<'_>],
    compared: &[Comparison<'_>],
) -> Vec<(&'static str, Chart)> {
    const KEY: &str = "How many times as many operations a second the paravirtual device does, with the \
                       range that the intervals leave; at a fixed number a second, how many times shorter \
                       the median latency is. Right of 1× it is ahead. Hollow: the runs do not tell.";
    let is_disk = |group: &Group<'_>| matches!(group.size, Size::Block(_));
    let chart = |title, want_disks: bool| {
        let wanted = groups.iter().filter(|group| is_disk(group) == want_disks);
        let headings: Vec<_> = wanted.flat_map(|group| headings(group, compared)).collect();
        ratios(title, KEY, &headings)
    };
    [
        ("Disks", chart("How many times as fast as the emulated disk", true)),
        ("Networks", chart("How many times as fast as the emulated adapter", false)),
    ]
    .into_iter()
    .filter_map(|(name, chart)| Some((name, chart?)))
    .collect()
}

/// A group's comparisons: by interrupt if there is that, on the most telling path, at each depth.
fn headings<'b, 'a>(group: &Group<'a>, compared: &'b [Comparison<'a>]) -> Vec<Heading<'b, 'a>> {
    let measure = if group.offered.is_some() { Measure::P50 } else { Measure::Rate };
    let mut found: Vec<&Comparison<'_>> = group
        .records()
        .filter_map(|record| figures::comparison_of(compared, record, measure))
        .filter(|found| found.paravirtual.path != Path::InProcess)
        .collect();
    let only_trap = found.iter().all(|found| found.paravirtual.path == Path::Trap);
    found.retain(|found| only_trap || found.paravirtual.path != Path::Trap);
    let waits = |found: &&Comparison<'_>| found.paravirtual.completion == Completion::Interrupt;
    if found.iter().any(waits) {
        found.retain(waits);
    }
    let mut headings: Vec<Heading<'b, 'a>> = Vec::new();
    for found in found {
        let text = format!("{}, {}", work_of(group), manner(found.paravirtual));
        match headings.iter_mut().find(|heading| heading.text == text) {
            Some(heading) => heading.compared.push(found),
            None => headings.push(Heading { text, compared: vec![found] }),
        }
    }
    headings
}

/// The charts of one group; what was not measured at all has none.
pub(super) fn charts(group: &Group<'_>) -> Vec<Chart> {
    const OWN_SCALE: &str = "Each block has a scale of its own, from 0. The numbers are medians.";
    const COUNTED: &str = "Each block has a scale of its own, from 0.";
    let blocks: Vec<Block<'_>> = blocks(group.records());
    let rate = |record: &Record| Bar {
        value: Some(record.ops_per_second.median),
        interval: interval(record, record.ops_per_second),
        shown: figures::thousands(record.ops_per_second.median),
    };
    let per_op = |value: Option<f64>, show: fn(f64) -> String| Bar {
        value,
        interval: None,
        shown: value.map_or_else(|| figures::NOT_MEASURED.into(), show),
    };
    let exits = |record: &Record| per_op(record.exits_per_op, |value| figures::per_op(Some(value)));
    let cpu = |record: &Record| per_op(record.host_cpu_ns_per_op, figures::microseconds);
    let cycles =
        |record: &Record| per_op(record.guest_cycles_per_op, |value| figures::whole(Some(value)));
    let cost = bars("Host CPU time per operation, µs", COUNTED, &blocks, cpu)
        .or_else(|| bars("Guest cycles per operation", COUNTED, &blocks, cycles));
    let key = "Each block has a scale of its own, from 0. The numbers are medians; a line over a bar is \
               the interval.";
    let intervals = group.records().any(|record| record.runs >= 2);
    [
        bars(
            "Operations a second, thousand",
            if intervals { key } else { OWN_SCALE },
            &blocks,
            rate,
        ),
        latencies(&blocks),
        bars("Exits to the host per operation", COUNTED, &blocks, exits),
        cost,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A chart in the page.
pub(super) fn figure(chart: &Chart) -> Markup {
    html! {
        figure {
            figcaption { strong { (chart.title) } }
            div.chart role="img" aria-label=(chart.told) { (PreEscaped(&chart.svg)) }
            p.key { (chart.key) }
        }
    }
}

/// What a group came to, in a few words.
pub(super) fn outcome(group: &Group<'_>, compared: &[Comparison<'_>]) -> String {
    let headings = headings(group, compared);
    let first = headings.first().and_then(|heading| heading.compared.first().map(|c| (heading, c)));
    let Some((heading, first)) = first else {
        return String::new();
    };
    let ratio = |found: &&Comparison<'_>| {
        format!("{} {}", plain(&figures::device(found.paravirtual)), figures::ratio(found))
    };
    let ratios: Vec<_> = heading.compared.iter().map(ratio).collect();
    format!(
        "{}, beside {}: {}",
        capital(&manner(first.paravirtual)),
        plain(&figures::device(first.emulated)),
        ratios.join(", ")
    )
}
