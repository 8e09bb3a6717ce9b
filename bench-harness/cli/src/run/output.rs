//! Where results go.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use paraslot_report::{Report, table};

use crate::args::RunArgs;
use crate::report::{DOCUMENTS, write};

/// The places that were asked for, known to be writable.
pub(super) struct Output {
    place: PathBuf,
    json: Vec<PathBuf>,
    /// Of each of [`DOCUMENTS`].
    documents: Vec<Vec<PathBuf>>,
}

impl Output {
    /// Makes the directories, and checks that the files can be written: nobody wants to hear of a
    /// slip of the pen when all has been measured.
    pub(super) fn new(arguments: &RunArgs) -> anyhow::Result<Self> {
        let place = arguments.out.clone();
        let latest = place.join("latest");
        fs::create_dir_all(&latest)
            .with_context(|| format!("cannot make the directory {}", latest.display()))?;
        let also = |first: &str, more: &Option<PathBuf>| {
            [latest.join(first)].into_iter().chain(more.clone()).collect::<Vec<_>>()
        };
        let json = also("results.json", &arguments.export_json);
        let more = [&arguments.export_html, &arguments.export_markdown, &arguments.export_csv];
        let documents: Vec<_> =
            DOCUMENTS.iter().zip(more).map(|((name, _), more)| also(name, more)).collect();
        for path in json.iter().chain(documents.iter().flatten()) {
            check(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Self { place, json, documents })
    }

    /// The directory for what is temporary.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// Shows the report, and writes its files.
    pub(super) fn write(&self, report: &Report) -> anyhow::Result<()> {
        let mut names = Vec::new();
        let mut write_all = |paths: &[PathBuf], text: &str| {
            names.extend(paths.iter().map(|path| path.display().to_string()));
            paths.iter().try_for_each(|path| write(path, text))
        };
        // The record before what is made of it.
        write_all(&self.json, &report.to_json()?)?;
        for ((_, make), paths) in DOCUMENTS.iter().zip(&self.documents) {
            write_all(paths, &make(report))?;
        }
        let text = table(report);
        // The files are there, whoever reads this.
        let _ = print([text.as_str(), &format!("Written: {}", names.join(", "))]);
        Ok(())
    }
}

/// Whether a file can be written. It is left as it is, or not there.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    fs::OpenOptions::new().create(true).append(true).open(path)?;
    if is_new { fs::remove_file(path) } else { Ok(()) }
}

/// Writes lines to the standard output, which may be a pipe that is closed.
pub(crate) fn print<'a>(lines: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    for line in lines {
        writeln!(output, "{line}")?;
    }
    output.flush()
}
