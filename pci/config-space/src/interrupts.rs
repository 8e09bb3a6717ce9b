//! A function's interrupts: the INTx pin, and the vectors of MSI and MSI-X.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use paraslot_device::{Interrupt, IntxLine, MsiMessage, MsiSink};
use vmm_sys_util::eventfd::EventFd;

use crate::gate::{Gate, Position};

/// A function's INTx pin, MSI and MSI-X vectors, shared between its configuration space, which
/// enables, masks and routes them, and its workers, which raise them.
///
/// Any thread may raise an interrupt at any time; none waits for the function's lock. Once the
/// guest's write to a mask, enable or bus-master bit has completed, no message that it forbids is
/// sent any more, and one that was raised while it was forbidden to send it is pending. A message is
/// a memory write, so it is held back, and kept pending, while bus mastering is off or the function
/// is in D3hot; it is sent when that ends. To the host, a vector is masked for any of these reasons,
/// and while it is disabled.
///
/// Where the host has an eventfd for a vector, it is asked for when the vector is first unmasked, and
/// messages are sent through it from then on.
///
/// A function that has both MSI and MSI-X enabled, which software must not do, uses MSI-X.
pub struct Interrupts {
    sink: Arc<dyn MsiSink>,
    msix: Box<[Vector]>,
    msi: Option<Vector>,
    msix_enabled: AtomicBool,
    msi_enabled: AtomicBool,
    pin: Option<Pin>,
}

impl Interrupts {
    /// Everything disabled, masked and deasserted.
    pub(crate) fn new(
        msix_vectors: u16,
        msi: bool,
        sink: Arc<dyn MsiSink>,
        line: Option<Arc<dyn IntxLine>>,
    ) -> Self {
        Self {
            sink,
            msix: (0..msix_vectors).map(Vector::new).collect(),
            msi: msi.then(|| Vector::new(0)),
            msix_enabled: AtomicBool::new(false),
            msi_enabled: AtomicBool::new(false),
            pin: line.map(|line| Pin { line, state: Mutex::default() }),
        }
    }

    /// Whether MSI-X is enabled.
    pub fn msix_enabled(&self) -> bool {
        self.msix_enabled.load(Ordering::Acquire)
    }

    /// Whether MSI is enabled, and MSI-X is not.
    pub fn msi_enabled(&self) -> bool {
        self.msi_enabled.load(Ordering::Acquire)
    }

    /// MSI-X vectors that the function has.
    pub fn msix_vectors(&self) -> u16 {
        // At most 2048: the builder checks it.
        u16::try_from(self.msix.len()).unwrap_or(u16::MAX)
    }

    /// Raises MSI-X vector `vector`: sends its message, or sets its pending bit while the vector or
    /// the function is masked or bus mastering is off. Without effect where there is no such vector
    /// or MSI-X is disabled.
    pub fn trigger_msix(&self, vector: u16) {
        if let Some(vector) = self.msix.get(usize::from(vector)) {
            vector.raise(&*self.sink);
        }
    }

    /// Raises MSI vector 0, likewise.
    pub fn trigger_msi(&self) {
        if let Some(vector) = &self.msi {
            vector.raise(&*self.sink);
        }
    }

    /// Sets what the function wants of its INTx line: it shows in the status register at once, and
    /// on the line unless INTx is disabled, MSI or MSI-X is enabled, or the function is in D3hot.
    /// Without effect on a function that has no pin.
    pub fn set_intx(&self, asserted: bool) {
        self.update_intx(|| asserted);
    }

    /// Like [`set_intx`](Self::set_intx) with what `wanted` returns. Calls do not overlap, so when
    /// several threads change the causes of the interrupt and each calls this afterwards to look at
    /// them, the line ends up as the causes say, whoever comes last. `wanted` must not set INTx
    /// itself.
    pub fn update_intx(&self, wanted: impl FnOnce() -> bool) {
        if let Some(pin) = &self.pin {
            pin.change(|state| state.wanted = wanted());
        }
    }

    /// A handle that raises MSI-X vector `vector`.
    pub fn msix_vector(self: &Arc<Self>, vector: u16) -> Arc<dyn Interrupt> {
        Arc::new(MsixInterrupt { interrupts: self.clone(), vector })
    }

    /// What the function wants of its INTx line.
    pub(crate) fn intx_wanted(&self) -> bool {
        self.pin.as_ref().is_some_and(|pin| pin.change(|state| state.wanted))
    }

    /// Whether MSI-X vector `vector` is pending.
    pub(crate) fn msix_pending(&self, vector: u16) -> bool {
        self.msix.get(usize::from(vector)).is_some_and(|vector| vector.gate.pending())
    }

    /// Whether MSI vector 0 is pending.
    pub(crate) fn msi_pending(&self) -> bool {
        self.msi.as_ref().is_some_and(|vector| vector.gate.pending())
    }

    /// Makes MSI-X vector `vector` pending, while MSI-X is off; `false` if there is no such vector.
    pub(crate) fn set_msix_pending(&self, vector: u16) -> bool {
        let vector = self.msix.get(usize::from(vector));
        vector.map(|vector| vector.gate.set_pending()).is_some()
    }

    /// Makes MSI vector 0 pending, likewise.
    pub(crate) fn set_msi_pending(&self) -> bool {
        self.msi.as_ref().map(|vector| vector.gate.set_pending()).is_some()
    }

    /// Keeps the line deasserted, or lets it follow what the function wants.
    pub(crate) fn hold_intx(&self, held: bool) {
        if let Some(pin) = &self.pin {
            pin.change(|state| state.held = held);
        }
    }

    pub(crate) fn set_msix_enabled(&self, enabled: bool) {
        self.msix_enabled.store(enabled, Ordering::Release);
    }

    pub(crate) fn set_msi_enabled(&self, enabled: bool) {
        self.msi_enabled.store(enabled, Ordering::Release);
    }

    /// Forgets what is pending and what the function wants of its line.
    pub(crate) fn reset(&self) {
        for vector in self.msix.iter().chain(&self.msi) {
            vector.gate.clear_pending();
        }
        self.set_intx(false);
    }
}

/// One vector of MSI or MSI-X.
struct Vector {
    index: u16,
    gate: Gate,
    /// The host's eventfd, from when the gate was first opened.
    event: OnceLock<EventFd>,
}

impl Vector {
    fn new(index: u16) -> Self {
        Self { index, gate: Gate::new(), event: OnceLock::new() }
    }

    fn raise(&self, sink: &dyn MsiSink) {
        self.gate.raise(|| self.send(sink));
    }

    fn send(&self, sink: &dyn MsiSink) {
        let written = self.event.get().is_some_and(|event| event.write(1).is_ok());
        if !written {
            sink.trigger(self.index);
        }
    }
}

/// The INTx pin.
struct Pin {
    line: Arc<dyn IntxLine>,
    /// Held over `set_level` as well, or two changes could reach the line in the wrong order.
    state: Mutex<PinState>,
}

#[derive(Default)]
struct PinState {
    wanted: bool,
    held: bool,
    level: bool,
}

impl Pin {
    fn change<R>(&self, change: impl FnOnce(&mut PinState) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        let level = state.wanted && !state.held;
        if level != state.level {
            state.level = level;
            self.line.set_level(level);
        }
        result
    }
}

struct MsixInterrupt {
    interrupts: Arc<Interrupts>,
    vector: u16,
}

impl Interrupt for MsixInterrupt {
    fn trigger(&self) {
        self.interrupts.trigger_msix(self.vector);
    }
}

/// Which vector is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Msi,
    Msix(u16),
}

/// The configuration side of the vectors: turns their gates and tells the host.
pub(crate) struct Router {
    interrupts: Arc<Interrupts>,
    /// What the host was last told of each of its vectors: the message, and whether it is masked.
    told: Box<[Option<(MsiMessage, bool)>]>,
}

impl Router {
    pub(crate) fn new(interrupts: Arc<Interrupts>) -> Self {
        let vectors = interrupts.msix.len().max(usize::from(interrupts.msi.is_some()));
        Self { interrupts, told: vec![None; vectors].into() }
    }

    pub(crate) fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Gives a vector its message and position. The host hears of it first when the vector opens and
    /// last when it closes, so it is never asked to send a message that it does not know of or that
    /// it was told is masked.
    pub(crate) fn set(&mut self, source: Source, message: MsiMessage, to: Position) {
        let Self { interrupts, told } = self;
        let vector = match source {
            Source::Msi => interrupts.msi.as_ref(),
            Source::Msix(index) => interrupts.msix.get(usize::from(index)),
        };
        let Some(vector) = vector else { return };
        let from = vector.gate.position();
        if (from, to) == (Position::Off, Position::Off) {
            return;
        }
        let news = (message, to != Position::Open);
        let Some(told) = told.get_mut(usize::from(vector.index)) else { return };
        let changed = *told != Some(news);
        if to == from && !changed {
            return;
        }
        if to != Position::Open {
            // Closing a gate leaves nothing to send.
            let _ = vector.gate.turn(to);
        } else if changed && from == Position::Open {
            // A new message for an open vector: nothing is sent while the host changes its route.
            let _ = vector.gate.turn(Position::Masked);
        }
        if changed {
            *told = Some(news);
            interrupts.sink.update(vector.index, news.0, news.1);
        }
        if to == Position::Open {
            if vector.event.get().is_none()
                && let Some(event) = interrupts.sink.event(vector.index)
            {
                let _ = vector.event.set(event);
            }
            if vector.gate.turn(to) {
                vector.send(&*interrupts.sink);
            }
        }
    }
}

#[cfg(test)]
mod tests;
