//! A bus's saved state.

use std::sync::Arc;

use paraslot_device::StateError;
use serde::{Deserialize, Serialize};

use super::{Address, Bus};
use crate::nexus::{Nexus, NexusState};
use crate::unit::UnitState;

/// The state of the units on a [`Bus`]: part of an adapter's
/// [`SavedState`](paraslot_device::SavedState).
///
/// Of each unit it has what its initiators can change (mode parameters, reservations, the tray), and what
/// this initiator has yet to hear. What is in a drive, and how large a disk's image is, is the host's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusState {
    /// In whose name reservations are held.
    initiator: String,
    /// In the order of their addresses.
    units: Vec<Place>,
}

/// A unit at an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    target: u8,
    lun: u16,
    unit: UnitState,
    nexus: NexusState,
}

impl Bus {
    /// What [`restore`](Self::restore) takes. For an adapter none of whose lanes has a command.
    pub fn save(&self) -> BusState {
        let place = |nexus: Arc<Nexus>| {
            let Address { target, lun } = nexus.address;
            Place { target, lun, unit: nexus.unit.save(), nexus: nexus.save() }
        };
        BusState {
            initiator: self.0.options.initiator.0.clone(),
            units: self.0.units(None).into_iter().map(place).collect(),
        }
    }

    /// Whether [`restore`](Self::restore) would take `state`, as things are.
    ///
    /// # Errors
    /// As `restore`.
    pub fn check(&self, state: &BusState) -> Result<(), StateError> {
        for (nexus, place) in self.pairs(state)? {
            nexus.check(&place.nexus)?;
            nexus.unit.check(&nexus, &place.unit)?;
        }
        Ok(())
    }

    /// Takes a saved state over, after a [`power_on`](Self::power_on) of its own: the bus must have units
    /// of the same kind at the same addresses, and belong to the same initiator. No lane may have a
    /// command. Where a disk has another size now, or a drive another disc, the initiator has a unit
    /// attention for it, and the listener is told.
    ///
    /// # Units that others see, too
    /// A unit is shared, so each of its buses saves all of its reservations. What another bus that is
    /// attached now has registered or reserved stays as it is, and what this initiator has becomes as
    /// it was saved; so in a process in which nobody has done anything yet, the buses may be restored
    /// one after the other, in any order. Initiators that are not there have what this state says.
    /// Mode parameters, the tray and whether a disk is stopped become as they were saved, as if this
    /// initiator had commanded it: the others have unit attentions for it.
    ///
    /// # Errors
    /// When the state is of another bus, is none that initiators could bring about, or contradicts the
    /// reservations of those who share a unit. Then the bus is as after `power_on`.
    pub fn restore(&self, state: &BusState) -> Result<(), StateError> {
        self.power_on();
        // Nothing changes unless all of it can be taken.
        self.check(state)?;
        let taken = self.pairs(state)?.into_iter().try_for_each(|(nexus, place)| {
            nexus.restore(&place.nexus)?;
            nexus.unit.restore(&nexus, &place.unit)
        });
        if taken.is_err() {
            self.power_on();
        }
        taken
    }

    /// What is attached, and what it is to become.
    fn pairs<'a>(&self, state: &'a BusState) -> Result<Vec<(Arc<Nexus>, &'a Place)>, StateError> {
        let BusState { initiator, units } = state;
        if *initiator != self.0.options.initiator.0 {
            return Err(StateError::impossible(format!("the bus is {initiator:?}'s")));
        }
        let nexuses = self.0.units(None);
        let same = |(nexus, place): (&Arc<Nexus>, &Place)| {
            nexus.address == Address { target: place.target, lun: place.lun }
        };
        if nexuses.len() != units.len() || !nexuses.iter().zip(units).all(same) {
            return Err(StateError::impossible("other units are on the bus"));
        }
        Ok(nexuses.into_iter().zip(units).collect())
    }
}

#[cfg(test)]
mod tests;
