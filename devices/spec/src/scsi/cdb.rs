//! Command descriptor blocks: layouts that many commands share.

mod inquire;
mod transfer;

pub use inquire::{
    Inquiry, Len16At7, MaintenanceIn, ModeSense6, ModeSense10, PersistentReserveOut, ReportLuns,
    ServiceActionIn16,
};
pub use transfer::{CompareAndWrite, ReadWrite6, ReadWrite10, ReadWrite12, ReadWrite16};

/// Byte 1 of reads and writes of 10 bytes and more: forced unit access.
pub const FUA: u8 = 1 << 3;
/// Byte 1 of reads and writes of 10 bytes and more: disable page out.
pub const DPO: u8 = 1 << 4;
/// Byte 1 of reads, writes and verifies: RDPROTECT, WRPROTECT or VRPROTECT.
pub const PROTECT: u8 = 7 << 5;
/// Byte 1 of VERIFY and WRITE AND VERIFY: shift of BYTCHK, two bits.
pub const BYTCHK_SHIFT: u8 = 1;
/// Byte 1 of SYNCHRONIZE CACHE and PRE-FETCH: return before it is done.
pub const IMMED: u8 = 1 << 1;
/// Byte 1 of WRITE SAME (16): no data-out buffer; zeroes are written.
pub const NDOB: u8 = 1 << 0;
/// Byte 1 of WRITE SAME: the blocks may be unmapped.
pub const WRITE_SAME_UNMAP: u8 = 1 << 3;
/// Byte 1 of WRITE SAME: anchored, not deallocated.
pub const WRITE_SAME_ANCHOR: u8 = 1 << 4;
/// Byte 1 of UNMAP: anchored, not deallocated.
pub const UNMAP_ANCHOR: u8 = 1 << 0;
/// Byte 1 of INQUIRY: vital product data.
pub const EVPD: u8 = 1 << 0;
/// Byte 1 of REQUEST SENSE: descriptor format.
pub const DESC: u8 = 1 << 0;
/// Byte 1 of MODE SENSE: no block descriptors.
pub const DBD: u8 = 1 << 3;
/// Byte 1 of MODE SENSE (10): long block descriptors are welcome.
pub const LLBAA: u8 = 1 << 4;
/// Byte 1 of MODE SELECT: save pages.
pub const SP: u8 = 1 << 0;
/// Byte 1 of MODE SELECT: the parameters have the form that the standard gives them.
pub const PF: u8 = 1 << 4;
/// Byte 1 of READ TOC/PMA/ATIP and READ SUB-CHANNEL: addresses are minutes, seconds, frames.
pub const MSF: u8 = 1 << 1;
/// Byte 2 of REPORT SUPPORTED OPERATION CODES: with timeouts.
pub const RCTD: u8 = 1 << 7;
/// Bits of the control byte (SAM-5, 5.2): NACA.
pub const CONTROL_NACA: u8 = 1 << 2;
/// Blocks that a length of 0 means in READ (6) and WRITE (6).
pub const RW6_MAX: u32 = 256;

/// Bits of START STOP UNIT.
pub mod start_stop {
    /// Byte 1: return before it is done.
    pub const IMMED: u8 = 1 << 0;
    /// Byte 4: start, or load together with [`LOEJ`].
    pub const START: u8 = 1 << 0;
    /// Byte 4: load or eject.
    pub const LOEJ: u8 = 1 << 1;
    /// Byte 4: stop without flushing the cache.
    pub const NO_FLUSH: u8 = 1 << 2;
    /// Byte 4: shift of POWER CONDITION, four bits.
    pub const POWER_SHIFT: u8 = 4;
    /// POWER CONDITION: START and LOEJ are valid.
    pub const START_VALID: u8 = 0x0;
    /// POWER CONDITION: active.
    pub const ACTIVE: u8 = 0x1;
    /// POWER CONDITION: idle.
    pub const IDLE: u8 = 0x2;
    /// POWER CONDITION: standby.
    pub const STANDBY: u8 = 0x3;
    /// POWER CONDITION: the unit's own power management goes on.
    pub const LU_CONTROL: u8 = 0x7;
    /// POWER CONDITION: the idle condition timer expires now.
    pub const FORCE_IDLE_0: u8 = 0xa;
    /// POWER CONDITION: the standby condition timer expires now.
    pub const FORCE_STANDBY_0: u8 = 0xb;
}
