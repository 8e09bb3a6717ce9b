//! What can go wrong, in one line each.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Why there is no test bed, or why a job did not end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This host lacks what a test bed is made with. Callers may skip what needs one, saying so.
    #[error("no test bed on this host: {0}")]
    Unsupported(String),
    /// The file system refused something.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why it was not.
        error: io::Error,
    },
    /// A program of the host's failed, most often because a mirror did not answer.
    #[error("{what} failed: {output}")]
    Tool {
        /// The program, and what it was to do.
        what: String,
        /// The end of what it said.
        output: String,
    },
    /// A package holds something other than what was expected of it.
    #[error("{0}")]
    Package(String),
    /// The job's description makes no sense.
    #[error("not a job: {0}")]
    Job(String),
    /// The machine ended without a word about the command's exit status.
    #[error(
        "the machine ended by itself ({status}), and the command with it; its last words: {console}"
    )]
    Machine {
        /// How QEMU ended.
        status: String,
        /// The end of what QEMU and the machine's kernel wrote.
        console: String,
        /// What the command wrote until then.
        output: String,
    },
    /// The command did not end in time, in any of the attempts.
    #[error("the command did not end within {limit:?} ({attempts} attempts)")]
    Timeout {
        /// The time that each attempt had.
        limit: Duration,
        /// How many attempts there were.
        attempts: u32,
        /// What the command wrote until then.
        output: String,
    },
}

impl Error {
    /// Turns an I/O error into an [`Error::Io`] that says what was to be done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    /// The same, for a path.
    pub(crate) fn path(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }
}
