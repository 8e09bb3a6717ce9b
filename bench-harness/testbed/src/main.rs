//! `cargo testbed`: runs a command on a machine with a complete KVM and an IOMMU.

mod interrupt;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use paraslot_testbed::{Error, Job, Testbed};

/// Runs a command on a machine in software emulation that has a complete KVM and an IOMMU.
#[derive(Debug, Parser)]
#[command(name = "cargo testbed", bin_name = "cargo testbed", max_term_width = 100)]
struct CommandLine {
    /// The folder with what it is made of; made at first use [default: `testbed` in cargo's target folder]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Runs a command there; exits with its status
    ///
    /// The host's files are the machine's: the command may read them all, and write to the shared folder
    /// alone, which is its current one; what it writes elsewhere is gone afterwards. Exit status: the
    /// command's; 124 if it did not end in time; 125 if the machine failed.
    Run(Run),
    /// Makes what the machine consists of, the inner guest's disk included
    Prepare,
    /// Writes an initial RAM file system for an inner guest that runs a script
    Initrd {
        /// The script, run with `sh -e`
        script: PathBuf,
        /// The file to write
        output: PathBuf,
    },
    /// Prints where the parts are
    Paths,
}

#[derive(Debug, Args)]
struct Run {
    /// A folder that the command may write to [default: the current one]
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// Arguments for QEMU, separated by spaces: `--device "-device nvme,drive=d,serial=1"`
    #[arg(long = "device", value_name = "ARGS", allow_hyphen_values = true)]
    devices: Vec<String>,
    /// A kernel module to load instead of the usual ones
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// A variable of this environment to pass on, or one to set
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    environment: Vec<String>,
    /// Memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(512..))]
    memory: u32,
    /// Seconds that it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// How often it is tried if it takes longer
    #[arg(long, value_name = "N", default_value_t = 2)]
    attempts: u32,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match act(line) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            let late = matches!(error.downcast_ref(), Some(Error::Timeout { .. }));
            ExitCode::from(if late { 124 } else { 125 })
        }
    }
}

fn act(line: CommandLine) -> anyhow::Result<ExitCode> {
    let testbed = Testbed::prepare(&line.dir.unwrap_or_else(Testbed::default_dir))?;
    match line.command {
        Action::Run(run) => {
            let job = job(run)?;
            interrupt::leave_to_children();
            let outcome = testbed.run(&job)?;
            // Statuses have 8 bits.
            Ok(ExitCode::from(u8::try_from(outcome.status).unwrap_or(u8::MAX)))
        }
        Action::Prepare => {
            testbed.guest_disk()?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Initrd { script, output } => {
            let text = fs::read_to_string(&script)
                .with_context(|| format!("cannot read {}", script.display()))?;
            let archive = testbed.guest_initrd(&text)?;
            fs::write(&output, archive)
                .with_context(|| format!("cannot write {}", output.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Paths => {
            println!("kernel   {}", testbed.vmlinux().display());
            println!("bzImage  {}", testbed.bzimage().display());
            println!("disk     {}", testbed.guest_disk()?.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn job(run: Run) -> anyhow::Result<Job> {
    let share = match run.share {
        Some(share) => share,
        None => std::env::current_dir()?,
    };
    let mut job = Job::new(run.command, share);
    job.devices =
        run.devices.iter().flat_map(|words| words.split_whitespace()).map(str::to_owned).collect();
    if !run.modules.is_empty() {
        job.modules = run.modules;
    }
    for variable in run.environment {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.into()),
            None => (variable.clone(), std::env::var_os(&variable).unwrap_or_default()),
        };
        job.environment.push((name.into(), value));
    }
    job.memory_mib = run.memory;
    job.timeout = Duration::from_secs(run.timeout);
    job.attempts = run.attempts;
    job.echo = true;
    Ok(job)
}
