//! An NVMe controller after the specification, as much of it as the driver uses. Admin commands it
//! carries out at once; others wait until a test says so. It can also lie.

extern crate std;

mod commands;
mod queues;

use core::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use crate::testing::{Fake, Registers};
use crate::{DmaRegion, Platform};
pub(super) use queues::{CompletionQueue, Fetched, Posted, Submission};

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
    /// It does not complete a shutdown: CSTS.SHST stays at this.
    NeverShutDown(u32),
    /// It has failed, and says so until it has been reset.
    Failed,
    /// Admin commands are taken and never completed.
    Silent,
    /// The admin command with this opcode fails with this status.
    Refuses(u8, u16),
    /// Admin commands are completed with another ID.
    WrongId,
    /// Admin commands are completed for queue 1.
    WrongQueue,
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
            Fault::Failed if enabled || !elapsed => return u32::from(!enabled) | 1 << 1,
            _ => enabled && elapsed,
        };
        let shutdown = match fault {
            _ if !enabled || self.cc.get() >> 14 & 3 == 0 => 0,
            Fault::NeverShutDown(shst) => shst,
            _ => 0b10,
        };
        u32::from(ready) | u32::from(enabled && fault == Fault::Fails) << 1 | shutdown << 2
    }

    fn configure(&self, fake: &Fake, value: u32) {
        let ready = self.status(fake) & 1 != 0;
        let before = self.cc.replace(value);
        if before & 1 == value & 1 {
            return;
        }
        if value & 1 == 0 {
            assert!(ready || self.fault.get() != Fault::None, "disabled before it is ready");
        }
        self.since.set(fake.tsc());
        self.submissions.borrow_mut().clear();
        self.completions.borrow_mut().clear();
        self.fetched.borrow_mut().clear();
        if value & 1 == 0 {
            // The registers are reset, but for the admin queues' (7.3.2).
            self.intms.set(0);
            return;
        }
        // Entries of 64 and 16 bytes, pages of 4 KiB, the NVM command set.
        assert_eq!(value, 0x46_0001);
        let [aqa, _, asq, asq_high, acq, acq_high] = *self.admin.borrow();
        let size = |shift: u32| u16::try_from((aqa >> shift & 0xfff) + 1).unwrap();
        let base = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        self.add_completion_queue(0, base(acq, acq_high), size(16), true, 0);
        self.add_submission_queue(0, base(asq, asq_high), size(0), 0);
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
