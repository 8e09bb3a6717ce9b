//! A port's worker: it takes commands from the command list, has the backend carry them out, and
//! reports how they ended.
//!
//! One pass of [`service`](Worker::service) takes the port's lock twice at most: to report what has
//! completed and take what was issued, and to report what completed at once. Fetching commands and
//! handing them to the backend is done in between, so that a vCPU's register write never waits for
//! it. What the worker has taken is marked in [`State::taken`] for all of that time; resets wait
//! for it.

mod finish;
mod start;

use std::sync::Arc;

use paraslot_backends::block::{BlockCompletion, BlockError, BlockQueue, BlockRequest};
use paraslot_device::dma::Direction;
use paraslot_device::{Dma, DmaBuffers, DmaSpace, Memory, Progress, Source, Worker};
use paraslot_spec::ahci::fis::RegisterH2d;
use paraslot_spec::ahci::{MAX_SLOTS, PortCommand, PortInterrupt, port};
use paraslot_spec::ata::{error, status};

use crate::command::{Failure, Output, Protocol, Then};
use crate::disk::{Disk, READY, Trim};
use crate::hba::Irq;
use crate::port::{Port, State};

/// Operations that a port keeps in flight at most: one for each slot, or trimming's ranges.
pub(crate) const QUEUE_DEPTH: u32 = 32;
/// PRD entries of the commands in flight above which no further command is taken. One command may
/// have 65,535, so a port holds fewer than 8,192 + 65,535 at any time.
const MOST_ENTRIES: u32 = 8192;

/// A port's command list engine, and the device behind it.
pub(crate) struct PortWorker<A: DmaSpace> {
    port: Arc<Port>,
    irq: Arc<Irq>,
    dma: Dma<A>,
    disk: Disk,
    queue: Box<dyn BlockQueue>,
    commands: [Option<Command>; MAX_SLOTS],
    /// Slots whose commands are with the backend.
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
    trim: Trimming,
    completions: Vec<BlockCompletion>,
    /// There may be something to take, though nobody rang.
    look: bool,
}

/// A command that was taken.
struct Command {
    epoch: u32,
    fis: RegisterH2d,
    /// Address of its command header.
    header: u64,
    protocol: Protocol,
    /// Bytes that it moves.
    bytes: u32,
    /// PRD entries that it keeps.
    entries: u32,
    /// One of its PRD entries asks for an interrupt.
    interrupt: bool,
    then: Then,
    end: End,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
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

/// The ranges of the one DATA SET MANAGEMENT command that can be in progress, in bytes.
#[derive(Default)]
struct Trimming {
    /// Still to be submitted, the next one last.
    ranges: Vec<(u64, u64)>,
    outstanding: u32,
}

/// What was taken from the port.
struct Batch {
    slots: u32,
    /// Address of the command list.
    list: u64,
    /// The slot to begin with.
    first: u32,
}

fn bit(slot: u32) -> u32 {
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

fn place(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

impl<A: DmaSpace> PortWorker<A> {
    pub(crate) fn new(
        port: Arc<Port>,
        irq: Arc<Irq>,
        dma: Dma<A>,
        disk: Disk,
        queue: Box<dyn BlockQueue>,
    ) -> Self {
        Self {
            port,
            irq,
            dma,
            disk,
            queue,
            commands: [const { None }; MAX_SLOTS],
            in_flight: 0,
            finished: 0,
            queued: 0,
            exclusive: None,
            released: 0,
            accepted: 0,
            epoch: 0,
            entries: 0,
            trim: Trimming::default(),
            completions: Vec::new(),
            look: true,
        }
    }

    /// Takes the backend's completions.
    fn collect(&mut self) -> Progress {
        if self.in_flight == 0 {
            return Progress::Idle;
        }
        let mut completions = std::mem::take(&mut self.completions);
        self.queue.complete(&mut completions);
        let progress = if completions.is_empty() { Progress::Idle } else { Progress::More };
        for BlockCompletion { token, result } in completions.drain(..) {
            if let Ok(slot) = u32::try_from(token) {
                self.completed(slot, result);
            }
        }
        self.completions = completions;
        progress
    }

    fn completed(&mut self, slot: u32, result: Result<(), BlockError>) {
        let Some(Some(command)) = self.commands.get_mut(place(slot)) else { return };
        if let Err(error) = result {
            command.end = End::Failed(failure(command, &error));
        }
        if self.trim.outstanding != 0 {
            self.trim.outstanding -= 1;
            if command.end != End::Success {
                self.trim.ranges.clear();
            }
            self.submit_trims(slot);
            self.queue.commit();
            if self.trim.outstanding != 0 {
                return;
            }
            self.end_trim(slot);
        }
        self.in_flight &= !bit(slot);
        self.finished |= bit(slot);
    }

    /// Hands ranges of a trim to the backend, as many as it takes.
    fn submit_trims(&mut self, slot: u32) {
        let op = self.disk.geometry.trim.unwrap_or(Trim::Discard).op();
        while self.trim.outstanding < QUEUE_DEPTH
            && let Some((offset, len)) = self.trim.ranges.pop()
        {
            let buffers = DmaBuffers::empty(Direction::ToDevice);
            let request = BlockRequest { token: slot.into(), op, offset, len, buffers };
            if self.queue.submit(request).is_err() {
                self.trim.ranges.push((offset, len));
                return;
            }
            self.trim.outstanding += 1;
        }
    }

    /// A queue that refuses a range though it holds nothing fails the trim.
    fn end_trim(&mut self, slot: u32) {
        if !self.trim.ranges.is_empty()
            && let Some(Some(command)) = self.commands.get_mut(place(slot))
        {
            self.trim.ranges.clear();
            command.end = End::Failed(Failure::ABORTED);
        }
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
                self.disk.hard_reset();
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
}

impl State {
    /// Shows `slot` in PxCMD.CCS.
    fn set_current(&mut self, slot: u32) {
        let current = slot << PortCommand::CCS_SHIFT & PortCommand::CCS;
        self.bank.change(port::CMD, current, PortCommand::CCS);
        self.next_slot = slot.wrapping_add(1) % u32::BITS;
    }
}

/// What the device says when the backend failed.
fn failure(command: &Command, error: &BlockError) -> Failure {
    let lba = command.fis.lba48();
    let causes = PortInterrupt::empty();
    match (error, command.then) {
        (BlockError::OutOfRange, _) => Failure { lba: Some(lba), ..Failure::device(error::IDNF) },
        (BlockError::Io(_), Then::CountRead(_)) => {
            Failure { lba: Some(lba), ..Failure::device(error::UNC) }
        }
        (BlockError::Io(_) | BlockError::NoSpace, _) => {
            let status = READY | status::DF | status::ERR;
            Failure { status, error: error::ABRT, lba: None, causes }
        }
        _ => Failure::ABORTED,
    }
}

impl<A: DmaSpace> Worker for PortWorker<A> {
    fn sources(&self) -> Vec<Source> {
        let bell = self.port.bell().source();
        std::iter::once(bell).chain(self.queue.source()).collect()
    }

    fn service(&mut self) -> Progress {
        let rung = self.port.bell().answer();
        if !rung && !self.look && self.in_flight | self.finished == 0 {
            return Progress::Idle;
        }
        let progress = self.collect();
        if !rung && !self.look && self.finished == 0 {
            return progress;
        }
        let memory = self.dma.memory();
        let batch = self.exchange(memory.as_ref(), true);
        let (Some(memory), Some(batch)) = (memory, batch) else { return progress };
        self.start(&memory, &batch);
        self.queue.commit();
        let _ = self.collect();
        self.exchange(Some(&memory), false);
        Progress::More
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let rung = self.port.bell().sleep();
        let collected = self.collect();
        // What has ended while bus mastering is off waits for it: then the bell rings.
        if rung || (self.look || self.finished != 0) && self.dma.enabled() {
            return Progress::More;
        }
        collected
    }

    fn quiesce(&mut self) -> Progress {
        let _ = self.collect();
        let memory = self.dma.memory();
        self.exchange(memory.as_ref(), false);
        self.look = true;
        if self.in_flight == 0 && (self.finished == 0 || memory.is_none()) {
            Progress::Idle
        } else {
            Progress::More
        }
    }
}
