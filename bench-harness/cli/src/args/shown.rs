//! What is shown: devices, functions, records.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use paraslot_vfio::HostAddress;

/// In what form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a terminal.
    Table,
    /// For programs.
    Json,
    /// For documents; of all devices with --out, a page for each in that directory.
    Markdown,
    /// A page of its own, with a search and all devices side by side.
    Html,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CatalogueArgs {
    /// One device, like `virtio-blk`.
    pub(crate) device: Option<String>,
    /// In what form to show it.
    #[arg(long, default_value = "table")]
    pub(crate) format: Format,
    /// Write it there rather than to the standard output.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
    /// Show what the catalogue would keep of a record of measurements, to be put beside its code.
    #[arg(long, value_name = "RECORD", hide = true, conflicts_with_all = ["device", "out"])]
    pub(crate) costs: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    /// One function, like `0000:00:05.0` or `00:05.0`: everything of it.
    pub(crate) function: Option<HostAddress>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a record is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Columns for a terminal.
    Table,
    /// A page for a browser, of one file.
    Html,
    /// A document.
    Markdown,
    /// Every figure in full, for a spreadsheet.
    Csv,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    /// The record: a results.json of this version of the program or of an older one.
    pub(crate) file: PathBuf,
    /// How to show it, on the standard output.
    #[arg(long, default_value = "table")]
    pub(crate) format: ReportFormat,
    /// Write report.html, report.md and report.csv to a directory instead. It is made if need be.
    #[arg(long, value_name = "DIR", conflicts_with = "format")]
    pub(crate) out: Option<PathBuf>,
}
