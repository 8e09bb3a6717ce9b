//! Notifications held back (5.1.9.5.10).

use std::sync::Arc;
use std::time::Duration;

use paraslot_device::{Clock, DeviceError, Source, Timer};
use serde::{Deserialize, Serialize};

/// How long notifications of a queue are held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Coalesce {
    pub(crate) max_packets: u32,
    pub(crate) max_usecs: u32,
}

impl Coalesce {
    /// There is a notification after every packet.
    fn is_off(self) -> bool {
        self.max_packets == 0 || self.max_usecs == 0
    }
}

/// Decides when one queue notifies.
pub(crate) struct Coalescer {
    clock: Arc<dyn Clock>,
    timer: Box<dyn Timer>,
    last: Coalesce,
    /// Packets that the driver has not been told of.
    held: u32,
    /// When the first of them was.
    since: Duration,
}

impl Coalescer {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Result<Self, DeviceError> {
        let timer = clock.timer().map_err(DeviceError::Worker)?;
        let last = Coalesce::default();
        Ok(Self { clock, timer, last, held: 0, since: Duration::ZERO })
    }

    pub(crate) fn source(&self) -> Source {
        self.timer.source()
    }

    /// Whether the driver is to be notified now that there are `packets` more. To be called with 0 too:
    /// time may be up, or the parameters may have changed.
    pub(crate) fn due(&mut self, coalesce: Coalesce, packets: u32) -> bool {
        let changed = std::mem::replace(&mut self.last, coalesce) != coalesce;
        if packets == 0 && self.held == 0 {
            return false;
        }
        let first = self.held == 0;
        self.held = self.held.saturating_add(packets);
        if coalesce.is_off() || self.held >= coalesce.max_packets {
            return self.flush();
        }
        if first || changed {
            let now = self.clock.now();
            if first {
                self.since = now;
            }
            let end = self.since.saturating_add(Duration::from_micros(coalesce.max_usecs.into()));
            self.timer.set(end.saturating_sub(now));
        }
        self.timer.fired() && self.flush()
    }

    /// Packets that the driver has not been told of.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// Holds back what another did. The time for that begins anew.
    pub(crate) fn hold(&mut self, packets: u32) {
        self.held = packets;
        self.since = self.clock.now();
    }

    /// Holds back nothing any more; whether anything was.
    pub(crate) fn flush(&mut self) -> bool {
        if self.timer.is_set() {
            self.timer.cancel();
        }
        std::mem::take(&mut self.held) != 0
    }
}

#[cfg(test)]
mod tests {
    use paraslot_device::ManualClock;

    use super::*;

    const PARAMETERS: Coalesce = Coalesce { max_packets: 15, max_usecs: 10 };

    fn coalescer() -> (ManualClock, Coalescer) {
        let clock = ManualClock::new();
        let coalescer = Coalescer::new(Arc::new(clock.clone())).unwrap();
        (clock, coalescer)
    }

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    // The example of 5.1.9.5.10.2.
    #[test]
    fn whichever_limit_is_reached_first() {
        let (clock, mut coalescer) = coalescer();
        assert!(!coalescer.due(PARAMETERS, 0));
        assert!(!coalescer.due(PARAMETERS, 14));
        assert_eq!(clock.next(), Some(micros(10)));
        assert!(coalescer.due(PARAMETERS, 1));
        assert_eq!(clock.next(), None);
        assert!(!coalescer.due(PARAMETERS, 1));
        clock.advance(micros(9));
        // Counted from the first packet, not the last.
        assert!(!coalescer.due(PARAMETERS, 1));
        clock.advance(micros(1));
        assert!(coalescer.due(PARAMETERS, 0));
        assert!(!coalescer.due(PARAMETERS, 0));
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn without_either_limit_each_packet_counts() {
        let (clock, mut coalescer) = coalescer();
        for off in [(0, 0), (0, 10), (10, 0)] {
            let off = Coalesce { max_packets: off.0, max_usecs: off.1 };
            assert!(coalescer.due(off, 1));
            assert!(!coalescer.due(off, 0));
        }
        assert_eq!(clock.next(), None);
    }

    // 5.1.9.5.10.4: with new parameters the conditions are looked at anew.
    #[test]
    fn changed_parameters_count_at_once() {
        let (clock, mut coalescer) = coalescer();
        assert!(!coalescer.due(PARAMETERS, 10));
        assert!(coalescer.due(Coalesce { max_packets: 8, ..PARAMETERS }, 0));
        assert!(!coalescer.due(PARAMETERS, 1));
        clock.advance(micros(6));
        assert!(!coalescer.due(Coalesce { max_usecs: 8, ..PARAMETERS }, 0));
        assert_eq!(clock.next(), Some(micros(2)));
        assert!(coalescer.due(Coalesce { max_usecs: 5, ..PARAMETERS }, 0));
        assert!(!coalescer.due(PARAMETERS, 1));
        assert!(coalescer.due(Coalesce::default(), 0));
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn what_another_held_is_held_for_as_long_again() {
        let (clock, mut coalescer) = coalescer();
        clock.advance(micros(100));
        coalescer.hold(3);
        assert!(!coalescer.due(PARAMETERS, 0));
        assert_eq!(clock.next(), Some(micros(10)));
        clock.advance(micros(10));
        assert!(coalescer.due(PARAMETERS, 0));
        coalescer.hold(3);
        assert!(coalescer.due(Coalesce::default(), 0));
    }

    #[test]
    fn what_is_held_can_be_let_go() {
        let (clock, mut coalescer) = coalescer();
        assert!(!coalescer.flush());
        assert!(!coalescer.due(PARAMETERS, 3));
        assert!(coalescer.flush());
        assert_eq!(clock.next(), None);
        assert!(!coalescer.flush());
        let most = Coalesce { max_packets: u32::MAX, max_usecs: u32::MAX };
        assert!(!coalescer.due(most, u32::MAX - 1));
        assert!(coalescer.due(most, 5));
    }
}
