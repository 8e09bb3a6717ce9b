//! The SCSI host device (VIRTIO 1.4, 5.6).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Feature bits (5.6.3), as masks.
pub mod feature {
    /// VIRTIO_SCSI_F_INOUT: a request may have data in both directions.
    pub const INOUT: u64 = 1 << 0;
    /// VIRTIO_SCSI_F_HOTPLUG: units that come and go are reported.
    pub const HOTPLUG: u64 = 1 << 1;
    /// VIRTIO_SCSI_F_CHANGE: changed parameters of units are reported.
    pub const CHANGE: u64 = 1 << 2;
    /// VIRTIO_SCSI_F_T10_PI: requests have room for protection information.
    pub const T10_PI: u64 = 1 << 3;
}

/// Index of the control queue (5.6.2).
pub const CONTROL_QUEUE: u16 = 0;
/// Index of the event queue.
pub const EVENT_QUEUE: u16 = 1;
/// Index of the first request queue.
pub const FIRST_REQUEST_QUEUE: u16 = 2;

/// Device configuration (5.6.4).
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
pub struct Config {
    /// Request queues.
    pub num_queues: U32,
    /// Most data segments in a command.
    pub seg_max: U32,
    /// Suggested longest transfer, in sectors of 512 bytes.
    pub max_sectors: U32,
    /// Most commands for one unit at once.
    pub cmd_per_lun: U32,
    /// Bytes that the device fills of an event buffer, at most.
    pub event_info_size: U32,
    /// Bytes of sense data in a response; the driver can write it.
    pub sense_size: U32,
    /// Bytes of CDB in a request; the driver can write it.
    pub cdb_size: U32,
    /// 0.
    pub max_channel: U16,
    /// Highest target.
    pub max_target: U16,
    /// Highest logical unit number.
    pub max_lun: U32,
}

/// sense_size after a reset, in bytes.
pub const DEFAULT_SENSE_SIZE: u32 = 96;
/// cdb_size after a reset, in bytes.
pub const DEFAULT_CDB_SIZE: u32 = 32;

/// The address of a logical unit, as all structures here have it (5.6.6.1): byte 0 is 1, byte 1 the
/// target, bytes 2 and 3 a single level LUN structure (SAM-5, 4.7.4), and the rest is zero.
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
#[repr(transparent)]
pub struct Lun(pub [u8; 8]);

impl Lun {
    /// The REPORT LUNS well-known logical unit of the whole device.
    pub const REPORT_LUNS: Self = Self([0xc1, 0x01, 0, 0, 0, 0, 0, 0]);

    /// Byte 0 of an address with a target.
    pub const TARGET: u8 = 1;
    /// Addressing method of byte 2 (bits 6 and 7): peripheral device, LUN 0 to 255 in byte 3; bits 0
    /// to 5 are a bus, 0.
    pub const METHOD_PERIPHERAL: u8 = 0x00;
    /// Addressing method of byte 2: flat space, LUN 0 to 16383 in bits 0 to 5 and byte 3.
    pub const METHOD_FLAT: u8 = 0x40;
    /// Bits of byte 2 with the addressing method.
    pub const METHOD_MASK: u8 = 0xc0;

    /// A logical unit (0 to 16383; higher bits are dropped) of a target, in the flat space.
    pub const fn new(target: u8, lun: u16) -> Self {
        let [high, low] = lun.to_be_bytes();
        let high = Self::METHOD_FLAT | high & !Self::METHOD_MASK;
        Self([Self::TARGET, target, high, low, 0, 0, 0, 0])
    }
}

/// What each request starts with (5.6.6.1). The CDB, cdb_size bytes, follows, and then data out.
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
pub struct RequestHeader {
    /// For whom.
    pub lun: Lun,
    /// The command's name, for task management.
    pub id: U64,
    /// `task_attribute::*`.
    pub task_attr: u8,
    /// SAM's command priority; 0.
    pub prio: u8,
    /// Command reference number; 0.
    pub crn: u8,
}

/// Task attributes (5.6.6.1).
pub mod task_attribute {
    /// VIRTIO_SCSI_S_SIMPLE.
    pub const SIMPLE: u8 = 0;
    /// VIRTIO_SCSI_S_ORDERED.
    pub const ORDERED: u8 = 1;
    /// VIRTIO_SCSI_S_HEAD.
    pub const HEAD: u8 = 2;
    /// VIRTIO_SCSI_S_ACA.
    pub const ACA: u8 = 3;
}

/// What the device-writable part of a request starts with (5.6.6.1). The sense data, sense_size
/// bytes, follows, and then data in.
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
pub struct ResponseHeader {
    /// Bytes of sense data that are valid.
    pub sense_len: U32,
    /// Bytes of data that were not moved.
    pub residual: U32,
    /// SAM's status qualifier.
    pub status_qualifier: U16,
    /// SAM's status code.
    pub status: u8,
    /// `response::*`.
    pub response: u8,
}

/// Responses: of commands the first ten (5.6.6.1), of the control queue those said to be (5.6.6.2).
pub mod response {
    /// VIRTIO_SCSI_S_OK: the status is valid. Control queue too.
    pub const OK: u8 = 0;
    /// VIRTIO_SCSI_S_FUNCTION_COMPLETE: of a task management function.
    pub const FUNCTION_COMPLETE: u8 = 0;
    /// VIRTIO_SCSI_S_OVERRUN: the CDB wants more data than there are buffers.
    pub const OVERRUN: u8 = 1;
    /// VIRTIO_SCSI_S_ABORTED: task management has aborted the command.
    pub const ABORTED: u8 = 2;
    /// VIRTIO_SCSI_S_BAD_TARGET: there is no such target. Control queue too.
    pub const BAD_TARGET: u8 = 3;
    /// VIRTIO_SCSI_S_RESET: a reset has ended the command.
    pub const RESET: u8 = 4;
    /// VIRTIO_SCSI_S_BUSY: try again on the same path. Control queue too.
    pub const BUSY: u8 = 5;
    /// VIRTIO_SCSI_S_TRANSPORT_FAILURE: the link is severed. Control queue too.
    pub const TRANSPORT_FAILURE: u8 = 6;
    /// VIRTIO_SCSI_S_TARGET_FAILURE: do not try other paths. Control queue too.
    pub const TARGET_FAILURE: u8 = 7;
    /// VIRTIO_SCSI_S_NEXUS_FAILURE: other paths may work. Control queue too.
    pub const NEXUS_FAILURE: u8 = 8;
    /// VIRTIO_SCSI_S_FAILURE: anything else. Control queue too.
    pub const FAILURE: u8 = 9;
    /// VIRTIO_SCSI_S_FUNCTION_SUCCEEDED: of a task management function.
    pub const FUNCTION_SUCCEEDED: u8 = 10;
    /// VIRTIO_SCSI_S_FUNCTION_REJECTED: of a task management function.
    pub const FUNCTION_REJECTED: u8 = 11;
    /// VIRTIO_SCSI_S_INCORRECT_LUN: control queue alone.
    pub const INCORRECT_LUN: u8 = 12;
}

/// Types of control requests (5.6.6.2).
pub mod control {
    /// VIRTIO_SCSI_T_TMF: [`TmfRequest`](super::TmfRequest).
    pub const TMF: u32 = 0;
    /// VIRTIO_SCSI_T_AN_QUERY: [`AnRequest`](super::AnRequest).
    pub const AN_QUERY: u32 = 1;
    /// VIRTIO_SCSI_T_AN_SUBSCRIBE: [`AnRequest`](super::AnRequest).
    pub const AN_SUBSCRIBE: u32 = 2;
}

/// Task management functions (5.6.6.2).
pub mod tmf {
    /// VIRTIO_SCSI_T_TMF_ABORT_TASK.
    pub const ABORT_TASK: u32 = 0;
    /// VIRTIO_SCSI_T_TMF_ABORT_TASK_SET.
    pub const ABORT_TASK_SET: u32 = 1;
    /// VIRTIO_SCSI_T_TMF_CLEAR_ACA.
    pub const CLEAR_ACA: u32 = 2;
    /// VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET.
    pub const CLEAR_TASK_SET: u32 = 3;
    /// VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET: the whole target.
    pub const I_T_NEXUS_RESET: u32 = 4;
    /// VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET.
    pub const LOGICAL_UNIT_RESET: u32 = 5;
    /// VIRTIO_SCSI_T_TMF_QUERY_TASK.
    pub const QUERY_TASK: u32 = 6;
    /// VIRTIO_SCSI_T_TMF_QUERY_TASK_SET.
    pub const QUERY_TASK_SET: u32 = 7;
}

/// The device-readable part of a task management function (5.6.6.2). The device-writable part is one
/// byte, `response::*`.
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
pub struct TmfRequest {
    /// [`control::TMF`].
    pub kind: U32,
    /// `tmf::*`.
    pub subtype: U32,
    /// For whom.
    pub lun: Lun,
    /// Of the command that is meant, if one is.
    pub id: U64,
}

/// The device-readable part of an asynchronous notification query or subscription (5.6.6.2).
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
pub struct AnRequest {
    /// [`control::AN_QUERY`] or [`control::AN_SUBSCRIBE`].
    pub kind: U32,
    /// For whom.
    pub lun: Lun,
    /// `notification::*`, any number of them.
    pub event_requested: U32,
}

/// The device-writable part of an asynchronous notification query or subscription (5.6.6.2).
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
pub struct AnResponse {
    /// Those of the events asked for that there are.
    pub event_actual: U32,
    /// `response::*`.
    pub response: u8,
}

/// Asynchronous notifications (5.6.6.2), as masks.
pub mod notification {
    /// VIRTIO_SCSI_EVT_ASYNC_OPERATIONAL_CHANGE.
    pub const OPERATIONAL_CHANGE: u32 = 2;
    /// VIRTIO_SCSI_EVT_ASYNC_POWER_MGMT.
    pub const POWER_MGMT: u32 = 4;
    /// VIRTIO_SCSI_EVT_ASYNC_EXTERNAL_REQUEST.
    pub const EXTERNAL_REQUEST: u32 = 8;
    /// VIRTIO_SCSI_EVT_ASYNC_MEDIA_CHANGE.
    pub const MEDIA_CHANGE: u32 = 16;
    /// VIRTIO_SCSI_EVT_ASYNC_MULTI_HOST.
    pub const MULTI_HOST: u32 = 32;
    /// VIRTIO_SCSI_EVT_ASYNC_DEVICE_BUSY.
    pub const DEVICE_BUSY: u32 = 64;
}

/// What the device puts into a buffer of the event queue (5.6.6.3).
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
pub struct Event {
    /// `event::*`, and perhaps [`event::MISSED`].
    pub event: U32,
    /// About whom.
    pub lun: Lun,
    /// Of [`event::TRANSPORT_RESET`] `reset_reason::*`; of [`event::PARAM_CHANGE`] the additional
    /// sense code in bits 0 to 7 and its qualifier in bits 8 to 15; of [`event::ASYNC_NOTIFY`]
    /// `notification::*`.
    pub reason: U32,
}

/// Events (5.6.6.3).
pub mod event {
    /// VIRTIO_SCSI_T_NO_EVENT.
    pub const NO_EVENT: u32 = 0;
    /// VIRTIO_SCSI_T_TRANSPORT_RESET: a unit has appeared, gone, or been reset.
    pub const TRANSPORT_RESET: u32 = 1;
    /// VIRTIO_SCSI_T_ASYNC_NOTIFY.
    pub const ASYNC_NOTIFY: u32 = 2;
    /// VIRTIO_SCSI_T_PARAM_CHANGE: a unit's parameters have changed.
    pub const PARAM_CHANGE: u32 = 3;
    /// VIRTIO_SCSI_T_EVENTS_MISSED, with any of the others: some were lost.
    pub const MISSED: u32 = 1 << 31;
}

/// Reasons of a transport reset (5.6.6.3).
pub mod reset_reason {
    /// VIRTIO_SCSI_EVT_RESET_HARD: the unit was reset, and is still there.
    pub const HARD: u32 = 0;
    /// VIRTIO_SCSI_EVT_RESET_RESCAN: the unit has appeared.
    pub const RESCAN: u32 = 1;
    /// VIRTIO_SCSI_EVT_RESET_REMOVED: the unit is gone.
    pub const REMOVED: u32 = 2;
}

const _: () = assert!(
    size_of::<Config>() == 36
        && size_of::<RequestHeader>() == 19
        && size_of::<ResponseHeader>() == 12
        && size_of::<TmfRequest>() == 24
        && size_of::<AnRequest>() == 16
        && size_of::<AnResponse>() == 5
        && size_of::<Event>() == 16
);
