//! A port whose other side is the test's hand.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use paraslot_device::{Progress, Sources};

use crate::net::bell::{Bell, Claim, lock, queue, several};
use crate::net::parse::HEADERS;
use crate::net::software::Software;
use crate::net::{
    Frame, NetBackend, NetError, NetInfo, NetReceiver, NetSender, Offload, Offloads, Received, Room,
};

/// A backend for a device under test; its [`HostPort`] says what arrives and shows what was sent.
#[derive(Clone)]
pub struct ScriptedNet(Arc<Shared>);

/// The other side of a [`ScriptedNet`].
#[derive(Clone)]
pub struct HostPort(Arc<Shared>);

/// A frame that was sent, as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// All of it.
    pub bytes: Vec<u8>,
    /// What was left to be done.
    pub offload: Offload,
}

struct Shared {
    mtu: Option<u16>,
    queues: Box<[Queue]>,
    settings: Mutex<Settings>,
}

#[derive(Clone, Copy)]
struct Settings {
    active: u16,
    accepted: Offloads,
    hold: bool,
}

struct Queue {
    sender: Claim,
    receiver: Claim,
    room: Bell,
    arrival: Bell,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    arriving: VecDeque<Arriving>,
    /// Of those, so many may be received; the rest is held.
    released: usize,
    batch: Vec<Sent>,
    sent: Vec<Sent>,
    commits: usize,
    /// Frames to be taken until the sender is told that there is no room.
    room: Option<usize>,
}

struct Arriving {
    frame: Sent,
    /// Whatever the device accepts.
    raw: bool,
}

impl ScriptedNet {
    /// A port with so many pairs of queues, and its other side.
    ///
    /// # Panics
    /// When that is none, or the host has no descriptors left.
    pub fn new(queues: u16) -> (Self, HostPort) {
        Self::with_mtu(queues, None)
    }

    /// As [`new`](Self::new), with an MTU to give.
    ///
    /// # Panics
    /// As `new` does.
    pub fn with_mtu(queues: u16, mtu: Option<u16>) -> (Self, HostPort) {
        let queues = several(queues, |_| {
            let (sender, receiver, state) = Default::default();
            Ok(Queue { sender, receiver, room: Bell::new()?, arrival: Bell::new()?, state })
        });
        let settings = Settings { active: 1, accepted: Offloads::empty(), hold: false };
        let queues = queues.expect("queues");
        let shared = Arc::new(Shared { mtu, queues, settings: Mutex::new(settings) });
        (Self(shared.clone()), HostPort(shared))
    }
}

impl HostPort {
    fn queue(&self, index: u16) -> &Queue {
        queue(&self.0.queues, index).expect("a queue of the port")
    }

    fn arrive(&self, index: u16, bytes: &[u8], offload: Offload, raw: bool) {
        let queue = self.queue(index);
        let hold = lock(&self.0.settings).hold;
        {
            let mut state = lock(&queue.state);
            let frame = Sent { bytes: bytes.to_vec(), offload };
            state.arriving.push_back(Arriving { frame, raw });
            if hold {
                return;
            }
            state.released = state.arriving.len();
        }
        queue.arrival.ring();
    }

    /// A frame arrives for queue `index`.
    pub fn push(&self, index: u16, bytes: &[u8]) {
        self.push_with(index, bytes, Offload::default());
    }

    /// A frame arrives with something left to be done, which is done first if the device has not said
    /// that it accepts it.
    pub fn push_with(&self, index: u16, bytes: &[u8], offload: Offload) {
        self.arrive(index, bytes, offload, false);
    }

    /// A frame arrives just so, whatever the device accepts and however little the offload fits it: a
    /// host that cannot be trusted.
    pub fn push_raw(&self, index: u16, bytes: &[u8], offload: Offload) {
        self.arrive(index, bytes, offload, true);
    }

    /// Frames that are pushed from now on are not there for the device yet.
    pub fn hold(&self) {
        lock(&self.0.settings).hold = true;
    }

    /// Lets the oldest `count` frames that are held on queue `index` arrive.
    pub fn release(&self, index: u16, count: usize) {
        let queue = self.queue(index);
        {
            let mut state = lock(&queue.state);
            let (there, released) = (state.arriving.len(), state.released);
            state.released = there.min(released.saturating_add(count));
        }
        queue.arrival.ring();
    }

    /// Lets all arrive, and holds none from now on.
    pub fn open(&self) {
        lock(&self.0.settings).hold = false;
        for index in 0..self.0.queues.len() {
            self.release(u16::try_from(index).expect("a queue of the port"), usize::MAX);
        }
    }

    /// Frames on queue `index` that the device has not received yet.
    pub fn waiting(&self, index: u16) -> usize {
        lock(&self.queue(index).state).arriving.len()
    }

    /// What was sent on queue `index` in batches that have ended; each is shown once.
    pub fn take_sent(&self, index: u16) -> Vec<Sent> {
        std::mem::take(&mut lock(&self.queue(index).state).sent)
    }

    /// Batches that have ended on queue `index`, empty ones too.
    pub fn commits(&self, index: u16) -> usize {
        lock(&self.queue(index).state).commits
    }

    /// Queue `index` takes so many more frames and is busy then; `None` for any number.
    pub fn set_room(&self, index: u16, frames: Option<usize>) {
        let queue = self.queue(index);
        lock(&queue.state).room = frames;
        if frames != Some(0) {
            queue.room.ring();
        }
    }

    /// What the device has said it accepts.
    pub fn accepted(&self) -> Offloads {
        lock(&self.0.settings).accepted
    }

    /// Queue pairs that the device has in use.
    pub fn active(&self) -> u16 {
        lock(&self.0.settings).active
    }
}

impl NetBackend for ScriptedNet {
    fn info(&self) -> NetInfo {
        let queues = u16::try_from(self.0.queues.len()).expect("made from one");
        NetInfo { queues, mtu: self.0.mtu, native: Offloads::all() }
    }

    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()> {
        lock(&self.0.settings).accepted = accepted;
        Ok(())
    }

    fn set_queues(&self, pairs: u16) -> io::Result<()> {
        lock(&self.0.settings).active = pairs.clamp(1, self.info().queues);
        for queue in &self.0.queues {
            queue.arrival.ring();
        }
        Ok(())
    }

    fn open_sender(&self, index: u16) -> io::Result<Box<dyn NetSender>> {
        queue(&self.0.queues, index)?.sender.take()?;
        Ok(Box::new(ScriptedSender { shared: self.0.clone(), index, copied: 0 }))
    }

    fn open_receiver(&self, index: u16) -> io::Result<Box<dyn NetReceiver>> {
        queue(&self.0.queues, index)?.receiver.take()?;
        let (shared, software) = (self.0.clone(), Software::new());
        Ok(Box::new(ScriptedReceiver { shared, index, software, copied: 0 }))
    }
}

struct ScriptedSender {
    shared: Arc<Shared>,
    index: u16,
    copied: u64,
}

impl ScriptedSender {
    fn queue(&self) -> &Queue {
        &self.shared.queues[usize::from(self.index)]
    }
}

impl NetSender for ScriptedSender {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        let len = frame.len();
        frame.offload.check(len)?;
        let mut state = lock(&self.queue().state);
        match &mut state.room {
            Some(0) => return Err(NetError::Busy),
            Some(room) => *room -= 1,
            None => {}
        }
        let mut bytes = vec![0; len];
        assert_eq!(frame.copy_to(&mut bytes), len);
        frame.offload.check_headers(&bytes[..len.min(HEADERS)], len)?;
        state.batch.push(Sent { bytes, offload: frame.offload });
        drop(state);
        self.copied += frame.body.len() as u64;
        Ok(())
    }

    fn commit(&mut self) {
        let mut state = lock(&self.queue().state);
        let mut batch = std::mem::take(&mut state.batch);
        state.sent.append(&mut batch);
        state.commits += 1;
    }

    fn sources(&self) -> Sources {
        Sources::from_iter([self.queue().room.source()])
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let queue = self.queue();
        queue.room.wait_unless(|| lock(&queue.state).room != Some(0))
    }

    fn stop_waiting(&mut self) {
        self.queue().room.stop();
    }

    fn copied_bytes(&self) -> u64 {
        self.copied
    }
}

impl Drop for ScriptedSender {
    fn drop(&mut self) {
        self.commit();
        self.queue().room.stop();
        self.queue().sender.release();
    }
}

struct ScriptedReceiver {
    shared: Arc<Shared>,
    index: u16,
    software: Software,
    copied: u64,
}

impl ScriptedReceiver {
    fn queue(&self) -> &Queue {
        &self.shared.queues[usize::from(self.index)]
    }

    fn settings(&self) -> Settings {
        *lock(&self.shared.settings)
    }

    fn next(&mut self, room: &mut Room<'_>) -> Result<Option<Received>, NetError> {
        let settings = self.settings();
        if self.index >= settings.active {
            self.software.clear();
            return Ok(None);
        }
        if self.software.next_len().is_some() {
            return self.software.receive(room.reborrow());
        }
        let next = {
            let mut state = lock(&self.queue().state);
            let there = state.released > 0;
            state.released -= usize::from(there);
            there.then(|| state.arriving.pop_front()).flatten()
        };
        let Some(Arriving { frame: Sent { bytes, offload }, raw }) = next else { return Ok(None) };
        if raw {
            let len = room.write(&bytes, &[])?;
            return Ok(Some(Received { len, offload }));
        }
        let fill = |memory: &mut [u8]| {
            memory[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        };
        self.software.load(fill, &offload, settings.accepted)?;
        self.software.receive(room.reborrow())
    }
}

impl NetReceiver for ScriptedReceiver {
    fn receive(&mut self, mut room: Room<'_>) -> Result<Option<Received>, NetError> {
        let received = self.next(&mut room)?;
        self.copied += received.map_or(0, |received| room.copied(received.len));
        Ok(received)
    }

    fn sources(&self) -> Sources {
        Sources::from_iter([self.queue().arrival.source()])
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let queue = self.queue();
        queue.arrival.wait_unless(|| {
            let there = || lock(&queue.state).released > 0;
            self.index < self.settings().active && (self.software.next_len().is_some() || there())
        })
    }

    fn stop_waiting(&mut self) {
        self.queue().arrival.stop();
    }

    fn copied_bytes(&self) -> u64 {
        self.copied
    }
}

impl Drop for ScriptedReceiver {
    fn drop(&mut self) {
        self.queue().arrival.stop();
        self.queue().receiver.release();
    }
}
