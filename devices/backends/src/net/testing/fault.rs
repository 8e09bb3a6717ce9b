//! Frames that fail.

use std::io;
use std::sync::{Arc, Mutex};

use paraslot_device::{Progress, Sources};

use crate::net::bell::lock;
use crate::net::{
    Frame, NetBackend, NetError, NetInfo, NetReceiver, NetSender, Offloads, Received, Room,
};

/// What is about to happen to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum Operation {
    Send { queue: u16 },
    Receive { queue: u16 },
}

type Choose = dyn FnMut(u64, Operation) -> Option<NetError> + Send;

/// Fails the frames that a function chooses. What fails to be sent does not reach the backend within;
/// what fails to be received is lost.
pub struct FaultNet<B> {
    inner: B,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    count: u64,
    choose: Box<Choose>,
}

impl<B: NetBackend> FaultNet<B> {
    /// `choose` is called with each frame's number, counted from 0 over all queues and both ways. A
    /// frame that was told [`NetError::Busy`] has another number when it is tried again.
    pub fn new(
        inner: B,
        choose: impl FnMut(u64, Operation) -> Option<NetError> + Send + 'static,
    ) -> Self {
        let shared = Shared { count: 0, choose: Box::new(choose) };
        Self { inner, shared: Arc::new(Mutex::new(shared)) }
    }

    /// Fails the frames in the order of `script`, and none after its end.
    pub fn scripted(
        inner: B,
        script: impl IntoIterator<Item = Option<NetError>, IntoIter: Send + 'static>,
    ) -> Self {
        let mut script = script.into_iter();
        Self::new(inner, move |_, _| script.next().flatten())
    }

    /// Frames seen so far.
    pub fn count(&self) -> u64 {
        lock(&self.shared).count
    }
}

impl Shared {
    fn next(&mut self, operation: Operation) -> Option<NetError> {
        let count = self.count;
        self.count += 1;
        (self.choose)(count, operation)
    }
}

impl<B: NetBackend> NetBackend for FaultNet<B> {
    fn info(&self) -> NetInfo {
        self.inner.info()
    }

    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()> {
        self.inner.set_receive_offloads(accepted)
    }

    fn set_queues(&self, pairs: u16) -> io::Result<()> {
        self.inner.set_queues(pairs)
    }

    fn open_sender(&self, queue: u16) -> io::Result<Box<dyn NetSender>> {
        let (inner, shared) = (self.inner.open_sender(queue)?, self.shared.clone());
        Ok(Box::new(FaultSender { inner, shared, queue, refused: false }))
    }

    fn open_receiver(&self, queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        let (inner, shared) = (self.inner.open_receiver(queue)?, self.shared.clone());
        Ok(Box::new(FaultReceiver { inner, shared, queue }))
    }
}

struct FaultSender {
    inner: Box<dyn NetSender>,
    shared: Arc<Mutex<Shared>>,
    queue: u16,
    /// The last frame was told that there is no room, though there may be.
    refused: bool,
}

impl NetSender for FaultSender {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        let error = lock(&self.shared).next(Operation::Send { queue: self.queue });
        self.refused = matches!(error, Some(NetError::Busy));
        error.map_or_else(|| self.inner.send(frame), Err)
    }

    fn commit(&mut self) {
        self.inner.commit();
    }

    fn sources(&self) -> Sources {
        self.inner.sources()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        if self.refused { Progress::More } else { self.inner.prepare_to_wait() }
    }

    fn stop_waiting(&mut self) {
        self.inner.stop_waiting();
    }

    fn copied_bytes(&self) -> u64 {
        self.inner.copied_bytes()
    }
}

struct FaultReceiver {
    inner: Box<dyn NetReceiver>,
    shared: Arc<Mutex<Shared>>,
    queue: u16,
}

impl NetReceiver for FaultReceiver {
    fn receive(&mut self, room: Room<'_>) -> Result<Option<Received>, NetError> {
        let Some(received) = self.inner.receive(room)? else { return Ok(None) };
        let error = lock(&self.shared).next(Operation::Receive { queue: self.queue });
        error.map_or(Ok(Some(received)), Err)
    }

    fn sources(&self) -> Sources {
        self.inner.sources()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        self.inner.prepare_to_wait()
    }

    fn stop_waiting(&mut self) {
        self.inner.stop_waiting();
    }

    fn copied_bytes(&self) -> u64 {
        self.inner.copied_bytes()
    }
}
