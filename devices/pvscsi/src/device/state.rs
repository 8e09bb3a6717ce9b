//! The adapter's saved state.

use paraslot_device::{DmaSpace, SavedState, StateError};
use paraslot_pci::{ConfigState, PciDevice};
use paraslot_scsi::BusState;
use paraslot_spec::pvscsi::Intr;
use serde::{Deserialize, Serialize};

use super::Pvscsi;
use crate::command::CommandState;
use crate::engine::EngineState;
use crate::shared::lock;

/// What a [`SavedState`] calls it.
const NAME: &str = "pvscsi";
/// The newest layout of its state.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceState {
    config: ConfigState,
    command: CommandState,
    interrupt_status: u32,
    interrupt_mask: u32,
    engine: EngineState,
    bus: BusState,
}

impl<A: DmaSpace> Pvscsi<A> {
    pub(crate) fn save_state(&self) -> Result<SavedState, StateError> {
        // Destructured, so that a new field is thought of.
        let Self { config, layout: _, shared, engine, bus, commands, patience: _, runner: _ } =
            self;
        // Whoever has rung, and whether the driver has to make room: the worker looks when it starts.
        let state = DeviceState {
            engine: lock(engine).save()?,
            config: config.save(),
            command: commands.save(),
            interrupt_status: shared.irq.status(),
            interrupt_mask: shared.irq.mask(),
            bus: bus.save(),
        };
        SavedState::new(NAME, VERSION, &state)
    }

    pub(crate) fn restore_state(&mut self, state: &SavedState) -> Result<(), StateError> {
        if !lock(&self.engine).is_paused() {
            return Err(StateError::NotPaused);
        }
        self.reset();
        let restored = self.try_restore(state);
        if restored.is_err() {
            self.reset();
        }
        restored
    }

    fn try_restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        let DeviceState { config, command, interrupt_status, interrupt_mask, engine, bus } =
            state.open(NAME, VERSION)?;
        if lock(&self.engine).in_flight() != 0 {
            return Err(StateError::Busy("a request has not come back from before"));
        }
        let causes = [interrupt_status, interrupt_mask].map(Intr::from_bits);
        let [Some(status), Some(mask)] = causes else {
            return Err(StateError::impossible("interrupt causes that there are not"));
        };
        self.bus.check(&bus)?;
        self.commands.restore(&command, self.targets())?;
        lock(&self.engine).restore(engine)?;
        // From here on others see something of it.
        self.config.restore(&config)?;
        self.shared.irq.restore(status, mask);
        self.bus.restore(&bus)
    }
}
