//! What goes wrong: the user's doing, or not.

use std::fmt;

/// The command line asked for what does not exist or does not make sense. Ends the program with
/// status 2; every other error ends it with 1.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    /// An error with this message.
    pub(crate) fn error(message: impl Into<String>) -> anyhow::Error {
        Self(message.into()).into()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The one line for an error, with its causes.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The program's exit status for an error.
pub(crate) fn status(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() { 2 } else { 1 }
}
