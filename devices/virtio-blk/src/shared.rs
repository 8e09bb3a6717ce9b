//! What the device, its workers and its owner share.

use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use paraslot_backends::block::BlockBackend;
use paraslot_spec::virtio_blk::{Config, SECTOR_SIZE, feature};
use paraslot_virtio::{DeviceConfig, TransportSignals};

use crate::config::{Limits, sectors};

/// Offset of the only field that the driver can write.
const WRITEBACK: usize = offset_of!(Config, writeback);

pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn BlockBackend>,
    pub(crate) config: Arc<DeviceConfig>,
    pub(crate) limits: Limits,
    /// Bytes.
    capacity: AtomicU64,
    /// The writeback field.
    writeback: AtomicBool,
    signals: OnceLock<Arc<dyn TransportSignals>>,
}

impl Shared {
    pub(crate) fn new(
        backend: Arc<dyn BlockBackend>,
        config: Arc<DeviceConfig>,
        limits: Limits,
        capacity: u64,
    ) -> Self {
        Self {
            backend,
            config,
            capacity: AtomicU64::new(capacity),
            writeback: AtomicBool::new(limits.write_cache),
            limits,
            signals: OnceLock::new(),
        }
    }

    pub(crate) fn attach(&self, signals: Arc<dyn TransportSignals>) {
        // A second transport would be the host's mistake; the first stays.
        let _ = self.signals.set(signals);
    }

    /// Bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }

    /// The writeback field.
    pub(crate) fn writeback(&self) -> bool {
        self.writeback.load(Ordering::Acquire)
    }

    /// Sets the writeback field.
    pub(crate) fn set_writeback(&self, writeback: bool) {
        self.writeback.store(writeback, Ordering::Release);
        self.config.update(|bytes| {
            if let Some(byte) = bytes.get_mut(WRITEBACK) {
                *byte = writeback.into();
            }
        });
    }

    /// What the driver writes to the writeback field, if that is what it writes.
    pub(crate) fn writeback_value(offset: u64, data: &[u8]) -> Option<bool> {
        match (usize::try_from(offset), data) {
            (Ok(WRITEBACK), [0]) => Some(false),
            (Ok(WRITEBACK), [1]) => Some(true),
            _ => None,
        }
    }

    /// Whether a write that is submitted now must be stable when it completes (5.2.6.2), with these
    /// features accepted.
    pub(crate) fn writes_are_stable(&self, features: u64) -> bool {
        if features & feature::CONFIG_WCE != 0 {
            !self.writeback()
        } else {
            features & feature::FLUSH == 0 || !self.limits.write_cache
        }
    }
}

/// The owner's hand on a device that a transport has taken over.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Shared>);

impl Control {
    /// Tells the driver of the backend's capacity, after it has changed (5.2.6.2). Returns it in
    /// bytes.
    ///
    /// Requests that are in flight end as they may: what lies beyond the new end fails.
    pub fn resize(&self) -> u64 {
        let capacity = self.0.backend.info().capacity / SECTOR_SIZE * SECTOR_SIZE;
        self.0.capacity.store(capacity, Ordering::Release);
        let changed = self.0.config.update(|bytes| {
            let field = offset_of!(Config, capacity);
            if let Some(field) = bytes.get_mut(field..field + 8) {
                field.copy_from_slice(&sectors(capacity).to_le_bytes());
            }
        });
        if changed && let Some(signals) = self.0.signals.get() {
            signals.config_changed();
        }
        capacity
    }
}
