//! A backend that counts what is asked of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paraslot_backends::block::{
    BlockBackend, BlockCompletion, BlockInfo, BlockOp, BlockQueue, BlockRequest,
};
use paraslot_device::Sources;

/// How many operations of these kinds were accepted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    flushes: AtomicU64,
    discards: AtomicU64,
    zeroes: AtomicU64,
}

impl Tally {
    /// Flushes, and writes that are flushed each.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Discards, and zeroes that may be made by discarding.
    pub(crate) fn discards(&self) -> u64 {
        self.discards.load(Ordering::Relaxed)
    }

    /// Zeroes.
    pub(crate) fn zeroes(&self) -> u64 {
        self.zeroes.load(Ordering::Relaxed)
    }

    fn count(&self, op: BlockOp) {
        let one = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match op {
            BlockOp::Flush | BlockOp::Write { fua: true } => one(&self.flushes),
            BlockOp::Discard => one(&self.discards),
            BlockOp::WriteZeroes { unmap } => {
                one(&self.zeroes);
                if unmap {
                    one(&self.discards);
                }
            }
            BlockOp::Read | BlockOp::Write { fua: false } | BlockOp::SecureErase => (),
        }
    }
}

/// The backend.
pub(crate) struct Tallied<B> {
    inner: B,
    tally: Arc<Tally>,
}

impl<B: BlockBackend> Tallied<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self { inner, tally: Arc::default() }
    }

    pub(crate) fn inner(&self) -> &B {
        &self.inner
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl<B: BlockBackend> BlockBackend for Tallied<B> {
    fn info(&self) -> BlockInfo {
        self.inner.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        let queue = self.inner.open_queue(depth)?;
        Ok(Box::new(TalliedQueue { queue, tally: self.tally.clone() }))
    }
}

struct TalliedQueue {
    queue: Box<dyn BlockQueue>,
    tally: Arc<Tally>,
}

impl BlockQueue for TalliedQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        let op = request.op;
        self.queue.submit(request)?;
        self.tally.count(op);
        Ok(())
    }

    fn commit(&mut self) {
        self.queue.commit();
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        self.queue.complete(completions);
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
