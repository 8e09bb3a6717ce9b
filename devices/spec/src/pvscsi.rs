//! VMware's paravirtual SCSI host adapter.
//!
//! There is no public specification. What is here is what VMware's drivers, of which Linux's
//! `vmw_pvscsi` and FreeBSD's `pvscsi` are public, have in their header files; the names in quotes are
//! theirs. All integers in structures are little-endian, and all addresses are guest physical.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Device ID. The vendor is [`VENDOR_VMWARE`](crate::pci::VENDOR_VMWARE), the subsystem the same.
pub const DEVICE_PVSCSI: u16 = 0x07c0;
/// Revision ID of an adapter that has the message ring and DEVICE_UNPLUG.
pub const REVISION: u8 = 2;
/// Class code: SCSI bus controller.
pub const CLASS_CODE: [u8; 3] = [0x01, 0x00, 0x00];

/// The BAR with the registers, of memory.
pub const MEMORY_BAR: u8 = 0;
/// Bytes that it decodes: eight pages.
pub const MEMORY_BAR_SIZE: u64 = 8 * PAGE_SIZE;
/// Bytes of the pages that rings, and lists of scatter/gather elements, lie in.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`]: page numbers are shifted by it.
pub const PAGE_SHIFT: u32 = 12;
/// Offset of the MSI-X table in the BAR: page 6.
pub const MSIX_TABLE: u32 = 0x6000;
/// Offset of the MSI-X pending bits in the BAR: page 7.
pub const MSIX_PBA: u32 = 0x7000;
/// MSI-X vectors that drivers ask for: one, for everything.
pub const MSIX_VECTORS: u16 = 1;

/// Offsets of the registers in the BAR, all of them 32 bits wide.
pub mod register {
    /// A [`command`](super::command) is written here, and with it begins.
    pub const COMMAND: u32 = 0x0;
    /// The words of the command's descriptor are written here, one after the other.
    pub const COMMAND_DATA: u32 = 0x4;
    /// What became of the last command: [`command_status`](super::command_status), or its answer.
    pub const COMMAND_STATUS: u32 = 0x8;
    /// "LAST_STS_0" to 3: four words of which no public driver makes use.
    pub const LAST_STS: [u32; 4] = [0x100, 0x104, 0x108, 0x10c];
    /// [`Intr`](super::Intr): causes. Writing a one clears.
    pub const INTR_STATUS: u32 = 0x100c;
    /// [`Intr`](super::Intr): causes that interrupt.
    pub const INTR_MASK: u32 = 0x2010;
    /// Any value: there are requests, at least one of which is neither a read nor a write.
    pub const KICK_NON_RW_IO: u32 = 0x3014;
    /// Of which no public driver makes use.
    pub const DEBUG: u32 = 0x3018;
    /// Any value: there are requests, reads and writes.
    pub const KICK_RW_IO: u32 = 0x4018;
}

/// Commands, for [`register::COMMAND`].
pub mod command {
    /// "FIRST": no command.
    pub const FIRST: u32 = 0;
    /// "ADAPTER_RESET", no descriptor: ends all requests, forgets the rings.
    pub const ADAPTER_RESET: u32 = 1;
    /// "ISSUE_SCSI", [`IssueScsi`](super::IssueScsi): one request without the rings.
    pub const ISSUE_SCSI: u32 = 2;
    /// "SETUP_RINGS", [`SetupRings`](super::SetupRings).
    pub const SETUP_RINGS: u32 = 3;
    /// "RESET_BUS", no descriptor: resets all targets.
    pub const RESET_BUS: u32 = 4;
    /// "RESET_DEVICE", [`ResetDevice`](super::ResetDevice).
    pub const RESET_DEVICE: u32 = 5;
    /// "ABORT_CMD", [`AbortCmd`](super::AbortCmd).
    pub const ABORT_CMD: u32 = 6;
    /// "CONFIG", [`Config`](super::Config): reads a configuration page.
    pub const CONFIG: u32 = 7;
    /// "SETUP_MSG_RING", [`SetupMsgRing`](super::SetupMsgRing). Until its descriptor is complete, the
    /// command's status is the number of words that it has, as with the ones below: this is how a
    /// driver learns that the command is there.
    pub const SETUP_MSG_RING: u32 = 8;
    /// "DEVICE_UNPLUG", [`DeviceUnplug`](super::DeviceUnplug).
    pub const DEVICE_UNPLUG: u32 = 9;
    /// "SETUP_REQCALLTHRESHOLD", [`SetupReqCall`](super::SetupReqCall).
    pub const SETUP_REQCALLTHRESHOLD: u32 = 10;
    /// "GET_MAX_TARGETS", no descriptor: the status is the number of targets.
    pub const GET_MAX_TARGETS: u32 = 11;
}

/// What [`register::COMMAND_STATUS`] says, unless it has a command's answer.
pub mod command_status {
    /// The command succeeded.
    pub const SUCCEEDED: u32 = 0;
    /// The command failed, or there is no such command.
    pub const FAILED: u32 = u32::MAX;
    /// Words of the descriptor are missing. The commands before SETUP_MSG_RING say so.
    pub const NOT_ENOUGH_DATA: u32 = u32::MAX - 1;
}

/// Descriptor of ISSUE_SCSI, "PVSCSICmdDescIssueSCSI".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct IssueScsi {
    /// Address of a [`RequestDescriptor`].
    pub request: U64,
    /// Address of the [`CompletionDescriptor`] that it ends with.
    pub completion: U64,
}

/// Descriptor of RESET_DEVICE, "PVSCSICmdDescResetDevice".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ResetDevice {
    /// Target.
    pub target: U32,
    /// Logical unit, as in a request.
    pub lun: [u8; 8],
}

/// Descriptor of ABORT_CMD, "PVSCSICmdDescAbortCmd". The logical unit is not said.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AbortCmd {
    /// Context of the request.
    pub context: U64,
    /// Target.
    pub target: U32,
    pad: U32,
}

/// Most pages of a request or completion ring.
pub const MAX_RING_PAGES: usize = 32;
/// Most pages of a message ring.
pub const MAX_MESSAGE_PAGES: usize = 16;

/// Descriptor of SETUP_RINGS, "PVSCSICmdDescSetupRings". The numbers of pages are powers of two.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SetupRings {
    /// Pages of the request ring, 1 to [`MAX_RING_PAGES`].
    pub request_pages: U32,
    /// Pages of the completion ring, likewise.
    pub completion_pages: U32,
    /// Number of the page with the [`RingsState`].
    pub state_page: U64,
    /// Numbers of the request ring's pages.
    pub request_ring: [U64; MAX_RING_PAGES],
    /// Numbers of the completion ring's pages.
    pub completion_ring: [U64; MAX_RING_PAGES],
}

/// Descriptor of SETUP_MSG_RING, "PVSCSICmdDescSetupMsgRing"; comes after SETUP_RINGS.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SetupMsgRing {
    /// Pages, 1 to [`MAX_MESSAGE_PAGES`], a power of two.
    pub pages: U32,
    pad: U32,
    /// Their numbers.
    pub ring: [U64; MAX_MESSAGE_PAGES],
}

/// Descriptor of CONFIG, "PVSCSICmdDescConfigCmd".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Config {
    /// Where the configuration page is to be written.
    pub completion: U64,
    /// Whose page: a [`config::address`] in the upper half.
    pub address: U64,
    /// Which: [`config`].
    pub page: U32,
    pad: U32,
}

/// Descriptor of DEVICE_UNPLUG, "PVSCSICmdDescDeviceUnplug".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DeviceUnplug {
    /// Where the [`host_status`] that it ends with is to be written.
    pub host_status: U64,
    /// Bus, 0.
    pub bus: U32,
    /// Target.
    pub target: U32,
    /// Logical unit, 0.
    pub lun: [u8; 8],
}

/// Descriptor of SETUP_REQCALLTHRESHOLD, "PVSCSICmdDescSetupReqCall". The status is then whether the
/// driver is to go by [`RingsState::call_threshold`]: not 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SetupReqCall {
    /// 1 to ask for it, 0 to do without.
    pub enable: U32,
}

/// Configuration pages.
pub mod config {
    /// "PVSCSI_CONFIG_PAGE_CONTROLLER", a [`ConfigController`](super::ConfigController).
    pub const CONTROLLER: u32 = 0x1958;
    /// "PVSCSI_CONFIG_PAGE_PHY", a [`ConfigPhy`](super::ConfigPhy).
    pub const PHY: u32 = 0x1959;
    /// "PVSCSI_CONFIG_PAGE_DEVICE", a [`ConfigDevice`](super::ConfigDevice).
    pub const DEVICE: u32 = 0x195a;

    /// What a page's address is of; in bits 63:32 of the address.
    pub mod address {
        /// The controller. Bits 31:0 are zero.
        pub const CONTROLLER: u32 = 0x2120;
        /// A device: bus in bits 31:16, target in bits 15:0.
        pub const BUS_TARGET: u32 = 0x2121;
        /// A phy: its number is in bits 31:0.
        pub const PHY: u32 = 0x2122;
    }
}

/// What a configuration page starts with, "PVSCSIConfigPageHeader".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ConfigHeader {
    /// Which page.
    pub page: U32,
    /// Words of 32 bits in the page, those of the header included.
    pub words: U16,
    /// A [`host_status`].
    pub host_status: U16,
    /// A SCSI status.
    pub scsi_status: U16,
    reserved: [U16; 3],
}

/// The controller's page, "PVSCSIConfigPageController". Its strings are UTF-16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConfigController {
    /// The header.
    pub header: ConfigHeader,
    /// World wide name of the controller.
    pub node_wwn: U64,
    /// Manufacturer.
    pub manufacturer: [U16; 64],
    /// Serial number.
    pub serial_number: [U16; 64],
    /// Version of the option ROM.
    pub oprom_version: [U16; 32],
    /// Version of the hardware.
    pub hardware_version: [U16; 32],
    /// Version of the firmware.
    pub firmware_version: [U16; 32],
    /// Phys, each of which can have a target: targets are 0 to this less one.
    pub phys: U32,
    /// The phys' names are consecutive.
    pub consecutive_phy_wwns: u8,
    reserved: [u8; 3],
}

/// A phy's page, "PVSCSIConfigPagePhy".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ConfigPhy {
    /// The header.
    pub header: ConfigHeader,
    /// The phy's world wide name.
    pub phy_wwn: U64,
    /// The attached device's, 0 for none.
    pub attached_wwn: U64,
    /// 1 for a SAS device, 2 for a SATA device.
    pub attached_type: u8,
    reserved: [u8; 7],
}

/// A device's page, "PVSCSIConfigPageDevice".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ConfigDevice {
    /// The header.
    pub header: ConfigHeader,
    /// The device's world wide name.
    pub device_wwn: U64,
    /// Its phy's.
    pub phy_wwn: U64,
    /// Its phy.
    pub phy: U32,
    /// Target.
    pub target: u8,
    /// Bus.
    pub bus: u8,
    reserved: [u8; 2],
}

/// The page that both sides keep their places in the rings in, "PVSCSIRingsState". Indices count up
/// without end; their low bits are the place. A ring is empty when both of its indices are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RingsState {
    /// "reqProdIdx": requests that the driver has put there.
    pub request_producer: U32,
    /// "reqConsIdx": requests that the device has taken.
    pub request_consumer: U32,
    /// "reqNumEntriesLog2": log2 of the request ring's size, which the device says.
    pub request_entries_log2: U32,
    /// "cmpProdIdx": completions that the device has put there.
    pub completion_producer: U32,
    /// "cmpConsIdx": completions that the driver has taken.
    pub completion_consumer: U32,
    /// "cmpNumEntriesLog2": log2 of the completion ring's size, which the device says.
    pub completion_entries_log2: U32,
    /// "reqCallThreshold", which the device says: where SETUP_REQCALLTHRESHOLD was answered with yes,
    /// a driver that has put a read or write there kicks only if at least so many requests are in the
    /// ring that the device has not taken.
    pub call_threshold: U32,
    pad: [u8; 100],
    /// "msgProdIdx": messages that the device has put there.
    pub message_producer: U32,
    /// "msgConsIdx": messages that the driver has taken.
    pub message_consumer: U32,
    /// "msgNumEntriesLog2": log2 of the message ring's size, which the device says.
    pub message_entries_log2: U32,
}

/// Offsets in [`RingsState`].
pub mod state {
    /// Of `request_producer`.
    pub const REQUEST_PRODUCER: u64 = 0;
    /// Of `request_consumer`.
    pub const REQUEST_CONSUMER: u64 = 4;
    /// Of `request_entries_log2`.
    pub const REQUEST_ENTRIES_LOG2: u64 = 8;
    /// Of `completion_producer`.
    pub const COMPLETION_PRODUCER: u64 = 12;
    /// Of `completion_consumer`.
    pub const COMPLETION_CONSUMER: u64 = 16;
    /// Of `completion_entries_log2`.
    pub const COMPLETION_ENTRIES_LOG2: u64 = 20;
    /// Of `call_threshold`.
    pub const CALL_THRESHOLD: u64 = 24;
    /// Of `message_producer`.
    pub const MESSAGE_PRODUCER: u64 = 128;
    /// Of `message_consumer`.
    pub const MESSAGE_CONSUMER: u64 = 132;
    /// Of `message_entries_log2`.
    pub const MESSAGE_ENTRIES_LOG2: u64 = 136;
}

/// Requests in a page of the ring.
pub const REQUESTS_PER_PAGE: u32 = 32;
/// Completions in a page of the ring.
pub const COMPLETIONS_PER_PAGE: u32 = 128;
/// Messages in a page of the ring.
pub const MESSAGES_PER_PAGE: u32 = 32;

/// A request, "PVSCSIRingReqDesc".
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RequestDescriptor {
    /// The driver's name for the request, which its completion has too. Not 0.
    pub context: U64,
    /// Address of the data, or of the first [`SgElement`] with [`RequestFlags::SG_LIST`].
    pub data_address: U64,
    /// Bytes of data.
    pub data_len: U64,
    /// Address of the sense buffer.
    pub sense_address: U64,
    /// Bytes of the sense buffer.
    pub sense_len: U32,
    /// [`RequestFlags`].
    pub flags: U32,
    /// The command descriptor block.
    pub cdb: [u8; 16],
    /// Bytes of it.
    pub cdb_len: u8,
    /// Logical unit: the number in the second byte, zeroes in the others.
    pub lun: [u8; 8],
    /// How it is ordered: a [`tag`].
    pub tag: u8,
    /// Bus, 0.
    pub bus: u8,
    /// Target.
    pub target: u8,
    /// The CPU that waits for the completion.
    pub vcpu_hint: u8,
    unused: [u8; 59],
}

bitflags! {
    /// Flags of a [`RequestDescriptor`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RequestFlags: u32 {
        /// The data is where a list of [`SgElement`]s says.
        const SG_LIST = 1 << 0;
        /// The CDB is elsewhere. Never specified.
        const OUT_OF_BAND_CDB = 1 << 1;
        /// No data.
        const DIR_NONE = 1 << 2;
        /// Data goes to the driver.
        const DIR_TO_HOST = 1 << 3;
        /// Data goes to the target.
        const DIR_TO_DEVICE = 1 << 4;
    }
}

/// How a request is ordered: SCSI-2's queue tag messages.
pub mod tag {
    /// In any order.
    pub const SIMPLE: u8 = 0x20;
    /// Before all others.
    pub const HEAD_OF_QUEUE: u8 = 0x21;
    /// After those before it and before those after it.
    pub const ORDERED: u8 = 0x22;
}

/// A piece of a request's data, "PVSCSISGElement". A list of them does not cross a page.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SgElement {
    /// Address; of the next list with [`SG_CHAIN`].
    pub address: U64,
    /// Bytes; nothing with [`SG_CHAIN`].
    pub len: U32,
    /// 0, or [`SG_CHAIN`].
    pub flags: U32,
}

/// In [`SgElement::flags`], "PVSCSI_SGE_FLAG_CHAIN_ELEMENT": the list goes on elsewhere.
pub const SG_CHAIN: u32 = 1 << 0;
/// Elements that VMware's header file lets a list have before it goes on elsewhere.
pub const SG_PER_LIST: usize = 128;
/// Lists that it lets a request have.
pub const SG_LISTS: usize = 128;

/// How a request ended, "PVSCSIRingCmpDesc".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CompletionDescriptor {
    /// The request's.
    pub context: U64,
    /// Bytes of data that were moved.
    pub data_len: U64,
    /// Bytes of sense data that were written.
    pub sense_len: U32,
    /// The adapter's: a [`host_status`].
    pub host_status: U16,
    /// The target's, of SCSI.
    pub scsi_status: U16,
    pad: [U32; 2],
}

/// How a request ended for the adapter, "BTSTAT": a BusLogic adapter's codes.
pub mod host_status {
    /// The target says how.
    pub const SUCCESS: u16 = 0x00;
    /// "LINKED_COMMAND_COMPLETED".
    pub const LINKED: u16 = 0x0a;
    /// "LINKED_COMMAND_COMPLETED_WITH_FLAG".
    pub const LINKED_FLAG: u16 = 0x0b;
    /// Less data than asked for.
    pub const DATA_UNDERRUN: u16 = 0x0c;
    /// Selection timeout: there is no such target.
    pub const SELTIMEO: u16 = 0x11;
    /// More data than there is room for, or less.
    pub const DATARUN: u16 = 0x12;
    /// Unexpected bus free.
    pub const BUSFREE: u16 = 0x13;
    /// Invalid bus phase.
    pub const INVPHASE: u16 = 0x14;
    /// The linked command has another LUN.
    pub const LUNMISMATCH: u16 = 0x17;
    /// The request is not valid.
    pub const INVPARAM: u16 = 0x1a;
    /// Sense data could not be fetched.
    pub const SENSFAILED: u16 = 0x1b;
    /// The tag was rejected.
    pub const TAGREJECT: u16 = 0x1c;
    /// Unsupported message.
    pub const BADMSG: u16 = 0x1d;
    /// The adapter failed.
    pub const HAHARDWARE: u16 = 0x20;
    /// The target does not respond.
    pub const NORESPONSE: u16 = 0x21;
    /// The adapter sent a reset.
    pub const SENTRST: u16 = 0x22;
    /// Somebody else sent a reset.
    pub const RECVRST: u16 = 0x23;
    /// The target reconnected wrongly.
    pub const DISCONNECT: u16 = 0x24;
    /// The device or bus was reset.
    pub const BUSRESET: u16 = 0x25;
    /// The request was aborted.
    pub const ABORTQUEUE: u16 = 0x26;
    /// The adapter's software failed.
    pub const HASOFTWARE: u16 = 0x27;
    /// The adapter timed out.
    pub const HATIMEOUT: u16 = 0x30;
    /// Parity error.
    pub const SCSIPARITY: u16 = 0x34;
}

/// Types of messages.
pub mod message {
    /// "PVSCSI_MSG_DEV_ADDED".
    pub const DEVICE_ADDED: u32 = 0;
    /// "PVSCSI_MSG_DEV_REMOVED".
    pub const DEVICE_REMOVED: u32 = 1;
}

/// A message of a device that was added or removed, "PVSCSIMsgDescDevStatusChanged".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MessageDescriptor {
    /// A [`message`].
    pub kind: U32,
    /// Bus, 0.
    pub bus: U32,
    /// Target.
    pub target: U32,
    /// Logical unit, as in a request.
    pub lun: [u8; 8],
    pad: [U32; 27],
}

bitflags! {
    /// Causes of interrupts: [`register::INTR_STATUS`] and [`register::INTR_MASK`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Intr: u32 {
        /// There are completions.
        const CMPL_0 = 1 << 0;
        /// Likewise.
        const CMPL_1 = 1 << 1;
        /// There are messages.
        const MSG_0 = 1 << 2;
        /// Likewise.
        const MSG_1 = 1 << 3;
    }
}

macro_rules! zeroed {
    ($($structure:ty),*) => {$(
        impl Default for $structure {
            fn default() -> Self {
                Self::new_zeroed()
            }
        }
    )*};
}

zeroed!(ConfigController, RingsState, RequestDescriptor);

const _: () = {
    assert!(size_of::<SetupRings>() == 528);
    assert!(size_of::<SetupMsgRing>() == 136);
    assert!(size_of::<ConfigController>() == 480);
    assert!(size_of::<ConfigPhy>() == 40 && size_of::<ConfigDevice>() == 40);
    assert!(size_of::<RingsState>() == 140);
    assert!(core::mem::offset_of!(RingsState, message_producer) == 128);
    assert!(size_of::<RequestDescriptor>() == 128);
    assert!(size_of::<SgElement>() == 16);
    assert!(size_of::<CompletionDescriptor>() == 32);
    assert!(size_of::<MessageDescriptor>() == 128);
};
