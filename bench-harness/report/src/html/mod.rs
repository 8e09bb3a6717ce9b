//! The report as a page: one file that asks nobody for anything.
//!
//! What is in a record may be anybody's. maud escapes it where it stands in the page and the drawing
//! library where it stands in a chart, and should either fail, the page's own policy lets a browser run
//! the one script and apply the one style sheet whose hashes it names, and load nothing.

mod charts;
mod headline;
mod records;
#[cfg(test)]
mod tests;
mod unmeasured;
mod words;
mod workloads;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html as markup};
use sha2::{Digest, Sha256};

use crate::column::Column;
use crate::groups::groups;
use crate::{Comparison, Manifest, Measure, Record, Report, comparisons, coverage, figures};

use headline::{Card, Headline};
use words::plain;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the page is allowed: itself.
fn policy() -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; style-src {}; script-src {}; img-src data:; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

/// The report as a page for a browser, of one file: what the comparison says, charts, a table that sorts
/// and filters, and all that was not measured. It makes no request, and is readable without its script. The
/// same report makes the same bytes.
pub fn html(report: &Report) -> String {
    let compared = comparisons(&report.results);
    let page = markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content="paraslot";
                title { "Paravirtual and emulated PCI devices: a comparison" }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                (pattern())
                header {
                    h1 { "Paravirtual and emulated PCI devices, compared" }
                    p.where { (place(&report.manifest)) }
                }
                main { (body(report, &compared)) }
                footer { p { "Made by paraslot " (plain(&report.manifest.version)) " from a record of \
                              " (report.results.len()) " measurements." } }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// What emulated devices' bars are filled with, so that they can be told without colour.
fn pattern() -> Markup {
    markup! {
        svg.patterns width="0" height="0" aria-hidden="true" {
            defs {
                pattern id="hatch" width="10" height="10" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(45)" {
                    rect.ground width="10" height="10" {}
                    rect.stripe width="5" height="10" {}
                }
            }
        }
    }
}

/// Where it was measured, in a line.
fn place(manifest: &Manifest) -> String {
    let known = [
        manifest.cpu_model.as_deref().map(plain),
        manifest.kernel.as_deref().map(|kernel| format!("Linux {}", plain(kernel))),
        manifest.hypervisor.as_deref().map(|name| {
            let nested = if manifest.nested == Some(true) { ", nested" } else { "" };
            format!("{}{nested}", plain(name))
        }),
        Some(plain(manifest.date.split('T').next().unwrap_or_default())),
    ];
    let known: Vec<_> = known.into_iter().flatten().filter(|text| !text.is_empty()).collect();
    known.join(" · ")
}

fn body(report: &Report, compared: &[Comparison<'_>]) -> Markup {
    let headline = Headline::of(report, compared);
    let groups = groups(&report.results);
    // Where times mean nothing, ratios of them do not either.
    let compared = if report.manifest.is_emulated() { &[] } else { compared };
    let overview = workloads::overview(&groups, compared);
    let lacking = unmeasured::lines(report);
    let mut classes: Vec<bool> = Vec::new();
    // The first of disks and the first of networks are open.
    let mut is_first = |is_disk: bool| {
        let first = !classes.contains(&is_disk);
        classes.push(is_disk);
        first
    };
    markup! {
        section.headline aria-labelledby="saves" {
            h2 #saves { "What paravirtualization saves on this host" }
            @for sentence in &headline.sentences { p { (sentence) } }
            @for caution in &headline.cautions { p.caution { (caution) } }
            @if !headline.cards.is_empty() {
                div.cards { @for card in &headline.cards { (example(card, compared)) } }
            }
        }
        nav aria-label="On this page" {
            ul {
                @if !overview.is_empty() { li { a href="#glance" { "At a glance" } } }
                @if !groups.is_empty() { li { a href="#workloads" { "Each workload" } } }
                @if !report.results.is_empty() { li { a href="#all-records" { "All records" } } }
                li { a href="#reading" { "How to read this page" } }
                li { a href="#unmeasured" { "What was not measured" } }
                li { a href="#manifest" { "How it was measured" } }
            }
        }
        @if overview.is_empty() {
            (how_to_read(report))
        } @else {
            section aria-labelledby="glance" {
                h2 #glance { "At a glance" }
                div.charts.glance {
                    @for (name, chart) in &overview {
                        section.(name) { h3 { (name) } (workloads::figure(chart)) }
                    }
                    (how_to_read(report))
                }
            }
        }
        @if !groups.is_empty() {
            section aria-labelledby="workloads" {
                h2 #workloads { "Each workload" }
                @for group in &groups {
                    details open[is_first(matches!(group.size, crate::Size::Block(_)))] {
                        summary {
                            h3 { (words::work_of(group)) }
                            " " span.outcome { (workloads::outcome(group, compared)) }
                        }
                        div.charts {
                            @for chart in &workloads::charts(group) { (workloads::figure(chart)) }
                        }
                    }
                }
            }
        }
        @if !report.results.is_empty() {
            section aria-labelledby="all-records" {
                h2 #all-records { "All records" }
                (records::table(&report.results, compared))
            }
        }
        section aria-labelledby="unmeasured" {
            h2 #unmeasured { "What was not measured" }
            @if lacking.is_empty() { p { "Nothing is lacking." } }
            ul { @for line in &lacking { li { (line) } } }
            @if !report.manifest.notes.is_empty() {
                h3 { "Notes of the run" }
                ul { @for note in &report.manifest.notes { li { (plain(note)) } } }
            }
        }
        section aria-labelledby="manifest" {
            h2 #manifest { "How it was measured" }
            (manifest(&report.manifest))
        }
    }
}

/// An example's records, in the figures that matter.
fn example(card: &Card<'_>, compared: &[Comparison<'_>]) -> Markup {
    markup! {
        div.card {
            h3 { (card.title) }
            @if let Some((ratio, emulated)) = &card.ratio {
                p.big { strong { (ratio) "×" } " the operations a second of " (emulated) }
            }
            (card_table(card, compared))
        }
    }
}

fn card_table(card: &Card<'_>, compared: &[Comparison<'_>]) -> Markup {
    let ratio = |record: &Record| Column::Ratio(Measure::Rate).cell(record, compared);
    // With soft hyphens, for phones.
    let columns: [(&str, Column); 4] = [
        ("thou\u{ad}sand/s", Column::Rate),
        ("exits", Column::Exits),
        ("inter\u{ad}rupts", Column::Interrupts),
        ("host CPU, µs", Column::HostCpu),
    ];
    markup! {
        table {
            thead {
                tr {
                    th scope="col" { "device" }
                    @for (heading, _) in &columns { th.number scope="col" { (heading) } }
                    @if card.is_timed { th.number scope="col" { "ratio" } }
                }
            }
            tbody {
                @for record in &card.records {
                    tr.(records::family(record)) {
                        th scope="row" { (plain(&figures::device(record))) }
                        @for (_, column) in &columns { td.number { (column.cell(record, compared)) } }
                        @if card.is_timed { td.number { strong { (ratio(record)) } } }
                    }
                }
            }
        }
    }
}

/// One paragraph for those who see such a page for the first time.
fn how_to_read(report: &Report) -> Markup {
    let least = report.results.iter().map(|record| record.runs).min().unwrap_or(0);
    let sure = usize::try_from(least).map_or(0.0, coverage) * 100.0;
    markup! {
        section.reading aria-labelledby="reading" {
            h2 #reading { "How to read this page" }
            p {
                "A virtual machine’s disk or network adapter is software on the host. An "
                b.emulated { "emulated" }
                " one imitates real hardware (ahci, e1000), so its driver keeps touching registers, and each \
                 touch that needs the host stops the guest: an " em { "exit" } ". A "
                b.paravirtual { "paravirtual" }
                " one (virtio, vmxnet3, pvscsi) shares queues in memory with its driver instead, and needs \
                 next to none. An " em { "operation" } " is a block read or written, or a frame; "
                em { "at once" } " is how many the driver hands over together. It learns that they are done "
                em { "by interrupt" } ", as operating systems do, or by looking all the time ("
                em { "polled" } "). " em { "Latency" } " is how long one takes: p99 is what 99 of 100 do not \
                 exceed. A " em { "ratio" } " is the paravirtual device’s operations a second for each of \
                 the emulated one’s at the same work. "
                @if least >= 2 {
                    "Figures are medians of several runs, whose true value the " em { "interval" }
                    " holds with " (format!("{sure:.0}")) " % confidence or more; where intervals overlap (~) \
                     the runs do not tell a difference."
                } @else if !report.results.is_empty() {
                    "Some were run once: of those nobody knows how much is chance."
                }
            }
        }
    }
}

/// The manifest. What is unknown is "-".
fn manifest(manifest: &Manifest) -> Markup {
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), plain);
    let nested = manifest.nested.map_or("-", |nested| if nested { "yes" } else { "no" });
    let pinned = manifest.pinned.map_or_else(
        || "not pinned".into(),
        |pinned| format!("guest on {}, device’s threads on {}", pinned.vcpu, pinned.device),
    );
    let guest = manifest.guest.as_ref().map_or_else(
        || "-".into(),
        |guest| {
            let name = guest.name.as_deref().map_or_else(String::new, |name| plain(name) + ", ");
            format!("{name}{} bytes, FNV-1a {}", guest.bytes, plain(&guest.fnv1a))
        },
    );
    let backends: Vec<_> = manifest.backend.iter().map(|backend| plain(backend)).collect();
    let rows: [(&str, String); 14] = [
        ("Date (UTC)", plain(&manifest.date)),
        (
            "Program",
            format!("paraslot {}, {} build", plain(&manifest.version), plain(&manifest.build)),
        ),
        ("Revision", text(&manifest.revision)),
        ("Command", plain(&manifest.command_line.join(" "))),
        ("Processor", text(&manifest.cpu_model)),
        ("Host’s kernel", text(&manifest.kernel)),
        ("Hypervisor", text(&manifest.hypervisor)),
        ("Host is a virtual machine", nested.into()),
        ("Hypervisor below it", text(&manifest.below)),
        ("Guest", guest),
        ("Behind the devices", backends.join("; ")),
        ("Processors", pinned),
        ("Device’s thread polls for", format!("{} µs before it sleeps", manifest.busy_poll_us)),
        (
            "Each run",
            format!("{} ms unmeasured, {} ms measured", manifest.warm_up_ms, manifest.measure_ms),
        ),
    ];
    markup! {
        dl {
            @for (name, value) in &rows {
                div { dt { (name) } dd { @if value.is_empty() { "-" } @else { (value) } } }
            }
        }
    }
}
