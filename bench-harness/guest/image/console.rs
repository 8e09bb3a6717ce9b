//! Frames to the harness.

use core::fmt;

use paraslot_protocol::frame::{self, Kind};
use paraslot_protocol::{Outcome, port as ports};

use crate::port;

/// A short piece of text; what does not fit is cut.
pub(crate) struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Text {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; 512], len: 0 }
    }
    /// The text so far.
    pub(crate) fn as_str(&self) -> &str {
        let bytes = &self.bytes[..self.len];
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            // Cut inside a character.
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        }
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = &mut self.bytes[self.len..];
        let len = text.len().min(free.len());
        free[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}

/// Sends a line of text.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut line = Text::new();
    // It cuts, so it does not fail.
    let _ = fmt::write(&mut line, text);
    frame::send(Kind::Text, &[line.as_str().as_bytes()], put);
}

/// Sends an outcome.
pub(crate) fn outcome(outcome: &Outcome) {
    outcome.send(put);
}

fn put(byte: u8) {
    port::write8(ports::CONSOLE, byte);
}
