//! Entries of the queues (4).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// log2 of the bytes of a [`SubmissionEntry`], as CC.IOSQES and SQES say it.
pub const SUBMISSION_ENTRY_SHIFT: u8 = 6;
/// log2 of the bytes of a [`CompletionEntry`], as CC.IOCQES and CQES say it.
pub const COMPLETION_ENTRY_SHIFT: u8 = 4;

/// A command (4.2). Its flags, for fused commands and SGLs, are all zero: data is described by PRPs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SubmissionEntry {
    /// Opcode: one of [`admin`](super::admin) or [`nvm`](super::nvm).
    pub opcode: u8,
    /// FUSE and PSDT.
    pub flags: u8,
    /// CID: comes back with the completion.
    pub command_id: U16,
    /// NSID: namespace.
    pub namespace: U32,
    reserved: [U32; 2],
    /// MPTR: address of the metadata.
    pub metadata: U64,
    /// PRP1: address of the data, of which the part in the first page is meant (4.3).
    pub prp1: U64,
    /// PRP2: address of the second page of data, or of a list of the pages from the second on (4.3).
    pub prp2: U64,
    /// CDW10 to CDW15: what the command says of them.
    pub dwords: [U32; 6],
}

impl SubmissionEntry {
    /// A command of which nothing but the opcode is said.
    pub fn new(opcode: u8) -> Self {
        Self { opcode, ..Self::default() }
    }
}

/// A completion (4.6).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CompletionEntry {
    /// What the command says of it.
    pub result: U32,
    reserved: U32,
    /// SQHD: how far the submission queue has been emptied.
    pub submission_head: U16,
    /// SQID: the submission queue that the command was in.
    pub submission_queue: U16,
    /// CID: the command's.
    pub command_id: U16,
    /// The phase tag in bit 0, the [`status`] above it. Written last, or with everything else.
    pub status: U16,
}

/// The status field of a completion (4.6.1), without the phase tag: its bits 15:1, shifted down.
pub mod status {
    /// The phase tag, in the 16 bits that hold both.
    pub const PHASE: u16 = 1 << 0;
    /// Shift of the status field in them.
    pub const SHIFT: u32 = 1;
    /// Status code type and status code, which together say what has happened.
    pub const CODE: u16 = 0x7ff;
    /// DNR: the same command would fail again.
    pub const DO_NOT_RETRY: u16 = 1 << 14;

    /// Generic: successful completion (4.6.1.2.1).
    pub const SUCCESS: u16 = 0x00;
    /// Generic: there is no such command.
    pub const INVALID_OPCODE: u16 = 0x01;
    /// Generic: a field has a value that is not supported.
    pub const INVALID_FIELD: u16 = 0x02;
    /// Generic: data could not be transferred.
    pub const DATA_TRANSFER_ERROR: u16 = 0x04;
    /// Generic: an Abort command ended it.
    pub const ABORT_REQUESTED: u16 = 0x07;
    /// Generic: its submission queue was deleted.
    pub const ABORTED_BY_QUEUE_DELETION: u16 = 0x08;
    /// Generic: there is no such namespace.
    pub const INVALID_NAMESPACE: u16 = 0x0b;
    /// Generic: blocks behind the namespace's end.
    pub const LBA_OUT_OF_RANGE: u16 = 0x80;
    /// Command specific: there is no such queue (4.6.1.2.2).
    pub const INVALID_QUEUE: u16 = 0x101;
    /// Command specific: a queue of that size cannot be.
    pub const INVALID_QUEUE_SIZE: u16 = 0x102;
    /// Media: data cannot be read (4.6.1.2.3).
    pub const UNRECOVERED_READ_ERROR: u16 = 0x281;
}

const _: () = {
    assert!(size_of::<SubmissionEntry>() == 1 << SUBMISSION_ENTRY_SHIFT);
    assert!(size_of::<CompletionEntry>() == 1 << COMPLETION_ENTRY_SHIFT);
    assert!(core::mem::offset_of!(SubmissionEntry, prp1) == 24);
    assert!(core::mem::offset_of!(SubmissionEntry, dwords) == 40);
    assert!(core::mem::offset_of!(CompletionEntry, status) == 14);
};
