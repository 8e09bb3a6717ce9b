//! How interrupts are moderated.

use std::time::Duration;

use paraslot_spec::vmxnet3::{
    COAL_RBC_MAX_RATE, COAL_RBC_MIN_RATE, COAL_STATIC_MAX_DEPTH, COALESCE_ADAPT, COALESCE_DISABLED,
    COALESCE_RBC, COALESCE_STATIC, CoalesceScheme, IML_ADAPTIVE, IML_HIGHEST, IML_NONE,
};

use super::Work;

/// Least time between two interrupts at moderation level 1. Each level doubles it: 1.024 ms at 7.
const LEVEL_1: Duration = Duration::from_micros(16);
/// Adaptive moderation: so many packets pending at a time are some traffic, and so many much.
const SOME: u32 = 8;
const MUCH: u32 = 32;
/// Least time between two interrupts for each.
const SOME_APART: Duration = Duration::from_micros(16);
const MUCH_APART: Duration = Duration::from_micros(64);
/// How long packets that are fewer than the depth of a static scheme wait for more.
pub(super) const STATIC_LIMIT: Duration = Duration::from_millis(1);
/// Greatest least time between two interrupts, of all policies.
pub(super) const MOST_APART: Duration =
    Duration::from_nanos(1_000_000_000 / COAL_RBC_MIN_RATE as u64);

/// When an interrupt is sent that could be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// At once.
    None,
    /// Not before so long after the last.
    Apart(Duration),
    /// The same, for as long as is good for the traffic there is.
    Adaptive,
    /// When there are so many packets; 0 is no say.
    Depth { tx: u32, rx: u32 },
}

impl Policy {
    /// That of a moderation level. `None` if there is no such level.
    pub(crate) fn of_level(level: u8) -> Option<Self> {
        match level {
            IML_NONE => Some(Self::None),
            1..=IML_HIGHEST => Some(Self::Apart(LEVEL_1 * (1 << (level - 1)))),
            IML_ADAPTIVE => Some(Self::Adaptive),
            _ => None,
        }
    }

    /// The level whose policy it is. `None` if it is a coalescing scheme's.
    pub(crate) fn level(self) -> Option<u8> {
        (IML_NONE..=IML_ADAPTIVE).find(|level| Self::of_level(*level) == Some(self))
    }

    /// When `work`, pending since `since`, is to be told of; `None` for at once. `last`: when there
    /// was an interrupt before.
    pub(super) fn due(
        &self,
        work: &Work,
        since: Duration,
        last: Option<Duration>,
    ) -> Option<Duration> {
        let apart = match *self {
            Self::None => return None,
            Self::Depth { tx, rx } => {
                let reached = |count: u32, depth: u32| count != 0 && count >= depth;
                let enough = reached(work.tx, tx) || reached(work.rx, rx);
                return (!enough).then(|| since.saturating_add(STATIC_LIMIT));
            }
            Self::Apart(apart) => apart,
            Self::Adaptive => match work.tx.saturating_add(work.rx) {
                0..SOME => return None,
                SOME..MUCH => SOME_APART,
                _ => MUCH_APART,
            },
        };
        last.map(|last| last.saturating_add(apart))
    }
}

/// A coalescing scheme that was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// The moderation levels decide.
    #[default]
    Disabled,
    Adapt,
    Static {
        tx_depth: u32,
        tx_comp_depth: u32,
        rx_depth: u32,
    },
    Rbc {
        rate: u32,
    },
}

impl Scheme {
    /// What the driver has set. `None` if there is no such thing.
    pub(crate) fn of(scheme: &CoalesceScheme) -> Option<Self> {
        let first = scheme.tx_depth_or_rate.get();
        match scheme.mode.get() {
            COALESCE_DISABLED => Some(Self::Disabled),
            COALESCE_ADAPT => Some(Self::Adapt),
            COALESCE_STATIC => {
                let (tx_comp_depth, rx_depth) = (scheme.tx_comp_depth.get(), scheme.rx_depth.get());
                let right = [first, tx_comp_depth, rx_depth]
                    .iter()
                    .all(|depth| *depth <= COAL_STATIC_MAX_DEPTH);
                right.then_some(Self::Static { tx_depth: first, tx_comp_depth, rx_depth })
            }
            COALESCE_RBC => {
                let right = (COAL_RBC_MIN_RATE..=COAL_RBC_MAX_RATE).contains(&first);
                right.then_some(Self::Rbc { rate: first })
            }
            _ => None,
        }
    }

    /// As the driver is told of it.
    pub(crate) fn told(self) -> CoalesceScheme {
        let mut told = CoalesceScheme::default();
        let mode = match self {
            Self::Disabled => COALESCE_DISABLED,
            Self::Adapt => COALESCE_ADAPT,
            Self::Static { tx_depth, tx_comp_depth, rx_depth } => {
                told.tx_depth_or_rate = tx_depth.into();
                told.tx_comp_depth = tx_comp_depth.into();
                told.rx_depth = rx_depth.into();
                COALESCE_STATIC
            }
            Self::Rbc { rate } => {
                told.tx_depth_or_rate = rate.into();
                COALESCE_RBC
            }
        };
        told.mode = mode.into();
        told
    }

    /// What it makes of an interrupt's moderation level.
    pub(crate) fn policy(self, level: Policy) -> Policy {
        match self {
            Self::Disabled => level,
            Self::Adapt => Policy::Adaptive,
            Self::Static { tx_depth: _, tx_comp_depth, rx_depth } => {
                Policy::Depth { tx: tx_comp_depth, rx: rx_depth }
            }
            Self::Rbc { rate } => Policy::Apart(Duration::from_secs(1) / rate.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    fn work(tx: u32, rx: u32) -> Work {
        Work { tx, rx, urgent: false }
    }

    #[test]
    fn levels_double() {
        assert_eq!(Policy::of_level(0), Some(Policy::None));
        assert_eq!(Policy::of_level(1), Some(Policy::Apart(micros(16))));
        assert_eq!(Policy::of_level(7), Some(Policy::Apart(micros(1024))));
        assert_eq!(Policy::of_level(8), Some(Policy::Adaptive));
        assert_eq!(Policy::of_level(9), None);
        let policy = Policy::Apart(micros(16));
        assert_eq!(policy.due(&work(1, 0), micros(9), None), None);
        assert_eq!(policy.due(&work(1, 0), micros(9), Some(micros(5))), Some(micros(21)));
    }

    #[test]
    fn adaptive_moderation_leaves_single_packets_alone() {
        let due = |packets| Policy::Adaptive.due(&work(packets, 0), micros(0), Some(micros(100)));
        assert_eq!(due(7), None);
        assert_eq!(due(8), Some(micros(116)));
        assert_eq!(due(32), Some(micros(164)));
    }

    #[test]
    fn a_static_scheme_counts_each_direction() {
        let policy = Policy::Depth { tx: 4, rx: 2 };
        let due = |tx, rx| policy.due(&work(tx, rx), micros(10), Some(micros(1)));
        assert_eq!(due(3, 1), Some(micros(1010)));
        assert_eq!(due(4, 0), None);
        assert_eq!(due(0, 2), None);
        // A depth of 0 is one of 1.
        assert_eq!(Policy::Depth { tx: 0, rx: 9 }.due(&work(1, 0), micros(1), None), None);
    }

    #[test]
    fn schemes_are_checked_and_told_as_they_were_set() {
        let scheme = |mode: u32, fields: [u32; 3]| CoalesceScheme {
            mode: mode.into(),
            tx_depth_or_rate: fields[0].into(),
            tx_comp_depth: fields[1].into(),
            rx_depth: fields[2].into(),
        };
        for right in [
            scheme(COALESCE_DISABLED, [0; 3]),
            scheme(COALESCE_ADAPT, [0; 3]),
            scheme(COALESCE_STATIC, [1, 128, 64]),
            scheme(COALESCE_RBC, [100, 0, 0]),
            scheme(COALESCE_RBC, [100_000, 0, 0]),
        ] {
            assert_eq!(Scheme::of(&right).unwrap().told(), right);
        }
        for wrong in [
            scheme(4, [0; 3]),
            scheme(COALESCE_STATIC, [0, 129, 0]),
            scheme(COALESCE_RBC, [99, 0, 0]),
            scheme(COALESCE_RBC, [100_001, 0, 0]),
        ] {
            assert_eq!(Scheme::of(&wrong), None);
        }
        let rbc = Scheme::Rbc { rate: 10_000 };
        assert_eq!(rbc.policy(Policy::None), Policy::Apart(micros(100)));
        assert_eq!(Scheme::Disabled.policy(Policy::Adaptive), Policy::Adaptive);
    }
}
