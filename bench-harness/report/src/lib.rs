//! Records of a comparison, and how they are shown.
//!
//! A [`Report`] is what `results.json` holds: a [`Manifest`] that says where and how it was measured,
//! and a [`Record`] for each combination of device, path and workload. [`comparisons`] sets
//! paravirtual devices against emulated ones; [`table()`] is for a terminal, [`markdown()`] for a
//! document, [`csv()`] for a spreadsheet, [`html()`] for a browser. [`Between`] sets one build's figures against
//! another's. A figure that was not measured is `None` here, `null` in the file and `-` in a table,
//! never 0.
//!
//! ```
//! use paraslot_report::{Manifest, Report};
//!
//! let report = Report::new(Manifest::default(), Vec::new());
//! let again = Report::from_json(&report.to_json().unwrap()).unwrap();
//! assert_eq!(report, again);
//! ```

mod between;
mod column;
mod compare;
mod csv;
mod figures;
mod groups;
mod html;
mod latency;
mod manifest;
mod markdown;
mod record;
mod statistics;
mod table;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::csv::csv;
pub use between::{
    Basis, Between, Change, FALSE_ALARM_MAX, Finding, Pairs, Work, rounds_for, shared_memory,
};
pub use compare::{Comparison, Measure, Verdict, comparisons};
pub use html::html;
pub use latency::{Latency, LatencyCounts};
pub use manifest::{EMULATOR, Guest, Manifest, Pinning};
pub use markdown::markdown;
pub use record::{Completion, Family, GuestKind, Path, Record, Size};
pub use statistics::{Distribution, RUNS_FOR_95_PERCENT, coverage};
pub use table::table;

/// The version of the file format that this crate writes. It rises when a reader of the old format
/// would misunderstand the new one; fields that are only added do not raise it.
pub const SCHEMA: u32 = 1;

/// What `results.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the format: [`SCHEMA`].
    pub schema: u32,
    /// Where and how it was measured.
    pub manifest: Manifest,
    /// What was measured.
    pub results: Vec<Record>,
}

/// Why a file is not a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Not JSON, or not of the right shape.
    #[error("not a report: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by another version of the program, in a format that means something else.
    #[error("the report has schema {0}; this program reads schema {SCHEMA}")]
    Schema(u32),
}

impl Report {
    /// A report in today's format.
    pub fn new(manifest: Manifest, results: Vec<Record>) -> Self {
        Self { schema: SCHEMA, manifest, results }
    }

    /// The file's text, indented, with a newline at its end.
    ///
    /// # Errors
    /// When a number cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, ReportError> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// When it is not a report, or one in another format.
    pub fn from_json(text: &str) -> Result<Self, ReportError> {
        /// The version alone, so that a file in another format is called that, and not malformed.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } = serde_json::from_str(text)?;
        if schema != SCHEMA {
            return Err(ReportError::Schema(schema));
        }
        Ok(serde_json::from_str(text)?)
    }
}
