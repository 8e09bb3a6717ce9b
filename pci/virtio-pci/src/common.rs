//! The common configuration structure (4.1.4.3).
//!
//! Reading has no side effects on the registers themselves, so any access is served from an image.
//! Writes must have the width of the field, or be one half of a 64-bit field; others are ignored.

use paraslot_device::DmaSpace;
use paraslot_spec::virtio::Status;
use paraslot_spec::virtio::pci::{CommonCfg, NO_VECTOR};
use paraslot_virtio::VirtioDevice;
use zerocopy::{FromZeros, IntoBytes};

use crate::VirtioPci;
use crate::offsets::*;
use crate::queues::QueueSlot;

/// A field that the driver may write, and what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    DeviceFeatureSelect(u32),
    DriverFeatureSelect(u32),
    DriverFeature(u32),
    ConfigMsixVector(u16),
    DeviceStatus(u8),
    QueueSelect(u16),
    QueueSize(u16),
    QueueMsixVector(u16),
    QueueEnable(u16),
    QueueDesc(Part),
    QueueDriver(Part),
    QueueDevice(Part),
    QueueReset(u16),
}

/// Some bytes of a 64-bit field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Low(u32),
    High(u32),
    Both(u64),
}

impl Part {
    fn apply(self, old: u64) -> u64 {
        match self {
            Part::Low(low) => (old & !0xffff_ffff) | u64::from(low),
            Part::High(high) => (old & 0xffff_ffff) | (u64::from(high) << 32),
            Part::Both(value) => value,
        }
    }
}

/// What a write means, if it means anything.
fn decode(offset: u64, data: &[u8]) -> Option<Write> {
    Some(match data.len() {
        1 if offset == DEVICE_STATUS => Write::DeviceStatus(*data.first()?),
        2 => {
            let value = u16::from_le_bytes(data.try_into().ok()?);
            match offset {
                CONFIG_MSIX_VECTOR => Write::ConfigMsixVector(value),
                QUEUE_SELECT => Write::QueueSelect(value),
                QUEUE_SIZE => Write::QueueSize(value),
                QUEUE_MSIX_VECTOR => Write::QueueMsixVector(value),
                QUEUE_ENABLE => Write::QueueEnable(value),
                QUEUE_RESET => Write::QueueReset(value),
                _ => return None,
            }
        }
        4 => {
            let value = u32::from_le_bytes(data.try_into().ok()?);
            match offset {
                DEVICE_FEATURE_SELECT => Write::DeviceFeatureSelect(value),
                DRIVER_FEATURE_SELECT => Write::DriverFeatureSelect(value),
                DRIVER_FEATURE => Write::DriverFeature(value),
                QUEUE_DESC => Write::QueueDesc(Part::Low(value)),
                QUEUE_DESC_HIGH => Write::QueueDesc(Part::High(value)),
                QUEUE_DRIVER => Write::QueueDriver(Part::Low(value)),
                QUEUE_DRIVER_HIGH => Write::QueueDriver(Part::High(value)),
                QUEUE_DEVICE => Write::QueueDevice(Part::Low(value)),
                QUEUE_DEVICE_HIGH => Write::QueueDevice(Part::High(value)),
                _ => return None,
            }
        }
        8 => {
            let value = Part::Both(u64::from_le_bytes(data.try_into().ok()?));
            match offset {
                QUEUE_DESC => Write::QueueDesc(value),
                QUEUE_DRIVER => Write::QueueDriver(value),
                QUEUE_DEVICE => Write::QueueDevice(value),
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// 32 bits of a feature set; beyond 64 there are none.
fn feature_window(features: u64, select: u32) -> u32 {
    let bytes = features.to_le_bytes();
    let (low, high) = bytes.split_at(4);
    let window = match select {
        0 => low,
        1 => high,
        _ => return 0,
    };
    window.try_into().map_or(0, u32::from_le_bytes)
}

impl<A: DmaSpace, D: VirtioDevice<A>> VirtioPci<A, D> {
    pub(crate) fn read_common(&mut self, offset: u64, data: &mut [u8]) {
        self.settle();
        let image = self.common();
        crate::function::copy_from(image.as_bytes(), offset, data);
    }

    fn common(&mut self) -> CommonCfg {
        let registers = self.registers;
        let mut common = CommonCfg::new_zeroed();
        common.device_feature_select = registers.device_feature_select.into();
        common.device_feature =
            feature_window(self.offered(), registers.device_feature_select).into();
        common.driver_feature_select = registers.driver_feature_select.into();
        common.driver_feature =
            feature_window(registers.driver_features, registers.driver_feature_select).into();
        common.config_msix_vector = self.signals.config_vector().into();
        common.num_queues = u16::try_from(self.queues.len()).unwrap_or(u16::MAX).into();
        common.device_status = self.signals.status().bits();
        common.config_generation = self.generation.show(self.device.config().generation());
        common.queue_select = registers.queue_select.into();
        // A queue that is not there has size 0, and nothing else either.
        common.queue_msix_vector = NO_VECTOR.into();
        if let Some(slot) = self.queues.get(usize::from(registers.queue_select)) {
            common.queue_size = slot.size.into();
            common.queue_msix_vector = slot.vector.into();
            common.queue_enable = u16::from(slot.enabled).into();
            common.queue_notify_off = registers.queue_select.into();
            common.queue_desc = slot.desc.into();
            common.queue_driver = slot.driver.into();
            common.queue_device = slot.device.into();
            common.queue_reset = u16::from(!self.resetting && slot.is_resetting()).into();
        }
        common
    }

    pub(crate) fn write_common(&mut self, offset: u64, data: &[u8]) {
        self.settle();
        // While a reset is under way there is nothing to write to; another reset changes nothing.
        let Some(write) = decode(offset, data).filter(|_| !self.resetting) else { return };
        match write {
            Write::DeviceFeatureSelect(value) => self.registers.device_feature_select = value,
            Write::DriverFeatureSelect(value) => self.registers.driver_feature_select = value,
            Write::DriverFeature(value) => self.write_driver_feature(value),
            Write::ConfigMsixVector(value) => {
                let vector = self.possible_vector(value);
                self.signals.set_config_vector(vector);
            }
            Write::DeviceStatus(value) => self.write_status(value),
            Write::QueueSelect(value) => self.registers.queue_select = value,
            Write::QueueMsixVector(value) => {
                let vector = self.possible_vector(value);
                if let Some(slot) = self.selected() {
                    slot.set_vector(vector);
                }
            }
            Write::QueueSize(value) => self.change_queue(|slot| slot.set_size(value)),
            Write::QueueDesc(part) => self.change_queue(|slot| slot.desc = part.apply(slot.desc)),
            Write::QueueDriver(part) => {
                self.change_queue(|slot| slot.driver = part.apply(slot.driver));
            }
            Write::QueueDevice(part) => {
                self.change_queue(|slot| slot.device = part.apply(slot.device));
            }
            // Only a reset disables a queue (4.1.4.3.2).
            Write::QueueEnable(1) => self.enable_queue(),
            Write::QueueReset(1) => self.reset_queue(),
            Write::QueueEnable(_) | Write::QueueReset(_) => {}
        }
    }

    fn write_driver_feature(&mut self, value: u32) {
        if self.signals.status().contains(Status::FEATURES_OK) {
            return;
        }
        let features = &mut self.registers.driver_features;
        match self.registers.driver_feature_select {
            0 => *features = Part::Low(value).apply(*features),
            1 => *features = Part::High(value).apply(*features),
            _ => {}
        }
    }

    /// A vector that events can be mapped to, or NO_VECTOR (4.1.5.1.2).
    pub(crate) fn possible_vector(&self, vector: u16) -> u16 {
        if vector < self.layout.msix_vectors { vector } else { NO_VECTOR }
    }

    fn selected(&mut self) -> Option<&mut QueueSlot> {
        self.queues.get_mut(usize::from(self.registers.queue_select))
    }

    /// Changes the selected queue if it may be set up now.
    fn change_queue(&mut self, change: impl FnOnce(&mut QueueSlot)) {
        let started = self.started();
        if let Some(slot) = self.selected()
            && !slot.enabled
            && (!started || slot.reset_since_start)
        {
            change(slot);
        }
    }

    fn enable_queue(&mut self) {
        let mut enabled = false;
        self.change_queue(|slot| {
            slot.enabled = true;
            enabled = true;
        });
        if enabled && self.started() {
            self.start_queue(self.registers.queue_select.into());
        }
    }

    /// A write of 1 to queue_reset (2.6.1).
    fn reset_queue(&mut self) {
        if self.ring_reset()
            && let Some(slot) = self.selected()
            && slot.enabled
        {
            slot.begin_reset();
            self.settle();
        }
    }
}

/// The configuration's generation as the driver sees it: 8 bits that differ from those it read last
/// if anything has changed since, however often (4.1.4.3.1).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Generation {
    pub(crate) seen: u32,
    pub(crate) shown: u8,
}

impl Generation {
    fn show(&mut self, generation: u32) -> u8 {
        if generation != self.seen {
            self.seen = generation;
            self.shown = self.shown.wrapping_add(1);
        }
        self.shown
    }
}
