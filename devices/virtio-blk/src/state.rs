//! The disk's saved state.

use std::mem::offset_of;

use paraslot_device::state::{Value, read_part, save_part};
use paraslot_device::{DmaSpace, SavedState, StateError, Worker};
use paraslot_spec::virtio_blk::{Config, feature};
use paraslot_virtio::{DeviceConfigState, QueueState, worker_of};
use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use crate::VirtioBlk;
use crate::request::Answer;
use crate::worker::{QueueWorker, Slot};

/// What a [`SavedState`] calls it.
const NAME: &str = "virtio-blk";
/// The newest layout of its state.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceState {
    config: DeviceConfigState,
    writeback: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerState {
    queue: QueueState,
    /// In the order in which the driver is to be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    over: Vec<Over>,
}

/// A request that is over, of which the driver could not be told because bus mastering was off.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Over {
    head: u16,
    /// Guest address of its status byte.
    status_address: u64,
    /// Bytes that the device can write before it.
    room: u64,
    /// Bytes of them that it filled.
    fills: u64,
    status: u8,
}

impl VirtioBlk {
    pub(crate) fn save_device(&self) -> Result<SavedState, StateError> {
        // Destructured, so that a new field is thought of. What was accepted is accepted again.
        let Self { shared, features: _, queue_sizes: _, accepted: _ } = self;
        let state = DeviceState { config: shared.config.save(), writeback: shared.writeback() };
        SavedState::new(NAME, VERSION, &state)
    }

    pub(crate) fn restore_device(&mut self, state: &SavedState) -> Result<(), StateError> {
        let DeviceState { config, writeback } = state.open(NAME, VERSION)?;
        // A driver without CONFIG_WCE has had no part in it.
        if self.accepted & feature::CONFIG_WCE == 0 && writeback != self.shared.writeback() {
            return Err(StateError::impossible("a write cache that this disk has not"));
        }
        let capacity = offset_of!(Config, capacity);
        let writeback_at = offset_of!(Config, writeback);
        self.shared
            .config
            .restore(&config, &[capacity..capacity + 8, writeback_at..writeback_at + 1])?;
        self.shared.set_writeback(writeback);
        // The image may have been resized since.
        self.control().resize();
        Ok(())
    }
}

impl<A: DmaSpace> QueueWorker<A> {
    /// What [`restore`](Self::restore) takes. `worker` is one of this device's that is quiet.
    pub(crate) fn save(worker: &dyn Worker) -> Result<Value, StateError> {
        let worker: &Self = worker_of(worker)?;
        let over = worker.over.iter().filter_map(|head| {
            let slot = worker.slots.get(usize::from(*head))?;
            Some(Over {
                head: *head,
                status_address: slot.answer.status.0,
                room: slot.answer.room,
                fills: slot.fills,
                status: slot.status,
            })
        });
        save_part(&WorkerState { queue: worker.queue.save(), over: over.collect() })
    }

    /// Puts a worker that was just made where another was.
    pub(crate) fn restore(&mut self, state: &Value) -> Result<(), StateError> {
        let WorkerState { queue, over } = read_part(state)?;
        self.over.extend(over.iter().map(|over| over.head));
        self.queue.restore(&queue, &self.over)?;
        for Over { head, status_address, room, fills, status } in over {
            let Some(slot) = self.slots.get_mut(usize::from(head)) else { continue };
            *slot =
                Slot::over(Answer { status: GuestAddress(status_address), room }, fills, status);
        }
        Ok(())
    }
}
