//! The device as its transport sees it.

use std::sync::Arc;

use paraslot_backends::block::BlockBackend;
use paraslot_device::state::Value;
use paraslot_device::{DeviceError, DmaSpace, SavedState, StateError, Worker};
use paraslot_spec::virtio::device_type;
use paraslot_spec::virtio_blk::feature;
use paraslot_virtio::{DeviceConfig, Queue, TransportSignals, VirtioDevice};
use zerocopy::IntoBytes;

use crate::config::Options;
use crate::shared::{Control, Shared};
use crate::worker::QueueWorker;

/// A virtio block device.
pub struct VirtioBlk {
    pub(crate) shared: Arc<Shared>,
    pub(crate) features: u64,
    pub(crate) queue_sizes: Box<[u16]>,
    pub(crate) accepted: u64,
}

impl VirtioBlk {
    /// A device for `backend`.
    ///
    /// # Errors
    /// What is wrong with the options, and what to choose instead, in one line.
    pub fn new(backend: Arc<dyn BlockBackend>, options: &Options) -> Result<Self, DeviceError> {
        let info = backend.info();
        let (features, config, limits) = options.resolve(&info)?;
        let config = Arc::new(DeviceConfig::new(config.as_bytes()));
        let shared = Arc::new(Shared::new(backend, config, limits, info.capacity));
        let queue_sizes = vec![options.queue_size; options.queues.into()].into();
        Ok(Self { shared, features, queue_sizes, accepted: 0 })
    }

    /// What the owner keeps when a transport takes the device over.
    pub fn control(&self) -> Control {
        Control(self.shared.clone())
    }

    fn worker<A: DmaSpace>(
        &self,
        index: u16,
        queue: Queue<A>,
    ) -> Result<QueueWorker<A>, DeviceError> {
        if usize::from(index) >= self.queue_sizes.len() {
            return Err(DeviceError::Config(format!("virtio-blk: there is no queue {index}")));
        }
        let backend =
            self.shared.backend.open_queue(queue.size().into()).map_err(DeviceError::Backend)?;
        Ok(QueueWorker::new(queue, backend, self.shared.clone(), self.accepted))
    }
}

impl<A: DmaSpace> VirtioDevice<A> for VirtioBlk {
    fn device_type(&self) -> u16 {
        device_type::BLOCK
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

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if self.accepted & feature::CONFIG_WCE != 0
            && let Some(writeback) = Shared::writeback_value(offset, data)
        {
            self.shared.set_writeback(writeback);
        }
    }

    fn attach(&mut self, signals: Arc<dyn TransportSignals>) {
        self.shared.attach(signals);
    }

    fn accept_features(&mut self, features: u64) -> bool {
        if features & !(self.features | RESERVED) != 0 {
            return false;
        }
        self.accepted = features;
        // A driver that can turn the cache on but not flush it gets it turned off (5.2.5.2).
        let flush = features & (feature::CONFIG_WCE | feature::FLUSH) != feature::CONFIG_WCE;
        self.shared.set_writeback(self.shared.limits.write_cache && flush);
        true
    }

    fn start_queue(&mut self, index: u16, queue: Queue<A>) -> Result<Box<dyn Worker>, DeviceError> {
        Ok(Box::new(self.worker(index, queue)?))
    }

    fn reset(&mut self) {
        // Destructured, so that a new field is thought of.
        let Self { shared, features: _, queue_sizes: _, accepted } = self;
        *accepted = 0;
        shared.set_writeback(shared.limits.write_cache);
    }

    fn save(&self) -> Result<SavedState, StateError> {
        self.save_device()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.restore_device(state)
    }

    fn save_queue(&self, _index: u16, worker: &dyn Worker) -> Result<Value, StateError> {
        QueueWorker::<A>::save(worker)
    }

    fn restore_queue(
        &mut self,
        index: u16,
        queue: Queue<A>,
        state: &Value,
    ) -> Result<Box<dyn Worker>, StateError> {
        let mut worker = self.worker(index, queue)?;
        worker.restore(state)?;
        Ok(Box::new(worker))
    }
}

/// Feature bits that are not a device's own (6): 24 to 49.
const RESERVED: u64 = ((1 << 50) - 1) & !((1 << 24) - 1);
