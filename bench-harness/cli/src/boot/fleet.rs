//! The devices of a guest that runs, which come and go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use paraslot_pci::{Bdf, SharedDevice};
use paraslot_vmm::LinuxHandle;

use super::parts::{Parts, SLOTS, name};
use crate::backing::{Drive, open_drive};
use crate::control::{Command, Done, Owned, State, execute};
use crate::spec::{Plugged, Request};

/// The devices, for whoever changes them.
#[derive(Clone)]
pub(super) struct Fleet(Arc<Mutex<Devices>>);

struct Devices {
    /// The machine; `None` when the guest has ended for good.
    machine: Option<LinuxHandle>,
    cpus: u8,
    owned: BTreeMap<u8, Owned>,
}

impl Fleet {
    /// That of a machine without any, with so many processors.
    pub(super) fn new(machine: LinuxHandle, cpus: u8) -> Self {
        let devices = Devices { machine: Some(machine), cpus, owned: BTreeMap::new() };
        Self(Arc::new(Mutex::new(devices)))
    }

    fn lock(&self) -> MutexGuard<'_, Devices> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plugs in what was made.
    ///
    /// # Errors
    /// When the place is taken, or KVM has no room.
    pub(super) fn plug(
        &self,
        bdf: Bdf,
        (function, owned): (SharedDevice, Owned),
    ) -> anyhow::Result<()> {
        self.lock().plug(bdf, function, owned)
    }

    /// Does what somebody asks for.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn execute(&self, command: &Command) -> anyhow::Result<Done> {
        let mut devices = self.lock();
        match command {
            Command::Plug { device } => devices.add(device),
            Command::Unplug { device } => devices.remove(device),
            _ => {
                devices.machine()?;
                execute(command, devices.owned.values())
            }
        }
    }

    /// Nothing changes any more, and the machine is let go of. What the guests did not flush has to be, when
    /// the machine is gone: the drives are returned.
    pub(super) fn close(&self) -> Vec<Arc<Drive>> {
        let mut devices = self.lock();
        devices.machine = None;
        let owned = std::mem::take(&mut devices.owned);
        owned.values().filter_map(|owned| owned.drive().cloned()).collect()
    }
}

impl Devices {
    fn machine(&self) -> anyhow::Result<LinuxHandle> {
        self.machine.clone().context("the guest has ended")
    }

    fn plug(&mut self, bdf: Bdf, function: SharedDevice, owned: Owned) -> anyhow::Result<()> {
        self.machine()?.plug(bdf, function)?;
        self.owned.insert(bdf.device, owned);
        Ok(())
    }

    fn add(&mut self, text: &str) -> anyhow::Result<Done> {
        let machine = self.machine()?;
        let Plugged { slot, request } = text.parse()?;
        if matches!(request, Request::Host(_)) {
            bail!("functions of the host's are plugged in before the guest starts");
        }
        // The first is the host bridge's.
        let mut free = (1..SLOTS).filter(|slot| !self.owned.contains_key(slot));
        let slot = slot.or_else(|| free.next()).context("the bus is full")?;
        if self.owned.contains_key(&slot) {
            bail!("addr={slot:x} is taken");
        }
        let bdf = Bdf::root(slot);
        let drive = open_drive(&request)?;
        let parts = Parts { machine: &machine, cpus: self.cpus };
        let (function, owned) = parts.make(bdf, &request, drive.as_ref())?;
        let state = owned.state();
        self.plug(bdf, function, owned)?;
        Ok(Done { devices: vec![state] })
    }

    fn remove(&mut self, device: &str) -> anyhow::Result<Done> {
        let machine = self.machine()?;
        // Whoever has none of that name is told what there is.
        let named = |slot: &u8| name(Bdf::root(*slot)) == device;
        let Some(slot) = self.owned.keys().copied().find(named) else {
            let unknown = Command::Resize { device: device.into() };
            return execute(&unknown, self.owned.values());
        };
        if self.owned.get(&slot).is_some_and(Owned::is_hosts) {
            bail!("a function of the host's stays until the guest has ended");
        }
        // To drop it ends its workers: nothing is in flight any more.
        let unplugged = machine.unplug(Bdf::root(slot)).map(drop);
        let Some(owned) = self.owned.remove(&slot) else { return Ok(Done::default()) };
        owned.drive().map_or(Ok(()), |drive| drive.flush())?;
        unplugged?;
        let State { name, device, .. } = owned.state();
        // The image is anybody's when this is answered.
        drop(owned);
        Ok(Done { devices: vec![State { name, device, ..State::default() }] })
    }
}
