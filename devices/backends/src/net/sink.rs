//! A port that forgets what it is sent: what a device costs without its network.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use paraslot_device::{Progress, Sources};

use super::bell::{Claim, lock, queue, several};
use super::{
    Frame, NetBackend, NetError, NetInfo, NetReceiver, NetSender, Offloads, Received, Room,
};

#[cfg(test)]
mod tests;

type Inspector = dyn FnMut(u16, &Frame<'_>) + Send;

/// Takes every frame at once, whatever its offloads, and forgets it; never delivers one. It does not
/// read the frames' bytes, and so cannot tell whether the headers of one to be cut fit its offload.
#[derive(Clone)]
pub struct Sink(Arc<Shared>);

struct Shared {
    queues: Box<[Queue]>,
    inspector: Option<Mutex<Box<Inspector>>>,
}

#[derive(Default)]
struct Queue {
    sender: Claim,
    receiver: Claim,
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Sink {
    /// A sink with so many pairs of queues.
    ///
    /// # Errors
    /// When that is none.
    pub fn new(queues: u16) -> io::Result<Self> {
        let queues = several(queues, |_| Ok(Queue::default()))?;
        Ok(Self(Arc::new(Shared { queues, inspector: None })))
    }

    /// A sink that shows each frame to `inspect` first, with its queue.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_inspector(
        queues: u16,
        inspect: impl FnMut(u16, &Frame<'_>) + Send + 'static,
    ) -> io::Result<Self> {
        let queues = several(queues, |_| Ok(Queue::default()))?;
        let inspector: Box<Inspector> = Box::new(inspect);
        Ok(Self(Arc::new(Shared { queues, inspector: Some(Mutex::new(inspector)) })))
    }

    /// Frames taken on all queues, in batches that have ended.
    pub fn frames(&self) -> u64 {
        self.0.queues.iter().map(|queue| queue.frames.load(Ordering::Relaxed)).sum()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.0.queues.iter().map(|queue| queue.bytes.load(Ordering::Relaxed)).sum()
    }
}

impl NetBackend for Sink {
    fn info(&self) -> NetInfo {
        let queues = u16::try_from(self.0.queues.len()).unwrap_or(u16::MAX);
        NetInfo { queues, mtu: None, native: Offloads::all() }
    }

    fn set_receive_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn set_queues(&self, _: u16) -> io::Result<()> {
        Ok(())
    }

    fn open_sender(&self, index: u16) -> io::Result<Box<dyn NetSender>> {
        queue(&self.0.queues, index)?.sender.take()?;
        Ok(Box::new(SinkSender { shared: self.0.clone(), index, frames: 0, bytes: 0 }))
    }

    fn open_receiver(&self, index: u16) -> io::Result<Box<dyn NetReceiver>> {
        queue(&self.0.queues, index)?.receiver.take()?;
        Ok(Box::new(SinkReceiver { shared: self.0.clone(), index }))
    }
}

struct SinkSender {
    shared: Arc<Shared>,
    index: u16,
    /// Of this batch.
    frames: u64,
    bytes: u64,
}

impl NetSender for SinkSender {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        let len = frame.len();
        frame.offload.check(len)?;
        if let Some(inspector) = &self.shared.inspector {
            lock(inspector)(self.index, frame);
        }
        self.frames += 1;
        self.bytes += len as u64;
        Ok(())
    }

    fn commit(&mut self) {
        if let Some(queue) = self.shared.queues.get(usize::from(self.index)) {
            queue.frames.fetch_add(std::mem::take(&mut self.frames), Ordering::Relaxed);
            queue.bytes.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        }
    }

    fn sources(&self) -> Sources {
        Sources::new()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        Progress::More
    }
}

impl Drop for SinkSender {
    fn drop(&mut self) {
        self.commit();
        if let Some(queue) = self.shared.queues.get(usize::from(self.index)) {
            queue.sender.release();
        }
    }
}

struct SinkReceiver {
    shared: Arc<Shared>,
    index: u16,
}

impl NetReceiver for SinkReceiver {
    fn receive(&mut self, _: Room<'_>) -> Result<Option<Received>, NetError> {
        Ok(None)
    }

    fn sources(&self) -> Sources {
        Sources::new()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        Progress::Idle
    }
}

impl Drop for SinkReceiver {
    fn drop(&mut self) {
        if let Some(queue) = self.shared.queues.get(usize::from(self.index)) {
            queue.receiver.release();
        }
    }
}
