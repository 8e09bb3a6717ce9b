//! MODE SELECT.

use paraslot_spec::scsi::cdb::{PF, SP};
use paraslot_spec::scsi::mode::{
    BLOCK_DESCRIPTOR, HEADER_6, HEADER_10, LONG_BLOCK_DESCRIPTOR, LONGLBA, SPF, page,
};
use paraslot_spec::scsi::sense::code;

use super::find;
use super::pages::Values;
use crate::bus::BusEvent;
use crate::decode::block::flush;
use crate::decode::context::{Answer, Context};
use crate::plan::Plan;
use crate::sense::Sense;
use crate::unit::{Kind, LogicalUnit, modes};

/// MODE SELECT (6).
pub(in crate::decode) fn select_6(ctx: &Context<'_>) -> Answer {
    select(ctx, ctx.cdb.u8(4).into(), HEADER_6)
}

/// MODE SELECT (10).
pub(in crate::decode) fn select_10(ctx: &Context<'_>) -> Answer {
    select(ctx, ctx.cdb.u16(7), HEADER_10)
}

fn select(ctx: &Context<'_>, len: u16, header: usize) -> Answer {
    if !ctx.cdb.bit(1, PF) {
        return Err(Sense::invalid_cdb(1, Some(4)));
    }
    if ctx.cdb.bit(1, SP) {
        return Err(Sense::invalid_cdb(1, Some(0)));
    }
    if len == 0 {
        return Ok(Plan::good());
    }
    ctx.parameters(len, |list| {
        let now = ctx.unit().modes();
        let wanted = parse(ctx.unit(), list, header, now)?;
        Ok(apply(ctx, now ^ wanted, wanted))
    })
}

fn short() -> Sense {
    Sense::illegal(code::PARAMETER_LIST_LENGTH)
}

/// A place in the parameter list, for a field pointer.
fn place(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

/// What the modes are to be, which are `now`. Nothing has changed yet: one bad field, and nothing will.
fn parse(unit: &LogicalUnit, list: &[u8], header: usize, now: u32) -> Result<u32, Sense> {
    let head = list.get(..header).ok_or_else(short)?;
    // Medium type: the only one. What is write protected is not said this way.
    let medium_type_at = if header == HEADER_6 { 1 } else { 2 };
    if head.get(medium_type_at).is_some_and(|&kind| kind != 0) {
        return Err(Sense::invalid_parameter(place(medium_type_at), Some(7)));
    }
    let (descriptors_at, descriptors, long) = match *head {
        [_, _, _, bytes] => (3, usize::from(bytes), false),
        [_, _, _, _, flags, _, high, low] => {
            (6, usize::from(u16::from_be_bytes([high, low])), flags & LONGLBA != 0)
        }
        _ => return Err(short()),
    };
    let one = if long { LONG_BLOCK_DESCRIPTOR } else { BLOCK_DESCRIPTOR };
    if descriptors != 0 && (descriptors != one || unit.kind == Kind::Cdrom) {
        return Err(Sense::invalid_parameter(descriptors_at, None));
    }
    let pages = header + descriptors;
    let descriptor = list.get(header..pages).ok_or_else(short)?;
    check_descriptor(unit, descriptor, header)?;
    let mut wanted = now;
    let mut at = pages;
    while at < list.len() {
        at = parse_page(unit, list, at, &mut wanted)?;
    }
    Ok(wanted)
}

/// A block descriptor may only say what is: all blocks, and their size.
fn check_descriptor(unit: &LogicalUnit, descriptor: &[u8], at: usize) -> Result<(), Sense> {
    let (blocks, most, block, block_at) = match *descriptor {
        [] => return Ok(()),
        [a, b, c, d, _, e, f, g] => {
            let blocks = u32::from_be_bytes([a, b, c, d]);
            (u64::from(blocks), u64::from(u32::MAX), u32::from_be_bytes([0, e, f, g]), 5)
        }
        [a, b, c, d, e, f, g, h, _, _, _, _, i, j, k, l] => {
            let blocks = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            (blocks, u64::MAX, u32::from_be_bytes([i, j, k, l]), 12)
        }
        _ => return Err(short()),
    };
    if blocks != 0 && blocks != most && blocks != unit.blocks() {
        return Err(Sense::invalid_parameter(place(at), None));
    }
    if block != unit.block_size() {
        return Err(Sense::invalid_parameter(place(at + block_at), None));
    }
    Ok(())
}

/// Takes the page at `at` into `wanted`; returns where the next one is.
fn parse_page(
    unit: &LogicalUnit,
    list: &[u8],
    at: usize,
    wanted: &mut u32,
) -> Result<usize, Sense> {
    let Some(&[first, len]) = list.get(at..).and_then(<[u8]>::first_chunk) else {
        return Err(short());
    };
    // PS is for MODE SENSE to say; here it is reserved, and often what MODE SENSE has said.
    if first & SPF != 0 {
        return Err(Sense::invalid_parameter(place(at), Some(6)));
    }
    let unknown = || Sense::invalid_parameter(place(at), Some(5));
    let page = find(unit, first & page::MASK).ok_or_else(unknown)?;
    if len != page.len {
        return Err(Sense::invalid_parameter(place(at + 1), None));
    }
    let end = at + 2 + usize::from(len);
    let given = list.get(at..end).ok_or_else(short)?;
    let current = page.bytes(unit, Values::Current(*wanted));
    let changeable = page.bytes(unit, Values::Changeable);
    let bytes = given.iter().zip(&current).zip(&changeable);
    for (index, ((given, current), changeable)) in bytes.enumerate().skip(2) {
        let refused = (given ^ current) & !changeable;
        if let Some(bit) = refused.checked_ilog2() {
            let bit = u8::try_from(bit).ok();
            return Err(Sense::invalid_parameter(place(at + index), bit));
        }
    }
    for bit in page.bits {
        match given.get(bit.byte) {
            Some(byte) if byte & bit.mask != 0 => *wanted |= bit.mode,
            _ => *wanted &= !bit.mode,
        }
    }
    Ok(end)
}

/// Changes those modes that are in `changed`, and tells the others. What is in the cache when it is
/// turned off becomes durable.
fn apply(ctx: &Context<'_>, changed: u32, wanted: u32) -> Plan {
    let unit = ctx.unit();
    let before = unit.change_modes(changed, wanted);
    if changed != 0 {
        let (asc, ascq) = code::MODE_CHANGED;
        let removable = unit.kind == Kind::Cdrom;
        for nexus in unit.nexuses() {
            if nexus.who() != ctx.nexus.who() {
                nexus.attention(asc, ascq);
                nexus.tell_of(ctx.nexus, BusEvent::Changed { asc, ascq, removable });
            }
        }
    }
    let turned_off = before & changed & !wanted & modes::WRITE_CACHE != 0;
    if turned_off { flush(unit) } else { Plan::good() }
}
