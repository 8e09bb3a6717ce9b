//! What Identify tells, as far as the driver needs it (5.15.2).

use core::mem::offset_of;

use paraslot_spec::nvme::{
    ALL_NAMESPACES, COMPLETION_ENTRY_SHIFT, Cap, IdentifyController, IdentifyNamespace, LbaFormat,
    MAX_BLOCKS, MAX_FORMATS, Oncs, SUBMISSION_ENTRY_SHIFT,
};

use super::prp;
use crate::{DmaRegion, Error};

/// What a controller is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// The highest namespace ID.
    pub(super) namespaces: u32,
    /// Most bytes that one command moves.
    pub(super) max_transfer: u32,
    /// Most commands in flight in a queue; 0 if it does not say.
    pub(super) max_commands: u16,
    pub(super) discard: bool,
    pub(super) write_zeroes: bool,
    pub(super) write_cache: bool,
}

/// What a namespace is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) id: u32,
    pub(super) capacity: u64,
    pub(super) block_size: u32,
    pub(super) max_transfer: u32,
}

/// Whether the least (bits 3:0) that the controller demands of its entries' sizes, and the most, are
/// such that entries of the usual size will do.
fn takes(sizes: u8, shift: u8) -> bool {
    (sizes & 0xf..=sizes >> 4).contains(&shift)
}

impl Identity {
    pub(super) fn parse(data: &DmaRegion, cap: Cap) -> Result<Self, Error> {
        let byte = |offset| data.read8(offset);
        if !takes(byte(offset_of!(IdentifyController, submission_entry)), SUBMISSION_ENTRY_SHIFT)
            || !takes(
                byte(offset_of!(IdentifyController, completion_entry)),
                COMPLETION_ENTRY_SHIFT,
            )
        {
            return Err(Error::Protocol(
                "its queues' entries are not those of the NVM command set",
            ));
        }
        let max_transfer = match byte(offset_of!(IdentifyController, max_transfer)) {
            0 => prp::MAX_TRANSFER,
            // A power that no number has is as good as no limit.
            power => 1u64
                .checked_shl(power.into())
                .and_then(|pages| pages.checked_mul(cap.min_page()))
                .and_then(|bytes| u32::try_from(bytes).ok())
                .map_or(prp::MAX_TRANSFER, |bytes| bytes.min(prp::MAX_TRANSFER)),
        };
        let commands = data.read16(offset_of!(IdentifyController, commands));
        let commands = Oncs::from_bits_retain(commands);
        Ok(Self {
            namespaces: data.read32(offset_of!(IdentifyController, namespaces)),
            max_transfer,
            max_commands: data.read16(offset_of!(IdentifyController, max_commands)),
            discard: commands.contains(Oncs::DATASET_MANAGEMENT),
            write_zeroes: commands.contains(Oncs::WRITE_ZEROES),
            write_cache: byte(offset_of!(IdentifyController, write_cache)) & 1 != 0,
        })
    }

    /// Checks the ID of a namespace that the controller says is active.
    pub(super) fn check_namespace(&self, id: u32) -> Result<u32, Error> {
        match id {
            0 => Err(Error::NotFound),
            ALL_NAMESPACES => Err(Error::Protocol("an active namespace that cannot be")),
            id if id > self.namespaces => Err(Error::Protocol("more namespaces than there can be")),
            id => Ok(id),
        }
    }
}

impl Namespace {
    pub(super) fn parse(data: &DmaRegion, id: u32, identity: &Identity) -> Result<Self, Error> {
        let blocks = data.read64(offset_of!(IdentifyNamespace, blocks));
        if blocks == 0 {
            return Err(Error::NotFound);
        }
        let formats = data.read8(offset_of!(IdentifyNamespace, formats));
        let format = data.read8(offset_of!(IdentifyNamespace, format));
        let index = IdentifyNamespace::format_index(format, formats);
        if index > usize::from(formats) || index >= MAX_FORMATS {
            return Err(Error::Protocol("a namespace's format that it does not have"));
        }
        let at = offset_of!(IdentifyNamespace, format_list) + size_of::<LbaFormat>() * index;
        if data.read16(at + offset_of!(LbaFormat, metadata)) != 0 {
            return Err(Error::Unsupported("blocks without metadata"));
        }
        let shift = data.read8(at + offset_of!(LbaFormat, block_shift));
        if !(9..=16).contains(&shift) {
            return Err(Error::Protocol("its block size makes no sense"));
        }
        let block_size = 1u32 << shift;
        let capacity = blocks
            .checked_mul(block_size.into())
            .ok_or(Error::Protocol("its capacity makes no sense"))?;
        let max_transfer = identity.max_transfer - identity.max_transfer % block_size;
        if max_transfer == 0 {
            return Err(Error::Protocol("it cannot move a block at once"));
        }
        Ok(Self { id, capacity, block_size, max_transfer })
    }
}

// A command can name as many blocks as can be moved at once, even of the smallest.
const _: () = assert!(MAX_BLOCKS as u64 * 512 >= prp::MAX_TRANSFER as u64);
