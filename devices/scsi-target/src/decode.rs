//! From a command to a plan.
//!
//! A unit knows the commands of [`table`]. What stands in the way of a command is looked at in this
//! order: a unit attention, an unknown operation code, a reservation, NACA, a unit that is not ready,
//! write protection; then come the command's own fields (SAM-5, 5.14; SPC-4, Reservations).

mod block;
mod capacity;
mod cdrom;
mod context;
mod diagnostic;
mod inquiry;
mod mode;
mod power;
mod report;
mod reserve;
mod sense;
mod table;
mod unmap;
mod vpd;
mod write_same;

#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use paraslot_device::DmaBuffers;
use paraslot_spec::scsi::cdb::CONTROL_NACA;
use paraslot_spec::scsi::opcode;
use paraslot_spec::scsi::sense::{code, key};

use crate::command::{Cdb, Status};
use crate::nexus::{Nexus, notice};
use crate::plan::{Ending, Plan};
use crate::sense::Sense;
use crate::unit::{Kind, LogicalUnit, modes};
use context::Context;
use table::{Access, Command};

/// What `cdb` asks of the unit of `nexus`; `luns` are the LUNs of its target, for REPORT LUNS. Commands
/// that concern the unit's own state alone are carried out here.
pub(crate) fn decode(
    nexus: &Nexus,
    cdb: &Cdb,
    data: &DmaBuffers,
    luns: &dyn Fn() -> Vec<u16>,
) -> Plan {
    let notice = nexus.notice.load(Ordering::Acquire);
    let command = table::find(&nexus.unit, cdb);
    if let Some(plan) = if notice == 0 { None } else { heed(nexus, cdb, notice, command) } {
        return plan;
    }
    let Some(command) = command else { return unknown(&nexus.unit, cdb) };
    if let Some(at) = naca(cdb) {
        return Plan::check(Sense::invalid_cdb(at, Some(2)));
    }
    if notice & notice::NOT_READY != 0
        && command.needs_medium()
        && let Some(sense) = not_ready(&nexus.unit)
    {
        return Plan::check(sense);
    }
    if command.writes()
        && let Some(sense) = protected(&nexus.unit)
    {
        return Plan::check(sense);
    }
    command.run(&Context { nexus, cdb, data, luns }).unwrap_or_else(Plan::check)
}

/// What `cdb` asks of a LUN that is not there, at a target that is.
pub(crate) fn absent(cdb: &Cdb, luns: &dyn Fn() -> Vec<u16>) -> Plan {
    let answer = match cdb.opcode() {
        opcode::INQUIRY => inquiry::absent(cdb),
        opcode::REQUEST_SENSE => Ok(sense::reply(cdb, &Sense::illegal(code::NO_UNIT))),
        opcode::REPORT_LUNS => report::luns(cdb, luns),
        _ => Err(Sense::illegal(code::NO_UNIT)),
    };
    answer.unwrap_or_else(Plan::check)
}

/// Attentions, reservations, and kept sense data that is not wanted any more: how the command ends for
/// them, if so.
#[cold]
fn heed(nexus: &Nexus, cdb: &Cdb, notice: u32, command: Option<&Command>) -> Option<Plan> {
    if notice & notice::SENSE != 0 && cdb.opcode() != opcode::REQUEST_SENSE {
        nexus.take_sense();
    }
    if notice & notice::ATTENTIONS != 0
        && command.is_none_or(Command::reports_attentions)
        && let Some(sense) = nexus.take_attention()
    {
        return Some(Plan::check(sense));
    }
    let access = command?.access(cdb);
    let conflict = match access {
        Access::Any => 0,
        Access::Status => notice::CONFLICT_SPC2,
        Access::Read => notice::CONFLICT_SPC2 | notice::CONFLICT_ALL,
        Access::Write => notice::CONFLICT_SPC2 | notice::CONFLICT_ALL | notice::CONFLICT_WRITES,
    };
    (notice & conflict != 0).then_some(Plan::End(Ending::Status(Status::ReservationConflict)))
}

/// A command that the unit does not know: its operation code, or its service action.
fn unknown(unit: &LogicalUnit, cdb: &Cdb) -> Plan {
    Plan::check(if table::knows_opcode(unit, cdb.opcode()) {
        Sense::invalid_cdb(1, Some(4))
    } else {
        Sense::illegal(code::INVALID_OPCODE)
    })
}

/// Where the control byte is, if it asks for what INQUIRY's NORMACA says there is not.
fn naca(cdb: &Cdb) -> Option<u16> {
    let at = opcode::cdb_len(cdb.opcode())?.checked_sub(1)?;
    let control = cdb.bytes().get(at)?;
    (control & CONTROL_NACA != 0).then_some(at).and_then(|at| u16::try_from(at).ok())
}

/// Why there is nothing to be read.
fn not_ready(unit: &LogicalUnit) -> Option<Sense> {
    let state = unit.state();
    let code = match unit.kind {
        _ if unit.is_ready(&state) => return None,
        Kind::Cdrom if state.tray_open => code::NO_MEDIUM_OPEN,
        Kind::Cdrom => code::NO_MEDIUM_CLOSED,
        Kind::Disk if state.stopped => code::NOT_READY_START,
        Kind::Disk => code::NOT_READY,
    };
    Some(Sense::new(key::NOT_READY, code))
}

/// Why nothing can be written.
fn protected(unit: &LogicalUnit) -> Option<Sense> {
    let code = if unit.info.read_only {
        code::WRITE_PROTECTED
    } else if unit.mode(modes::SOFTWARE_PROTECT) {
        code::SOFTWARE_WRITE_PROTECTED
    } else {
        return None;
    };
    Some(Sense::new(key::DATA_PROTECT, code))
}
