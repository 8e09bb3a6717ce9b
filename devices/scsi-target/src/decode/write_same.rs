//! WRITE SAME.

use paraslot_spec::scsi::cdb::{NDOB, WRITE_SAME_ANCHOR, WRITE_SAME_UNMAP};
use paraslot_spec::scsi::opcode;

use super::block::{Span, unprotected};
use super::context::{Answer, Context, took};
use crate::plan::Plan;
use crate::sense::Sense;

/// Bytes that one WRITE SAME writes at most.
pub(super) const MAX_WRITE_SAME: u64 = 128 << 20;
/// Byte 1: LBDATA and PBDATA, obsolete. What they ask for is not what would be written without them.
const OBSOLETE: u8 = 0b110;

/// WRITE SAME (10), (16).
pub(super) fn write_same(ctx: &Context<'_>) -> Answer {
    let (cdb, unit) = (ctx.cdb, ctx.unit());
    unprotected(cdb)?;
    let unmap = cdb.bit(1, WRITE_SAME_UNMAP);
    let no_data = cdb.opcode() == opcode::WRITE_SAME_16 && cdb.bit(1, NDOB);
    let refused = if cdb.bit(1, WRITE_SAME_ANCHOR) {
        Some(4)
    } else if unmap && !unit.info.write_zeroes_unmap {
        Some(3)
    } else if cdb.bit(1, OBSOLETE) {
        Some(2)
    } else if no_data && !unit.info.write_zeroes {
        Some(0)
    } else {
        None
    };
    if refused.is_some() {
        return Err(Sense::invalid_cdb(1, refused));
    }
    let span = Span::of(cdb);
    let (offset, len) = span.limited(unit, MAX_WRITE_SAME)?;
    if len == 0 {
        // All blocks up to the last, which Block Limits' WSNZ says is not supported.
        return Err(Sense::invalid_cdb(span.blocks_at, None));
    }
    let fua = unit.write_through();
    let zeroes = Plan::WriteZeroes { offset, len, unmap, fua };
    if no_data {
        return Ok(zeroes);
    }
    let block = usize::try_from(unit.block_size()).unwrap_or(usize::MAX);
    if !ctx.has_data(block) {
        return Ok(Plan::Overrun);
    }
    if unit.info.write_zeroes && is_zero(ctx, block) {
        return Ok(took(block, zeroes));
    }
    Ok(Plan::WriteSame { offset, len, fua })
}

/// Whether the block of data is all zeroes. Should it change afterwards, one or the other is written.
fn is_zero(ctx: &Context<'_>, block: usize) -> bool {
    let mut bytes = vec![0xff; block];
    ctx.data.copy_to(&mut bytes);
    bytes.iter().all(|&byte| byte == 0)
}
