//! A port that keeps to limits.

use std::io;
use std::sync::Arc;

use paraslot_device::{Progress, Sources, Timer};

use super::{
    Frame, NetBackend, NetError, NetInfo, NetReceiver, NetSender, Offloads, Received, Room,
};
use crate::limit::Limiter;

/// Another port, each of whose ways keeps to a limit, all queues together; both may be the same.
///
/// What the guest may not send yet stays in its queue, and what it may not receive yet with the port: a
/// host that goes on sending finds the port full. A frame that is still to be cut is one frame.
pub struct LimitedNet<B> {
    inner: B,
    sent: Arc<Limiter>,
    received: Arc<Limiter>,
}

impl<B> LimitedNet<B> {
    /// `inner`, with limits for what the guest sends and what it receives.
    pub fn new(inner: B, sent: Arc<Limiter>, received: Arc<Limiter>) -> Self {
        Self { inner, sent, received }
    }
}

impl<B: NetBackend> NetBackend for LimitedNet<B> {
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
        let inner = self.inner.open_sender(queue)?;
        Ok(Box::new(LimitedSender { inner, asked: false, pace: Pace::new(&self.sent)? }))
    }

    fn open_receiver(&self, queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        let inner = self.inner.open_receiver(queue)?;
        Ok(Box::new(LimitedReceiver { inner, asked: false, pace: Pace::new(&self.received)? }))
    }
}

/// One worker's share of a limit.
struct Pace {
    limiter: Arc<Limiter>,
    timer: Box<dyn Timer>,
    /// It is the limit that the worker waits for, with so many bytes.
    held: Option<u64>,
}

impl Pace {
    fn new(limiter: &Arc<Limiter>) -> io::Result<Self> {
        Ok(Self { limiter: limiter.clone(), timer: limiter.timer()?, held: None })
    }

    /// Whether a frame of so many bytes has to wait.
    fn holds(&mut self, bytes: u64) -> bool {
        let held = self.limiter.wait(bytes).map(|_| bytes);
        if held.is_some() && self.held.is_none() {
            self.limiter.count();
        }
        self.held = held;
        held.is_some()
    }

    fn spend(&self, bytes: usize) {
        self.limiter.spend(bytes as u64);
    }

    /// Asks to be woken when the limit lets a frame through, if that is what is waited for.
    fn prepare_to_wait(&mut self) -> Option<Progress> {
        let Some(wait) = self.limiter.wait(self.held?) else {
            self.stop_waiting();
            return Some(Progress::More);
        };
        self.timer.set(wait);
        Some(Progress::Idle)
    }

    fn stop_waiting(&mut self) {
        self.held = None;
        // Also when it has rung.
        let _ = self.timer.fired();
        self.timer.cancel();
    }
}

struct LimitedSender {
    inner: Box<dyn NetSender>,
    /// It has been asked to wake the worker.
    asked: bool,
    pace: Pace,
}

impl NetSender for LimitedSender {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        let _ = self.pace.timer.fired();
        let asked = std::mem::take(&mut self.asked);
        if self.pace.holds(frame.len() as u64) {
            if asked {
                self.inner.stop_waiting();
            }
            return Err(NetError::Busy);
        }
        self.inner.send(frame)?;
        self.pace.spend(frame.len());
        Ok(())
    }

    fn commit(&mut self) {
        self.inner.commit();
    }

    fn sources(&self) -> Sources {
        let mut sources = self.inner.sources();
        sources.push(self.pace.timer.source());
        sources
    }

    fn prepare_to_wait(&mut self) -> Progress {
        if let Some(progress) = self.pace.prepare_to_wait() {
            return progress;
        }
        self.asked = true;
        self.inner.prepare_to_wait()
    }

    fn stop_waiting(&mut self) {
        self.pace.stop_waiting();
        self.asked = false;
        self.inner.stop_waiting();
    }

    fn copied_bytes(&self) -> u64 {
        self.inner.copied_bytes()
    }
}

struct LimitedReceiver {
    inner: Box<dyn NetReceiver>,
    /// It has been asked to wake the worker.
    asked: bool,
    pace: Pace,
}

impl NetReceiver for LimitedReceiver {
    fn receive(&mut self, room: Room<'_>) -> Result<Option<Received>, NetError> {
        let _ = self.pace.timer.fired();
        let asked = std::mem::take(&mut self.asked);
        // Its length is not known yet.
        if self.pace.holds(1) {
            if asked {
                self.inner.stop_waiting();
            }
            return Ok(None);
        }
        let received = self.inner.receive(room)?;
        if let Some(Received { len, .. }) = received {
            self.pace.spend(len);
        }
        Ok(received)
    }

    fn sources(&self) -> Sources {
        let mut sources = self.inner.sources();
        sources.push(self.pace.timer.source());
        sources
    }

    fn prepare_to_wait(&mut self) -> Progress {
        if let Some(progress) = self.pace.prepare_to_wait() {
            return progress;
        }
        self.asked = true;
        self.inner.prepare_to_wait()
    }

    fn stop_waiting(&mut self) {
        self.pace.stop_waiting();
        self.asked = false;
        self.inner.stop_waiting();
    }

    fn copied_bytes(&self) -> u64 {
        self.inner.copied_bytes()
    }
}
