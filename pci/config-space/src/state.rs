//! A configuration space's saved state.

use paraslot_device::StateError;
use serde::{Deserialize, Serialize};

use crate::config::ConfigSpace;
use crate::registers::LEN;

/// The state of a [`ConfigSpace`]: part of a function's [`SavedState`](paraslot_device::SavedState).
///
/// What the function wants of its INTx line is not in it: that follows from the function's registers,
/// and is the function's to set anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigState {
    /// All 256 bytes, in hexadecimal digits: those that the guest cannot write tell how the function
    /// was constructed.
    #[serde(with = "hex")]
    registers: Vec<u8>,
    /// Whether MSI is pending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    msi_pending: bool,
    /// The MSI-X table and the pending vectors, if the function has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    msix: Option<MsixState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MsixState {
    /// The table as the guest reads it, in hexadecimal digits.
    #[serde(with = "hex")]
    pub(crate) table: Vec<u8>,
    pub(crate) pending: Vec<u16>,
}

impl ConfigSpace {
    /// What [`restore`](Self::restore) takes. For a function whose workers are stopped, so that no
    /// interrupt is being raised.
    pub fn save(&self) -> ConfigState {
        let interrupts = self.interrupts();
        let msix = self.msix.as_ref().map(|table| MsixState {
            table: table.bytes(),
            pending: (0..interrupts.msix_vectors())
                .filter(|vector| interrupts.msix_pending(*vector))
                .collect(),
        });
        ConfigState {
            registers: self.registers.bytes().to_vec(),
            msi_pending: interrupts.msi_pending(),
            msix,
        }
    }

    /// Takes a saved state over, after a [`reset`](Self::reset) and with the workers stopped. What
    /// follows from the registers follows at once: the sink is told of the messages, and bus mastering
    /// may be on.
    ///
    /// # Errors
    /// When the state is of a function that was constructed differently, or is none that a guest could
    /// bring about. Then everything is as after a reset.
    pub fn restore(&mut self, state: &ConfigState) -> Result<(), StateError> {
        let restored = self.try_restore(state);
        if restored.is_err() {
            self.reset();
        }
        restored
    }

    fn try_restore(&mut self, state: &ConfigState) -> Result<(), StateError> {
        let ConfigState { registers, msi_pending, msix } = state;
        let bytes: &[u8; LEN] = registers.as_slice().try_into().map_err(|_| {
            StateError::impossible(format!("{} bytes of configuration space", registers.len()))
        })?;
        self.registers.restore(bytes).map_err(|at| {
            StateError::impossible(format!("configuration register {at:#x} is another function's"))
        })?;
        if !self.in_possible_power_state() {
            return Err(StateError::impossible("in a power state that is not there"));
        }
        // The gates are off, so what becomes pending here is sent, if it may be, when they are turned.
        let interrupts = self.interrupts().clone();
        let table = match (&mut self.msix, msix) {
            (Some(table), Some(state)) => {
                table.restore(&state.table)
                    && state.pending.iter().all(|vector| interrupts.set_msix_pending(*vector))
            }
            (table, state) => table.is_none() && state.is_none(),
        };
        if !table {
            return Err(StateError::impossible("the MSI-X table is another function's"));
        }
        if *msi_pending && !interrupts.set_msi_pending() {
            return Err(StateError::impossible("MSI is pending on a function without it"));
        }
        let _ = self.apply();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
