//! Where everything is: identity, BAR, capabilities.

use std::sync::Arc;

use paraslot_device::{IntxLine, MsiSink, page::PAGE_SIZE};
use paraslot_pci::{BarKind, BarSpec, ConfigSpace, ConfigSpaceBuilder, Identity, MsixLayout};
use paraslot_spec::pci::{VENDOR_RED_HAT_QUMRANET, capability};
use paraslot_spec::virtio::{device_type, pci};
use zerocopy::{FromZeros, IntoBytes};

/// The BAR that holds everything; 64-bit, so it takes BAR 1 as well. Reading the ISR status has a
/// side effect, so it is not prefetchable.
pub(crate) const BAR: u8 = 0;
/// Its size. Each structure has pages of its own, so that a host can treat them differently.
pub(crate) const BAR_SIZE: u64 = 0x1_0000;

/// Offset of the common configuration.
pub(crate) const COMMON: u64 = 0;
/// Offset of the ISR status.
pub(crate) const ISR: u64 = 0x1000;
/// Offset of the device configuration.
pub(crate) const DEVICE: u64 = 0x2000;
/// Offset of the doorbells, one for each queue.
pub(crate) const NOTIFY: u64 = 0x3000;
/// Offset of the MSI-X pending bits.
const MSIX_PBA: u32 = 0x4000;
/// Offset of the MSI-X table.
const MSIX_TABLE: u32 = 0x8000;

/// Bytes that each structure but the MSI-X table can take up.
pub(crate) const PAGE: u64 = PAGE_SIZE as u64;
/// Bytes between two doorbells.
pub(crate) const NOTIFY_MULTIPLIER: u64 = 4;
/// Most queues: their doorbells share a page.
pub(crate) const MAX_QUEUES: u64 = PAGE / NOTIFY_MULTIPLIER;

const _: () = assert!(MAX_QUEUES < paraslot_spec::pci::msix::MAX_VECTORS as u64);

/// What a device's type tells of a function that carries it: the class that operating systems and
/// firmware have come to expect.
fn class(device_type: u16) -> [u8; 3] {
    match device_type {
        // Network controller, Ethernet.
        device_type::NET => [0x02, 0x00, 0x00],
        // Mass storage, SCSI.
        device_type::BLOCK | device_type::SCSI => [0x01, 0x00, 0x00],
        // No class fits.
        _ => [0xff, 0x00, 0x00],
    }
}

/// A structure's place in the BAR as its capability, without the two bytes that
/// [`ConfigSpaceBuilder`] adds, followed by `more`.
fn structure(cfg_type: u8, offset: u64, length: u64, more: &[u8]) -> Vec<u8> {
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut cap = pci::Capability::new_zeroed();
    cap.cfg_type = cfg_type;
    cap.bar = BAR;
    cap.offset = narrow(offset).into();
    cap.length = narrow(length).into();
    let len = size_of::<pci::Capability>() + more.len();
    cap.cap_len = u8::try_from(len).unwrap_or(u8::MAX);
    let mut body = cap.as_bytes()[2..].to_vec();
    body.extend_from_slice(more);
    body
}

/// The configuration space of a function, and where in it the PCI configuration access capability is.
pub(crate) fn config_space(
    device_type: u16,
    queues: u16,
    config_len: u64,
    msi: Arc<dyn MsiSink>,
    intx: Arc<dyn IntxLine>,
) -> (ConfigSpace, u16) {
    let device = pci::MODERN_DEVICE_ID_BASE + device_type;
    let identity = Identity {
        vendor: VENDOR_RED_HAT_QUMRANET,
        device,
        revision: 1,
        class: class(device_type),
        subsystem_vendor: VENDOR_RED_HAT_QUMRANET,
        subsystem: device,
    };
    let bar = BarSpec { kind: BarKind::Memory64, size: BAR_SIZE, prefetchable: false };
    // One for each queue and one for configuration changes.
    let vectors = (queues + 1).max(2);
    let msix = MsixLayout { vectors, table: (BAR, MSIX_TABLE), pba: (BAR, MSIX_PBA) };
    let mut builder = ConfigSpaceBuilder::new(identity).bar(BAR, bar).intx();

    let common_len = size_of::<pci::CommonCfg>() as u64;
    let notify_len = u64::from(queues.max(1)) * NOTIFY_MULTIPLIER;
    let multiplier = u32::try_from(NOTIFY_MULTIPLIER).unwrap_or(0).to_le_bytes();
    let mut add = |cfg_type, offset, length, more: &[u8], writable: &[u8]| {
        builder.capability(capability::VENDOR, &structure(cfg_type, offset, length, more), writable)
    };
    add(pci::cfg_type::COMMON, COMMON, common_len, &[], &[]);
    add(pci::cfg_type::NOTIFY, NOTIFY, notify_len, &multiplier, &[]);
    add(pci::cfg_type::ISR, ISR, 1, &[], &[]);
    if config_len != 0 {
        add(pci::cfg_type::DEVICE, DEVICE, config_len, &[], &[]);
    }
    // cap_len and cfg_type are fixed; bar, then after id and padding offset, length and data are not.
    let mut writable = [0; 18];
    writable[2] = 0xff;
    writable[6..].fill(0xff);
    let window = add(pci::cfg_type::PCI, 0, 0, &[0; 4], &writable);

    let config = builder.msix(msix).power_management().express().build(msi, intx);
    (config, window)
}
