//! An NVMe controller after the specification, as much of it as the driver uses. Admin commands it
//! carries out at once; others wait until a test says so. It can also lie.

extern crate std;

use core::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use crate::testing::{Fake, Registers};
use crate::{DmaRegion, Platform};

mod commands;

pub(super) const BAR: u64 = 0xe000_0000;
pub(super) const BAR_SIZE: u64 = 0x4000;
/// The MSI-X table in the BAR.
const TABLE: u64 = 0x3000;
const PAGE: u64 = 4096;
/// Configuration space, in words.
pub(super) const MSIX_CAPABILITY: usize = 0x40 / 4;
pub(super) const MSI_CAPABILITY: usize = 0x60 / 4;

/// QEMU's: 2048 entries, contiguous queues, 7.5 s, the NVM command set.
pub(super) const CAP: u64 = 0x0000_0020_0f01_07ff;

/// What it can do wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// Every register reads as ones.
    Gone,
    /// It does not become ready.
    NeverReady,
    /// It says that it has failed as soon as it is enabled.
    Fails,
    /// It stays ready.
    StaysReady,
    /// It does not complete a shutdown.
    NeverShutDown,
    /// Admin commands are taken and never completed.
    Silent,
    /// The admin command with this opcode fails with this status.
    Refuses(u8, u16),
    /// Admin commands are completed with another ID.
    WrongId,
    /// Admin commands are completed for queue 1.
    WrongQueue,
}

/// A command as it was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) queue: u16,
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) id: u16,
    pub(super) namespace: u32,
    pub(super) prp: [u64; 2],
    pub(super) dwords: [u32; 6],
}

/// A completion as it is posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Posted {
    pub(super) result: u32,
    pub(super) head: u16,
    pub(super) queue: u16,
    pub(super) id: u16,
    /// Without the phase tag.
    pub(super) status: u16,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Submission {
    base: u64,
    pub(super) size: u16,
    head: u16,
    tail: u16,
    pub(super) completion: u16,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CompletionQueue {
    base: u64,
    pub(super) size: u16,
    pub(super) head: u16,
    tail: u16,
    phase: u16,
    /// More was posted than there was room for.
    overrun: bool,
    pub(super) interrupts: bool,
    pub(super) vector: u16,
}

impl CompletionQueue {
    /// Gets the phase tag wrong from now on, or right again.
    pub(super) fn flip_phase(&mut self) {
        self.phase ^= 1;
    }
}

/// Bytes that are different, from an offset on.
type Patch = (usize, Vec<u8>);

/// The controller.
pub(super) struct Model {
    pub(super) fault: Cell<Fault>,
    pub(super) cap: Cell<u64>,
    pub(super) version: Cell<u32>,
    pub(super) cc: Cell<u32>,
    /// Cycles from enabling to being ready.
    pub(super) delay: Cell<u64>,
    since: Cell<u64>,
    admin: RefCell<[u32; 6]>,
    pub(super) intms: Cell<u32>,
    pub(super) submissions: RefCell<BTreeMap<u16, Submission>>,
    pub(super) completions: RefCell<BTreeMap<u16, CompletionQueue>>,
    /// I/O commands that were fetched.
    pub(super) fetched: RefCell<VecDeque<Fetched>>,
    /// Admin commands that were.
    pub(super) administered: RefCell<Vec<Fetched>>,
    /// Offset and value of every write, but those to the MSI-X table.
    pub(super) writes: RefCell<Vec<(u64, u32)>>,
    pub(super) reads: Cell<usize>,
    pub(super) table: RefCell<BTreeMap<u64, u32>>,
    /// The namespace's contents, what it is called, and its blocks' size.
    pub(super) contents: RefCell<Vec<u8>>,
    pub(super) namespace: Cell<u32>,
    pub(super) block_shift: Cell<u8>,
    /// What is said differently: by the controller, of the namespace, in the list of namespaces.
    patches: RefCell<[Vec<Patch>; 3]>,
    /// Queues that there are, 0's based, both kinds.
    pub(super) queues: Cell<u32>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            fault: Cell::default(),
            cap: Cell::new(CAP),
            version: Cell::new(0x1_0400),
            cc: Cell::new(0),
            delay: Cell::new(0),
            since: Cell::new(0),
            admin: RefCell::default(),
            intms: Cell::new(0),
            submissions: RefCell::default(),
            completions: RefCell::default(),
            fetched: RefCell::default(),
            administered: RefCell::default(),
            writes: RefCell::default(),
            reads: Cell::new(0),
            table: RefCell::default(),
            contents: RefCell::new(vec![0; 8 << 20]),
            namespace: Cell::new(1),
            block_shift: Cell::new(9),
            patches: RefCell::default(),
            queues: Cell::new(63 << 16 | 63),
        }
    }

    /// A machine with it, its MSI-X table of so many vectors, and MSI.
    pub(super) fn plugged(self, vectors: u16) -> (Fake, Rc<Self>) {
        let fake = Fake::new();
        fake.add(4, 0, 0);
        fake.bar(4, 0, BAR_SIZE, true, BAR);
        {
            let mut functions = fake.functions.borrow_mut();
            let config = functions.get_mut(&(4, 0)).unwrap();
            config.words[2] = 0x0108_0202;
            config.words[1] = 1 << 20;
            config.words[0x34 / 4] = 0x40;
            config.words[MSIX_CAPABILITY] = 0x6011 | u32::from(vectors - 1) << 16;
            config.words[MSIX_CAPABILITY + 1] = u32::try_from(TABLE).unwrap();
            config.writable[MSIX_CAPABILITY] = 0xc000_0000;
            // 64-bit addresses, no masks.
            config.words[MSI_CAPABILITY] = 0x0080_0005;
            config.writable[MSI_CAPABILITY] = 0x0001_0000;
            config.writable[MSI_CAPABILITY + 1..][..3].fill(u32::MAX);
            config.words[0x3c / 4] = 0x100;
        }
        let this = Rc::new(self);
        fake.attach(BAR, BAR_SIZE, this.clone());
        (fake, this)
    }

    pub(super) fn stride(&self) -> u64 {
        4 << (self.cap.get() >> 32 & 0xf)
    }

    pub(super) fn patch(&self, which: usize, at: usize, bytes: &[u8]) {
        self.patches.borrow_mut()[which].push((at, bytes.to_vec()));
    }

    pub(super) fn take_writes(&self) -> Vec<(u64, u32)> {
        self.reads.set(0);
        core::mem::take(&mut self.writes.borrow_mut())
    }

    fn status(&self, fake: &Fake) -> u32 {
        let fault = self.fault.get();
        let enabled = self.cc.get() & 1 != 0;
        let elapsed = fake.tsc() - self.since.get() >= self.delay.get();
        let ready = match fault {
            Fault::NeverReady | Fault::Fails => false,
            Fault::StaysReady => true,
            _ => enabled && elapsed,
        };
        let shut = enabled && self.cc.get() >> 14 & 3 != 0 && fault != Fault::NeverShutDown;
        u32::from(ready) | u32::from(enabled && fault == Fault::Fails) << 1 | u32::from(shut) << 3
    }

    fn configure(&self, fake: &Fake, value: u32) {
        let before = self.cc.replace(value);
        if before & 1 == value & 1 {
            return;
        }
        self.since.set(fake.tsc());
        self.submissions.borrow_mut().clear();
        self.completions.borrow_mut().clear();
        self.fetched.borrow_mut().clear();
        if value & 1 == 0 {
            return;
        }
        // Entries of 64 and 16 bytes, pages of 4 KiB, the NVM command set.
        assert_eq!(value, 0x46_0001);
        let [aqa, _, asq, asq_high, acq, acq_high] = *self.admin.borrow();
        let size = |shift: u32| u16::try_from((aqa >> shift & 0xfff) + 1).unwrap();
        let base = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let admin =
            Submission { base: base(asq, asq_high), size: size(0), ..Submission::default() };
        self.add_completion_queue(0, base(acq, acq_high), size(16), true, 0);
        assert_eq!((admin.base % PAGE, base(acq, acq_high) % PAGE), (0, 0));
        self.submissions.borrow_mut().insert(0, admin);
    }

    fn add_completion_queue(&self, id: u16, base: u64, size: u16, interrupts: bool, vector: u16) {
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

    fn doorbell(&self, fake: &Fake, offset: u64, value: u32) {
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
    pub(super) fn post(&self, fake: &Fake, queue: u16, posted: Posted) {
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
    fn has_room(&self, command: &Fetched) -> bool {
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
    pub(super) fn asserted(&self) -> bool {
        let completions = self.completions.borrow();
        let waits = |queue: &CompletionQueue| queue.interrupts && queue.head != queue.tail;
        self.intms.get() & 1 == 0 && completions.values().any(waits)
    }

    /// Completes a command.
    pub(super) fn complete(&self, fake: &Fake, fetched: &Fetched, status: u16, result: u32) {
        let (head, completion) = {
            let submissions = self.submissions.borrow();
            let submission = submissions[&fetched.queue];
            (submission.head, submission.completion)
        };
        let posted = Posted { result, head, queue: fetched.queue, id: fetched.id, status };
        self.post(fake, completion, posted);
    }
}

impl Registers for Model {
    fn read(&self, fake: &Fake, offset: u64) -> u32 {
        self.reads.set(self.reads.get() + 1);
        let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap();
        match offset {
            _ if self.fault.get() == Fault::Gone => u32::MAX,
            0 => low(self.cap.get()),
            4 => low(self.cap.get() >> 32),
            8 => self.version.get(),
            0xc | 0x10 => self.intms.get(),
            0x14 => self.cc.get(),
            0x1c => self.status(fake),
            _ => panic!("a read of {offset:#x}"),
        }
    }

    fn write(&self, fake: &Fake, offset: u64, value: u32) {
        if offset >= TABLE {
            self.table.borrow_mut().insert(offset - TABLE, value);
            return;
        }
        self.writes.borrow_mut().push((offset, value));
        match offset {
            0xc => self.intms.set(self.intms.get() | value),
            0x10 => self.intms.set(self.intms.get() & !value),
            0x14 => self.configure(fake, value),
            0x24..0x3c => {
                assert_eq!(self.cc.get() & 1, 0, "not while it is enabled");
                let index = usize::try_from(offset - 0x24).unwrap() / 4;
                // The attributes, a hole, and two addresses: it begins with the attributes.
                let places = [0, 2, 3, 4, 5];
                self.admin.borrow_mut()[places[index]] = value;
            }
            0x1000.. => self.doorbell(fake, offset, value),
            _ => panic!("a write of {offset:#x}"),
        }
    }
}
