//! The control queue's loop (5.1.9.5).
//!
//! A command is a sequence of bytes, wherever its descriptors cut it up (2.7.4.1): class, command and
//! data for the device to read; and for it to write one byte that says how it went, behind the data
//! that VQ_GET asks for. What a driver adds behind that is left alone.

mod commands;
mod reader;

use std::sync::Arc;

use paraslot_device::{DmaSpace, Memory, Progress, Source, StateError, Worker};
use paraslot_spec::virtio_net::{Coalesce, ack};
use paraslot_virtio::{Chain, Queue, Segment};
use vm_memory::Bytes;
use zerocopy::IntoBytes;

use crate::saved::ControlState;
use crate::shared::Shared;
use commands::Outcome;
use reader::Reader;

/// Most commands that are carried out in one call of `service`.
const BATCH: usize = 16;

/// Carries out commands.
pub(crate) struct ControlWorker<A: DmaSpace> {
    shared: Arc<Shared>,
    queue: Queue<A>,
}

impl<A: DmaSpace> ControlWorker<A> {
    pub(crate) fn new(shared: Arc<Shared>, queue: Queue<A>) -> Self {
        Self { shared, queue }
    }

    /// What [`restore`](Self::restore) takes, of a worker that is quiet.
    pub(crate) fn save(&self) -> ControlState {
        let Self { shared: _, queue } = self;
        ControlState { queue: queue.save() }
    }

    /// Puts a worker that was just made where another was.
    pub(crate) fn restore(&mut self, state: &ControlState) -> Result<(), StateError> {
        self.queue.restore(&state.queue, &[])
    }

    fn serve(&mut self, memory: &Memory<A>, chain: &Chain) {
        if chain.writable.is_empty() {
            // There is no way to tell the driver how it went.
            self.queue.fail();
            return;
        }
        let mut reader = Reader::new(memory, &chain.readable);
        let outcome = commands::execute(&self.shared, &mut reader);
        let written = match outcome {
            Outcome::Done => put(memory, &chain.writable, &[ack::OK]),
            Outcome::Refused => put(memory, &chain.writable, &[ack::ERR]),
            Outcome::Queried(coalesce) => answer_query(memory, &chain.writable, coalesce),
        };
        match written {
            Some(written) => self.queue.push_used(memory, chain.head, written),
            None => self.queue.fail(),
        }
    }
}

/// Writes what VQ_GET asked for, if there was an answer, and how it went.
fn answer_query<A: DmaSpace>(
    memory: &Memory<A>,
    segments: &[Segment],
    answer: Option<Coalesce>,
) -> Option<u32> {
    let room: u64 = segments.iter().map(|segment| u64::from(segment.len)).sum();
    let mut bytes = [0; size_of::<Coalesce>() + 1];
    let whole = bytes.len();
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(whole);
    let bytes = bytes.get_mut(..room)?;
    let (last, data) = bytes.split_last_mut()?;
    *last = ack::ERR;
    if let Some(answer) = answer
        && room == whole
    {
        data.copy_from_slice(answer.as_bytes());
        *last = ack::OK;
    }
    put(memory, segments, bytes)
}

/// Writes `bytes`, for which there is room, to the start of `segments`; returns how many that were.
fn put<A: DmaSpace>(memory: &Memory<A>, segments: &[Segment], bytes: &[u8]) -> Option<u32> {
    let mut rest = bytes;
    for segment in segments {
        let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
        memory.write_slice(now, segment.address).ok()?;
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    rest.is_empty().then_some(u32::try_from(bytes.len()).ok()?)
}

impl<A: DmaSpace> Worker for ControlWorker<A> {
    fn sources(&self) -> Vec<Source> {
        vec![self.queue.source()]
    }

    fn service(&mut self) -> Progress {
        let Some(memory) = self.queue.dma().memory() else { return Progress::Idle };
        let mut progress = Progress::Idle;
        for _ in 0..BATCH {
            // An error has broken the queue and been signalled, and there is nothing more to do.
            let Ok(Some(chain)) = self.queue.pop(&memory) else { break };
            self.queue.disable_notifications(&memory);
            progress = Progress::More;
            self.serve(&memory, &chain);
        }
        self.queue.notify(&memory);
        progress
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let Some(memory) = self.queue.dma().memory() else { return Progress::Idle };
        if self.queue.enable_notifications(&memory) { Progress::More } else { Progress::Idle }
    }

    fn quiesce(&mut self) -> Progress {
        Progress::Idle
    }
}
