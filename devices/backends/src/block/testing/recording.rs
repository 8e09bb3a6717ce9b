//! A record of what was asked and answered, to be cut anywhere.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use paraslot_device::Sources;

use super::lock;
use crate::block::{BlockBackend, BlockCompletion, BlockInfo, BlockOp, BlockQueue, BlockRequest};

/// One thing that happened. Operations are numbered in the order of their submission, over all
/// queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operation was submitted.
    Submitted {
        /// Its number.
        operation: usize,
        /// What to do.
        op: BlockOp,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// What a write stores, as it was then.
        data: Vec<u8>,
    },
    /// An operation's completion was collected.
    Completed {
        /// Its number.
        operation: usize,
        /// Whether it succeeded.
        ok: bool,
    },
}

/// Records everything that passes between a device and the backend within.
pub struct RecordingBackend<B> {
    inner: B,
    log: Log,
}

/// The record of a [`RecordingBackend`].
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    submitted: usize,
    events: Vec<Event>,
}

impl Log {
    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.0).events.clone()
    }

    /// How many there are: the cut that takes them all.
    pub fn len(&self) -> usize {
        lock(&self.0).events.len()
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is on the medium if the power fails after the first `cut` events: `image` is what was
    /// there before. A write survives if it was completed before the submission of a flush that
    /// completed successfully, or was a completed forced unit access write; of any other write that
    /// was submitted, `survives` decides (by its number), in the order of submission.
    pub fn after_power_cut(
        &self,
        cut: usize,
        image: &mut [u8],
        mut survives: impl FnMut(usize) -> bool,
    ) {
        let record = lock(&self.0);
        let events = &record.events[..cut.min(record.events.len())];
        let completed: HashMap<usize, usize> = events
            .iter()
            .enumerate()
            .filter_map(|(index, event)| match event {
                Event::Completed { operation, ok: true } => Some((*operation, index)),
                _ => None,
            })
            .collect();
        // What completed before this is covered by a successful flush.
        let covered = events
            .iter()
            .enumerate()
            .filter_map(|(index, event)| match event {
                Event::Submitted { operation, op: BlockOp::Flush, .. } => {
                    completed.contains_key(operation).then_some(index)
                }
                _ => None,
            })
            .max()
            .unwrap_or(0);
        for event in events {
            let Event::Submitted { operation, op, offset, len, data } = event else { continue };
            let fua = match op {
                BlockOp::Write { fua } => *fua,
                BlockOp::WriteZeroes { .. } | BlockOp::SecureErase => false,
                BlockOp::Read | BlockOp::Flush | BlockOp::Discard => continue,
            };
            let durable = completed.get(operation).is_some_and(|done| fua || *done < covered);
            if !durable && !survives(*operation) {
                continue;
            }
            let start = usize::try_from(*offset).expect("inside the image");
            let end = start + usize::try_from(*len).expect("inside the image");
            match image.get_mut(start..end) {
                Some(range) if data.is_empty() => range.fill(0),
                Some(range) => range.copy_from_slice(data),
                None => {}
            }
        }
    }
}

impl<B: BlockBackend> RecordingBackend<B> {
    /// An empty record of `inner`.
    pub fn new(inner: B) -> Self {
        Self { inner, log: Log::default() }
    }

    /// The record.
    pub fn log(&self) -> Log {
        self.log.clone()
    }
}

impl<B: BlockBackend> BlockBackend for RecordingBackend<B> {
    fn info(&self) -> BlockInfo {
        self.inner.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        let inner = self.inner.open_queue(depth)?;
        Ok(Box::new(RecordingQueue { inner, log: self.log.clone(), pending: HashMap::new() }))
    }
}

struct RecordingQueue {
    inner: Box<dyn BlockQueue>,
    log: Log,
    /// Tokens by operation number, which stands in for them.
    pending: HashMap<u64, u64>,
}

impl BlockQueue for RecordingQueue {
    fn submit(&mut self, mut request: BlockRequest) -> Result<(), BlockRequest> {
        let mut data = Vec::new();
        if matches!(request.op, BlockOp::Write { .. }) {
            data.resize(request.buffers.len(), 0);
            request.buffers.copy_to(&mut data);
        }
        let token = request.token;
        let (op, offset, len) = (request.op, request.offset, request.len);
        let mut record = lock(&self.log.0);
        let operation = record.submitted;
        request.token = operation as u64;
        if let Err(mut back) = self.inner.submit(request) {
            back.token = token;
            return Err(back);
        }
        record.submitted += 1;
        record.events.push(Event::Submitted { operation, op, offset, len, data });
        drop(record);
        self.pending.insert(operation as u64, token);
        Ok(())
    }

    fn commit(&mut self) {
        self.inner.commit();
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        let before = completions.len();
        self.inner.complete(completions);
        for completion in &mut completions[before..] {
            let number = completion.token;
            completion.token = self.pending.remove(&number).expect("completes exactly once");
            let operation = usize::try_from(number).expect("a number of ours");
            let ok = completion.result.is_ok();
            lock(&self.log.0).events.push(Event::Completed { operation, ok });
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
        let numbers = self.pending.iter().filter(|(_, theirs)| **theirs == token);
        let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        for number in numbers {
            self.inner.cancel(number);
        }
    }

    fn copied_bytes(&self) -> u64 {
        self.inner.copied_bytes()
    }
}
