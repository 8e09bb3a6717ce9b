//! A function's messages.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};

use paraslot_device::{MsiMessage, MsiSink};
use vmm_sys_util::eventfd::EventFd;

use super::{Interrupts, lock};
use crate::{Path, VmError};

/// A function's messages.
pub(super) struct Messages {
    interrupts: Arc<Interrupts>,
    vectors: Mutex<BTreeMap<u16, Vector>>,
}

impl Messages {
    pub(super) fn new(interrupts: Arc<Interrupts>) -> Self {
        Self { interrupts, vectors: Mutex::default() }
    }

    /// Waits until messages that were sent by eventfd have arrived.
    pub(super) fn flush(&self) -> Result<(), VmError> {
        let vectors = lock(&self.vectors);
        let mut events = vectors.values().filter_map(|vector| vector.event.as_ref());
        events.try_for_each(|(event, number)| self.interrupts.flush_event(event, *number))
    }
}

impl Drop for Messages {
    /// The numbers may be others' from now on. Whoever still has an eventfd writes it in vain.
    fn drop(&mut self) {
        let vectors = lock(&self.vectors);
        self.interrupts.disconnect(vectors.values().filter_map(|vector| vector.event.as_ref()));
    }
}

#[derive(Default)]
struct Vector {
    message: MsiMessage,
    event: Option<(EventFd, u32)>,
}

impl MsiSink for Messages {
    fn update(&self, vector: u16, message: MsiMessage, masked: bool) {
        // A masked vector's message need not be routed: nobody sends it.
        if masked {
            return;
        }
        let mut vectors = lock(&self.vectors);
        let vector = match vectors.entry(vector) {
            Entry::Vacant(vacant) => vacant.insert(Vector { message, event: None }),
            Entry::Occupied(occupied) => {
                let vector = occupied.into_mut();
                if vector.message == message {
                    return;
                }
                vector.message = message;
                vector
            }
        };
        if let Some((_, number)) = &vector.event {
            self.interrupts.faults.check(self.interrupts.reroute(*number, message));
        }
    }

    fn trigger(&self, vector: u16) {
        let vectors = lock(&self.vectors);
        let Some(vector) = vectors.get(&vector) else { return };
        match &vector.event {
            // An eventfd is full at 2^64 - 2, so this succeeds.
            Some((event, _)) => drop(event.write(1)),
            None => drop(self.interrupts.faults.check(self.interrupts.send(vector.message))),
        }
    }

    fn event(&self, vector: u16) -> Option<EventFd> {
        if self.interrupts.path == Path::Trap {
            return None;
        }
        let mut vectors = lock(&self.vectors);
        let vector = vectors.entry(vector).or_default();
        if vector.event.is_none() {
            vector.event = self.interrupts.faults.check(self.interrupts.connect(vector.message));
        }
        vector.event.as_ref()?.0.try_clone().ok()
    }
}
