//! Interrupts as counters, and pins as levels.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use paraslot_device::{IntxLine, MsiMessage as DeviceMessage, MsiSink};
use paraslot_drivers::MsiMessage;
use paraslot_pci::Bdf;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Message address of the first local APIC.
const ADDRESS: u64 = 0xfee0_0000;
/// Vector, and so message data, of interrupt 0.
const BASE: u32 = 0x40;
/// Interrupts that there are.
const INTERRUPTS: usize = 32;
/// How long a wait lasts at most; in tests, so long that one which nothing ends is noticed.
const WAIT: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 1 });

/// The message that raises interrupt `index`.
pub(super) fn message(index: u8) -> MsiMessage {
    MsiMessage { address: ADDRESS, data: BASE + u32::from(index) }
}

fn index_of(message: DeviceMessage) -> Option<usize> {
    let index = usize::try_from(message.data.checked_sub(BASE)?).ok()?;
    (message.address == ADDRESS && index < INTERRUPTS).then_some(index)
}

/// A vector of a function.
type Vector = (Bdf, u16);

/// Counts what is sent, follows the pins' levels, and wakes who waits.
pub(super) struct Controller {
    events: Option<Mutex<Events>>,
    state: Mutex<State>,
    changed: Condvar,
    strays: AtomicU64,
}

#[derive(Default)]
struct State {
    taken: [u64; INTERRUPTS],
    sent: BTreeMap<Vector, u64>,
    /// Messages of the vectors, and whether they are masked.
    routes: BTreeMap<Vector, (DeviceMessage, bool)>,
    /// Functions that assert their pin.
    asserted: BTreeSet<Bdf>,
    /// The interrupts that functions' pins raise.
    pins: BTreeMap<Bdf, usize>,
    /// Whether each of those is being handled: taken, and not ended.
    in_service: [bool; INTERRUPTS],
}

impl State {
    /// Takes interrupt `index` if a pin that raises it is asserted and it is not being handled.
    /// Returns whether it was taken.
    fn take_pin(&mut self, index: usize) -> bool {
        let raises =
            |(bdf, raised): (&Bdf, &usize)| *raised == index && self.asserted.contains(bdf);
        let raised = self.pins.iter().any(raises);
        let (Some(taken), Some(in_service)) =
            (self.taken.get_mut(index), self.in_service.get_mut(index))
        else {
            return false;
        };
        if !raised || *in_service {
            return false;
        }
        *in_service = true;
        *taken += 1;
        true
    }
}

/// Eventfds that stand for vectors.
#[derive(Default)]
struct Events {
    list: Vec<(Vector, EventFd)>,
    waking: Option<Waking>,
}

/// What a thread that waits for eventfds waits on, and an eventfd to wake it by for other reasons.
struct Waking {
    epoll: Arc<Epoll>,
    event: EventFd,
}

impl Waking {
    fn new() -> io::Result<Self> {
        let (epoll, event) = (Epoll::new()?, EventFd::new(EFD_NONBLOCK)?);
        watch(&epoll, &event)?;
        Ok(Self { epoll: Arc::new(epoll), event })
    }
}

fn watch(epoll: &Epoll, event: &EventFd) -> io::Result<()> {
    let interest = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, event.as_raw_fd(), interest)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controller {
    pub(super) fn new(events: bool) -> Self {
        Self {
            events: events.then(Mutex::default),
            state: Mutex::default(),
            changed: Condvar::new(),
            strays: AtomicU64::new(0),
        }
    }

    fn deliver(&self, vector: Vector, times: u64) {
        let mut state = lock(&self.state);
        let route = state.routes.get(&vector).copied();
        *state.sent.entry(vector).or_default() += times;
        // What is sent while masked is a stray too: the function must hold it back.
        let index = route.filter(|(_, masked)| !masked).and_then(|(message, _)| index_of(message));
        match index.and_then(|index| state.taken.get_mut(index)) {
            Some(taken) => *taken += times,
            None => {
                self.strays.fetch_add(times, Ordering::Relaxed);
            }
        }
        self.changed.notify_all();
    }

    /// Wakes who waits, whichever way. Not for what comes out of [`drain`](Self::drain), which is
    /// called by who looks.
    fn wake(&self) {
        self.changed.notify_all();
        let Some(events) = &self.events else { return };
        if let Some(waking) = &lock(events).waking {
            // It only fails when it is full, and then who waits is awake.
            let _ = waking.event.write(1);
        }
    }

    fn set_level(&self, bdf: Bdf, asserted: bool) {
        let mut state = lock(&self.state);
        if asserted {
            state.asserted.insert(bdf);
        } else {
            state.asserted.remove(&bdf);
        }
        let Some(index) = state.pins.get(&bdf).copied() else {
            self.strays.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let taken = state.take_pin(index);
        drop(state);
        if taken {
            self.wake();
        }
    }

    /// Has a function's pin raise interrupt `index`; says whether there is such an interrupt.
    pub(super) fn connect_pin(&self, bdf: Bdf, index: u8) -> bool {
        let index = usize::from(index);
        if index >= INTERRUPTS {
            return false;
        }
        let mut state = lock(&self.state);
        state.pins.insert(bdf, index);
        state.take_pin(index);
        true
    }

    /// Ends the handling of interrupt `index`; if a pin is asserted still it is taken again.
    pub(super) fn end(&self, index: u8) {
        let index = usize::from(index);
        let mut state = lock(&self.state);
        if let Some(in_service) = state.in_service.get_mut(index) {
            *in_service = false;
        }
        state.take_pin(index);
    }

    /// Delivers what was written to eventfds.
    fn drain(&self) {
        let Some(events) = &self.events else { return };
        // Held while delivering: who looks after this has everything that was written before.
        let events = lock(events);
        if let Some(waking) = &events.waking {
            let _ = waking.event.read();
        }
        for (vector, event) in &events.list {
            if let Ok(times) = event.read() {
                self.deliver(*vector, times);
            }
        }
    }

    fn event(&self, vector: Vector) -> Option<EventFd> {
        let mut events = lock(self.events.as_ref()?);
        let event = EventFd::new(EFD_NONBLOCK).ok()?;
        if events.waking.is_none() {
            events.waking = Waking::new().ok();
        }
        watch(&events.waking.as_ref()?.epoll, &event).ok()?;
        let other = event.try_clone().ok()?;
        events.list.push((vector, event));
        Some(other)
    }

    pub(super) fn taken(&self, index: u8) -> u64 {
        self.drain();
        lock(&self.state).taken.get(usize::from(index)).copied().unwrap_or(0)
    }

    pub(super) fn sent(&self, bdf: Bdf, vector: u16) -> u64 {
        self.drain();
        lock(&self.state).sent.get(&(bdf, vector)).copied().unwrap_or(0)
    }

    pub(super) fn strays(&self) -> u64 {
        self.drain();
        self.strays.load(Ordering::Relaxed)
    }

    /// Sleeps until interrupt `index` was taken more than `seen` times, or [`WAIT`] is over.
    pub(super) fn wait(&self, index: u8, seen: u64) {
        let end = Instant::now() + WAIT;
        let epoll = self.events.as_ref().and_then(|events| {
            let events = lock(events);
            events.waking.as_ref().map(|waking| waking.epoll.clone())
        });
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.taken(index) > seen || left.is_zero() {
                return;
            }
            if let Some(epoll) = &epoll {
                let left = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
                // Woken or not, or interrupted by a signal: it looks again.
                let _ = epoll.wait(left.max(1), &mut [EpollEvent::default()]);
            } else {
                let state = lock(&self.state);
                let asleep = |state: &mut State| {
                    state.taken.get(usize::from(index)).is_none_or(|taken| *taken <= seen)
                };
                let waited = self.changed.wait_timeout_while(state, left, asleep);
                drop(waited);
            }
        }
    }
}

/// The interrupts of one function.
pub(super) struct FunctionInterrupts {
    bdf: Bdf,
    controller: Arc<Controller>,
}

impl FunctionInterrupts {
    pub(super) fn new(bdf: Bdf, controller: Arc<Controller>) -> Self {
        Self { bdf, controller }
    }
}

impl MsiSink for FunctionInterrupts {
    fn update(&self, vector: u16, message: DeviceMessage, masked: bool) {
        // What was written before goes where it was sent to.
        self.controller.drain();
        lock(&self.controller.state).routes.insert((self.bdf, vector), (message, masked));
    }

    fn trigger(&self, vector: u16) {
        self.controller.deliver((self.bdf, vector), 1);
        self.controller.wake();
    }

    fn event(&self, vector: u16) -> Option<EventFd> {
        self.controller.event((self.bdf, vector))
    }
}

impl IntxLine for FunctionInterrupts {
    fn set_level(&self, asserted: bool) {
        self.controller.set_level(self.bdf, asserted);
    }
}
