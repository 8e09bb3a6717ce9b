//! Events that the driver is still to be told of (5.6.6.3).

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use paraslot_device::{Bell, StateError};
use paraslot_scsi::{Address, BusEvent, Listener};
use paraslot_spec::virtio_scsi::{Event, Lun, event, feature, reset_reason};
use serde::{Deserialize, Serialize};

use crate::address::{Whom, decode, encode};

/// Most events that wait for buffers. What is more is lost, and the driver is told that some were.
pub const MAX_EVENTS: usize = 256;

/// Hears of what happens on the bus, and keeps it until the event queue has a buffer for it.
pub(crate) struct Events {
    state: Mutex<State>,
    /// Wakes the event queue's worker.
    pub(crate) bell: Bell,
}

#[derive(Default)]
struct State {
    /// Accepted.
    features: u64,
    pending: VecDeque<Event>,
    /// Some were lost since the driver was last told so.
    missed: bool,
}

/// [`Events`], saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsState {
    /// In order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pending: Vec<EventState>,
    missed: bool,
}

/// An [`Event`], saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventState {
    event: u32,
    #[serde(with = "hex")]
    lun: [u8; 8],
    reason: u32,
}

impl EventState {
    fn new(event: &Event) -> Self {
        let Event { event, lun, reason } = *event;
        Self { event: event.get(), lun: lun.0, reason: reason.get() }
    }

    /// The event, if it is one of those that are told with these features, about a unit that can be
    /// there.
    fn read(&self, features: u64, limits: Address) -> Option<Event> {
        let Self { event, lun, reason } = *self;
        let lun = Lun(lun);
        let Some(Whom::Unit(address)) = decode(lun) else { return None };
        let needs = match (event, reason) {
            (event::TRANSPORT_RESET, reset_reason::RESCAN | reset_reason::REMOVED) => {
                feature::HOTPLUG
            }
            (event::PARAM_CHANGE, 0..=0xffff) => feature::CHANGE,
            _ => return None,
        };
        let possible = features & needs != 0
            && encode(address) == lun
            && address.target <= limits.target
            && address.lun <= limits.lun;
        possible.then(|| Event { event: event.into(), lun, reason: reason.into() })
    }
}

impl Events {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), bell: Bell::new()? })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all; from now on the driver hears of what these features allow.
    pub(crate) fn start_over(&self, features: u64) {
        *self.lock() = State { features, ..State::default() };
    }

    /// What [`restore`](Self::restore) takes.
    pub(crate) fn save(&self) -> EventsState {
        let State { features: _, pending, missed } = &*self.lock();
        EventsState { pending: pending.iter().map(EventState::new).collect(), missed: *missed }
    }

    /// Has the driver told of what it was to be told of, with the features that it has accepted and for
    /// a bus with such limits.
    pub(crate) fn restore(&self, saved: &EventsState, limits: Address) -> Result<(), StateError> {
        let EventsState { pending, missed } = saved;
        let mut state = self.lock();
        let any = state.features & (feature::HOTPLUG | feature::CHANGE) != 0;
        let read = pending.iter().map(|event| event.read(state.features, limits));
        let events: Option<VecDeque<_>> = read.collect();
        let events = events.filter(|events| events.len() <= MAX_EVENTS && (any || !missed));
        state.pending = events
            .ok_or_else(|| StateError::impossible("events that the driver is not told of"))?;
        state.missed = *missed;
        Ok(())
    }

    /// Events that wait.
    pub(crate) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// Whether there is something to tell.
    pub(crate) fn any(&self) -> bool {
        let state = self.lock();
        state.missed || !state.pending.is_empty()
    }

    /// What the driver is to be told next.
    pub(crate) fn take(&self) -> Option<Event> {
        let mut state = self.lock();
        let missed = std::mem::take(&mut state.missed);
        let next = state.pending.pop_front();
        if !missed {
            return next;
        }
        let mut next = next.unwrap_or_default();
        next.event |= event::MISSED;
        Some(next)
    }
}

/// What the driver is told of an event, with these features accepted.
fn translate(features: u64, address: Address, event: BusEvent) -> Option<Event> {
    let (needs, kind, reason) = match event {
        BusEvent::Attached => (feature::HOTPLUG, event::TRANSPORT_RESET, reset_reason::RESCAN),
        BusEvent::Detached => (feature::HOTPLUG, event::TRANSPORT_RESET, reset_reason::REMOVED),
        // A CD-ROM's are never reported.
        BusEvent::Changed { removable: true, .. } => return None,
        BusEvent::Changed { asc, ascq, removable: false } => {
            (feature::CHANGE, event::PARAM_CHANGE, u32::from(asc) | u32::from(ascq) << 8)
        }
    };
    let wanted = features & needs != 0;
    wanted.then(|| Event { event: kind.into(), lun: encode(address), reason: reason.into() })
}

impl Listener for Events {
    fn event(&self, address: Address, event: BusEvent) {
        let mut state = self.lock();
        let Some(event) = translate(state.features, address, event) else { return };
        if state.pending.len() < MAX_EVENTS {
            state.pending.push_back(event);
        } else {
            state.missed = true;
        }
        drop(state);
        self.bell.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Address = Address { target: 3, lun: 300 };

    // scsi.eventq.3, scsi.eventq.4, inline.scsi.14
    #[test]
    fn only_what_was_negotiated_is_told() {
        let changed = |removable| BusEvent::Changed { asc: 0x2a, ascq: 9, removable };
        let all = feature::HOTPLUG | feature::CHANGE;
        for (features, what, expected) in [
            (all, BusEvent::Attached, Some((event::TRANSPORT_RESET, reset_reason::RESCAN))),
            (all, BusEvent::Detached, Some((event::TRANSPORT_RESET, reset_reason::REMOVED))),
            (all, changed(false), Some((event::PARAM_CHANGE, 0x092a))),
            (all, changed(true), None),
            (feature::CHANGE, BusEvent::Attached, None),
            (feature::CHANGE, BusEvent::Detached, None),
            (feature::HOTPLUG, changed(false), None),
            (0, BusEvent::Attached, None),
        ] {
            let events = Events::new().unwrap();
            events.start_over(features);
            events.event(UNIT, what);
            assert_eq!(events.any(), expected.is_some());
            let told = events.take();
            assert_eq!(told.map(|event| (event.event.get(), event.reason.get())), expected);
            assert!(told.is_none_or(|event| event.lun.0 == [1, 3, 0x41, 44, 0, 0, 0, 0]));
            assert!(!events.any());
        }
    }

    // scsi.eventq.1, scsi.eventq.2
    #[test]
    fn what_is_lost_is_said_to_be() {
        let events = Events::new().unwrap();
        events.start_over(feature::HOTPLUG);
        for _ in 0..MAX_EVENTS + 2 {
            events.event(UNIT, BusEvent::Attached);
        }
        assert_eq!(events.pending(), MAX_EVENTS);
        let kind = || events.take().map(|event| event.event.get());
        assert_eq!(kind(), Some(event::TRANSPORT_RESET | event::MISSED));
        for _ in 1..MAX_EVENTS {
            assert_eq!(kind(), Some(event::TRANSPORT_RESET));
        }
        assert_eq!((kind(), events.any()), (None, false));
        events.lock().missed = true;
        assert!(events.any());
        assert_eq!(kind(), Some(event::NO_EVENT | event::MISSED));
        assert_eq!((kind(), events.any()), (None, false));
    }

    #[test]
    fn a_new_start_forgets() {
        let events = Events::new().unwrap();
        events.start_over(feature::HOTPLUG);
        for _ in 0..=MAX_EVENTS {
            events.event(UNIT, BusEvent::Attached);
        }
        events.start_over(feature::HOTPLUG);
        assert!(!events.any());
    }
}
