//! A port with frames for whoever asks: what receiving costs without a network.

use std::io;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use paraslot_device::{Progress, Sources};

use super::bell::{Bell, Claim, lock, queue, several};
use super::parse::HEADERS;
use super::software::Software;
use super::{
    Frame, NetBackend, NetError, NetInfo, NetReceiver, NetSender, Offload, Offloads, Received, Room,
};

#[cfg(test)]
mod tests;

/// How a [`Generator`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// Pairs of queues.
    pub queues: u16,
    /// Frames for each queue, and then no more; `None` for as many as are asked for.
    pub limit: Option<u64>,
    /// What is left to be done to each frame that is made.
    pub offload: Offload,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        Self { queues: 1, limit: None, offload: Offload::default() }
    }
}

type Make = dyn FnMut(u16, &mut [u8]) -> usize + Send;

enum Frames {
    /// The same each time.
    Template(Vec<u8>),
    Made(Mutex<Box<Make>>),
}

/// Delivers frames as fast as they are asked for. What is sent into it is swallowed.
#[derive(Clone)]
pub struct Generator(Arc<Shared>);

struct Shared {
    frames: Frames,
    options: GeneratorOptions,
    queues: Box<[Queue]>,
    active: AtomicU16,
    accepted: AtomicU32,
}

struct Queue {
    sender: Claim,
    receiver: Claim,
    /// Frames made.
    made: AtomicU64,
    bell: Bell,
}

impl Generator {
    /// Delivers what `make` writes: it is given the queue and room for the longest frame, and returns
    /// the length. A queue's frames come in the order in which they are made.
    ///
    /// # Errors
    /// When there is no queue, or the host has no descriptors left.
    pub fn new(
        options: GeneratorOptions,
        make: impl FnMut(u16, &mut [u8]) -> usize + Send + 'static,
    ) -> io::Result<Self> {
        Self::with(options, Frames::Made(Mutex::new(Box::new(make))))
    }

    /// Delivers `frame` again and again, straight into the room if the device takes its offload.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and when the frame and the offload do not fit each other.
    pub fn from_template(options: GeneratorOptions, frame: &[u8]) -> io::Result<Self> {
        let first = &frame[..frame.len().min(HEADERS)];
        options
            .offload
            .check_headers(first, frame.len())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Self::with(options, Frames::Template(frame.to_vec()))
    }

    fn with(options: GeneratorOptions, frames: Frames) -> io::Result<Self> {
        let queues = several(options.queues, |_| {
            let made = AtomicU64::new(0);
            let (sender, receiver) = Default::default();
            Ok(Queue { sender, receiver, made, bell: Bell::new()? })
        })?;
        let (active, accepted) = (AtomicU16::new(1), AtomicU32::new(0));
        Ok(Self(Arc::new(Shared { frames, options, queues, active, accepted })))
    }

    /// Frames made so far, on all queues.
    pub fn made(&self) -> u64 {
        self.0.queues.iter().map(|queue| queue.made.load(Ordering::Relaxed)).sum()
    }
}

impl NetBackend for Generator {
    fn info(&self) -> NetInfo {
        NetInfo { queues: self.0.options.queues, mtu: None, native: Offloads::all() }
    }

    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()> {
        self.0.accepted.store(accepted.bits(), Ordering::Release);
        Ok(())
    }

    fn set_queues(&self, pairs: u16) -> io::Result<()> {
        let pairs = pairs.clamp(1, self.0.options.queues);
        self.0.active.store(pairs, Ordering::Release);
        for queue in &self.0.queues {
            queue.bell.ring();
        }
        Ok(())
    }

    fn open_sender(&self, index: u16) -> io::Result<Box<dyn NetSender>> {
        queue(&self.0.queues, index)?.sender.take()?;
        Ok(Box::new(Swallow { shared: self.0.clone(), index }))
    }

    fn open_receiver(&self, index: u16) -> io::Result<Box<dyn NetReceiver>> {
        let queue = queue(&self.0.queues, index)?;
        queue.receiver.take()?;
        queue.bell.stop();
        let (shared, software) = (self.0.clone(), Software::new());
        Ok(Box::new(GeneratorReceiver { shared, index, software, copied: 0 }))
    }
}

struct Swallow {
    shared: Arc<Shared>,
    index: u16,
}

impl NetSender for Swallow {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        frame.offload.check(frame.len())
    }

    fn commit(&mut self) {}

    fn sources(&self) -> Sources {
        Sources::new()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        Progress::More
    }
}

impl Drop for Swallow {
    fn drop(&mut self) {
        if let Some(queue) = self.shared.queues.get(usize::from(self.index)) {
            queue.sender.release();
        }
    }
}

struct GeneratorReceiver {
    shared: Arc<Shared>,
    index: u16,
    /// Pieces of a frame that the device did not take in one.
    software: Software,
    copied: u64,
}

impl GeneratorReceiver {
    fn queue(&self) -> Option<&Queue> {
        self.shared.queues.get(usize::from(self.index))
    }

    fn active(&self) -> bool {
        self.index < self.shared.active.load(Ordering::Acquire)
    }

    /// Whether another frame may be made.
    fn more(&self) -> bool {
        let made = || self.queue().map_or(u64::MAX, |queue| queue.made.load(Ordering::Relaxed));
        self.shared.options.limit.is_none_or(|limit| made() < limit)
    }

    fn deliver(&mut self, mut room: Room<'_>) -> Result<Option<Received>, NetError> {
        if self.software.next_len().is_some() {
            return self.software.receive(room);
        }
        if !self.more() {
            return Ok(None);
        }
        if let Some(queue) = self.queue() {
            queue.made.fetch_add(1, Ordering::Relaxed);
        }
        let offload = self.shared.options.offload;
        let accepted = self.shared.accepted.load(Ordering::Acquire);
        let accepted = Offloads::from_bits_truncate(accepted);
        match &self.shared.frames {
            Frames::Template(frame) if offload.accepted_by(accepted, frame) => {
                let len = room.write(frame, &[])?;
                return Ok(Some(Received { len, offload }));
            }
            Frames::Template(frame) => {
                let fill = |bytes: &mut [u8]| {
                    bytes[..frame.len()].copy_from_slice(frame);
                    frame.len()
                };
                self.software.load(fill, &offload, accepted)?;
            }
            Frames::Made(make) => {
                let fill = |bytes: &mut [u8]| lock(make)(self.index, bytes);
                self.software.load(fill, &offload, accepted)?;
            }
        }
        self.software.receive(room)
    }
}

impl NetReceiver for GeneratorReceiver {
    fn receive(&mut self, room: Room<'_>) -> Result<Option<Received>, NetError> {
        if !self.active() {
            self.software.clear();
            return Ok(None);
        }
        let guest = matches!(room, Room::Guest(_));
        let received = self.deliver(room)?;
        if let Some(received) = received.filter(|_| guest) {
            self.copied = self.copied.wrapping_add(received.len as u64);
        }
        Ok(received)
    }

    fn sources(&self) -> Sources {
        self.queue().map(|queue| queue.bell.source()).into_iter().collect()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let ready = || self.active() && (self.software.next_len().is_some() || self.more());
        self.queue().map_or(Progress::Idle, |queue| queue.bell.wait_unless(ready))
    }

    fn stop_waiting(&mut self) {
        if let Some(queue) = self.queue() {
            queue.bell.stop();
        }
    }

    fn copied_bytes(&self) -> u64 {
        self.copied
    }
}

impl Drop for GeneratorReceiver {
    fn drop(&mut self) {
        if let Some(queue) = self.queue() {
            queue.receiver.release();
        }
    }
}
