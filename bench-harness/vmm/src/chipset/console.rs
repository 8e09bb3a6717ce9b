//! What the guest writes to its serial port, on the way to whoever reads it.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that may wait for the reader.
pub(super) const QUEUE_MAX: usize = 1 << 20;
/// How long a vCPU waits for a slow reader before the guest's output is lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a writer that would block is left alone.
const PAUSE: Duration = Duration::from_millis(5);
/// How long more is waited for after the first byte, so that a line is one write and wakes the thread
/// once. A cable of 115,200 baud takes longer for a word.
const GATHER: Duration = Duration::from_millis(1);

/// A queue with a thread that writes what is in it.
///
/// A reader that is merely slow holds the guest up, so nothing is lost. One that does not read for
/// [`PATIENCE`] while the queue is full loses the guest's output from then on, until it has read
/// something: the guest never waits for it twice.
pub(super) struct Console(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something was queued or written, or the queue was closed.
    changed: Condvar,
    patience: Duration,
}

#[derive(Default)]
struct State {
    queue: Vec<u8>,
    /// The thread is writing what it has taken from the queue.
    writing: bool,
    /// Somebody waited in vain; nobody does so again before the queue moves.
    stuck: bool,
    /// There is nobody to read any more.
    broken: bool,
    /// There is nothing more to come.
    closed: bool,
    /// Nobody waits for the rest any more.
    abandoned: bool,
}

impl Console {
    /// A queue in front of `writer`, and the thread that empties it.
    pub(super) fn new(writer: Box<dyn Write + Send>, patience: Duration) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), patience });
        let theirs = Writing(shared.clone());
        thread::Builder::new().name("serial".to_owned()).spawn(move || theirs.run(writer))?;
        Ok(Self(shared))
    }

    /// Waits until all has been written, or the reader has had its time.
    pub(super) fn flush(&self) {
        let idle = |state: &State| state.broken || (state.queue.is_empty() && !state.writing);
        drop(self.0.wait(self.0.lock(), idle));
    }

    /// Queues `bytes`.
    pub(super) fn send(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        let room = |state: &State| state.broken || state.queue.len() < QUEUE_MAX;
        if !room(&state) && !state.stuck {
            state = self.0.wait(state, room);
            state.stuck = !room(&state);
        }
        if !state.broken && state.queue.len() < QUEUE_MAX {
            if state.queue.is_empty() {
                self.0.changed.notify_all();
            }
            state.queue.extend_from_slice(bytes);
        }
    }
}

impl Drop for Console {
    /// Writes what is left, within the reader's time. The thread ends when the reader lets it.
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
        self.flush();
        self.0.lock().abandoned = true;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done`, while the patience lasts.
    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        done: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let start = Instant::now();
        while !done(&state) {
            let Some(left) = self.patience.checked_sub(start.elapsed()) else { break };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }
}

/// The thread's side. However that ends, nobody waits for it afterwards.
struct Writing(Arc<Shared>);

impl Writing {
    fn run(self, mut writer: Box<dyn Write + Send>) {
        while let Some(bytes) = self.next() {
            if self.write(&mut *writer, &bytes).is_err() {
                return;
            }
        }
    }

    /// What is next to be written; `None` at the end.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.0.lock();
        state.writing = false;
        self.0.changed.notify_all();
        while state.queue.is_empty() {
            if state.closed {
                return None;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closed {
            drop(state);
            thread::sleep(GATHER);
            state = self.0.lock();
        }
        state.writing = true;
        state.stuck = false;
        self.0.changed.notify_all();
        Some(mem::take(&mut state.queue))
    }

    fn write(&self, writer: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match writer.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A terminal may have been made non-blocking behind our back.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.0.lock().abandoned {
                        return Err(error);
                    }
                    thread::sleep(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        match writer.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            flushed => flushed,
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.broken = true;
        state.writing = false;
        state.queue = Vec::new();
        self.0.changed.notify_all();
    }
}
