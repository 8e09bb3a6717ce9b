//! A lane's commands.

use paraslot_backends::block::BlockRequest;

use super::job::Job;
use crate::command::{Outcome, Status};
use crate::plan::Ending;

/// How a command ends that task management has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Aborted,
    Reset,
}

/// A command that waits for something: its slot, and which of the slot's commands it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) index: u32,
    pub(super) serial: u64,
}

/// A command under way.
pub(super) struct Slot {
    /// Which command this is; 0 if there is none.
    pub(super) serial: u64,
    pub(super) token: u64,
    pub(super) tag: u64,
    /// The number of its unit.
    pub(super) unit: usize,
    /// The number of its queue, if it has one.
    pub(super) queue: Option<usize>,
    pub(super) job: Job,
    /// A flush follows when the job is done.
    pub(super) flush: bool,
    /// Operations with the backend, a bit for each.
    pub(super) running: u8,
    /// It is in a list of those that wait.
    pub(super) waits: bool,
    /// An operation for which there was no room.
    pub(super) refused: Option<Box<BlockRequest>>,
    /// Where the last operation starts, in bytes, if that says where one that fails has failed.
    pub(super) offset: Option<u64>,
    /// The last operation is not a read.
    pub(super) writing: bool,
    /// Bytes that have been moved already, and that will have been when it ends well.
    pub(super) taken: u64,
    pub(super) moved: u64,
    /// How it ends, if not well.
    pub(super) verdict: Option<Ending>,
    pub(super) fate: Option<Fate>,
}

impl Slot {
    fn new() -> Self {
        Self {
            serial: 0,
            token: 0,
            tag: 0,
            unit: 0,
            queue: None,
            job: Job::Single,
            flush: false,
            running: 0,
            waits: false,
            refused: None,
            offset: None,
            writing: false,
            taken: 0,
            moved: 0,
            verdict: None,
            fate: None,
        }
    }

    /// The backend, or the host, has failed it. Nobody knows what has been moved.
    pub(super) fn fail(&mut self, ending: Ending) {
        if self.verdict.is_none() {
            self.verdict = Some(ending);
            self.moved = self.taken;
        }
    }

    /// Nothing more is asked of the backend.
    pub(super) fn is_ending(&self) -> bool {
        self.fate.is_some() || self.verdict.is_some()
    }
}

/// All slots of a lane.
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    serial: u64,
}

impl Slots {
    pub(super) fn new(depth: u32) -> Self {
        let slots = std::iter::repeat_with(Slot::new).take(usize::try_from(depth).unwrap_or(0));
        Self { slots: slots.collect(), free: (0..depth).rev().collect(), serial: 0 }
    }

    /// A free slot with a new serial number.
    pub(super) fn take(&mut self) -> Option<(u32, &mut Slot)> {
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(usize::try_from(index).ok()?)?;
        self.serial += 1;
        slot.serial = self.serial;
        slot.flush = false;
        slot.offset = None;
        Some((index, slot))
    }

    /// The slot, if there is a command in it.
    pub(super) fn get(&self, index: u32) -> Option<&Slot> {
        let slot = self.slots.get(usize::try_from(index).ok()?)?;
        (slot.serial != 0).then_some(slot)
    }

    /// The slot, if there is a command in it.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(usize::try_from(index).ok()?)?;
        (slot.serial != 0).then_some(slot)
    }

    /// How it is named in a list.
    pub(super) fn name(&self, index: u32) -> Option<Waiter> {
        self.get(index).map(|slot| Waiter { index, serial: slot.serial })
    }

    /// The command in a list, if it is still that.
    pub(super) fn named(&mut self, name: Waiter) -> Option<&mut Slot> {
        self.get_mut(name.index).filter(|slot| slot.serial == name.serial)
    }

    /// The command is over: the slot is free, and gives what is to be said of it.
    pub(super) fn release(&mut self, index: u32) -> Option<Released> {
        let slot = self.get_mut(index)?;
        let verdict = slot.verdict.take();
        let fate = slot.fate.take();
        let released = Released {
            token: slot.token,
            serial: slot.serial,
            unit: slot.unit,
            queue: slot.queue.take(),
            moved: if fate.is_some() { 0 } else { slot.moved },
            ending: verdict.unwrap_or(Ending::Status(Status::Good)),
            fate,
        };
        slot.job = Job::Single;
        slot.refused = None;
        slot.running = 0;
        slot.waits = false;
        self.vacate(index);
        Some(released)
    }

    /// The slot is free. Nothing is in it that has to be dropped.
    pub(super) fn vacate(&mut self, index: u32) {
        if let Some(slot) = self.get_mut(index) {
            slot.serial = 0;
            self.free.push(index);
        }
    }

    /// Commands under way.
    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many slots there are.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }
}

/// What was in a slot.
pub(super) struct Released {
    pub(super) token: u64,
    pub(super) serial: u64,
    pub(super) unit: usize,
    pub(super) queue: Option<usize>,
    pub(super) moved: u64,
    pub(super) ending: Ending,
    pub(super) fate: Option<Fate>,
}

impl Fate {
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Aborted => Outcome::Aborted,
            Self::Reset => Outcome::Reset,
        }
    }
}
