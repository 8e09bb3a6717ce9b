//! READ CAPACITY.

use paraslot_spec::scsi::block::{CAPACITY_10_MORE, Capacity10, Capacity16, LBPME, LBPRZ};
use zerocopy::IntoBytes;

use super::context::{Answer, Context, cap32, reply};
use crate::plan::Plan;
use crate::sense::Sense;
use crate::unit::{Kind, LogicalUnit};

fn last(unit: &LogicalUnit) -> u64 {
    unit.blocks().saturating_sub(1)
}

/// Log2 of the logical blocks in a physical one, which four bits hold.
pub(super) fn exponent(unit: &LogicalUnit) -> u8 {
    let ratio = unit.info.physical_block / unit.info.logical_block;
    u8::try_from(ratio.trailing_zeros()).unwrap_or(0xf).min(0xf)
}

/// READ CAPACITY (10). Of disks, PMI and the LBA are obsolete and must be 0.
pub(super) fn read_10(ctx: &Context<'_>) -> Answer {
    if ctx.unit().kind == Kind::Disk && !ctx.cdb.bit(8, 1) && ctx.cdb.u32(2) != 0 {
        return Err(Sense::invalid_cdb(2, None));
    }
    let last = u32::try_from(last(ctx.unit())).unwrap_or(CAPACITY_10_MORE);
    let data = Capacity10 { last: last.into(), block: ctx.unit().block_size().into() };
    Ok(Plan::Reply(data.as_bytes().to_vec()))
}

/// READ CAPACITY (16).
pub(super) fn read_16(ctx: &Context<'_>) -> Answer {
    let unit = ctx.unit();
    let mut provisioning = 0;
    if unit.thin() {
        provisioning |= LBPME;
        if unit.info.write_zeroes_unmap {
            provisioning |= LBPRZ;
        }
    }
    let data = Capacity16::new(last(unit), unit.block_size(), exponent(unit), provisioning);
    Ok(reply(data.as_bytes().to_vec(), ctx.cdb.u32(10)))
}

/// The logical blocks, as a field of 32 bits says them.
pub(super) fn blocks_32(unit: &LogicalUnit) -> u32 {
    cap32(unit.blocks())
}
