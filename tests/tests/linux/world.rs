//! Where the tests run.

use std::any::type_name;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use paraslot_backends::block::{BlockBackend, FileBackend, FileOptions};
use paraslot_testbed::{Job, Testbed};

/// Names the artifacts' directory in the environment of a test that runs inside the test bed.
const INSIDE: &str = "PARASLOT_LINUX_TESTS_INSIDE";

/// How long a test may take inside. It is for a machine that hangs: an idle one needs a minute or two.
const LIMIT: Duration = Duration::from_secs(1800);

/// A host that boots Linux, and what is booted.
pub(crate) struct World {
    testbed: Testbed,
}

/// Runs `body` where Linux boots. `test` is the test function that calls this, for its name.
pub(crate) fn run<T>(test: T, body: impl FnOnce(&World)) {
    let name = name_of(&test);
    let passed = format!("linux: {name} passed inside");
    if let Some(artifacts) = env::var_os(INSIDE) {
        let testbed = Testbed::prepare(Path::new(&artifacts)).expect("what the outside prepared");
        body(&World { testbed });
        println!("{passed}");
        return;
    }
    let artifacts = Testbed::default_dir();
    let world = match Testbed::prepare(&artifacts) {
        Ok(testbed) => World { testbed },
        Err(error) => {
            let expected = env::var_os("CI").is_some() && Path::new("/usr/bin/apt-get").exists();
            assert!(!expected, "{error}");
            println!("skipped: {error}");
            return;
        }
    };
    if paraslot_vmm::probe().is_ok_and(|probe| probe.hardware_assisted) {
        return body(&world);
    }
    // It is made here, so that it is there inside.
    world.testbed.guest_disk().expect("the guest's disk");
    let output = world.inside(name, &artifacts);
    assert!(output.lines().any(|line| line == passed), "the test bed did not run {name}");
}

/// The name that the test's own harness has for it.
fn name_of<T>(_: &T) -> &'static str {
    let path = type_name::<T>();
    path.split_once("::").map_or(path, |(_crate, name)| name)
}

impl World {
    /// Runs this test once more, inside the test bed. Returns what it said.
    fn inside(&self, name: &str, artifacts: &Path) -> String {
        let share = tempfile::tempdir().expect("a directory to share");
        let program = env::current_exe().expect("this program's path");
        let arguments = [name, "--exact", "--nocapture", "--test-threads=1"].map(OsString::from);
        let command = [program.into_os_string()].into_iter().chain(arguments);
        let mut job = Job::new(command, share.path());
        job.environment.push((INSIDE.into(), artifacts.into()));
        job.timeout = LIMIT;
        let start = Instant::now();
        let outcome = self.testbed.run(&job).unwrap_or_else(|error| panic!("{name}: {error}"));
        for line in outcome.output.lines() {
            println!("{line}");
        }
        let seconds = start.elapsed().as_secs();
        println!("{name}: {seconds} s in the test bed, attempts: {}", outcome.attempts);
        assert_eq!(outcome.status, 0, "{name} failed in the test bed");
        outcome.output
    }

    /// Debian's kernel, as an ELF file.
    pub(crate) fn vmlinux(&self) -> &Path {
        self.testbed.vmlinux()
    }

    /// Debian's kernel, as it is distributed.
    pub(crate) fn bzimage(&self) -> &Path {
        self.testbed.bzimage()
    }

    /// A RAM disk whose init runs `script`.
    pub(crate) fn initrd(&self, script: &str) -> Vec<u8> {
        self.testbed.guest_initrd(script).expect("an initial RAM disk")
    }

    /// The image of a root file system with the tools that scripts use. Not to be written.
    pub(crate) fn tools_image(&self) -> PathBuf {
        self.testbed.guest_disk().expect("the guest's disk")
    }

    /// The same as a read-only disk.
    pub(crate) fn tools(&self) -> Arc<dyn BlockBackend> {
        let options = FileOptions {
            read_only: true,
            lock: false,
            id: Some("tools".into()),
            ..FileOptions::new(self.tools_image())
        };
        Arc::new(FileBackend::open(&options).expect("the guest's disk"))
    }
}
