//! Records that did the same work, together.

use crate::{Completion, Family, GuestKind, Path, Record, Size, figures};

/// What one row of a table is about: all that did the same work. Ordered as rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) depth: u32,
    pub(crate) completion: Completion,
    pub(crate) path: Path,
}

/// Everything that one table shows: rows, each with its records.
pub(crate) struct Group<'a> {
    pub(crate) title: String,
    pub(crate) guest: GuestKind,
    pub(crate) workload: &'a str,
    pub(crate) size: Size,
    /// Operations offered a second, if a fixed load was.
    pub(crate) offered: Option<u32>,
    pub(crate) rows: Vec<(Row, Vec<&'a Record>)>,
}

impl<'a> Group<'a> {
    /// Its records, in the order of the rows.
    pub(crate) fn records(&self) -> impl Iterator<Item = &'a Record> {
        self.rows.iter().flat_map(|(_, records)| records.iter().copied())
    }
}

/// What the records of a group have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind<'a> {
    guest: GuestKind,
    workload: &'a str,
    size: Size,
    offered: Option<u32>,
    /// `None` for hardware, which has nothing behind it but itself.
    backend: Option<&'a str>,
}

impl<'a> Kind<'a> {
    fn of(record: &'a Record) -> Self {
        Self {
            guest: record.guest,
            workload: &record.workload,
            size: record.size,
            offered: record.offered_per_second,
            backend: (record.family != Family::Passthrough).then_some(&*record.backend),
        }
    }

    /// Whether the record's place is there.
    fn takes(&self, record: &Record) -> bool {
        let other = Kind::of(record);
        *self == Kind { backend: other.backend.or(self.backend), ..other }
    }

    fn title(&self, with_backend: bool) -> String {
        let (amount, unit) = match self.size {
            Size::Block(amount) => (amount, "blocks"),
            // A kernel makes its own frames of what programs give it.
            Size::Frame(amount) if self.guest == GuestKind::Linux => (amount, "calls"),
            Size::Frame(amount) => (amount, "frames"),
        };
        let mut title = format!("{}, {} {unit}", self.workload, figures::bytes(amount));
        if self.guest == GuestKind::Linux {
            title.push_str(", in Linux");
        }
        if let Some(offered) = self.offered {
            title.push_str(&format!(", {offered} a second offered"));
        }
        if let Some(backend) = self.backend.filter(|_| with_backend) {
            title.push_str(", ");
            title.push_str(backend);
        }
        title
    }
}

/// The records, grouped by workload, load and backend in the order in which these first appear; in a
/// group the rows are sorted, and in a row monitors come in the order in which they first appear,
/// paravirtual devices first.
///
/// What hardware that is passed through did is in every group that did the same work, since it is the
/// measure of all of them: there is nothing behind it but itself.
pub(crate) fn groups<'a>(records: &'a [Record]) -> Vec<Group<'a>> {
    let mut kinds: Vec<Kind<'a>> = Vec::new();
    let mut monitors: Vec<&str> = Vec::new();
    let (hardware, models): (Vec<&Record>, Vec<&Record>) =
        records.iter().partition(|record| record.family == Family::Passthrough);
    for record in models.into_iter().chain(hardware) {
        if !kinds.iter().any(|kind| kind.takes(record)) {
            kinds.push(Kind::of(record));
        }
        if !monitors.contains(&record.vmm.as_str()) {
            monitors.push(&record.vmm);
        }
    }
    let mut backends = kinds.iter().filter_map(|kind| kind.backend);
    let first = backends.next();
    let one_backend = backends.all(|backend| Some(backend) == first);
    let group = |wanted: &Kind<'a>| {
        let mut rows: Vec<(Row, Vec<&Record>)> = Vec::new();
        for record in records.iter().filter(|record| wanted.takes(record)) {
            let row =
                Row { depth: record.queue_depth, completion: record.completion, path: record.path };
            match rows.iter_mut().find(|(other, _)| *other == row) {
                Some((_, members)) => members.push(record),
                None => rows.push((row, vec![record])),
            }
        }
        rows.sort_by_key(|(row, _)| *row);
        for (_, members) in &mut rows {
            members.sort_by_key(|record| {
                (monitors.iter().position(|name| *name == record.vmm), record.family)
            });
        }
        Group {
            title: wanted.title(!one_backend),
            guest: wanted.guest,
            workload: wanted.workload,
            size: wanted.size,
            offered: wanted.offered,
            rows,
        }
    };
    kinds.iter().map(group).collect()
}
