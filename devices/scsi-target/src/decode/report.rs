//! What there is: LUNs, commands, task management functions, log pages.

use paraslot_spec::scsi::cdb::RCTD;
use paraslot_spec::scsi::lun;
use paraslot_spec::scsi::sense::code;

use super::context::{Answer, Context, cap16, cap32, len16, reply};
use super::table::{self, Command};
use crate::command::Cdb;
use crate::sense::Sense;

/// REPORT LUNS. There are no well known logical units.
pub(super) fn luns(cdb: &Cdb, luns: &dyn Fn() -> Vec<u16>) -> Answer {
    let allocation = cdb.u32(6);
    if allocation < lun::REPORT_MIN_ALLOCATION {
        return Err(Sense::invalid_cdb(6, None));
    }
    let luns = match cdb.u8(2) {
        lun::select::ADDRESSABLE | lun::select::ALL => luns(),
        lun::select::WELL_KNOWN => Vec::new(),
        _ => return Err(Sense::invalid_cdb(2, Some(7))),
    };
    let bytes = cap32(luns.len() as u64 * lun::LEN as u64);
    let mut data = bytes.to_be_bytes().to_vec();
    data.resize(lun::REPORT_HEADER, 0);
    data.extend(luns.into_iter().flat_map(lun::encode));
    Ok(reply(data, allocation))
}

/// REPORT LUNS, of a unit that is there. The initiator knows now what has changed about them.
pub(super) fn luns_of(ctx: &Context<'_>) -> Answer {
    let plan = luns(ctx.cdb, ctx.luns)?;
    ctx.nexus.drop_attention(code::LUNS_CHANGED);
    Ok(plan)
}

/// Bytes of a command timeouts descriptor after its length field (SPC-4, REPORT SUPPORTED OPERATION
/// CODES command): no timeout is said.
const TIMEOUTS: u16 = 10;

fn timeouts() -> Vec<u8> {
    let mut data = TIMEOUTS.to_be_bytes().to_vec();
    data.resize(2 + usize::from(TIMEOUTS), 0);
    data
}

/// REPORT SUPPORTED OPERATION CODES.
pub(super) fn opcodes(ctx: &Context<'_>) -> Answer {
    let cdb = ctx.cdb;
    let with_timeouts = cdb.bit(2, RCTD);
    let (wanted, action) = (cdb.u8(3), cdb.u16(4));
    let known = || table::all(ctx.unit()).filter(move |one| one.opcode == wanted);
    let by_action = || known().find(|one| one.action.map(u16::from) == Some(action));
    let has_actions = known().any(|one| one.action.is_some());
    let data = match cdb.u8(2) & 7 {
        0 => all(ctx, with_timeouts),
        1 if has_actions => return Err(Sense::invalid_cdb(2, Some(2))),
        2 if !has_actions && known().next().is_some() => {
            return Err(Sense::invalid_cdb(2, Some(2)));
        }
        1 => one(known().next(), with_timeouts),
        2 => one(by_action(), with_timeouts),
        3 if has_actions => one(by_action(), with_timeouts),
        3 => one(known().next().filter(|_| action == 0), with_timeouts),
        _ => return Err(Sense::invalid_cdb(2, Some(2))),
    };
    Ok(reply(data, cdb.u32(6)))
}

fn all(ctx: &Context<'_>, with_timeouts: bool) -> Vec<u8> {
    /// The command has a service action.
    const SERVACTV: u8 = 1 << 0;
    /// A command timeouts descriptor follows.
    const CTDP: u8 = 1 << 1;
    let mut list = Vec::new();
    for command in table::all(ctx.unit()) {
        let mut flags = if with_timeouts { CTDP } else { 0 };
        if command.action.is_some() {
            flags |= SERVACTV;
        }
        let [high, low] = len16(command.usage);
        let action = command.action.unwrap_or_default();
        list.extend([command.opcode, 0, 0, action, 0, flags, high, low]);
        if with_timeouts {
            list.extend(timeouts());
        }
    }
    let mut data = cap32(list.len() as u64).to_be_bytes().to_vec();
    data.extend(list);
    data
}

fn one(command: Option<&Command>, with_timeouts: bool) -> Vec<u8> {
    /// SUPPORT: it is not.
    const NOT_SUPPORTED: u8 = 1;
    /// SUPPORT: as the standard has it.
    const SUPPORTED: u8 = 3;
    /// A command timeouts descriptor follows.
    const CTDP: u8 = 1 << 7;
    let Some(command) = command else { return vec![0, NOT_SUPPORTED, 0, 0] };
    let [high, low] = len16(command.usage);
    let flags = if with_timeouts { CTDP } else { 0 };
    let mut data = vec![0, flags | SUPPORTED, high, low];
    data.extend(command.usage);
    if with_timeouts {
        data.extend(timeouts());
    }
    data
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
pub(super) fn functions(ctx: &Context<'_>) -> Answer {
    /// Byte 2 of the command: the extended format.
    const REPD: u8 = 1 << 7;
    /// ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK.
    const FIRST: u8 = 1 << 7 | 1 << 6 | 1 << 4 | 1 << 3 | 1 << 2;
    /// QUERY TASK SET, I_T NEXUS RESET.
    const SECOND: u8 = 1 << 1 | 1 << 0;
    let mut data = vec![FIRST, SECOND, 0, 0];
    if ctx.cdb.bit(2, REPD) {
        // The timeouts of abort functions and of others: none is said.
        const MORE: u8 = 12;
        data = vec![FIRST, SECOND, 0, MORE];
        data.resize(4 + usize::from(MORE), 0);
    }
    Ok(reply(data, ctx.cdb.u32(6)))
}

/// LOG SENSE: there is the list of log pages, and no other.
pub(super) fn log(ctx: &Context<'_>) -> Answer {
    let cdb = ctx.cdb;
    if cdb.bit(1, 1) {
        return Err(Sense::invalid_cdb(1, Some(0)));
    }
    if cdb.u8(2) & 0x3f != 0 {
        return Err(Sense::invalid_cdb(2, Some(5)));
    }
    // Page and subpage, of which the subpage FFh lists both.
    let (subpage, list): (u8, &[u8]) = match cdb.u8(3) {
        0 => (0, &[0]),
        0xff => (0xff, &[0, 0, 0, 0xff]),
        _ => return Err(Sense::invalid_cdb(3, Some(7))),
    };
    if cdb.u16(5) != 0 {
        return Err(Sense::invalid_cdb(5, None));
    }
    /// Subpage format.
    const SPF: u8 = 1 << 6;
    let first = if subpage == 0 { 0 } else { SPF };
    let [high, low] = cap16(list.len() as u64).to_be_bytes();
    let mut data = vec![first, subpage, high, low];
    data.extend(list);
    Ok(reply(data, cdb.u16(7)))
}
