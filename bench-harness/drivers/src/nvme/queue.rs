//! A pair of queues (4).

use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};

use paraslot_spec::nvme::{CompletionEntry, SubmissionEntry, status};
use zerocopy::little_endian::U64;

use super::PAGE;
use super::controller::Controller;
use crate::{DmaRegion, Error, Platform};

/// A completion as the controller has written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completed {
    pub(super) id: u16,
    pub(super) result: u32,
    /// Code type and code; 0 for success.
    pub(super) status: u16,
}

/// A submission queue and the completion queue that it alone uses, of the same number and size.
pub(super) struct Pair {
    id: u16,
    entries: u16,
    submissions: DmaRegion,
    completions: DmaRegion,
    /// Where the next command goes, and as far as the controller has been told.
    tail: u16,
    told: u16,
    /// Where the next completion is, what its phase tag is, and as far as the controller has been told.
    head: u16,
    phase: u16,
    freed: u16,
}

impl Pair {
    /// Entries of the admin queues, which have one command at a time.
    pub(super) const ADMIN_ENTRIES: u16 = 4;

    /// Queues of `entries` entries each, two at least.
    pub(super) fn new<P: Platform>(platform: &P, id: u16, entries: u16) -> Result<Self, Error> {
        let allocate = |entry: usize| {
            let len = (entry * usize::from(entries)).next_multiple_of(PAGE);
            platform.allocate(len).ok_or(Error::NoMemory)
        };
        Ok(Self {
            id,
            entries,
            submissions: allocate(size_of::<SubmissionEntry>())?,
            completions: allocate(size_of::<CompletionEntry>())?,
            tail: 0,
            told: 0,
            head: 0,
            phase: status::PHASE,
            freed: 0,
        })
    }

    pub(super) fn id(&self) -> u16 {
        self.id
    }

    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// Where the commands are.
    pub(super) fn submissions(&self) -> u64 {
        self.submissions.physical(0)
    }

    /// Where the completions are.
    pub(super) fn completions(&self) -> u64 {
        self.completions.physical(0)
    }

    /// Empties both. The controller must not have them. The phase tags of the first round are 1, so
    /// all must be 0 before (4.6).
    pub(super) fn clear(&mut self) {
        self.completions.fill_pattern(0, self.completions.len(), 0, 0);
        (self.tail, self.told, self.head, self.freed) = (0, 0, 0, 0);
        self.phase = status::PHASE;
    }

    fn after(&self, index: u16) -> u16 {
        if index + 1 == self.entries { 0 } else { index + 1 }
    }

    /// Puts a command on its queue. There are always fewer in flight than there are entries.
    pub(super) fn push(&mut self, entry: &SubmissionEntry) {
        let words: [U64; 8] = zerocopy::transmute!(*entry);
        let at = size_of::<SubmissionEntry>() * usize::from(self.tail);
        for (index, word) in words.into_iter().enumerate() {
            self.submissions.write64(at + 8 * index, word.get());
        }
        self.tail = self.after(self.tail);
    }

    /// Tells the controller of what was pushed, if anything was.
    pub(super) fn submit<P: Platform>(&mut self, controller: &Controller<'_, P>) {
        if self.told != self.tail {
            self.told = self.tail;
            // The commands must be in memory before the controller is told to fetch them.
            fence(Ordering::SeqCst);
            controller.ring_tail(self.id, self.tail);
        }
    }

    /// Takes the next completion, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Completed>, Error> {
        let at = size_of::<CompletionEntry>() * usize::from(self.head);
        let memory = &self.completions;
        let word = memory.load16(at + offset_of!(CompletionEntry, status));
        if word & status::PHASE != self.phase {
            return Ok(None);
        }
        let queue = memory.read16(at + offset_of!(CompletionEntry, submission_queue));
        let taken = memory.read16(at + offset_of!(CompletionEntry, submission_head));
        if queue != self.id || taken >= self.entries {
            return Err(Error::Protocol("a completion of another queue"));
        }
        let completed = Completed {
            id: memory.read16(at + offset_of!(CompletionEntry, command_id)),
            result: memory.read32(at + offset_of!(CompletionEntry, result)),
            status: word >> status::SHIFT & status::CODE,
        };
        self.head = self.after(self.head);
        if self.head == 0 {
            self.phase ^= status::PHASE;
        }
        Ok(Some(completed))
    }

    /// Lets the controller have the room of the completions that were taken, if any were.
    pub(super) fn release<P: Platform>(&mut self, controller: &Controller<'_, P>) {
        if self.freed != self.head {
            self.freed = self.head;
            controller.ring_head(self.id, self.head);
        }
    }
}
