//! INQUIRY: the standard data.

use paraslot_spec::scsi::cdb::EVPD;
use paraslot_spec::scsi::inquiry::{
    CMDQUE, HISUP, NO_UNIT, RMB, Standard, device_type, qualifier, version,
};
use paraslot_spec::scsi::sense::code;
use zerocopy::IntoBytes;

use super::context::{Answer, Context, reply};
use super::vpd;
use crate::command::Cdb;
use crate::sense::Sense;
use crate::unit::{Identity, Kind, LogicalUnit};

/// Peripheral qualifier and device type.
pub(super) fn peripheral(unit: &LogicalUnit) -> u8 {
    let kind = match unit.kind {
        Kind::Disk => device_type::DISK,
        Kind::Cdrom => device_type::CDROM,
    };
    qualifier::CONNECTED | kind
}

/// `text`, padded with spaces.
pub(super) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}

/// INQUIRY.
pub(super) fn inquiry(ctx: &Context<'_>) -> Answer {
    let page = ctx.cdb.u8(2);
    let data = if ctx.cdb.bit(1, EVPD) {
        vpd::page(ctx.unit(), page).ok_or_else(|| Sense::invalid_cdb(2, Some(7)))?
    } else if page != 0 {
        return Err(Sense::invalid_cdb(2, Some(7)));
    } else {
        standard(ctx.unit()).as_bytes().to_vec()
    };
    Ok(reply(data, ctx.cdb.u16(3)))
}

fn standard(unit: &LogicalUnit) -> Standard {
    let Identity { vendor, product, revision, .. } = &unit.identity;
    let (removable, commands) = match unit.kind {
        Kind::Disk => (0, version::SBC_3),
        Kind::Cdrom => (RMB, version::MMC_6),
    };
    let mut data = Standard::new(peripheral(unit));
    data.removable = removable;
    data.format |= HISUP;
    data.flags7 = CMDQUE;
    data.vendor = padded(vendor);
    data.product = padded(product);
    data.revision = padded(revision);
    let versions = [version::SAM_5, version::SPC_4, commands];
    for (to, from) in data.versions.iter_mut().zip(versions) {
        to.set(from);
    }
    data
}

/// Of a LUN that is not there: there is data that says so, but no pages.
pub(super) fn absent(cdb: &Cdb) -> Answer {
    if cdb.bit(1, EVPD) {
        return Err(Sense::illegal(code::NO_UNIT));
    }
    if cdb.u8(2) != 0 {
        return Err(Sense::invalid_cdb(2, Some(7)));
    }
    let mut data = Standard::new(NO_UNIT);
    data.format |= HISUP;
    Ok(reply(data.as_bytes().to_vec(), cdb.u16(3)))
}
