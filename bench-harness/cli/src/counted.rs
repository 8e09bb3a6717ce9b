//! A backend whose queues tell how much they copied.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paraslot_backends::block::{
    BlockBackend, BlockCompletion, BlockInfo, BlockQueue, BlockRequest,
};
use paraslot_device::Sources;

/// Bytes copied by all queues of a backend, as of their last look for completions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copied(Arc<AtomicU64>);

impl Copied {
    /// The count.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A backend that keeps the count.
pub(crate) struct Counted<B> {
    backend: B,
    copied: Copied,
}

impl<B: BlockBackend> Counted<B> {
    /// `backend`, counted.
    pub(crate) fn new(backend: B) -> (Self, Copied) {
        let copied = Copied::default();
        (Self { backend, copied: copied.clone() }, copied)
    }
}

impl<B: BlockBackend> BlockBackend for Counted<B> {
    fn info(&self) -> BlockInfo {
        self.backend.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        let queue = self.backend.open_queue(depth)?;
        Ok(Box::new(CountedQueue { queue, told: 0, copied: self.copied.clone() }))
    }
}

struct CountedQueue {
    queue: Box<dyn BlockQueue>,
    /// What of this queue's count is in the sum already.
    told: u64,
    copied: Copied,
}

impl BlockQueue for CountedQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        self.queue.submit(request)
    }

    fn commit(&mut self) {
        self.queue.commit();
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        self.queue.complete(completions);
        let count = self.queue.copied_bytes();
        if count != self.told {
            self.copied.0.fetch_add(count.wrapping_sub(self.told), Ordering::Relaxed);
            self.told = count;
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
