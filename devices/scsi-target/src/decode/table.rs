//! The commands that units know.

use paraslot_spec::scsi::cdb::start_stop;
use paraslot_spec::scsi::opcode::{
    COMPARE_AND_WRITE, GET_CONFIGURATION, GET_EVENT_STATUS_NOTIFICATION, INQUIRY, LOG_SENSE,
    MAINTENANCE_IN, MECHANISM_STATUS, MODE_SELECT_6, MODE_SELECT_10, MODE_SENSE_6, MODE_SENSE_10,
    PERSISTENT_RESERVE_IN, PERSISTENT_RESERVE_OUT, PRE_FETCH_10, PRE_FETCH_16,
    PREVENT_ALLOW_MEDIUM_REMOVAL, READ_6, READ_10, READ_12, READ_16, READ_CAPACITY_10, READ_CD,
    READ_DISC_INFORMATION, READ_DISC_STRUCTURE, READ_SUB_CHANNEL, READ_TOC_PMA_ATIP,
    READ_TRACK_INFORMATION, RELEASE_6, RELEASE_10, REPORT_LUNS, REQUEST_SENSE, RESERVE_6,
    RESERVE_10, SEEK_10, SEND_DIAGNOSTIC, SERVICE_ACTION, SERVICE_ACTION_IN_16, SET_CD_SPEED,
    START_STOP_UNIT, SYNCHRONIZE_CACHE_10, SYNCHRONIZE_CACHE_16, TEST_UNIT_READY, UNMAP, VERIFY_10,
    VERIFY_12, VERIFY_16, WRITE_6, WRITE_10, WRITE_12, WRITE_16, WRITE_AND_VERIFY_10,
    WRITE_AND_VERIFY_12, WRITE_AND_VERIFY_16, WRITE_SAME_10, WRITE_SAME_16, maintenance_in,
    service_in,
};
use paraslot_spec::scsi::reserve::{action_in, action_out};

use super::context::{Answer, Context};
use super::{
    block, capacity, cdrom, diagnostic, inquiry, mode, power, report, reserve, sense, unmap,
    write_same,
};
use crate::command::Cdb;
use crate::unit::{Kind, LogicalUnit};

/// What reservations of others keep a command from (SPC-4 and SBC-3, Reservations; SPC-2, 5.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// None, or it looks itself.
    Any,
    /// RESERVE.
    Status,
    /// RESERVE, and those of exclusive access.
    Read,
    /// All.
    Write,
}

use Access::{Any, Read, Status, Write};

/// What is special about a command.
mod flag {
    /// Carried out in spite of an attention (SAM-5, 5.14; of drives, MMC-6).
    pub(super) const NO_ATTENTION: u8 = 1 << 0;
    /// Needs a medium, or a disk that is not stopped.
    pub(super) const MEDIUM: u8 = 1 << 1;
    /// Refused by write protection.
    pub(super) const WRITES: u8 = 1 << 2;
    /// There only where blocks can be unmapped.
    pub(super) const THIN: u8 = 1 << 3;
}

use flag::{MEDIUM, NO_ATTENTION, THIN, WRITES};

/// A command, or a service action of one.
pub(super) struct Command {
    pub(super) opcode: u8,
    /// In bits 4:0 of byte 1.
    pub(super) action: Option<u8>,
    kinds: &'static [Kind],
    access: Access,
    flags: u8,
    /// CDB usage data (SPC-4, REPORT SUPPORTED OPERATION CODES command): the operation code, the service
    /// action, and else the bits that are looked at, and DPO and FUA where MODE SENSE's DPOFUA is about
    /// them.
    pub(super) usage: &'static [u8],
    run: fn(&Context<'_>) -> Answer,
}

impl Command {
    pub(super) fn needs_medium(&self) -> bool {
        self.flags & MEDIUM != 0
    }

    pub(super) fn writes(&self) -> bool {
        self.flags & WRITES != 0
    }

    pub(super) fn reports_attentions(&self) -> bool {
        self.flags & NO_ATTENTION == 0
    }

    /// What reservations keep it from, which may depend on what it is to do.
    pub(super) fn access(&self, cdb: &Cdb) -> Access {
        match self.opcode {
            // What makes a unit ready harms nobody.
            START_STOP_UNIT if cdb.u8(4) & !start_stop::NO_FLUSH == start_stop::START => Any,
            PREVENT_ALLOW_MEDIUM_REMOVAL if cdb.u8(4) & 3 == 0 => Any,
            _ => self.access,
        }
    }

    pub(super) fn run(&self, ctx: &Context<'_>) -> Answer {
        (self.run)(ctx)
    }

    fn offered(&self, unit: &LogicalUnit) -> bool {
        self.kinds.contains(&unit.kind) && (self.flags & THIN == 0 || unit.thin())
    }

    fn is(&self, cdb: &Cdb) -> bool {
        self.action.is_none_or(|action| action == cdb.u8(1) & SERVICE_ACTION)
    }
}

/// The command that `cdb` is, if the unit knows it.
pub(super) fn find(unit: &LogicalUnit, cdb: &Cdb) -> Option<&'static Command> {
    with_opcode(cdb.opcode()).find(|command| command.is(cdb) && command.offered(unit))
}

/// Whether the unit knows a command with this operation code.
pub(super) fn knows_opcode(unit: &LogicalUnit, opcode: u8) -> bool {
    with_opcode(opcode).any(|command| command.offered(unit))
}

/// All commands of a unit, in the order of their codes.
pub(super) fn all(unit: &LogicalUnit) -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().filter(move |command| command.offered(unit))
}

fn with_opcode(opcode: u8) -> impl Iterator<Item = &'static Command> {
    let first = usize::from(FIRST[usize::from(opcode)]);
    let rest = COMMANDS.get(first..).unwrap_or_default();
    rest.iter().take_while(move |command| command.opcode == opcode)
}

/// Where the commands with each operation code start in [`COMMANDS`]; beyond it for those that have
/// none.
static FIRST: [u8; 256] = {
    let mut first = [u8::MAX; 256];
    assert!(COMMANDS.len() < u8::MAX as usize);
    let mut at: u8 = 0;
    while (at as usize) < COMMANDS.len() {
        let opcode = COMMANDS[at as usize].opcode;
        if at > 0 {
            assert!(COMMANDS[at as usize - 1].opcode <= opcode, "in the order of their codes");
        }
        if first[opcode as usize] == u8::MAX {
            first[opcode as usize] = at;
        }
        at += 1;
    }
    first
};

const BOTH: &[Kind] = &[Kind::Disk, Kind::Cdrom];
const DISK: &[Kind] = &[Kind::Disk];
const CDROM: &[Kind] = &[Kind::Cdrom];

/// A command without service actions.
const fn one(
    kinds: &'static [Kind],
    access: Access,
    flags: u8,
    usage: &'static [u8],
    run: fn(&Context<'_>) -> Answer,
) -> Command {
    Command { opcode: usage[0], action: None, kinds, access, flags, usage, run }
}

/// A service action, in byte 1 of the usage data.
const fn act(
    kinds: &'static [Kind],
    access: Access,
    flags: u8,
    usage: &'static [u8],
    run: fn(&Context<'_>) -> Answer,
) -> Command {
    let mut command = one(kinds, access, flags, usage, run);
    command.action = Some(usage[1]);
    command
}

/// The bit of a control byte that is looked at.
const C: u8 = 0x04;
/// All bits of a byte.
const F: u8 = 0xff;

const RC16: u8 = service_in::READ_CAPACITY_16;
const RSOC: u8 = maintenance_in::REPORT_SUPPORTED_OPERATION_CODES;
const RSTMF: u8 = maintenance_in::REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS;

#[rustfmt::skip] // a table
static COMMANDS: &[Command] = &[
    one(BOTH, Status, MEDIUM, &[TEST_UNIT_READY, 0, 0, 0, 0, C], diagnostic::test_unit_ready),
    one(BOTH, Any, NO_ATTENTION, &[REQUEST_SENSE, 1, 0, 0, F, C], sense::request),
    one(DISK, Read, MEDIUM, &[READ_6, 0x1f, F, F, F, C], block::read_6),
    one(DISK, Write, MEDIUM | WRITES, &[WRITE_6, 0x1f, F, F, F, C], block::write_6),
    one(BOTH, Any, NO_ATTENTION, &[INQUIRY, 1, F, F, F, C], inquiry::inquiry),
    one(BOTH, Write, 0, &[MODE_SELECT_6, 0x11, 0, 0, F, C], mode::select_6),
    one(DISK, Any, 0, &[RESERVE_6, 0x13, 0, 0, 0, C], reserve::reserve_spc2),
    one(DISK, Any, 0, &[RELEASE_6, 0x13, 0, 0, 0, C], reserve::release_spc2),
    one(BOTH, Read, 0, &[MODE_SENSE_6, 0x08, F, F, F, C], mode::sense_6),
    one(BOTH, Write, 0, &[START_STOP_UNIT, 0, 0, 0, 0xf7, C], power::start_stop),
    one(DISK, Write, 0, &[SEND_DIAGNOSTIC, 0xe0, 0, F, F, C], diagnostic::send),
    one(CDROM, Write, 0, &[PREVENT_ALLOW_MEDIUM_REMOVAL, 0, 0, 0, 3, C], power::prevent),
    one(BOTH, Any, MEDIUM, &[READ_CAPACITY_10, 0, F, F, F, F, 0, 0, 1, C], capacity::read_10),
    one(DISK, Read, MEDIUM, &[READ_10, 0xf8, F, F, F, F, 0, F, F, C], block::read),
    one(CDROM, Read, MEDIUM, &[READ_10, 0xe0, F, F, F, F, 0, F, F, C], block::read),
    one(DISK, Write, MEDIUM | WRITES, &[WRITE_10, 0xf8, F, F, F, F, 0, F, F, C], block::write),
    one(CDROM, Read, MEDIUM, &[SEEK_10, 0, F, F, F, F, 0, 0, 0, C], cdrom::seek),
    one(DISK, Write, MEDIUM | WRITES, &[WRITE_AND_VERIFY_10, 0xf6, F, F, F, F, 0, F, F, C], block::write_verify),
    one(DISK, Read, MEDIUM, &[VERIFY_10, 0xf6, F, F, F, F, 0, F, F, C], block::verify),
    one(CDROM, Read, MEDIUM, &[VERIFY_10, 0xe6, F, F, F, F, 0, F, F, C], block::verify),
    one(DISK, Read, MEDIUM, &[PRE_FETCH_10, 0, F, F, F, F, 0, F, F, C], block::pre_fetch),
    one(DISK, Write, MEDIUM, &[SYNCHRONIZE_CACHE_10, 0, F, F, F, F, 0, F, F, C], block::synchronize),
    one(DISK, Write, MEDIUM | WRITES, &[WRITE_SAME_10, 0xfe, F, F, F, F, 0, F, F, C], write_same::write_same),
    one(DISK, Write, MEDIUM | WRITES | THIN, &[UNMAP, 1, 0, 0, 0, 0, 0, F, F, C], unmap::unmap),
    one(CDROM, Read, MEDIUM, &[READ_SUB_CHANNEL, 2, 0x40, F, 0, 0, 0, F, F, C], cdrom::sub_channel),
    one(CDROM, Read, MEDIUM, &[READ_TOC_PMA_ATIP, 2, 0x0f, 0, 0, 0, F, F, F, 0xc0 | C], cdrom::toc),
    one(CDROM, Any, NO_ATTENTION, &[GET_CONFIGURATION, 3, F, F, 0, 0, 0, F, F, C], cdrom::configuration),
    one(CDROM, Any, NO_ATTENTION, &[GET_EVENT_STATUS_NOTIFICATION, 1, 0, 0, F, 0, 0, F, F, C], cdrom::events),
    one(DISK, Any, 0, &[LOG_SENSE, 1, 0x3f, F, 0, F, F, F, F, C], report::log),
    one(CDROM, Read, MEDIUM, &[READ_DISC_INFORMATION, 7, 0, 0, 0, 0, 0, F, F, C], cdrom::disc_information),
    one(CDROM, Read, MEDIUM, &[READ_TRACK_INFORMATION, 3, F, F, F, F, 0, F, F, C], cdrom::track_information),
    one(BOTH, Write, 0, &[MODE_SELECT_10, 0x11, 0, 0, 0, 0, 0, F, F, C], mode::select_10),
    one(DISK, Any, 0, &[RESERVE_10, 0x13, 0, 0, 0, 0, 0, 0, 0, C], reserve::reserve_spc2),
    one(DISK, Any, 0, &[RELEASE_10, 0x13, 0, 0, 0, 0, 0, 0, 0, C], reserve::release_spc2),
    one(BOTH, Read, 0, &[MODE_SENSE_10, 0x18, F, F, 0, 0, 0, F, F, C], mode::sense_10),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_IN, action_in::READ_KEYS, 0, 0, 0, 0, 0, F, F, C], reserve::read_keys),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_IN, action_in::READ_RESERVATION, 0, 0, 0, 0, 0, F, F, C], reserve::read_reservation),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_IN, action_in::REPORT_CAPABILITIES, 0, 0, 0, 0, 0, F, F, C], reserve::capabilities),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_IN, action_in::READ_FULL_STATUS, 0, 0, 0, 0, 0, F, F, C], reserve::full_status),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_OUT, action_out::REGISTER, 0, 0, 0, F, F, F, F, C], reserve::out),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_OUT, action_out::RESERVE, F, 0, 0, F, F, F, F, C], reserve::out),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_OUT, action_out::RELEASE, F, 0, 0, F, F, F, F, C], reserve::out),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_OUT, action_out::CLEAR, 0, 0, 0, F, F, F, F, C], reserve::out),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_OUT, action_out::PREEMPT, F, 0, 0, F, F, F, F, C], reserve::out),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_OUT, action_out::PREEMPT_AND_ABORT, F, 0, 0, F, F, F, F, C], reserve::out),
    act(DISK, Any, 0, &[PERSISTENT_RESERVE_OUT, action_out::REGISTER_AND_IGNORE, 0, 0, 0, F, F, F, F, C], reserve::out),
    one(DISK, Read, MEDIUM, &[READ_16, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], block::read),
    one(DISK, Write, MEDIUM | WRITES, &[COMPARE_AND_WRITE, 0xf8, F, F, F, F, F, F, F, F, 0, 0, 0, F, 0, C], block::compare_and_write),
    one(DISK, Write, MEDIUM | WRITES, &[WRITE_16, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], block::write),
    one(DISK, Write, MEDIUM | WRITES, &[WRITE_AND_VERIFY_16, 0xf6, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], block::write_verify),
    one(DISK, Read, MEDIUM, &[VERIFY_16, 0xf6, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], block::verify),
    one(DISK, Read, MEDIUM, &[PRE_FETCH_16, 0, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], block::pre_fetch),
    one(DISK, Write, MEDIUM, &[SYNCHRONIZE_CACHE_16, 0, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], block::synchronize),
    one(DISK, Write, MEDIUM | WRITES, &[WRITE_SAME_16, 0xff, F, F, F, F, F, F, F, F, F, F, F, F, 0, C], write_same::write_same),
    act(DISK, Any, MEDIUM, &[SERVICE_ACTION_IN_16, RC16, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, C], capacity::read_16),
    one(BOTH, Any, NO_ATTENTION, &[REPORT_LUNS, 0, F, 0, 0, 0, F, F, F, F, 0, C], report::luns_of),
    act(BOTH, Read, 0, &[MAINTENANCE_IN, RSOC, 0x87, F, F, F, F, F, F, F, 0, C], report::opcodes),
    act(BOTH, Read, 0, &[MAINTENANCE_IN, RSTMF, 0x80, 0, 0, 0, F, F, F, F, 0, C], report::functions),
    one(DISK, Read, MEDIUM, &[READ_12, 0xf8, F, F, F, F, F, F, F, F, 0, C], block::read),
    one(CDROM, Read, MEDIUM, &[READ_12, 0xe0, F, F, F, F, F, F, F, F, 0, C], block::read),
    one(DISK, Write, MEDIUM | WRITES, &[WRITE_12, 0xf8, F, F, F, F, F, F, F, F, 0, C], block::write),
    one(CDROM, Read, MEDIUM, &[READ_DISC_STRUCTURE, 0x0f, 0, 0, 0, 0, F, F, F, F, 0, C], cdrom::structure),
    one(DISK, Write, MEDIUM | WRITES, &[WRITE_AND_VERIFY_12, 0xf6, F, F, F, F, F, F, F, F, 0, C], block::write_verify),
    one(DISK, Read, MEDIUM, &[VERIFY_12, 0xf6, F, F, F, F, F, F, F, F, 0, C], block::verify),
    one(CDROM, Any, 0, &[SET_CD_SPEED, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, C], cdrom::set_speed),
    one(CDROM, Any, 0, &[MECHANISM_STATUS, 0, 0, 0, 0, 0, 0, 0, F, F, 0, C], cdrom::mechanism),
    one(CDROM, Read, MEDIUM, &[READ_CD, 0x1c, F, F, F, F, F, F, F, 0xfe, 7, C], cdrom::read_cd),
];
