//! A function's INTx pin.

use std::sync::{Arc, Mutex};

use paraslot_device::{IntxEventFds, IntxLine};

use super::{Interrupts, lock};
use crate::Path;

/// A function's INTx pin. Functions share the machine's pins, so each keeps its own level.
///
/// A level is set by ioctl on either path, by whichever thread changes it. An irqfd has no level: it
/// raises a pin for an instant, or (with a resampling eventfd) until the guest acknowledges it, and
/// then has to be told again. A device that says when its line falls would have to be made to forget
/// that. What it would save is the ioctl of a thread that is not the vCPU's. For hardware, whose line
/// is masked by the host's kernel until the guest acknowledges, it is just right: that is what
/// [`eventfds`](IntxLine::eventfds) are for, on the event path. KVM joins them with the levels of the
/// others.
pub(super) struct Pin {
    interrupts: Arc<Interrupts>,
    index: u8,
    level: Mutex<bool>,
    events: Mutex<Option<IntxEventFds>>,
}

impl Pin {
    /// Pin `index` of those for INTx.
    pub(super) fn new(interrupts: Arc<Interrupts>, index: u8) -> Self {
        Self { interrupts, index, level: Mutex::default(), events: Mutex::default() }
    }
}

impl IntxLine for Pin {
    fn set_level(&self, asserted: bool) {
        let mut level = lock(&self.level);
        if *level != asserted {
            *level = asserted;
            self.interrupts.assert_pin(self.index, asserted);
        }
    }

    fn eventfds(&self) -> Option<IntxEventFds> {
        if self.interrupts.path == Path::Trap {
            return None;
        }
        let mut events = lock(&self.events);
        if events.is_none() {
            *events = self.interrupts.connect_pin(self.index).ok();
        }
        let IntxEventFds { assert, acknowledged } = events.as_ref()?;
        let (assert, acknowledged) = (assert.try_clone().ok()?, acknowledged.try_clone().ok()?);
        Some(IntxEventFds { assert, acknowledged })
    }
}

impl Drop for Pin {
    /// Others may be on the same pin: what this function asserts must not stay.
    fn drop(&mut self) {
        self.set_level(false);
        if let Some(events) = &*lock(&self.events) {
            self.interrupts.disconnect_pin(self.index, events);
        }
    }
}
