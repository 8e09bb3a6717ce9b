//! The adapter's saved state: what there is of it besides that of the queues' workers.

mod driver;

use paraslot_device::state::{Value, read_part, save_part};
use paraslot_device::{DmaSpace, SavedState, StateError, Worker};
use paraslot_spec::virtio_net::{feature, status};
use paraslot_virtio::{DeviceConfigState, Queue, QueueState, worker_of};
use serde::{Deserialize, Serialize};

use crate::VirtioNet;
use crate::control::ControlWorker;
use crate::features::{Role, role};
use crate::filter::Mac;
use crate::receive::ReceiveWorker;
use crate::shared::{MAC, STATUS, Shared};
use crate::state::State;
use crate::transmit::TransmitWorker;
use driver::DriverState;

/// What a [`SavedState`] calls it.
const NAME: &str = "virtio-net";
/// The newest layout of its state.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceState {
    config: DeviceConfigState,
    /// The address that it was built with.
    mac: Address,
    /// Whether the link is up.
    link: bool,
    /// Queues that have been started since the last reset, in rising order.
    started: Vec<u16>,
    driver: DriverState,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransmitState {
    pub(crate) queue: QueueState,
    /// Frames that were sent and of which the driver was not told, because of coalescing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) held: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlState {
    pub(crate) queue: QueueState,
}

/// In hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Address(#[serde(with = "hex")] Mac);

pub(crate) fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn no_queue(index: u16) -> StateError {
    StateError::impossible(format!("virtio-net has no queue {index}"))
}

impl VirtioNet {
    pub(crate) fn save_device(&self) -> Result<SavedState, StateError> {
        // Destructured, so that a new field is thought of. What was accepted is accepted again.
        let Self { shared, queue_sizes: _, accepted: _, started } = self;
        let started = (0..).zip(started).filter(|(_, started)| **started);
        let now = shared.state();
        let state = DeviceState {
            config: shared.config.save(),
            mac: Address(shared.limits.mac),
            link: now.link,
            started: started.map(|(index, _)| index).collect(),
            driver: DriverState::new(&now),
        };
        SavedState::new(NAME, VERSION, &state)
    }

    pub(crate) fn restore_device(&mut self, state: &SavedState) -> Result<(), StateError> {
        let DeviceState { config, mac, link, started, driver } = state.open(NAME, VERSION)?;
        let pairs = self.shared.limits.pairs;
        if mac.0 != self.shared.limits.mac {
            return Err(StateError::impossible("the state of an adapter with another address"));
        }
        if !started.is_sorted_by(|one, next| one < next) {
            return Err(StateError::impossible("queues started in no order"));
        }
        for index in started {
            let there = role(index, self.accepted, pairs).is_some();
            let slot = self.started.get_mut(usize::from(index)).filter(|_| there);
            *slot.ok_or_else(|| no_queue(index))? = true;
        }
        self.shared.restore(&config, link, &driver)
    }

    /// The state of a queue's worker that is quiet.
    pub(crate) fn save_worker<A: DmaSpace>(
        &self,
        index: u16,
        worker: &dyn Worker,
    ) -> Result<Value, StateError> {
        match role(index, self.accepted, self.shared.limits.pairs) {
            Some(Role::Receive(_)) => save_part(&worker_of::<ReceiveWorker<A>>(worker)?.save()),
            Some(Role::Transmit(_)) => save_part(&worker_of::<TransmitWorker<A>>(worker)?.save()),
            Some(Role::Control) => save_part(&worker_of::<ControlWorker<A>>(worker)?.save()),
            None => Err(no_queue(index)),
        }
    }

    /// A worker for a queue where another was: without what a queue that is started begins with.
    pub(crate) fn restore_worker<A: DmaSpace>(
        &mut self,
        index: u16,
        queue: Queue<A>,
        state: &Value,
    ) -> Result<Box<dyn Worker>, StateError> {
        let shared = self.shared.clone();
        let role =
            role(index, self.accepted, shared.limits.pairs).ok_or_else(|| no_queue(index))?;
        if self.started.get(usize::from(index)) != Some(&true) {
            return Err(StateError::impossible(format!(
                "queue {index} runs and was never started"
            )));
        }
        let port = || shared.port(index).cloned().ok_or_else(|| no_queue(index));
        Ok(match role {
            Role::Receive(pair) => {
                let port = port()?;
                let mut worker = ReceiveWorker::new(shared, port, pair, queue, false)?;
                worker.restore(&read_part(state)?)?;
                Box::new(worker)
            }
            Role::Transmit(pair) => {
                let port = port()?;
                let mut worker = TransmitWorker::new(shared, port, pair, queue)?;
                worker.restore(&read_part(state)?)?;
                Box::new(worker)
            }
            Role::Control => {
                let mut worker = ControlWorker::new(shared, queue);
                worker.restore(&read_part(state)?)?;
                Box::new(worker)
            }
        })
    }
}

impl Shared {
    /// Takes over what a driver has set up. No queue runs.
    fn restore(
        &self,
        config: &DeviceConfigState,
        link: bool,
        driver: &DriverState,
    ) -> Result<(), StateError> {
        let mut state = self.change();
        let mut next = State::new(state.features, &self.limits, link);
        driver.restore(&mut next, &self.limits)?;
        self.check_config(config, &next)?;
        self.config.restore(config, &[MAC..MAC + 6, STATUS..STATUS + 2])?;
        *state = next;
        // What the backend refuses does no harm: see `start_over`.
        let _ = self.backend.set_receive_offloads(state.offloads);
        let _ = self.backend.set_queues(state.backend_pairs());
        Ok(())
    }

    /// Whether address and status are those that a driver is shown that has set `state` up.
    fn check_config(&self, config: &DeviceConfigState, state: &State) -> Result<(), StateError> {
        let field = |at, len| config.bytes().get(at..at + len).unwrap_or_default();
        let offers = |feature| self.limits.offered & feature != 0;
        let accepted = |feature| state.features & feature != 0;
        let mac = match state.filter.mac {
            Some(mac) if accepted(feature::MAC) => mac,
            _ if offers(feature::MAC) => self.limits.mac,
            _ => Mac::default(),
        };
        if field(MAC, 6) != mac {
            return Err(StateError::impossible(
                "the driver is shown an address that is not its own",
            ));
        }
        let link = if offers(feature::STATUS) && state.link { status::LINK_UP } else { 0 };
        let either = if accepted(feature::GUEST_ANNOUNCE) { status::ANNOUNCE } else { 0 };
        match field(STATUS, 2).first_chunk() {
            Some(status) if u16::from_le_bytes(*status) & !either == link => Ok(()),
            _ => Err(StateError::impossible("a status that the driver cannot be shown")),
        }
    }
}
