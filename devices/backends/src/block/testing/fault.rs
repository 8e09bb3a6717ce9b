//! Operations that fail.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use paraslot_device::{DmaBuffers, Sources};

use super::lock;
use crate::block::{
    BlockBackend, BlockCompletion, BlockError, BlockInfo, BlockOp, BlockQueue, BlockRequest,
};

type Choose = dyn FnMut(u64, &BlockRequest) -> Option<BlockError> + Send;

/// Fails the operations that a function chooses; they do not reach the backend within. Once a flush
/// was failed, all later ones fail too, as the contract demands.
pub struct FaultBackend<B> {
    inner: B,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    count: u64,
    lost: bool,
    choose: Box<Choose>,
}

impl<B: BlockBackend> FaultBackend<B> {
    /// `choose` is called with each operation and its number, counted from 0 over all queues.
    pub fn new(
        inner: B,
        choose: impl FnMut(u64, &BlockRequest) -> Option<BlockError> + Send + 'static,
    ) -> Self {
        let shared = Shared { count: 0, lost: false, choose: Box::new(choose) };
        Self { inner, shared: Arc::new(Mutex::new(shared)) }
    }

    /// Fails operation number `index` with a host error (`errno`).
    pub fn nth(inner: B, index: u64, errno: i32) -> Self {
        Self::new(inner, move |count, _| {
            (count == index).then(|| io::Error::from_raw_os_error(errno).into())
        })
    }

    /// Operations seen so far.
    pub fn count(&self) -> u64 {
        lock(&self.shared).count
    }
}

impl<B: BlockBackend> BlockBackend for FaultBackend<B> {
    fn info(&self) -> BlockInfo {
        self.inner.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        let inner = self.inner.open_queue(depth)?;
        let shared = self.shared.clone();
        Ok(Box::new(FaultQueue { inner, depth, shared, next: 0, pending: HashMap::new() }))
    }
}

struct FaultQueue {
    inner: Box<dyn BlockQueue>,
    depth: u32,
    shared: Arc<Mutex<Shared>>,
    next: u64,
    /// By the number that stands in for the token: the token, and the error to come.
    pending: HashMap<u64, (u64, Option<BlockError>)>,
}

impl BlockQueue for FaultQueue {
    fn submit(&mut self, mut request: BlockRequest) -> Result<(), BlockRequest> {
        if self.pending.len() as u64 >= u64::from(self.depth) {
            return Err(request);
        }
        let error = {
            let mut shared = lock(&self.shared);
            let count = shared.count;
            shared.count += 1;
            let mut error = (shared.choose)(count, &request);
            if request.op == BlockOp::Flush {
                if shared.lost && error.is_none() {
                    error = Some(io::Error::from_raw_os_error(libc::EIO).into());
                }
                shared.lost |= error.is_some();
            }
            error
        };
        if error.is_some() {
            // A flush goes in its place, so that the completion comes when and as others do.
            let buffers = DmaBuffers::empty(request.buffers.direction());
            request = BlockRequest {
                token: request.token,
                op: BlockOp::Flush,
                offset: 0,
                len: 0,
                buffers,
            };
        }
        self.pending.insert(self.next, (request.token, error));
        request.token = self.next;
        self.next += 1;
        self.inner.submit(request).expect("as deep as this queue");
        Ok(())
    }

    fn commit(&mut self) {
        self.inner.commit();
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        let before = completions.len();
        self.inner.complete(completions);
        for completion in &mut completions[before..] {
            let (token, error) =
                self.pending.remove(&completion.token).expect("completes exactly once");
            completion.token = token;
            if let Some(error) = error {
                completion.result = Err(error);
            }
        }
    }

    fn sources(&self) -> Sources {
        self.inner.sources()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn hurry(&mut self) {
        self.inner.hurry();
    }

    fn cancel(&mut self, token: u64) {
        let numbers = self.pending.iter().filter(|(_, (theirs, _))| *theirs == token);
        let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        for number in numbers {
            self.inner.cancel(number);
        }
    }

    fn copied_bytes(&self) -> u64 {
        self.inner.copied_bytes()
    }
}
