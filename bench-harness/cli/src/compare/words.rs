//! The command line of `paraslot compare`, and those of the runs that it has made.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

use crate::args::{self, Command, CommandLine, GuestName, MeasuredPath, PlatformName, RunArgs};
use crate::error::Usage;

#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArgs {
    /// What is compared, and with what: a record's file, a directory that has one, or a baseline's name. The
    /// second is the last run, unless told.
    #[arg(value_name = "RECORD", num_args = 1..=2, required_unless_present = "builds", conflicts_with = "builds")]
    pub(crate) of: Vec<String>,
    /// Measure instead: this program, and that of another build, by turns. It may be older than this
    /// command.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) builds: Option<PathBuf>,
    /// Show the names of what would be measured, and stop.
    #[arg(long, conflicts_with = "of")]
    pub(crate) list: bool,
    /// Pairs of runs of each measurement [default: as many as find 5 % where pairs differ by 5 % by chance,
    /// from 47 of one measurement to some 75 of a hundred].
    #[arg(long, value_name = "N", conflicts_with = "of", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Measure only what has PATTERN in its name, as in `run`.
    #[arg(long, value_name = "PATTERN", conflicts_with = "of")]
    filter: Vec<String>,
    /// Where the devices run, as in `run`.
    #[arg(long, conflicts_with = "of")]
    platform: Option<PlatformName>,
    /// What drives the devices, as in `run`.
    #[arg(long, conflicts_with = "of")]
    guest: Option<GuestName>,
    /// Directory for what a Linux guest is made of, as in `run`.
    #[arg(long, value_name = "DIR", conflicts_with = "of")]
    guest_files: Option<PathBuf>,
    /// More words for a Linux guest's kernel, as in `run`.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true, conflicts_with = "of")]
    guest_append: Option<String>,
    /// How guests reach their devices, as in `run`.
    #[arg(long, value_name = "PATH", value_delimiter = ',', conflicts_with = "of")]
    path: Vec<MeasuredPath>,
    /// A device to measure, as in `run`. backend=memory spares each run an image file of its own.
    #[arg(long, value_name = "SPEC", conflicts_with = "of")]
    device: Vec<String>,
    /// Unmeasured start of each run, in milliseconds, as in `run`.
    #[arg(long, value_name = "MS", conflicts_with = "of")]
    warmup: Option<u32>,
    /// Measured part of each run, in milliseconds, as in `run`.
    #[arg(long, value_name = "MS", conflicts_with = "of")]
    time: Option<u32>,
    /// Two short pairs of each: shows that all works, and finds nothing.
    #[arg(long, conflicts_with = "of")]
    quick: bool,
    /// How long a device's thread polls before it sleeps, in microseconds, as in `run`.
    #[arg(long, value_name = "US", conflicts_with = "of")]
    busy_poll: Option<u32>,
    /// As in `run`, for this program alone.
    #[arg(long, hide = true, value_name = "NS", conflicts_with = "of")]
    drag: Option<u32>,
    /// Write the comparison there, too, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_json: Option<PathBuf>,
    /// Write the comparison there, too, as Markdown.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_markdown: Option<PathBuf>,
    /// Directory that has baselines and the last run; runs have theirs in it.
    #[arg(long, value_name = "DIR", default_value = "target/paraslot")]
    pub(crate) out: PathBuf,
}

/// An option's value as it is written.
fn written(value: &impl ValueEnum) -> OsString {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default().into()
}

impl CompareArgs {
    /// Whether it is only to be shown that all works.
    pub(super) fn is_quick(&self) -> bool {
        self.quick
    }

    /// What tells this program's runs from the other's.
    pub(super) fn drag(&self) -> Vec<OsString> {
        let drag = self.drag.filter(|drag| *drag > 0);
        drag.map(|drag| vec!["--drag".into(), drag.to_string().into()]).unwrap_or_default()
    }

    /// What is measured, as options of `run`, but for times and filters.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut give = |option: &str, value: Option<OsString>| {
            if let Some(value) = value {
                // One word, so that a value may begin as options do.
                let mut word = OsString::from(option);
                word.push("=");
                word.push(value);
                words.push(word);
            }
        };
        give("--platform", self.platform.as_ref().map(written));
        give("--guest", self.guest.as_ref().map(written));
        give("--guest-files", self.guest_files.clone().map(OsString::from));
        give("--guest-append", self.guest_append.clone().map(OsString::from));
        for path in &self.path {
            give("--path", Some(written(path)));
        }
        for device in &self.device {
            give("--device", Some(device.into()));
        }
        give("--busy-poll", self.busy_poll.map(|time| time.to_string().into()));
        words
    }

    /// The run that all of it would be.
    ///
    /// # Errors
    /// What `run` finds wrong with it.
    pub(super) fn run(&self) -> anyhow::Result<RunArgs> {
        let mut words = self.words();
        words.extend(self.filter.iter().map(|filter| format!("--filter={filter}").into()));
        words.extend(self.warmup.map(|time| format!("--warmup={time}").into()));
        words.extend(self.time.map(|time| format!("--time={time}").into()));
        words.extend(self.drag.map(|drag| format!("--drag={drag}").into()));
        words.extend(self.quick.then(|| "--quick".into()));
        let line = ["paraslot", "run"].map(OsString::from).into_iter().chain(words);
        match CommandLine::try_parse_from(line) {
            Ok(CommandLine { command: Some(Command::Run(run)), .. }) => Ok(run),
            Ok(_) => Err(Usage::error("these are no options of paraslot run")),
            Err(error) => Err(Usage::error(args::refusal(&error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> CompareArgs {
        let line = [&["paraslot", "compare"], arguments].concat();
        match CommandLine::try_parse_from(line).map(|line| line.command) {
            Ok(Some(Command::Compare(compare))) => compare,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn runs_get_what_was_given() {
        let compare = parse(&[
            "--builds",
            "old",
            "--platform",
            "in-process",
            "--device",
            "ahci,backend=memory",
            "--device",
            "e1000",
            "--filter",
            "rr",
            "--time",
            "7",
            "--busy-poll",
            "3",
            "--quick",
            "--guest-append=-x",
            "--path",
            "trap,event",
            "--drag",
            "9",
        ]);
        let words: Vec<_> =
            compare.words().into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(
            words,
            [
                "--platform=in-process",
                "--guest-append=-x",
                "--path=trap",
                "--path=event",
                "--device=ahci,backend=memory",
                "--device=e1000",
                "--busy-poll=3",
            ]
        );
        let run = compare.run().unwrap();
        assert_eq!((run.device.len(), run.path.len(), run.busy_poll), (2, 2, 3));
        assert_eq!((run.times().measure_ms, run.times().warm_up_ms, run.drag), (7, 10, 9));
        assert_eq!(compare.drag(), ["--drag", "9"]);
        assert!(parse(&["--builds", "old", "--drag", "0"]).drag().is_empty());
    }

    #[test]
    fn what_run_would_refuse_is_refused() {
        for arguments in [["--device", "floppy"], ["--time", "0"], ["--busy-poll", "9999999"]] {
            let compare = parse(&[&["--builds", "old"][..], &arguments].concat());
            assert!(compare.run().unwrap_err().is::<Usage>(), "{arguments:?}");
        }
    }

    #[test]
    fn records_are_compared_or_programs() {
        let refused = |arguments: &[&str]| {
            CommandLine::try_parse_from([&["paraslot", "compare"], arguments].concat()).is_err()
        };
        assert!(refused(&[]) && refused(&["a", "b", "c"]) && refused(&["a", "--builds", "b"]));
        assert!(refused(&["a", "b", "--time", "5"]) && refused(&["a", "--rounds", "5"]));
        assert_eq!(parse(&["a"]).of, ["a"]);
    }
}
