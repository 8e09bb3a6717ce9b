//! Interrupts to a host that has no eventfds for them.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paraslot_device::{
    DeviceError, Executor, IntxLine, MsiSink, Progress, Source, Worker, WorkerHandle,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What the pin's eventfd is among those that are watched; others are vectors.
const PIN: u64 = u64::MAX;
/// Interrupts that are passed on at a time.
const AT_ONCE: usize = 32;

/// What the function and the worker share.
struct Shared {
    epoll: Epoll,
    messages: Arc<dyn MsiSink>,
    line: Arc<dyn IntxLine>,
    /// Held by who passes something on: when it is free, what was read has arrived.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vectors: Vec<(u16, EventFd)>,
    pin: Option<EventFd>,
    asserted: bool,
    /// The server has said that it is asserted since it was last asked.
    said: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, event: &EventFd, name: u64) -> io::Result<()> {
        let interest = EpollEvent::new(EventSet::IN, name);
        self.epoll.ctl(ControlOperation::Add, event.as_raw_fd(), interest)
    }

    /// Passes on what has come; says whether anything had.
    fn pass_on(&self) -> Progress {
        let mut state = self.lock();
        let mut ready = [EpollEvent::default(); AT_ONCE];
        let count = self.epoll.wait(0, &mut ready).unwrap_or(0);
        for event in ready.iter().take(count) {
            match u16::try_from(event.data()) {
                Ok(vector) => pass(&state, &*self.messages, vector),
                Err(_) => self.raise(&mut state),
            }
        }
        if count > 0 { Progress::More } else { Progress::Idle }
    }

    fn raise(&self, state: &mut State) {
        if state.pin.as_ref().is_some_and(|pin| pin.read().is_ok()) {
            state.said = true;
            self.set_level(state, true);
        }
    }

    fn set_level(&self, state: &mut State, asserted: bool) {
        if std::mem::replace(&mut state.asserted, asserted) != asserted {
            self.line.set_level(asserted);
        }
    }
}

fn pass(state: &State, messages: &dyn MsiSink, vector: u16) {
    let found = state.vectors.iter().find(|(other, _)| *other == vector);
    if found.is_some_and(|(_, event)| event.read().is_ok()) {
        messages.trigger(vector);
    }
}

/// Reads eventfds of ours, which a server writes, and raises the host's interrupts.
pub(super) struct Forwarder {
    shared: Arc<Shared>,
    executor: Arc<dyn Executor>,
    worker: Option<Box<dyn WorkerHandle>>,
}

impl Forwarder {
    pub(super) fn new(
        messages: Arc<dyn MsiSink>,
        line: Arc<dyn IntxLine>,
        executor: Arc<dyn Executor>,
    ) -> io::Result<Self> {
        let state = Mutex::default();
        let shared = Arc::new(Shared { epoll: Epoll::new()?, messages, line, state });
        Ok(Self { shared, executor, worker: None })
    }

    /// An eventfd that sends a vector's message.
    pub(super) fn message(&mut self, vector: u16) -> io::Result<EventFd> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        let given = event.try_clone()?;
        self.start()?;
        self.shared.watch(&event, vector.into())?;
        self.shared.lock().vectors.push((vector, event));
        Ok(given)
    }

    /// An eventfd that asserts the pin.
    pub(super) fn pin(&mut self) -> io::Result<EventFd> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        let given = event.try_clone()?;
        self.start()?;
        self.shared.watch(&event, PIN)?;
        self.shared.lock().pin = Some(event);
        Ok(given)
    }

    /// Passes a vector's message on now if it has come, and waits for one that is on its way.
    pub(super) fn flush(&self, vector: u16) {
        pass(&self.shared.lock(), &*self.shared.messages, vector);
    }

    /// Whether the pin is asserted, as far as is known: the server is to be asked again then.
    pub(super) fn asserted(&self) -> bool {
        let mut state = self.shared.lock();
        self.shared.raise(&mut state);
        state.said = false;
        state.asserted
    }

    /// The server was asked, and has answered: makes the level what it says.
    pub(super) fn settle(&self) {
        let mut state = self.shared.lock();
        // The worker may have been faster.
        self.shared.raise(&mut state);
        let said = state.said;
        self.shared.set_level(&mut state, said);
    }

    fn start(&mut self) -> io::Result<()> {
        if self.worker.is_none() {
            let worker = Box::new(ForwardWorker(self.shared.clone()));
            self.worker = Some(self.executor.spawn("vfio-user", worker)?);
        }
        Ok(())
    }
}

struct ForwardWorker(Arc<Shared>);

impl Worker for ForwardWorker {
    fn sources(&self) -> Vec<Source> {
        vec![Source::Readable(self.0.epoll.as_raw_fd())]
    }

    fn service(&mut self) -> Progress {
        self.0.pass_on()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        Progress::Idle
    }

    fn quiesce(&mut self) -> Progress {
        Progress::Idle
    }
}

impl From<io::Error> for super::ClientError {
    fn from(error: io::Error) -> Self {
        Self::Host(DeviceError::Worker(error))
    }
}
