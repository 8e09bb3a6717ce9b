//! A unit's saved state.

use std::ops::Not;
use std::sync::Arc;

use paraslot_device::StateError;
use paraslot_spec::scsi::sense::code;
use serde::{Deserialize, Serialize};

use super::{Kind, LogicalUnit, modes};
use crate::bus::{Address, BusEvent, Initiator};
use crate::nexus::Nexus;
use crate::reservation::ReservationState;
use crate::unit::{Holder, MediaEvent, State};

/// What all who see a unit share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnitState {
    cdrom: bool,
    /// Bytes of a logical block, and how many the unit had.
    block: u32,
    blocks: u64,
    #[serde(default, skip_serializing_if = "Not::not")]
    write_cache: bool,
    #[serde(default, skip_serializing_if = "Not::not")]
    descriptor_sense: bool,
    #[serde(default, skip_serializing_if = "Not::not")]
    software_protect: bool,
    #[serde(default, skip_serializing_if = "Not::not")]
    stopped: bool,
    #[serde(default, skip_serializing_if = "Not::not")]
    tray_open: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prevented: Vec<HolderState>,
    #[serde(default, skip_serializing_if = "ReservationState::is_empty")]
    reservations: ReservationState,
}

/// Who holds something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HolderState {
    initiator: String,
    target: u8,
    lun: u16,
}

impl From<&Holder> for HolderState {
    fn from(holder: &Holder) -> Self {
        let Holder { initiator, address: Address { target, lun } } = holder;
        Self { initiator: initiator.0.clone(), target: *target, lun: *lun }
    }
}

impl From<&HolderState> for Holder {
    fn from(state: &HolderState) -> Self {
        let HolderState { initiator, target, lun } = state;
        let address = Address { target: *target, lun: *lun };
        Self { initiator: Initiator(initiator.clone()), address }
    }
}

impl LogicalUnit {
    pub(crate) fn save(&self) -> UnitState {
        let state = self.state();
        let State { stopped, tray_open, prevented, reservations } = &*state;
        UnitState {
            cdrom: self.is_cdrom(),
            block: self.block_size(),
            blocks: self.blocks(),
            write_cache: self.mode(modes::WRITE_CACHE),
            descriptor_sense: self.mode(modes::DESCRIPTOR_SENSE),
            software_protect: self.mode(modes::SOFTWARE_PROTECT),
            stopped: *stopped,
            tray_open: *tray_open,
            prevented: prevented.iter().map(HolderState::from).collect(),
            reservations: reservations.save(),
        }
    }

    /// Whether [`restore`](Self::restore) would take `saved`.
    pub(crate) fn check(&self, nexus: &Nexus, saved: &UnitState) -> Result<(), StateError> {
        self.merged(&self.state(), &self.others(nexus), saved).map(|_| ())
    }

    /// Takes over what was saved with `nexus`, which has what was saved of itself already. What others
    /// have stays theirs, and they hear of what changes for them, too.
    pub(crate) fn restore(&self, nexus: &Nexus, saved: &UnitState) -> Result<(), StateError> {
        let mut state = self.state();
        let others = self.others(nexus);
        let restored = self.merged(&state, &others, saved)?;
        let mut news = Vec::new();
        if restored.tray_open != state.tray_open && self.blocks() != 0 {
            let (event, code) = medium_news(!restored.tray_open);
            others.iter().for_each(|other| other.media_event(event));
            news.push(code);
        }
        *state = restored;
        let modes = saved.modes();
        if self.change_modes(u32::MAX, modes) != modes {
            news.push(code::MODE_CHANGED);
        }
        for &(asc, ascq) in &news {
            others.iter().for_each(|other| other.attention(asc, ascq));
        }
        let own = (self.blocks() != saved.blocks).then(|| match self.kind {
            Kind::Disk => code::CAPACITY_CHANGED,
            Kind::Cdrom => {
                let (event, code) = medium_news(self.blocks() != 0);
                nexus.media_event(event);
                code
            }
        });
        if let Some((asc, ascq)) = own {
            nexus.attention(asc, ascq);
        }
        self.refresh(&state);
        drop(state);
        let removable = self.is_cdrom();
        for (asc, ascq) in news {
            let event = BusEvent::Changed { asc, ascq, removable };
            others.iter().for_each(|other| other.tell_of(nexus, event));
        }
        if let Some((asc, ascq)) = own {
            nexus.tell(BusEvent::Changed { asc, ascq, removable });
        }
        Ok(())
    }

    /// Who sees this unit besides `nexus`.
    fn others(&self, nexus: &Nexus) -> Vec<Arc<Nexus>> {
        let all = self.nexuses().into_iter();
        all.filter(|other| !std::ptr::eq(&**other, nexus)).collect()
    }

    /// What the unit is in if `saved` is true of all but `others`.
    fn merged(
        &self,
        now: &State,
        others: &[Arc<Nexus>],
        saved: &UnitState,
    ) -> Result<State, StateError> {
        self.check_kind(saved)?;
        let theirs = |who: &Holder| others.iter().any(|other| other.who() == who);
        let mut prevented: Vec<Holder> = Vec::new();
        for who in saved.prevented.iter().map(Holder::from) {
            if prevented.contains(&who) {
                return Err(StateError::impossible("an initiator prevents removal twice"));
            }
            prevented.push(who);
        }
        prevented.retain(|who| !theirs(who));
        prevented.extend(now.prevented.iter().filter(|who| theirs(who)).cloned());
        let reservations = now.reservations.restored(&saved.reservations, theirs)?;
        // Another disc was put in by someone's hand, or one was taken out.
        let other_disc = saved.cdrom && saved.blocks != self.blocks();
        let tray_open = if other_disc { self.blocks() == 0 } else { saved.tray_open };
        let stopped = saved.stopped;
        Ok(State { stopped, tray_open, prevented, reservations })
    }

    fn check_kind(&self, saved: &UnitState) -> Result<(), StateError> {
        if saved.cdrom != self.is_cdrom() || saved.block != self.block_size() {
            return Err(StateError::impossible(format!(
                "a unit with blocks of {} bytes where there is one with blocks of {}",
                saved.block,
                self.block_size(),
            )));
        }
        let UnitState { write_cache, software_protect, stopped, tray_open, prevented, .. } = saved;
        let possible = match self.kind {
            Kind::Disk => !tray_open && prevented.is_empty(),
            Kind::Cdrom => !software_protect && !stopped,
        };
        if !possible || *write_cache && !self.info.volatile_cache {
            return Err(StateError::impossible("a unit with what its kind has not"));
        }
        Ok(())
    }
}

/// How it is told that there is a disc, or is not any more.
fn medium_news(present: bool) -> (MediaEvent, (u8, u8)) {
    if present {
        (MediaEvent::New, code::MEDIUM_CHANGED)
    } else {
        (MediaEvent::Removal, code::NO_MEDIUM)
    }
}

impl UnitState {
    fn modes(&self) -> u32 {
        [
            (self.write_cache, modes::WRITE_CACHE),
            (self.descriptor_sense, modes::DESCRIPTOR_SENSE),
            (self.software_protect, modes::SOFTWARE_PROTECT),
        ]
        .into_iter()
        .fold(0, |bits, (set, bit)| if set { bits | bit } else { bits })
    }
}
