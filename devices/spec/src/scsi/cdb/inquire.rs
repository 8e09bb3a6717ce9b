//! Commands that ask for data of their own, or send parameters.

use crate::scsi::opcode;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// INQUIRY.
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
pub struct Inquiry {
    /// Operation code.
    pub opcode: u8,
    /// [`EVPD`](super::EVPD).
    pub flags: u8,
    /// VPD page.
    pub page: u8,
    /// Allocation length in bytes.
    pub allocation: U16,
    /// Control.
    pub control: u8,
}

/// MODE SENSE (6).
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
pub struct ModeSense6 {
    /// Operation code.
    pub opcode: u8,
    /// [`DBD`](super::DBD).
    pub flags: u8,
    /// Page control in bits 7:6, page in bits 5:0.
    pub page: u8,
    /// Subpage.
    pub subpage: u8,
    /// Allocation length in bytes.
    pub allocation: u8,
    /// Control.
    pub control: u8,
}

/// MODE SENSE (10).
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
pub struct ModeSense10 {
    /// Operation code.
    pub opcode: u8,
    /// [`DBD`](super::DBD), [`LLBAA`](super::LLBAA).
    pub flags: u8,
    /// Page control in bits 7:6, page in bits 5:0.
    pub page: u8,
    /// Subpage.
    pub subpage: u8,
    reserved: [u8; 3],
    /// Allocation length in bytes.
    pub allocation: U16,
    /// Control.
    pub control: u8,
}

impl ModeSense10 {
    /// Asks for a page, with its page control, in up to `allocation` bytes.
    pub const fn new(flags: u8, page: u8, subpage: u8, allocation: u16) -> Self {
        Self {
            opcode: opcode::MODE_SENSE_10,
            flags,
            page,
            subpage,
            reserved: [0; 3],
            allocation: U16::new(allocation),
            control: 0,
        }
    }
}

/// MODE SELECT (10); also PERSISTENT RESERVE IN, LOG SENSE and others with 16 bits of length at
/// bytes 7 and 8.
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
pub struct Len16At7 {
    /// Operation code.
    pub opcode: u8,
    /// Byte 1: flags or a service action.
    pub flags: u8,
    /// Bytes 2 to 6.
    pub fields: [u8; 5],
    /// Allocation or parameter list length in bytes.
    pub len: U16,
    /// Control.
    pub control: u8,
}

/// PERSISTENT RESERVE OUT.
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
pub struct PersistentReserveOut {
    /// Operation code.
    pub opcode: u8,
    /// Service action.
    pub action: u8,
    /// Scope in bits 7:4, type in bits 3:0.
    pub kind: u8,
    reserved: [u8; 2],
    /// Parameter list length in bytes.
    pub len: U32,
    /// Control.
    pub control: u8,
}

impl PersistentReserveOut {
    /// A service action, with the scope and type that it is about and `len` bytes of parameters.
    pub const fn new(action: u8, kind: u8, len: u32) -> Self {
        Self {
            opcode: opcode::PERSISTENT_RESERVE_OUT,
            action,
            kind,
            reserved: [0; 2],
            len: U32::new(len),
            control: 0,
        }
    }
}

/// READ CAPACITY (16) and GET LBA STATUS: SERVICE ACTION IN (16).
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
pub struct ServiceActionIn16 {
    /// Operation code.
    pub opcode: u8,
    /// Service action.
    pub action: u8,
    /// LBA, obsolete in READ CAPACITY (16).
    pub lba: U64,
    /// Allocation length in bytes.
    pub allocation: U32,
    /// Bit 0: PMI, obsolete.
    pub pmi: u8,
    /// Control.
    pub control: u8,
}

/// REPORT LUNS.
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
pub struct ReportLuns {
    /// Operation code.
    pub opcode: u8,
    reserved0: u8,
    /// SELECT REPORT: `lun::select::*`.
    pub select: u8,
    reserved1: [u8; 3],
    /// Allocation length in bytes.
    pub allocation: U32,
    reserved2: u8,
    /// Control.
    pub control: u8,
}

impl ReportLuns {
    /// Asks for the LUNs of `lun::select::*`, in up to `allocation` bytes.
    pub const fn new(select: u8, allocation: u32) -> Self {
        Self {
            opcode: opcode::REPORT_LUNS,
            reserved0: 0,
            select,
            reserved1: [0; 3],
            allocation: U32::new(allocation),
            reserved2: 0,
            control: 0,
        }
    }
}

/// REPORT SUPPORTED OPERATION CODES and others of MAINTENANCE IN.
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
pub struct MaintenanceIn {
    /// Operation code.
    pub opcode: u8,
    /// Service action.
    pub action: u8,
    /// [`RCTD`](super::RCTD), REPORTING OPTIONS in bits 2:0.
    pub options: u8,
    /// Requested operation code.
    pub requested: u8,
    /// Requested service action.
    pub requested_action: U16,
    /// Allocation length in bytes.
    pub allocation: U32,
    reserved: u8,
    /// Control.
    pub control: u8,
}

impl MaintenanceIn {
    /// A service action, in up to `allocation` bytes. Options and what is requested are 0.
    pub const fn new(action: u8, allocation: u32) -> Self {
        Self {
            opcode: opcode::MAINTENANCE_IN,
            action,
            options: 0,
            requested: 0,
            requested_action: U16::new(0),
            allocation: U32::new(allocation),
            reserved: 0,
            control: 0,
        }
    }
}

const _: () = {
    assert!(size_of::<Inquiry>() == 6);
    assert!(size_of::<ModeSense6>() == 6);
    assert!(size_of::<ModeSense10>() == 10);
    assert!(size_of::<Len16At7>() == 10);
    assert!(size_of::<PersistentReserveOut>() == 10);
    assert!(size_of::<ServiceActionIn16>() == 16);
    assert!(size_of::<ReportLuns>() == 12);
    assert!(size_of::<MaintenanceIn>() == 12);
};
