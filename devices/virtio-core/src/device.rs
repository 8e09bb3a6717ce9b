//! What a virtio device looks like to its transport.

use std::any::Any;
use std::sync::Arc;

use paraslot_device::state::Value;
use paraslot_device::{DeviceError, DmaSpace, SavedState, StateError, Worker};

use crate::{DeviceConfig, Queue};

/// What a device, or one of its queues, tells its transport.
pub trait TransportSignals: Send + Sync {
    /// The device configuration has changed by the device's doing: notify the driver (2.5).
    fn config_changed(&self);
    /// Something has happened that only a reset cures: set DEVICE_NEEDS_RESET and, after DRIVER_OK,
    /// send a configuration change notification (2.1.2).
    fn needs_reset(&self);
}

/// A virtio device.
///
/// Its transport calls it with exclusive access, in this order: `attach` once; then, any number of
/// times, `accept_features`, `start_queue` for each enabled queue when DRIVER_OK is set (or later,
/// for a queue that was reset and is enabled again), and `reset`. Workers that `start_queue` made
/// have been stopped and dropped before `reset`, and before the same queue is started again.
pub trait VirtioDevice<A: DmaSpace>: Send {
    /// The type number (5).
    fn device_type(&self) -> u16;

    /// The features that this device offers, its own and the reserved ones that its queues serve
    /// (EVENT_IDX, INDIRECT_DESC). The transport adds its own (VERSION_1, RING_RESET). Fixed.
    fn features(&self) -> u64;

    /// Largest size of each queue, a power of two; its length is the number of queues. Fixed.
    fn queue_sizes(&self) -> &[u16];

    /// The device configuration as the driver reads it.
    fn config(&self) -> &Arc<DeviceConfig>;

    /// The driver writes to the device configuration. Writes to fields that are not writable, and
    /// writes of any shape that the device does not know, are ignored.
    fn write_config(&mut self, offset: u64, data: &[u8]);

    /// The way to tell the transport of changes. Called once, before anything else.
    fn attach(&mut self, signals: Arc<dyn TransportSignals>);

    /// The driver has chosen `features`, a subset of what was offered, and set FEATURES_OK. Returns
    /// whether the device can work with that; the bit stays clear if not.
    fn accept_features(&mut self, features: u64) -> bool;

    /// Makes the worker for a queue that the driver has enabled.
    ///
    /// # Errors
    /// When the backend cannot be opened; the transport then sets DEVICE_NEEDS_RESET.
    fn start_queue(&mut self, index: u16, queue: Queue<A>) -> Result<Box<dyn Worker>, DeviceError>;

    /// Forgets what the driver has negotiated and set up.
    fn reset(&mut self);

    /// What the device knows beyond its transport and its queues. While no worker runs.
    ///
    /// # Errors
    /// When the device cannot be saved, which is so for one that does not implement this.
    fn save(&self) -> Result<SavedState, StateError> {
        Err(StateError::Unsupported("this virtio device"))
    }

    /// Takes a saved state over: after `reset` and, if the driver had got that far, `accept_features`,
    /// and before any queue. A configuration that is not what it was is told to the driver as a change.
    ///
    /// # Errors
    /// When the state is not this device's, or not possible. The transport resets the device then.
    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        let _ = state;
        Err(StateError::Unsupported("this virtio device"))
    }

    /// The state of queue `index`, whose worker is `worker` (see [`worker_of`]), made by this device and quiet.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    fn save_queue(&self, index: u16, worker: &dyn Worker) -> Result<Value, StateError> {
        let _ = (index, worker);
        Err(StateError::Unsupported("this virtio device"))
    }

    /// Makes the worker for a queue that goes on where another was.
    ///
    /// # Errors
    /// When the state is not possible, or as [`start_queue`](Self::start_queue).
    fn restore_queue(
        &mut self,
        index: u16,
        queue: Queue<A>,
        state: &Value,
    ) -> Result<Box<dyn Worker>, StateError> {
        let _ = (index, queue, state);
        Err(StateError::Unsupported("this virtio device"))
    }
}

/// A worker as what its device made it.
///
/// # Errors
/// When it is another device's.
pub fn worker_of<W: Worker>(worker: &dyn Worker) -> Result<&W, StateError> {
    let worker: &dyn Any = worker;
    worker.downcast_ref().ok_or(StateError::Unsupported("another device's worker"))
}
