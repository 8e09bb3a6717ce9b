//! A network port in a test's hand.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paraslot_backends::net::{
    Frame, NetBackend, NetError, NetInfo, NetReceiver, NetSender, Offload, Offloads, Received, Room,
};
use paraslot_device::{Progress, Source, Sources};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It goes, or comes.
    #[default]
    Through,
    /// The port is busy: the device keeps it.
    Busy,
    /// The port is gone.
    Down,
    /// The host has no buffers.
    NoBuffers,
    /// It is too long.
    TooLong,
    /// It makes no sense.
    Invalid,
    /// EIO.
    Failed,
}

/// All of them.
pub const FATES: [Fate; 7] = [
    Fate::Through,
    Fate::Busy,
    Fate::Down,
    Fate::NoBuffers,
    Fate::TooLong,
    Fate::Invalid,
    Fate::Failed,
];

impl Fate {
    fn error(self) -> Option<NetError> {
        Some(match self {
            Self::Through => return None,
            Self::Busy => NetError::Busy,
            Self::Down => NetError::Down,
            Self::NoBuffers => NetError::NoBuffers,
            Self::TooLong => NetError::TooLong,
            Self::Invalid => NetError::Invalid,
            Self::Failed => NetError::Io(io::Error::from_raw_os_error(5)),
        })
    }
}

/// A frame with what is to be done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is left to be done.
    pub offload: Offload,
}

/// Something that waits in a port to be received.
enum Waiting {
    Frame(Carried),
    Error(Fate),
}

/// A port that sends nothing anywhere: what a device sends is recorded, and what it receives is
/// what the test says. Clones are the same port.
///
/// Unlike a real one it delivers whatever it is told to: frames too short, with offloads that nobody
/// accepted, or that fit nothing.
#[derive(Clone)]
pub struct Port(Arc<Mutex<State>>);

struct State {
    info: NetInfo,
    accepted: Offloads,
    pairs: u16,
    queues: Vec<Queue>,
    recording: bool,
    sent: Vec<Carried>,
    calls: u64,
    fate: Fate,
    /// A frame that comes at this many further looks of the device.
    surprise: Option<(u64, Carried)>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    sender: Bell,
    receiver: Bell,
}

/// What rings for one half of a queue, while it is open.
#[derive(Default)]
struct Bell {
    event: Option<EventFd>,
    armed: bool,
}

impl Bell {
    fn open(&mut self) -> io::Result<EventFd> {
        if self.event.is_some() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let event = EventFd::new(EFD_NONBLOCK)?;
        self.event = Some(event.try_clone()?);
        Ok(event)
    }

    fn ring(&mut self) {
        if let (Some(event), true) = (&self.event, self.armed) {
            event.write(1).expect("the counter cannot be full");
            self.armed = false;
        }
    }
}

impl Port {
    /// A port with `queues` pairs of queues, which records what is sent.
    pub fn new(queues: u16) -> Self {
        let info = NetInfo { queues, mtu: Some(1500), native: Offloads::all() };
        let queues = (0..queues).map(|_| Queue::default()).collect();
        Self(Arc::new(Mutex::new(State {
            info,
            accepted: Offloads::empty(),
            pairs: 1,
            queues,
            recording: true,
            sent: Vec::new(),
            calls: 0,
            fate: Fate::Through,
            surprise: None,
        })))
    }

    /// The same without a record, which would grow.
    pub fn forgetful(queues: u16) -> Self {
        let port = Self::new(queues);
        port.record(false);
        port
    }

    /// Records what is sent from now on, or does not.
    pub fn record(&self, on: bool) {
        self.lock().recording = on;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a frame wait on a queue. One that is not there is as good as none.
    pub fn deliver_to(&self, queue: u16, frame: Carried) {
        self.lock().deliver(queue, Waiting::Frame(frame));
    }

    /// Has a frame without offloads wait on the first queue.
    pub fn deliver(&self, bytes: &[u8]) {
        self.deliver_to(0, Carried { bytes: bytes.to_vec(), offload: Offload::default() });
    }

    /// Has the next receive on a queue after what waits fail; [`Fate::Through`] does nothing.
    pub fn fail_receive(&self, queue: u16, fate: Fate) {
        if fate != Fate::Through {
            self.lock().deliver(queue, Waiting::Error(fate));
        }
    }

    /// Has `frame` come on the first queue after `calls` more calls of the device.
    pub fn surprise(&self, calls: u64, frame: Carried) {
        self.lock().surprise = Some((calls, frame));
    }

    /// What becomes of all frames sent from now on.
    pub fn set_fate(&self, fate: Fate) {
        let mut state = self.lock();
        state.fate = fate;
        if fate != Fate::Busy {
            state.queues.iter_mut().for_each(|queue| queue.sender.ring());
        }
    }

    /// What waits to be received, on all queues.
    pub fn waiting(&self) -> usize {
        self.lock().queues.iter().map(|queue| queue.waiting.len()).sum()
    }

    /// Forgets what waits to be received.
    pub fn drain(&self) {
        self.lock().queues.iter_mut().for_each(|queue| queue.waiting.clear());
    }

    /// Frames sent since the last call.
    pub fn take_sent(&self) -> Vec<Carried> {
        std::mem::take(&mut self.lock().sent)
    }

    /// Calls by the device so far that sent or received, or tried to.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// What the device accepts to be left to it.
    pub fn accepted(&self) -> Offloads {
        self.lock().accepted
    }

    /// Pairs of queues in use.
    pub fn pairs(&self) -> u16 {
        self.lock().pairs
    }

    /// Halves of queues that are open.
    pub fn open_halves(&self) -> usize {
        let open = |bell: &Bell| usize::from(bell.event.is_some());
        self.lock().queues.iter().map(|queue| open(&queue.sender) + open(&queue.receiver)).sum()
    }
}

impl State {
    fn deliver(&mut self, queue: u16, waiting: Waiting) {
        if let Some(queue) = self.queues.get_mut(usize::from(queue)) {
            queue.waiting.push_back(waiting);
            queue.receiver.ring();
        }
    }

    fn call(&mut self) {
        self.calls += 1;
        if let Some((left, frame)) = self.surprise.take() {
            match left.checked_sub(1) {
                Some(left) => self.surprise = Some((left, frame)),
                None => self.deliver(0, Waiting::Frame(frame)),
            }
        }
    }
}

impl NetBackend for Port {
    fn info(&self) -> NetInfo {
        self.lock().info.clone()
    }

    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()> {
        self.lock().accepted = accepted;
        Ok(())
    }

    fn set_queues(&self, pairs: u16) -> io::Result<()> {
        let mut state = self.lock();
        state.pairs = pairs.min(state.info.queues);
        Ok(())
    }

    fn open_sender(&self, queue: u16) -> io::Result<Box<dyn NetSender>> {
        let index = usize::from(queue);
        let mut state = self.lock();
        let half = state.queues.get_mut(index).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Sender { port: self.clone(), index, event: half.sender.open()? }))
    }

    fn open_receiver(&self, queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        let index = usize::from(queue);
        let mut state = self.lock();
        let half = state.queues.get_mut(index).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Receiver { port: self.clone(), index, event: half.receiver.open()? }))
    }
}

struct Sender {
    port: Port,
    index: usize,
    event: EventFd,
}

impl NetSender for Sender {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        let mut state = self.port.lock();
        state.call();
        if let Some(error) = state.fate.error() {
            return Err(error);
        }
        let mut bytes = frame.head.to_vec();
        let mut body = vec![0; frame.body.len()];
        assert_eq!(frame.body.copy_to(&mut body), body.len());
        bytes.append(&mut body);
        assert_eq!(bytes.len(), frame.len());
        if state.recording {
            state.sent.push(Carried { bytes, offload: frame.offload });
        }
        Ok(())
    }

    fn commit(&mut self) {}

    fn sources(&self) -> Sources {
        Sources::from_iter([Source::Event(self.event.as_raw_fd())])
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let mut state = self.port.lock();
        if state.fate != Fate::Busy {
            return Progress::More;
        }
        state.queues[self.index].sender.armed = true;
        Progress::Idle
    }

    fn stop_waiting(&mut self) {
        self.port.lock().queues[self.index].sender.armed = false;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.port.lock().queues[self.index].sender = Bell::default();
    }
}

/// Puts as much of a frame as there is room for.
fn fill(room: Room<'_>, bytes: &[u8]) -> usize {
    match room {
        Room::Guest(buffers) => buffers.copy_from(bytes),
        Room::Host(room) => {
            let len = room.len().min(bytes.len());
            room[..len].copy_from_slice(&bytes[..len]);
            len
        }
    }
}

struct Receiver {
    port: Port,
    index: usize,
    event: EventFd,
}

impl NetReceiver for Receiver {
    fn receive(&mut self, room: Room<'_>) -> Result<Option<Received>, NetError> {
        let mut state = self.port.lock();
        state.call();
        let Carried { bytes, offload } = match state.queues[self.index].waiting.pop_front() {
            None => return Ok(None),
            Some(Waiting::Error(fate)) => return fate.error().map_or(Ok(None), Err),
            Some(Waiting::Frame(frame)) => frame,
        };
        if bytes.len() > room.len() {
            // What a host does that learns of it too late.
            fill(room, &bytes);
            return Err(NetError::TooLong);
        }
        let len = fill(room, &bytes);
        assert_eq!(len, bytes.len());
        Ok(Some(Received { len: bytes.len(), offload }))
    }

    fn sources(&self) -> Sources {
        Sources::from_iter([Source::Event(self.event.as_raw_fd())])
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let mut state = self.port.lock();
        let queue = &mut state.queues[self.index];
        if !queue.waiting.is_empty() {
            return Progress::More;
        }
        queue.receiver.armed = true;
        Progress::Idle
    }

    fn stop_waiting(&mut self) {
        self.port.lock().queues[self.index].receiver.armed = false;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.port.lock().queues[self.index].receiver = Bell::default();
    }
}
