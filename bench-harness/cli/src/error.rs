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

/// The one line for an error, with those of its causes that it does not tell of itself.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The program's exit status for an error.
pub(crate) fn status(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_says_nothing_twice() {
        let root = anyhow::anyhow!("no\nroom");
        assert_eq!(line(&root.context("cannot write")), "cannot write: no room");
        let repeated = anyhow::anyhow!("no room").context("cannot write: no room");
        assert_eq!(line(&repeated), "cannot write: no room");
    }

    #[test]
    fn the_users_slips_have_a_status_of_their_own() {
        assert_eq!(status(&Usage::error("what?")), 2);
        assert_eq!(status(&anyhow::anyhow!("broken")), 1);
    }
}
