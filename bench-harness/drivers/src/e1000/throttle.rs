//! Interrupt throttling: how often the controller may interrupt, and how that follows the traffic.

use paraslot_spec::e1000::ITR_UNIT_NS;

/// How many interrupts a second the controller may raise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Throttle {
    /// 4,000 to 20,000, as the traffic since the last interrupt suggests: Linux's default
    /// (`InterruptThrottleRate=3`). It costs a register write whenever the figure changes.
    #[default]
    Adaptive,
    /// So many, at least 100 and at most 100,000.
    Fixed(u32),
    /// As many as there are causes.
    Off,
}

/// What the traffic is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Traffic {
    /// Few or small packets: 20,000 interrupts a second are allowed.
    Quick,
    /// Much: 4,000.
    Bulk,
}

/// Rate of [`Traffic::Quick`], and the one to begin with.
const QUICK: u32 = 20_000;
/// Rate of [`Traffic::Bulk`], and of every link that is slower than a gigabit.
const BULK: u32 = 4_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Packets and bytes since the last interrupt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub(super) packets: u32,
    pub(super) bytes: u32,
}

impl Amount {
    pub(super) fn add(&mut self, packets: u32, bytes: u32) {
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Traffic {
    /// What one direction's traffic is like, after this much of it.
    fn after(self, amount: Amount) -> Self {
        let Amount { packets, bytes } = amount;
        // Nothing says nothing.
        let Some(size) = bytes.checked_div(packets) else { return self };
        let bulk = match self {
            Self::Quick if bytes > 10_000 => packets < 10 || size > 1200,
            Self::Quick => size > 2000,
            Self::Bulk if bytes > 25_000 => packets <= 35,
            Self::Bulk => bytes >= 6000,
        };
        if bulk { Self::Bulk } else { Self::Quick }
    }
}

/// The state of it.
#[derive(Debug)]
pub(super) struct Throttling {
    throttle: Throttle,
    rate: u32,
    transmit: Traffic,
    receive: Traffic,
    pub(super) sent: Amount,
    pub(super) received: Amount,
}

/// What ITR is set to for a rate.
fn register(rate: u32) -> u32 {
    let interval = SECOND_NS / (u64::from(rate).max(1) * ITR_UNIT_NS);
    u32::from(u16::try_from(interval).unwrap_or(u16::MAX))
}

impl Throttling {
    pub(super) fn new(throttle: Throttle) -> Self {
        Self {
            throttle,
            rate: QUICK,
            transmit: Traffic::Quick,
            receive: Traffic::Quick,
            sent: Amount::default(),
            received: Amount::default(),
        }
    }

    /// What ITR is to be at first.
    pub(super) fn first(&self) -> Option<u32> {
        match self.throttle {
            Throttle::Adaptive => Some(register(self.rate)),
            Throttle::Fixed(rate) => Some(register(rate)),
            Throttle::Off => None,
        }
    }

    /// An interrupt came.
    pub(super) fn begin(&mut self) {
        (self.sent, self.received) = (Amount::default(), Amount::default());
    }

    /// Its handling is over. What ITR is to be now, if that is another value.
    pub(super) fn end(&mut self, gigabit: bool) -> Option<u32> {
        if self.throttle != Throttle::Adaptive {
            return None;
        }
        let wanted = if gigabit {
            self.transmit = self.transmit.after(self.sent);
            self.receive = self.receive.after(self.received);
            match self.transmit.max(self.receive) {
                Traffic::Quick => QUICK,
                Traffic::Bulk => BULK,
            }
        } else {
            BULK
        };
        if wanted == self.rate {
            return None;
        }
        // Down at once, up by and by.
        self.rate = wanted.min(self.rate + wanted / 4);
        Some(register(self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ITR is after an interrupt that so many received packets of so many bytes in all caused.
    fn after(throttling: &mut Throttling, packets: u32, bytes: u32) -> Option<u32> {
        throttling.begin();
        throttling.received.add(packets, bytes);
        throttling.end(true)
    }

    #[test]
    fn bulk_slows_interrupts_at_once_and_quiet_quickens_them_step_by_step() {
        let mut throttling = Throttling::new(Throttle::Adaptive);
        assert_eq!(throttling.first(), Some(195));
        assert_eq!(after(&mut throttling, 1, 60), None);
        assert_eq!(after(&mut throttling, 10, 15_140), Some(976));
        // Still bulk, and nothing that says otherwise.
        assert_eq!(after(&mut throttling, 20, 30_280), None);
        assert_eq!(after(&mut throttling, 0, 0), None);
        let steps = [Some(434), Some(279), Some(205), Some(195), None];
        assert_eq!(steps.map(|_| after(&mut throttling, 1, 60)), steps);
    }

    #[test]
    fn the_busier_direction_decides() {
        let mut throttling = Throttling::new(Throttle::Adaptive);
        throttling.sent.add(45, 65_536);
        throttling.received.add(1, 60);
        assert_eq!(throttling.end(true), Some(976));
        throttling.begin();
        throttling.received.add(1, 60);
        // Of what was sent nothing is known.
        assert_eq!(throttling.end(true), None);
    }

    #[test]
    fn where_the_classes_begin() {
        let class = |class: Traffic, packets, bytes| class.after(Amount { packets, bytes });
        use Traffic::{Bulk, Quick};
        assert_eq!(class(Quick, 9, 10_001), Bulk);
        assert_eq!(class(Quick, 10, 10_001), Quick);
        assert_eq!(class(Quick, 10, 12_010), Bulk);
        assert_eq!(class(Quick, 1, 2001), Bulk);
        assert_eq!(class(Quick, 1, 2000), Quick);
        assert_eq!(class(Bulk, 36, 25_001), Quick);
        assert_eq!(class(Bulk, 36, 25_000), Bulk);
        assert_eq!(class(Bulk, 35, 25_001), Bulk);
        assert_eq!(class(Bulk, 4, 5999), Quick);
    }

    #[test]
    fn slower_links_and_fixed_rates_do_not_follow_the_traffic() {
        let mut throttling = Throttling::new(Throttle::Adaptive);
        assert_eq!((throttling.end(false), throttling.end(false)), (Some(976), None));
        for (throttle, first) in [
            (Throttle::Fixed(8000), Some(488)),
            (Throttle::Fixed(0), Some(0xffff)),
            (Throttle::Off, None),
        ] {
            let mut throttling = Throttling::new(throttle);
            assert_eq!(throttling.first(), first);
            assert_eq!(after(&mut throttling, 10, 15_140), None);
        }
    }
}
