//! What there is to know of the devices.

use std::fs;
use std::path::Path;

use anyhow::Context;
use paraslot_catalogue::costs::{Cost, Kept, Origin};
use paraslot_catalogue::{Entry, Sheet, entries, find, render};
use paraslot_report::{
    Comparison, Completion, Family, Measure, Path as GuestPath, Record, Report, Size, comparisons,
};

use crate::args::{CatalogueArgs, Format};
use crate::error::Usage;

/// Shows or writes what was asked for.
pub(crate) fn catalogue(arguments: &CatalogueArgs) -> anyhow::Result<()> {
    if let Some(record) = &arguments.costs {
        crate::show(&costs(record)?);
        return Ok(());
    }
    let chosen: Vec<&'static Entry> = match &arguments.device {
        Some(name) => vec![one(name)?],
        None => entries().to_vec(),
    };
    let sheets = chosen.into_iter().map(Sheet::of).collect::<Result<Vec<_>, _>>()?;
    let one = arguments.device.as_ref().and(sheets.first());
    let text = match (arguments.format, one) {
        (Format::Table, Some(sheet)) => render::text(sheet),
        (Format::Table, None) => render::summary(&sheets),
        (Format::Json, _) => render::json(&sheets)?,
        (Format::Html, _) => render::html(&sheets),
        (Format::Markdown, Some(sheet)) => render::markdown(sheet),
        (Format::Markdown, None) => match &arguments.out {
            Some(directory) => return pages(directory, &sheets),
            None => render::index(&sheets),
        },
    };
    match &arguments.out {
        Some(file) => {
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
        }
        None => {
            crate::show(&text);
            Ok(())
        }
    }
}

fn one(name: &str) -> anyhow::Result<&'static Entry> {
    let Some(entry) = find(name) else {
        let known: Vec<&str> = entries().iter().map(|entry| entry.name).collect();
        let known = known.join(", ");
        return Err(Usage::error(format!("the catalogue has no {name}; it has {known}")));
    };
    Ok(entry)
}

/// A page for each device, and one that leads to them.
fn pages(directory: &Path, sheets: &[Sheet]) -> anyhow::Result<()> {
    let write = |name: &str, text: String| {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    write("README.md", render::index(sheets))?;
    for sheet in sheets {
        write(&format!("{}.md", sheet.entry.name), render::markdown(sheet))?;
    }
    Ok(())
}

/// What the catalogue keeps of a record of measurements.
fn costs(path: &Path) -> anyhow::Result<String> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report = Report::from_json(&text)
        .with_context(|| format!("{} is no record of measurements", path.display()))?;
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let kept = kept(name.unwrap_or_default(), &report);
    Ok(serde_json::to_string_pretty(&kept)? + "\n")
}

fn kept(record: String, report: &Report) -> Kept {
    let manifest = &report.manifest;
    let day = manifest.date.split('T').next().unwrap_or_default();
    let nested = if manifest.nested == Some(true) { " (nested)" } else { "" };
    let host = format!(
        "{}, Linux {}, {}{nested}",
        manifest.cpu_model.as_deref().unwrap_or("an unknown processor"),
        manifest.kernel.as_deref().unwrap_or("unknown"),
        manifest.hypervisor.as_deref().unwrap_or("no hypervisor"),
    );
    let compared = comparisons(&report.results);
    // What two machines do to each other, and what a fixed load leaves idle, is not a device's cost.
    let is_cost = |record: &&Record| {
        record.path == GuestPath::Event
            && record.workload != "wire"
            && record.offered_per_second.is_none()
            && record.vmm == "paraslot"
            && find(&record.device).is_some()
    };
    let rows = report.results.iter().filter(is_cost);
    let rows = rows.map(|record| cost(record, &report.results, &compared)).collect();
    Kept { origin: Origin { record, date: day.to_owned(), host }, rows }
}

fn cost(record: &Record, all: &[Record], compared: &[Comparison<'_>]) -> Cost {
    let trapped = all.iter().find(|other| {
        other.path == GuestPath::Trap
            && other.device == record.device
            && other.workload == record.workload
            && other.size == record.size
            && other.queue_depth == record.queue_depth
            && other.completion == record.completion
            && other.offered_per_second == record.offered_per_second
    });
    let ratio = compared.iter().find(|comparison| {
        comparison.measure == Measure::Rate && std::ptr::eq(comparison.paravirtual, record)
    });
    // Three decimals are more than anybody reads, and leave the file in peace.
    let three = |value: f64| (value * 1e3).round() / 1e3;
    let rate = record.ops_per_second;
    let latency = record.latency_ns.as_ref();
    let (Size::Block(size) | Size::Frame(size)) = record.size;
    Cost {
        device: record.device.clone(),
        workload: record.workload.clone(),
        size,
        depth: record.queue_depth,
        completion: match record.completion {
            Completion::Poll => "poll".into(),
            Completion::Interrupt => "interrupt".into(),
        },
        per_second: (rate.median.round(), rate.low.round(), rate.high.round()),
        p50_ns: latency.map(|latency| latency.p50),
        p99_ns: latency.map(|latency| latency.p99),
        exits: record.exits_per_op.map(three),
        exits_trapped: trapped.and_then(|other| other.exits_per_op).map(three),
        interrupts: record.interrupts_per_op.map(three),
        guest_cycles: record.guest_cycles_per_op.map(f64::round),
        host_cpu_ns: record.host_cpu_ns_per_op.map(f64::round),
        ratio: ratio
            .filter(|_| record.family == Family::Paravirtual)
            .map(|found| (three(found.ratio), three(found.low), three(found.high))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures in the catalogue are those of the record that it names.
    #[test]
    fn costs_are_those_of_their_record() {
        let kept = paraslot_catalogue::costs::kept();
        let record = format!("../../docs/measurements/{}.json", kept.origin.record);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(record);
        let made: Kept = serde_json::from_str(&costs(&path).unwrap()).unwrap();
        assert_eq!(
            kept, made,
            "to be made anew: paraslot catalogue --costs docs/measurements/{}.json",
            kept.origin.record
        );
    }

    #[test]
    fn a_device_that_is_not_there_is_told_with_those_that_are() {
        let error = one("ne2000").unwrap_err();
        assert!(error.to_string().contains("it has virtio-blk, "), "{error}");
        assert_eq!(one("e1000").unwrap().name, "e1000");
    }
}
