//! The program where there is all that it can use: a KVM that boots Linux, and an IOMMU.
//!
//! That is the [test bed](paraslot_testbed), whatever else this host has: the tests know its devices.
//! Where there cannot be one, each test says why and passes; with `CI` set in the environment, on a host
//! that can install Debian's packages, it fails. It is the program that `cargo test` has built: only
//! the tests of a program's own package know where that is.

mod boot;
mod linux;
mod passthrough;
mod snapshot;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use paraslot_testbed::{Job, QUICK, Testbed};
use tempfile::TempDir;

/// The program.
const PARASLOT: &str = env!("CARGO_BIN_EXE_paraslot");

/// How long a job may take. It is for one that hangs: an idle machine needs a minute.
const LIMIT: Duration = Duration::from_secs(600);

/// The parts of the test bed; `None`, with a line that says why, if this host cannot have one.
fn testbed() -> Option<Testbed> {
    match Testbed::prepare(&Testbed::default_dir()) {
        Ok(testbed) => Some(testbed),
        Err(error) => {
            let can = Path::new("/usr/bin/apt-get").exists();
            assert!(
                std::env::var_os("CI").is_none() || !can,
                "no test bed on a CI machine: {error}"
            );
            println!("skipped: {error}");
            None
        }
    }
}

/// Has the test bed run `script` in a shared directory, with these devices and modules besides the usual.
/// The script's `$1` is the program, and `arguments` follow. Returns what it wrote, once it ended well.
fn run(
    testbed: &Testbed,
    share: &TempDir,
    script: &str,
    arguments: &[&Path],
    devices: &[&str],
    modules: &[&str],
) -> String {
    let words = ["sh", "-euc", script, "script", PARASLOT].map(OsString::from);
    let words = words.into_iter().chain(arguments.iter().map(|path| path.into()));
    let mut job = Job::new(words, share.path());
    job.devices = devices.iter().map(ToString::to_string).collect();
    job.modules.extend(modules.iter().map(ToString::to_string));
    job.environment.push(("QUICK".into(), QUICK.into()));
    job.timeout = LIMIT;
    let outcome = testbed.run(&job).expect("the test bed runs");
    println!("{}", outcome.output);
    assert_eq!(outcome.status, 0, "the script failed: {}", outcome.output);
    outcome.output
}
