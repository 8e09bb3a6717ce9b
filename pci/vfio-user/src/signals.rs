//! The function's interrupts, on their way to the client's eventfds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paraslot_device::{IntxLine, MsiMessage, MsiSink};
use paraslot_spec::pci::msix;
use vmm_sys_util::eventfd::EventFd;

/// A message-signalled interrupt, which the client may hold back.
#[derive(Default)]
struct Vector {
    event: Option<EventFd>,
    masked: bool,
    pending: bool,
}

impl Vector {
    fn raise(&mut self) {
        match &self.event {
            // It fails only if it is full, and then whoever reads it has not missed anything.
            Some(event) if !self.masked => drop(event.write(1)),
            _ => self.pending = true,
        }
    }

    fn release(&mut self) {
        if self.pending && !self.masked && self.event.is_some() {
            self.pending = false;
            self.raise();
        }
    }
}

/// The pin. As VFIO has it, it masks itself when it is raised, and who unmasks it while it is asserted
/// hears of it again.
#[derive(Default)]
struct Pin {
    event: Option<EventFd>,
    asserted: bool,
    masked: bool,
}

impl Pin {
    fn look(&mut self) {
        if let Some(event) = &self.event
            && self.asserted
            && !self.masked
        {
            self.masked = true;
            drop(event.write(1));
        }
    }
}

/// Which message-signalled interrupts are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Msi,
    Msix,
}

/// All interrupts of the function. What comes for an interrupt that has no eventfd is kept, and sent when it
/// has one.
///
/// Each is changed and raised under a lock of its own: when an eventfd has been replaced, nothing is written
/// to the one before.
pub(crate) struct Signals {
    msix: Box<[Mutex<Vector>]>,
    msi: Mutex<Vector>,
    pin: Mutex<Pin>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signals {
    pub(crate) fn new() -> Arc<Self> {
        let msix = (0..msix::MAX_VECTORS).map(|_| Mutex::default()).collect();
        Arc::new(Self { msix, msi: Mutex::default(), pin: Mutex::default() })
    }

    fn change(&self, kind: Kind, vector: u16, change: impl FnOnce(&mut Vector)) {
        let vector = match kind {
            Kind::Msi => (vector == 0).then_some(&self.msi),
            Kind::Msix => self.msix.get(usize::from(vector)),
        };
        if let Some(vector) = vector {
            let mut vector = lock(vector);
            change(&mut vector);
            vector.release();
        }
    }

    /// Gives a vector its eventfd, or takes it away.
    pub(crate) fn assign(&self, kind: Kind, vector: u16, event: Option<EventFd>) {
        self.change(kind, vector, |vector| vector.event = event);
    }

    /// Holds a vector back, or lets it go.
    pub(crate) fn mask(&self, kind: Kind, vector: u16, masked: bool) {
        self.change(kind, vector, |vector| vector.masked = masked);
    }

    /// Raises a vector as if the function had.
    pub(crate) fn raise(&self, kind: Kind, vector: u16) {
        self.change(kind, vector, Vector::raise);
    }

    /// Whether a vector has an eventfd.
    pub(crate) fn assigned(&self, kind: Kind, vector: u16) -> bool {
        match kind {
            Kind::Msi => vector == 0 && lock(&self.msi).event.is_some(),
            Kind::Msix => {
                self.msix.get(usize::from(vector)).is_some_and(|v| lock(v).event.is_some())
            }
        }
    }

    /// Gives the pin its eventfd, or takes it away. Either way it is not masked.
    pub(crate) fn assign_pin(&self, event: Option<EventFd>) {
        let mut pin = lock(&self.pin);
        pin.event = event;
        pin.masked = false;
        pin.look();
    }

    pub(crate) fn mask_pin(&self, masked: bool) {
        let mut pin = lock(&self.pin);
        pin.masked = masked;
        pin.look();
    }

    /// Raises the pin's interrupt as if the function had asserted it.
    pub(crate) fn raise_pin(&self) {
        let mut pin = lock(&self.pin);
        if let Some(event) = &pin.event
            && !pin.masked
        {
            drop(event.write(1));
            pin.masked = true;
        }
    }

    /// Forgets one kind: its eventfds, masks and what is pending.
    pub(crate) fn clear(&self, kind: Kind) {
        match kind {
            Kind::Msi => *lock(&self.msi) = Vector::default(),
            Kind::Msix => self.msix.iter().for_each(|vector| *lock(vector) = Vector::default()),
        }
    }

    /// Forgets everything of a client's. The level of the pin is the function's.
    pub(crate) fn clear_all(&self) {
        self.clear(Kind::Msi);
        self.clear(Kind::Msix);
        self.assign_pin(None);
    }

    /// What is pending here: vectors of MSI-X, and MSI.
    pub(crate) fn pending(&self) -> (Vec<u16>, bool) {
        let msix = (0..).zip(&self.msix).filter(|(_, vector)| lock(vector).pending);
        (msix.map(|(index, _)| index).collect(), lock(&self.msi).pending)
    }

    /// Takes over what was pending elsewhere.
    pub(crate) fn set_pending(&self, msix: &[u16], msi: bool) {
        self.forget_pending();
        msix.iter().for_each(|vector| self.raise(Kind::Msix, *vector));
        if msi {
            self.raise(Kind::Msi, 0);
        }
    }

    /// Forgets what is pending: the function was reset.
    pub(crate) fn forget_pending(&self) {
        for vector in self.msix.iter().chain([&self.msi]) {
            lock(vector).pending = false;
        }
    }
}

impl MsiSink for Signals {
    /// The client knows the messages; the function's are not.
    fn update(&self, _vector: u16, _message: MsiMessage, _masked: bool) {}

    fn trigger(&self, vector: u16) {
        // The function has one kind on at a time, and does not say which. One that nobody has asked for yet
        // is kept for whichever comes: a look too many is nothing, one too few is a guest that waits.
        let (msix, msi) = (self.assigned(Kind::Msix, vector), self.assigned(Kind::Msi, vector));
        if msix || !msi {
            self.raise(Kind::Msix, vector);
        }
        if !msix && vector == 0 {
            self.raise(Kind::Msi, vector);
        }
    }

    /// None: the function would keep it, and the client replaces it.
    fn event(&self, _vector: u16) -> Option<EventFd> {
        None
    }
}

impl IntxLine for Signals {
    fn set_level(&self, asserted: bool) {
        let mut pin = lock(&self.pin);
        pin.asserted = asserted;
        pin.look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    fn event() -> (EventFd, EventFd) {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        (event.try_clone().unwrap(), event)
    }

    fn read(event: &EventFd) -> u64 {
        event.read().unwrap_or(0)
    }

    #[test]
    fn a_message_without_an_eventfd_waits_for_one() {
        let signals = Signals::new();
        let (given, seen) = event();
        signals.trigger(3);
        signals.trigger(3);
        signals.assign(Kind::Msix, 3, Some(given));
        assert_eq!(read(&seen), 1);
        signals.trigger(3);
        assert_eq!(read(&seen), 1);
        signals.assign(Kind::Msix, 3, None);
        signals.trigger(3);
        assert_eq!(read(&seen), 0);
        signals.clear(Kind::Msix);
        let (given, seen) = event();
        signals.assign(Kind::Msix, 3, Some(given));
        assert_eq!(read(&seen), 0, "it was forgotten");
        // There are no such vectors.
        signals.trigger(u16::MAX);
        signals.assign(Kind::Msi, 1, None);
    }

    #[test]
    fn a_masked_message_waits_until_it_is_unmasked() {
        let signals = Signals::new();
        let (given, seen) = event();
        signals.assign(Kind::Msi, 0, Some(given));
        signals.trigger(0);
        assert_eq!(read(&seen), 1);
        signals.mask(Kind::Msi, 0, true);
        signals.trigger(0);
        signals.raise(Kind::Msi, 0);
        assert_eq!(read(&seen), 0);
        signals.mask(Kind::Msi, 0, false);
        assert_eq!(read(&seen), 1);
        signals.mask(Kind::Msi, 0, true);
        signals.trigger(0);
        signals.forget_pending();
        signals.mask(Kind::Msi, 0, false);
        assert_eq!(read(&seen), 0);
    }

    #[test]
    fn message_0_goes_to_the_kind_that_has_an_eventfd() {
        let signals = Signals::new();
        let (msi, msi_seen) = event();
        let (msix, msix_seen) = event();
        signals.assign(Kind::Msi, 0, Some(msi));
        signals.trigger(0);
        assert_eq!(read(&msi_seen), 1);
        signals.assign(Kind::Msi, 0, None);
        signals.assign(Kind::Msix, 0, Some(msix));
        signals.trigger(0);
        assert_eq!((read(&msi_seen), read(&msix_seen)), (0, 1));
    }

    #[test]
    fn the_pin_masks_itself_and_looks_again_when_it_is_unmasked() {
        let signals = Signals::new();
        let (given, seen) = event();
        signals.set_level(true);
        signals.assign_pin(Some(given));
        assert_eq!(read(&seen), 1, "it was asserted");
        signals.set_level(false);
        signals.set_level(true);
        assert_eq!(read(&seen), 0, "it is masked");
        signals.mask_pin(false);
        assert_eq!(read(&seen), 1, "it is asserted still");
        signals.set_level(false);
        signals.mask_pin(false);
        assert_eq!(read(&seen), 0);
        signals.set_level(true);
        assert_eq!(read(&seen), 1);
        signals.set_level(false);
        signals.mask_pin(false);
        signals.mask_pin(true);
        signals.set_level(true);
        assert_eq!(read(&seen), 0);
        signals.assign_pin(None);
        signals.set_level(false);
        let (given, seen) = event();
        signals.assign_pin(Some(given));
        signals.raise_pin();
        signals.raise_pin();
        assert_eq!(read(&seen), 1, "it masks itself then, too");
    }
}
