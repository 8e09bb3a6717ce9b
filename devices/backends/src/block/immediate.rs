//! A queue whose operations are done when they are submitted.

use std::sync::Arc;

use paraslot_device::Sources;

use super::{BlockCompletion, BlockError, BlockQueue, BlockRequest};

/// Does an operation on the spot. Returns how many bytes it copied.
pub(super) trait Execute: Send + Sync {
    fn execute(&self, request: &BlockRequest) -> Result<u64, BlockError>;
}

/// Completions wait in a list that keeps its storage, so that nothing is allocated in the long run.
pub(super) struct ImmediateQueue<I> {
    image: Arc<I>,
    depth: usize,
    done: Vec<BlockCompletion>,
    copied: u64,
}

impl<I: Execute> ImmediateQueue<I> {
    pub(super) fn new(image: Arc<I>, depth: u32) -> Self {
        let depth = usize::try_from(depth.max(1)).unwrap_or(usize::MAX);
        Self { image, depth, done: Vec::new(), copied: 0 }
    }
}

impl<I: Execute> BlockQueue for ImmediateQueue<I> {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        if self.done.len() >= self.depth {
            return Err(request);
        }
        let result = self.image.execute(&request).map(|copied| {
            self.copied = self.copied.wrapping_add(copied);
        });
        self.done.push(BlockCompletion { token: request.token, result });
        Ok(())
    }

    fn commit(&mut self) {}

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        completions.append(&mut self.done);
    }

    fn sources(&self) -> Sources {
        Sources::new()
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn copied_bytes(&self) -> u64 {
        self.copied
    }
}
