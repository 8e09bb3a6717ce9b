//! What is shared, saved.

use std::time::Duration;

use paraslot_device::StateError;
use paraslot_spec::e1000::Ctrl;
use paraslot_spec::e1000::registers::CTRL;
use serde::{Deserialize, Serialize};

use super::{Shared, lock};
use crate::interrupt::IrqState;
use crate::phy::{Phy, PhyState};
use crate::registers::BankState;
use crate::statistics::StatisticsState;

/// The registers, with the interrupts, the statistics and the PHY. What the owner is told of the frames
/// is not in it: that is about the adapter here.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SharedState {
    registers: BankState,
    interrupts: IrqState,
    statistics: StatisticsState,
    phy: PhyState,
}

impl Shared {
    pub(crate) fn save(&self, now: Duration) -> SharedState {
        let Self { bank, irq, statistics, counters: _, bell: _, phy, link: _, starved: _ } = self;
        SharedState {
            registers: bank.save(),
            interrupts: irq.save(now),
            statistics: statistics.save(),
            phy: lock(phy).save(),
        }
    }

    /// Takes over what was saved, after a reset, but for what is told to others: the interrupts and the
    /// PHY, which is returned.
    pub(crate) fn restore(&self, state: &SharedState) -> Result<Phy, StateError> {
        let SharedState { registers, interrupts: _, statistics, phy } = state;
        self.bank.restore(registers)?;
        self.statistics.restore(statistics)?;
        let held = self.bank.get(CTRL) & Ctrl::PHY_RST.bits() != 0;
        Phy::restored(phy, held)
    }

    /// Takes over the interrupts.
    pub(crate) fn restore_interrupts(
        &self,
        state: &SharedState,
        now: Duration,
    ) -> Result<(), StateError> {
        self.irq.restore(&state.interrupts, now)
    }
}
