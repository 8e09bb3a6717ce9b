//! What a unit is in, besides its medium.

use serde::{Deserialize, Serialize};

use crate::bus::{Address, Initiator};
use crate::nexus::{Nexus, notice};
use crate::reservation::{Conflict, Reservations};
use crate::unit::LogicalUnit;

/// An initiator port, and the target port by which it sees the unit: who holds what (SPC-4, Reservations).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) initiator: Initiator,
    pub(crate) address: Address,
}

/// A media event of GET EVENT STATUS NOTIFICATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MediaEvent {
    New,
    Removal,
}

/// What changes at run time, and rarely.
#[derive(Default)]
pub(crate) struct State {
    /// START STOP UNIT has stopped a disk.
    pub(crate) stopped: bool,
    /// The tray is out; there may be a disc in it.
    pub(crate) tray_open: bool,
    /// Who prevents the removal of the medium.
    pub(crate) prevented: Vec<Holder>,
    pub(crate) reservations: Reservations,
}

impl State {
    /// `who` is gone, or begins anew: what it had, but for its persistent reservations.
    pub(crate) fn drop_nexus(&mut self, who: &Holder) {
        self.prevented.retain(|holder| holder != who);
        self.reservations.release_spc2(who);
    }
}

impl LogicalUnit {
    /// Whether a medium can be read now; without one, or with the tray open, or a disk stopped, it
    /// cannot.
    pub(crate) fn is_ready(&self, state: &State) -> bool {
        !state.stopped && !state.tray_open && self.blocks() != 0
    }

    /// Has every nexus notice what is in its way.
    pub(crate) fn refresh(&self, state: &State) {
        for nexus in self.nexuses() {
            let mut bits = 0;
            if !self.is_ready(state) {
                bits |= notice::NOT_READY;
            }
            if state.reservations.spc2_conflicts(nexus.who()) {
                bits |= notice::CONFLICT_SPC2;
            }
            bits |= match state.reservations.conflict(nexus.who()) {
                None => 0,
                Some(Conflict::Writes) => notice::CONFLICT_WRITES,
                Some(Conflict::All) => notice::CONFLICT_ALL,
            };
            nexus.set_state(bits);
        }
    }

    /// What a reset of the unit does (SAM-5, 6.3.3): 29h/`ascq` for everyone.
    /// Persistent reservations stay.
    pub(crate) fn reset(&self, ascq: u8) {
        let mut state = self.state();
        state.stopped = false;
        state.prevented.clear();
        state.reservations.clear_spc2();
        self.set_modes(self.default_modes());
        for nexus in self.nexuses() {
            nexus.attention(0x29, ascq);
        }
        self.refresh(&state);
    }

    /// What the loss of one nexus does.
    pub(crate) fn lose(&self, nexus: &Nexus) {
        let mut state = self.state();
        state.drop_nexus(nexus.who());
        self.refresh(&state);
    }

    /// What the power-on of one initiator does: with nobody else there, of the unit as well.
    pub(crate) fn power_on(&self, nexus: &Nexus) {
        let mut state = self.state();
        state.drop_nexus(nexus.who());
        if self.nexuses().iter().all(|other| std::ptr::eq(&**other, nexus)) {
            state.stopped = false;
            self.set_modes(self.default_modes());
        }
        self.refresh(&state);
    }

    /// An attention for these.
    pub(crate) fn attend(&self, whom: &[(Holder, (u8, u8))]) {
        if whom.is_empty() {
            return;
        }
        for nexus in self.nexuses() {
            for (_, (asc, ascq)) in whom.iter().filter(|(who, _)| who == nexus.who()) {
                nexus.attention(*asc, *ascq);
            }
        }
    }
}
