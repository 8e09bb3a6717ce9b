//! Reservations, saved.

use paraslot_device::StateError;
use serde::{Deserialize, Serialize};

use super::{Held, KINDS, MAX_REGISTRATIONS, Registration, Reservations, all_registrants};
use crate::unit::{Holder, HolderState};

/// Who has reserved a unit, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReservationState {
    generation: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    registrations: Vec<RegistrationState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<HeldState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spc2: Option<HolderState>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistrationState {
    who: HolderState,
    key: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldState {
    by: HolderState,
    kind: u8,
}

impl ReservationState {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Reservations {
    pub(crate) fn save(&self) -> ReservationState {
        let Self { generation, registrations, held, spc2 } = self;
        let registration =
            |one: &Registration| RegistrationState { who: (&one.who).into(), key: one.key };
        ReservationState {
            generation: *generation,
            registrations: registrations.iter().map(registration).collect(),
            held: held.as_ref().map(|held| HeldState { by: (&held.by).into(), kind: held.kind }),
            spc2: spc2.as_ref().map(HolderState::from),
        }
    }

    /// What these become if `saved` is true of everybody but those of whom `theirs` says so: they have
    /// what they have now.
    pub(crate) fn restored(
        &self,
        saved: &ReservationState,
        theirs: impl Fn(&Holder) -> bool,
    ) -> Result<Self, StateError> {
        let saved = Self::read(saved);
        saved.validate()?;
        let Self { generation, registrations, held, spc2 } = saved;

        let now = |who: &Holder| self.registrations.iter().find(|one| one.who == *who);
        let mut merged: Vec<Registration> = Vec::new();
        for one in registrations {
            merged.extend(if theirs(&one.who) { now(&one.who).cloned() } else { Some(one) });
        }
        for one in self.registrations.iter().filter(|one| theirs(&one.who)) {
            if !merged.iter().any(|other| other.who == one.who) {
                merged.push(one.clone());
            }
        }
        let contradiction = || StateError::impossible("another holds the reservation");
        let kept = self.held.clone().filter(|held| theirs(&held.by));
        let held = match (held.filter(|held| !theirs(&held.by)), kept) {
            (Some(_), Some(_)) => return Err(contradiction()),
            (own, kept) => own.or(kept),
        };
        let kept = self.spc2.clone().filter(&theirs);
        let spc2 = match (spc2.filter(|holder| !theirs(holder)), kept) {
            (Some(_), Some(_)) => return Err(contradiction()),
            (own, kept) => own.or(kept),
        };
        // Others who have registered have seen the number grow.
        let alone = !self.registrations.iter().any(|one| theirs(&one.who));
        let generation = if alone { generation } else { generation.max(self.generation) };
        let merged = Self { generation, registrations: merged, held, spc2 };
        merged.validate()?;
        Ok(merged)
    }

    fn read(saved: &ReservationState) -> Self {
        let ReservationState { generation, registrations, held, spc2 } = saved;
        let registration =
            |one: &RegistrationState| Registration { who: (&one.who).into(), key: one.key };
        Self {
            generation: *generation,
            registrations: registrations.iter().map(registration).collect(),
            held: held.as_ref().map(|held| Held { by: (&held.by).into(), kind: held.kind }),
            spc2: spc2.as_ref().map(Holder::from),
        }
    }

    /// Whether service actions can lead here.
    fn validate(&self) -> Result<(), StateError> {
        let Self { generation: _, registrations, held, spc2 } = self;
        let impossible = |what: &str| Err(StateError::impossible(what));
        if registrations.len() > MAX_REGISTRATIONS {
            return impossible("more registrations than a unit has room for");
        }
        let mut seen: Vec<&Holder> = Vec::new();
        for Registration { who, key } in registrations {
            if *key == 0 || seen.contains(&who) {
                return impossible("a registration without a key, or a second one");
            }
            seen.push(who);
        }
        if let Some(Held { by, kind }) = held {
            let held = if all_registrants(*kind) { !seen.is_empty() } else { seen.contains(&by) };
            if !KINDS.contains(kind) || !held {
                return impossible("a reservation that nobody holds");
            }
        }
        if spc2.is_some() && !registrations.is_empty() {
            return impossible("RESERVE beside registrations");
        }
        Ok(())
    }
}
