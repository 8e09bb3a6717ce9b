//! Commands, and what their dwords say.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Opcodes of the admin command set (5).
pub mod admin {
    /// Delete I/O Submission Queue (5.6).
    pub const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
    /// Create I/O Submission Queue (5.4).
    pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
    /// Delete I/O Completion Queue (5.5).
    pub const DELETE_COMPLETION_QUEUE: u8 = 0x04;
    /// Create I/O Completion Queue (5.3).
    pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
    /// Identify (5.15).
    pub const IDENTIFY: u8 = 0x06;
    /// Set Features (5.21).
    pub const SET_FEATURES: u8 = 0x09;
}

/// Opcodes of the NVM command set (6).
pub mod nvm {
    /// Flush (6.8).
    pub const FLUSH: u8 = 0x00;
    /// Write (6.15).
    pub const WRITE: u8 = 0x01;
    /// Read (6.9).
    pub const READ: u8 = 0x02;
    /// Write Zeroes (6.17).
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset Management (6.7).
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Read, Write and Write Zeroes: most blocks of one command. Their number is in bits 15:0 of CDW12,
/// 0's based; the first block's is in CDW10 and CDW11.
pub const MAX_BLOCKS: u32 = 1 << 16;

/// Creating and deleting queues. Bits 15:0 of CDW10 are the queue's ID, bits 31:16 its size, 0's based.
pub mod queue {
    /// Shift of the size in CDW10.
    pub const SIZE_SHIFT: u32 = 16;
    /// CDW11: the queue is contiguous.
    pub const CONTIGUOUS: u32 = 1 << 0;
    /// CDW11 of a completion queue: it interrupts.
    pub const INTERRUPTS: u32 = 1 << 1;
    /// Shift in CDW11: a completion queue's vector, or the completion queue of a submission queue.
    pub const SECOND_SHIFT: u32 = 16;
}

/// Set Features: bits 7:0 of CDW10 (5.21.1).
pub mod feature {
    /// Number of Queues (5.21.1.7): bits 15:0 of CDW11 and of the result are I/O submission queues,
    /// bits 31:16 I/O completion queues, both 0's based.
    pub const NUMBER_OF_QUEUES: u32 = 0x07;
}

/// Identify: bits 7:0 of CDW10 say what is asked for (5.15.1).
pub mod cns {
    /// A namespace: [`IdentifyNamespace`](crate::nvme::IdentifyNamespace).
    pub const NAMESPACE: u32 = 0x00;
    /// The controller: [`IdentifyController`](crate::nvme::IdentifyController).
    pub const CONTROLLER: u32 = 0x01;
    /// The IDs of up to 1024 active namespaces that are greater than the command's, ascending, zeroes
    /// behind the last. New in version 1.1.
    pub const ACTIVE_NAMESPACES: u32 = 0x02;
}

/// Dataset Management (6.7).
pub mod dataset {
    /// CDW11: the ranges are not needed any more.
    pub const DEALLOCATE: u32 = 1 << 2;
    /// Most ranges of one command; their number is in bits 7:0 of CDW10, 0's based.
    pub const MAX_RANGES: usize = 256;
}

/// A range of Dataset Management (6.7.1.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DatasetRange {
    /// Context attributes.
    pub attributes: U32,
    /// Blocks.
    pub blocks: U32,
    /// The first block.
    pub start: U64,
}

const _: () = assert!(size_of::<DatasetRange>() == 16);
