//! What a PC has beside PCI, as far as a Linux guest needs it: a serial port, registers that end or
//! reset the machine, and a power button. The ACPI tables tell the guest of them.

mod console;
mod events;
mod power;
mod serial;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

pub(crate) use events::Events;
pub(crate) use power::{Power, Request};
pub(crate) use serial::{Serial, SerialState};

/// The serial port's base and how many ports it has.
pub(crate) const COM1: (u16, u16) = (0x3f8, 8);
/// Its interrupt, edge-triggered and active high.
pub(crate) const COM1_GSI: u32 = 4;

/// The base of [`Power`]'s registers and how many there are, one byte each.
pub(crate) const POWER: (u16, u16) = (0x600, 3);
/// ACPI's sleep control register (4.8.3.7).
pub(crate) const SLEEP_CONTROL: u16 = POWER.0;
/// ACPI's sleep status register (4.8.3.7).
pub(crate) const SLEEP_STATUS: u16 = POWER.0 + 1;
/// ACPI's reset register (4.8.3.6).
pub(crate) const RESET: u16 = POWER.0 + 2;
/// What resets the machine when it is written there.
pub(crate) const RESET_VALUE: u8 = 1;
/// The sleep type of S5, soft off.
pub(crate) const SLEEP_TYPE_OFF: u8 = 5;

/// The base of [`Events`]'s register, one byte.
pub(crate) const EVENTS: (u16, u16) = (0x604, 1);
/// Its interrupt, edge-triggered and active high.
pub(crate) const EVENTS_GSI: u32 = 9;
/// In the event register: the power button was pressed.
pub(crate) const POWER_BUTTON: u8 = 1;

/// What these keep.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChipsetState {
    pub(crate) serial: SerialState,
    /// The event register.
    pub(crate) events: u8,
    /// What the guest has asked for and not got yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Request>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
