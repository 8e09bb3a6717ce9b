//! What there is to say of a comparison, in a few sentences, and when there is nothing.
//!
//! Which workload stands for disks and which for networks does not depend on how the devices did: a
//! rule fixes it. Nothing is said of a ratio whose intervals overlap or that has too few runs, and all
//! the comparisons are counted, so that the reader sees what the examples leave out.

use crate::groups::{Group, groups};
use crate::{
    Comparison, Completion, Family, Measure, Path, Record, Report, Size, Verdict, figures,
};

use super::words::{list, manner, once, plain, span, times, work_of};

/// What stands at the top of the page.
pub(super) struct Headline<'a> {
    /// Sentences that follow from the records.
    pub(super) sentences: Vec<String>,
    /// What must be known before they are passed on.
    pub(super) cautions: Vec<String>,
    /// The records behind the examples.
    pub(super) cards: Vec<Card<'a>>,
}

/// The records of one example.
pub(super) struct Card<'a> {
    pub(super) title: String,
    /// Whether times say something, and with them ratios.
    pub(super) is_timed: bool,
    /// How many times the emulated device's rate the paravirtual ones have, and its name; only if the
    /// runs tell that of all of them.
    pub(super) ratio: Option<(String, String)>,
    pub(super) records: Vec<&'a Record>,
}

/// The workloads that stand for their class, the best first: what is asked of a device most often, and
/// waits for it.
const EXAMPLES: [&str; 4] = ["randread", "read", "rr", "tcp-rr"];

/// The paths that say something of virtual machines, the most telling first.
const PATHS: [Path; 3] = [Path::Event, Path::Trap, Path::VfioUser];

impl<'a> Headline<'a> {
    /// What `report` has to say, and `compared` are its comparisons.
    pub(super) fn of(report: &'a Report, compared: &[Comparison<'a>]) -> Self {
        let records = &report.results;
        let mut headline =
            Headline { sentences: Vec::new(), cautions: Vec::new(), cards: Vec::new() };
        if report.manifest.build == "debug" && !records.is_empty() {
            headline
                .cautions
                .push("The program was built without optimisation: its rates are too low.".into());
        }
        if records.is_empty() {
            headline.sentences.push("Nothing was measured, so there is nothing to say.".into());
            return headline;
        }
        if records.iter().all(|record| record.path == Path::InProcess) {
            headline.sentences.push(
                "Nothing can be said of that: drivers and devices ran in one process here, without a \
                 virtual machine. What paravirtualization saves is work at the border between the two, \
                 and there was none."
                    .into(),
            );
            return headline;
        }
        let usable = usable(compared);
        let is_timed = !report.manifest.is_emulated();
        if !is_timed {
            headline.sentences.push(
                "How much faster a device is cannot be said: the host's processor is software, which \
                 makes times meaningless. How often a guest was interrupted and left for the host is \
                 counted exactly, and compared below."
                    .into(),
            );
        }
        for class in Class::ALL {
            let found: Vec<&Record> = records.iter().filter(|record| class.has(record)).collect();
            if found.is_empty() {
                continue;
            }
            let usable: Vec<_> =
                usable.iter().filter(|found| class.has(found.paravirtual)).copied().collect();
            match Example::choose(records, &usable) {
                None => headline.sentences.push(class.alone(&found)),
                Some(example) => {
                    if is_timed {
                        headline.sentences.push(example.sentences());
                    }
                    headline.cards.push(example.card(is_timed));
                }
            }
        }
        if is_timed && usable.len() > 1 {
            headline.sentences.push(tally(&usable));
        }
        if is_timed && report.manifest.nested == Some(true) && usable.iter().any(|c| is_told(c)) {
            headline.cautions.push(
                "This host is a virtual machine itself. An exit costs more there than on hardware, so on \
                 hardware the ratios are likely to be smaller."
                    .into(),
            );
        }
        headline
    }
}

/// The comparisons that the headline is about: of one path and one monitor, so that one pair is
/// counted once; at a fixed load by the median latency.
fn usable<'b, 'a>(compared: &'b [Comparison<'a>]) -> Vec<&'b Comparison<'a>> {
    let is_main = |found: &&Comparison<'_>| found.measure != Measure::P99;
    let on =
        |path: Path| compared.iter().filter(is_main).filter(move |c| c.paravirtual.path == path);
    let Some(path) = PATHS.into_iter().find(|path| on(*path).next().is_some()) else {
        return Vec::new();
    };
    let own = on(path).any(|found| found.paravirtual.vmm == "paraslot");
    let monitor = if own { Some("paraslot") } else { None };
    let monitor = monitor.or_else(|| on(path).next().map(|found| &*found.paravirtual.vmm));
    on(path).filter(|found| Some(&*found.paravirtual.vmm) == monitor).collect()
}

/// How many of the comparisons went which way.
fn tally(usable: &[&Comparison<'_>]) -> String {
    let count =
        |wanted: &[Verdict]| usable.iter().filter(|found| wanted.contains(&found.verdict)).count();
    let (faster, slower) = (count(&[Verdict::Faster]), count(&[Verdict::Slower]));
    let undecided = count(&[Verdict::WithinNoise, Verdict::TooFewRuns]);
    let behind = if slower == 0 { "none".to_owned() } else { slower.to_string() };
    format!(
        "Of all {} comparisons with an emulated device here, the paravirtual one is ahead in {faster} \
         and behind in {behind}; in {undecided} the runs do not tell.",
        usable.len()
    )
}

/// Disks and networks.
#[derive(Clone, Copy)]
enum Class {
    Disk,
    Network,
}

impl Class {
    const ALL: [Self; 2] = [Self::Disk, Self::Network];

    fn has(self, record: &Record) -> bool {
        match record.size {
            Size::Block(_) => matches!(self, Self::Disk),
            Size::Frame(_) => matches!(self, Self::Network),
        }
    }

    /// What is said of one whose devices have nothing beside them.
    fn alone(self, records: &[&Record]) -> String {
        let what = match self {
            Self::Disk => "disks",
            Self::Network => "network adapters",
        };
        let families = [Family::Paravirtual, Family::Emulated];
        let has = families.map(|family| records.iter().any(|record| record.family == family));
        match has {
            [true, false] => format!(
                "Of {what} only paravirtual ones were measured: without an emulated one beside them, \
                 nothing can be said of what they save."
            ),
            [false, true] => format!(
                "Of {what} only emulated ones were measured: without a paravirtual one beside them, \
                 nothing can be said of what that would save."
            ),
            [true, true] => format!(
                "Of {what} no paravirtual one did the same work as an emulated one in a virtual \
                 machine, so they cannot be compared."
            ),
            [false, false] => {
                format!("Of {what} only hardware that is passed through was measured.")
            }
        }
    }
}

/// A workload that stands for its class: the comparisons of it, at few operations at once and at many.
struct Example<'b, 'a> {
    what: String,
    few: Vec<&'b Comparison<'a>>,
    many: Vec<&'b Comparison<'a>>,
    group: Group<'a>,
}

impl<'b, 'a> Example<'b, 'a> {
    /// Of those in [`EXAMPLES`] the first that was compared, else the first at all; by interrupt, which
    /// is how operating systems use devices, if there is that; against one emulated device.
    fn choose(records: &'a [Record], usable: &[&'b Comparison<'a>]) -> Option<Self> {
        let is_compared = |group: &Group<'_>| {
            let is_in = |record: &Record| group.records().any(|other| std::ptr::eq(other, record));
            group.offered.is_none() && usable.iter().any(|found| is_in(found.paravirtual))
        };
        let place = |group: &Group<'_>| {
            EXAMPLES.iter().position(|name| *name == group.workload).unwrap_or(EXAMPLES.len())
        };
        let group = groups(records).into_iter().filter(is_compared).min_by_key(place)?;
        let is_in = |record: &Record| group.records().any(|other| std::ptr::eq(other, record));
        let mut found: Vec<_> =
            usable.iter().copied().filter(|found| is_in(found.paravirtual)).collect();
        let emulated = found.first()?.emulated.device.clone();
        found.retain(|found| found.emulated.device == emulated);
        let waits = |found: &&Comparison<'_>| found.paravirtual.completion == Completion::Interrupt;
        if found.iter().any(waits) {
            found.retain(waits);
        }
        let depths = found.iter().map(|found| found.paravirtual.queue_depth);
        let (least, most) = (depths.clone().min()?, depths.max()?);
        let at = |depth: u32| {
            let at: Vec<_> =
                found.iter().copied().filter(|c| c.paravirtual.queue_depth == depth).collect();
            at
        };
        let many = if most == least { Vec::new() } else { at(most) };
        Some(Self { what: work_of(&group), few: at(least), many, group })
    }

    fn sentences(&self) -> String {
        let Some(first) = self.few.first() else { return String::new() };
        let mut said =
            format!("{}, {}: {}", self.what, manner(first.paravirtual), outcome(&self.few));
        if let Some(first) = self.many.first() {
            let count = first.paravirtual.queue_depth;
            match (faster(&self.few), faster(&self.many)) {
                (Some(_), Some(ratios)) => {
                    said.push_str(&format!(" ({ratios} times with {count} at once)"));
                }
                _ => said.push_str(&format!(". With {count} at once, {}", outcome(&self.many))),
            }
        }
        said.push('.');
        let told: Vec<_> = self.few.iter().filter(|found| is_told(found)).copied().collect();
        if let Some(costs) = costs(&told) {
            said.push_str(&format!(" {costs}."));
        }
        said
    }

    fn card(self, is_timed: bool) -> Card<'a> {
        let first = self.few.first().map(|found| found.paravirtual);
        let is_alike = |record: &&Record| {
            first.is_some_and(|first| {
                (record.queue_depth, record.completion) == (first.queue_depth, first.completion)
                    && (record.path == first.path || record.family == Family::Passthrough)
                    && record.vmm == first.vmm
            })
        };
        let records = self.group.records().filter(is_alike).collect();
        let manner = first.map(manner).unwrap_or_default();
        let emulated = self.few.first().map(|found| plain(&found.emulated.device));
        let ratio = faster(&self.few).zip(emulated).filter(|_| is_timed);
        Card { title: format!("{}, {manner}", self.what), is_timed, ratio, records }
    }
}

/// By how many times all of these are faster; `None` unless the runs tell it of each.
fn faster(compared: &[&Comparison<'_>]) -> Option<String> {
    let all = compared.iter().all(|found| found.verdict == Verdict::Faster);
    span(compared.iter().map(|found| found.ratio), times).filter(|_| all)
}

fn is_told(found: &Comparison<'_>) -> bool {
    matches!(found.verdict, Verdict::Faster | Verdict::Slower)
}

/// How paravirtual devices did beside the one emulated one, by what the runs can tell.
fn outcome(compared: &[&Comparison<'_>]) -> String {
    let Some(emulated) = compared.first().map(|found| plain(&found.emulated.device)) else {
        return String::new();
    };
    let of = |verdicts: &[Verdict]| -> (Vec<String>, String) {
        let found = || compared.iter().filter(|found| verdicts.contains(&found.verdict));
        let ratios = span(found().map(|found| found.ratio), times).unwrap_or_default();
        (once(found().map(|found| plain(&found.paravirtual.device))), ratios)
    };
    let does = |names: &[String]| if names.len() == 1 { "does" } else { "do" };
    let mut parts = Vec::new();
    let (names, ratios) = of(&[Verdict::Faster]);
    if !names.is_empty() {
        let does = does(&names);
        parts.push(format!(
            "{} {does} {ratios} times as many operations a second as {emulated}",
            list(&names)
        ));
    }
    let (names, ratios) = of(&[Verdict::Slower]);
    if !names.is_empty() {
        let does = does(&names);
        parts.push(format!(
            "{} {does} only {ratios} times as many operations a second as {emulated}",
            list(&names)
        ));
    }
    for (verdict, why) in [
        (Verdict::WithinNoise, "differ by no more than the runs do among themselves"),
        (Verdict::TooFewRuns, "had too few runs to tell a difference"),
    ] {
        let (mut names, _) = of(&[verdict]);
        if !names.is_empty() {
            names.push(emulated.clone());
            parts.push(format!("{} {why}", list(&names)));
        }
    }
    parts.join("; ")
}

/// What an operation costs with either, where all of that was measured.
fn costs(told: &[&Comparison<'_>]) -> Option<String> {
    let emulated = told.first()?.emulated;
    let name = plain(&emulated.device);
    let both = |pick: fn(&Record) -> Option<f64>, show: fn(f64) -> String| {
        let own: Option<Vec<f64>> = told.iter().map(|found| pick(found.paravirtual)).collect();
        Some((span(own?.into_iter(), show)?, show(pick(emulated)?)))
    };
    let count = |value: f64| figures::per_op(Some(value));
    let mut parts = Vec::new();
    if let Some((own, other)) = both(|record| record.exits_per_op, count) {
        let own = if own == "0.00" { "no".into() } else { own };
        parts.push(format!("{own} exits to the host, against {other} with {name}"));
    }
    if let Some((own, other)) = both(|record| record.interrupts_per_op, count)
        && own != other
    {
        parts.push(format!("{own} interrupts, against {other}"));
    }
    if let Some((own, other)) = both(|record| record.host_cpu_ns_per_op, figures::microseconds) {
        parts.push(format!("{own} µs of host CPU time, against {other}"));
    }
    (!parts.is_empty()).then(|| format!("Each operation takes {}", parts.join("; ")))
}
