//! vmxnet3.

mod counts;
mod filters;
mod frames;
mod jobs;
mod lifecycle;
mod queues;

use std::sync::Arc;

use paraslot_backends::net::{NetBackend, NetStatistics};
use paraslot_drivers::vmxnet3::{Options, Signalling, Vectors, Vmxnet3};
use paraslot_drivers::{DmaRegion, Error, Known, Nic, Platform, Task};
use paraslot_pci::{Bdf, SharedDevice};
use paraslot_protocol::traffic::Flow;
use paraslot_vmm::in_process::{InProcess, Machine};
use paraslot_vmxnet3::{Control, Options as DeviceOptions};

use crate::net::{MAC, OTHER, wait_until};
use crate::place::plug;

/// Where the adapter is plugged in.
const SLOT: Bdf = Bdf::root(7);

type Driver<'p> = Vmxnet3<'p, InProcess>;

/// A machine with the adapter, with another hand on its function.
struct Plugged {
    platform: InProcess,
    control: Control,
    function: SharedDevice,
}

fn plugged_with(
    machine: &Machine,
    backend: Arc<dyn NetBackend>,
    options: DeviceOptions,
) -> Plugged {
    let platform = InProcess::new(machine).unwrap();
    let options = DeviceOptions { mac: MAC, clock: platform.clock(), ..options };
    let control = plug(&platform, SLOT, (backend, options));
    let function = platform.function(SLOT).unwrap();
    Plugged { platform, control, function }
}

/// An adapter with a worker for each pair of its backend's queues.
fn plugged(machine: &Machine, backend: impl NetBackend + 'static) -> Plugged {
    let queues = backend.info().queues;
    plugged_with(machine, Arc::new(backend), DeviceOptions { queues, ..DeviceOptions::new(MAC) })
}

fn driver(platform: &InProcess, options: Options) -> Driver<'_> {
    let mut nic = Vmxnet3::new(platform, options).unwrap();
    assert!(nic.link_up());
    nic
}

/// Ways to drive it that differ in everything that matters to frames, by name.
fn ways() -> [(&'static str, Options); 10] {
    let all = Options::new();
    let plain = Options { checksum: false, segmentation: false, large_receive: false, ..all };
    [
        ("usual", all),
        ("revision 1", Options { revision: 1, ..all }),
        ("revision 2", Options { revision: 2, ..all }),
        ("MSI", Options { signalling: Signalling::Msi, ..all }),
        ("the pin", Options { signalling: Signalling::Pin, ..all }),
        ("one vector", Options { vectors: Vectors::Shared, ..all }),
        ("a vector for each queue", Options { vectors: Vectors::Each, ..all }),
        ("no LRO", Options { large_receive: false, ..all }),
        ("no checksums", Options { checksum: false, segmentation: false, ..all }),
        ("nothing", Options { revision: 1, signalling: Signalling::Pin, ..plain }),
    ]
}

/// A frame that has arrived: its bytes, what is known of its checksum, the pieces it came in.
type Arrived = (Vec<u8>, Known, usize);

/// All frames that have arrived at a queue.
fn received_at(nic: &mut Driver<'_>, queue: u8) -> Result<Vec<Arrived>, Error> {
    let mut frames = vec![];
    nic.receive_from(queue, u16::MAX, |arrival| {
        let mut bytes = vec![];
        for piece in arrival.pieces {
            let at = bytes.len();
            bytes.resize(at + piece.len(), 0);
            piece.copy_out(0, &mut bytes[at..]);
        }
        assert_eq!(bytes.len(), arrival.len);
        frames.push((bytes, arrival.checksum, arrival.pieces.len()));
    })?;
    Ok(frames)
}

/// All frames that have arrived at the first.
fn received(nic: &mut Driver<'_>) -> Vec<Vec<u8>> {
    received_at(nic, 0).unwrap().into_iter().map(|(bytes, ..)| bytes).collect()
}

/// Memory for a frame, with its bytes.
fn region(platform: &InProcess, bytes: &[u8]) -> DmaRegion {
    let region = platform.allocate(bytes.len()).unwrap();
    region.copy_in(0, bytes);
    region
}

/// Sends a frame, and waits until the adapter is done with it.
fn send(platform: &InProcess, nic: &mut Driver<'_>, tag: u16, frame: &[u8], task: Task) {
    let region = region(platform, frame);
    nic.transmit(tag, &region, frame.len(), task).unwrap();
    nic.kick().unwrap();
    let mut done = vec![];
    wait_until(platform, || {
        nic.reclaim(|tag| done.push(tag)).unwrap();
        !done.is_empty()
    });
    assert_eq!(done, [tag]);
}

/// Nothing went wrong that would show nowhere else.
fn check_statistics(seen: &NetStatistics) {
    check_errors(seen);
    assert_eq!(seen.no_guest_buffers, 0, "{seen:?}");
}

/// The same of a network that has frames for ever: those that come after a job's last are given up when the
/// driver has had its time for them.
fn check_errors(seen: &NetStatistics) {
    let wrong = seen.send_invalid + seen.send_errors + seen.receive_errors + seen.send_down;
    assert_eq!((wrong, seen.received_too_long), (0, 0), "{seen:?}");
}

/// To another station.
const AWAY: Flow = Flow { source: MAC, destination: OTHER };
