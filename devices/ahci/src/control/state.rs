//! The ports and what is at them, saved.

use std::sync::Arc;

use paraslot_device::{DmaSpace, Progress, Runner, StateError, Worker};
use serde::{Deserialize, Serialize};

use super::{Slot, Slots, State};
use crate::disk::DiskState;
use crate::hba::lock;
use crate::packet::{PacketDevice, PacketState};
use crate::port::{Port, PortRegisters};
use crate::worker::{Attached, CommandState, DiskDevice, PortWorker};

/// A port.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortState {
    pub(crate) registers: PortRegisters,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceState>,
    /// Those that the host has not been told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    commands: Vec<CommandState>,
}

/// A device.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DeviceState {
    Disk(DiskState),
    Packet(PacketState),
}

impl PortState {
    fn taken(&self) -> u32 {
        self.commands.iter().fold(0, |taken, command| taken | command.bit())
    }
}

/// A worker that is parked.
enum Parked<'a, A: DmaSpace> {
    Disk(&'a mut PortWorker<A, DiskDevice>),
    Packet(&'a mut PortWorker<A, PacketDevice>),
}

/// The worker of a port that has a device.
fn parked<'a, A: DmaSpace>(slot: &'a mut Slot, port: &Port) -> Option<Parked<'a, A>> {
    let runner: &mut Runner = slot.runner.as_mut().filter(|_| port.lock().attached())?;
    // Asked first, since the borrow of an answer lasts.
    if runner.parked::<PortWorker<A, DiskDevice>>().is_some() {
        return runner.parked().map(Parked::Disk);
    }
    runner.parked().map(Parked::Packet)
}

impl Slots {
    /// The ports' states.
    ///
    /// # Errors
    /// When the workers run, or one could not come to rest.
    pub(crate) fn save<A: DmaSpace>(&self) -> Result<Vec<PortState>, StateError> {
        let mut state = lock(&self.state);
        if !state.paused {
            return Err(StateError::NotPaused);
        }
        let ports = state.slots.iter_mut().zip(&self.hba.ports);
        let save = |(slot, port): (&mut Slot, &Arc<Port>)| {
            let (device, commands) = match parked::<A>(slot, port) {
                None => (None, Vec::new()),
                Some(Parked::Disk(worker)) => {
                    let (device, commands) = worker.save()?;
                    (Some(DeviceState::Disk(device)), commands)
                }
                Some(Parked::Packet(worker)) => {
                    let (device, commands) = worker.save()?;
                    (Some(DeviceState::Packet(device)), commands)
                }
            };
            Ok(PortState { registers: port.lock().save(), device, commands })
        };
        ports.map(save).collect()
    }

    /// Whether the workers are parked.
    pub(crate) fn are_paused(&self) -> bool {
        lock(&self.state).paused
    }

    /// Has the workers do what a reset has them do, with nothing in flight.
    ///
    /// # Errors
    /// When the workers run.
    pub(crate) fn reset_parked<A: DmaSpace>(&self) -> Result<(), StateError> {
        fn rest(worker: &mut impl Worker) {
            // What is overtaken is forgotten in the first round.
            let _: Progress = worker.quiesce();
        }
        let mut state = lock(&self.state);
        if !state.paused {
            return Err(StateError::NotPaused);
        }
        for (slot, port) in state.slots.iter_mut().zip(&self.hba.ports) {
            match parked::<A>(slot, port) {
                None => {}
                Some(Parked::Disk(worker)) => rest(worker),
                Some(Parked::Packet(worker)) => rest(worker),
            }
        }
        Ok(())
    }

    /// Whether [`restore`](Self::restore) would take these.
    pub(crate) fn check<A: DmaSpace>(&self, saved: &[PortState]) -> Result<(), StateError> {
        self.check_locked::<A>(&mut lock(&self.state), saved)
    }

    fn check_locked<A: DmaSpace>(
        &self,
        state: &mut State,
        saved: &[PortState],
    ) -> Result<(), StateError> {
        if saved.len() != state.slots.len() {
            return Err(StateError::impossible(format!("{} ports", saved.len())));
        }
        for ((slot, port), saved) in state.slots.iter_mut().zip(&self.hba.ports).zip(saved) {
            let PortState { registers, device, commands } = saved;
            let signature = match (parked::<A>(slot, port), device) {
                (None, None) => None,
                (Some(Parked::Disk(worker)), Some(DeviceState::Disk(device))) => {
                    worker.check(device, commands)?;
                    Some(DiskDevice::PXSIG)
                }
                (Some(Parked::Packet(worker)), Some(DeviceState::Packet(device))) => {
                    worker.check(device, commands)?;
                    Some(PacketDevice::PXSIG)
                }
                _ => return Err(StateError::impossible("a port with another device")),
            };
            registers.check(signature, saved.taken())?;
        }
        Ok(())
    }

    /// Takes over what was checked, after a reset.
    ///
    /// # Errors
    /// When the owner has plugged something since.
    pub(crate) fn restore<A: DmaSpace>(&self, saved: Vec<PortState>) -> Result<(), StateError> {
        let mut state = lock(&self.state);
        self.check_locked::<A>(&mut state, &saved)?;
        for ((slot, port), saved) in state.slots.iter_mut().zip(&self.hba.ports).zip(saved) {
            let taken = saved.taken();
            let PortState { registers, device, commands } = saved;
            if let (Some((image, told)), Some(DeviceState::Disk(disk))) = (&mut slot.image, &device)
            {
                // What the guest knows, unless that is all there is but for half a sector.
                let (now, known) = (image.info().capacity, disk.capacity());
                *told = if (known..known.saturating_add(disk.sector())).contains(&now) {
                    now
                } else {
                    known
                };
            }
            let epoch = {
                let mut port = port.lock();
                port.restore(&registers, taken);
                port.epoch
            };
            let overtaken = registers.draining();
            match (parked::<A>(slot, port), device) {
                (Some(Parked::Disk(worker)), Some(DeviceState::Disk(device))) => {
                    worker.restore(device, commands, epoch, overtaken)?;
                }
                (Some(Parked::Packet(worker)), Some(DeviceState::Packet(device))) => {
                    worker.restore(device, commands, epoch, overtaken)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
