//! What an inner guest's script says.

use std::io::{self, Write};

/// What stands before the words of a guest's script, on a line of its console.
const PREFIX: &str = "paraslot: ";

/// The word that a guest's script says in a line of its console, and what follows it: `mark` and a word,
/// `exit` and a status, `fail` and a reason, or what a script says of its own accord.
///
/// ```
/// # use paraslot_testbed::said;
/// assert_eq!(said("paraslot: exit 0"), Some(("exit", "0")));
/// // The kernel's last words may stand before it.
/// assert_eq!(said("[ 1.0] eth0: up paraslot: mark ready"), Some(("mark", "ready")));
/// assert_eq!(said("[ 1.0] eth0: up"), None);
/// ```
#[must_use]
pub fn said(line: &str) -> Option<(&str, &str)> {
    let (_, text) = line.split_once(PREFIX)?;
    Some(text.split_once(' ').unwrap_or((text, "")))
}

/// A console that hands on what is written to it, by lines, without their ends. What follows the last
/// line's end is kept until its own comes.
#[derive(Debug)]
pub struct Lines<F> {
    begun: Vec<u8>,
    to: F,
}

impl<F: FnMut(String)> Lines<F> {
    /// A console whose lines go to `to`.
    pub const fn new(to: F) -> Self {
        Self { begun: Vec::new(), to }
    }
}

impl<F: FnMut(String)> Write for Lines<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            match byte {
                b'\r' => {}
                b'\n' => {
                    let line = String::from_utf8_lossy(&self.begun).into_owned();
                    self.begun.clear();
                    (self.to)(line);
                }
                _ => self.begun.push(byte),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_lines_however_they_come() {
        let mut lines = Vec::new();
        let mut console = Lines::new(|line| lines.push(line));
        for piece in ["one\r\nt", "wo\n", "", "\n", "rest"] {
            console.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(lines, ["one", "two", ""]);
    }

    #[test]
    fn a_word_may_stand_alone() {
        assert_eq!(said("paraslot: mark"), Some(("mark", "")));
        assert_eq!(said("paraslot: fact build #1 SMP"), Some(("fact", "build #1 SMP")));
        assert_eq!(said("paraslot:mark"), None);
    }
}
