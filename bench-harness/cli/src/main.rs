//! Compares paravirtual and emulated PCI devices inside a KVM guest.
//!
//! `paraslot` alone measures both families on this machine's KVM, shows a table and writes
//! `target/paraslot/latest/results.json` with the same as `report.html`, `report.md` and `report.csv`. Its
//! exit status is 0, 1 if something failed, and 2 if the command line made no sense; either way there is one
//! line that says why. It is 3 if a comparison of two builds finds something slower.

mod args;
mod backing;
mod bench;
mod boot;
mod catalogue;
mod collect;
mod compare;
mod control;
mod counted;
mod devices;
mod doctor;
mod drag;
mod error;
mod hardware;
mod identity;
mod image;
mod inspect;
mod list;
mod machine;
mod manual;
mod network;
mod order;
mod plan;
mod report;
mod run;
mod serve;
mod signals;
mod socket;
mod spec;
mod storage;
mod sys;
mod traffic;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Command, CommandLine};

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        // Help and version are no errors.
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return complain(&args::refusal(&error), 2),
    };
    let result = match line.command.unwrap_or(Command::Run(line.run)) {
        Command::Run(arguments) => run::run(&arguments).map(compare::status),
        Command::Compare(arguments) => compare::compare(&arguments).map(compare::status),
        Command::Report(arguments) => report::report(&arguments).map(|()| 0),
        Command::List => {
            show(&list::text());
            Ok(0)
        }
        Command::Boot(arguments) => boot::boot(&arguments).map(|()| 0),
        Command::Serve(arguments) => serve::serve(&arguments).map(|()| 0),
        Command::Catalogue(arguments) => catalogue::catalogue(&arguments).map(|()| 0),
        Command::Inspect(arguments) => inspect::inspect(&arguments).map(|()| 0),
        Command::Control(arguments) => control::control(&arguments).map(|()| 0),
        Command::Completions { shell } => {
            manual::show(&manual::completions(shell));
            Ok(0)
        }
        Command::Manual { directory } => manual::write(&directory).map(|()| 0),
        Command::ServeRun => serve::ordered::serve().map(|()| 0),
        Command::Doctor(arguments) => {
            let report = doctor::Report::look(arguments.verbose);
            show(&report.to_string());
            return if report.usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => complain(&error::line(&error), error::status(&error)),
    }
}

/// Writes to the standard output, which may be a pipe that is closed.
pub(crate) fn show(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(line: &str, status: u8) -> ExitCode {
    eprintln!("paraslot: {line}");
    ExitCode::from(status)
}
