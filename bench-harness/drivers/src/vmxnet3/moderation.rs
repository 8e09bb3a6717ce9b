//! How often the adapter interrupts.

use paraslot_spec::vmxnet3::{
    COAL_RBC_MAX_RATE, COAL_RBC_MIN_RATE, COAL_STATIC_MAX_DEPTH, COALESCE_ADAPT, COALESCE_DISABLED,
    COALESCE_RBC, COALESCE_STATIC, CoalesceScheme, IML_ADAPTIVE, IML_HIGHEST, IML_NONE,
};

use crate::Error;

/// How much each interrupt is moderated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moderation {
    /// As the adapter sees fit, which is what Linux asks for.
    #[default]
    Adaptive,
    /// Not at all.
    None,
    /// From 1, a little, to 7, most.
    Level(u8),
}

impl Moderation {
    pub(super) fn check(self) -> Result<(), Error> {
        match self {
            Self::Level(level) if !(1..=IML_HIGHEST).contains(&level) => {
                Err(Error::Request("the level of moderation"))
            }
            _ => Ok(()),
        }
    }

    /// As the adapter is told.
    pub(super) fn level(self) -> u8 {
        match self {
            Self::Adaptive => IML_ADAPTIVE,
            Self::None => IML_NONE,
            Self::Level(level) => level,
        }
    }
}

/// By what the adapter gathers packets for an interrupt, of revision 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalescing {
    /// It does not.
    Disabled,
    /// As it sees fit.
    Adaptive,
    /// By their number, each 0 to 128.
    Static {
        /// Frames sent at a time.
        transmit: u8,
        /// Frames that were sent, for an interrupt.
        transmitted: u8,
        /// Frames that have arrived, for an interrupt.
        received: u8,
    },
    /// So many interrupts a second at most, 100 to 100,000.
    Rate(u32),
}

impl Coalescing {
    pub(super) fn check(self) -> Result<(), Error> {
        let right = match self {
            Self::Disabled | Self::Adaptive => true,
            Self::Static { transmit, transmitted, received } => [transmit, transmitted, received]
                .into_iter()
                .all(|depth| u32::from(depth) <= COAL_STATIC_MAX_DEPTH),
            Self::Rate(rate) => (COAL_RBC_MIN_RATE..=COAL_RBC_MAX_RATE).contains(&rate),
        };
        if right { Ok(()) } else { Err(Error::Request("the coalescing")) }
    }

    /// As the adapter is told.
    pub(super) fn scheme(self) -> CoalesceScheme {
        let mut scheme = CoalesceScheme::default();
        let mode = match self {
            Self::Disabled => COALESCE_DISABLED,
            Self::Adaptive => COALESCE_ADAPT,
            Self::Static { transmit, transmitted, received } => {
                scheme.tx_depth_or_rate.set(transmit.into());
                scheme.tx_comp_depth.set(transmitted.into());
                scheme.rx_depth.set(received.into());
                COALESCE_STATIC
            }
            Self::Rate(rate) => {
                scheme.tx_depth_or_rate.set(rate);
                COALESCE_RBC
            }
        };
        scheme.mode.set(mode);
        scheme
    }
}
