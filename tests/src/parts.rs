//! What functions are made of, so that the same one can be made for whatever memory its host has.

use std::sync::Arc;

use paraslot_ahci::Ahci;
use paraslot_backends::block::BlockBackend;
use paraslot_backends::net::{NetBackend, NetStatistics};
use paraslot_device::{Clock, DeviceError, DmaSpace, Host};
use paraslot_e1000::E1000;
use paraslot_pci::{Bdf, PciDevice};
use paraslot_protocol::Device;
use paraslot_pvscsi::Pvscsi;
use paraslot_scsi::Bus;
use paraslot_vfio_user::ClientSpace;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_net::VirtioNet;
use paraslot_virtio_pci::VirtioPci;
use paraslot_virtio_scsi::VirtioScsi;
use paraslot_vmm::in_process::{GuestRam, InProcess};
use paraslot_vmxnet3::Vmxnet3;

use crate::scsi::one_disk;

/// A function, and what its owner keeps of it.
pub type Made<C> = Result<(Box<dyn PciDevice>, C), DeviceError>;

/// All that a function takes but its host.
pub trait Part {
    /// What its owner keeps of it.
    type Control;

    /// Makes the function.
    ///
    /// # Errors
    /// Those of the function's constructor.
    fn make<A: DmaSpace>(self, host: Host<A>) -> Made<Self::Control>;

    /// The same for a machine in this process: compiled with this crate, and not with each test.
    ///
    /// # Errors
    /// Likewise.
    fn make_here(self, host: Host<GuestRam>) -> Made<Self::Control>;

    /// The same behind a server.
    ///
    /// # Errors
    /// Likewise.
    fn make_served(self, host: Host<ClientSpace>) -> Made<Self::Control>;
}

/// Makes a `Part` of what a device's constructor takes. The last argument gives control and function.
macro_rules! part {
    ($part:ty, $control:ty, |$this:ident, $host:ident| $make:expr) => {
        impl Part for $part {
            type Control = $control;

            fn make<A: DmaSpace>(self, $host: Host<A>) -> Made<$control> {
                let $this = self;
                let (control, function) = $make;
                Ok((Box::new(function), control))
            }

            fn make_here(self, host: Host<GuestRam>) -> Made<$control> {
                self.make(host)
            }

            fn make_served(self, host: Host<ClientSpace>) -> Made<$control> {
                self.make(host)
            }
        }
    };
}

part!(VirtioBlk, paraslot_virtio_blk::Control, |disk, host| {
    (disk.control(), VirtioPci::new(disk, host)?)
});
part!(VirtioScsi, paraslot_virtio_scsi::Control, |adapter, host| {
    (adapter.control(), VirtioPci::new(adapter, host)?)
});
part!(VirtioNet, paraslot_virtio_net::Control, |adapter, host| {
    (adapter.control(), VirtioPci::new(adapter, host)?)
});
part!((Bus, paraslot_pvscsi::Options), paraslot_pvscsi::Control, |part, host| {
    let adapter = Pvscsi::new(part.0, part.1, host)?;
    (adapter.control(), adapter)
});
part!(paraslot_ahci::Options, paraslot_ahci::Control, |options, host| {
    let adapter = Ahci::new(options, host)?;
    (adapter.control(), adapter)
});
part!((Arc<dyn NetBackend>, paraslot_e1000::Options), paraslot_e1000::Control, |part, host| {
    let adapter = E1000::new(part.0, part.1, host)?;
    (adapter.control(), adapter)
});
part!((Arc<dyn NetBackend>, paraslot_vmxnet3::Options), paraslot_vmxnet3::Control, |part, host| {
    let adapter = Vmxnet3::new(part.0, part.1, host)?;
    (adapter.control(), adapter)
});

fn made<P: Part, A: DmaSpace>(part: P, host: Host<A>) -> (Box<dyn PciDevice>, P::Control) {
    part.make(host).expect("a function")
}

/// The disk that `device` names, with the options that it has by itself.
///
/// # Panics
/// When it is none, or cannot be made.
pub fn disk<A: DmaSpace>(
    device: Device,
    backend: Arc<dyn BlockBackend>,
    host: Host<A>,
) -> Box<dyn PciDevice> {
    match device {
        Device::VirtioBlk => {
            made(VirtioBlk::new(backend, &Default::default()).expect("a disk"), host).0
        }
        Device::VirtioScsi => {
            let adapter = VirtioScsi::new(one_disk(backend), &Default::default());
            made(adapter.expect("an adapter"), host).0
        }
        Device::Pvscsi => made((one_disk(backend), paraslot_pvscsi::Options::default()), host).0,
        Device::Ahci => {
            made(paraslot_ahci::Options::new([paraslot_ahci::DiskOptions::new(backend)]), host).0
        }
        other => panic!("{other} is no disk"),
    }
}

/// Tells what has become of an adapter's frames.
pub type Statistics = Box<dyn Fn() -> NetStatistics>;

/// The network adapter that `device` names, with the address `mac`.
///
/// # Panics
/// When it is none, or cannot be made.
pub fn network<A: DmaSpace>(
    device: Device,
    backend: Arc<dyn NetBackend>,
    mac: [u8; 6],
    clock: Arc<dyn Clock>,
    host: Host<A>,
) -> (Box<dyn PciDevice>, Statistics) {
    match device {
        Device::VirtioNet => {
            let options = paraslot_virtio_net::Options { mac, clock, ..Default::default() };
            let adapter = VirtioNet::new(backend, &options).expect("an adapter");
            let (function, control) = made(adapter, host);
            (function, Box::new(move || control.statistics()))
        }
        Device::Vmxnet3 => {
            let options =
                paraslot_vmxnet3::Options { clock, ..paraslot_vmxnet3::Options::new(mac) };
            let (function, control) = made((backend, options), host);
            (function, Box::new(move || control.statistics()))
        }
        Device::E1000 => {
            let options = paraslot_e1000::Options { clock, ..paraslot_e1000::Options::new(mac) };
            let (function, control) = made((backend, options), host);
            (function, Box::new(move || control.statistics()))
        }
        other => panic!("{other} is no network adapter"),
    }
}

/// Makes a function in the machine's own process, and plugs it in.
///
/// # Panics
/// When it cannot be made, or its place is taken.
pub fn plug<P: Part>(machine: &InProcess, slot: Bdf, part: P) -> P::Control {
    let (device, control) = part.make_here(machine.host(slot)).expect("a function");
    machine.plug(slot, device).expect("a free place");
    control
}
