//! The device as its transport sees it.

use std::sync::Arc;

use paraslot_device::state::Value;
use paraslot_device::{DeviceError, DmaSpace, SavedState, StateError, Worker};
use paraslot_scsi::Bus;
use paraslot_spec::virtio::device_type;
use paraslot_spec::virtio_scsi::{CONTROL_QUEUE, EVENT_QUEUE};
use paraslot_virtio::{DeviceConfig, Queue, TransportSignals, VirtioDevice};
use zerocopy::IntoBytes;

use crate::config::Options;
use crate::control::ControlWorker;
use crate::eventq::EventWorker;
use crate::events::Events;
use crate::shared::{Control, Shared};
use crate::worker::RequestWorker;

/// A virtio SCSI host adapter.
pub struct VirtioScsi {
    pub(crate) shared: Arc<Shared>,
    pub(crate) features: u64,
    pub(crate) queue_sizes: Box<[u16]>,
}

impl VirtioScsi {
    /// An adapter to the units of `bus`, of which it becomes the listener.
    ///
    /// # Errors
    /// What is wrong with the options, and what to choose instead, in one line; or that the host has
    /// no more descriptors.
    pub fn new(bus: Bus, options: &Options) -> Result<Self, DeviceError> {
        let (features, config) = options.resolve(bus.limits())?;
        let config = Arc::new(DeviceConfig::new(config.as_bytes()));
        let events = Arc::new(Events::new().map_err(DeviceError::Worker)?);
        bus.listen(Some(events.clone()));
        let shared = Arc::new(Shared::new(bus, config, events));
        Ok(Self { shared, features, queue_sizes: options.queue_sizes() })
    }

    /// What the owner keeps when a transport takes the device over.
    pub fn control(&self) -> Control {
        Control(self.shared.clone())
    }

    pub(crate) fn control_worker<A: DmaSpace>(
        &self,
        queue: Queue<A>,
    ) -> Result<ControlWorker<A>, DeviceError> {
        ControlWorker::new(self.shared.clone(), queue)
    }

    pub(crate) fn event_worker<A: DmaSpace>(&self, queue: Queue<A>) -> EventWorker<A> {
        EventWorker::new(self.shared.events.clone(), queue)
    }

    pub(crate) fn request_worker<A: DmaSpace>(
        &self,
        index: u16,
        queue: Queue<A>,
    ) -> Result<RequestWorker<A>, DeviceError> {
        if usize::from(index) >= self.queue_sizes.len() {
            return Err(DeviceError::Config(format!("virtio-scsi: there is no queue {index}")));
        }
        let depth = queue.size().into();
        let lane = self.shared.bus.open_lane(depth).map_err(DeviceError::Backend)?;
        Ok(RequestWorker::new(queue, lane, self.shared.clone()))
    }
}

impl<A: DmaSpace> VirtioDevice<A> for VirtioScsi {
    fn device_type(&self) -> u16 {
        device_type::SCSI
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config(&self) -> &Arc<DeviceConfig> {
        &self.shared.config
    }

    /// The driver can write sense_size, up to [`MAX_SENSE_SIZE`](crate::MAX_SENSE_SIZE), and cdb_size,
    /// up to [`MAX_CDB_SIZE`](crate::MAX_CDB_SIZE), each as a whole (4.1.3.1). They hold for requests
    /// that are taken afterwards.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.shared.write_config(offset, data);
    }

    /// Nothing in the configuration changes but by the driver's doing: what happens to units is told
    /// through the event queue.
    fn attach(&mut self, _signals: Arc<dyn TransportSignals>) {}

    fn accept_features(&mut self, features: u64) -> bool {
        if features & !(self.features | TRANSPORT) != 0 {
            return false;
        }
        self.shared.start_over(features);
        true
    }

    fn start_queue(&mut self, index: u16, queue: Queue<A>) -> Result<Box<dyn Worker>, DeviceError> {
        Ok(match index {
            CONTROL_QUEUE => Box::new(self.control_worker(queue)?),
            EVENT_QUEUE => Box::new(self.event_worker(queue)),
            _ => Box::new(self.request_worker(index, queue)?),
        })
    }

    /// The units are reset too: what the driver reserved or set up in them is gone, and each tells it
    /// so by a unit attention.
    fn reset(&mut self) {
        // Destructured, so that a new field is thought of.
        let Self { shared, features: _, queue_sizes: _ } = self;
        shared.start_over(0);
        shared.reset_sizes();
        shared.bus.power_on();
    }

    fn save(&self) -> Result<SavedState, StateError> {
        self.save_device()
    }

    /// The bus is restored, too, after a power on.
    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.restore_device(state)
    }

    fn save_queue(&self, index: u16, worker: &dyn Worker) -> Result<Value, StateError> {
        Self::save_worker::<A>(index, worker)
    }

    fn restore_queue(
        &mut self,
        index: u16,
        queue: Queue<A>,
        state: &Value,
    ) -> Result<Box<dyn Worker>, StateError> {
        self.restore_worker(index, queue, state)
    }
}

/// Feature bits that are not a device's own (6): 24 to 49.
const TRANSPORT: u64 = ((1 << 50) - 1) & !((1 << 24) - 1);
