//! What is to be run, and how it went.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::{quote, recipe};

/// A command for the outer machine, and the machine that it wants.
#[derive(Debug, Clone)]
pub struct Job {
    /// The program, as the host's `PATH` or a path has it, and its arguments: any bytes but NUL.
    pub command: Vec<OsString>,
    /// A folder of the host's that the command may write to, at the same path; its current one.
    /// The rest of the host's files it may read, and write for itself alone.
    pub share: PathBuf,
    /// Further arguments for QEMU: devices.
    pub devices: Vec<String>,
    /// Kernel modules that are loaded before. Default: KVM, VFIO for PCI, TAP.
    pub modules: Vec<String>,
    /// Variables for the command's environment, which is otherwise a plain one: nothing of the caller's.
    pub environment: Vec<(OsString, OsString)>,
    /// The machine's memory, in MiB. Default: 4096, of which the host gives what is touched.
    pub memory_mib: u32,
    /// The time that an attempt has, starting the machine (some 3 s) included. Default: 120 s.
    pub timeout: Duration,
    /// How often it is tried when an attempt passes its limit, and for no other reason: emulation
    /// has been known to hang, rarely. Default: 2. Each finds in the share what the one before left.
    pub attempts: u32,
    /// Whether the output is written to this process's standard output too, as it comes.
    pub echo: bool,
}

impl Job {
    /// `command` with `share`, and the defaults otherwise.
    pub fn new<C: Into<OsString>>(
        command: impl IntoIterator<Item = C>,
        share: impl Into<PathBuf>,
    ) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            share: share.into(),
            devices: Vec::new(),
            modules: recipe::DEFAULT_MODULES.map(str::to_owned).to_vec(),
            environment: Vec::new(),
            memory_mib: 4096,
            timeout: Duration::from_secs(120),
            attempts: 2,
            echo: false,
        }
    }

    /// The share's path, as the machine has it.
    pub(crate) fn share_path(&self) -> Result<PathBuf, Error> {
        let path = self.share.canonicalize().map_err(Error::path("find", &self.share))?;
        let own = ["/proc", "/sys", "/dev"].iter().any(|own| path.starts_with(own));
        if own || path == Path::new("/") || path == Path::new("/run") || !path.is_dir() {
            return Err(Error::Job(format!("{} cannot be shared", path.display())));
        }
        Ok(path)
    }

    /// A shell's settings for the machine's first process.
    pub(crate) fn settings(&self, share: &Path) -> Vec<u8> {
        let mut text = OsString::from("share=");
        text.push(quote::quoted(share.as_os_str()));
        text.push("\nmodules=");
        text.push(quote::quoted(OsStr::new(&self.modules.join(" "))));
        text.push("\n");
        text.into_vec()
    }

    /// A shell script that becomes the command.
    pub(crate) fn script(&self, share: &Path) -> Result<Vec<u8>, Error> {
        let words = self
            .command
            .iter()
            .chain(self.environment.iter().flat_map(|(name, value)| [name, value]));
        if self.command.first().is_none_or(|program| program.is_empty()) {
            return Err(Error::Job("it has no command".into()));
        }
        if words.into_iter().any(|word| word.as_bytes().contains(&0)) {
            return Err(Error::Job("a word of it has a NUL in it".into()));
        }
        let mut text = OsString::from(
            "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/testbed/bin\n\
            export HOME=/root LC_ALL=C.UTF-8 PARASLOT_TESTBED=1\n",
        );
        for (name, value) in &self.environment {
            if !quote::is_variable(name) {
                return Err(Error::Job(format!(
                    "{} is no variable's name",
                    name.to_string_lossy()
                )));
            }
            text.push("export ");
            text.push(name);
            text.push("=");
            text.push(quote::quoted(value));
            text.push("\n");
        }
        text.push("cd ");
        text.push(quote::quoted(share.as_os_str()));
        text.push(" || exit 126\nexec ");
        text.push(quote::line(self.command.iter().map(OsString::as_os_str)));
        text.push("\n");
        Ok(text.into_vec())
    }
}

/// How a job's command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status: 128 and the signal's number if a signal ended it, 126 and 127 if it did not start.
    pub status: i32,
    /// What it wrote, to standard output and standard error in the order of writing. If there was more
    /// than one attempt, a line that says so is before it.
    pub output: String,
    /// How many attempts it took.
    pub attempts: u32,
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(job: &Job, share: &Path) -> String {
        let script = job.script(share).expect("a script");
        let output = Command::new("sh")
            .arg("-c")
            .arg(OsString::from_vec(script))
            .env("SECRET", "1")
            .output();
        String::from_utf8(output.expect("sh runs").stdout).expect("text")
    }

    #[test]
    fn a_command_starts_in_its_share_with_its_arguments_and_variables() {
        let share =
            tempfile::Builder::new().prefix("it's a \"share\"\n").tempdir().expect("a directory");
        let mut job =
            Job::new(["sh", "-c", "pwd; echo \"$A|$1|$2\"", "-", "a  b'\"$x\n*", ""], share.path());
        job.environment.push(("A".into(), "v '\"\n$A".into()));
        let expected = format!("{}\nv '\"\n$A|a  b'\"$x\n*|\n", share.path().display());
        assert_eq!(run(&job, share.path()), expected);
    }

    #[test]
    fn settings_survive_the_shell() {
        let job = Job::new(["true"], "/");
        let mut script = job.settings(Path::new("/a 'b' c"));
        script.extend_from_slice(b"printf '%s|' \"$share\" $modules");
        let output =
            Command::new("sh").arg("-c").arg(OsString::from_vec(script)).output().expect("sh runs");
        assert_eq!(output.stdout, b"/a 'b' c|kvm_amd|vfio_pci|vfio_iommu_type1|tun|");
    }

    #[test]
    fn what_is_no_job_is_refused() {
        let refused = |job: &Job| matches!(job.script(Path::new("/tmp")), Err(Error::Job(_)));
        assert!(refused(&Job::new(Vec::<OsString>::new(), "/tmp")));
        assert!(refused(&Job::new([""], "/tmp")));
        assert!(refused(&Job::new(["a\0b"], "/tmp")));
        let mut job = Job::new(["true"], "/tmp");
        job.environment.push(("a b".into(), "c".into()));
        assert!(refused(&job));
        for share in ["/", "/proc", "/dev/null"] {
            assert!(
                matches!(Job::new(["true"], share).share_path(), Err(Error::Job(_))),
                "{share}"
            );
        }
        assert!(matches!(Job::new(["true"], "/not/there").share_path(), Err(Error::Io { .. })));
    }
}
