//! The HBA's saved state.

use paraslot_device::{DmaSpace, SavedState, StateError};
use paraslot_pci::{ConfigState, PciDevice};
use serde::{Deserialize, Serialize};

use super::Ahci;
use crate::control::PortState;
use crate::hba::bit;

/// What a [`SavedState`] calls it.
const NAME: &str = "ahci";
/// The newest layout of its state.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceState {
    config: ConfigState,
    /// GHC.IE.
    interrupts: bool,
    /// IS.
    pending: u32,
    ports: Vec<PortState>,
}

impl<A: DmaSpace> Ahci<A> {
    pub(crate) fn save_state(&self) -> Result<SavedState, StateError> {
        // Destructured, so that a new field is thought of.
        let Self { config, layout: _, hba, slots, memory: _ } = self;
        let ports = slots.save::<A>()?;
        let (interrupts, pending) = hba.irq.saved();
        let state = DeviceState { config: config.save(), interrupts, pending, ports };
        SavedState::new(NAME, VERSION, &state)
    }

    pub(crate) fn restore_state(&mut self, state: &SavedState) -> Result<(), StateError> {
        if !self.slots.are_paused() {
            return Err(StateError::NotPaused);
        }
        self.reset();
        self.slots.reset_parked::<A>()?;
        let restored = self.try_restore(state);
        if restored.is_err() {
            self.reset();
            self.slots.reset_parked::<A>()?;
        }
        restored
    }

    fn try_restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        let DeviceState { config, interrupts, pending, ports } = state.open(NAME, VERSION)?;
        self.slots.check::<A>(&ports)?;
        let ports_where = |wanted: fn(&PortState) -> bool| {
            let those = (0..).zip(&ports).filter(|(_, port)| wanted(port));
            those.fold(0, |mask, (index, _)| mask | bit(index))
        };
        let asserting = ports_where(|port| port.registers.asserts());
        let resetting = ports_where(|port| port.registers.hba_reset);
        if pending & !ports_where(|_| true) != 0 || asserting & !pending != 0 {
            return Err(StateError::impossible(
                "interrupts of ports that have none, or the reverse",
            ));
        }
        // From here on others see something of it.
        self.config.restore(&config)?;
        self.slots.restore::<A>(ports)?;
        self.hba.irq.restore(interrupts, pending, asserting, resetting);
        Ok(())
    }
}
