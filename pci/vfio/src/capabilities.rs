//! The function's capability list: what of it the guest sees, and as what.

use std::ops::Range;

use paraslot_pci::{MsixLayout, walk};
use paraslot_spec::pci::{VENDOR_RED_HAT_QUMRANET, capability, express, header, msi, msix, pm};

/// Conventional configuration space.
pub(crate) const CONFIG_LEN: usize = 256;
/// What a capability has at least: its ID, and the pointer to the next.
const LEAST: u16 = 2;

/// Length of a version 1 PCI Express capability of an endpoint, up to the link registers (7.8 of PCI
/// Express Base 1.1).
const EXPRESS_V1_LEN: u16 = 0x14;
/// Length of the SATA capability (AHCI 1.3.1, 2.5).
const SATA_LEN: u16 = 0x08;
/// Type of a virtio structure, in virtio's vendor-specific capability (4.1.4 of virtio 1.4).
const VIRTIO_TYPE: u16 = 3;
/// The structure that is a window to all others: PCI configuration access (4.1.4.9).
const VIRTIO_PCI_CFG: u8 = 5;
/// Its length.
const VIRTIO_PCI_CFG_LEN: u16 = 20;
/// PCI device IDs that virtio has (4.1.2.1).
const VIRTIO_DEVICES: Range<u16> = 0x1000..0x1080;

/// PCI Express, device/port type: the field, and the types of endpoints, PCI Express's and legacy (7.5.3.2).
const EXPRESS_TYPE: u16 = 0x00f0;
const EXPRESS_ENDPOINTS: [u16; 2] = [0x0000, 0x0010];
/// PCI Express, capabilities: version; interrupt message number (a link's business, as is the slot bit).
const EXPRESS_VERSION: u16 = 0x000f;
/// Device control: all that the guest may keep there. None of it reaches the hardware.
const DEVICE_CONTROL_WRITABLE: u16 = 0x7fff;
/// Device status, two bytes behind device control: live, so not copied.
const DEVICE_STATUS: usize = express::DEVICE_CONTROL as usize + 2;
/// The link, slot and root registers, and the second link and slot registers: an integrated endpoint has none.
const LINK_AND_ROOT: Range<usize> = 0x0c..0x24;
const LINK_2: Range<usize> = 0x2c..0x3c;

/// What the guest gets for one of the function's capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Power,
    /// With a mask if the function has one, so if it can hold a message back.
    Msi {
        maskable: bool,
    },
    Msix(MsixLayout),
    /// A copy that follows the ID and the pointer, and what the guest may write of it.
    Copy {
        id: u8,
        body: Vec<u8>,
        writable: Vec<u8>,
    },
}

/// One capability, where the guest finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capability {
    pub(crate) at: u16,
    pub(crate) kind: Kind,
}

impl Capability {
    /// Bytes that it takes of the guest's configuration space.
    pub(crate) fn len(&self) -> u16 {
        match &self.kind {
            Kind::Power => pm::LEN,
            Kind::Msi { maskable: true } => msi::LEN_64_MASKABLE,
            Kind::Msi { maskable: false } => msi::LEN_64,
            Kind::Msix(_) => msix::LEN,
            Kind::Copy { body, .. } => u16::try_from(body.len()).unwrap_or(u16::MAX) + LEAST,
        }
    }
}

/// Reads the list out of 256 bytes of configuration space. Only what is known to be harmless is kept,
/// in the function's order. `reset`: whether the guest may have a function level reset.
///
/// A list that makes no sense is refused as a whole, what is left out of it included: a capability that
/// begins inside of another could be taken for either.
pub(crate) fn parse(config: &[u8; CONFIG_LEN], reset: bool) -> Result<Vec<Capability>, String> {
    let (mut kept, mut ids) = (Vec::<Capability>::new(), Vec::new());
    let mut taken: Vec<(u16, u16)> = Vec::new();
    let mut small_msi = None;
    for at in walk(config).map_err(|(_, fault)| format!("its {fault}"))? {
        let bytes = config.get(usize::from(at)..).unwrap_or_default();
        let id = byte(bytes, 0);
        let (len, kind) = read(config, bytes, id, reset);
        let end = at.saturating_add(len);
        if usize::from(end) > CONFIG_LEN {
            return Err(format!("its capability {id:#x} at {at:#x} leaves configuration space"));
        }
        if taken.iter().any(|(start, stop)| at < *stop && end > *start) {
            return Err(format!("its capability {id:#x} at {at:#x} overlaps another"));
        }
        taken.push((at, end));
        let Some(kind) = kind else { continue };
        if id != capability::VENDOR && ids.contains(&id) {
            return Err(format!("it has two capabilities {id:#x}"));
        }
        ids.push(id);
        let capability = Capability { at, kind };
        if capability.len() > len {
            small_msi = Some((kept.len(), taken.len() - 1));
        }
        kept.push(capability);
    }
    if let Some((index, place)) = small_msi {
        // The guest's has 64-bit addresses, whatever the function's has.
        taken.swap_remove(place);
        let old = kept.get(index).map_or((0, 0), |msi| (msi.at, msi.len()));
        match room(&taken, old) {
            Some(at) => kept.iter_mut().skip(index).take(1).for_each(|msi| msi.at = at),
            None => drop(kept.remove(index)),
        }
    }
    Ok(kept)
}

/// The bytes that a capability takes of the function's own registers, as far as that is known, and what
/// it is to the guest.
fn read(config: &[u8; CONFIG_LEN], bytes: &[u8], id: u8, reset: bool) -> (u16, Option<Kind>) {
    let (len, kind) = match id {
        capability::POWER_MANAGEMENT => (pm::LEN, Kind::Power),
        capability::MSI => {
            let control = word(bytes, msi::CONTROL);
            let wide = if control & msi::ADDRESS_64 != 0 { 4 } else { 0 };
            let maskable = control & msi::MASKABLE != 0;
            (10 + wide + if maskable { 10 } else { 0 }, Kind::Msi { maskable })
        }
        capability::MSI_X => {
            let place = |at| {
                let value = dword(bytes, at);
                let [low, ..] = value.to_le_bytes();
                (low & 7, value & !7)
            };
            let vectors = (word(bytes, msix::CONTROL) & msix::TABLE_SIZE) + 1;
            let (table, pba) = (place(msix::TABLE), place(msix::PBA));
            (msix::LEN, Kind::Msix(MsixLayout { vectors, table, pba }))
        }
        capability::PCI_EXPRESS => express_copy(bytes, reset),
        capability::VENDOR => {
            let len = u16::from(byte(bytes, 2));
            let window = is_virtio(config) && byte(bytes, VIRTIO_TYPE) == VIRTIO_PCI_CFG;
            if window {
                return (len.max(VIRTIO_PCI_CFG_LEN), None);
            }
            if len <= LEAST {
                return (LEAST, None);
            }
            (len, copy(bytes, id, len))
        }
        capability::SATA => (SATA_LEN, copy(bytes, id, SATA_LEN)),
        _ => return (LEAST, None),
    };
    (len, Some(kind))
}

/// A copy in which the function is an integrated endpoint, since it is on the guest's root bus, where
/// there is no link.
fn express_copy(bytes: &[u8], reset: bool) -> (u16, Kind) {
    let capabilities = word(bytes, express::CAPABILITIES);
    let version = capabilities & EXPRESS_VERSION;
    let len = if version >= 2 { express::LEN } else { EXPRESS_V1_LEN };
    let mut body: Vec<u8> = bytes.iter().copied().take(len.into()).collect();
    let mut set = |at: u16, value: &[u8]| {
        if let Some(place) = body.get_mut(at.into()..usize::from(at) + value.len()) {
            place.copy_from_slice(value);
        }
    };
    let kind = capabilities & EXPRESS_TYPE;
    let integrated = EXPRESS_ENDPOINTS.contains(&kind);
    if integrated {
        let capabilities = version | express::TYPE_INTEGRATED_ENDPOINT;
        set(express::CAPABILITIES, &capabilities.to_le_bytes());
    }
    let device = dword(bytes, express::DEVICE_CAPABILITIES) & !express::FUNCTION_LEVEL_RESET;
    let device = if reset { device | express::FUNCTION_LEVEL_RESET } else { device };
    set(express::DEVICE_CAPABILITIES, &device.to_le_bytes());
    let control = word(bytes, express::DEVICE_CONTROL) & DEVICE_CONTROL_WRITABLE;
    set(express::DEVICE_CONTROL, &control.to_le_bytes());
    for (at, byte) in body.iter_mut().enumerate() {
        let status = (DEVICE_STATUS..DEVICE_STATUS + 2).contains(&at);
        let link = LINK_AND_ROOT.contains(&at) || LINK_2.contains(&at);
        if status || (link && integrated) {
            *byte = 0;
        }
    }
    let mut writable = vec![0; usize::from(express::DEVICE_CONTROL)];
    writable.extend(DEVICE_CONTROL_WRITABLE.to_le_bytes());
    let id = capability::PCI_EXPRESS;
    let (body, writable) = (body.split_off(2.min(body.len())), writable.split_off(2));
    (len, Kind::Copy { id, body, writable })
}

fn copy(bytes: &[u8], id: u8, len: u16) -> Kind {
    let body = bytes.iter().copied().take(len.into()).skip(2).collect();
    Kind::Copy { id, body, writable: Vec::new() }
}

fn is_virtio(config: &[u8; CONFIG_LEN]) -> bool {
    word(config, header::VENDOR_ID) == VENDOR_RED_HAT_QUMRANET
        && VIRTIO_DEVICES.contains(&word(config, header::DEVICE_ID))
}

/// Where `len` bytes are free: at `first`, or at the end of configuration space.
fn room(taken: &[(u16, u16)], (first, len): (u16, u16)) -> Option<u16> {
    let free = |at: &u16| {
        let end = at.saturating_add(len);
        usize::from(end) <= CONFIG_LEN
            && taken.iter().all(|(start, stop)| end <= *start || *at >= *stop)
    };
    std::iter::once(first).chain((header::END..0x100).step_by(4).rev()).find(free)
}

pub(crate) fn byte(bytes: &[u8], at: u16) -> u8 {
    bytes.get(usize::from(at)).copied().unwrap_or(0)
}

pub(crate) fn word(bytes: &[u8], at: u16) -> u16 {
    u16::from_le_bytes([byte(bytes, at), byte(bytes, at.saturating_add(1))])
}

pub(crate) fn dword(bytes: &[u8], at: u16) -> u32 {
    u32::from(word(bytes, at)) | (u32::from(word(bytes, at.saturating_add(2))) << 16)
}

#[cfg(test)]
mod tests;
