//! What a command asks of the backend, once it has been checked.

use std::sync::Arc;

use crate::command::Status;
use crate::nexus::Nexus;
use crate::sense::Sense;

/// Ranges that one [`Plan::Unmap`] has at most.
pub(crate) const MAX_UNMAP: usize = 256;

/// How a command ends without more ado.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this status, which is not CHECK CONDITION.
    Status(Status),
    /// With CHECK CONDITION.
    Check(Sense),
}

/// How VERIFY and WRITE AND VERIFY compare (SBC-3, VERIFY command: BYTCHK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    /// The medium is read, and that is all.
    Nothing,
    /// With as many blocks of data.
    Blocks,
    /// Each block with the one block of data.
    OneBlock,
}

/// What a command asks for. Offsets and lengths are in bytes, within the capacity, multiples of the
/// logical block; lengths may be 0 unless said otherwise. `decode` has checked the unit's state,
/// reservations and attentions, and has done what a command does to the unit's own state.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Nothing is moved.
    End(Ending),
    /// It has more data to take than there are buffers. Nothing was done.
    Overrun,
    /// `decode` has taken the first `len` bytes of the data-out buffers, which count as moved; the
    /// rest moves nothing.
    Took { len: u64, then: Box<Plan> },
    /// Data-in: these bytes (already cut to the allocation length).
    Reply(Vec<u8>),
    /// Fill the buffers.
    Read { offset: u64, len: u64 },
    /// Store the buffers, durably if `fua`.
    Write { offset: u64, len: u64, fua: bool },
    /// Store the buffers durably, then read the medium and compare as `compare` says.
    WriteVerify { offset: u64, len: u64, compare: Compare },
    /// Read the medium and compare. Of data, `len` bytes, one block, or none.
    Verify { offset: u64, len: u64, compare: Compare },
    /// Make completed writes durable.
    Flush,
    /// Unmap these ranges, none empty; at most [`MAX_UNMAP`] of them. If `zero`, unmapped blocks of
    /// this unit read as zeroes, so this must be a write of zeroes that deallocates; else a discard.
    Unmap { ranges: Vec<(u64, u64)>, zero: bool },
    /// The range reads as zeroes from now on, durably if `fua`; `unmap` allows deallocation.
    WriteZeroes { offset: u64, len: u64, unmap: bool, fua: bool },
    /// Every block of the range becomes the one block of data (read once from the buffers), durably
    /// if `fua`.
    WriteSame { offset: u64, len: u64, fua: bool },
    /// The first half of the data is compared with the range, and if equal the second half is
    /// written, durably if `fua`. `len` is that of one half.
    CompareAndWrite { offset: u64, len: u64, fua: bool },
    /// PREEMPT AND ABORT: the commands that these have under way are to end as CLEAR TASK SET ends
    /// them, without an attention (they have theirs), save this one; then it ends with GOOD.
    Abort(Vec<Arc<Nexus>>),
}

impl Plan {
    pub(crate) fn good() -> Self {
        Self::End(Ending::Status(Status::Good))
    }

    pub(crate) fn check(sense: Sense) -> Self {
        Self::End(Ending::Check(sense))
    }
}
