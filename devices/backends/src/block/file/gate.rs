//! Who may find out about lost writes when.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

/// Keeps a flush apart from every other operation that can be told of a lost write.
///
/// The kernel reports that a write could not be brought to the medium once for each open file, to
/// whichever flush or synchronous write asks first. If two ran at the same time, one could succeed
/// in spite of the loss, before the other's failure is known here. So a flush runs alone, and
/// synchronous writes run together, but not beside a flush.
#[derive(Default)]
pub(super) struct SyncGate {
    state: Mutex<State>,
    freed: Condvar,
}

/// How an operation enters the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A synchronous write.
    Shared,
    /// A flush.
    Alone,
}

#[derive(Default)]
struct State {
    shared: usize,
    alone: bool,
    /// Flushes that wait: no synchronous write that comes after them goes first.
    flushes: usize,
    bells: Vec<Arc<EventFd>>,
}

impl State {
    fn admit(&mut self, entry: Entry, waiting: bool) -> bool {
        match entry {
            Entry::Shared if !self.alone && (waiting || self.flushes == 0) => self.shared += 1,
            Entry::Alone if !self.alone && self.shared == 0 => self.alone = true,
            _ => return false,
        }
        if waiting {
            self.stop_waiting(entry);
        }
        true
    }

    fn start_waiting(&mut self, entry: Entry) {
        self.flushes += usize::from(entry == Entry::Alone);
    }

    fn stop_waiting(&mut self, entry: Entry) {
        self.flushes -= usize::from(entry == Entry::Alone);
    }
}

impl SyncGate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters, or has `bell` rung when it is worth trying again. `waiting` says that this operation
    /// has been refused before.
    pub(super) fn try_enter(&self, entry: Entry, waiting: bool, bell: &Arc<EventFd>) -> bool {
        let mut state = self.lock();
        if state.admit(entry, waiting) {
            return true;
        }
        if !waiting {
            state.start_waiting(entry);
        }
        if !state.bells.iter().any(|other| Arc::ptr_eq(other, bell)) {
            state.bells.push(bell.clone());
        }
        false
    }

    /// Enters, as soon as possible.
    pub(super) fn enter(&self, entry: Entry) {
        let mut state = self.lock();
        if state.admit(entry, false) {
            return;
        }
        state.start_waiting(entry);
        while !state.admit(entry, true) {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Leaves.
    pub(super) fn leave(&self, entry: Entry) {
        let mut state = self.lock();
        match entry {
            Entry::Shared => state.shared -= 1,
            Entry::Alone => state.alone = false,
        }
        self.wake(state);
    }

    /// An operation that was refused will not try again.
    pub(super) fn give_up(&self, entry: Entry) {
        let mut state = self.lock();
        state.stop_waiting(entry);
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let bells = std::mem::take(&mut state.bells);
        drop(state);
        self.freed.notify_all();
        for bell in bells {
            // It can fail only by being full, and then it has rung.
            let _ = bell.write(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    #[test]
    fn a_flush_is_alone_and_not_overtaken() {
        let gate = SyncGate::default();
        let bell = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        assert!(gate.try_enter(Entry::Shared, false, &bell));
        assert!(gate.try_enter(Entry::Shared, false, &bell));
        assert!(!gate.try_enter(Entry::Alone, false, &bell));
        // Nothing new goes before the flush that waits.
        assert!(!gate.try_enter(Entry::Shared, false, &bell));
        gate.leave(Entry::Shared);
        assert_eq!(bell.read().unwrap(), 1);
        assert!(!gate.try_enter(Entry::Alone, true, &bell));
        gate.leave(Entry::Shared);
        assert!(gate.try_enter(Entry::Alone, true, &bell));
        assert!(!gate.try_enter(Entry::Alone, false, &bell));
        gate.give_up(Entry::Alone);
        assert!(!gate.try_enter(Entry::Shared, true, &bell));
        gate.leave(Entry::Alone);
        assert!(gate.try_enter(Entry::Shared, true, &bell));
        gate.leave(Entry::Shared);
        gate.enter(Entry::Alone);
        gate.leave(Entry::Alone);
    }
}
