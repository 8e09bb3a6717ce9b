//! Commands of more than one operation, step by step.

use std::io;

use paraslot_backends::block::{BlockError, BlockOp, BlockRequest};
use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::exclusive::Turn;
use super::scratch::{AREA, Area, HALF, Scratch};
use crate::plan::{Compare, Ending};
use crate::sense::miscompare;
use crate::task::{Ticket, Work};

/// Most operations of one command that are with the backend at once; a slot has a bit for each.
const MOST_RUNNING: u32 = 8;
/// So for repeated writes, which are long.
const MOST_WRITES: u32 = 4;

/// What a command has the backend do.
pub(super) enum Job {
    /// One operation, which has been asked for already.
    Single,
    /// The same on each of these ranges, from `next` on.
    Ranges { op: BlockOp, ranges: Vec<(u64, u64)>, next: usize },
    /// A block over and over.
    Same(Box<Same>),
    /// The medium is read, and may be compared and written.
    Check(Box<Check>),
    /// Nothing: it waits for a task management function.
    Await(Ticket),
}

/// What a job does next.
pub(super) enum Next {
    /// This, whatever its token.
    Request(BlockRequest),
    /// Nothing before one that is running has ended.
    Wait,
    /// It needs an area of scratch memory, and there is none.
    Area,
    /// Nothing before the lane is called.
    Call,
    /// Nothing, when what is running has ended.
    Done,
}

impl Job {
    /// `running` is how many operations are.
    pub(super) fn next(&mut self, running: u32, scratch: &mut Scratch) -> io::Result<Next> {
        match self {
            Self::Single => Ok(Next::Done),
            Self::Ranges { op, ranges, next } => {
                let Some(&(offset, len)) = ranges.get(*next) else { return Ok(Next::Done) };
                if running >= MOST_RUNNING {
                    return Ok(Next::Wait);
                }
                *next += 1;
                let buffers = DmaBuffers::empty(Direction::ToDevice);
                Ok(Next::Request(request(*op, offset, len, buffers)))
            }
            Self::Same(same) => same.next(running, scratch),
            Self::Check(check) => check.next(running, scratch),
            Self::Await(ticket) => {
                Ok(if ticket.response().is_some() { Next::Done } else { Next::Call })
            }
        }
    }

    /// An operation has ended well. Returns how the command ends if the comparison that it was for
    /// shows a difference.
    pub(super) fn completed(&mut self, scratch: &Scratch) -> io::Result<Option<Ending>> {
        match self {
            Self::Check(check) => check.completed(scratch),
            _ => Ok(None),
        }
    }

    /// Whether it can do without the operation that has ended with `error`.
    pub(super) fn forgives(&mut self, error: &BlockError) -> bool {
        match (self, error) {
            (Self::Same(same), BlockError::Unsupported) if same.way == Way::Zeroes => {
                same.way = Way::Pattern;
                true
            }
            _ => false,
        }
    }

    /// Whether the last operation tells where an error is.
    pub(super) fn has_place(&self) -> bool {
        matches!(self, Self::Single | Self::Check(_))
    }

    /// Whether it waits for this very function, which must not end it then.
    pub(super) fn awaits(&self, work: &Work) -> bool {
        matches!(self, Self::Await(ticket) if work.has(ticket))
    }

    /// The area that it was lent.
    pub(super) fn take_area(&mut self) -> Option<Area> {
        match self {
            Self::Same(same) => same.area.take(),
            Self::Check(check) => check.area.take(),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The block has not been looked at yet.
    Unknown,
    /// It is zeroes, and the backend has an operation for that.
    Zeroes,
    Pattern,
}

/// A block over and over. It is read once, into all of an area, from which one write after the other
/// is made.
pub(super) struct Same {
    offset: u64,
    left: u64,
    /// The block; of no bytes for zeroes.
    data: DmaBuffers,
    area: Option<Area>,
    way: Way,
    /// The backend has an operation for zeroes.
    write_zeroes: bool,
}

impl Same {
    pub(super) fn job(offset: u64, len: u64, data: DmaBuffers, write_zeroes: bool) -> Job {
        let (area, way) = (None, Way::Unknown);
        Job::Same(Box::new(Self { offset, left: len, data, area, way, write_zeroes }))
    }

    fn next(&mut self, running: u32, scratch: &mut Scratch) -> io::Result<Next> {
        if self.area.is_none() {
            self.area = scratch.lend()?;
        }
        let Some(area) = &self.area else { return Ok(Next::Area) };
        if self.way == Way::Unknown {
            self.way = Way::Pattern;
            let block = self.data.len();
            if block == 0 {
                scratch.clear(area)?;
            } else {
                scratch.fetch(area, &mut self.data, block)?;
                if scratch.repeat(area, block)? && self.write_zeroes {
                    self.way = Way::Zeroes;
                    let op = BlockOp::WriteZeroes { unmap: false };
                    let buffers = DmaBuffers::empty(Direction::ToDevice);
                    let (offset, len) = (self.offset, self.left);
                    return Ok(Next::Request(request(op, offset, len, buffers)));
                }
            }
        }
        if self.way == Way::Zeroes || self.left == 0 {
            return Ok(Next::Done);
        }
        if running >= MOST_WRITES {
            return Ok(Next::Wait);
        }
        let part = part(self.left, AREA);
        let offset = self.offset;
        let len = part as u64;
        let buffers = scratch.buffers(area, 0, part, Direction::ToDevice)?;
        self.offset = offset.saturating_add(len);
        self.left = self.left.saturating_sub(len);
        Ok(Next::Request(request(BlockOp::Write { fua: false }, offset, len, buffers)))
    }
}

/// The token comes later.
pub(super) fn request(op: BlockOp, offset: u64, len: u64, buffers: DmaBuffers) -> BlockRequest {
    BlockRequest { token: 0, op, offset, len, buffers }
}

/// `left`, or `most` if that is less.
fn part(left: u64, most: usize) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The next part is to be taken in hand.
    Begin,
    /// It is written.
    Writing,
    /// It is to be read.
    Read,
    /// It is read.
    Reading,
    /// All is equal, and the new data is written.
    Swapping,
}

/// The medium is read part by part, and may be compared, and written before or afterwards.
///
/// What is compared with the medium, and what is written before that, is read once, into an area; what
/// is written afterwards is left to the backend to be read.
pub(super) struct Check {
    offset: u64,
    left: u64,
    data: DmaBuffers,
    compare: Compare,
    /// Each part is written before it is read.
    store: bool,
    /// Bytes of a block.
    block: usize,
    area: Option<Area>,
    stage: Stage,
    /// Bytes in hand.
    part: usize,
    /// Bytes of data that were equal.
    equal: u64,
    swap: Option<Swap>,
}

/// The rest of a COMPARE AND WRITE.
struct Swap {
    turn: Turn,
    offset: u64,
    len: u64,
    fua: bool,
}

impl Check {
    fn new(offset: u64, len: u64, data: DmaBuffers, compare: Compare) -> Self {
        Self {
            offset,
            left: len,
            data,
            compare,
            store: false,
            block: 0,
            area: None,
            stage: Stage::Begin,
            part: 0,
            equal: 0,
            swap: None,
        }
    }

    /// VERIFY; WRITE AND VERIFY with `store`. The data of `Compare::OneBlock` is that block.
    pub(super) fn verify(
        offset: u64,
        len: u64,
        data: DmaBuffers,
        compare: Compare,
        store: bool,
    ) -> Job {
        let block = data.len();
        Job::Check(Box::new(Self { store, block, ..Self::new(offset, len, data, compare) }))
    }

    /// COMPARE AND WRITE.
    pub(super) fn swap(offset: u64, len: u64, data: DmaBuffers, fua: bool, turn: Turn) -> Job {
        let swap = Some(Swap { turn, offset, len, fua });
        Job::Check(Box::new(Self { swap, ..Self::new(offset, len, data, Compare::Blocks) }))
    }

    fn next(&mut self, running: u32, scratch: &mut Scratch) -> io::Result<Next> {
        if running != 0 {
            return Ok(Next::Wait);
        }
        if self.swap.as_ref().is_some_and(|swap| !swap.turn.come()) {
            return Ok(Next::Call);
        }
        if self.left == 0 {
            return Ok(self.finish());
        }
        if self.area.is_none() {
            self.area = scratch.lend()?;
            if let Some(area) = &self.area
                && self.compare == Compare::OneBlock
            {
                scratch.fetch(area, &mut self.data, self.block)?;
            }
        }
        let Some(area) = &self.area else { return Ok(Next::Area) };
        let offset = self.offset;
        if self.stage == Stage::Begin {
            let fetch = self.store || self.compare == Compare::Blocks;
            let most = if self.compare == Compare::Nothing && !fetch { AREA } else { HALF };
            self.part = part(self.left, most);
            self.stage = Stage::Read;
            if fetch {
                scratch.fetch(area, &mut self.data, self.part)?;
            }
            if self.store {
                self.stage = Stage::Writing;
                let op = BlockOp::Write { fua: true };
                let buffers = scratch.buffers(area, 0, self.part, Direction::ToDevice)?;
                let len = self.part as u64;
                return Ok(Next::Request(request(op, offset, len, buffers)));
            }
        }
        self.stage = Stage::Reading;
        let start = if self.part > HALF { 0 } else { HALF };
        let buffers = scratch.buffers(area, start, self.part, Direction::FromDevice)?;
        let len = self.part as u64;
        Ok(Next::Request(request(BlockOp::Read, offset, len, buffers)))
    }

    /// All parts have been seen to.
    fn finish(&mut self) -> Next {
        let Some(swap) = self.swap.as_ref().filter(|_| self.stage != Stage::Swapping) else {
            return Next::Done;
        };
        self.stage = Stage::Swapping;
        let buffers = std::mem::replace(&mut self.data, DmaBuffers::empty(Direction::ToDevice));
        let op = BlockOp::Write { fua: swap.fua };
        Next::Request(request(op, swap.offset, swap.len, buffers))
    }

    fn completed(&mut self, scratch: &Scratch) -> io::Result<Option<Ending>> {
        if self.stage == Stage::Writing {
            self.stage = Stage::Read;
        }
        let (Stage::Reading, Some(area)) = (self.stage, &self.area) else { return Ok(None) };
        let (repeat, base) = match self.compare {
            Compare::Nothing => (None, 0),
            Compare::Blocks => (Some(HALF), self.equal),
            Compare::OneBlock => (Some(self.block), 0),
        };
        if let Some(repeat) = repeat
            && let Some(at) = scratch.differs(area, self.part, repeat)?
        {
            // An offset in the data, which repeats.
            return Ok(Some(miscompare(base.saturating_add((at % repeat) as u64))));
        }
        let len = self.part as u64;
        self.stage = Stage::Begin;
        self.equal = self.equal.saturating_add(len);
        self.offset = self.offset.saturating_add(len);
        self.left = self.left.saturating_sub(len);
        Ok(None)
    }
}
