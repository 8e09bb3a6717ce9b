//! The event queue's loop (5.6.6.3).

use std::sync::Arc;

use paraslot_device::{DmaSpace, Memory, Progress, Source, StateError, Worker};
use paraslot_spec::virtio_scsi::Event;
use paraslot_virtio::segments::{part, total, write};
use paraslot_virtio::{Chain, Queue, QueueState};
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use crate::events::Events;

/// Most buffers that are used in one call of `service`.
const BATCH: usize = 16;

const EVENT: u64 = size_of::<Event>() as u64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventState {
    queue: QueueState,
}

/// Puts events into the driver's buffers. It takes none before it has an event for it, so it has none
/// that could be lost.
pub(crate) struct EventWorker<A: DmaSpace> {
    events: Arc<Events>,
    queue: Queue<A>,
}

impl<A: DmaSpace> EventWorker<A> {
    pub(crate) fn new(events: Arc<Events>, queue: Queue<A>) -> Self {
        Self { events, queue }
    }

    /// What [`restore`](Self::restore) takes.
    pub(crate) fn save(&self) -> EventState {
        let Self { events: _, queue } = self;
        EventState { queue: queue.save() }
    }

    /// Puts a worker that was just made where another was.
    pub(crate) fn restore(&mut self, state: &EventState) -> Result<(), StateError> {
        self.queue.restore(&state.queue, &[])
    }

    /// Uses a buffer: for the next event, or, if that does not fit, for NO_EVENT at once.
    fn fill(&mut self, memory: &Memory<A>, chain: &Chain) {
        let room = total(&chain.writable).min(EVENT);
        let event = if room == EVENT { self.events.take() } else { None };
        let event = event.unwrap_or_default();
        let bytes = usize::try_from(room).ok().and_then(|room| event.as_bytes().get(..room));
        match bytes.and_then(|bytes| write(memory, part(&chain.writable, 0, room), bytes)) {
            Some(()) => {
                let written = u32::try_from(room).unwrap_or_default();
                self.queue.push_used(memory, chain.head, written);
            }
            None => self.queue.fail(),
        }
    }
}

impl<A: DmaSpace> Worker for EventWorker<A> {
    fn sources(&self) -> Vec<Source> {
        vec![self.queue.source(), self.events.bell.source()]
    }

    fn service(&mut self) -> Progress {
        self.events.bell.answer();
        let Some(memory) = self.queue.dma().memory() else { return Progress::Idle };
        let mut progress = Progress::Idle;
        for _ in 0..BATCH {
            if !self.events.any() {
                break;
            }
            // An error has broken the queue and been signalled, and there is nothing more to do.
            let Ok(Some(chain)) = self.queue.pop(&memory) else { break };
            self.queue.disable_notifications(&memory);
            progress = Progress::More;
            self.fill(&memory, &chain);
        }
        self.queue.notify(&memory);
        progress
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let Self { events, queue, .. } = self;
        events.bell.sleep_unless(|| {
            let Some(memory) = queue.dma().memory() else { return Progress::Idle };
            // Without an event a buffer is of no interest.
            let more = events.any() && queue.enable_notifications(&memory);
            if more { Progress::More } else { Progress::Idle }
        })
    }

    fn quiesce(&mut self) -> Progress {
        Progress::Idle
    }
}
