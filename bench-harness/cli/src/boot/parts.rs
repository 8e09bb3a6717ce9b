//! The devices of a machine that is booted, and what is behind them.

use std::sync::{Arc, Mutex};

use anyhow::bail;
use paraslot_device::{ManualExecutor, ThreadOptions};
use paraslot_pci::{Bdf, SharedDevice};
use paraslot_protocol::Device;
use paraslot_vfio::{Faults, HostAddress, IommuSpace, VfioPci};
use paraslot_vmm::{LinuxHandle, LinuxVm};

use crate::backing::{Drive, network, threads_for};
use crate::control::Owned;
use crate::devices;
use crate::error::Usage;
use crate::spec::{DiskSpec, HOST, NetSpec, Plugged, Request};

/// Places on the bus, the host bridge's included.
pub(super) const SLOTS: u8 = 32;

/// Where each device is: where it was asked for, or the first place that is free.
///
/// # Errors
/// When two are to be in one place, or there are too many.
pub(super) fn places(devices: &[Plugged]) -> anyhow::Result<Vec<Bdf>> {
    let mut taken = [false; SLOTS as usize];
    let [bridge, ..] = &mut taken;
    *bridge = true;
    for slot in devices.iter().filter_map(|device| device.slot) {
        match taken.get_mut(usize::from(slot)) {
            Some(taken) if !*taken => *taken = true,
            _ => return Err(Usage::error(format!("addr={slot:x} is given twice"))),
        }
    }
    let mut free = (0..SLOTS).filter(|slot| !taken[usize::from(*slot)]);
    let place = |device: &Plugged| match device.slot.or_else(|| free.next()) {
        Some(slot) => Ok(Bdf::root(slot)),
        None => Err(Usage::error(format!("a bus has room for {} devices", SLOTS - 1))),
    };
    devices.iter().map(place).collect()
}

/// What devices are made with.
pub(super) struct Parts<'a> {
    /// The machine.
    pub(super) machine: &'a LinuxHandle,
    /// The guest's processors.
    pub(super) cpus: u8,
}

impl Parts<'_> {
    /// Makes a device of ours over what is behind it.
    pub(super) fn make(
        &self,
        bdf: Bdf,
        request: &Request,
        drive: Option<&Arc<Drive>>,
    ) -> anyhow::Result<(SharedDevice, Owned)> {
        let threads = format!("device-{:02x}", bdf.device);
        let host = |queues| -> anyhow::Result<_> {
            Ok(self.machine.host(bdf, threads_for(&threads, queues, ThreadOptions::default())?))
        };
        let (name, device) = (name(bdf), request.name());
        match (request, drive) {
            (Request::Disk(spec), Some(drive)) => {
                let spec = self.queued(spec);
                let made = devices::disk(&spec, drive.backend(), host(spec.queues)?);
                let (function, resize) = made?;
                Ok((
                    Arc::new(Mutex::new(function)),
                    Owned::disk(name, device, drive.clone(), resize),
                ))
            }
            (Request::Disk(_), None) => bail!("a disk without an image"),
            (Request::Net(spec), _) => {
                let (port, limiters) = network(spec)?;
                let (mac, host) = (address(spec, bdf), host(spec.queues)?);
                let (function, cable) = devices::adapter(spec, port, mac, host)?;
                Ok((
                    Arc::new(Mutex::new(function)),
                    Owned::adapter(name, device, limiters, cable.set_link),
                ))
            }
            (Request::Host(_), _) => bail!("a function of the host's is not one of ours"),
        }
    }

    /// The same disk, with a queue for each processor if nothing else was said.
    fn queued(&self, spec: &DiskSpec) -> DiskSpec {
        let usual = match spec.device {
            Device::VirtioBlk | Device::VirtioScsi => Some(u16::from(self.cpus.min(64))),
            _ => None,
        };
        DiskSpec { queues: spec.queues.or(usual), ..spec.clone() }
    }
}

/// What a device is called: its number on the bus, as in `addr=`.
pub(super) fn name(bdf: Bdf) -> String {
    format!("{:x}", bdf.device)
}

/// Functions of the host's that the guest has.
pub(super) struct Passed {
    /// What they access memory in.
    space: Arc<IommuSpace>,
    /// What the kernel refuses each of them.
    faults: Vec<(HostAddress, Faults)>,
}

impl Passed {
    /// None yet.
    pub(super) fn new(vm: &LinuxVm) -> anyhow::Result<Self> {
        let space = IommuSpace::new(Some(vm.vfio()?))?;
        space.map_memory(vm.memory())?;
        Ok(Self { space, faults: Vec::new() })
    }

    /// Has one of them for a place on the bus.
    pub(super) fn make(
        &mut self,
        machine: &LinuxHandle,
        bdf: Bdf,
        address: HostAddress,
    ) -> anyhow::Result<(SharedDevice, Owned)> {
        // The hardware works by itself.
        let host = machine.host(bdf, Arc::new(ManualExecutor::new()));
        let function: VfioPci<_> = VfioPci::open(address, &self.space, host)?;
        self.faults.push((address, function.faults()));
        Ok((Arc::new(Mutex::new(function)), Owned::host(name(bdf), HOST)))
    }

    /// Says what the kernel refused them since they were plugged in.
    pub(super) fn tell_faults(&self) {
        for (address, faults) in &self.faults {
            if let Some(error) = faults.take() {
                let count = faults.count();
                eprintln!(
                    "paraslot: {address}: {error} (the first of {count} that the guest caused)"
                );
            }
        }
    }
}

/// An adapter's address; without one that was given, locally administered and another in each place.
fn address(spec: &NetSpec, bdf: Bdf) -> [u8; 6] {
    spec.mac.unwrap_or([0x52, 0x54, 0, 0, 0, bdf.device])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(specs: &[&str]) -> Vec<Plugged> {
        specs.iter().map(|spec| spec.parse().expect(spec)).collect()
    }

    fn slots(specs: &[&str]) -> Vec<u8> {
        let places = places(&devices(specs)).unwrap();
        places.iter().map(|bdf| bdf.device).collect()
    }

    #[test]
    fn devices_take_the_next_free_place() {
        assert_eq!(slots(&["e1000", "vmxnet3"]), [1, 2]);
        // Whoever says where comes first, whatever the order.
        assert_eq!(slots(&["e1000", "e1000", "e1000,addr=1", "e1000,addr=1f"]), [2, 3, 1, 31]);
        assert_eq!(slots(&[]), [0; 0]);
    }

    #[test]
    fn two_devices_are_not_in_one_place() {
        let twice = places(&devices(&["e1000,addr=a", "vmxnet3,addr=0A"])).unwrap_err();
        assert_eq!(twice.to_string(), "addr=a is given twice");
        assert_eq!(places(&devices(&["e1000"; 31])).unwrap().len(), 31);
        let many = places(&devices(&["e1000"; 32])).unwrap_err();
        assert_eq!(many.to_string(), "a bus has room for 31 devices");
    }

    #[test]
    fn adapters_have_addresses_of_their_own() {
        let mut spec = NetSpec::new(Device::E1000);
        assert_eq!(address(&spec, Bdf::root(3)), [0x52, 0x54, 0, 0, 0, 3]);
        spec.mac = Some([2; 6]);
        assert_eq!(address(&spec, Bdf::root(3)), [2; 6]);
    }
}
