//! The end that has the devices.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::{Answer, Command, Done, LINE_MAX};
use crate::socket::{self, Bound};
use crate::sys;

/// How long a client has for a command, and then for taking the answer. There is one client at a time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens at `path`, where this user alone can connect, and which is to be taken away in the end.
///
/// # Errors
/// When somebody listens there, or nobody can.
pub(crate) fn bind(path: &Path) -> anyhow::Result<(UnixListener, Bound)> {
    // The mode is there with the socket, not a moment later.
    let listener = sys::with_file_mask(0o177, || socket::bind(path))?;
    Ok((listener, Bound::new(path)))
}

/// Has `owner` do what clients ask for, one after the other, on a thread of its own, for as long as the
/// program runs.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn serve(
    listener: UnixListener,
    mut owner: impl FnMut(Command) -> anyhow::Result<Done> + Send + 'static,
) -> anyhow::Result<()> {
    let work = move || {
        loop {
            match listener.accept() {
                // Who goes before it was answered has gone.
                Ok((stream, _)) => drop(attend(&stream, &mut owner)),
                // Descriptors may have run out, and come back.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    };
    let thread = thread::Builder::new().name("control".into()).spawn(work);
    thread.context("cannot start the thread for --control")?;
    Ok(())
}

/// Answers a client until it goes, or takes too long.
fn attend(
    stream: &UnixStream,
    owner: &mut dyn FnMut(Command) -> anyhow::Result<Done>,
) -> std::io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = Lines { stream, room: Vec::new() };
    loop {
        let (answer, last) = match lines.next()? {
            Line::None => return Ok(()),
            Line::TooLong => {
                (Answer::Error(format!("a command has at most {LINE_MAX} bytes")), true)
            }
            Line::Whole(line) => {
                let done = match serde_json::from_slice(&line) {
                    Ok(command) => owner(command).map_err(|error| crate::error::line(&error)),
                    Err(error) => Err(format!("no command: {error}")),
                };
                (done.map_or_else(Answer::Error, Answer::Ok), false)
            }
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        (&*stream).write_all(&bytes)?;
        if last {
            return Ok(());
        }
    }
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
    /// The client has gone.
    None,
}

/// What a client sends.
struct Lines<'a> {
    stream: &'a UnixStream,
    /// What has come and is not a line yet.
    room: Vec<u8>,
}

impl Lines<'_> {
    fn next(&mut self) -> std::io::Result<Line> {
        let start = Instant::now();
        let mut seen = 0;
        loop {
            let fresh = self.room.get(seen..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let rest = self.room.split_off(seen + end + 1);
                return Ok(Line::Whole(std::mem::replace(&mut self.room, rest)));
            }
            seen = self.room.len();
            if seen >= LINE_MAX {
                return Ok(Line::TooLong);
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 1024];
            let most = chunk.len().min(LINE_MAX - seen);
            let chunk = chunk.get_mut(..most).unwrap_or_default();
            let mut stream = self.stream;
            match stream.read(chunk) {
                Ok(0) => return Ok(Line::None),
                Ok(len) => self.room.extend_from_slice(chunk.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
