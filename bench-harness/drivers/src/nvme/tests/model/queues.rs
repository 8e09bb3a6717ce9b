//! Its queues (4), and their doorbells.

use super::*;

/// A command as it was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nvme::tests) struct Fetched {
    pub(in crate::nvme::tests) queue: u16,
    pub(in crate::nvme::tests) opcode: u8,
    pub(in crate::nvme::tests) flags: u8,
    pub(in crate::nvme::tests) id: u16,
    pub(in crate::nvme::tests) namespace: u32,
    pub(in crate::nvme::tests) prp: [u64; 2],
    pub(in crate::nvme::tests) dwords: [u32; 6],
}

/// A completion as it is posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::nvme::tests) struct Posted {
    pub(in crate::nvme::tests) result: u32,
    pub(in crate::nvme::tests) head: u16,
    pub(in crate::nvme::tests) queue: u16,
    pub(in crate::nvme::tests) id: u16,
    /// Without the phase tag.
    pub(in crate::nvme::tests) status: u16,
}

#[derive(Clone, Copy, Debug, Default)]
pub(in crate::nvme::tests) struct Submission {
    base: u64,
    pub(in crate::nvme::tests) size: u16,
    head: u16,
    tail: u16,
    pub(in crate::nvme::tests) completion: u16,
}

#[derive(Clone, Copy, Debug, Default)]
pub(in crate::nvme::tests) struct CompletionQueue {
    base: u64,
    pub(in crate::nvme::tests) size: u16,
    pub(in crate::nvme::tests) head: u16,
    tail: u16,
    phase: u16,
    /// More was posted than there was room for.
    overrun: bool,
    pub(in crate::nvme::tests) interrupts: bool,
    pub(in crate::nvme::tests) vector: u16,
}

impl CompletionQueue {
    /// Gets the phase tag wrong from now on, or right again.
    pub(in crate::nvme::tests) fn flip_phase(&mut self) {
        self.phase ^= 1;
    }
}

impl Model {
    pub(super) fn add_completion_queue(
        &self,
        id: u16,
        base: u64,
        size: u16,
        interrupts: bool,
        vector: u16,
    ) {
        assert!(base.is_multiple_of(PAGE));
        let queue = CompletionQueue {
            base,
            size,
            phase: 1,
            interrupts,
            vector,
            ..CompletionQueue::default()
        };
        self.completions.borrow_mut().insert(id, queue);
    }

    pub(super) fn add_submission_queue(&self, id: u16, base: u64, size: u16, completion: u16) {
        assert!(base.is_multiple_of(PAGE));
        assert!(self.completions.borrow().contains_key(&completion), "completions first");
        let queue = Submission { base, size, head: 0, tail: 0, completion };
        self.submissions.borrow_mut().insert(id, queue);
    }

    pub(super) fn doorbell(&self, fake: &Fake, offset: u64, value: u32) {
        let stride = self.stride();
        let index = (offset - 0x1000) / stride;
        assert_eq!((offset - 0x1000) % stride, 0, "between doorbells");
        let (queue, value) = (u16::try_from(index / 2).unwrap(), u16::try_from(value).unwrap());
        if index % 2 == 1 {
            let mut completions = self.completions.borrow_mut();
            let completion = completions.get_mut(&queue).expect("a completion queue");
            let taken = (value + completion.size - completion.head) % completion.size;
            let posted = (completion.tail + completion.size - completion.head) % completion.size;
            assert!(value < completion.size && taken != 0);
            assert!(taken <= posted || completion.overrun, "what was not posted");
            completion.head = value;
            return;
        }
        {
            let mut submissions = self.submissions.borrow_mut();
            let submission = submissions.get_mut(&queue).expect("a submission queue");
            assert!(value < submission.size && value != submission.tail);
            submission.tail = value;
        }
        while let Some(fetched) = self.fetch(fake, queue) {
            if queue == 0 {
                assert_ne!(fetched.id, u16::MAX, "a command that is none");
                self.administered.borrow_mut().push(fetched);
                self.administer(fake, &fetched);
            } else {
                self.fetched.borrow_mut().push_back(fetched);
            }
        }
    }

    fn fetch(&self, fake: &Fake, queue: u16) -> Option<Fetched> {
        let mut submissions = self.submissions.borrow_mut();
        let submission = submissions.get_mut(&queue)?;
        if submission.head == submission.tail {
            return None;
        }
        let (memory, at) = fake.at(submission.base + 64 * u64::from(submission.head));
        submission.head = (submission.head + 1) % submission.size;
        let word = |index: usize| memory.read32(at + 4 * index);
        assert_eq!((word(2), word(3), word(4), word(5)), (0, 0, 0, 0));
        let [opcode, flags, low, high] = word(0).to_le_bytes();
        Some(Fetched {
            queue,
            opcode,
            flags,
            id: u16::from_le_bytes([low, high]),
            namespace: word(1),
            prp: [memory.read64(at + 24), memory.read64(at + 32)],
            dwords: core::array::from_fn(|index| word(10 + index)),
        })
    }

    /// Posts a completion to a queue as it is; says nothing of whether that may be.
    pub(in crate::nvme::tests) fn post(&self, fake: &Fake, queue: u16, posted: Posted) {
        let mut completions = self.completions.borrow_mut();
        let completion = completions.get_mut(&queue).expect("a completion queue");
        let (memory, at) = fake.at(completion.base + 16 * u64::from(completion.tail));
        memory.write32(at, posted.result);
        memory.write16(at + 8, posted.head);
        memory.write16(at + 10, posted.queue);
        memory.write16(at + 12, posted.id);
        memory.store16(at + 14, posted.status << 1 | completion.phase);
        completion.tail = (completion.tail + 1) % completion.size;
        completion.overrun |= completion.tail == completion.head;
        if completion.tail == 0 {
            completion.phase ^= 1;
        }
        // As a message; the pin is asked for by `asserted`.
        if completion.interrupts && self.unmasked(completion.vector) {
            fake.interrupts.set(fake.interrupts.get() + 1);
        }
    }

    /// Whether a command's completion can be posted.
    pub(super) fn has_room(&self, command: &Fetched) -> bool {
        let queue = self.submissions.borrow()[&command.queue].completion;
        let completion = self.completions.borrow()[&queue];
        (completion.tail + 1) % completion.size != completion.head
    }

    /// Whether a vector of MSI-X has a message and is not masked.
    fn unmasked(&self, vector: u16) -> bool {
        let table = self.table.borrow();
        let entry = 16 * u64::from(vector);
        table.contains_key(&entry) && table.get(&(entry + 12)) == Some(&0)
    }

    /// Whether the pin is asserted.
    pub(in crate::nvme::tests) fn asserted(&self) -> bool {
        let completions = self.completions.borrow();
        let waits = |queue: &CompletionQueue| queue.interrupts && queue.head != queue.tail;
        self.intms.get() & 1 == 0 && completions.values().any(waits)
    }

    /// Completes a command.
    pub(in crate::nvme::tests) fn complete(
        &self,
        fake: &Fake,
        fetched: &Fetched,
        status: u16,
        result: u32,
    ) {
        let (head, completion) = {
            let submissions = self.submissions.borrow();
            let submission = submissions[&fetched.queue];
            (submission.head, submission.completion)
        };
        let posted = Posted { result, head, queue: fetched.queue, id: fetched.id, status };
        self.post(fake, completion, posted);
    }
}
