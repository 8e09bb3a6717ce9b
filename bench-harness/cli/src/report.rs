//! A stored record, shown.

use std::fs;
use std::path::Path;

use anyhow::Context;
use paraslot_report::{Report, csv, html, markdown, table};

use crate::args::{ReportArgs, ReportFormat};
use crate::show;

/// A file's name in a directory, and what makes its text.
type Document = (&'static str, fn(&Report) -> String);

/// A report's files besides the record itself.
pub(crate) const DOCUMENTS: [Document; 3] =
    [("report.html", html), ("report.md", markdown), ("report.csv", csv)];

/// Does what `paraslot report` does.
pub(crate) fn report(arguments: &ReportArgs) -> anyhow::Result<()> {
    let report = read(&arguments.file)?;
    let Some(place) = &arguments.out else {
        show(&match arguments.format {
            ReportFormat::Table => table(&report),
            ReportFormat::Html => html(&report),
            ReportFormat::Markdown => markdown(&report),
            ReportFormat::Csv => csv(&report),
        });
        return Ok(());
    };
    fs::create_dir_all(place)
        .with_context(|| format!("cannot make the directory {}", place.display()))?;
    let mut names = Vec::new();
    for (name, make) in DOCUMENTS {
        let path = place.join(name);
        write(&path, &make(&report))?;
        names.push(path.display().to_string());
    }
    show(&format!("Written: {}\n", names.join(", ")));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let cannot = || format!("cannot read {}", path.display());
    let text = fs::read_to_string(path).with_context(cannot)?;
    Report::from_json(&text).with_context(cannot)
}

/// Writes a file, and says which if that fails.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
