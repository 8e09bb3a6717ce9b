//! From a command to its first operation.

use std::sync::Arc;

use paraslot_backends::block::{BlockOp, BlockRequest};
use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;
use paraslot_spec::scsi::sense::code;

use super::Lane;
use super::job::{Check, Job, Same};
use crate::bus;
use crate::command::{Attribute, Command, Completion, Outcome, Status};
use crate::decode;
use crate::nexus::Nexus;
use crate::plan::{Compare, Ending, Plan};
use crate::sense::{Sense, backend_error};
use crate::task::{Caller, Effect, Kind, Response, Work};

/// A command that has found its unit.
pub(super) struct Arrival {
    pub(super) token: u64,
    pub(super) tag: u64,
    /// The number of the unit.
    pub(super) unit: usize,
    /// Which medium it was in the unit when the command was looked at.
    pub(super) medium: u64,
    /// Bytes of data that have been moved already.
    pub(super) taken: u64,
}

impl Lane {
    pub(super) fn start(&mut self, command: Command) {
        let token = command.token;
        if self.in_flight() >= usize::try_from(self.depth).unwrap_or(usize::MAX) {
            let outcome = Outcome::Ended { status: Status::TaskSetFull, sense: None };
            self.over.push(Completion { token, outcome, moved: 0 });
            return;
        }
        let target = command.address.target;
        let Some(unit) = self.view.find(&self.port, command.address) else {
            self.absent(command);
            return;
        };
        let Some(entry) = self.view.get(unit) else { return };
        let medium = entry.nexus.medium_generation();
        let arrival = Arrival { token, tag: command.tag, unit, medium, taken: 0 };
        let plan = if command.attribute == Attribute::Aca {
            // There is no auto contingent allegiance that it could belong to (SAM-5, 8.6.5).
            Plan::check(Sense::illegal(code::INVALID_MESSAGE))
        } else {
            let port = &self.port;
            decode::decode(&entry.nexus, &command.cdb, &command.data, &|| port.luns(target))
        };
        self.begin(arrival, command.data, plan);
    }

    /// A command for a LUN that is not there.
    fn absent(&mut self, mut command: Command) {
        let Command { token, address, .. } = command;
        let mut completion = Completion { token, outcome: Outcome::NoTarget, moved: 0 };
        if self.view.has_target(address.target) {
            let port = &self.port;
            let plan = decode::absent(&command.cdb, &|| port.luns(address.target));
            let ended = |status, sense| Outcome::Ended { status, sense };
            completion.outcome = match plan {
                Plan::End(Ending::Status(status)) => ended(status, None),
                Plan::End(Ending::Check(sense)) => {
                    ended(Status::CheckCondition, Some(Box::new(sense)))
                }
                Plan::Reply(bytes) if reply(&mut command.data, &bytes) => {
                    completion.moved = bytes.len() as u64;
                    ended(Status::Good, None)
                }
                _ => Outcome::Overrun,
            };
        }
        self.over.push(completion);
    }

    /// Carries out a plan as far as can be done at once.
    #[inline]
    pub(super) fn begin(&mut self, arrival: Arrival, data: DmaBuffers, plan: Plan) {
        match plan {
            Plan::Read { offset, len } if len != 0 => {
                self.transfer(&arrival, BlockOp::Read, offset, len, data);
            }
            Plan::Write { offset, len, fua } if len != 0 => {
                self.transfer(&arrival, BlockOp::Write { fua }, offset, len, data);
            }
            plan => self.begin_other(arrival, data, plan),
        }
    }

    /// Reads or writes: what most commands do.
    fn transfer(
        &mut self,
        arrival: &Arrival,
        op: BlockOp,
        offset: u64,
        len: u64,
        mut buffers: DmaBuffers,
    ) {
        let direction =
            if op == BlockOp::Read { Direction::FromDevice } else { Direction::ToDevice };
        let there = buffers.len() as u64;
        if buffers.direction() != direction || there < len {
            self.overrun(arrival.token);
            return;
        }
        if there > len {
            buffers.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        }
        let Some(number) = self.queue(arrival) else { return };
        if let Some(index) = self.admit(arrival, Some(number), Job::Single, len, false) {
            self.request(index, BlockRequest { token: 0, op, offset, len, buffers });
        }
    }

    /// All but reads and writes.
    fn begin_other(&mut self, mut arrival: Arrival, mut data: DmaBuffers, plan: Plan) {
        let plan = match plan {
            Plan::Took { len, then } => {
                arrival.taken = len;
                *then
            }
            plan => plan,
        };
        let (direction, wanted) = self.wanted(arrival.unit, &plan);
        let there = data.len() as u64;
        if wanted != 0 && (data.direction() != direction || there < wanted) {
            self.overrun(arrival.token);
            return;
        }
        if there > wanted {
            data.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        }
        match plan {
            Plan::End(ending) => self.end(arrival.unit, arrival.token, ending, arrival.taken),
            Plan::Overrun => self.overrun(arrival.token),
            Plan::Reply(bytes) => {
                data.copy_from(&bytes);
                self.good(&arrival, wanted);
            }
            Plan::Flush => self.single(&arrival, BlockOp::Flush, 0, 0, data, false),
            Plan::Unmap { ranges, zero } => {
                let op = if zero { BlockOp::WriteZeroes { unmap: true } } else { BlockOp::Discard };
                // What has read as zeroes must not come back where no cache may be lost.
                let unit = self.view.get(arrival.unit);
                let flush = zero && unit.is_some_and(|unit| unit.nexus.unit.write_through());
                self.job(&arrival, 0, flush, |_| Job::Ranges { op, ranges, next: 0 });
            }
            Plan::WriteZeroes { offset, len, unmap, fua } if len != 0 => {
                self.zeroes(&arrival, offset, len, unmap, fua);
            }
            Plan::WriteSame { offset, len, fua } if len != 0 => {
                let job = |write_zeroes| Same::job(offset, len, data, write_zeroes);
                self.job(&arrival, wanted, fua, job);
            }
            Plan::WriteVerify { offset, len, compare } if len != 0 => {
                // There is a block of data for every block.
                let compare = if compare == Compare::Nothing { compare } else { Compare::Blocks };
                let job = |_| Check::verify(offset, len, data, compare, true);
                self.job(&arrival, wanted, false, job);
            }
            Plan::Verify { offset, len, compare } if len != 0 => {
                let job = |_| Check::verify(offset, len, data, compare, false);
                self.job(&arrival, wanted, false, job);
            }
            Plan::CompareAndWrite { offset, len, fua } if len != 0 => {
                let Some(unit) = self.view.get(arrival.unit) else { return };
                let turn = unit.nexus.unit.exclusive.enter(&self.mailbox);
                let job = |_| Check::swap(offset, len, data, fua, turn);
                self.job(&arrival, wanted, false, job);
            }
            Plan::Abort(nexuses) => self.abort(&arrival, nexuses),
            // No blocks at all.
            _ => self.good(&arrival, 0),
        }
    }

    /// The data that a plan takes or gives, and its direction.
    fn wanted(&self, unit: usize, plan: &Plan) -> (Direction, u64) {
        let block = || self.view.get(unit).map_or(0, |unit| u64::from(unit.nexus.block_size()));
        match plan {
            Plan::Reply(bytes) => (Direction::FromDevice, bytes.len() as u64),
            Plan::WriteVerify { len, .. } | Plan::Verify { len, compare: Compare::Blocks, .. } => {
                (Direction::ToDevice, *len)
            }
            Plan::Verify { len, compare: Compare::OneBlock, .. } | Plan::WriteSame { len, .. }
                if *len != 0 =>
            {
                (Direction::ToDevice, block())
            }
            Plan::CompareAndWrite { len, .. } => (Direction::ToDevice, len.saturating_mul(2)),
            _ => (Direction::ToDevice, 0),
        }
    }

    fn good(&mut self, arrival: &Arrival, moved: u64) {
        let moved = arrival.taken.saturating_add(moved);
        self.end(arrival.unit, arrival.token, Ending::Status(Status::Good), moved);
    }

    fn overrun(&mut self, token: u64) {
        self.over.push(Completion { token, outcome: Outcome::Overrun, moved: 0 });
    }

    /// A command of one operation, with a flush after it if `flush`.
    fn single(
        &mut self,
        arrival: &Arrival,
        op: BlockOp,
        offset: u64,
        len: u64,
        buffers: DmaBuffers,
        flush: bool,
    ) {
        let Some(number) = self.queue(arrival) else { return };
        let moved = buffers.len() as u64;
        if let Some(index) = self.admit(arrival, Some(number), Job::Single, moved, flush) {
            self.request(index, BlockRequest { token: 0, op, offset, len, buffers });
        }
    }

    /// A command that `make` makes a job of, given whether the backend writes zeroes.
    fn job(&mut self, arrival: &Arrival, moved: u64, flush: bool, make: impl FnOnce(bool) -> Job) {
        let Some(number) = self.queue(arrival) else { return };
        let write_zeroes = self.queues.get_mut(number).is_some_and(|open| open.write_zeroes);
        let job = make(write_zeroes);
        if let Some(index) = self.admit(arrival, Some(number), job, moved, flush) {
            self.advance(index);
        }
    }

    fn zeroes(&mut self, arrival: &Arrival, offset: u64, len: u64, unmap: bool, fua: bool) {
        let Some(number) = self.queue(arrival) else { return };
        let data = DmaBuffers::empty(Direction::ToDevice);
        if self.queues.get_mut(number).is_some_and(|open| open.write_zeroes) {
            self.single(arrival, BlockOp::WriteZeroes { unmap }, offset, len, data, fua);
        } else {
            self.job(arrival, 0, fua, |_| Same::job(offset, len, data, false));
        }
    }

    /// PREEMPT AND ABORT: waits until the commands of `nexuses` have ended.
    fn abort(&mut self, arrival: &Arrival, nexuses: Vec<Arc<Nexus>>) {
        let caller = Caller::Lane(Arc::downgrade(&self.mailbox));
        let work = Work::new(Response::Complete, Effect::None, caller);
        let job = Job::Await(work.ticket());
        if let Some(index) = self.admit(arrival, None, job, 0, false) {
            bus::issue(nexuses, None, &Kind::Abort, work);
            self.advance(index);
        }
    }

    /// Gives a command a slot.
    #[inline]
    fn admit(
        &mut self,
        arrival: &Arrival,
        queue: Option<usize>,
        job: Job,
        moved: u64,
        flush: bool,
    ) -> Option<u32> {
        let (index, slot) = self.slots.take()?;
        slot.token = arrival.token;
        slot.tag = arrival.tag;
        slot.unit = arrival.unit;
        slot.queue = queue;
        slot.job = job;
        slot.flush = flush;
        slot.taken = arrival.taken;
        slot.moved = arrival.taken.saturating_add(moved);
        if let Some(unit) = self.view.get_mut(arrival.unit) {
            unit.commands += 1;
        }
        if let Some(open) = queue.and_then(|number| self.queues.get_mut(number)) {
            open.users += 1;
        }
        Some(index)
    }

    /// The queue to the medium that a command was looked at for. If there can be none, the command
    /// ends here.
    fn queue(&mut self, arrival: &Arrival) -> Option<usize> {
        let unit = self.view.get_mut(arrival.unit)?;
        if let Some((medium, number)) = unit.queue {
            if medium == arrival.medium {
                return Some(number);
            }
            unit.queue = None;
            self.queues.retire(number);
        }
        let medium = unit.nexus.medium();
        // What was decided for one medium must not be done to another. The initiator asks again, and
        // is told of the change then.
        let same = unit.nexus.medium_generation() == arrival.medium;
        let ending = match medium.filter(|_| same) {
            None => Ending::Status(Status::Busy),
            Some(medium) => match self.queues.open(&*medium, self.depth) {
                Ok(number) => {
                    unit.queue = Some((arrival.medium, number));
                    return Some(number);
                }
                Err(error) => backend_error(&error.into(), false, None),
            },
        };
        self.end(arrival.unit, arrival.token, ending, arrival.taken);
        None
    }
}

/// Gives the guest a reply, if it has room for it.
fn reply(data: &mut DmaBuffers, bytes: &[u8]) -> bool {
    let fits =
        bytes.is_empty() || data.direction() == Direction::FromDevice && data.len() >= bytes.len();
    if fits {
        data.copy_from(bytes);
    }
    fits
}
