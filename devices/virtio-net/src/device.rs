//! The device as its transport sees it.

use std::sync::Arc;

use paraslot_backends::net::NetBackend;
use paraslot_device::state::Value;
use paraslot_device::{DeviceError, DmaSpace, SavedState, StateError, Worker};
use paraslot_spec::virtio::device_type;
use paraslot_virtio::{DeviceConfig, Queue, TransportSignals, VirtioDevice};
use zerocopy::IntoBytes;

use crate::config::Options;
use crate::control::ControlWorker;
use crate::features::{self, Role, role};
use crate::receive::ReceiveWorker;
use crate::shared::{Control, Shared};
use crate::transmit::TransmitWorker;

/// A virtio network device.
pub struct VirtioNet {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue_sizes: Box<[u16]>,
    pub(crate) accepted: u64,
    /// Queues that have been started since the last reset.
    pub(crate) started: Box<[bool]>,
}

impl VirtioNet {
    /// A device for `backend`.
    ///
    /// # Errors
    /// What is wrong with the options, and what to choose instead, in one line; or that the host has
    /// no more descriptors.
    pub fn new(backend: Arc<dyn NetBackend>, options: &Options) -> Result<Self, DeviceError> {
        let (_, config, limits) = options.resolve(&backend.info())?;
        let queues = 2 * usize::from(limits.pairs) + 1;
        let config = Arc::new(DeviceConfig::new(config.as_bytes()));
        let shared = Shared::new(backend, config, limits, options.link_up)?;
        Ok(Self {
            shared: Arc::new(shared),
            queue_sizes: vec![options.queue_size; queues].into(),
            accepted: 0,
            started: vec![false; queues].into(),
        })
    }

    /// What the owner keeps when a transport takes the device over.
    pub fn control(&self) -> Control {
        Control(self.shared.clone())
    }
}

impl<A: DmaSpace> VirtioDevice<A> for VirtioNet {
    fn device_type(&self) -> u16 {
        device_type::NET
    }

    fn features(&self) -> u64 {
        self.shared.limits.offered
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config(&self) -> &Arc<DeviceConfig> {
        &self.shared.config
    }

    /// All fields are read-only for the driver (5.1.4).
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn attach(&mut self, signals: Arc<dyn TransportSignals>) {
        self.shared.attach(signals);
    }

    /// Sets in which a feature lacks one that it needs (5.1.3.1) are refused.
    fn accept_features(&mut self, features: u64) -> bool {
        let offered = self.shared.limits.offered;
        if features & !(offered | TRANSPORT) != 0 || features::broken(features) != 0 {
            return false;
        }
        self.accepted = features;
        self.shared.start_over(features);
        true
    }

    fn start_queue(&mut self, index: u16, queue: Queue<A>) -> Result<Box<dyn Worker>, DeviceError> {
        let shared = self.shared.clone();
        let none = || DeviceError::Config(format!("virtio-net: there is no queue {index}"));
        let role = role(index, self.accepted, shared.limits.pairs).ok_or_else(none)?;
        let started = self.started.get_mut(usize::from(index)).ok_or_else(none)?;
        let restarted = std::mem::replace(started, true);
        shared.coalesce_anew(index);
        if role == Role::Control {
            return Ok(Box::new(ControlWorker::new(shared, queue)));
        }
        let port = shared.port(index).ok_or_else(none)?.clone();
        Ok(match role {
            Role::Receive(pair) => {
                Box::new(ReceiveWorker::new(shared, port, pair, queue, restarted)?)
            }
            Role::Transmit(pair) => Box::new(TransmitWorker::new(shared, port, pair, queue)?),
            Role::Control => return Err(none()),
        })
    }

    fn reset(&mut self) {
        // Destructured, so that a new field is thought of.
        let Self { shared, queue_sizes: _, accepted, started } = self;
        *accepted = 0;
        started.fill(false);
        shared.start_over(0);
    }

    fn save(&self) -> Result<SavedState, StateError> {
        self.save_device()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.restore_device(state)
    }

    fn save_queue(&self, index: u16, worker: &dyn Worker) -> Result<Value, StateError> {
        self.save_worker::<A>(index, worker)
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
