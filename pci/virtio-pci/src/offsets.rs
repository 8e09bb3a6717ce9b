//! Offsets of the common configuration's fields, in bytes.

use std::mem::offset_of;

use paraslot_spec::virtio::pci::CommonCfg;

macro_rules! offsets {
    ($($name:ident = $field:ident;)*) => {
        $(pub(crate) const $name: u64 = offset_of!(CommonCfg, $field) as u64;)*
    };
}

offsets! {
    DEVICE_FEATURE_SELECT = device_feature_select;
    DRIVER_FEATURE_SELECT = driver_feature_select;
    DRIVER_FEATURE = driver_feature;
    CONFIG_MSIX_VECTOR = config_msix_vector;
    DEVICE_STATUS = device_status;
    QUEUE_SELECT = queue_select;
    QUEUE_SIZE = queue_size;
    QUEUE_MSIX_VECTOR = queue_msix_vector;
    QUEUE_ENABLE = queue_enable;
    QUEUE_DESC = queue_desc;
    QUEUE_DRIVER = queue_driver;
    QUEUE_DEVICE = queue_device;
    QUEUE_RESET = queue_reset;
}

/// The high half of `queue_desc`.
pub(crate) const QUEUE_DESC_HIGH: u64 = QUEUE_DESC + 4;
/// The high half of `queue_driver`.
pub(crate) const QUEUE_DRIVER_HIGH: u64 = QUEUE_DRIVER + 4;
/// The high half of `queue_device`.
pub(crate) const QUEUE_DEVICE_HIGH: u64 = QUEUE_DEVICE + 4;

#[cfg(test)]
offsets! {
    DEVICE_FEATURE = device_feature;
}
