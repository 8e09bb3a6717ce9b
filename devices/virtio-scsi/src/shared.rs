//! What the device, its workers and its owner share.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use paraslot_device::StateError;
use paraslot_scsi::Bus;
use paraslot_spec::virtio_scsi::{Config, DEFAULT_CDB_SIZE, DEFAULT_SENSE_SIZE};
use paraslot_virtio::{DeviceConfig, DeviceConfigState};

use crate::config::{MAX_CDB_SIZE, MAX_SENSE_SIZE};
use crate::events::Events;

const SENSE_SIZE: usize = offset_of!(Config, sense_size);
const CDB_SIZE: usize = offset_of!(Config, cdb_size);

/// A size that the driver sets, and its place in the configuration.
struct Size {
    value: AtomicU32,
    place: usize,
    default: u32,
    most: u32,
}

impl Size {
    fn new(place: usize, default: u32, most: u32) -> Self {
        Self { value: AtomicU32::new(default), place, default, most }
    }

    /// What the driver writes, if it writes just this field, and what can be.
    fn written(&self, offset: u64, data: &[u8]) -> Option<u32> {
        let here = usize::try_from(offset) == Ok(self.place);
        let value = u32::from_le_bytes(data.try_into().ok()?);
        (here && value <= self.most).then_some(value)
    }

    /// What a saved configuration has.
    fn saved(&self, config: &[u8]) -> Option<u32> {
        let field = config.get(self.place..)?.first_chunk()?;
        let value = u32::from_le_bytes(*field);
        (value <= self.most).then_some(value)
    }

    fn set(&self, value: u32, config: &DeviceConfig) {
        self.value.store(value, Ordering::Release);
        config.update(|bytes| {
            if let Some(field) = bytes.get_mut(self.place..).and_then(<[u8]>::first_chunk_mut) {
                *field = value.to_le_bytes();
            }
        });
    }
}

pub(crate) struct Shared {
    pub(crate) bus: Bus,
    pub(crate) config: Arc<DeviceConfig>,
    pub(crate) events: Arc<Events>,
    sense_size: Size,
    cdb_size: Size,
}

impl Shared {
    pub(crate) fn new(bus: Bus, config: Arc<DeviceConfig>, events: Arc<Events>) -> Self {
        Self {
            bus,
            config,
            events,
            sense_size: Size::new(SENSE_SIZE, DEFAULT_SENSE_SIZE, MAX_SENSE_SIZE),
            cdb_size: Size::new(CDB_SIZE, DEFAULT_CDB_SIZE, MAX_CDB_SIZE),
        }
    }

    /// Bytes of sense data in a response, at most [`MAX_SENSE_SIZE`].
    pub(crate) fn sense_size(&self) -> u32 {
        self.sense_size.value.load(Ordering::Acquire)
    }

    /// Bytes of CDB in a request, at most [`MAX_CDB_SIZE`].
    pub(crate) fn cdb_size(&self) -> u32 {
        self.cdb_size.value.load(Ordering::Acquire)
    }

    /// The driver writes to the configuration.
    pub(crate) fn write_config(&self, offset: u64, data: &[u8]) {
        for size in [&self.sense_size, &self.cdb_size] {
            if let Some(value) = size.written(offset, data) {
                size.set(value, &self.config);
            }
        }
    }

    /// Takes over the sizes of a saved configuration, and the rest of it if it is this device's.
    pub(crate) fn restore_config(&self, config: &DeviceConfigState) -> Result<(), StateError> {
        let sizes = [&self.sense_size, &self.cdb_size];
        let values = sizes.map(|size| size.saved(config.bytes()));
        let [Some(sense), Some(cdb)] = values else {
            return Err(StateError::impossible("a sense_size or cdb_size that cannot be set"));
        };
        let field = |place: usize| place..place + size_of::<u32>();
        self.config.restore(config, &sizes.map(|size| field(size.place)))?;
        self.sense_size.set(sense, &self.config);
        self.cdb_size.set(cdb, &self.config);
        Ok(())
    }

    /// What the driver had set up is forgotten, and `features` are accepted.
    pub(crate) fn start_over(&self, features: u64) {
        self.events.start_over(features);
    }

    /// The sizes are as after a reset.
    pub(crate) fn reset_sizes(&self) {
        for size in [&self.sense_size, &self.cdb_size] {
            size.set(size.default, &self.config);
        }
    }
}

/// The owner's hand on a device that a transport has taken over.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Shared>);

impl Control {
    /// The bus whose units the device shows. To [`attach`](Bus::attach) or [`detach`](Bus::detach) one while
    /// the device is in use is to plug it in or out, of which a driver that has accepted HOTPLUG is told. With
    /// CHANGE it is told of a disk whose capacity has changed ([`Bus::resize`]). Linux's accepts both, and acts
    /// by itself.
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// Events that the driver is still to be told of, since it has given the device no buffers for
    /// them. At most [`MAX_EVENTS`](crate::MAX_EVENTS): it is told that it has missed the rest.
    pub fn pending_events(&self) -> usize {
        self.0.events.pending()
    }
}
