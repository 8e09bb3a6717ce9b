//! The adapter's saved state: what there is of it besides that of the queues' workers.

use paraslot_device::state::{Value, read_part, save_part};
use paraslot_device::{DmaSpace, SavedState, StateError, Worker};
use paraslot_scsi::BusState;
use paraslot_spec::virtio_scsi::{CONTROL_QUEUE, EVENT_QUEUE};
use paraslot_virtio::{DeviceConfigState, Queue, worker_of};
use serde::{Deserialize, Serialize};

use crate::VirtioScsi;
use crate::control::ControlWorker;
use crate::eventq::EventWorker;
use crate::events::EventsState;
use crate::worker::RequestWorker;

/// What a [`SavedState`] calls it.
const NAME: &str = "virtio-scsi";
/// The newest layout of its state.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceState {
    config: DeviceConfigState,
    events: EventsState,
    bus: BusState,
}

impl VirtioScsi {
    pub(crate) fn save_device(&self) -> Result<SavedState, StateError> {
        // Destructured, so that a new field is thought of. The sizes are in the configuration.
        let Self { shared, features: _, queue_sizes: _ } = self;
        let state = DeviceState {
            config: shared.config.save(),
            events: shared.events.save(),
            bus: shared.bus.save(),
        };
        SavedState::new(NAME, VERSION, &state)
    }

    pub(crate) fn restore_device(&mut self, state: &SavedState) -> Result<(), StateError> {
        let DeviceState { config, events, bus } = state.open(NAME, VERSION)?;
        self.shared.restore_config(&config)?;
        self.shared.events.restore(&events, self.shared.bus.limits())?;
        // From here on others see something of it, and there may be more events.
        self.shared.bus.restore(&bus)
    }

    /// The state of a queue's worker that is quiet.
    pub(crate) fn save_worker<A: DmaSpace>(
        index: u16,
        worker: &dyn Worker,
    ) -> Result<Value, StateError> {
        match index {
            CONTROL_QUEUE => save_part(&worker_of::<ControlWorker<A>>(worker)?.save()),
            EVENT_QUEUE => save_part(&worker_of::<EventWorker<A>>(worker)?.save()),
            _ => save_part(&worker_of::<RequestWorker<A>>(worker)?.save()?),
        }
    }

    /// A worker for a queue where another was.
    pub(crate) fn restore_worker<A: DmaSpace>(
        &mut self,
        index: u16,
        queue: Queue<A>,
        state: &Value,
    ) -> Result<Box<dyn Worker>, StateError> {
        Ok(match index {
            CONTROL_QUEUE => {
                let mut worker = self.control_worker(queue)?;
                worker.restore(&read_part(state)?)?;
                Box::new(worker)
            }
            EVENT_QUEUE => {
                let mut worker = self.event_worker(queue);
                worker.restore(&read_part(state)?)?;
                Box::new(worker)
            }
            _ => {
                let mut worker = self.request_worker(index, queue)?;
                worker.restore(&read_part(state)?)?;
                Box::new(worker)
            }
        })
    }
}
