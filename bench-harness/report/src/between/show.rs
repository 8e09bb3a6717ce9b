//! The comparison of two builds, for a terminal and for a document.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{Basis, Between, Change, Finding, share_of_error};
use crate::{Manifest, Measure};

/// Columns of the terminal that the table may use.
const WIDTH: u16 = 120;

/// Lines for what one build alone has: a part of what a baseline has may be all that was measured.
const LISTED: usize = 10;

/// What the columns are called.
const HEADER: [&str; 7] =
    ["measurement", "runs", "before", "after", "ratio", "interval", "finding"];

/// Three digits or so, of a rate or a time.
fn figure(value: f64, measure: Measure) -> String {
    match (measure, value) {
        (Measure::P50 | Measure::P99, nanoseconds) => format!("{:.2} µs", nanoseconds / 1e3),
        (Measure::Rate, rate) if rate >= 1e5 => format!("{:.0} k/s", rate / 1e3),
        (Measure::Rate, rate) if rate >= 1e3 => format!("{:.2} k/s", rate / 1e3),
        (Measure::Rate, rate) => format!("{rate:.1} /s"),
    }
}

fn ratio(value: f64) -> String {
    if (0.001..1000.0).contains(&value) { format!("{value:.3}") } else { format!("{value:.1e}") }
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".into())
}

/// What may be said, in words.
fn finding(change: &Change) -> String {
    match change.finding {
        Finding::Slower => "SLOWER".into(),
        Finding::Faster => "faster".into(),
        Finding::NoDifference => match change.noise {
            Some(noise) => format!("no difference (noise {:.1} %)", noise * 100.0),
            None => "no difference".into(),
        },
        Finding::TooFewRuns => match change.runs_needed {
            Some(needed) => format!("too few runs ({needed} would do)"),
            None => "too few runs".into(),
        },
        Finding::NotComparable => {
            format!("not comparable: {}", change.why.as_deref().unwrap_or("unknown"))
        }
    }
}

fn row(change: &Change) -> [String; 7] {
    let [before, after] = change.runs;
    let runs = if before == after { before.to_string() } else { format!("{before}, {after}") };
    let of = |index: usize| {
        or_dash(change.medians.map(|medians| figure(medians[index], change.measure)))
    };
    let interval =
        change.low.zip(change.high).map(|(low, high)| format!("{}-{}", ratio(low), ratio(high)));
    let (one, other, by) = (of(0), of(1), or_dash(change.ratio.map(ratio)));
    [change.work.to_string(), runs, one, other, by, or_dash(interval), finding(change)]
}

/// Which build, and when it was measured.
fn build(manifest: &Manifest) -> String {
    let revision = manifest.revision.as_deref().unwrap_or("unknown revision");
    format!("{} ({revision}, {}), measured {}", manifest.version, manifest.build, manifest.date)
}

impl Between {
    /// How much of everything there is, in a line.
    fn summary(&self) -> String {
        let count =
            |finding| self.changes.iter().filter(|change| change.finding == finding).count();
        let mut parts = vec![
            format!("{} slower", count(Finding::Slower)),
            format!("{} faster", count(Finding::Faster)),
            format!("{} no different", count(Finding::NoDifference)),
        ];
        if count(Finding::TooFewRuns) > 0 {
            let needed = self.changes.iter().filter_map(|change| change.runs_needed).max();
            let needed = needed.map_or_else(String::new, |needed| format!(" ({needed} would do)"));
            parts.push(format!("{} with too few runs{needed}", count(Finding::TooFewRuns)));
        }
        if count(Finding::NotComparable) > 0 {
            parts.push(format!("{} not comparable", count(Finding::NotComparable)));
        }
        format!("Of {} measurements: {}.", self.changes.len(), parts.join(", "))
    }

    /// What the columns mean.
    fn legend(&self) -> Vec<String> {
        let confidence = (1.0 - share_of_error(self.changes.len())) * 100.0;
        let mut lines = vec![format!(
            "ratio: speed after for each of before; below 1 is slower, of latencies too. interval: {confidence:.4} \
             % each, so that all of them hold together with {} %.",
            (1.0 - self.false_alarm_max) * 100.0
        )];
        let has = |basis| self.changes.iter().any(|change| change.basis == basis);
        let how = match (has(Basis::Pairs), has(Basis::Runs), has(Basis::Intervals)) {
            (true, _, _) => "order statistics of pairs' differences",
            (_, _, false) => "Mann-Whitney, from the runs",
            (_, true, true) => {
                "Mann-Whitney, from the runs, or from the medians' where there are none"
            }
            (_, false, true) => "those of the medians",
        };
        lines.push(format!(
            "Intervals are by {how}. A change must exceed the noise too: what a build's own runs differ by, and at \
             least 1 % (latencies: 2 %)."
        ));
        lines
    }

    /// What is not in the table, in a line each; of what one alone has, `most` lines.
    fn remarks(&self, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = self.warnings.clone();
        for (which, all) in [("before", &self.only_before), ("after", &self.only_after)] {
            lines.extend(all.iter().take(most).map(|work| format!("only {which}: {work}")));
            match all.len().saturating_sub(most) {
                0 => {}
                more => lines.push(format!("only {which}: {more} more")),
            }
        }
        lines
    }

    /// The comparison as text for a terminal.
    pub fn table(&self) -> String {
        let mut text = format!("before: {}\nafter:  {}\n", build(&self.before), build(&self.after));
        for remark in self.remarks(LISTED) {
            let _ = writeln!(text, "! {remark}");
        }
        if self.changes.is_empty() {
            text.push_str("\nThere is nothing that both have.\n");
            return text;
        }
        let mut table = Table::new();
        table
            .force_no_tty()
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(WIDTH)
            .set_header(HEADER)
            .add_rows(self.changes.iter().map(row));
        let last = HEADER.len() - 1;
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 1));
            if index != 0 && index != last {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let _ = writeln!(text, "\n{}\n\n{}", table.trim_fmt(), self.summary());
        for line in self.legend() {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// The comparison as a Markdown document.
    pub fn markdown(&self) -> String {
        // What comes from files is text, whatever is in it.
        let escape = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
        let mut text = format!(
            "# Two builds compared\n\n- before: {}\n- after: {}\n\n{}\n",
            escape(&build(&self.before)),
            escape(&build(&self.after)),
            self.summary()
        );
        if !self.changes.is_empty() {
            let _ = writeln!(text, "\n| {} |", HEADER.join(" | "));
            text.push_str("|---|--:|--:|--:|--:|--:|---|\n");
            for change in &self.changes {
                let cells = row(change).map(|cell| escape(&cell));
                let _ = writeln!(text, "| {} |", cells.join(" | "));
            }
        }
        let remarks = self.remarks(usize::MAX);
        if !remarks.is_empty() {
            text.push('\n');
        }
        for remark in remarks {
            let _ = writeln!(text, "- {}", escape(&remark));
        }
        for line in self.legend() {
            let _ = write!(text, "\n{line}\n");
        }
        text
    }
}
