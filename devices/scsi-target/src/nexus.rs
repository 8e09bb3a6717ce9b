//! What a unit knows of one initiator (an I_T_L nexus).

mod state;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use paraslot_backends::block::BlockBackend;
use paraslot_spec::scsi::sense::{code, key};

use crate::bus::{Address, BusEvent, Initiator, Port};
use crate::sense::Sense;
use crate::unit::{Holder, LogicalUnit, MediaEvent};
pub(crate) use state::NexusState;

/// What has to be looked at before a command is carried out, as bits of [`Nexus::notice`].
pub(crate) mod notice {
    /// No medium can be read.
    pub(crate) const NOT_READY: u32 = 1 << 0;
    /// Another's persistent reservation is in the way of writes.
    pub(crate) const CONFLICT_WRITES: u32 = 1 << 1;
    /// Another's persistent reservation is in the way of reads, too.
    pub(crate) const CONFLICT_ALL: u32 = 1 << 2;
    /// Another's reservation by RESERVE is in the way.
    pub(crate) const CONFLICT_SPC2: u32 = 1 << 3;
    /// Sense data is kept for REQUEST SENSE.
    pub(crate) const SENSE: u32 = 1 << 4;
    /// The bits that depend on the unit's state.
    pub(super) const STATE: u32 = NOT_READY | CONFLICT_WRITES | CONFLICT_ALL | CONFLICT_SPC2;
    /// The first of the attentions.
    pub(super) const ATTENTION_SHIFT: u32 = 8;
    /// All attentions.
    pub(crate) const ATTENTIONS: u32 = u32::MAX << ATTENTION_SHIFT;
}

/// The attentions that there are, the most urgent first (SAM-5, 5.14). One of each kind can be pending.
const ATTENTIONS: [(u8, u8); 17] = [
    code::RESET,
    code::POWER_ON,
    code::BUS_RESET,
    code::DEVICE_RESET,
    (0x29, 0x04),
    (0x29, 0x05),
    (0x29, 0x06),
    code::NEXUS_LOSS,
    code::COMMANDS_CLEARED,
    code::NO_MEDIUM,
    code::MEDIUM_CHANGED,
    code::CAPACITY_CHANGED,
    code::RESERVATIONS_PREEMPTED,
    code::REGISTRATIONS_PREEMPTED,
    code::RESERVATIONS_RELEASED,
    code::MODE_CHANGED,
    code::LUNS_CHANGED,
];

const _: () = assert!(ATTENTIONS.len() <= 24, "they fit behind ATTENTION_SHIFT");

/// The bit of an attention; what is not among them is said by the one of its kind that says least.
fn bit(code: (u8, u8)) -> u32 {
    let place = ATTENTIONS.iter().position(|&other| other == code).unwrap_or_default();
    (1 << notice::ATTENTION_SHIFT) << place
}

/// The bits of all attentions with this additional sense code.
fn bits(asc: u8) -> u32 {
    ATTENTIONS.iter().filter(|&&(other, _)| other == asc).fold(0, |bits, &code| bits | bit(code))
}

/// A unit on a bus.
pub(crate) struct Nexus {
    pub(crate) unit: Arc<LogicalUnit>,
    pub(crate) address: Address,
    /// Of the bus: without it, `keep_sense` is called with what every CHECK CONDITION says.
    pub(crate) autosense: bool,
    /// The bus; none when it is gone.
    pub(crate) port: Weak<Port>,
    /// What has to be looked at before a command is carried out (`notice::*`: attentions,
    /// reservations, a medium that is not ready). 0 if nothing has: reads and writes then take no
    /// lock.
    pub(crate) notice: AtomicU32,
    who: Holder,
    rare: Mutex<Rare>,
}

/// What is looked at now and then.
#[derive(Default)]
struct Rare {
    /// For the next REQUEST SENSE, on a bus without autosense.
    sense: Option<Sense>,
    /// For the next GET EVENT STATUS NOTIFICATION.
    media: Option<MediaEvent>,
}

impl Nexus {
    /// Puts `unit` at `address` of a bus. The unit knows of it (weakly) from now on.
    pub(crate) fn new(unit: Arc<LogicalUnit>, port: &Arc<Port>, address: Address) -> Arc<Self> {
        let options = port.options();
        let this = Arc::new(Self::apart(
            unit,
            options.initiator.clone(),
            options.autosense,
            address,
            Arc::downgrade(port),
        ));
        this.unit.adopt(&this);
        this
    }

    fn apart(
        unit: Arc<LogicalUnit>,
        initiator: Initiator,
        autosense: bool,
        address: Address,
        port: Weak<Port>,
    ) -> Self {
        Self {
            unit,
            address,
            autosense,
            port,
            notice: AtomicU32::new(0),
            who: Holder { initiator, address },
            rare: Mutex::default(),
        }
    }

    /// A nexus without a bus.
    #[cfg(test)]
    pub(crate) fn alone(unit: &Arc<LogicalUnit>, name: &str, address: Address) -> Arc<Self> {
        let initiator = Initiator(name.into());
        let this = Self::apart(unit.clone(), initiator, true, address, Weak::new());
        let this = Arc::new(this);
        unit.adopt(&this);
        this
    }

    /// Tells the bus's listener. No lock that the listener could want may be held.
    pub(crate) fn tell(&self, event: BusEvent) {
        if let Some(port) = self.port.upgrade() {
            port.tell(self.address, event);
        }
    }

    /// Tells the bus's listener what a command of `by` has changed, unless that came by the same bus:
    /// it has a worker of the listener's device at work right now, and its initiator knows.
    pub(crate) fn tell_of(&self, by: &Self, event: BusEvent) {
        if !Weak::ptr_eq(&self.port, &by.port) {
            self.tell(event);
        }
    }

    /// In whose name reservations are held.
    pub(crate) fn who(&self) -> &Holder {
        &self.who
    }

    /// Counts changes of the medium: a lane that finds another number than it has opens the backend
    /// anew. Changed after the medium itself is.
    pub(crate) fn medium_generation(&self) -> u64 {
        self.unit.generation.load(Ordering::Acquire)
    }

    /// What is in the drive.
    pub(crate) fn medium(&self) -> Option<Arc<dyn BlockBackend>> {
        self.unit.medium()
    }

    /// Bytes of the unit's logical blocks.
    pub(crate) fn block_size(&self) -> u32 {
        self.unit.block_size()
    }

    /// Leaves an attention with this initiator.
    pub(crate) fn attention(&self, asc: u8, ascq: u8) {
        let code = (asc, ascq);
        // A disc that is there now is not missing any more, and the other way round.
        let stale = match code {
            code::MEDIUM_CHANGED => bit(code::NO_MEDIUM),
            code::NO_MEDIUM => bit(code::MEDIUM_CHANGED),
            _ => 0,
        };
        self.update(|now| now & !stale | bit(code));
    }

    /// The most urgent attention, which is not pending any more. Of the resets, it stands for all.
    pub(crate) fn take_attention(&self) -> Option<Sense> {
        let mut taken = None;
        self.update(|now| {
            let pending = now & notice::ATTENTIONS;
            let place = pending.trailing_zeros().checked_sub(notice::ATTENTION_SHIFT);
            taken = place.and_then(|place| ATTENTIONS.get(usize::try_from(place).ok()?)).copied();
            match taken {
                None => now,
                Some((asc @ 0x29, _)) => now & !bits(asc),
                Some(code) => now & !bit(code),
            }
        });
        taken.map(|code| Sense::new(key::UNIT_ATTENTION, code))
    }

    /// An attention is not pending any more.
    pub(crate) fn drop_attention(&self, code: (u8, u8)) {
        self.update(|now| now & !bit(code));
    }

    /// What of the unit's state is in the way.
    pub(crate) fn set_state(&self, bits: u32) {
        self.update(|now| now & !notice::STATE | bits & notice::STATE);
    }

    /// A command of this initiator ended with this sense data, and autosense is off.
    pub(crate) fn keep_sense(&self, sense: &Sense) {
        self.rare().sense = Some(*sense);
        self.update(|now| now | notice::SENSE);
    }

    /// The sense data that was kept, which is not any more.
    pub(crate) fn take_sense(&self) -> Option<Sense> {
        let sense = self.rare().sense.take();
        self.update(|now| now & !notice::SENSE);
        sense
    }

    /// A media event, to be asked for.
    pub(crate) fn media_event(&self, event: MediaEvent) {
        self.rare().media = Some(event);
    }

    /// The media event that was not asked for yet.
    pub(crate) fn take_media_event(&self) -> Option<MediaEvent> {
        self.rare().media.take()
    }

    /// The unit is gone from this bus and all its commands from here have ended: reservations in its
    /// name are as the standard has it (persistent ones stay).
    pub(crate) fn detach(&self) {
        self.unit.forget(self);
        self.unit.lose(self);
    }

    /// The whole unit is reset (SAM-5, 6.3.3), at the wish of this initiator; 29h/`ascq` is the
    /// attention that it leaves with all of them. Every command has ended.
    pub(crate) fn reset(&self, ascq: u8) {
        self.unit.reset(ascq);
    }

    /// This nexus alone is lost (SAM-5, 6.3.4): 29h/07h.
    pub(crate) fn lost(&self) {
        self.unit.lose(self);
        let (asc, ascq) = code::NEXUS_LOSS;
        self.attention(asc, ascq);
    }

    /// This initiator's side of it is as after power-on: 29h/00h.
    pub(crate) fn power_on(&self) {
        *self.rare() = Rare::default();
        self.update(|now| now & !(notice::ATTENTIONS | notice::SENSE) | bit(code::RESET));
        self.unit.power_on(self);
    }

    fn rare(&self) -> MutexGuard<'_, Rare> {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, mut change: impl FnMut(u32) -> u32) {
        // It never fails: the change is never refused.
        let _ =
            self.notice.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| Some(change(now)));
    }
}

impl std::fmt::Debug for Nexus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nexus").field("who", &self.who).finish_non_exhaustive()
    }
}
