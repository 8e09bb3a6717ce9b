//! What functions are made of, so that the same one can be made for whatever memory its host has.

use std::sync::Arc;

use paraslot_ahci::Ahci;
use paraslot_backends::net::NetBackend;
use paraslot_device::{DeviceError, DmaSpace, Host};
use paraslot_e1000::E1000;
use paraslot_pci::{Bdf, PciDevice};
use paraslot_pvscsi::Pvscsi;
use paraslot_scsi::Bus;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_net::VirtioNet;
use paraslot_virtio_pci::VirtioPci;
use paraslot_virtio_scsi::VirtioScsi;
use paraslot_vmm::in_process::InProcess;
use paraslot_vmxnet3::Vmxnet3;

/// All that a function takes but its host.
pub trait Part {
    /// What its owner keeps of it.
    type Control;

    /// Makes the function.
    ///
    /// # Errors
    /// Those of the function's constructor.
    fn make<A: DmaSpace>(
        self,
        host: Host<A>,
    ) -> Result<(impl PciDevice + 'static, Self::Control), DeviceError>;
}

impl Part for VirtioBlk {
    type Control = paraslot_virtio_blk::Control;

    fn make<A: DmaSpace>(
        self,
        host: Host<A>,
    ) -> Result<(impl PciDevice + 'static, Self::Control), DeviceError> {
        let control = self.control();
        Ok((VirtioPci::new(self, host)?, control))
    }
}

impl Part for VirtioScsi {
    type Control = paraslot_virtio_scsi::Control;

    fn make<A: DmaSpace>(
        self,
        host: Host<A>,
    ) -> Result<(impl PciDevice + 'static, Self::Control), DeviceError> {
        let control = self.control();
        Ok((VirtioPci::new(self, host)?, control))
    }
}

impl Part for VirtioNet {
    type Control = paraslot_virtio_net::Control;

    fn make<A: DmaSpace>(
        self,
        host: Host<A>,
    ) -> Result<(impl PciDevice + 'static, Self::Control), DeviceError> {
        let control = self.control();
        Ok((VirtioPci::new(self, host)?, control))
    }
}

impl Part for (Bus, paraslot_pvscsi::Options) {
    type Control = paraslot_pvscsi::Control;

    fn make<A: DmaSpace>(
        self,
        host: Host<A>,
    ) -> Result<(impl PciDevice + 'static, Self::Control), DeviceError> {
        let device = Pvscsi::new(self.0, self.1, host)?;
        let control = device.control();
        Ok((device, control))
    }
}

impl Part for paraslot_ahci::Options {
    type Control = paraslot_ahci::Control;

    fn make<A: DmaSpace>(
        self,
        host: Host<A>,
    ) -> Result<(impl PciDevice + 'static, Self::Control), DeviceError> {
        let device = Ahci::new(self, host)?;
        let control = device.control();
        Ok((device, control))
    }
}

impl Part for (Arc<dyn NetBackend>, paraslot_e1000::Options) {
    type Control = paraslot_e1000::Control;

    fn make<A: DmaSpace>(
        self,
        host: Host<A>,
    ) -> Result<(impl PciDevice + 'static, Self::Control), DeviceError> {
        let device = E1000::new(self.0, self.1, host)?;
        let control = device.control();
        Ok((device, control))
    }
}

impl Part for (Arc<dyn NetBackend>, paraslot_vmxnet3::Options) {
    type Control = paraslot_vmxnet3::Control;

    fn make<A: DmaSpace>(
        self,
        host: Host<A>,
    ) -> Result<(impl PciDevice + 'static, Self::Control), DeviceError> {
        let device = Vmxnet3::new(self.0, self.1, host)?;
        let control = device.control();
        Ok((device, control))
    }
}

/// Makes a function in the machine's own process, and plugs it in.
///
/// # Panics
/// When it cannot be made, or its place is taken.
pub fn plug<P: Part>(machine: &InProcess, slot: Bdf, part: P) -> P::Control {
    let (device, control) = part.make(machine.host(slot)).expect("a function");
    machine.plug(slot, device).expect("a free place");
    control
}
