//! Mode parameters: MODE SENSE and MODE SELECT (SPC-4, 7.5).

mod pages;
mod select;

pub(super) use select::{select_6, select_10};

use paraslot_spec::scsi::cdb::{DBD, LLBAA};
use paraslot_spec::scsi::mode::{
    DPOFUA, LONG_BLOCK_DESCRIPTOR, LONGLBA, WP, control, page, subpage,
};
use paraslot_spec::scsi::sense::code;

use super::capacity::blocks_32;
use super::context::{Answer, Context, cap16, reply};
use crate::sense::Sense;
use crate::unit::{Kind, LogicalUnit, modes};
use pages::{Page, Values};

/// What is before the pages.
struct Header {
    device_specific: u8,
    descriptor: Vec<u8>,
}

/// MODE SENSE (6).
pub(super) fn sense_6(ctx: &Context<'_>) -> Answer {
    let pages = chosen(ctx)?;
    let Header { device_specific, descriptor } = header(ctx, false);
    let len = descriptor.len() + pages.len() + 3;
    // What is there is far shorter than what the field holds.
    let len = u8::try_from(len).unwrap_or(u8::MAX);
    let descriptors = u8::try_from(descriptor.len()).unwrap_or(u8::MAX);
    let mut data = vec![len, 0, device_specific, descriptors];
    data.extend(descriptor);
    data.extend(pages);
    Ok(reply(data, ctx.cdb.u8(4)))
}

/// MODE SENSE (10).
pub(super) fn sense_10(ctx: &Context<'_>) -> Answer {
    let pages = chosen(ctx)?;
    let long = ctx.cdb.bit(1, LLBAA) && ctx.unit().blocks() > u32::MAX.into();
    let Header { device_specific, descriptor } = header(ctx, long);
    let [high, low] = cap16((descriptor.len() + pages.len() + 6) as u64).to_be_bytes();
    let [descriptors_high, descriptors_low] = cap16(descriptor.len() as u64).to_be_bytes();
    let flags = if descriptor.len() == LONG_BLOCK_DESCRIPTOR { LONGLBA } else { 0 };
    let mut data = vec![high, low, 0, device_specific, flags, 0, descriptors_high, descriptors_low];
    data.extend(descriptor);
    data.extend(pages);
    Ok(reply(data, ctx.cdb.u16(7)))
}

fn header(ctx: &Context<'_>, long: bool) -> Header {
    let unit = ctx.unit();
    if unit.kind == Kind::Cdrom {
        return Header { device_specific: 0, descriptor: Vec::new() };
    }
    let protected = unit.info.read_only || unit.mode(modes::SOFTWARE_PROTECT);
    let device_specific = DPOFUA | if protected { WP } else { 0 };
    let descriptor = if ctx.cdb.bit(1, DBD) {
        Vec::new()
    } else {
        let block = unit.block_size().to_be_bytes();
        let mut descriptor = Vec::with_capacity(LONG_BLOCK_DESCRIPTOR);
        if long {
            descriptor.extend(unit.blocks().to_be_bytes());
            descriptor.extend([0; 4]);
            descriptor.extend(block);
        } else {
            let [_, a, b, c] = block;
            descriptor.extend(blocks_32(unit).to_be_bytes());
            descriptor.extend([0, a, b, c]);
        }
        descriptor
    };
    Header { device_specific, descriptor }
}

/// The pages that the command asks for.
fn chosen(ctx: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let unit = ctx.unit();
    let (code, sub) = (ctx.cdb.u8(2) & page::MASK, ctx.cdb.u8(3));
    if sub != subpage::NONE && sub != subpage::ALL {
        return Err(Sense::invalid_cdb(3, Some(7)));
    }
    let values = match ctx.cdb.u8(2) >> control::SHIFT {
        control::CURRENT => Values::Current(unit.modes()),
        control::CHANGEABLE => Values::Changeable,
        control::DEFAULT => Values::Current(unit.default_modes()),
        _ => return Err(Sense::illegal(code::NO_SAVING)),
    };
    let all = pages::of(unit).filter(|one| code == page::ALL || one.code == code);
    let data: Vec<u8> = all.flat_map(|one| one.bytes(unit, values)).collect();
    if data.is_empty() { Err(Sense::invalid_cdb(2, Some(5))) } else { Ok(data) }
}

/// The page with this code.
fn find(unit: &LogicalUnit, code: u8) -> Option<&'static Page> {
    pages::of(unit).find(|one| one.code == code)
}
