//! How commands end, and what is made of it.

use paraslot_spec::scsi::sense::{code, key};
use paraslot_spec::scsi::status;

use super::Sense;
use crate::Failed;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The way.
    pub outcome: Outcome,
    /// Bytes of data that were moved.
    pub moved: u32,
}

/// The way in which a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The unit ended it with this status (SAM-5, 5.3.1), CHECK CONDITION apart.
    Status(u8),
    /// The unit ended it with CHECK CONDITION, for this reason if it gives one.
    Check(Option<Sense>),
    /// There is nothing at this address.
    Absent,
    /// Task management or a reset ended it.
    Aborted,
    /// The host has no room for it now.
    Busy,
    /// The host, or the way to the unit, failed.
    Failed,
}

impl Ended {
    /// It ended in some other way; of what was moved nothing is known.
    pub(crate) const fn badly(outcome: Outcome) -> Self {
        Self { outcome, moved: 0 }
    }

    /// Whether it was done.
    pub(super) fn is_done(&self) -> bool {
        match self.outcome {
            Outcome::Status(status) => status == status::GOOD,
            Outcome::Check(Some(sense)) => {
                !sense.deferred && matches!(sense.key, key::NO_SENSE | key::RECOVERED_ERROR)
            }
            _ => false,
        }
    }

    /// Whether it may well be done if it is issued again, whatever `medium` is in the drive.
    pub(super) fn is_passing(&self, medium: Medium) -> bool {
        match self.outcome {
            Outcome::Busy => true,
            Outcome::Status(status) => matches!(status, status::BUSY | status::TASK_SET_FULL),
            Outcome::Check(Some(sense)) => {
                sense.deferred
                    || match sense.key {
                        key::UNIT_ATTENTION => {
                            medium == Medium::Any || sense.code != code::MEDIUM_CHANGED
                        }
                        key::ABORTED_COMMAND => true,
                        _ => false,
                    }
            }
            _ => false,
        }
    }

    /// What it means for a request that is to move `wanted` bytes, and is not issued again.
    pub(super) fn result(&self, wanted: u32) -> Result<(), Failed> {
        match self.outcome {
            _ if self.is_done() && self.moved < wanted => Err(Failed::Short),
            _ if self.is_done() => Ok(()),
            Outcome::Check(Some(sense)) if sense.is_unsupported() => Err(Failed::Unsupported),
            Outcome::Aborted | Outcome::Status(status::TASK_ABORTED) => Err(Failed::Aborted),
            _ => Err(Failed::Io),
        }
    }
}

/// Which medium a command is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    /// Whatever is there.
    Any,
    /// The one that was there when the disk was looked at.
    Same,
}
