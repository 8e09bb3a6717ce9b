//! Commands, and how they end (SAM-5, 5).

use paraslot_device::DmaBuffers;

use crate::bus::Address;
use crate::sense::Sense;

/// A command descriptor block. What lies beyond its end reads as zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cdb {
    bytes: [u8; Self::MAX],
}

impl Cdb {
    /// Bytes of the longest command that a unit here knows.
    pub const MAX: usize = 32;

    /// The first bytes of `bytes`, [`MAX`](Self::MAX) at most.
    pub fn new(bytes: &[u8]) -> Self {
        let mut this = Self::default();
        for (to, from) in this.bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        this
    }

    /// All of it, zeroes at the end included.
    pub fn bytes(&self) -> &[u8; Self::MAX] {
        &self.bytes
    }

    /// The operation code.
    pub fn opcode(&self) -> u8 {
        self.bytes[0]
    }
}

/// How a command is ordered among the others (SAM-5, 8.6). A unit may take any for simple, and these
/// units do (INQUIRY and VPD say so).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribute {
    /// In any order.
    #[default]
    Simple,
    /// After all earlier ones and before all later ones.
    Ordered,
    /// At once.
    HeadOfQueue,
    /// Only while an auto contingent allegiance is there, which never is.
    Aca,
}

/// A command for a unit.
#[derive(Debug)]
pub struct Command {
    /// The caller's; comes back with the completion.
    pub token: u64,
    /// The initiator's, by which it names the command when it wants it aborted.
    pub tag: u64,
    /// For whom.
    pub address: Address,
    /// What to do.
    pub cdb: Cdb,
    /// In which order.
    pub attribute: Attribute,
    /// Guest memory for the data of the command, in its direction; empty if there is none. A command
    /// whose data goes the other way finds no room here.
    pub data: DmaBuffers,
}

/// Status codes (SAM-5, 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Good = 0x00,
    /// The sense data says what.
    CheckCondition = 0x02,
    /// PRE-FETCH: all of it fits.
    ConditionMet = 0x04,
    /// Try again soon.
    Busy = 0x08,
    /// Somebody else has reserved the unit.
    ReservationConflict = 0x18,
    /// Too many commands at once.
    TaskSetFull = 0x28,
    /// An auto contingent allegiance is there.
    AcaActive = 0x30,
    /// Another initiator's task management ended it (TAS).
    TaskAborted = 0x40,
}

impl Status {
    /// The status with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        [
            Self::Good,
            Self::CheckCondition,
            Self::ConditionMet,
            Self::Busy,
            Self::ReservationConflict,
            Self::TaskSetFull,
            Self::AcaActive,
            Self::TaskAborted,
        ]
        .into_iter()
        .find(|status| *status as u8 == code)
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The unit ended it.
    Ended {
        /// With this.
        status: Status,
        /// With CHECK CONDITION always (autosense), with others never.
        sense: Option<Box<Sense>>,
    },
    /// It moves more data than there are buffers. Nothing was done.
    Overrun,
    /// Task management (an abort function) ended it.
    Aborted,
    /// A reset ended it, or the removal of its unit.
    Reset,
    /// There is no unit at all at this target.
    NoTarget,
}

/// A command that is over.
#[derive(Debug)]
pub struct Completion {
    /// The command's.
    pub token: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of its data buffers that were moved, from their start: the buffers' length less this is
    /// the residual.
    pub moved: u64,
}
