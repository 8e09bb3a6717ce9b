//! What has been served.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::counted::Counts;
use crate::devices::Statistics;

/// What a device has done.
pub(super) enum Work {
    /// A disk.
    Disk(Counts),
    /// A network adapter.
    Net(Statistics),
}

/// A device that is served.
pub(super) struct Entry {
    number: u8,
    /// The device and its socket.
    name: String,
    /// Clients that have come and gone.
    clients: AtomicU64,
    work: OnceLock<Work>,
}

impl Entry {
    /// Its place among the devices, from 0.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn client_left(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    /// Where its counts are. Once.
    pub(super) fn set_work(&self, work: Work) {
        let _ = self.work.set(work);
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clients = self.clients.load(Ordering::Relaxed);
        write!(f, "{}: {clients} clients before", self.name)?;
        match self.work.get() {
            Some(Work::Disk(counts)) => {
                let (operations, bytes, failed) =
                    (counts.operations(), counts.bytes(), counts.failed());
                write!(f, ", {operations} operations, {bytes} bytes, {failed} failed")
            }
            Some(Work::Net(statistics)) => {
                let seen = statistics();
                write!(
                    f,
                    ", sent {} frames, {} bytes, received {} frames, {} bytes",
                    seen.sent_frames, seen.sent_bytes, seen.received_frames, seen.received_bytes
                )
            }
            None => Ok(()),
        }
    }
}

/// All of them, a line each.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Mutex<Vec<Arc<Entry>>>>);

impl Board {
    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line for a device.
    pub(super) fn add(&self, device: &str, socket: &str) -> Arc<Entry> {
        let mut entries = self.entries();
        let entry = Arc::new(Entry {
            number: u8::try_from(entries.len()).unwrap_or(u8::MAX),
            name: format!("{device} at {socket}"),
            clients: AtomicU64::new(0),
            work: OnceLock::new(),
        });
        entries.push(entry.clone());
        entry
    }
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries().iter().try_for_each(|entry| writeln!(f, "paraslot: {entry}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_a_line() {
        let board = Board::default();
        let first = board.add("virtio-blk", "/run/a");
        assert_eq!((first.number(), board.add("e1000", "/run/b").number()), (0, 1));
        first.set_work(Work::Disk(Counts::default()));
        first.client_left();
        assert_eq!(
            board.to_string(),
            "paraslot: virtio-blk at /run/a: 1 clients before, 0 operations, 0 bytes, 0 failed\n\
             paraslot: e1000 at /run/b: 0 clients before\n"
        );
    }
}
