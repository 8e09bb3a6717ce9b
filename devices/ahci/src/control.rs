//! The ports' workers, and the owner's hand on what is at the ports.

mod state;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paraslot_backends::block::BlockBackend;
use paraslot_device::{DeviceError, Dma, DmaSpace, Executor, Runner, Worker};

use crate::hba::{Hba, lock};
use crate::options::PortDevice;
use crate::packet::PacketDevice;
use crate::port::Port;
use crate::worker::{DiskDevice, PortWorker};
pub(crate) use state::PortState;

/// How long a reset and an unplugged device wait for commands in flight; what is late is kept silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the function and its owner share.
///
/// Its lock is taken before any port's.
pub(crate) struct Slots {
    hba: Arc<Hba>,
    executor: Arc<dyn Executor>,
    make: Box<Make>,
    state: Mutex<State>,
}

/// Makes the worker of a port.
type Make = dyn Fn(usize, PortDevice) -> Result<Box<dyn Worker>, DeviceError> + Send + Sync;

struct State {
    slots: Vec<Slot>,
    paused: bool,
    /// The function is there.
    open: bool,
}

impl State {
    fn runners(&mut self) -> impl Iterator<Item = &mut Runner> {
        self.slots.iter_mut().filter_map(|slot| slot.runner.as_mut())
    }
}

/// One port's worker. Without a device it is there as long as it has anything in flight.
#[derive(Default)]
struct Slot {
    runner: Option<Runner>,
    /// The disk's image, and its capacity as the guest was last told of it.
    image: Option<(Arc<dyn BlockBackend>, u64)>,
}

impl Slots {
    /// Empty ports.
    pub(crate) fn new<A: DmaSpace>(
        hba: Arc<Hba>,
        dma: Dma<A>,
        executor: Arc<dyn Executor>,
    ) -> Arc<Self> {
        let slots = hba.ports.iter().map(|_| Slot::default()).collect();
        let of = hba.clone();
        let make = move |index: usize, device| -> Result<Box<dyn Worker>, DeviceError> {
            let port = of.ports.get(index).ok_or_else(|| no_port(index))?.clone();
            let (irq, dma) = (of.irq.clone(), dma.clone());
            Ok(match device {
                PortDevice::Disk(disk) => {
                    Box::new(PortWorker::new(port, irq, dma, DiskDevice::new(disk)?))
                }
                PortDevice::Packet(drive) => {
                    let drive = PacketDevice::new(drive, &name(index))?;
                    Box::new(PortWorker::new(port, irq, dma, drive))
                }
            })
        };
        let state = Mutex::new(State { slots, paused: false, open: true });
        Arc::new(Self { hba, executor, make: Box::new(make), state })
    }

    /// Puts a device to a port without one, and starts its worker.
    pub(crate) fn attach(&self, index: usize, device: PortDevice) -> Result<(), DeviceError> {
        device.check().map_err(|what| DeviceError::Config(format!("port {index}: {what}")))?;
        let mut state = lock(&self.state);
        let State { slots, paused, open } = &mut *state;
        let slot = slots.get_mut(index).ok_or_else(|| no_port(index))?;
        let port = self.hba.ports.get(index).ok_or_else(|| no_port(index))?;
        if !*open {
            return Err(DeviceError::Config("the HBA is gone".into()));
        }
        if port.lock().attached() {
            return Err(DeviceError::Config(format!("port {index} has a device")));
        }
        self.clear(slot, port)?;
        let image = match &device {
            PortDevice::Disk(disk) => Some((disk.backend.clone(), disk.backend.info().capacity)),
            PortDevice::Packet(_) => None,
        };
        let worker = (self.make)(index, device)?;
        let mut runner = Runner::idle(name(index), self.executor.clone(), worker);
        if !*paused {
            runner.start()?;
        }
        *slot = Slot { runner: Some(runner), image };
        port.plug(&self.hba.irq);
        Ok(())
    }

    /// Takes the device at a port away, if there is one.
    fn detach(&self, index: usize) -> Result<(), DeviceError> {
        let mut state = lock(&self.state);
        let slot = state.slots.get_mut(index).ok_or_else(|| no_port(index))?;
        let port = self.hba.ports.get(index).ok_or_else(|| no_port(index))?;
        port.unplug(&self.hba.irq);
        self.clear(slot, port)
    }

    /// Has a guest look again at a disk whose capacity has changed; returns what it is now.
    fn resize(&self, index: usize) -> Option<u64> {
        let mut state = lock(&self.state);
        let (image, told) = state.slots.get_mut(index)?.image.as_mut()?;
        let capacity = image.info().capacity;
        if std::mem::replace(told, capacity) != capacity {
            let port = self.hba.ports.get(index)?;
            port.unplug(&self.hba.irq);
            port.plug(&self.hba.irq);
        }
        Some(capacity)
    }

    /// Waits for what the worker of a device that is gone has in flight, and drops it.
    fn clear(&self, slot: &mut Slot, port: &Port) -> Result<(), DeviceError> {
        slot.image = None;
        if let Some(runner) = &mut slot.runner {
            runner.stop();
            if !runner.park(PATIENCE) {
                return Err(DeviceError::Busy(PATIENCE));
            }
            slot.runner = None;
            port.forget(&self.hba.irq);
        }
        Ok(())
    }

    /// Waits until no command is in flight, for a bounded time. Those that a reset has overtaken
    /// are silent whether or not they have come back by then.
    pub(crate) fn drain(&self) {
        let mut state = lock(&self.state);
        let State { slots, paused, .. } = &mut *state;
        let busy = slots.iter_mut().zip(&self.hba.ports).filter(|(_, port)| port.lock().taken != 0);
        let mut busy: Vec<_> =
            busy.filter_map(|(slot, port)| Some((slot.runner.as_mut()?, port))).collect();
        busy.iter_mut().for_each(|(runner, _)| runner.stop());
        let deadline = Instant::now() + PATIENCE;
        for (runner, port) in busy {
            runner.park(deadline.saturating_duration_since(Instant::now()));
            if !*paused && port.lock().attached() {
                // It can fail only for want of host resources; the port is silent then.
                let _ = runner.proceed();
            }
        }
    }

    /// Has all workers stop, with nothing in flight.
    pub(crate) fn pause(&self, limit: Duration) -> Result<(), DeviceError> {
        let mut state = lock(&self.state);
        Runner::pause_all(state.runners(), limit)?;
        state.paused = true;
        Ok(())
    }

    /// Has all workers go on.
    pub(crate) fn resume(&self) -> Result<(), DeviceError> {
        let mut state = lock(&self.state);
        state.paused = false;
        state.runners().try_for_each(Runner::start)
    }

    /// The function goes: its workers stay with their executor until nothing of theirs is in flight.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.open = false;
        state.slots.iter_mut().for_each(|slot| *slot = Slot::default());
    }
}

/// The owner's hand on an [`Ahci`](crate::Ahci) that a host has taken over. Clones are for the same HBA;
/// they may outlive it, and then plug nothing in.
///
/// Ports are hot plug capable (PxCMD.HPCP), and a driver learns of a device that comes or goes as it does of a
/// real one: by PxSSTS, and by PxIS.PCS and PRCS, the interrupts of PxSERR.DIAG.X and N. Linux's detaches a
/// device that is gone, and probes one that has come.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Slots>);

impl Control {
    /// Plugs a device into a port, from 0. Waits up to two seconds for what the one before has in flight.
    ///
    /// # Errors
    /// When there is no such port or it has a device, the device's options cannot be served, the backend
    /// cannot be opened, the one before still has something in flight, or the worker cannot be started.
    pub fn attach(&self, port: usize, device: impl Into<PortDevice>) -> Result<(), DeviceError> {
        self.0.attach(port, device.into())
    }

    /// Unplugs the device at a port. The link goes down at once, and commands that it has never complete.
    /// Waits up to two seconds for what is in flight at the backend, and then lets go of it. Without effect
    /// if there is no device.
    ///
    /// # Errors
    /// When there is no such port; or [`Busy`](DeviceError::Busy): the device is unplugged, but its
    /// backend still has something in flight. To detach once more waits once more.
    pub fn detach(&self, port: usize) -> Result<(), DeviceError> {
        self.0.detach(port)
    }

    /// The capacity of the disk at a port has changed: has the driver look at it. Returns it in bytes;
    /// `None` if there is no disk.
    ///
    /// A SATA disk has no way to say so. A driver learns of it when it identifies the disk after a reset, and
    /// without this call that is at its next one, when the guest starts again, say. This call has it happen
    /// now, if there is anything new, by a short loss of the link: commands in flight are lost, and Linux,
    /// which takes a disk of another size for another disk, detaches the one and attaches the other. What was
    /// mounted is lost with it. A medium that a guest uses is better grown on a paravirtual device.
    pub fn resize(&self, port: usize) -> Option<u64> {
        self.0.resize(port)
    }
}

fn name(port: usize) -> String {
    format!("ahci-{port}")
}

fn no_port(port: usize) -> DeviceError {
    DeviceError::Config(format!("there is no port {port}"))
}
