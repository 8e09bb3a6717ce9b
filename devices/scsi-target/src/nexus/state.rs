//! What an initiator has yet to hear, saved.

use std::sync::atomic::Ordering;

use paraslot_device::StateError;
use paraslot_spec::scsi::sense::code;
use serde::{Deserialize, Serialize};

use super::{ATTENTIONS, Nexus, Rare, bit, notice};
use crate::sense::Sense;
use crate::unit::MediaEvent;

/// What a unit keeps for one initiator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NexusState {
    /// The unit attentions that are pending: additional sense code and qualifier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attentions: Vec<(u8, u8)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sense: Option<Sense>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media: Option<MediaEvent>,
}

impl Nexus {
    pub(crate) fn save(&self) -> NexusState {
        let Rare { sense, media } = &*self.rare();
        let attentions = attentions(self.notice.load(Ordering::Acquire));
        NexusState { attentions, sense: *sense, media: *media }
    }

    /// Whether [`restore`](Self::restore) would take `saved`.
    pub(crate) fn check(&self, saved: &NexusState) -> Result<(), StateError> {
        let NexusState { attentions, sense, media } = saved;
        let medium = |code: &(u8, u8)| matches!(*code, code::NO_MEDIUM | code::MEDIUM_CHANGED);
        let possible = *attentions == self::attentions(saved.pending())
            && attentions.iter().filter(|code| medium(code)).count() <= 1
            && (self.unit.is_cdrom() || media.is_none() && !attentions.iter().any(medium));
        if !possible {
            return Err(StateError::impossible("unit attentions that the unit does not have"));
        }
        if sense.is_some_and(|sense| self.autosense || !sense.is_possible()) {
            return Err(StateError::impossible("sense data that would not have been kept"));
        }
        Ok(())
    }

    /// Takes over what was saved, after a reset.
    pub(crate) fn restore(&self, saved: &NexusState) -> Result<(), StateError> {
        self.check(saved)?;
        let NexusState { attentions: _, sense, media } = saved;
        *self.rare() = Rare { sense: *sense, media: *media };
        let mut bits = saved.pending();
        if sense.is_some() {
            bits |= notice::SENSE;
        }
        self.update(|now| now & notice::STATE | bits);
        Ok(())
    }
}

/// The attentions among `notice::*`, the most urgent first.
fn attentions(pending: u32) -> Vec<(u8, u8)> {
    ATTENTIONS.into_iter().filter(|&code| pending & bit(code) != 0).collect()
}

impl NexusState {
    fn pending(&self) -> u32 {
        self.attentions.iter().fold(0, |bits, &code| bits | bit(code))
    }
}
