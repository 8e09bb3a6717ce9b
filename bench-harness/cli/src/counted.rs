//! A backend whose queues tell what they did.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paraslot_backends::block::{
    BlockBackend, BlockCompletion, BlockInfo, BlockQueue, BlockRequest,
};
use paraslot_device::Sources;

/// What all queues of a backend did, as of their last look for completions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    copied: AtomicU64,
    operations: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Bytes that the backend copied.
    pub(crate) fn copied(&self) -> u64 {
        self.0.copied.load(Ordering::Relaxed)
    }

    /// Operations that have ended.
    pub(crate) fn operations(&self) -> u64 {
        self.0.operations.load(Ordering::Relaxed)
    }

    /// Bytes of data that were given to it and asked of it.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Operations that have ended in vain.
    pub(crate) fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }
}

/// A backend that keeps the count.
pub(crate) struct Counted<B> {
    backend: B,
    counts: Counts,
}

impl<B: BlockBackend> Counted<B> {
    /// `backend`, counted.
    pub(crate) fn new(backend: B) -> (Self, Counts) {
        let counts = Counts::default();
        (Self { backend, counts: counts.clone() }, counts)
    }
}

impl<B: BlockBackend> BlockBackend for Counted<B> {
    fn info(&self) -> BlockInfo {
        self.backend.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        let queue = self.backend.open_queue(depth)?;
        Ok(Box::new(CountedQueue { queue, told: 0, bytes: 0, counts: self.counts.clone() }))
    }
}

struct CountedQueue {
    queue: Box<dyn BlockQueue>,
    /// What of this queue's count is in the sum already.
    told: u64,
    /// Bytes of what was submitted, not in the sum yet.
    bytes: u64,
    counts: Counts,
}

impl BlockQueue for CountedQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        let bytes = request.buffers.len() as u64;
        self.queue.submit(request)?;
        self.bytes += bytes;
        Ok(())
    }

    fn commit(&mut self) {
        self.queue.commit();
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        let before = completions.len();
        self.queue.complete(completions);
        let cells = &*self.counts.0;
        let copied = self.queue.copied_bytes();
        if copied != self.told {
            cells.copied.fetch_add(copied.wrapping_sub(self.told), Ordering::Relaxed);
            self.told = copied;
        }
        let ended = completions.get(before..).unwrap_or_default();
        if !ended.is_empty() {
            cells.operations.fetch_add(ended.len() as u64, Ordering::Relaxed);
            cells.bytes.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
            let failed = ended.iter().filter(|completion| completion.result.is_err()).count();
            cells.failed.fetch_add(failed as u64, Ordering::Relaxed);
        }
    }

    fn sources(&self) -> Sources {
        self.queue.sources()
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    fn cancel(&mut self, token: u64) {
        self.queue.cancel(token);
    }

    fn hurry(&mut self) {
        self.queue.hurry();
    }

    fn copied_bytes(&self) -> u64 {
        self.queue.copied_bytes()
    }
}
