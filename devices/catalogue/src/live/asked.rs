//! What a guest would find out by its own accesses.

use paraslot_pci::PciDevice;
use paraslot_spec::virtio::Status;
use paraslot_spec::virtio::pci::CommonCfg;
use std::mem::offset_of;

use super::Live;
use crate::entry::{Evidence, Report};

/// Reads a register of `width` bytes, 1 to 8.
pub fn read(function: &mut dyn PciDevice, bar: u8, offset: u64, width: u8) -> u64 {
    let mut data = [0; 8];
    if let Some(data) = data.get_mut(..usize::from(width)) {
        function.bar_read(bar, offset, data);
    }
    u64::from_le_bytes(data)
}

/// Writes a register of `width` bytes, 1 to 8.
pub fn write(function: &mut dyn PciDevice, bar: u8, offset: u64, width: u8, value: u64) {
    if let Some(data) = value.to_le_bytes().get(..usize::from(width)) {
        function.bar_write(bar, offset, data);
    }
}

/// Where the virtio transport here has its common configuration, which is the start of BAR 0.
fn common(function: &mut dyn PciDevice, field: usize, width: u8) -> u64 {
    read(function, 0, field as u64, width)
}

fn set_common(function: &mut dyn PciDevice, field: usize, width: u8, value: u64) {
    write(function, 0, field as u64, width, value);
}

/// The features that a virtio function offers (VIRTIO 1.4, 2.2), the first 128 of them.
pub fn virtio_features(function: &mut dyn PciDevice) -> u128 {
    (0..4).fold(0, |features, select| {
        set_common(function, offset_of!(CommonCfg, device_feature_select), 4, select);
        let word = common(function, offset_of!(CommonCfg, device_feature), 4);
        features | (u128::from(word) << (32 * select))
    })
}

/// Accepts all that a virtio function offers, up to FEATURES_OK (3.1.1), so that its configuration is what it is
/// for a driver. False if it refuses the whole.
pub fn negotiate(function: &mut dyn PciDevice) -> bool {
    let mut status = Status::ACKNOWLEDGE | Status::DRIVER;
    let at = offset_of!(CommonCfg, device_status);
    set_common(function, at, 1, status.bits().into());
    let features = virtio_features(function);
    for select in 0..4u64 {
        let word = (features >> (32 * select)) & u128::from(u32::MAX);
        set_common(function, offset_of!(CommonCfg, driver_feature_select), 4, select);
        let word = u64::try_from(word).unwrap_or(0);
        set_common(function, offset_of!(CommonCfg, driver_feature), 4, word);
    }
    status |= Status::FEATURES_OK;
    set_common(function, at, 1, status.bits().into());
    common(function, at, 1) == u64::from(status.bits())
}

/// Whether a guest finds the feature; `None` if that cannot be read.
pub fn is_there(function: &mut dyn PciDevice, evidence: Evidence) -> Option<bool> {
    match evidence {
        Evidence::VirtioBit(bit) => Some((virtio_features(function) >> bit) & 1 == 1),
        Evidence::Bits { bar, offset, mask, value } => {
            Some(read(function, bar, offset, 4) & u64::from(mask) == u64::from(value))
        }
        Evidence::Answer { bar, command, write: value, answer, mask, value: expected } => {
            write(function, bar, command, 4, value.into());
            Some(read(function, bar, answer, 4) & u64::from(mask) == u64::from(expected))
        }
        Evidence::Capability(id) => {
            let picture = Live::of(function).picture;
            Some(picture.capabilities.iter().any(|found| found.id == u16::from(id)))
        }
        Evidence::Told => None,
    }
}

/// What a function reads as a number that it tells of itself.
pub fn reported(function: &mut dyn PciDevice, report: &Report) -> u64 {
    let (first, count) = report.bits;
    let value = read(function, report.bar, report.offset, report.width) >> first;
    if count >= 64 { value } else { value & ((1 << count) - 1) }
}
