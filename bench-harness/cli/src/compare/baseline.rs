//! Records by name, and of files.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use paraslot_report::{Between, Report};

use super::place;
use crate::args::RunArgs;
use crate::run::output::check;
use crate::show;

/// Bytes of a record that are read: many times what the longest run writes.
const RECORD_MAX: u64 = 256 << 20;

/// A baseline's name: the name of a file, and none that hides or leads elsewhere.
pub(crate) fn baseline_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins_well && text.len() <= 64 && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("a name has up to 64 letters, digits, dots, dashes and underscores, a letter or digit first".into())
}

fn file_of(name: &str, out: &Path) -> PathBuf {
    place(out).join(format!("{name}.json"))
}

/// The file that a word of the command line means: a baseline's, the one in a directory, or itself.
fn find(word: &str, out: &Path) -> anyhow::Result<PathBuf> {
    if let Ok(name) = baseline_name(word) {
        let file = file_of(&name, out);
        if file.is_file() {
            return Ok(file);
        }
    }
    let path = PathBuf::from(word);
    if path.is_dir() {
        let within = ["results.json", "latest/results.json"].map(|name| path.join(name));
        let Some(file) = within.into_iter().find(|file| file.is_file()) else {
            bail!("there is no results.json in {word}");
        };
        return Ok(file);
    }
    if !path.exists() {
        bail!(
            "{word} is neither a file, nor a directory with results.json, nor a baseline in {}",
            place(out).display()
        );
    }
    Ok(path)
}

/// The record that a word of the command line means.
pub(super) fn load(word: &str, out: &Path) -> anyhow::Result<Report> {
    read(&find(word, out)?)
}

/// The record of the last run.
pub(super) fn latest(out: &Path) -> anyhow::Result<Report> {
    read(&out.join("latest").join("results.json"))
}

/// A file's record.
pub(super) fn read(path: &Path) -> anyhow::Result<Report> {
    let what = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(what)?;
    let mut text = String::new();
    file.take(RECORD_MAX + 1).read_to_string(&mut text).with_context(what)?;
    if text.len() as u64 > RECORD_MAX {
        bail!("{} is longer than any record", path.display());
    }
    Report::from_json(&text).with_context(|| path.display().to_string())
}

/// What a run is compared with, and kept as.
pub(crate) struct Baselines {
    before: Option<Report>,
    keep: Option<PathBuf>,
}

impl Baselines {
    /// Those that are asked for, known to be readable and writable: it takes a while to measure.
    pub(crate) fn new(arguments: &RunArgs) -> anyhow::Result<Self> {
        let out = &arguments.out;
        let before = arguments.baseline.as_deref().map(|word| load(word, out)).transpose()?;
        let keep = arguments.save_baseline.as_deref().map(|name| file_of(name, out));
        if let Some(file) = &keep {
            fs::create_dir_all(place(out))
                .and_then(|()| check(file))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self { before, keep })
    }

    /// Compares and keeps; says whether something is slower.
    pub(crate) fn conclude(&self, report: &Report) -> anyhow::Result<bool> {
        let between = self.before.as_ref().map(|before| Between::of(before, report));
        if let Some(between) = &between {
            show(&format!("\n{}", between.table()));
        }
        if let Some(file) = &self.keep {
            fs::write(file, report.to_json()?)
                .with_context(|| format!("cannot write {}", file.display()))?;
            show(&format!("Kept: {}\n", file.display()));
        }
        Ok(between.is_some_and(|between| between.is_slower()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["main", "2026-11-24", "v1.2_b", &"x".repeat(64)] {
            assert_eq!(baseline_name(name).as_deref(), Ok(name));
        }
        for name in ["", ".", "..", ".x", "-x", "a/b", "../x", "a b", "a\0", "ä", &"x".repeat(65)]
        {
            assert!(baseline_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_word_is_a_baseline_a_directory_or_a_file() {
        let place = tempfile::tempdir().unwrap();
        let (out, path) = (place.path().join("out"), |name: &str| place.path().join(name));
        for directory in ["out/baselines", "run/latest", "empty"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        for file in ["out/baselines/main.json", "run/latest/results.json", "one.json"] {
            fs::write(path(file), "{}").unwrap();
        }
        let find = |word: &str| find(word, &out);
        let word = |name: &str| path(name).to_str().unwrap().to_owned();
        assert_eq!(find("main").unwrap(), path("out/baselines/main.json"));
        assert_eq!(find(&word("run")).unwrap(), path("run/latest/results.json"));
        assert_eq!(find(&word("run/latest")).unwrap(), path("run/latest/results.json"));
        assert_eq!(find(&word("one.json")).unwrap(), path("one.json"));
        assert!(find(&word("empty")).unwrap_err().to_string().contains("no results.json"));
        assert!(find("other").unwrap_err().to_string().contains("nor a baseline"));
        assert!(load(&word("one.json"), &out).is_err());
    }
}
