//! Operations that start only when the test says so.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use paraslot_device::{Source, Sources};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::lock;
use crate::block::{
    BlockBackend, BlockCompletion, BlockError, BlockInfo, BlockOp, BlockQueue, BlockRequest,
};

/// Holds operations back, before they touch anything, until its [`Gate`] lets them go. What was let
/// go is done when the queue's `complete` is called next; the queue's source rings for that. What is
/// cancelled while it is held ends without having been done, unless the gate is [deaf](Gate::deafen).
///
/// The backend within must be one that completes in `commit`.
pub struct GatedBackend<B> {
    inner: B,
    gate: Gate,
}

/// The test's hand on a [`GatedBackend`].
#[derive(Clone)]
pub struct Gate(Arc<Mutex<State>>);

struct State {
    open: bool,
    deaf: bool,
    queues: u64,
    held: Vec<Held>,
    released: Vec<Held>,
    /// Queues and tokens of what was cancelled while it was held.
    cancelled: Vec<(u64, u64)>,
    bells: Vec<(u64, EventFd)>,
}

struct Held {
    queue: u64,
    request: BlockRequest,
}

impl<B: BlockBackend> GatedBackend<B> {
    /// A closed gate around `inner`.
    pub fn new(inner: B) -> Self {
        let state = State {
            open: false,
            deaf: false,
            queues: 0,
            held: Vec::new(),
            released: Vec::new(),
            cancelled: Vec::new(),
            bells: Vec::new(),
        };
        Self { inner, gate: Gate(Arc::new(Mutex::new(state))) }
    }

    /// Its gate.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }
}

impl Gate {
    /// Operations that are held, on all queues.
    pub fn held(&self) -> usize {
        lock(&self.0).held.len()
    }

    /// What they are, oldest first: token, operation, offset.
    pub fn requests(&self) -> Vec<(u64, BlockOp, u64)> {
        let describe = |held: &Held| (held.request.token, held.request.op, held.request.offset);
        lock(&self.0).held.iter().map(describe).collect()
    }

    /// Lets go the one that is at `index` in [`requests`](Self::requests).
    pub fn release_at(&self, index: usize) {
        let mut state = lock(&self.0);
        let held = state.held.remove(index);
        state.release(held);
    }

    /// Lets go the oldest `count`.
    pub fn release(&self, count: usize) {
        let mut state = lock(&self.0);
        for _ in 0..count.min(state.held.len()) {
            let held = state.held.remove(0);
            state.release(held);
        }
    }

    /// Lets go everything, and holds nothing back any more.
    pub fn open(&self) {
        lock(&self.0).open = true;
        self.release(usize::MAX);
    }

    /// Holds back again what is submitted from now on.
    pub fn close(&self) {
        lock(&self.0).open = false;
    }

    /// Whether to hold on to what is cancelled, as a backend does that cannot stop what it has begun.
    pub fn deafen(&self, deaf: bool) {
        lock(&self.0).deaf = deaf;
    }
}

impl State {
    fn ring(&self, id: u64) {
        if let Some((_, bell)) = self.bells.iter().find(|(queue, _)| *queue == id) {
            bell.write(1).expect("the counter cannot be full");
        }
    }

    fn release(&mut self, held: Held) {
        self.ring(held.queue);
        self.released.push(held);
    }
}

impl<B: BlockBackend> BlockBackend for GatedBackend<B> {
    fn info(&self) -> BlockInfo {
        self.inner.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        let inner = self.inner.open_queue(depth)?;
        assert!(inner.sources().is_empty(), "a gated backend must complete in commit");
        let event = EventFd::new(EFD_NONBLOCK)?;
        let mut state = lock(&self.gate.0);
        state.queues += 1;
        let id = state.queues;
        state.bells.push((id, event.try_clone()?));
        Ok(Box::new(GatedQueue { id, inner, depth, in_flight: 0, event, gate: self.gate.clone() }))
    }
}

struct GatedQueue {
    id: u64,
    inner: Box<dyn BlockQueue>,
    depth: u32,
    in_flight: u32,
    event: EventFd,
    gate: Gate,
}

impl BlockQueue for GatedQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        if self.in_flight >= self.depth {
            return Err(request);
        }
        self.in_flight += 1;
        let held = Held { queue: self.id, request };
        let mut state = lock(&self.gate.0);
        if state.open {
            state.release(held);
        } else {
            state.held.push(held);
        }
        Ok(())
    }

    fn commit(&mut self) {}

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        let before = completions.len();
        let mut mine = Vec::new();
        {
            let mut state = lock(&self.gate.0);
            let (taken, kept) = std::mem::take(&mut state.released)
                .into_iter()
                .partition(|held| held.queue == self.id);
            state.released = kept;
            mine.extend::<Vec<Held>>(taken);
            state.cancelled.retain(|(queue, token)| {
                let other = *queue != self.id;
                if !other {
                    let result = Err(BlockError::Cancelled);
                    completions.push(BlockCompletion { token: *token, result });
                }
                other
            });
        }
        for held in mine {
            self.inner.submit(held.request).expect("within its depth");
        }
        self.inner.commit();
        self.inner.complete(completions);
        self.in_flight -= u32::try_from(completions.len() - before).expect("within its depth");
    }

    fn sources(&self) -> Sources {
        Sources::from_iter([Source::Event(self.event.as_raw_fd())])
    }

    fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight).expect("within its depth")
    }

    fn cancel(&mut self, token: u64) {
        let mut state = lock(&self.gate.0);
        if state.deaf {
            return;
        }
        let before = state.held.len();
        state.held.retain(|held| held.queue != self.id || held.request.token != token);
        let count = before - state.held.len();
        state.cancelled.extend(std::iter::repeat_n((self.id, token), count));
        if count != 0 {
            state.ring(self.id);
        }
    }

    fn copied_bytes(&self) -> u64 {
        self.inner.copied_bytes()
    }
}

impl Drop for GatedQueue {
    /// What is held is forgotten: it never touches memory or the image.
    fn drop(&mut self) {
        let mut state = lock(&self.gate.0);
        state.held.retain(|held| held.queue != self.id);
        state.released.retain(|held| held.queue != self.id);
        state.cancelled.retain(|(queue, _)| *queue != self.id);
        state.bells.retain(|(queue, _)| *queue != self.id);
    }
}
