//! Machines with a network adapter on a TAP interface.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::net::testing::namespace::{Interface, Namespace};
use paraslot_backends::net::{NetBackend, NetStatistics, TapBackend, TapOptions};
use paraslot_device::ThreadOptions;
use paraslot_pci::Bdf;
use paraslot_virtio_pci::VirtioPci;
use paraslot_vmm::in_process::{InProcess, Machine, Run};

/// The host's kernel.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 1);
/// The guest.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 2);
/// The guest's hardware address.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

const SLOT: Bdf = Bdf::root(3);
const MEMORY: usize = 64 << 20;

/// Who runs the device's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// The driver, while it waits.
    Stepped,
    /// Threads that sleep at once when they have nothing to do.
    Asleep,
    /// Threads that poll before they sleep.
    Busy,
}

pub(crate) const WORKERS: [Workers; 3] = [Workers::Stepped, Workers::Asleep, Workers::Busy];

/// A machine with an adapter, and the interface that it is on.
pub(crate) struct Host {
    pub(crate) machine: InProcess,
    pub(crate) interface: Interface,
    /// What the device has counted.
    pub(crate) statistics: Box<dyn Fn() -> NetStatistics>,
    /// The same of one of its pairs of queues, if it has several.
    pub(crate) pair: Option<Box<dyn Fn(u16) -> NetStatistics>>,
}

fn machine(workers: Workers) -> InProcess {
    let run = match workers {
        Workers::Stepped => Run::Stepped(None),
        Workers::Asleep => {
            let threads = ThreadOptions { busy_poll: Duration::ZERO, ..ThreadOptions::default() };
            Run::Threads(threads)
        }
        Workers::Busy => Run::Threads(ThreadOptions { threads: 2, ..ThreadOptions::default() }),
    };
    InProcess::new(&Machine::new(MEMORY, run)).unwrap()
}

fn interface(namespace: &Namespace, queues: u16) -> (Arc<dyn NetBackend>, Interface) {
    let options = TapOptions { queues, ..TapOptions::default() };
    let backend = TapBackend::open(&options).unwrap();
    let interface = namespace.set_up(backend.name(), HOST);
    (Arc::new(backend), interface)
}

/// With virtio-net, of so many pairs of queues.
pub(crate) fn virtio_net(namespace: &Namespace, workers: Workers, queue_pairs: u16) -> Host {
    let machine = machine(workers);
    let (backend, interface) = interface(namespace, queue_pairs);
    let options = paraslot_virtio_net::Options { mac: MAC, queue_pairs, ..Default::default() };
    let device = paraslot_virtio_net::VirtioNet::new(backend, &options).unwrap();
    let (control, pairs) = (device.control(), device.control());
    machine.plug(SLOT, VirtioPci::new(device, machine.host(SLOT)).unwrap()).unwrap();
    let pair = move |pair| pairs.queue_statistics(pair).unwrap();
    Host {
        machine,
        interface,
        statistics: Box::new(move || control.statistics()),
        pair: Some(Box::new(pair)),
    }
}

/// With vmxnet3, of so many receive queues.
pub(crate) fn vmxnet3(namespace: &Namespace, workers: Workers, queues: u16) -> Host {
    let machine = machine(workers);
    let (backend, interface) = interface(namespace, queues);
    let options = paraslot_vmxnet3::Options { queues, ..paraslot_vmxnet3::Options::new(MAC) };
    let device = paraslot_vmxnet3::Vmxnet3::new(backend, options, machine.host(SLOT)).unwrap();
    let control = device.control();
    machine.plug(SLOT, device).unwrap();
    Host { machine, interface, statistics: Box::new(move || control.statistics()), pair: None }
}

/// With an 82540EM.
pub(crate) fn e1000(namespace: &Namespace, workers: Workers) -> Host {
    let machine = machine(workers);
    let (backend, interface) = interface(namespace, 1);
    let options = paraslot_e1000::Options::new(MAC);
    let device = paraslot_e1000::E1000::new(backend, options, machine.host(SLOT)).unwrap();
    let control = device.control();
    machine.plug(SLOT, device).unwrap();
    Host { machine, interface, statistics: Box::new(move || control.statistics()), pair: None }
}
