//! Interrupts that are held back for a while (13.4.30, 13.4.31, 13.4.41, 13.4.44).

use std::time::Duration;

use paraslot_device::StateError;
use paraslot_spec::e1000::DELAY_UNIT_NS;
use paraslot_spec::e1000::registers::DELAY;
use serde::{Deserialize, Serialize};

use crate::state::{moment, nanoseconds_left, require};

/// A packet timer, which each packet starts anew, and an absolute one, which the first starts.
#[derive(Debug, Default)]
pub(crate) struct Delay {
    packet: Option<Duration>,
    absolute: Option<Duration>,
}

impl Delay {
    /// A packet came or went at `now`. The delays are in the registers' units; a `packet` delay of
    /// zero is none, and an `absolute` one of zero is no limit. Says whether the interrupt is to be
    /// raised at once.
    pub(crate) fn start(&mut self, now: Duration, packet: u32, absolute: u32) -> bool {
        if packet == 0 {
            self.cancel();
            return true;
        }
        self.packet = Some(now.saturating_add(units(packet)));
        if absolute != 0 && self.absolute.is_none() {
            self.absolute = Some(now.saturating_add(units(absolute)));
        }
        false
    }

    /// Whether a timer has expired by `now`; both are stopped then.
    pub(crate) fn expired(&mut self, now: Duration) -> bool {
        let expired = self.next().is_some_and(|next| next <= now);
        if expired {
            self.cancel();
        }
        expired
    }

    /// Stops both; says whether any was running.
    pub(crate) fn cancel(&mut self) -> bool {
        let Self { packet, absolute } = std::mem::take(self);
        packet.or(absolute).is_some()
    }

    /// When the next of them expires.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.packet.into_iter().chain(self.absolute).min()
    }
}

/// How long the timers that run have left, in nanoseconds.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DelayState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packet: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absolute: Option<u64>,
}

impl Delay {
    pub(crate) fn save(&self, now: Duration) -> DelayState {
        let Self { packet, absolute } = self;
        let left = |then: &Duration| nanoseconds_left(*then, now, units(DELAY));
        DelayState { packet: packet.as_ref().map(left), absolute: absolute.as_ref().map(left) }
    }

    pub(crate) fn restored(state: &DelayState, now: Duration) -> Result<Self, StateError> {
        let DelayState { packet, absolute } = *state;
        require(packet.is_some() || absolute.is_none(), "an absolute timer runs alone")?;
        let at = |left| moment(left, now, units(DELAY));
        Ok(Self { packet: packet.map(at).transpose()?, absolute: absolute.map(at).transpose()? })
    }
}

fn units(delay: u32) -> Duration {
    Duration::from_nanos(u64::from(delay).saturating_mul(DELAY_UNIT_NS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_restart_the_one_timer_and_not_the_other() {
        let mut delay = Delay::default();
        let at = Duration::from_nanos;
        assert!(!delay.expired(at(u64::MAX)));
        assert!(!delay.start(at(0), 10, 25));
        assert_eq!(delay.next(), Some(at(10 * 1024)));
        assert!(!delay.start(at(9 * 1024), 10, 25));
        assert!(!delay.expired(at(19 * 1024 - 1)));
        assert!(!delay.start(at(18 * 1024), 10, 25));
        assert_eq!(delay.next(), Some(at(25 * 1024)));
        assert!(delay.expired(at(25 * 1024)));
        assert!(!delay.expired(at(u64::MAX)));
        assert!(delay.start(at(0), 0, 25));
        assert_eq!(delay.next(), None);
        assert!(!delay.start(at(0), 1, 0));
        assert!(delay.cancel() && !delay.cancel());
    }
}
