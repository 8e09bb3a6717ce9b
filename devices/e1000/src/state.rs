//! The adapter's saved state.
//!
//! What follows from something else is not in it: the line of the EEPROM's data output from what it is
//! doing, the link from the PHY, the rings' progress from their registers. Times are nanoseconds from
//! when the adapter was paused.

use std::time::Duration;

use paraslot_device::{DmaSpace, SavedState, StateError};
use paraslot_pci::{ConfigState, PciDevice};
use serde::{Deserialize, Serialize};

use crate::device::E1000;
use crate::eeprom::EepromState;
use crate::engine::EngineState;
use crate::shared::{SharedState, lock};

/// Who saves it.
const DEVICE: &str = "e1000";
/// The layout of [`State`].
const VERSION: u32 = 1;

/// All of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    config: ConfigState,
    /// IOADDR.
    ioaddr: u32,
    eeprom: EepromState,
    shared: SharedState,
    engine: EngineState,
}

impl<A: DmaSpace> E1000<A> {
    /// What [`PciDevice::save`] does.
    pub(crate) fn save_state(&mut self) -> Result<SavedState, StateError> {
        if !self.is_paused() {
            return Err(StateError::NotPaused);
        }
        let Self { config, layout: _, shared, engine, eeprom, selected, runner: _, paused } = self;
        let state = State {
            config: config.save(),
            ioaddr: *selected,
            eeprom: eeprom.save(),
            shared: shared.save(*paused),
            engine: lock(engine).save(*paused),
        };
        SavedState::new(DEVICE, VERSION, &state)
    }

    /// What [`PciDevice::restore`] does.
    pub(crate) fn restore_state(&mut self, state: &SavedState) -> Result<(), StateError> {
        if !self.is_paused() {
            return Err(StateError::NotPaused);
        }
        self.reset();
        let restored = state.open(DEVICE, VERSION).and_then(|state| self.take_over(&state));
        if restored.is_err() {
            self.reset();
        }
        restored
    }

    /// Takes a state over after a reset; another makes it good if this fails. What a reset leaves alone
    /// changes only once nothing can fail any more.
    fn take_over(&mut self, state: &State) -> Result<(), StateError> {
        let State { config, ioaddr, eeprom, shared, engine } = state;
        let now = lock(&self.engine).now();
        let eeprom = eeprom.check()?;
        let phy = self.shared.restore(shared)?;
        lock(&self.engine).restore(engine, now)?;
        self.config.restore(config)?;
        // The line rises with this, if it does.
        self.shared.restore_interrupts(shared, now)?;
        self.shared.phy(|place| *place = phy);
        self.eeprom = eeprom;
        self.selected = *ioaddr;
        self.paused = now;
        self.shared.bell.ring();
        Ok(())
    }
}

/// Refuses a state in which something is not so.
pub(crate) fn require(so: bool, otherwise: &str) -> Result<(), StateError> {
    if so { Ok(()) } else { Err(StateError::impossible(otherwise)) }
}

/// Nanoseconds from `now` to `then`, as they are saved: none if that is past, and `most` at most. More
/// there can be only if somebody used the adapter's registers long after it was paused.
pub(crate) fn nanoseconds_left(then: Duration, now: Duration, most: Duration) -> u64 {
    u64::try_from(then.saturating_sub(now).min(most).as_nanos()).unwrap_or(u64::MAX)
}

/// When it is `left` nanoseconds from `now`.
///
/// # Errors
/// When that is more than `most`.
pub(crate) fn moment(left: u64, now: Duration, most: Duration) -> Result<Duration, StateError> {
    let left = Duration::from_nanos(left);
    require(left <= most, "an interrupt is held back for longer than any is")?;
    Ok(now.saturating_add(left))
}

/// Whether a field that is mostly not there need not be saved.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
