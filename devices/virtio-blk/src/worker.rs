//! A queue's loop.

use std::collections::VecDeque;
use std::sync::Arc;

use paraslot_backends::block::{BlockCompletion, BlockError, BlockOp, BlockQueue, BlockRequest};
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace, Memory, Progress, Source, Worker};
use paraslot_spec::virtio_blk::status;
use paraslot_virtio::{Chain, Queue};
use vm_memory::{Bytes, GuestAddress};

use crate::request::{Answer, Context, Request};
use crate::shared::Shared;

/// Most chains that are taken in one call of `service`. The driver is told of completions once in
/// each, so this is a bound on how long the first waits for the last.
const BATCH: usize = 64;

/// Buffers of the requests in flight above which no further chain is taken. One chain may have 1024,
/// and one indirect table can serve every entry of the queue, so without this a driver could have
/// the device hold as many as that times the queue's size.
const MOST_SEGMENTS: usize = 16 * 1024;

/// Takes requests from one queue to one queue of the backend, and back.
///
/// A chain's head is its slot and its token: the queue sees to it that no head is in flight twice.
pub(crate) struct QueueWorker<A: DmaSpace> {
    pub(crate) queue: Queue<A>,
    backend: Box<dyn BlockQueue>,
    shared: Arc<Shared>,
    features: u64,
    pub(crate) slots: Vec<Slot>,
    /// Heads of requests that have more for the backend, oldest first. While there are any, no chain
    /// is taken.
    waiting: VecDeque<u16>,
    /// Heads of requests that are over, and for which the driver is still to be told.
    pub(crate) over: Vec<u16>,
    completions: Vec<BlockCompletion>,
    /// Buffers of the requests in flight.
    segments: usize,
}

/// A request in flight.
pub(crate) struct Slot {
    pub(crate) answer: Answer,
    /// Buffers of its chain.
    segments: usize,
    /// Bytes at the start of what the device can write that are filled if it succeeds.
    pub(crate) fills: u64,
    /// For the backend, before anything else.
    refused: Option<Box<BlockRequest>>,
    /// Done to each of `ranges` from `next` on.
    op: BlockOp,
    ranges: Vec<(u64, u64)>,
    next: usize,
    /// A flush follows when the rest has succeeded.
    flush: bool,
    /// Operations with the backend.
    running: usize,
    pub(crate) status: u8,
}

impl Slot {
    fn new() -> Self {
        Self {
            answer: Answer { status: GuestAddress(0), room: 0 },
            segments: 0,
            fills: 0,
            refused: None,
            op: BlockOp::Flush,
            ranges: Vec::new(),
            next: 0,
            flush: false,
            running: 0,
            status: status::OK,
        }
    }

    /// One that is over.
    pub(crate) fn over(answer: Answer, fills: u64, status: u8) -> Self {
        Self { answer, fills, status, ..Self::new() }
    }

    /// The next operation for the backend.
    fn take(&mut self, token: u64) -> Option<BlockRequest> {
        if let Some(request) = self.refused.take() {
            return Some(*request);
        }
        let buffers = DmaBuffers::empty(Direction::ToDevice);
        if let Some(&(offset, len)) = self.ranges.get(self.next) {
            self.next += 1;
            return Some(BlockRequest { token, op: self.op, offset, len, buffers });
        }
        if self.flush && self.running == 0 {
            self.flush = false;
            return Some(BlockRequest { token, op: BlockOp::Flush, offset: 0, len: 0, buffers });
        }
        None
    }

    /// Nothing more is asked of the backend.
    fn fail(&mut self, status: u8) {
        if self.status == status::OK {
            self.status = status;
        }
        self.refused = None;
        self.next = self.ranges.len();
        self.flush = false;
    }

    /// Whether there is more for the backend, now or once what is running has ended.
    fn has_more(&self) -> bool {
        self.refused.is_some() || self.next < self.ranges.len() || self.flush
    }

    /// Bytes from the start of what the device can write that are filled without a gap.
    fn written(&self) -> u32 {
        let data = if self.status == status::OK { self.fills } else { 0 };
        // The status is filled in any case, and counts if nothing is missing before it.
        let written = if data == self.answer.room { data.saturating_add(1) } else { data };
        u32::try_from(written).unwrap_or(u32::MAX)
    }
}

fn status_of(error: &BlockError) -> u8 {
    match error {
        BlockError::Unsupported => status::UNSUPP,
        _ => status::IOERR,
    }
}

impl<A: DmaSpace> QueueWorker<A> {
    pub(crate) fn new(
        queue: Queue<A>,
        backend: Box<dyn BlockQueue>,
        shared: Arc<Shared>,
        features: u64,
    ) -> Self {
        let size = usize::from(queue.size());
        Self {
            queue,
            backend,
            shared,
            features,
            slots: std::iter::repeat_with(Slot::new).take(size).collect(),
            waiting: VecDeque::with_capacity(size),
            over: Vec::with_capacity(size),
            completions: Vec::with_capacity(size),
            segments: 0,
        }
    }

    /// Takes a chain as far as the backend, or to its end.
    fn begin(&mut self, memory: &Memory<A>, chain: &Chain) {
        let head = chain.head;
        let Some(answer) = Answer::find(memory, &chain.writable) else {
            // There is no way to tell the driver what is wrong with this one.
            self.queue.fail();
            return;
        };
        let Some(slot) = self.slots.get_mut(usize::from(head)) else { return };
        let context = Context {
            limits: &self.shared.limits,
            capacity: self.shared.capacity(),
            features: self.features,
            stable: self.shared.writes_are_stable(self.features),
        };
        let room = answer.room;
        slot.answer = answer;
        slot.segments = chain.readable.len() + chain.writable.len();
        self.segments += slot.segments;
        slot.fills = 0;
        slot.ranges.clear();
        slot.next = 0;
        slot.flush = false;
        slot.running = 0;
        slot.status = status::OK;
        let token = u64::from(head);
        let parsed = Request::parse(
            memory,
            &chain.readable,
            &chain.writable,
            room,
            &context,
            &mut slot.ranges,
        );
        match parsed {
            Ok(Request::Transfer { op, offset, buffers }) => {
                let len = buffers.len() as u64;
                if op == BlockOp::Read {
                    slot.fills = len;
                }
                let request = BlockRequest { token, op, offset, len, buffers };
                self.submit(head, request);
                return;
            }
            Ok(Request::Flush) => slot.flush = true,
            Ok(Request::Ranges { op }) => {
                slot.op = op;
                // What was zeroed must be stable as what was written; a secure erase is (by the
                // backend's contract it is gone, also after a power failure).
                slot.flush = context.stable
                    && context.limits.volatile
                    && matches!(op, BlockOp::WriteZeroes { .. });
            }
            Ok(Request::Done { written }) => slot.fills = written.into(),
            Err(refusal) => {
                slot.ranges.clear();
                slot.fail(refusal);
            }
        }
        self.advance(head);
    }

    /// Gives the backend what a request has for it; has it wait if there is no room.
    fn advance(&mut self, head: u16) {
        if !self.advance_now(head) {
            self.waiting.push_back(head);
        }
    }

    /// Gives the backend what a request has for it; returns whether there was room.
    fn advance_now(&mut self, head: u16) -> bool {
        let Some(slot) = self.slots.get_mut(usize::from(head)) else { return true };
        while let Some(request) = slot.take(head.into()) {
            match self.backend.submit(request) {
                Ok(()) => slot.running += 1,
                Err(request) => {
                    slot.refused = Some(Box::new(request));
                    return false;
                }
            }
        }
        if slot.running == 0 {
            self.over.push(head);
        }
        true
    }

    /// Gives the backend the only operation of a request.
    fn submit(&mut self, head: u16, request: BlockRequest) {
        let Some(slot) = self.slots.get_mut(usize::from(head)) else { return };
        match self.backend.submit(request) {
            Ok(()) => slot.running = 1,
            Err(request) => {
                slot.refused = Some(Box::new(request));
                self.waiting.push_back(head);
            }
        }
    }

    /// Goes on with requests that found no room.
    fn resume(&mut self) {
        while let Some(&head) = self.waiting.front() {
            if !self.advance_now(head) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Notes what the backend has completed; returns whether it has anything.
    fn collect(&mut self) -> bool {
        if self.backend.in_flight() == 0 {
            return false;
        }
        self.backend.complete(&mut self.completions);
        if self.completions.is_empty() {
            return false;
        }
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            let Ok(head) = u16::try_from(completion.token) else { continue };
            let Some(slot) = self.slots.get_mut(usize::from(head)) else { continue };
            slot.running = slot.running.saturating_sub(1);
            if let Err(error) = completion.result {
                slot.fail(status_of(&error));
            }
            if slot.running != 0 || self.waiting.contains(&head) {
                continue;
            }
            if slot.has_more() { self.advance(head) } else { self.over.push(head) }
        }
        self.completions = completions;
        true
    }

    /// Tells the driver of requests that are over.
    fn answer(&mut self, memory: &Memory<A>) {
        if self.over.is_empty() {
            return;
        }
        for head in self.over.drain(..) {
            let Some(slot) = self.slots.get(usize::from(head)) else { continue };
            self.segments = self.segments.saturating_sub(slot.segments);
            // If the byte is not memory any more, the guest has taken it away, and cannot expect it.
            let _ = memory.write_slice(&[slot.status], slot.answer.status);
            self.queue.push_used(memory, head, slot.written());
        }
        self.queue.notify(memory);
    }

    /// Whether no chain is taken for now: not before something in flight completes.
    fn full(&self) -> bool {
        !self.waiting.is_empty() || self.segments >= MOST_SEGMENTS
    }

    /// Takes what is available; returns whether anything was.
    fn take(&mut self, memory: &Memory<A>) -> bool {
        let mut count = 0;
        while count < BATCH && !self.full() {
            // An error has broken the queue and been signalled, and there is nothing more to do.
            let Ok(Some(chain)) = self.queue.pop(memory) else { break };
            count += 1;
            self.queue.disable_notifications(memory);
            self.begin(memory, &chain);
        }
        count != 0
    }
}

impl<A: DmaSpace> Worker for QueueWorker<A> {
    fn sources(&self) -> Vec<Source> {
        let mut sources = vec![self.queue.source()];
        sources.extend(self.backend.sources());
        sources
    }

    fn service(&mut self) -> Progress {
        let mut progress = self.collect();
        let Some(memory) = self.queue.dma().memory() else {
            // Without bus mastering nothing can be taken or told. The host wakes this worker when
            // that changes.
            return Progress::Idle;
        };
        self.resume();
        progress |= self.take(&memory);
        if progress || !self.waiting.is_empty() {
            self.backend.commit();
            progress |= self.collect();
        }
        progress |= !self.over.is_empty();
        self.answer(&memory);
        if progress { Progress::More } else { Progress::Idle }
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let Some(memory) = self.queue.dma().memory() else { return Progress::Idle };
        if self.backend.in_flight() != 0 && self.backend.sources().is_empty() {
            return Progress::More;
        }
        if self.full() {
            // No chain is taken before there is room, and that rings by itself.
            return Progress::Idle;
        }
        if self.queue.enable_notifications(&memory) { Progress::More } else { Progress::Idle }
    }

    fn quiesce(&mut self) -> Progress {
        self.backend.hurry();
        self.collect();
        self.resume();
        self.backend.commit();
        self.collect();
        if let Some(memory) = self.queue.dma().memory() {
            self.answer(&memory);
        }
        if self.backend.in_flight() == 0 && self.waiting.is_empty() {
            Progress::Idle
        } else {
            Progress::More
        }
    }
}
