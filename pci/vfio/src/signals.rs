//! Interrupts: from the kernel's triggers straight to the host's eventfds.
//!
//! The guest's MSI and MSI-X registers are [`ConfigSpace`]'s. What it makes of them arrives at the
//! [`Relay`], and [`Signals`] has the kernel follow. A vector that may send has the host's eventfd as its
//! trigger, and is none of our business: no exit, no thread. One that may not has an eventfd of its own,
//! and what is written there is its pending bit, which goes to the configuration space when someone
//! is about to look, or to open the vector.
//!
//! No message is lost or sent twice when a vector is opened: what its own eventfd holds before goes to
//! the pending bit, which opening sends; what it holds after the trigger was changed is sent then.
//! While the kernel changes a trigger it masks the vector in the hardware, which keeps the message.
//! Hardware without a mask cannot, and hardware that is no bus master need not. So where MSI has none,
//! the guest has none either, and such a vector changes triggers only when bus mastering is turned on
//! or off; what closes it leaves a message behind, as if one had come. The end of a pause sends one to
//! each vector that the guest has in use, whether one came or not. One too many is a look at a
//! queue with nothing in it; one too few is a guest that waits for ever.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paraslot_device::{IntxEventFds, MsiMessage, MsiSink};
use paraslot_pci::ConfigSpace;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::faults::Faults;
use crate::function::{Function, Irq};

/// What the configuration space wants of a vector.
struct Wish {
    /// The host's eventfd, from when the vector was first opened.
    event: Option<EventFd>,
    /// The trigger while no message may be sent.
    held: EventFd,
    /// Messages may be sent.
    open: bool,
}

/// Stands between the configuration space and the host's messages.
pub(crate) struct Relay {
    host: Arc<dyn MsiSink>,
    wishes: Mutex<Wishes>,
}

struct Wishes {
    vectors: Vec<Wish>,
    changed: Vec<u16>,
    /// Nothing may be sent, whatever the configuration space says.
    paused: bool,
}

impl Relay {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MsiSink for Relay {
    fn update(&self, vector: u16, message: MsiMessage, masked: bool) {
        self.host.update(vector, message, masked);
        let mut wishes = self.wishes();
        if let Some(wish) = wishes.vectors.get_mut(usize::from(vector))
            && wish.open == masked
        {
            wish.open = !masked;
            wishes.changed.push(vector);
        }
    }

    /// The configuration space sends only what was pending.
    fn trigger(&self, vector: u16) {
        let wishes = self.wishes();
        let Some(wish) = wishes.vectors.get(usize::from(vector)) else { return };
        let event = if wishes.paused { Some(&wish.held) } else { wish.event.as_ref() };
        match event {
            // An eventfd is full at 2^64 - 2, so this succeeds.
            Some(event) => drop(event.write(1)),
            None => self.host.trigger(vector),
        }
    }

    /// Asks the host, and keeps what it gives from the configuration space, which could not know of a
    /// pause.
    fn event(&self, vector: u16) -> Option<EventFd> {
        let mut wishes = self.wishes();
        let wish = wishes.vectors.get_mut(usize::from(vector))?;
        if wish.event.is_none() {
            wish.event = self.host.event(vector);
        }
        None
    }
}

/// All of a function's interrupts, as the kernel has them.
pub(crate) struct Signals {
    relay: Arc<Relay>,
    /// Of each vector, whether the host's eventfd is its trigger.
    wired: Vec<bool>,
    /// Messages of MSI may be lost while their trigger is changed.
    lossy_msi: bool,
    pin: Option<IntxEventFds>,
    active: Option<Irq>,
    faults: Faults,
}

impl Signals {
    /// As many vectors as the function has of MSI-X, or of MSI if it has no MSI-X, and the pin.
    ///
    /// # Errors
    /// When there are no eventfds left.
    pub(crate) fn new(
        vectors: u16,
        lossy_msi: bool,
        host: Arc<dyn MsiSink>,
        pin: Option<IntxEventFds>,
    ) -> io::Result<Self> {
        let wish = |_| {
            let held = EventFd::new(EFD_NONBLOCK)?;
            Ok(Wish { event: None, held, open: false })
        };
        let made: io::Result<_> = (0..vectors).map(wish).collect();
        let wishes = Wishes { vectors: made?, changed: Vec::new(), paused: false };
        let relay = Arc::new(Relay { host, wishes: Mutex::new(wishes) });
        let wired = vec![false; vectors.into()];
        Ok(Self { relay, wired, lossy_msi, pin, active: None, faults: Faults::default() })
    }

    /// Where the configuration space sends its messages.
    pub(crate) fn relay(&self) -> Arc<Relay> {
        self.relay.clone()
    }

    /// What the kernel refused.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Before the guest looks at `vectors`, or does something that may open them: takes their pending
    /// bits to the configuration space.
    pub(crate) fn collect(&self, config: &ConfigSpace, vectors: Range<u16>) {
        // What is left from before a kind was disabled is of no interest.
        let Some(kind @ (Irq::Msi | Irq::Msix)) = self.active else { return };
        for vector in vectors {
            let at = usize::from(vector);
            if self.wired.get(at).is_none_or(|wired| *wired) {
                continue;
            }
            {
                let wishes = self.relay.wishes();
                // What came in a pause stays until that ends.
                let came = |wish: &Wish| !wishes.paused && wish.held.read().is_ok();
                if !wishes.vectors.get(at).is_some_and(came) {
                    continue;
                }
            }
            match kind {
                Irq::Msix => config.interrupts().trigger_msix(vector),
                _ => config.interrupts().trigger_msi(),
            }
        }
    }

    /// All vectors, for [`collect`](Self::collect).
    pub(crate) fn all(&self) -> Range<u16> {
        0..u16::try_from(self.wired.len()).unwrap_or(u16::MAX)
    }

    /// Has the kernel follow what the guest wrote.
    pub(crate) fn settle(&mut self, function: &dyn Function, config: &ConfigSpace) {
        let interrupts = config.interrupts();
        let (changed, paused) = {
            let mut wishes = self.relay.wishes();
            (std::mem::take(&mut wishes.changed), wishes.paused)
        };
        let kind = if interrupts.msix_enabled() {
            Some(Irq::Msix)
        } else if interrupts.msi_enabled() {
            Some(Irq::Msi)
        } else if self.pin.is_some() && config.intx_allowed() && !paused {
            Some(Irq::Intx)
        } else {
            None
        };
        if kind != self.active {
            self.stop(function);
            let started = kind.map_or(Ok(()), |kind| self.start(function, kind));
            self.faults.check("turn interrupts on", started);
        } else if let Some(kind @ (Irq::Msi | Irq::Msix)) = kind {
            self.rewire(function, kind, changed);
        }
    }

    /// Turns the kind of interrupt that is on off. What is pending is forgotten.
    pub(crate) fn stop(&mut self, function: &dyn Function) {
        if let Some(kind) = self.active.take() {
            let stopped = function.disable(kind);
            self.faults.check("turn interrupts off", stopped);
        }
        self.wired.fill(false);
        for wish in &self.relay.wishes().vectors {
            let _ = wish.held.read();
        }
    }

    /// Sends nothing any more, and forgets nothing, until it is called again to go on.
    pub(crate) fn pause(&mut self, function: &dyn Function, config: &ConfigSpace, paused: bool) {
        {
            let mut wishes = self.relay.wishes();
            let ends = std::mem::replace(&mut wishes.paused, paused) && !paused;
            // Those that the guest has never opened it does not wait for.
            for wish in wishes.vectors.iter().filter(|wish| ends && wish.event.is_some()) {
                let _ = wish.held.write(1);
            }
        }
        if let Some(kind @ (Irq::Msi | Irq::Msix)) = self.active {
            self.rewire(function, kind, self.all().collect());
        }
        self.settle(function, config);
    }

    fn start(&mut self, function: &dyn Function, kind: Irq) -> io::Result<()> {
        if kind == Irq::Intx {
            let Some(pin) = &self.pin else { return Ok(()) };
            function.enable(kind, &[&pin.assert])?;
            self.active = Some(kind);
            return function.unmask_by(&pin.acknowledged);
        }
        let count = if kind == Irq::Msi { 1 } else { self.wired.len() };
        let wishes = self.relay.wishes();
        let vectors = self.wired.iter_mut().zip(&wishes.vectors).take(count);
        let triggers: Vec<_> = vectors
            .map(|(wired, wish)| {
                let event = wish.event.as_ref().filter(|_| wish.open && !wishes.paused);
                *wired = event.is_some();
                event.unwrap_or(&wish.held)
            })
            .collect();
        let enabled = function.enable(kind, &triggers);
        match enabled {
            Ok(()) => self.active = Some(kind),
            Err(_) => self.wired.fill(false),
        }
        enabled
    }

    /// Gives vectors the triggers that they should have, neighbours together.
    fn rewire(&mut self, function: &dyn Function, kind: Irq, mut vectors: Vec<u16>) {
        let Self { relay, wired, lossy_msi, pin: _, active: _, faults } = self;
        let wishes = relay.wishes();
        let host_event = |vector: u16| {
            let wish = wishes.vectors.get(usize::from(vector))?;
            Some((wish, wish.event.as_ref().filter(|_| wish.open && !wishes.paused)))
        };
        let count = if kind == Irq::Msi { 1 } else { u16::MAX };
        vectors.sort_unstable();
        vectors.dedup();
        vectors.retain(|vector| {
            let now = wired.get(usize::from(*vector)).copied();
            let then = host_event(*vector).map(|(_, event)| event.is_some());
            *vector < count && now != then
        });
        for run in vectors.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
            let Some(first) = run.first() else { continue };
            let run = || run.iter().filter_map(|vector| Some((*vector, host_event(*vector)?)));
            let triggers: Vec<_> =
                run().map(|(_, (wish, event))| event.unwrap_or(&wish.held)).collect();
            if let Err(error) = function.retrigger(kind, *first, &triggers) {
                faults.check("change an interrupt's trigger", Err(error));
                continue;
            }
            for (vector, (wish, event)) in run() {
                if let Some(wired) = wired.get_mut(usize::from(vector)) {
                    *wired = event.is_some();
                }
                match event {
                    // What was raised between the last look at it and now.
                    Some(event) if wish.held.read().is_ok() => drop(event.write(1)),
                    Some(_) => {}
                    // What may have been lost just now.
                    None if *lossy_msi && kind == Irq::Msi => drop(wish.held.write(1)),
                    None => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
