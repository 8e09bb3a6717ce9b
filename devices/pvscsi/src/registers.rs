//! The register map, as a table: what each register holds after a reset and which of its bits a guest
//! can change. What a write does beyond that is the model's behaviour, not the table's.

use paraslot_device::register::Register;
use paraslot_spec::pvscsi::{Intr, register};

/// The registers. What is not here reads as zero and is not written.
pub const REGISTERS: [Register; 12] = [
    Register::read_only("COMMAND", register::COMMAND, 0),
    Register::read_only("COMMAND_DATA", register::COMMAND_DATA, 0),
    Register::read_only("COMMAND_STATUS", register::COMMAND_STATUS, 0),
    Register::read_only("LAST_STS_0", register::LAST_STS[0], 0),
    Register::read_only("LAST_STS_1", register::LAST_STS[1], 0),
    Register::read_only("LAST_STS_2", register::LAST_STS[2], 0),
    Register::read_only("LAST_STS_3", register::LAST_STS[3], 0),
    Register::read_only("INTR_STATUS", register::INTR_STATUS, 0).clears(Intr::all().bits()),
    Register::read_write("INTR_MASK", register::INTR_MASK, 0, Intr::all().bits()),
    Register::read_only("KICK_NON_RW_IO", register::KICK_NON_RW_IO, 0),
    Register::read_only("DEBUG", register::DEBUG, 0),
    Register::read_only("KICK_RW_IO", register::KICK_RW_IO, 0),
];

/// The register at `offset`.
pub(crate) fn find(offset: u32) -> Option<&'static Register> {
    REGISTERS.iter().find(|register| register.offset == offset)
}
