//! SCSI: commands, sense data, and the data that commands carry, whatever transport is between the
//! initiator and the logical unit.
//!
//! Integers are big-endian here. Commands, mode pages and VPD pages are in the standards under the
//! names given here.
//!
//! Sources: SCSI Architecture Model 5 (SAM-5), Primary Commands 4 (SPC-4), Block Commands 3 (SBC-3)
//! and Multi-Media Commands 6 (MMC-6).

pub mod block;
pub mod cdb;
pub mod inquiry;
pub mod lun;
pub mod mmc;
pub mod mode;
pub mod opcode;
pub mod reserve;
pub mod sense;
pub mod vpd;

/// Status codes (SAM-5, 5.3.1).
pub mod status {
    /// GOOD.
    pub const GOOD: u8 = 0x00;
    /// CHECK CONDITION.
    pub const CHECK_CONDITION: u8 = 0x02;
    /// CONDITION MET.
    pub const CONDITION_MET: u8 = 0x04;
    /// BUSY.
    pub const BUSY: u8 = 0x08;
    /// RESERVATION CONFLICT.
    pub const RESERVATION_CONFLICT: u8 = 0x18;
    /// TASK SET FULL.
    pub const TASK_SET_FULL: u8 = 0x28;
    /// ACA ACTIVE.
    pub const ACA_ACTIVE: u8 = 0x30;
    /// TASK ABORTED.
    pub const TASK_ABORTED: u8 = 0x40;
}
