//! The PHY, saved.

use std::collections::BTreeMap;

use paraslot_device::StateError;
use serde::{Deserialize, Serialize};

use super::{KEPT, Phy, Speed};
use crate::state::require;

/// The PHY's state, but for whether the MAC holds it in reset: CTRL says that.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhyState {
    /// The registers that keep what is written to them, by their numbers.
    registers: BTreeMap<u8, u16>,
    cable: bool,
    /// What the last negotiation came to, if anything.
    agreed: Option<Agreed>,
    was_down: bool,
    page: bool,
}

/// A speed in Mb/s, and a duplex mode.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agreed {
    speed: u16,
    full_duplex: bool,
}

const SPEEDS: [(u16, Speed); 3] =
    [(10, Speed::Ten), (100, Speed::Hundred), (1000, Speed::Thousand)];

impl Phy {
    pub(crate) fn save(&self) -> PhyState {
        let Self { kept: _, cable, held: _, agreed, was_down, page } = *self;
        let agreed = agreed.map(|(agreed, full_duplex)| {
            let speed = SPEEDS.iter().find(|(_, speed)| *speed == agreed);
            Agreed { speed: speed.map_or(0, |(number, _)| *number), full_duplex }
        });
        let registers = KEPT.map(|(number, ..)| (number, self.get(number))).into();
        PhyState { registers, cable, agreed, was_down, page }
    }

    /// A PHY as it was saved, held in reset or not.
    pub(crate) fn restored(state: &PhyState, held: bool) -> Result<Self, StateError> {
        let PhyState { registers, cable, agreed, was_down, page } = state;
        let mut phy = Self::new(*cable);
        require(registers.len() == KEPT.len(), "the PHY has other registers")?;
        for (number, keeps, reset) in KEPT {
            let value = registers.get(&number).copied();
            let value = value.filter(|value| (value ^ reset) & !keeps == 0);
            let value = value.ok_or_else(|| StateError::impossible("the PHY's registers"))?;
            phy.set(number, value);
        }
        let agreed = agreed.as_ref().map(|Agreed { speed, full_duplex }| {
            let known = SPEEDS.iter().find(|(number, _)| number == speed);
            let (_, speed) = known.ok_or_else(|| StateError::impossible("the link's speed"))?;
            Ok::<_, StateError>((*speed, *full_duplex))
        });
        phy.agreed = agreed.transpose()?;
        (phy.held, phy.was_down, phy.page) = (held, *was_down, *page);
        Ok(phy)
    }
}
