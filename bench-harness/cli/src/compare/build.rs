//! One build's program, run for one measurement at a time.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use paraslot_report::{Manifest, Record, Report};

use super::baseline;
use crate::collect::is_of;
use crate::plan::Cell;
use crate::spec::DeviceSpec;

/// Why there is no record of a run.
#[derive(Debug)]
pub(super) enum Missing {
    /// The program does not know the measurement, or not with these options.
    Unknown(String),
    /// It failed.
    Failed(String),
}

/// A program, and how it is run.
pub(super) struct Build {
    program: PathBuf,
    words: Vec<OsString>,
    out: PathBuf,
    /// Where and how its first run was measured.
    pub(super) manifest: Option<Manifest>,
}

impl Build {
    /// `program` with `words` as options of `run`, its directory `out`.
    pub(super) fn new(program: impl Into<PathBuf>, words: Vec<OsString>, out: PathBuf) -> Self {
        Self { program: program.into(), words, out, manifest: None }
    }

    /// Whether it can be run at all.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let output = Command::new(&self.program).arg("--version").stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {}", self.program.display()))?;
        if !output.status.success() || !output.stdout.starts_with(b"paraslot") {
            bail!("{} is no paraslot", self.program.display());
        }
        Ok(())
    }

    /// Runs a measurement once.
    pub(super) fn run(&mut self, cell: &Cell, device: &DeviceSpec) -> Result<Record, Missing> {
        let results = self.out.join("latest").join("results.json");
        // What is there is another run's.
        let _ = fs::remove_file(&results);
        let filter = OsString::from(format!("--filter={}", cell.name));
        let mut command = Command::new(&self.program);
        command.arg("run").args(&self.words).arg(filter).arg("--out").arg(&self.out);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let output = command.output().map_err(|error| Missing::Failed(error.to_string()))?;
        let found = baseline::read(&results).and_then(|report| self.take(report, cell, device));
        match found {
            Ok(record) => Ok(record),
            Err(_) if !output.status.success() => {
                let said = reason(&output.stderr).unwrap_or_else(|| output.status.to_string());
                Err(match output.status.code() {
                    Some(2) => Missing::Unknown(said),
                    _ => Missing::Failed(said),
                })
            }
            Err(error) => Err(Missing::Failed(crate::error::line(&error))),
        }
    }

    /// The record of that cell: another's name may have this one's in it.
    fn take(&mut self, report: Report, cell: &Cell, device: &DeviceSpec) -> anyhow::Result<Record> {
        let Report { manifest, results, .. } = report;
        let mut records = results.into_iter().filter(|record| is_of(record, cell, device));
        let record = records.next().context("it recorded something else")?;
        self.manifest.get_or_insert(manifest);
        Ok(record)
    }
}

/// What a program says last, without its name.
fn reason(errors: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(errors);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.strip_prefix("paraslot: ").unwrap_or(line).to_owned())
}

/// The file of a program, so that no other is found by its name.
pub(super) fn file(program: &Path) -> anyhow::Result<PathBuf> {
    let file = fs::canonicalize(program);
    file.with_context(|| format!("cannot find {}", AsRef::<OsStr>::as_ref(program).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_last_is_its_reason() {
        assert_eq!(reason(b"! note\nparaslot: broken\n\n").as_deref(), Some("broken"));
        assert_eq!(reason(b"\xff\n").as_deref(), Some("\u{fffd}"));
        assert_eq!(reason(b"\n"), None);
    }

    #[test]
    fn a_program_that_is_none_is_told_of() {
        let check = |program: &str| Build::new(program, Vec::new(), PathBuf::new()).check();
        assert!(check("/bin/true").unwrap_err().to_string().contains("no paraslot"));
        assert!(check("/nowhere/paraslot").unwrap_err().to_string().contains("cannot run"));
        assert!(file(Path::new("/nowhere/paraslot")).is_err());
    }
}
