//! Operation codes and service actions.

/// TEST UNIT READY.
pub const TEST_UNIT_READY: u8 = 0x00;
/// REZERO UNIT, obsolete.
pub const REZERO_UNIT: u8 = 0x01;
/// REQUEST SENSE.
pub const REQUEST_SENSE: u8 = 0x03;
/// FORMAT UNIT.
pub const FORMAT_UNIT: u8 = 0x04;
/// READ (6).
pub const READ_6: u8 = 0x08;
/// WRITE (6).
pub const WRITE_6: u8 = 0x0a;
/// SEEK (6), obsolete.
pub const SEEK_6: u8 = 0x0b;
/// INQUIRY.
pub const INQUIRY: u8 = 0x12;
/// MODE SELECT (6).
pub const MODE_SELECT_6: u8 = 0x15;
/// RESERVE (6), of SPC-2.
pub const RESERVE_6: u8 = 0x16;
/// RELEASE (6), of SPC-2.
pub const RELEASE_6: u8 = 0x17;
/// MODE SENSE (6).
pub const MODE_SENSE_6: u8 = 0x1a;
/// START STOP UNIT.
pub const START_STOP_UNIT: u8 = 0x1b;
/// RECEIVE DIAGNOSTIC RESULTS.
pub const RECEIVE_DIAGNOSTIC_RESULTS: u8 = 0x1c;
/// SEND DIAGNOSTIC.
pub const SEND_DIAGNOSTIC: u8 = 0x1d;
/// PREVENT ALLOW MEDIUM REMOVAL.
pub const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1e;
/// READ FORMAT CAPACITIES (MMC).
pub const READ_FORMAT_CAPACITIES: u8 = 0x23;
/// READ CAPACITY (10).
pub const READ_CAPACITY_10: u8 = 0x25;
/// READ (10).
pub const READ_10: u8 = 0x28;
/// WRITE (10).
pub const WRITE_10: u8 = 0x2a;
/// SEEK (10).
pub const SEEK_10: u8 = 0x2b;
/// WRITE AND VERIFY (10).
pub const WRITE_AND_VERIFY_10: u8 = 0x2e;
/// VERIFY (10).
pub const VERIFY_10: u8 = 0x2f;
/// PRE-FETCH (10).
pub const PRE_FETCH_10: u8 = 0x34;
/// SYNCHRONIZE CACHE (10).
pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
/// READ DEFECT DATA (10).
pub const READ_DEFECT_DATA_10: u8 = 0x37;
/// WRITE BUFFER.
pub const WRITE_BUFFER: u8 = 0x3b;
/// READ BUFFER.
pub const READ_BUFFER: u8 = 0x3c;
/// WRITE SAME (10).
pub const WRITE_SAME_10: u8 = 0x41;
/// UNMAP, of disks.
pub const UNMAP: u8 = 0x42;
/// READ SUB-CHANNEL (MMC); the same code as [`UNMAP`].
pub const READ_SUB_CHANNEL: u8 = 0x42;
/// READ TOC/PMA/ATIP (MMC).
pub const READ_TOC_PMA_ATIP: u8 = 0x43;
/// GET CONFIGURATION (MMC).
pub const GET_CONFIGURATION: u8 = 0x46;
/// GET EVENT STATUS NOTIFICATION (MMC).
pub const GET_EVENT_STATUS_NOTIFICATION: u8 = 0x4a;
/// LOG SELECT.
pub const LOG_SELECT: u8 = 0x4c;
/// LOG SENSE.
pub const LOG_SENSE: u8 = 0x4d;
/// READ DISC INFORMATION (MMC).
pub const READ_DISC_INFORMATION: u8 = 0x51;
/// READ TRACK INFORMATION (MMC).
pub const READ_TRACK_INFORMATION: u8 = 0x52;
/// MODE SELECT (10).
pub const MODE_SELECT_10: u8 = 0x55;
/// RESERVE (10), of SPC-2.
pub const RESERVE_10: u8 = 0x56;
/// RELEASE (10), of SPC-2.
pub const RELEASE_10: u8 = 0x57;
/// MODE SENSE (10).
pub const MODE_SENSE_10: u8 = 0x5a;
/// READ BUFFER CAPACITY (MMC).
pub const READ_BUFFER_CAPACITY: u8 = 0x5c;
/// PERSISTENT RESERVE IN; service actions in [`super::reserve`].
pub const PERSISTENT_RESERVE_IN: u8 = 0x5e;
/// PERSISTENT RESERVE OUT; service actions in [`super::reserve`].
pub const PERSISTENT_RESERVE_OUT: u8 = 0x5f;
/// Commands of variable length; the service action is in bytes 8 and 9.
pub const VARIABLE_LENGTH: u8 = 0x7f;
/// READ (16).
pub const READ_16: u8 = 0x88;
/// COMPARE AND WRITE.
pub const COMPARE_AND_WRITE: u8 = 0x89;
/// WRITE (16).
pub const WRITE_16: u8 = 0x8a;
/// WRITE AND VERIFY (16).
pub const WRITE_AND_VERIFY_16: u8 = 0x8e;
/// VERIFY (16).
pub const VERIFY_16: u8 = 0x8f;
/// PRE-FETCH (16).
pub const PRE_FETCH_16: u8 = 0x90;
/// SYNCHRONIZE CACHE (16).
pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
/// WRITE SAME (16).
pub const WRITE_SAME_16: u8 = 0x93;
/// SERVICE ACTION IN (16).
pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
/// REPORT LUNS.
pub const REPORT_LUNS: u8 = 0xa0;
/// MAINTENANCE IN.
pub const MAINTENANCE_IN: u8 = 0xa3;
/// READ (12).
pub const READ_12: u8 = 0xa8;
/// WRITE (12).
pub const WRITE_12: u8 = 0xaa;
/// READ DISC STRUCTURE (MMC).
pub const READ_DISC_STRUCTURE: u8 = 0xad;
/// WRITE AND VERIFY (12).
pub const WRITE_AND_VERIFY_12: u8 = 0xae;
/// VERIFY (12).
pub const VERIFY_12: u8 = 0xaf;
/// READ CD MSF (MMC).
pub const READ_CD_MSF: u8 = 0xb9;
/// SET CD SPEED (MMC).
pub const SET_CD_SPEED: u8 = 0xbb;
/// MECHANISM STATUS (MMC).
pub const MECHANISM_STATUS: u8 = 0xbd;
/// READ CD (MMC).
pub const READ_CD: u8 = 0xbe;

/// Service actions of [`SERVICE_ACTION_IN_16`], in bits 4:0 of byte 1.
pub mod service_in {
    /// READ CAPACITY (16).
    pub const READ_CAPACITY_16: u8 = 0x10;
    /// GET LBA STATUS.
    pub const GET_LBA_STATUS: u8 = 0x12;
}

/// Service actions of [`MAINTENANCE_IN`], in bits 4:0 of byte 1.
pub mod maintenance_in {
    /// REPORT TARGET PORT GROUPS.
    pub const REPORT_TARGET_PORT_GROUPS: u8 = 0x0a;
    /// REPORT SUPPORTED OPERATION CODES.
    pub const REPORT_SUPPORTED_OPERATION_CODES: u8 = 0x0c;
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    pub const REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS: u8 = 0x0d;
}

/// REPORT SUPPORTED OPERATION CODES of one command (SPC-4).
pub mod supported {
    /// REPORTING OPTIONS: a command without service actions.
    pub const BY_CODE: u8 = 1;
    /// REPORTING OPTIONS: a command with this service action.
    pub const BY_ACTION: u8 = 2;
    /// Byte of the data with SUPPORT.
    pub const SUPPORT: usize = 1;
    /// Mask of SUPPORT.
    pub const SUPPORT_MASK: u8 = 7;
    /// SUPPORT: not supported.
    pub const NOT: u8 = 1;
    /// SUPPORT: supported, as a standard has it.
    pub const STANDARD: u8 = 3;
    /// SUPPORT: supported, in a way of the vendor's own.
    pub const VENDOR: u8 = 5;
}

/// Mask of a service action in byte 1.
pub const SERVICE_ACTION: u8 = 0x1f;

/// Bytes of a command with this operation code (SPC-4, 4.2.5.1); `None` if the code does not say.
pub const fn cdb_len(opcode: u8) -> Option<usize> {
    match opcode >> 5 {
        0 => Some(6),
        1 | 2 => Some(10),
        4 => Some(16),
        5 => Some(12),
        _ => None,
    }
}
