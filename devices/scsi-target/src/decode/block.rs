//! Reads, writes, and what else goes to a range of blocks.

use paraslot_spec::scsi::cdb::{BYTCHK_SHIFT, FUA, PROTECT, RW6_MAX};
use paraslot_spec::scsi::opcode::{
    PRE_FETCH_10, READ_6, READ_10, READ_12, SYNCHRONIZE_CACHE_10, VERIFY_10, VERIFY_12, WRITE_6,
    WRITE_10, WRITE_12, WRITE_AND_VERIFY_10, WRITE_AND_VERIFY_12, WRITE_SAME_10,
};

use super::context::{Answer, Context};
use crate::command::{Cdb, Status};
use crate::plan::{Compare, Ending, Plan};
use crate::sense::Sense;
use crate::unit::LogicalUnit;

/// Bytes that one command reads, writes or verifies at most. What moves no data (VERIFY without
/// BYTCHK) is bounded by it, too.
pub(super) const MAX_TRANSFER: u64 = 256 << 20;
/// Bytes that COMPARE AND WRITE compares at most, unless a block has more.
const MAX_COMPARE: u32 = 128 << 10;

/// Where a command says what blocks it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) lba: u64,
    pub(super) blocks: u64,
    /// The byte of the command where the number of blocks is.
    pub(super) blocks_at: u16,
}

impl Span {
    /// Of commands with the fields of READ (6), (10), (12) or (16).
    pub(super) fn of(cdb: &Cdb) -> Self {
        match cdb.opcode() {
            READ_6 | WRITE_6 => {
                let blocks = match cdb.u8(4) {
                    0 => RW6_MAX,
                    blocks => blocks.into(),
                };
                let lba = cdb.u24(1) & 0x1f_ffff;
                Self { lba: lba.into(), blocks: blocks.into(), blocks_at: 4 }
            }
            READ_10 | WRITE_10 | VERIFY_10 | WRITE_AND_VERIFY_10 | PRE_FETCH_10
            | SYNCHRONIZE_CACHE_10 | WRITE_SAME_10 => {
                Self { lba: cdb.u32(2).into(), blocks: cdb.u16(7).into(), blocks_at: 7 }
            }
            READ_12 | WRITE_12 | VERIFY_12 | WRITE_AND_VERIFY_12 => {
                Self { lba: cdb.u32(2).into(), blocks: cdb.u32(6).into(), blocks_at: 6 }
            }
            _ => Self { lba: cdb.u64(2), blocks: cdb.u32(10).into(), blocks_at: 10 },
        }
    }

    /// Offset and length in bytes, if all of it is there.
    pub(super) fn within(self, unit: &LogicalUnit) -> Result<(u64, u64), Sense> {
        let capacity = unit.blocks();
        let end = self.lba.checked_add(self.blocks);
        if self.lba >= capacity || end.is_none_or(|end| end > capacity) {
            return Err(Sense::out_of_range(self.lba.max(capacity)));
        }
        // The capacity in bytes fits, so these do.
        Ok((self.lba << unit.shift(), self.blocks << unit.shift()))
    }

    /// The same, and no longer than `limit` bytes.
    pub(super) fn limited(self, unit: &LogicalUnit, limit: u64) -> Result<(u64, u64), Sense> {
        let (offset, len) = self.within(unit)?;
        if len > limit {
            return Err(Sense::invalid_cdb(self.blocks_at, None));
        }
        Ok((offset, len))
    }
}

/// Protection information is not supported: RDPROTECT, WRPROTECT and VRPROTECT must be 0.
pub(super) fn unprotected(cdb: &Cdb) -> Result<(), Sense> {
    if cdb.bit(1, PROTECT) { Err(Sense::invalid_cdb(1, Some(7))) } else { Ok(()) }
}

/// READ (6).
pub(super) fn read_6(ctx: &Context<'_>) -> Answer {
    let (offset, len) = Span::of(ctx.cdb).limited(ctx.unit(), MAX_TRANSFER)?;
    Ok(Plan::Read { offset, len })
}

/// READ (10), (12), (16). FUA asks for what is on the medium rather than in a cache; both are the same
/// to a backend's reader.
pub(super) fn read(ctx: &Context<'_>) -> Answer {
    unprotected(ctx.cdb)?;
    read_6(ctx)
}

/// WRITE (6).
pub(super) fn write_6(ctx: &Context<'_>) -> Answer {
    let (offset, len) = Span::of(ctx.cdb).limited(ctx.unit(), MAX_TRANSFER)?;
    Ok(Plan::Write { offset, len, fua: ctx.unit().write_through() })
}

/// WRITE (10), (12), (16).
pub(super) fn write(ctx: &Context<'_>) -> Answer {
    unprotected(ctx.cdb)?;
    let (offset, len) = Span::of(ctx.cdb).limited(ctx.unit(), MAX_TRANSFER)?;
    let fua = ctx.cdb.bit(1, FUA) || ctx.unit().write_through();
    Ok(Plan::Write { offset, len, fua })
}

fn byte_check(cdb: &Cdb) -> u8 {
    cdb.u8(1) >> BYTCHK_SHIFT & 3
}

/// VERIFY (10), (12), (16).
pub(super) fn verify(ctx: &Context<'_>) -> Answer {
    unprotected(ctx.cdb)?;
    let compare = match byte_check(ctx.cdb) {
        0 => Compare::Nothing,
        1 => Compare::Blocks,
        3 => Compare::OneBlock,
        _ => return Err(Sense::invalid_cdb(1, Some(2))),
    };
    let (offset, len) = Span::of(ctx.cdb).limited(ctx.unit(), MAX_TRANSFER)?;
    Ok(if len == 0 { Plan::good() } else { Plan::Verify { offset, len, compare } })
}

/// WRITE AND VERIFY (10), (12), (16).
pub(super) fn write_verify(ctx: &Context<'_>) -> Answer {
    unprotected(ctx.cdb)?;
    let compare = match byte_check(ctx.cdb) {
        0 => Compare::Nothing,
        1 => Compare::Blocks,
        _ => return Err(Sense::invalid_cdb(1, Some(2))),
    };
    let (offset, len) = Span::of(ctx.cdb).limited(ctx.unit(), MAX_TRANSFER)?;
    Ok(if len == 0 { Plan::good() } else { Plan::WriteVerify { offset, len, compare } })
}

/// SYNCHRONIZE CACHE (10), (16): all of the cache, whatever range it is about. With IMMED it may end
/// sooner; it does not.
pub(super) fn synchronize(ctx: &Context<'_>) -> Answer {
    Span::of(ctx.cdb).within(ctx.unit())?;
    Ok(flush(ctx.unit()))
}

/// Makes completed writes durable, where they are not anyway.
pub(super) fn flush(unit: &LogicalUnit) -> Plan {
    if unit.info.volatile_cache { Plan::Flush } else { Plan::good() }
}

/// PRE-FETCH (10), (16): any block is as quick to be read as it can be, since what caches there are
/// belong to the host.
pub(super) fn pre_fetch(ctx: &Context<'_>) -> Answer {
    Span::of(ctx.cdb).within(ctx.unit())?;
    Ok(Plan::End(Ending::Status(Status::ConditionMet)))
}

/// Blocks that COMPARE AND WRITE compares at most.
pub(super) fn max_compare(unit: &LogicalUnit) -> u8 {
    u8::try_from(MAX_COMPARE / unit.block_size()).unwrap_or(u8::MAX).max(1)
}

/// COMPARE AND WRITE.
pub(super) fn compare_and_write(ctx: &Context<'_>) -> Answer {
    unprotected(ctx.cdb)?;
    let blocks = ctx.cdb.u8(13);
    let span = Span { lba: ctx.cdb.u64(2), blocks: blocks.into(), blocks_at: 13 };
    let (offset, len) = span.within(ctx.unit())?;
    if blocks > max_compare(ctx.unit()) {
        return Err(Sense::invalid_cdb(span.blocks_at, None));
    }
    if len == 0 {
        return Ok(Plan::good());
    }
    let fua = ctx.cdb.bit(1, FUA) || ctx.unit().write_through();
    Ok(Plan::CompareAndWrite { offset, len, fua })
}
