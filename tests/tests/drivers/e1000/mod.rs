//! The 82540EM.

mod counts;
mod jobs;
mod lifecycle;

use std::sync::Arc;

use crate::place::plug;
use paraslot_backends::net::{Frame, NetBackend, NetError, NetReceiver, NetSender, Offload, Room};
use paraslot_device::{DmaBuffers, dma::Direction};
use paraslot_drivers::e1000::{E1000, Options};
use paraslot_drivers::{DmaRegion, Nic, Platform};
use paraslot_e1000::{Control, Options as DeviceOptions};
use paraslot_pci::Bdf;
use paraslot_protocol::traffic::{self, Flow};
use paraslot_protocol::{PATTERN_STEP, pattern_base};
use paraslot_vmm::in_process::{InProcess, Machine};

/// Where the adapter is plugged in.
const SLOT: Bdf = Bdf::root(5);
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x21];
/// Frames for the adapter, from itself as the workload's are.
const FLOW: Flow = Flow { source: MAC, destination: MAC };
/// Nanoseconds that a test waits before it fails.
const PATIENCE: u64 = 30_000_000_000;

fn plugged(machine: &Machine, backend: impl NetBackend + 'static) -> (InProcess, Control) {
    let machine = InProcess::new(machine).unwrap();
    let options = DeviceOptions { clock: machine.clock(), ..DeviceOptions::new(MAC) };
    let backend: Arc<dyn NetBackend> = Arc::new(backend);
    let control = plug(&machine, SLOT, (backend, options));
    (machine, control)
}

fn wait_until(platform: &InProcess, mut done: impl FnMut() -> bool) {
    let start = platform.tsc();
    while !done() {
        assert!(platform.tsc() - start < PATIENCE, "nothing happens");
        platform.relax();
    }
}

/// A driver whose link is up.
fn driver(platform: &InProcess, options: Options) -> E1000<'_, InProcess> {
    let mut nic = E1000::new(platform, options).unwrap();
    wait_until(platform, || nic.link_up());
    nic
}

/// Memory for a frame, with its bytes.
fn region(platform: &InProcess, bytes: &[u8]) -> DmaRegion {
    let region = platform.allocate(bytes.len()).unwrap();
    region.copy_in(0, bytes);
    region
}

/// Frame `number` of the workload's, as the adapter is given it to be sent: without its checksum, or
/// to be segmented.
fn unfinished(number: u64, size: u32) -> Vec<u8> {
    let headers = traffic::header_len(size);
    let mut frame = FLOW.headers(size)[..headers].to_vec();
    frame.extend(number.to_le_bytes());
    frame.extend(0u64.to_le_bytes());
    let mut word = pattern_base(number, 0).wrapping_add(PATTERN_STEP.wrapping_mul(2));
    while frame.len() < size as usize {
        frame.extend(word.to_le_bytes());
        word = word.wrapping_add(PATTERN_STEP);
    }
    frame.truncate(size as usize);
    frame
}

/// The same as it is on the wire.
fn finished(number: u64, size: u32) -> Vec<u8> {
    let mut frame = unfinished(number, size);
    let field = traffic::TRANSPORT + traffic::checksum_offset(size);
    let sum = traffic::sum(0, &frame[traffic::TRANSPORT..]);
    let checksum = if sum == u16::MAX { sum } else { !sum };
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The host's end of a wire.
struct Peer {
    sender: Box<dyn NetSender>,
    receiver: Box<dyn NetReceiver>,
}

impl Peer {
    fn new(port: &dyn NetBackend) -> Self {
        let (sender, receiver) = (port.open_sender(0).unwrap(), port.open_receiver(0).unwrap());
        Self { sender, receiver }
    }

    fn send(&mut self, frame: &[u8]) {
        let body = DmaBuffers::empty(Direction::ToDevice);
        let frame = Frame { head: frame, body: &body, offload: Offload::default() };
        self.sender.send(&frame).unwrap();
        self.sender.commit();
    }

    /// All that has arrived.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut frames = vec![];
        let mut room = [0; 2048];
        loop {
            match self.receiver.receive(Room::Host(&mut room)) {
                Ok(Some(received)) => frames.push(room[..received.len].to_vec()),
                Ok(None) | Err(NetError::Down) => return frames,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
