//! What is typed on a terminal: for the guest, or for this program.

/// The key that precedes those for this program: Ctrl-A, as QEMU has it.
const PREFIX: u8 = 0x01;

/// What the keys are.
pub(super) const HELP: &str = "\
\r
Ctrl-A h       this help\r
Ctrl-A x       stop the guest at once, and end\r
Ctrl-A p       press the guest's power button\r
Ctrl-A s       save the guest to --snapshot's directory, and end\r
Ctrl-A Ctrl-A  Ctrl-A for the guest\r
";

/// What is to be done about what was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    /// Type it into the guest.
    Type(&'a [u8]),
    /// Press the power button.
    Power,
    /// Stop the guest.
    Stop,
    /// Save it.
    Save,
    /// Show the keys.
    Help,
}

/// Tells keys for the guest from those for this program.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The prefix was typed.
    prefixed: bool,
}

impl Keys {
    /// Takes what was typed, and has `act` do what it stands for, in order. What follows the prefix and
    /// is no key is nobody's.
    pub(super) fn feed<'a>(&mut self, mut typed: &'a [u8], mut act: impl FnMut(Action<'a>)) {
        while let Some((first, rest)) = typed.split_first() {
            if self.prefixed {
                self.prefixed = false;
                match first {
                    b'x' => act(Action::Stop),
                    b'p' => act(Action::Power),
                    b's' => act(Action::Save),
                    b'h' | b'?' => act(Action::Help),
                    &PREFIX => act(Action::Type(&[PREFIX])),
                    _ => {}
                }
                typed = rest;
                continue;
            }
            let plain = typed.iter().position(|byte| *byte == PREFIX).unwrap_or(typed.len());
            let (text, rest) = typed.split_at(plain);
            if !text.is_empty() {
                act(Action::Type(text));
            }
            self.prefixed = !rest.is_empty();
            typed = rest.get(1..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done about that, typed in these pieces.
    fn done(pieces: &[&[u8]]) -> Vec<String> {
        let mut keys = Keys::default();
        let mut done = Vec::new();
        for piece in pieces {
            keys.feed(piece, |action| {
                done.push(match action {
                    Action::Type(text) => String::from_utf8(text.to_vec()).unwrap(),
                    other => format!("{other:?}"),
                });
            });
        }
        done
    }

    #[test]
    fn the_guest_gets_what_is_typed() {
        assert_eq!(done(&[b"ls -l\r", b"\x03\x1b[A"]), ["ls -l\r", "\x03\x1b[A"]);
        assert_eq!(done(&[b""]), [""; 0]);
    }

    #[test]
    fn what_follows_the_prefix_is_not_for_the_guest() {
        assert_eq!(done(&[b"a\x01xb"]), ["a", "Stop", "b"]);
        assert_eq!(done(&[b"\x01p\x01h\x01?\x01s"]), ["Power", "Help", "Help", "Save"]);
        assert_eq!(done(&[b"a\x01\x01b"]), ["a", "\x01", "b"]);
        assert_eq!(done(&[b"a\x01zb"]), ["a", "b"]);
    }

    #[test]
    fn keys_may_come_one_at_a_time() {
        assert_eq!(done(&[b"a", b"\x01", b"p", b"b"]), ["a", "Power", "b"]);
        assert_eq!(done(&[b"\x01", b"\x01", b"x"]), ["\x01", "x"]);
    }
}
