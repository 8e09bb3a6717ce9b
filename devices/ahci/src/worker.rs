//! A port's worker: it takes commands from the command list, has the backend carry them out, and
//! reports how they ended.
//!
//! One pass of [`service`](Worker::service) takes the port's lock twice at most: to report what has
//! completed and take what was issued, and to report what completed at once. Fetching commands and
//! handing them to the backend is done in between, so that a vCPU's register write never waits for
//! it. What the worker has taken is marked in [`State::taken`] for all of that time; resets wait
//! for it.

mod attached;
mod disk;
mod finish;
mod saved;
mod start;

use std::sync::Arc;

use paraslot_device::{Dma, DmaSpace, Memory, Progress, Source, Worker};
use paraslot_spec::ahci::fis::RegisterH2d;
use paraslot_spec::ahci::{MAX_SLOTS, PortCommand, port};
use paraslot_spec::ata::status;
use serde::{Deserialize, Serialize};

use crate::command::{Failure, Output, Protocol, Then};
use crate::disk::READY;
use crate::hba::Irq;
use crate::port::{Port, State};

pub(crate) use attached::Attached;
pub(crate) use disk::DiskDevice;
pub(crate) use saved::CommandState;
pub(crate) use start::{Fetched, gather_for};

/// PRD entries of the commands in flight above which no further command is taken. One command may
/// have 65,535, so a port holds fewer than 8,192 + 65,535 at any time.
const MOST_ENTRIES: u32 = 8192;

/// The commands that were taken, by slot.
pub(crate) type Commands = [Option<Command>; MAX_SLOTS];

/// A port's command list engine, and the device behind it.
pub(crate) struct PortWorker<A: DmaSpace, D> {
    port: Arc<Port>,
    irq: Arc<Irq>,
    dma: Dma<A>,
    device: D,
    commands: Commands,
    /// Slots whose commands the device has not ended.
    in_flight: u32,
    /// Slots whose commands have ended, but not been reported.
    finished: u32,
    /// Slots of queued commands that have not been reported.
    queued: u32,
    /// The slot of the command that is not queued: while there is one, nothing else is taken.
    exclusive: Option<u32>,
    /// Slots that were taken, and not started after all.
    released: u32,
    /// Slots of queued commands that the device has accepted since the last look at the port.
    accepted: u32,
    /// The epoch in which the commands that were taken last were taken.
    epoch: u32,
    /// PRD entries of the commands that have not been reported.
    entries: u32,
    /// Nobody waits for what is in flight: something was reset, or stopped.
    draining: bool,
    /// There may be something to take, though nobody rang.
    look: bool,
}

/// A command that was taken.
pub(crate) struct Command {
    epoch: u32,
    /// As it came; a device may change what is to be sent back.
    pub(crate) fis: RegisterH2d,
    /// Address of its command header.
    header: u64,
    pub(crate) protocol: Protocol,
    /// Bytes that it moves; of a packet command, that it has moved.
    pub(crate) bytes: u32,
    /// PRD entries that it keeps.
    pub(crate) entries: u32,
    /// One of its PRD entries asks for an interrupt.
    pub(crate) interrupt: bool,
    pub(crate) then: Then,
    pub(crate) end: End,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// As asked, and the registers are as the command set them.
    Success,
    /// With these registers.
    Output(Output),
    /// Without a word from the device.
    Accepted,
    /// With the device's signature.
    Signature,
    /// Not at all.
    Hang,
    Failed(Failure),
}

/// What was taken from the port.
struct Batch {
    slots: u32,
    /// Address of the command list.
    list: u64,
    /// The slot to begin with.
    first: u32,
}

pub(crate) fn bit(slot: u32) -> u32 {
    1u32.checked_shl(slot).unwrap_or(0)
}

/// The slots in `mask`, lowest first.
fn slots(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let slot = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (slot < u32::BITS).then_some(slot)
    })
}

pub(crate) fn place(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

impl<A: DmaSpace, D: Attached> PortWorker<A, D> {
    pub(crate) fn new(port: Arc<Port>, irq: Arc<Irq>, dma: Dma<A>, device: D) -> Self {
        Self {
            port,
            irq,
            dma,
            device,
            commands: [const { None }; MAX_SLOTS],
            in_flight: 0,
            finished: 0,
            queued: 0,
            exclusive: None,
            released: 0,
            accepted: 0,
            epoch: 0,
            entries: 0,
            draining: false,
            look: true,
        }
    }

    /// Takes what the device has ended.
    fn collect(&mut self) -> Progress {
        if self.in_flight == 0 && !self.device.ordered() {
            return Progress::Idle;
        }
        let (ended, progress) = self.device.complete(&mut self.commands);
        self.in_flight &= !ended;
        self.finished |= ended;
        progress
    }

    /// Reports to the port what has ended, and takes what was issued if `take` says so.
    fn exchange(&mut self, memory: Option<&Memory<A>>, take: bool) -> Option<Batch> {
        let port = self.port.clone();
        let mut state = port.lock();
        state.taken &= !std::mem::take(&mut self.released);
        let accepted = std::mem::take(&mut self.accepted);
        if accepted != 0 && self.epoch == state.epoch {
            state.bank.change(port::CI, 0, accepted);
        }
        self.finish(&mut state, memory);
        if state.taken == 0 {
            state.drained(&self.irq);
            if std::mem::take(&mut state.reset_device) {
                self.device.hard_reset();
            }
            if let Some(memory) = memory
                && state.signature
                && state.linked()
                && state.receiving()
            {
                self.send_signature(&mut state, memory);
            }
        } else if let Some(slot) = self.exclusive
            && self.epoch == state.epoch
        {
            state.set_current(slot);
            state.bank.set(port::TFD, u32::from(READY | status::BSY));
        }
        self.draining = state.draining;
        let issuable = state.issuable();
        if !take || memory.is_none() {
            self.look = issuable != 0;
            return None;
        }
        self.look = false;
        // Beyond that the next completion brings us back here.
        if issuable == 0 || self.entries >= MOST_ENTRIES {
            return None;
        }
        state.taken |= issuable;
        self.epoch = state.epoch;
        Some(Batch { slots: issuable, list: state.address(port::CLB), first: state.next_slot })
    }

    /// What is left to do when the host has been told.
    fn settle(&mut self) {
        if self.draining && self.in_flight != 0 {
            self.device.hurry();
            self.device.abandon();
        }
        if self.finished == 0 {
            self.device.settle();
        }
    }
}

impl State {
    /// Shows `slot` in PxCMD.CCS.
    fn set_current(&mut self, slot: u32) {
        let current = slot << PortCommand::CCS_SHIFT & PortCommand::CCS;
        self.bank.change(port::CMD, current, PortCommand::CCS);
        self.next_slot = slot.wrapping_add(1) % u32::BITS;
    }
}

impl<A: DmaSpace, D: Attached> Worker for PortWorker<A, D> {
    fn sources(&self) -> Vec<Source> {
        let bell = self.port.bell().source();
        std::iter::once(bell).chain(self.device.sources()).collect()
    }

    fn service(&mut self) -> Progress {
        let rung = self.port.bell().answer();
        let busy = self.in_flight | self.finished != 0 || self.device.ordered();
        if !rung && !self.look && !busy {
            return Progress::Idle;
        }
        let progress = self.collect();
        if !rung && !self.look && self.finished == 0 {
            self.settle();
            return progress;
        }
        let memory = self.dma.memory();
        let batch = self.exchange(memory.as_ref(), true);
        let (Some(memory), Some(batch)) = (memory, batch) else {
            self.settle();
            return progress;
        };
        self.start(&memory, &batch);
        self.device.commit();
        let _ = self.collect();
        self.exchange(Some(&memory), false);
        self.settle();
        Progress::More
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let rung = self.port.bell().sleep() | self.device.prepare_to_wait();
        let collected = self.collect();
        // What has ended while bus mastering is off waits for it: then the bell rings.
        if rung || (self.look || self.finished != 0) && self.dma.enabled() {
            return Progress::More;
        }
        collected
    }

    fn quiesce(&mut self) -> Progress {
        self.device.hurry();
        let _ = self.collect();
        let memory = self.dma.memory();
        self.exchange(memory.as_ref(), false);
        self.settle();
        self.look = true;
        if self.in_flight == 0 && (self.finished == 0 || memory.is_none()) {
            Progress::Idle
        } else {
            Progress::More
        }
    }
}
