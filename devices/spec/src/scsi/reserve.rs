//! Persistent reservations (SPC-4, Reservations, PERSISTENT RESERVE IN and OUT).

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Service actions of PERSISTENT RESERVE IN.
pub mod action_in {
    /// READ KEYS.
    pub const READ_KEYS: u8 = 0x00;
    /// READ RESERVATION.
    pub const READ_RESERVATION: u8 = 0x01;
    /// REPORT CAPABILITIES.
    pub const REPORT_CAPABILITIES: u8 = 0x02;
    /// READ FULL STATUS.
    pub const READ_FULL_STATUS: u8 = 0x03;
}

/// Service actions of PERSISTENT RESERVE OUT.
pub mod action_out {
    /// REGISTER.
    pub const REGISTER: u8 = 0x00;
    /// RESERVE.
    pub const RESERVE: u8 = 0x01;
    /// RELEASE.
    pub const RELEASE: u8 = 0x02;
    /// CLEAR.
    pub const CLEAR: u8 = 0x03;
    /// PREEMPT.
    pub const PREEMPT: u8 = 0x04;
    /// PREEMPT AND ABORT.
    pub const PREEMPT_AND_ABORT: u8 = 0x05;
    /// REGISTER AND IGNORE EXISTING KEY.
    pub const REGISTER_AND_IGNORE: u8 = 0x06;
    /// REGISTER AND MOVE.
    pub const REGISTER_AND_MOVE: u8 = 0x07;
}

/// Types of reservations.
pub mod kind {
    /// Write Exclusive.
    pub const WRITE_EXCLUSIVE: u8 = 0x1;
    /// Exclusive Access.
    pub const EXCLUSIVE_ACCESS: u8 = 0x3;
    /// Write Exclusive - Registrants Only.
    pub const WRITE_EXCLUSIVE_REGISTRANTS: u8 = 0x5;
    /// Exclusive Access - Registrants Only.
    pub const EXCLUSIVE_ACCESS_REGISTRANTS: u8 = 0x6;
    /// Write Exclusive - All Registrants.
    pub const WRITE_EXCLUSIVE_ALL: u8 = 0x7;
    /// Exclusive Access - All Registrants.
    pub const EXCLUSIVE_ACCESS_ALL: u8 = 0x8;
}

/// The scope of every reservation: the logical unit.
pub const SCOPE_LU: u8 = 0x0;
/// Shift of the scope, beside the type.
pub const SCOPE_SHIFT: u8 = 4;
/// Mask of the type.
pub const KIND: u8 = 0x0f;

/// PERSISTENT RESERVE OUT's parameter list, of all service actions but REGISTER AND MOVE.
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
pub struct Parameters {
    /// RESERVATION KEY.
    pub key: U64,
    /// SERVICE ACTION RESERVATION KEY.
    pub action_key: U64,
    obsolete0: U32,
    /// `parameter::*`.
    pub flags: u8,
    reserved: u8,
    obsolete1: U16,
}

impl Parameters {
    /// A parameter list.
    pub const fn new(key: u64, action_key: u64, flags: u8) -> Self {
        Self {
            key: U64::new(key),
            action_key: U64::new(action_key),
            obsolete0: U32::new(0),
            flags,
            reserved: 0,
            obsolete1: U16::new(0),
        }
    }
}

/// [`Parameters::flags`].
pub mod parameter {
    /// Persists over a loss of power.
    pub const APTPL: u8 = 1 << 0;
    /// For all target ports.
    pub const ALL_TG_PT: u8 = 1 << 2;
    /// With a list of initiator ports.
    pub const SPEC_I_PT: u8 = 1 << 3;
}

/// The start of READ KEYS', READ RESERVATION's and READ FULL STATUS' data.
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
pub struct Header {
    /// PRGENERATION.
    pub generation: U32,
    /// Bytes after this field.
    pub additional: U32,
}

/// A reservation, in READ RESERVATION's data.
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
pub struct Reservation {
    /// The holder's key; 0 when all registrants hold it.
    pub key: U64,
    obsolete0: U32,
    reserved: u8,
    /// Scope and type.
    pub kind: u8,
    obsolete1: U16,
}

impl Reservation {
    /// A reservation of the logical unit.
    pub const fn new(key: u64, kind: u8) -> Self {
        Self {
            key: U64::new(key),
            obsolete0: U32::new(0),
            reserved: 0,
            kind: SCOPE_LU << SCOPE_SHIFT | kind,
            obsolete1: U16::new(0),
        }
    }
}

/// REPORT CAPABILITIES' data.
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
pub struct Capabilities {
    /// 8.
    pub len: U16,
    /// Byte 2: CRH, SIP_C, ATP_C, PTPL_C.
    pub flags2: u8,
    /// Byte 3: [`TMV`], ALLOW COMMANDS in bits 6:4, PTPL_A.
    pub flags3: u8,
    /// `mask_bit(kind)` of each type that is supported.
    pub kinds: U16,
    reserved: [u8; 2],
}

impl Capabilities {
    /// What the bytes say.
    pub const fn new(flags2: u8, flags3: u8, kinds: u16) -> Self {
        Self { len: U16::new(8), flags2, flags3, kinds: U16::new(kinds), reserved: [0; 2] }
    }
}

/// [`Capabilities::flags2`]: RESERVE and RELEASE are as SPC-2 has them even for registrants.
pub const CRH: u8 = 1 << 4;
/// [`Capabilities::flags3`]: the type mask is valid.
pub const TMV: u8 = 1 << 7;

/// The bit of [`Capabilities::kinds`] for a type, 1 to 8.
pub const fn mask_bit(kind: u8) -> u16 {
    // The first byte holds types 0 to 7 by their bit, the second one type 8 in bit 0.
    if kind < 8 { 1 << (kind + 8) } else { 1 }
}

/// A registration, in READ FULL STATUS' data; a TransportID follows.
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
pub struct FullStatus {
    /// The key.
    pub key: U64,
    reserved0: [u8; 4],
    /// [`R_HOLDER`].
    pub flags: u8,
    /// Scope and type, if it holds the reservation.
    pub kind: u8,
    reserved1: [u8; 4],
    /// Relative target port identifier.
    pub port: U16,
    /// Bytes of the TransportID.
    pub transport_len: U32,
}

impl FullStatus {
    /// A registration at a relative target port.
    pub const fn new(key: u64, flags: u8, kind: u8, port: u16, transport_len: u32) -> Self {
        Self {
            key: U64::new(key),
            reserved0: [0; 4],
            flags,
            kind,
            reserved1: [0; 4],
            port: U16::new(port),
            transport_len: U32::new(transport_len),
        }
    }
}

/// [`FullStatus::flags`]: this nexus holds the reservation.
pub const R_HOLDER: u8 = 1 << 0;
/// First byte of a TransportID: iSCSI initiator port, named by a string.
pub const TRANSPORT_ISCSI: u8 = 0x05;

const _: () = {
    assert!(size_of::<Parameters>() == 24);
    assert!(size_of::<Header>() == 8);
    assert!(size_of::<Reservation>() == 16);
    assert!(size_of::<Capabilities>() == 8);
    assert!(size_of::<FullStatus>() == 24);
    assert!(mask_bit(kind::EXCLUSIVE_ACCESS_ALL) == 1);
};
