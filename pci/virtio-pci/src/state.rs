//! The transport's saved state.

use paraslot_device::state::Value;
use paraslot_device::{DmaSpace, SavedState, StateError};
use paraslot_pci::ConfigState;
use paraslot_spec::virtio::Status;
use paraslot_spec::virtio::pci::{ISR_CONFIG, ISR_QUEUE};
use paraslot_virtio::VirtioDevice;
use serde::{Deserialize, Serialize};

use crate::VirtioPci;
use crate::common::Generation;
use crate::queues::QueueSlot;
use crate::transport::Registers;

/// What a [`SavedState`] calls it.
const NAME: &str = "virtio-pci";
/// The newest layout of its state.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransportState {
    config: ConfigState,
    signals: SignalsState,
    registers: RegistersState,
    generation: GenerationState,
    queues: Vec<QueueSlotState>,
    device: SavedState,
}

/// The device status, the ISR status, and configuration changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalsState {
    pub(crate) status: u8,
    pub(crate) isr: u8,
    pub(crate) config_vector: u16,
    /// The driver is to be told of a change as soon as the function is resumed.
    pub(crate) config_change: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistersState {
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerationState {
    seen: u32,
    shown: u8,
}

/// A queue's registers, and where it is if it runs.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueSlotState {
    size: u16,
    desc: u64,
    driver: u64,
    device: u64,
    vector: u16,
    enabled: bool,
    reset_since_start: bool,
    /// Of a queue that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<Value>,
}

impl<A: DmaSpace, D: VirtioDevice<A>> VirtioPci<A, D> {
    pub(crate) fn save_function(&mut self) -> Result<SavedState, StateError> {
        self.settle();
        if !self.paused || self.resetting || self.queues.iter().any(QueueSlot::is_resetting) {
            return Err(StateError::NotPaused);
        }
        let queues = (0_u16..).zip(&self.queues).map(|(index, slot)| self.save_slot(index, slot));
        let Registers {
            device_feature_select,
            driver_feature_select,
            driver_features,
            queue_select,
        } = self.registers;
        let Generation { seen, shown } = self.generation;
        let state = TransportState {
            config: self.config.save(),
            signals: self.signals.save(),
            registers: RegistersState {
                device_feature_select,
                driver_feature_select,
                driver_features,
                queue_select,
            },
            generation: GenerationState { seen, shown },
            queues: queues.collect::<Result<_, _>>()?,
            device: self.device.save()?,
        };
        SavedState::new(NAME, VERSION, &state)
    }

    fn save_slot(&self, index: u16, slot: &QueueSlot) -> Result<QueueSlotState, StateError> {
        let worker = slot.held();
        Ok(QueueSlotState {
            size: slot.size,
            desc: slot.desc,
            driver: slot.driver,
            device: slot.device,
            vector: slot.vector,
            enabled: slot.enabled,
            reset_since_start: slot.reset_since_start,
            queue: worker.map(|worker| self.device.save_queue(index, worker)).transpose()?,
        })
    }

    pub(crate) fn restore_function(&mut self, state: &SavedState) -> Result<(), StateError> {
        if !self.paused {
            return Err(StateError::NotPaused);
        }
        self.host_reset();
        let restored = self.try_restore(state);
        if restored.is_err() {
            self.host_reset();
        }
        restored
    }

    fn try_restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        let TransportState { config, signals, registers, generation, queues, device } =
            state.open(NAME, VERSION)?;
        let status = self.check_signals(&signals)?;
        self.config.restore(&config)?;
        self.registers = Registers {
            device_feature_select: registers.device_feature_select,
            driver_feature_select: registers.driver_feature_select,
            driver_features: registers.driver_features,
            queue_select: registers.queue_select,
        };
        if status.contains(Status::FEATURES_OK) && !self.negotiate() {
            return Err(StateError::impossible("features that this device does not offer"));
        }
        self.signals.restore(&signals);
        self.device.restore(&device)?;
        self.generation = Generation { seen: generation.seen, shown: generation.shown };
        if queues.len() != self.queues.len() {
            return Err(StateError::impossible(format!("{} virtio queues", queues.len())));
        }
        for (index, queue) in queues.iter().enumerate() {
            self.restore_slot(index, queue, status)?;
        }
        self.signals.sync_intx();
        Ok(())
    }

    /// The device status, if a driver can have brought the signals about.
    fn check_signals(&self, signals: &SignalsState) -> Result<Status, StateError> {
        let SignalsState { status, isr, config_vector, config_change: _ } = *signals;
        let impossible = || StateError::impossible(format!("device status {status:#x}"));
        let status = Status::from_bits(status).ok_or_else(impossible)?;
        let needs = |bit: Status, what: Status| !status.contains(bit) || status.contains(what);
        if !needs(Status::FEATURES_OK, Status::ACKNOWLEDGE | Status::DRIVER)
            || !needs(Status::DRIVER_OK, Status::FEATURES_OK)
        {
            return Err(impossible());
        }
        if isr & !(ISR_QUEUE | ISR_CONFIG) != 0 {
            return Err(StateError::impossible(format!("ISR status {isr:#x}")));
        }
        self.check_vector(config_vector)?;
        Ok(status)
    }

    fn check_vector(&self, vector: u16) -> Result<(), StateError> {
        if vector == self.possible_vector(vector) {
            return Ok(());
        }
        Err(StateError::impossible(format!("MSI-X vector {vector}")))
    }

    fn restore_slot(
        &mut self,
        index: usize,
        state: &QueueSlotState,
        status: Status,
    ) -> Result<(), StateError> {
        let QueueSlotState {
            size,
            desc,
            driver,
            device,
            vector,
            enabled,
            reset_since_start,
            ref queue,
        } = *state;
        let started = status.contains(Status::DRIVER_OK);
        let impossible = |what| Err(StateError::impossible(format!("virtio queue {index} {what}")));
        self.check_vector(vector)?;
        let ring_reset = self.ring_reset();
        let Some(slot) = self.queues.get_mut(index) else { return Ok(()) };
        slot.set_size(size);
        if slot.size != size {
            return impossible("has a size that it cannot have");
        }
        if reset_since_start && !(started && ring_reset) {
            return impossible("was reset, and could not be");
        }
        slot.desc = desc;
        slot.driver = driver;
        slot.device = device;
        slot.vector = vector;
        slot.enabled = enabled;
        slot.reset_since_start = reset_since_start;
        match queue {
            Some(_) if !(enabled && started) => impossible("runs and is not enabled"),
            // What could not be started has broken the device.
            None if enabled && started && !status.contains(Status::DEVICE_NEEDS_RESET) => {
                impossible("is enabled and does not run")
            }
            Some(state) => self.restore_queue(index, state),
            None => Ok(()),
        }
    }

    fn restore_queue(&mut self, index: usize, state: &Value) -> Result<(), StateError> {
        let Some((number, queue, interrupt)) = self.make_queue(index)? else { return Ok(()) };
        let worker = self.device.restore_queue(number, queue, state)?;
        if let Some(slot) = self.queues.get_mut(index) {
            slot.hold(worker, interrupt);
        }
        Ok(())
    }
}
