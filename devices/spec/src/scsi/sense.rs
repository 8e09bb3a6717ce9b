//! Sense data (SPC-4, 4.5).

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Sense keys (4.5.6).
pub mod key {
    /// NO SENSE.
    pub const NO_SENSE: u8 = 0x0;
    /// RECOVERED ERROR.
    pub const RECOVERED_ERROR: u8 = 0x1;
    /// NOT READY.
    pub const NOT_READY: u8 = 0x2;
    /// MEDIUM ERROR.
    pub const MEDIUM_ERROR: u8 = 0x3;
    /// HARDWARE ERROR.
    pub const HARDWARE_ERROR: u8 = 0x4;
    /// ILLEGAL REQUEST.
    pub const ILLEGAL_REQUEST: u8 = 0x5;
    /// UNIT ATTENTION.
    pub const UNIT_ATTENTION: u8 = 0x6;
    /// DATA PROTECT.
    pub const DATA_PROTECT: u8 = 0x7;
    /// BLANK CHECK.
    pub const BLANK_CHECK: u8 = 0x8;
    /// ABORTED COMMAND.
    pub const ABORTED_COMMAND: u8 = 0xb;
    /// MISCOMPARE.
    pub const MISCOMPARE: u8 = 0xe;
    /// COMPLETED.
    pub const COMPLETED: u8 = 0xf;
}

/// Additional sense codes and their qualifiers, as (ASC, ASCQ).
pub mod code {
    /// NO ADDITIONAL SENSE INFORMATION.
    pub const NONE: (u8, u8) = (0x00, 0x00);
    /// I/O PROCESS TERMINATED.
    pub const TERMINATED: (u8, u8) = (0x00, 0x06);
    /// LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED.
    pub const NOT_READY_START: (u8, u8) = (0x04, 0x02);
    /// LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE.
    pub const NOT_READY: (u8, u8) = (0x04, 0x00);
    /// LOGICAL UNIT DOES NOT RESPOND TO SELECTION.
    pub const NO_RESPONSE: (u8, u8) = (0x05, 0x00);
    /// WRITE ERROR.
    pub const WRITE_ERROR: (u8, u8) = (0x0c, 0x00);
    /// UNRECOVERED READ ERROR.
    pub const READ_ERROR: (u8, u8) = (0x11, 0x00);
    /// PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LIST_LENGTH: (u8, u8) = (0x1a, 0x00);
    /// MISCOMPARE DURING VERIFY OPERATION.
    pub const MISCOMPARE: (u8, u8) = (0x1d, 0x00);
    /// INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPCODE: (u8, u8) = (0x20, 0x00);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: (u8, u8) = (0x21, 0x00);
    /// INVALID FIELD IN CDB.
    pub const INVALID_FIELD_IN_CDB: (u8, u8) = (0x24, 0x00);
    /// LOGICAL UNIT NOT SUPPORTED.
    pub const NO_UNIT: (u8, u8) = (0x25, 0x00);
    /// INVALID FIELD IN PARAMETER LIST.
    pub const INVALID_FIELD_IN_PARAMETERS: (u8, u8) = (0x26, 0x00);
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    pub const INVALID_RELEASE: (u8, u8) = (0x26, 0x04);
    /// WRITE PROTECTED.
    pub const WRITE_PROTECTED: (u8, u8) = (0x27, 0x00);
    /// HARDWARE WRITE PROTECTED.
    pub const HARDWARE_WRITE_PROTECTED: (u8, u8) = (0x27, 0x01);
    /// LOGICAL UNIT SOFTWARE WRITE PROTECTED.
    pub const SOFTWARE_WRITE_PROTECTED: (u8, u8) = (0x27, 0x02);
    /// SPACE ALLOCATION FAILED WRITE PROTECT.
    pub const SPACE_ALLOCATION_FAILED: (u8, u8) = (0x27, 0x07);
    /// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
    pub const MEDIUM_CHANGED: (u8, u8) = (0x28, 0x00);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    pub const RESET: (u8, u8) = (0x29, 0x00);
    /// POWER ON OCCURRED.
    pub const POWER_ON: (u8, u8) = (0x29, 0x01);
    /// SCSI BUS RESET OCCURRED.
    pub const BUS_RESET: (u8, u8) = (0x29, 0x02);
    /// BUS DEVICE RESET FUNCTION OCCURRED.
    pub const DEVICE_RESET: (u8, u8) = (0x29, 0x03);
    /// I_T NEXUS LOSS OCCURRED.
    pub const NEXUS_LOSS: (u8, u8) = (0x29, 0x07);
    /// MODE PARAMETERS CHANGED.
    pub const MODE_CHANGED: (u8, u8) = (0x2a, 0x01);
    /// RESERVATIONS PREEMPTED.
    pub const RESERVATIONS_PREEMPTED: (u8, u8) = (0x2a, 0x03);
    /// RESERVATIONS RELEASED.
    pub const RESERVATIONS_RELEASED: (u8, u8) = (0x2a, 0x04);
    /// REGISTRATIONS PREEMPTED.
    pub const REGISTRATIONS_PREEMPTED: (u8, u8) = (0x2a, 0x05);
    /// CAPACITY DATA HAS CHANGED.
    pub const CAPACITY_CHANGED: (u8, u8) = (0x2a, 0x09);
    /// COMMAND SEQUENCE ERROR.
    pub const SEQUENCE: (u8, u8) = (0x2c, 0x00);
    /// COMMANDS CLEARED BY ANOTHER INITIATOR.
    pub const COMMANDS_CLEARED: (u8, u8) = (0x2f, 0x00);
    /// INCOMPATIBLE MEDIUM INSTALLED.
    pub const INCOMPATIBLE_MEDIUM: (u8, u8) = (0x30, 0x00);
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub const NO_SAVING: (u8, u8) = (0x39, 0x00);
    /// MEDIUM NOT PRESENT.
    pub const NO_MEDIUM: (u8, u8) = (0x3a, 0x00);
    /// MEDIUM NOT PRESENT - TRAY CLOSED.
    pub const NO_MEDIUM_CLOSED: (u8, u8) = (0x3a, 0x01);
    /// MEDIUM NOT PRESENT - TRAY OPEN.
    pub const NO_MEDIUM_OPEN: (u8, u8) = (0x3a, 0x02);
    /// REPORTED LUNS DATA HAS CHANGED.
    pub const LUNS_CHANGED: (u8, u8) = (0x3f, 0x0e);
    /// INTERNAL TARGET FAILURE.
    pub const INTERNAL_FAILURE: (u8, u8) = (0x44, 0x00);
    /// INVALID MESSAGE ERROR.
    pub const INVALID_MESSAGE: (u8, u8) = (0x49, 0x00);
    /// MEDIUM REMOVAL PREVENTED.
    pub const REMOVAL_PREVENTED: (u8, u8) = (0x53, 0x02);
    /// INSUFFICIENT RESOURCES.
    pub const INSUFFICIENT_RESOURCES: (u8, u8) = (0x55, 0x03);
    /// INSUFFICIENT REGISTRATION RESOURCES.
    pub const INSUFFICIENT_REGISTRATION_RESOURCES: (u8, u8) = (0x55, 0x04);
    /// ILLEGAL MODE FOR THIS TRACK.
    pub const ILLEGAL_MODE: (u8, u8) = (0x64, 0x00);
}

/// Response codes, bits 6:0 of byte 0.
pub mod response {
    /// Fixed format, of this command.
    pub const FIXED: u8 = 0x70;
    /// Fixed format, of an earlier command.
    pub const FIXED_DEFERRED: u8 = 0x71;
    /// Descriptor format, of this command.
    pub const DESCRIPTOR: u8 = 0x72;
    /// Descriptor format, of an earlier command.
    pub const DESCRIPTOR_DEFERRED: u8 = 0x73;
}

/// Byte 0 of fixed format: INFORMATION is valid.
pub const VALID: u8 = 1 << 7;
/// Bits 3:0 of byte 2 (fixed) or byte 1 (descriptor): the sense key.
pub const KEY: u8 = 0x0f;
/// First of the three sense key specific bytes: they are valid.
pub const SKSV: u8 = 1 << 7;
/// Field pointer (4.5.2.4.2): the field is in the command; else in the parameter list.
pub const CD: u8 = 1 << 6;
/// Field pointer: the bit pointer is valid.
pub const BPV: u8 = 1 << 3;

/// Sense data in fixed format (4.5.3).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Fixed {
    /// [`VALID`] and `response::FIXED*`.
    pub response: u8,
    obsolete: u8,
    /// Sense key in bits 3:0; FILEMARK, EOM, ILI.
    pub key: u8,
    /// INFORMATION.
    pub information: U32,
    /// Bytes after this one.
    pub additional: u8,
    /// COMMAND-SPECIFIC INFORMATION.
    pub command_specific: U32,
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
    /// Field replaceable unit code.
    pub fru: u8,
    /// [`SKSV`] and sense key specific bytes.
    pub specific: [u8; 3],
}

impl Fixed {
    /// An error of this command, without further information.
    pub const fn new(key: u8, (asc, ascq): (u8, u8)) -> Self {
        Self {
            response: response::FIXED,
            obsolete: 0,
            key,
            information: U32::new(0),
            additional: 10,
            command_specific: U32::new(0),
            asc,
            ascq,
            fru: 0,
            specific: [0; 3],
        }
    }
}

/// The header of sense data in descriptor format (4.5.2).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct DescriptorHeader {
    /// `response::DESCRIPTOR*`.
    pub response: u8,
    /// Sense key in bits 3:0.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
    reserved: [u8; 3],
    /// Bytes after this one.
    pub additional: u8,
}

impl DescriptorHeader {
    /// An error of this command, with so many bytes of descriptors.
    pub const fn new(key: u8, (asc, ascq): (u8, u8), additional: u8) -> Self {
        Self { response: response::DESCRIPTOR, key, asc, ascq, reserved: [0; 3], additional }
    }
}

/// Types of sense data descriptors, byte 0 of each; byte 1 counts the bytes after it.
pub mod descriptor {
    /// INFORMATION: 12 bytes, VALID in bit 7 of byte 2, the field in bytes 4 to 11.
    pub const INFORMATION: u8 = 0x00;
    /// Sense key specific: 8 bytes, the field in bytes 4 to 6.
    pub const SENSE_KEY_SPECIFIC: u8 = 0x02;
}

/// Bytes of sense data in fixed format, as it is laid out here.
pub const FIXED_LEN: usize = size_of::<Fixed>();

const _: () = {
    assert!(FIXED_LEN == 18);
    assert!(size_of::<DescriptorHeader>() == 8);
};
