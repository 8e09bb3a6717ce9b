//! What a record does not say, and why.

use crate::groups::groups;
use crate::{Family, GuestKind, Path, Record, Report, Size};

use super::words::{capital, list, once, plain, work_of};

/// A figure that a record may lack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Figure {
    Latency,
    Exits,
    Doorbells,
    Interrupts,
    HostCpu,
    GuestCycles,
    Copied,
}

impl Figure {
    const ALL: [Self; 7] = [
        Self::Latency,
        Self::Exits,
        Self::Doorbells,
        Self::Interrupts,
        Self::HostCpu,
        Self::GuestCycles,
        Self::Copied,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Exits => "exits",
            Self::Doorbells => "doorbells",
            Self::Interrupts => "interrupts",
            Self::HostCpu => "CPU time of the host",
            Self::GuestCycles => "guest cycles",
            Self::Copied => "copied bytes",
        }
    }

    fn is_missing(self, record: &Record) -> bool {
        match self {
            Self::Latency => record.latency_ns.is_none(),
            Self::Exits => record.exits_per_op.is_none(),
            Self::Doorbells => record.doorbells_per_op.is_none(),
            Self::Interrupts => record.interrupts_per_op.is_none(),
            Self::HostCpu => record.host_cpu_ns_per_op.is_none(),
            Self::GuestCycles => record.guest_cycles_per_op.is_none(),
            Self::Copied => record.copied_bytes_per_op.is_none(),
        }
    }

    /// Why the record lacks it, with what it is about.
    fn reason(self, record: &Record) -> (String, &'static str) {
        let one_way = matches!(&*record.workload, "rx" | "wire");
        let outside = matches!(self, Self::Exits | Self::HostCpu | Self::Copied);
        if record.path == Path::InProcess && outside {
            return ("in process".into(), "there is no virtual machine, nor a host apart from it");
        }
        if !matches!(&*record.vmm, "paraslot" | "none") && outside {
            let whose = format!("the devices of {}", plain(&record.vmm));
            return (whose, "another program's inside, which this one cannot see");
        }
        match (self, record.guest) {
            (Self::Doorbells | Self::GuestCycles, GuestKind::Linux) => {
                ("Linux guests".into(), "Linux's drivers do not count them")
            }
            (Self::Latency, _) if matches!(record.size, Size::Frame(_)) && one_way => (
                plain(&record.workload),
                "a frame that is received has no beginning that its guest knows",
            ),
            (Self::Copied, _) if record.family == Family::Passthrough => {
                ("hardware that is passed through".into(), "it moves its data by itself")
            }
            _ if record.path == Path::VfioUser && outside => {
                ("vfio-user".into(), "the server did not tell")
            }
            _ => (plain(&record.device), "the record does not say why"),
        }
    }
}

/// What was not measured, a line each.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let records = &report.results;
    let mut lines = figures(records);
    lines.extend(absent_devices(records));
    lines.extend(absent_ways(records));
    lines
}

/// Figures that records lack, together where the reason is the same.
fn figures(records: &[Record]) -> Vec<String> {
    let mut found: Vec<(&'static str, Vec<Figure>, Vec<String>)> = Vec::new();
    for figure in Figure::ALL {
        for record in records.iter().filter(|record| figure.is_missing(record)) {
            let (about, why) = figure.reason(record);
            let place =
                found.iter_mut().find(|(other, of, _)| *other == why && of.contains(&figure));
            match place {
                Some((.., names)) if names.contains(&about) => {}
                Some((.., names)) => names.push(about),
                None => found.push((why, vec![figure], vec![about])),
            }
        }
    }
    // Figures that are lacking for the same reason of the same.
    let mut merged: Vec<(&'static str, Vec<Figure>, Vec<String>)> = Vec::new();
    for (why, of, names) in found {
        match merged.iter_mut().find(|(other, _, others)| *other == why && *others == names) {
            Some((_, figures, _)) => figures.extend(of),
            None => merged.push((why, of, names)),
        }
    }
    let line = |(why, of, names): &(&str, Vec<Figure>, Vec<String>)| {
        let of: Vec<String> = of.iter().map(|figure| figure.name().to_owned()).collect();
        format!("{} of {}: {why}.", capital(&list(&of)), list(names))
    };
    merged.iter().map(line).collect()
}

/// Devices that did not do what others of their class did.
fn absent_devices(records: &[Record]) -> Vec<String> {
    let models = || records.iter().filter(|record| record.family != Family::Passthrough);
    let mut lacking: Vec<(String, Vec<String>)> = Vec::new();
    for group in groups(records) {
        let same_class = |record: &&Record| {
            matches!(record.size, Size::Block(_)) == matches!(group.size, Size::Block(_))
        };
        let all = once(models().filter(same_class).map(|record| plain(&record.device)));
        let here = once(group.records().map(|record| plain(&record.device)));
        for device in all.into_iter().filter(|device| !here.contains(device)) {
            let work = work_of(&group);
            match lacking.iter_mut().find(|(other, _)| *other == device) {
                Some((_, works)) if works.contains(&work) => {}
                Some((_, works)) => works.push(work),
                None => lacking.push((device, vec![work])),
            }
        }
    }
    let line = |(device, works): &(String, Vec<String>)| {
        format!("{device}: not measured in “{}”.", works.join("”, “"))
    };
    lacking.iter().map(line).collect()
}

/// Families and paths that are not in the record at all.
fn absent_ways(records: &[Record]) -> Vec<String> {
    if records.is_empty() {
        return Vec::new();
    }
    let in_machine = records.iter().any(|record| record.path != Path::InProcess);
    let has = |path| records.iter().any(|record: &Record| record.path == path);
    let mut lines = Vec::new();
    if !in_machine {
        lines.push("Virtual machines: everything ran in one process.".into());
        return lines;
    }
    for (path, how) in [
        (Path::Trap, "every access to the device leaves for the host; --path trap measures it"),
        (Path::Event, "notifications are taken in the kernel; --path event measures it"),
        (Path::VfioUser, "the device is in a process of its own; measured where --path names it"),
        (
            Path::Passthrough,
            "the host's own hardware; measured where --device vfio,host=… names it",
        ),
    ] {
        if !has(path) {
            lines.push(format!("The path “{path}”: {how}."));
        }
    }
    if records.iter().all(|record| record.guest == GuestKind::Freestanding) {
        lines.push(
            "Linux: the guest was a small program with drivers of its own; --guest linux measures stock \
             drivers."
                .into(),
        );
    }
    lines
}
