//! Who has reserved a unit: by RESERVE (SPC-2, 5.5.1) and persistently (SPC-4, Reservations).

mod state;

use paraslot_spec::scsi::reserve::kind;
use paraslot_spec::scsi::sense::code;

use crate::unit::Holder;
pub(crate) use state::ReservationState;

/// Most registrations of one unit.
pub(crate) const MAX_REGISTRATIONS: usize = 64;

/// The types that there are.
pub(crate) const KINDS: [u8; 6] = [
    kind::WRITE_EXCLUSIVE,
    kind::EXCLUSIVE_ACCESS,
    kind::WRITE_EXCLUSIVE_REGISTRANTS,
    kind::EXCLUSIVE_ACCESS_REGISTRANTS,
    kind::WRITE_EXCLUSIVE_ALL,
    kind::EXCLUSIVE_ACCESS_ALL,
];

/// What a persistent reservation keeps others from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    Writes,
    All,
}

/// Why a service action was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// RESERVATION CONFLICT.
    Conflict,
    /// INSUFFICIENT REGISTRATION RESOURCES.
    Full,
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    Release,
    /// INVALID FIELD IN PARAMETER LIST: the service action reservation key.
    ActionKey,
}

/// Attentions for others.
pub(crate) type Attentions = Vec<(Holder, (u8, u8))>;

#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) who: Holder,
    pub(crate) key: u64,
}

/// A persistent reservation.
#[derive(Clone, Debug)]
struct Held {
    /// Who made it; with a type of all registrants, all of them hold it.
    by: Holder,
    kind: u8,
}

/// The reservations of a unit.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    generation: u32,
    registrations: Vec<Registration>,
    held: Option<Held>,
    spc2: Option<Holder>,
}

fn all_registrants(kind: u8) -> bool {
    matches!(kind, kind::WRITE_EXCLUSIVE_ALL | kind::EXCLUSIVE_ACCESS_ALL)
}

/// Registrants other than the holder may do what it may.
fn for_registrants(kind: u8) -> bool {
    all_registrants(kind)
        || matches!(kind, kind::WRITE_EXCLUSIVE_REGISTRANTS | kind::EXCLUSIVE_ACCESS_REGISTRANTS)
}

fn keeps_from(kind: u8) -> Conflict {
    match kind {
        kind::WRITE_EXCLUSIVE | kind::WRITE_EXCLUSIVE_REGISTRANTS | kind::WRITE_EXCLUSIVE_ALL => {
            Conflict::Writes
        }
        _ => Conflict::All,
    }
}

impl Reservations {
    /// What `who` may not do.
    pub(crate) fn conflict(&self, who: &Holder) -> Option<Conflict> {
        let held = self.held.as_ref()?;
        let privileged =
            if for_registrants(held.kind) { self.key(who).is_some() } else { held.by == *who };
        (!privileged).then(|| keeps_from(held.kind))
    }

    /// PRGENERATION.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// The key that `who` has registered.
    pub(crate) fn key(&self, who: &Holder) -> Option<u64> {
        self.registrations.iter().find(|one| one.who == *who).map(|one| one.key)
    }

    /// The reservation's type, if there is one.
    pub(crate) fn kind(&self) -> Option<u8> {
        self.held.as_ref().map(|held| held.kind)
    }

    /// Whether `who` holds the reservation, perhaps among others.
    pub(crate) fn holds(&self, who: &Holder) -> bool {
        self.held.as_ref().is_some_and(|held| {
            if all_registrants(held.kind) { self.key(who).is_some() } else { held.by == *who }
        })
    }

    /// The key of the one who holds the reservation; 0 if all registrants do.
    pub(crate) fn holder_key(&self) -> u64 {
        let one = self.held.as_ref().filter(|held| !all_registrants(held.kind));
        one.and_then(|held| self.key(&held.by)).unwrap_or_default()
    }

    /// REGISTER; with `known` the key that must be there, else REGISTER AND IGNORE EXISTING KEY.
    pub(crate) fn register(
        &mut self,
        who: &Holder,
        known: Option<u64>,
        key: u64,
    ) -> Result<Attentions, Refusal> {
        let now = self.key(who);
        if known.is_some_and(|known| known != now.unwrap_or_default()) {
            return Err(Refusal::Conflict);
        }
        let attentions = match (now, key) {
            (None, 0) => return Ok(Attentions::new()),
            (None, key) if self.registrations.len() < MAX_REGISTRATIONS => {
                self.registrations.push(Registration { who: who.clone(), key });
                Attentions::new()
            }
            (None, _) => return Err(Refusal::Full),
            (Some(_), 0) => self.unregister(who),
            (Some(_), key) => {
                for one in self.registrations.iter_mut().filter(|one| one.who == *who) {
                    one.key = key;
                }
                Attentions::new()
            }
        };
        self.count();
        Ok(attentions)
    }

    fn unregister(&mut self, who: &Holder) -> Attentions {
        let held = self.holds(who);
        self.registrations.retain(|one| one.who != *who);
        match &self.held {
            // As long as there is a registrant, it holds the reservation.
            Some(Held { kind, .. }) if all_registrants(*kind) && !self.registrations.is_empty() => {
                Attentions::new()
            }
            Some(_) if held => self.drop_reservation(who),
            _ => Attentions::new(),
        }
    }

    /// The reservation is gone: what registrants other than `by` are to hear of it.
    fn drop_reservation(&mut self, by: &Holder) -> Attentions {
        match self.held.take() {
            Some(held) if for_registrants(held.kind) => {
                self.others(by, code::RESERVATIONS_RELEASED)
            }
            _ => Attentions::new(),
        }
    }

    fn others(&self, but: &Holder, code: (u8, u8)) -> Attentions {
        let others = self.registrations.iter().filter(|one| one.who != *but);
        others.map(|one| (one.who.clone(), code)).collect()
    }

    fn check(&self, who: &Holder, key: u64) -> Result<(), Refusal> {
        if self.key(who) == Some(key) { Ok(()) } else { Err(Refusal::Conflict) }
    }

    /// RESERVE.
    pub(crate) fn reserve(&mut self, who: &Holder, key: u64, kind: u8) -> Result<(), Refusal> {
        self.check(who, key)?;
        match &self.held {
            None => {
                self.held = Some(Held { by: who.clone(), kind });
                Ok(())
            }
            Some(held) if held.kind == kind && self.holds(who) => Ok(()),
            Some(_) => Err(Refusal::Conflict),
        }
    }

    /// RELEASE.
    pub(crate) fn release(
        &mut self,
        who: &Holder,
        key: u64,
        kind: u8,
    ) -> Result<Attentions, Refusal> {
        self.check(who, key)?;
        if !self.holds(who) {
            return Ok(Attentions::new());
        }
        if self.kind() != Some(kind) {
            return Err(Refusal::Release);
        }
        Ok(self.drop_reservation(who))
    }

    /// CLEAR.
    pub(crate) fn clear(&mut self, who: &Holder, key: u64) -> Result<Attentions, Refusal> {
        self.check(who, key)?;
        let attentions = self.others(who, code::RESERVATIONS_PREEMPTED);
        self.held = None;
        self.registrations.clear();
        self.count();
        Ok(attentions)
    }

    /// PREEMPT; also says whose registrations it was about, `who` among them if so.
    pub(crate) fn preempt(
        &mut self,
        who: &Holder,
        key: u64,
        theirs: u64,
        kind: u8,
    ) -> Result<(Attentions, Vec<Holder>), Refusal> {
        self.check(who, key)?;
        let all = self.kind().is_some_and(all_registrants);
        if theirs == 0 && !all {
            return Err(Refusal::ActionKey);
        }
        // Whether it is the reservation that is taken, rather than registrations alone.
        let takes = match &self.held {
            None => false,
            Some(_) if all => theirs == 0,
            Some(held) => self.key(&held.by) == Some(theirs),
        };
        let meant =
            |one: &Registration| if theirs == 0 { one.who != *who } else { one.key == theirs };
        let victims: Vec<Holder> =
            self.registrations.iter().filter(|one| meant(one)).map(|one| one.who.clone()).collect();
        if victims.is_empty() && !takes {
            return Err(Refusal::Conflict);
        }
        let gone = |one: &Registration| meant(one) && !(takes && one.who == *who);
        self.registrations.retain(|one| !gone(one));
        let lost = victims.iter().filter(|one| *one != who);
        let mut attentions: Attentions =
            lost.map(|one| (one.clone(), code::REGISTRATIONS_PREEMPTED)).collect();
        if takes {
            // Of whatever type the old one was (SPC-4, Preempting a persistent reservation).
            if self.kind().is_some_and(|old| old != kind) {
                attentions.extend(self.others(who, code::RESERVATIONS_RELEASED));
            }
            self.held = Some(Held { by: who.clone(), kind });
        } else if self.registrations.is_empty() {
            self.held = None;
        }
        self.count();
        Ok((attentions, victims))
    }

    fn count(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Whether another has reserved the unit by RESERVE.
    pub(crate) fn spc2_conflicts(&self, who: &Holder) -> bool {
        self.spc2.as_ref().is_some_and(|holder| holder != who)
    }

    /// Whether anybody has.
    pub(crate) fn spc2_held(&self) -> bool {
        self.spc2.is_some()
    }

    /// RESERVE (6) and (10). They conflict with registrations, too.
    pub(crate) fn reserve_spc2(&mut self, who: &Holder) -> Result<(), Refusal> {
        if !self.registrations.is_empty() || self.spc2_conflicts(who) {
            return Err(Refusal::Conflict);
        }
        self.spc2 = Some(who.clone());
        Ok(())
    }

    /// RELEASE (6) and (10), of `who`, if it is its reservation.
    pub(crate) fn release_spc2(&mut self, who: &Holder) {
        self.spc2.take_if(|holder| holder == who);
    }

    /// A reset.
    pub(crate) fn clear_spc2(&mut self) {
        self.spc2 = None;
    }
}
