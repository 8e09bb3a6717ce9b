//! A backend that keeps to a limit.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use paraslot_device::{Source, Sources, Timer};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    BlockBackend, BlockCompletion, BlockError, BlockInfo, BlockOp, BlockQueue, BlockRequest,
};
use crate::limit::Limiter;

/// Another backend, whose queues together keep to a limit, which can be changed while the guest runs. What
/// may not go yet is held, in order, and counts as in flight. The bytes of reads and writes count; everything
/// else is an operation without any.
///
/// Its queues always have sources. A queue whose operations complete in `commit` and that has none itself
/// (that of a [`MemoryBackend`](super::MemoryBackend), say) then costs a write to an eventfd for each batch,
/// whether there is a limit or not.
pub struct LimitedBackend<B> {
    inner: B,
    limiter: Arc<Limiter>,
}

impl<B> LimitedBackend<B> {
    /// `inner`, behind `limiter`.
    pub fn new(inner: B, limiter: Arc<Limiter>) -> Self {
        Self { inner, limiter }
    }
}

impl<B: BlockBackend> BlockBackend for LimitedBackend<B> {
    fn info(&self) -> BlockInfo {
        self.inner.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        let inner = self.inner.open_queue(depth)?;
        let silent = inner.sources().is_empty();
        Ok(Box::new(LimitedQueue {
            inner,
            silent,
            limiter: self.limiter.clone(),
            depth: usize::try_from(depth.max(1)).unwrap_or(usize::MAX),
            held: VecDeque::new(),
            cancelled: Vec::new(),
            timer: self.limiter.timer()?,
            bell: EventFd::new(EFD_NONBLOCK)?,
        }))
    }
}

struct LimitedQueue {
    inner: Box<dyn BlockQueue>,
    /// Nothing rings for what it completes.
    silent: bool,
    limiter: Arc<Limiter>,
    depth: usize,
    /// What may not go yet, oldest first.
    held: VecDeque<BlockRequest>,
    cancelled: Vec<BlockCompletion>,
    /// Rings when the first of those held may go.
    timer: Box<dyn Timer>,
    /// Rings for what else there is to complete.
    bell: EventFd,
}

fn bytes(request: &BlockRequest) -> u64 {
    match request.op {
        BlockOp::Read | BlockOp::Write { .. } => request.len,
        BlockOp::Flush | BlockOp::Discard | BlockOp::WriteZeroes { .. } | BlockOp::SecureErase => 0,
    }
}

impl LimitedQueue {
    /// Passes on what may go of what is held; returns whether anything did.
    fn release(&mut self) -> bool {
        let before = self.held.len();
        while let Some(request) = self.held.front()
            && self.limiter.take(bytes(request))
            && self.pass()
        {}
        self.held.len() != before
    }

    /// Passes on the first of those held; returns whether it was taken.
    fn pass(&mut self) -> bool {
        let Some(request) = self.held.pop_front() else { return false };
        match self.inner.submit(request) {
            Ok(()) => true,
            // It has room for as many as there are here.
            Err(request) => {
                self.held.push_front(request);
                false
            }
        }
    }

    /// Has something ring for whatever there is to come.
    fn arrange(&mut self) {
        match self.held.front() {
            None => self.timer.cancel(),
            Some(_) if self.timer.is_set() => {}
            Some(request) => self.timer.set(self.limiter.wait(bytes(request)).unwrap_or_default()),
        }
        if !self.cancelled.is_empty() || self.silent && self.inner.in_flight() != 0 {
            // It can fail only by being full, and then it has rung.
            let _ = self.bell.write(1);
        }
    }
}

impl BlockQueue for LimitedQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        if self.in_flight() >= self.depth {
            return Err(request);
        }
        if self.held.is_empty() && self.limiter.take(bytes(&request)) {
            return self.inner.submit(request);
        }
        self.limiter.count();
        self.held.push_back(request);
        Ok(())
    }

    fn commit(&mut self) {
        self.release();
        self.inner.commit();
        self.arrange();
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        let fired = self.timer.fired();
        if !self.held.is_empty() && self.release() {
            self.inner.commit();
        }
        self.inner.complete(completions);
        completions.append(&mut self.cancelled);
        if fired || self.timer.is_set() || !self.held.is_empty() {
            self.arrange();
        }
    }

    fn sources(&self) -> Sources {
        let mut sources = self.inner.sources();
        sources.extend([self.timer.source(), Source::Event(self.bell.as_raw_fd())]);
        sources
    }

    fn in_flight(&self) -> usize {
        self.held.len() + self.cancelled.len() + self.inner.in_flight()
    }

    fn cancel(&mut self, token: u64) {
        let before = self.held.len();
        self.held.retain(|request| request.token != token);
        let ended = (self.held.len()..before)
            .map(|_| BlockCompletion { token, result: Err(BlockError::Cancelled) });
        self.cancelled.extend(ended);
        self.inner.cancel(token);
        self.arrange();
    }

    fn hurry(&mut self) {
        while let Some(request) = self.held.front()
            && self.limiter.overdraw(bytes(request))
            && self.pass()
        {}
        self.inner.hurry();
    }

    fn copied_bytes(&self) -> u64 {
        self.inner.copied_bytes()
    }
}
