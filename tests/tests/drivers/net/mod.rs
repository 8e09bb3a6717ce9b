//! virtio-net, and what both adapters do alike.

mod control;
mod counts;
mod frames;
mod hostile;
pub(crate) mod jobs;
mod pairs;

use std::sync::Arc;

use crate::place::plug;
use paraslot_backends::net::NetBackend;
use paraslot_drivers::virtio_net::{Options, VirtioNet};
use paraslot_drivers::{DmaRegion, Error, Known, Nic, Platform};
use paraslot_pci::Bdf;
use paraslot_protocol::traffic::Flow;
use paraslot_spec::virtio::feature;
use paraslot_spec::virtio_net::feature as net;
pub(crate) use paraslot_tests::traffic::{finished, unfinished};
use paraslot_virtio_net::{Control, Options as DeviceOptions, VirtioNet as Device};
use paraslot_vmm::in_process::{InProcess, Machine};

/// Where the adapter is plugged in.
const SLOT: Bdf = Bdf::root(6);
pub(crate) const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x31];
/// Another station's.
pub(crate) const OTHER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];
/// Nanoseconds that a test waits before it fails.
const PATIENCE: u64 = 30_000_000_000;

type Driver<'p> = VirtioNet<'p, InProcess>;

fn plugged_with(
    machine: &Machine,
    backend: Arc<dyn NetBackend>,
    options: DeviceOptions,
) -> (InProcess, Control) {
    let machine = InProcess::new(machine).unwrap();
    let options = DeviceOptions { mac: MAC, clock: machine.clock(), ..options };
    let control = plug(&machine, SLOT, Device::new(backend, &options).unwrap());
    (machine, control)
}

/// A device with as many pairs of queues as its backend.
fn plugged(machine: &Machine, backend: impl NetBackend + 'static) -> (InProcess, Control) {
    let queue_pairs = backend.info().queues;
    let options = DeviceOptions { queue_pairs, ..DeviceOptions::default() };
    plugged_with(machine, Arc::new(backend), options)
}

/// A machine with the network adapter that `device` names, where the disks are elsewhere.
pub(crate) fn adapter(
    device: paraslot_protocol::Device,
    machine: &Machine,
    backend: Arc<dyn NetBackend>,
) -> InProcess {
    use paraslot_protocol::Device::{E1000, VirtioNet, Vmxnet3};
    let slot = crate::machine::SLOT;
    let platform = InProcess::new(machine).unwrap();
    let clock = platform.clock();
    match device {
        VirtioNet => {
            let options = DeviceOptions { mac: MAC, clock, ..DeviceOptions::default() };
            plug(&platform, slot, Device::new(backend, &options).unwrap());
        }
        E1000 => {
            let options = paraslot_e1000::Options { clock, ..paraslot_e1000::Options::new(MAC) };
            plug(&platform, slot, (backend, options));
        }
        Vmxnet3 => {
            let options =
                paraslot_vmxnet3::Options { clock, ..paraslot_vmxnet3::Options::new(MAC) };
            plug(&platform, slot, (backend, options));
        }
        other => panic!("{other} is no network adapter"),
    }
    platform
}

fn driver(platform: &InProcess, options: Options) -> Driver<'_> {
    VirtioNet::new(platform, options).unwrap()
}

/// Ways to negotiate, by name.
const ACCEPTED: [(&str, u64); 8] = [
    ("all", Options::ALL_FEATURES),
    ("usual", Options::USUAL_FEATURES),
    ("no EVENT_IDX", Options::USUAL_FEATURES & !feature::EVENT_IDX),
    ("no merging", Options::USUAL_FEATURES & !net::MRG_RXBUF),
    ("no offloads", Options::USUAL_FEATURES & !Options::OFFLOADS),
    ("neither", Options::USUAL_FEATURES & !Options::OFFLOADS & !net::MRG_RXBUF),
    ("checksums alone", net::CSUM | net::GUEST_CSUM | net::MAC),
    ("nothing", net::MAC),
];

pub(crate) fn wait_until(platform: &InProcess, mut done: impl FnMut() -> bool) {
    let start = platform.tsc();
    while !done() {
        assert!(platform.tsc() - start < PATIENCE, "nothing happens");
        platform.relax();
    }
}

/// A frame that has arrived: its bytes, what is known of its checksum, the pieces it came in.
type Arrived = (Vec<u8>, Known, usize);

/// All frames that have arrived at a pair of queues.
fn received(nic: &mut Driver<'_>, pair: u16) -> Result<Vec<Arrived>, Error> {
    let mut frames = vec![];
    nic.receive_from(pair, u16::MAX, |arrival| {
        let mut bytes = vec![];
        for piece in arrival.pieces {
            let at = bytes.len();
            bytes.resize(at + piece.len(), 0);
            piece.copy_out(0, &mut bytes[at..]);
        }
        frames.push((bytes, arrival.checksum, arrival.pieces.len()));
    })?;
    Ok(frames)
}

/// Memory for a frame behind the driver's headroom, with its bytes.
fn region(platform: &InProcess, nic: &impl Nic, bytes: &[u8]) -> DmaRegion {
    let region = platform.allocate(nic.headroom() + bytes.len()).unwrap();
    region.copy_in(nic.headroom(), bytes);
    region
}

/// To the adapter, from another station.
pub(crate) const INWARD: Flow = Flow { source: OTHER, destination: MAC };
/// The other way.
pub(crate) const OUTWARD: Flow = Flow { source: MAC, destination: OTHER };
