//! The device status, the ISR status and the interrupts: what other threads may touch.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paraslot_device::Interrupt;
use paraslot_pci::Interrupts;
use paraslot_spec::virtio::Status;
use paraslot_spec::virtio::pci::{ISR_CONFIG, ISR_QUEUE, NO_VECTOR};
use paraslot_virtio::TransportSignals;

use crate::state::SignalsState;

/// What the transport shares with its device and the workers.
pub(crate) struct Signals {
    interrupts: Arc<Interrupts>,
    isr: AtomicU8,
    config_vector: AtomicU16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    status: Status,
    /// A reset is under way: nothing is signalled.
    resetting: bool,
    /// The function is paused: configuration changes are kept for later.
    paused: bool,
    kept: bool,
}

impl Signals {
    pub(crate) fn new(interrupts: Arc<Interrupts>) -> Self {
        Self {
            interrupts,
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> Status {
        self.lock().status
    }

    pub(crate) fn add_status(&self, bits: Status) {
        self.lock().status |= bits;
    }

    /// Nothing is signalled from here to [`reset_done`](Self::reset_done).
    pub(crate) fn reset_begins(&self) {
        self.lock().resetting = true;
    }

    /// Everything as after power-on, except that a paused function stays paused.
    pub(crate) fn reset_done(&self) {
        let mut state = self.lock();
        *state = State { paused: state.paused, ..State::default() };
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        self.isr.store(0, Ordering::Release);
        self.sync_intx();
    }

    /// What [`restore`](Self::restore) takes, while paused.
    pub(crate) fn save(&self) -> SignalsState {
        let state = self.lock();
        SignalsState {
            status: state.status.bits(),
            isr: self.isr.load(Ordering::Acquire),
            config_vector: self.config_vector(),
            config_change: state.kept,
        }
    }

    /// Takes a saved state over, after a reset and while paused. The line follows with
    /// [`sync_intx`](Self::sync_intx).
    pub(crate) fn restore(&self, saved: &SignalsState) {
        let mut state = self.lock();
        state.status = Status::from_bits_truncate(saved.status);
        state.kept = saved.config_change;
        self.isr.store(saved.isr, Ordering::Release);
        self.set_config_vector(saved.config_vector);
    }

    /// Keeps configuration changes back, or sends what was kept.
    pub(crate) fn set_paused(&self, paused: bool) {
        let mut state = self.lock();
        state.paused = paused;
        if !paused && std::mem::take(&mut state.kept) {
            self.notify_config(&mut state);
        }
    }

    pub(crate) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Acquire)
    }

    pub(crate) fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(vector, Ordering::Release);
    }

    /// Reads the ISR status, which clears it and deasserts the line (4.1.4.5).
    pub(crate) fn take_isr(&self) -> u8 {
        let isr = self.isr.swap(0, Ordering::AcqRel);
        self.sync_intx();
        isr
    }

    /// Forgets what the ISR status says.
    pub(crate) fn clear_isr(&self) {
        self.take_isr();
    }

    /// Has the INTx line follow the ISR status while MSI-X is disabled. To be called after a change
    /// of either.
    pub(crate) fn sync_intx(&self) {
        self.interrupts.update_intx(|| {
            !self.interrupts.msix_enabled() && self.isr.load(Ordering::Acquire) != 0
        });
    }

    fn notify_config(&self, state: &mut State) {
        if state.resetting || !state.status.contains(Status::DRIVER_OK) {
            return;
        }
        if state.paused {
            state.kept = true;
            return;
        }
        // With MSI-X too (4.1.4.5.1).
        self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        if self.interrupts.msix_enabled() {
            self.interrupts.trigger_msix(self.config_vector());
        } else {
            self.sync_intx();
        }
    }
}

impl TransportSignals for Signals {
    fn config_changed(&self) {
        self.notify_config(&mut self.lock());
    }

    fn needs_reset(&self) {
        let mut state = self.lock();
        if !state.resetting && !state.status.contains(Status::DEVICE_NEEDS_RESET) {
            state.status |= Status::DEVICE_NEEDS_RESET;
            self.notify_config(&mut state);
        }
    }
}

/// What a queue raises: its MSI-X vector, or the ISR status and the pin.
///
/// Finding the vector costs a load and an index, so it is looked up each time, and a driver may
/// change it while the queue runs (4.1.5.1.2).
pub(crate) struct QueueInterrupt {
    signals: Arc<Signals>,
    vector: AtomicU16,
    silent: AtomicBool,
}

impl QueueInterrupt {
    pub(crate) fn new(signals: Arc<Signals>, vector: u16) -> Self {
        Self { signals, vector: AtomicU16::new(vector), silent: AtomicBool::new(false) }
    }

    pub(crate) fn set_vector(&self, vector: u16) {
        self.vector.store(vector, Ordering::Release);
    }

    /// Raises nothing any more: its queue is being reset.
    pub(crate) fn silence(&self) {
        self.silent.store(true, Ordering::Release);
    }
}

impl Interrupt for QueueInterrupt {
    fn trigger(&self) {
        if self.silent.load(Ordering::Acquire) {
            return;
        }
        let Signals { interrupts, isr, .. } = &*self.signals;
        if interrupts.msix_enabled() {
            // There is no vector NO_VECTOR, so nothing happens for it.
            interrupts.trigger_msix(self.vector.load(Ordering::Acquire));
        } else {
            isr.fetch_or(ISR_QUEUE, Ordering::AcqRel);
            self.signals.sync_intx();
        }
    }
}
