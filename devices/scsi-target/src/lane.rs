//! One worker's way to the units of a bus.

mod exclusive;
mod job;
mod mailbox;
mod orders;
mod queues;
mod scratch;
mod slot;
mod start;
#[cfg(test)]
mod tests;
mod view;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use paraslot_backends::block::{BlockCompletion, BlockError, BlockOp, BlockRequest};
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Source};

use crate::bus::Port;
use crate::command::{Command, Completion, Outcome, Status};
use crate::plan::Ending;
use crate::sense::backend_error;
use job::{Job, Next, request};
use orders::Obeyed;
use queues::Queues;
use scratch::Scratch;
use slot::{Slots, Waiter};
use view::View;

pub(crate) use exclusive::Exclusive;
pub(crate) use mailbox::Mailbox;

/// Takes commands to the units of a bus, and back.
///
/// A worker's round of work is: take what the guest has made available and [`submit`](Self::submit) it;
/// [`obey`](Self::obey); [`commit`](Self::commit); [`complete`](Self::complete); tell the guest;
/// [`settle`](Self::settle). Nothing here blocks. A dropped lane waits for what is with its backends.
///
/// Task management must find every command that was made available before it was asked for: while
/// [`ordered`](Self::ordered) says so, take all that is available, beyond any limit of a round,
/// before `obey`.
///
/// # What is done, and in what order
/// - Commands are carried out as they come, whatever their task attributes, and end in any order. What
///   the backend has no room for waits its turn.
/// - A command that needs more than one operation of the backend (VERIFY, WRITE SAME, UNMAP, COMPARE
///   AND WRITE) goes on in `complete`, a bounded part each time: until
///   [`prepare_to_wait`](Self::prepare_to_wait) agrees, the worker must not sleep.
/// - COMPARE AND WRITE is atomic against every other COMPARE AND WRITE of the same unit, on whatever
///   lane or bus. It is not against other commands, nor against whoever else writes the image; and if
///   the power fails, a part of it may have been written.
/// - WRITE AND VERIFY and the comparing forms of VERIFY read the guest's data once.
/// - A queue to the backend is opened by the first command that needs one, and again when the unit has
///   another medium. What was begun on the old one is carried to its end there.
///
/// # What is reported as moved
/// All that the command takes or gives if it ends with GOOD, and if a comparison shows a difference;
/// nothing if it is ended by task management; and only a parameter list, if it has one, if the backend
/// has failed it, since nobody knows of the rest.
pub struct Lane {
    // Fields are dropped in this order: what is with the backends is waited for, then what stands in
    // line is let go, then task management has its answer.
    queues: Queues,
    slots: Slots,
    scratch: Scratch,
    port: Arc<Port>,
    view: View,
    depth: u32,
    /// Commands that wait for an area of scratch memory, oldest first.
    for_area: VecDeque<Waiter>,
    /// Commands that wait until the lane is called.
    for_call: VecDeque<Waiter>,
    /// Commands that are over and have not been given back.
    over: Vec<Completion>,
    completions: Vec<BlockCompletion>,
    /// Orders that have been carried out, as far as the lane can.
    obeyed: Vec<Obeyed>,
    mailbox: Arc<Mailbox>,
    /// Orders that have been taken from the mailbox.
    taken: u64,
    /// Orders that there had been when the worker last saw that there were some.
    seen: Cell<Option<u64>>,
    /// The mailbox has rung, and has not been quieted.
    rung: bool,
}

impl Lane {
    pub(crate) fn new(port: Arc<Port>, depth: u32) -> io::Result<Self> {
        let depth = depth.max(1);
        let mailbox = Arc::new(Mailbox::new()?);
        Ok(Self {
            queues: Queues::new(mailbox.descriptor())?,
            slots: Slots::new(depth),
            scratch: Scratch::default(),
            port,
            view: View::default(),
            depth,
            for_area: VecDeque::new(),
            for_call: VecDeque::new(),
            over: Vec::new(),
            completions: Vec::new(),
            obeyed: Vec::new(),
            mailbox,
            taken: 0,
            seen: Cell::new(None),
            rung: false,
        })
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Takes a command. The caller has at most as many under way as the lane was opened for; more are
    /// answered TASK SET FULL.
    pub fn submit(&mut self, command: Command) {
        self.start(command);
    }

    /// Starts what was submitted, in one go.
    pub fn commit(&mut self) {
        self.queues.commit();
    }

    /// The worker is to stop: what a [limit](paraslot_backends::limit) holds back goes with the next
    /// [`commit`](Self::commit).
    pub fn hurry(&mut self) {
        self.queues.hurry();
    }

    /// Appends what is over to `completions`. Does not wait.
    pub fn complete(&mut self, completions: &mut Vec<Completion>) {
        self.collect();
        // Commands that have gone on a step.
        if self.queues.commit() {
            self.collect();
        }
        for obeyed in &mut self.obeyed {
            obeyed.given |= obeyed.left.is_empty();
        }
        completions.append(&mut self.over);
    }

    /// Whether task management has something for this lane to do. Costs one load.
    pub fn ordered(&self) -> bool {
        let posted = self.mailbox.posted();
        let any = posted != self.taken;
        if any {
            self.seen.set(Some(posted));
        }
        any
    }

    /// Carries out what task management has asked for: what it ends comes out of
    /// [`complete`](Self::complete), at once or when its backend has let go of it.
    ///
    /// What was asked for after [`ordered`](Self::ordered) has last said so waits for the next time: it
    /// may be about commands that the worker has not looked for since.
    pub fn obey(&mut self) {
        let until = self.seen.take().unwrap_or_else(|| self.mailbox.posted());
        let count = until.saturating_sub(self.taken);
        if count != 0 {
            self.taken = until;
            self.rung = true;
            for order in self.mailbox.take(count) {
                self.carry_out(order);
            }
            // Also lets go of units that are gone.
            self.view.refresh(&self.port);
            self.reap();
        }
    }

    /// The guest has been told of all that [`complete`](Self::complete) gave: task management that
    /// waited for it is done.
    pub fn settle(&mut self) {
        if !self.obeyed.is_empty() {
            self.obeyed.retain(|obeyed| !obeyed.given);
        }
    }

    /// Commands taken and not yet given back.
    pub fn in_flight(&self) -> usize {
        self.slots.used() + self.over.len()
    }

    /// What wakes the worker: when there may be something to complete, or to obey. Does not change,
    /// whatever units come and go.
    pub fn source(&self) -> Source {
        Source::Readable(self.queues.descriptor())
    }

    /// Whether nothing more is to come of what was taken but by the doing of others: what is in flight,
    /// if anything, has task management on other lanes to wait for (PREEMPT AND ABORT), which may have
    /// been stopped as well. A lane that is to stop need not wait for that: nothing of it is with a
    /// backend, and it goes on whenever the lane does.
    pub fn is_quiet(&self) -> bool {
        let waits = |index: u32| {
            let slot = self.slots.get(index);
            slot.is_none_or(|slot| matches!(slot.job, Job::Await(_)))
        };
        self.over.is_empty() && (self.slots.used() == 0 || (0..self.slots.count()).all(waits))
    }

    /// The worker goes to sleep: quiets the source and looks once more. Says whether there is something
    /// to do, so that it must not.
    pub fn prepare_to_wait(&mut self) -> bool {
        self.answer_call();
        // An order rings once, and may have to wait for a worker that cannot obey it yet.
        if self.rung || self.is_ordered() || self.queues.have_sources() {
            self.rung = false;
            self.queues.quiet();
        }
        self.collect();
        self.queues.commit();
        self.is_ordered() || self.goes_on()
    }

    fn is_ordered(&self) -> bool {
        self.mailbox.posted() != self.taken
    }

    /// Whether [`complete`](Self::complete) has something to do, whatever else the worker can do: what
    /// [`prepare_to_wait`](Self::prepare_to_wait) says, but for orders. A worker that cannot reach the
    /// guest's memory takes and tells nothing, and yet lets commands go on that others may wait for.
    pub fn goes_on(&self) -> bool {
        self.rung
            || self.mailbox.has_call()
            || !self.over.is_empty()
            || self.obeyed.iter().any(|obeyed| obeyed.left.is_empty() && !obeyed.given)
            || self.queues.restless()
    }

    /// Takes what the backends have completed, and goes on with what waits.
    fn collect(&mut self) {
        let mut position = 0;
        while let Some(number) = self.queues.active(position) {
            let mut completions = std::mem::take(&mut self.completions);
            if let Some(open) = self.queues.get_mut(number) {
                open.queue.complete(&mut completions);
            }
            for completion in completions.drain(..) {
                self.completed(completion);
            }
            self.completions = completions;
            self.resume(number);
            if !self.queues.rest(position) {
                position += 1;
            }
        }
        for _ in 0..self.for_area.len() {
            if !self.scratch.has_room() {
                break;
            }
            let Some(waiter) = self.for_area.pop_front() else { break };
            self.go_on(waiter);
        }
        self.answer_call();
        self.reap();
    }

    /// If the lane was called, looks whose turn has come.
    fn answer_call(&mut self) {
        if !self.mailbox.called() {
            return;
        }
        self.rung = true;
        for _ in 0..self.for_call.len() {
            let Some(waiter) = self.for_call.pop_front() else { break };
            self.go_on(waiter);
        }
    }

    /// Goes on with a command that has waited, if it is still there.
    fn go_on(&mut self, waiter: Waiter) {
        if let Some(slot) = self.slots.named(waiter) {
            slot.waits = false;
            self.advance(waiter.index);
        }
    }

    /// Notes that an operation has ended.
    fn completed(&mut self, completion: BlockCompletion) {
        let Some((index, bit)) = untoken(completion.token) else { return };
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.running &= !bit;
        if !slot.is_ending() {
            match completion.result {
                // What most commands are.
                Ok(()) if matches!(slot.job, Job::Single) && !slot.flush => {
                    let (token, moved) = (slot.token, slot.moved);
                    let (unit, queue) = (slot.unit, slot.queue.take());
                    self.slots.vacate(index);
                    self.leave(unit, queue);
                    let outcome = Outcome::Ended { status: Status::Good, sense: None };
                    self.over.push(Completion { token, outcome, moved });
                    return;
                }
                Ok(()) => match slot.job.completed(&self.scratch) {
                    Ok(None) => {}
                    Ok(Some(difference)) => slot.verdict = Some(difference),
                    Err(error) => slot.fail(backend_error(&error.into(), false, None)),
                },
                Err(error) => self.failed(index, &error),
            }
        }
        self.advance(index);
    }

    /// An operation of this command has failed.
    fn failed(&mut self, index: u32, error: &BlockError) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.job.forgives(error) {
            return;
        }
        let block = self.view.get(slot.unit).map_or(0, |unit| unit.nexus.block_size());
        let lba = slot.offset.and_then(|offset| offset.checked_div(block.into()));
        slot.fail(backend_error(error, slot.writing, lba));
    }

    /// Gives the backend what a command has for it now; ends it if that was all.
    fn advance(&mut self, index: u32) {
        while let Some(slot) = self.slots.get_mut(index) {
            if slot.is_ending() {
                break;
            }
            if slot.waits {
                return;
            }
            let next = match slot.job.next(slot.running.count_ones(), &mut self.scratch) {
                Ok(next) => next,
                Err(error) => {
                    slot.fail(backend_error(&error.into(), slot.writing, None));
                    break;
                }
            };
            let list = match next {
                Next::Request(request) => {
                    self.request(index, request);
                    continue;
                }
                Next::Done if slot.flush && slot.running == 0 => {
                    slot.flush = false;
                    let buffers = DmaBuffers::empty(Direction::ToDevice);
                    self.request(index, request(BlockOp::Flush, 0, 0, buffers));
                    continue;
                }
                Next::Done => break,
                Next::Wait => return,
                Next::Area => &mut self.for_area,
                Next::Call => &mut self.for_call,
            };
            slot.waits = true;
            list.extend(self.slots.name(index));
            return;
        }
        if self.slots.get(index).is_some_and(|slot| slot.running == 0) {
            self.finish(index);
        }
    }

    /// Gives the backend an operation of a command.
    #[inline]
    fn request(&mut self, index: u32, request: BlockRequest) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let op = request.op;
        slot.offset = (op != BlockOp::Flush && slot.job.has_place()).then_some(request.offset);
        slot.writing = op != BlockOp::Read;
        self.pass(index, request, false);
    }

    /// Gives the backend an operation of a command, or, if it has no room or others wait for it, has
    /// the command wait; `first` is the first of those who do. Returns whether the backend has it.
    #[inline]
    fn pass(&mut self, index: u32, mut request: BlockRequest, first: bool) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return true };
        let Some(number) = slot.queue else { return true };
        let Some(open) = self.queues.get_mut(number) else { return true };
        let bit = 1 << slot.running.trailing_ones().min(u8::BITS - 1);
        request.token = token(index, bit);
        if first || open.waiting.is_empty() {
            match open.queue.submit(request) {
                Ok(()) => {
                    slot.running |= bit;
                    self.queues.touch(number);
                    return true;
                }
                Err(back) => request = back,
            }
        }
        slot.refused = Some(Box::new(request));
        if !slot.waits {
            slot.waits = true;
            open.waiting.push_back(Waiter { index, serial: slot.serial });
            self.queues.touch(number);
        }
        false
    }

    /// Goes on with those who wait for room in a queue.
    fn resume(&mut self, number: usize) {
        while let Some(open) = self.queues.get_mut(number) {
            let Some(&waiter) = open.waiting.front() else { return };
            let slot = self.slots.named(waiter).filter(|slot| !slot.is_ending());
            let request = slot.and_then(|slot| slot.refused.take());
            if let Some(request) = request
                && !self.pass(waiter.index, *request, true)
            {
                return;
            }
            if let Some(open) = self.queues.get_mut(number) {
                open.waiting.pop_front();
            }
            self.go_on(waiter);
        }
    }

    /// A command is over: nothing of it is with the backend.
    fn finish(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if let Some(area) = slot.job.take_area() {
            self.scratch.give_back(area);
        }
        if slot.waits {
            let serial = slot.serial;
            let queue = slot.queue.and_then(|number| self.queues.get_mut(number));
            let lists = [&mut self.for_area, &mut self.for_call];
            for list in lists.into_iter().chain(queue.map(|open| &mut open.waiting)) {
                list.retain(|waiter| waiter.serial != serial);
            }
        }
        let Some(released) = self.slots.release(index) else { return };
        self.leave(released.unit, released.queue);
        let slot::Released { token, moved, .. } = released;
        match released.fate {
            Some(fate) => {
                for obeyed in &mut self.obeyed {
                    obeyed.left.retain(|serial| *serial != released.serial);
                }
                self.over.push(Completion { token, outcome: fate.outcome(), moved });
            }
            None => self.end(released.unit, token, released.ending, moved),
        }
    }

    /// A command does not need its unit and queue any more.
    fn leave(&mut self, unit: usize, queue: Option<usize>) {
        if let Some(open) = queue.and_then(|number| self.queues.get_mut(number)) {
            open.users = open.users.saturating_sub(1);
        }
        if let Some(unit) = self.view.get_mut(unit) {
            unit.commands = unit.commands.saturating_sub(1);
        }
    }

    /// A command ends as its unit has it.
    fn end(&mut self, unit: usize, token: u64, ending: Ending, moved: u64) {
        let outcome = match ending {
            Ending::Status(status) => Outcome::Ended { status, sense: None },
            Ending::Check(sense) => {
                if let Some(unit) = self.view.get(unit)
                    && !unit.nexus.autosense
                {
                    unit.nexus.keep_sense(&sense);
                }
                Outcome::Ended { status: Status::CheckCondition, sense: Some(Box::new(sense)) }
            }
        };
        self.over.push(Completion { token, outcome, moved });
    }

    /// Lets go of units and queues that nobody needs any more.
    fn reap(&mut self) {
        while let Some(unit) = self.view.reap() {
            if let Some((_, number)) = unit.queue {
                self.queues.retire(number);
            }
        }
        self.queues.reap();
    }
}

/// The token of an operation: the command's slot, and which of its operations it is.
fn token(index: u32, bit: u8) -> u64 {
    u64::from(index) | u64::from(bit) << 32
}

fn untoken(token: u64) -> Option<(u32, u8)> {
    let index = u32::try_from(token & u64::from(u32::MAX)).ok()?;
    u8::try_from(token >> 32).ok().map(|bit| (index, bit))
}
