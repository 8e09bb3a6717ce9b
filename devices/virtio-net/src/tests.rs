//! The device driven through rings in guest memory, with a test's hand at the other end of the wire.
//! Tests name the clauses that they hold it to.

mod coalescing;
mod control;
mod device;
mod faults;
mod filters;
mod flow;
mod link;
mod merge;
mod offloads;
mod random;
mod receive;
mod state;
mod steering;
mod transmit;

use std::collections::HashMap;
use std::sync::Arc;

use paraslot_backends::net::testing::{HostPort, ScriptedNet};
use paraslot_backends::net::{NetBackend, NetStatistics};
use paraslot_device::{BusMaster, ManualClock, Progress, Source, Worker};
use paraslot_spec::virtio_net::{Config, HashHeader, Header, feature};
use paraslot_virtio::VirtioDevice;
use paraslot_virtio::testing::{Buffer, CountingInterrupt, CountingSignals, DriverRing};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

use crate::{Control, Options, VirtioNet};

type Space = Arc<GuestMemoryMmap>;

const MEMORY: usize = 32 << 20;
/// Rings, 16 KiB for each queue.
const RING: u64 = 0x4000;
/// Buffers are taken from here on, each once.
const DATA: u64 = 0x10_0000;
/// What no device writes.
const POISON: u8 = 0xc5;
/// All that may be accepted.
const ALL: u64 = u64::MAX;
/// All but what makes frames arrive in pieces, or not as they were.
const PLAIN: u64 =
    ALL & !(feature::MRG_RXBUF | feature::HASH_REPORT | feature::CTRL_RX | feature::CTRL_VLAN);
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const PEER: [u8; 6] = [0x02, 0, 0, 0, 0, 9];

/// One queue: its driver's side and its worker.
struct Lane {
    ring: DriverRing<Space>,
    worker: Box<dyn Worker>,
    interrupt: Arc<CountingInterrupt>,
    signals: Arc<CountingSignals>,
    bus_master: BusMaster,
    /// Buffers that were made available for frames, by head.
    posted: HashMap<u16, Vec<Buffer>>,
}

/// A device and its driver.
struct Nic {
    device: VirtioNet,
    control: Control,
    port: HostPort,
    clock: ManualClock,
    space: Space,
    signals: Arc<CountingSignals>,
    features: u64,
    lanes: Vec<Option<Lane>>,
    next: u64,
}

/// A frame that the driver was given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    header: HashHeader,
    frame: Vec<u8>,
    /// Bytes that each of its buffers was said to hold.
    parts: Vec<usize>,
}

/// Options with small queues.
fn options(pairs: u16) -> Options {
    Options { queue_pairs: pairs, queue_size: 64, ..Options::default() }
}

fn space() -> Space {
    let half = MEMORY / 2;
    let regions = [(GuestAddress(0), half), (GuestAddress(half as u64), half)];
    Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap())
}

/// A frame of `len` bytes for this device.
fn frame(len: usize) -> Vec<u8> {
    frame_to(MAC, len)
}

fn frame_to(destination: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = [&destination[..], &PEER, &[0x88, 0xb5]].concat();
    frame.extend((0u8..=250).cycle().take(len.saturating_sub(14)));
    frame.truncate(len);
    frame
}

/// Whether an eventfd has been written to since it was last looked at, as an executor would.
fn rung(source: Source) -> bool {
    let Source::Event(fd) = source else { panic!("an eventfd") };
    let mut count = [0u8; 8];
    // SAFETY: as many bytes as an eventfd gives, and it does not block.
    #[expect(unsafe_code, reason = "a descriptor that belongs to the device or the backend")]
    let read = unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) };
    read == 8
}

fn config(device: &VirtioNet) -> Config {
    let mut bytes = [0; size_of::<Config>()];
    VirtioDevice::<Space>::config(device).read(0, &mut bytes);
    Config::read_from_bytes(&bytes).unwrap()
}

impl Nic {
    /// A device with one pair of queues; `features` is cut down to what is offered.
    fn new(features: u64) -> Self {
        Self::with(&options(1), features)
    }

    fn with(options: &Options, features: u64) -> Self {
        let (net, port) = ScriptedNet::new(options.queue_pairs);
        Self::on(Arc::new(net), port, options, features)
    }

    fn on(net: Arc<dyn NetBackend>, port: HostPort, options: &Options, features: u64) -> Self {
        let clock = ManualClock::new();
        let options = Options { clock: Arc::new(clock.clone()), ..options.clone() };
        let mut device = VirtioNet::new(net, &options).unwrap();
        let signals = Arc::new(CountingSignals::default());
        VirtioDevice::<Space>::attach(&mut device, signals.clone());
        let control = device.control();
        let queues = VirtioDevice::<Space>::queue_sizes(&device).len();
        let mut nic = Self {
            device,
            control,
            port,
            clock,
            space: space(),
            signals,
            features: 0,
            lanes: (0..queues).map(|_| None).collect(),
            next: DATA,
        };
        nic.negotiate(features);
        nic.start_all();
        nic
    }

    fn negotiate(&mut self, features: u64) {
        self.features = features & VirtioDevice::<Space>::features(&self.device);
        assert!(VirtioDevice::<Space>::accept_features(&mut self.device, self.features));
    }

    fn has(&self, features: u64) -> bool {
        self.features & features != 0
    }

    fn pairs(&self) -> u16 {
        let several = self.has(feature::MQ | feature::RSS);
        if several { u16::try_from(self.lanes.len() / 2).unwrap() } else { 1 }
    }

    fn control_index(&self) -> u16 {
        2 * self.pairs()
    }

    fn start(&mut self, index: u16) {
        let size = VirtioDevice::<Space>::queue_sizes(&self.device)[usize::from(index)];
        let ring = DriverRing::new(self.space.clone(), RING * u64::from(index), size);
        assert!(ring.end() <= RING * u64::from(index + 1));
        let queue = ring.queue(self.features);
        let worker = self.device.start_queue(index, queue.queue).unwrap();
        self.lanes[usize::from(index)] = Some(Lane {
            ring,
            worker,
            interrupt: queue.interrupt,
            signals: queue.signals,
            bus_master: queue.bus_master,
            posted: HashMap::new(),
        });
    }

    fn start_all(&mut self) {
        for index in 0..2 * self.pairs() {
            self.start(index);
        }
        if self.has(feature::CTRL_VQ) {
            self.start(self.control_index());
        }
    }

    /// Resets one queue, as a transport does.
    fn stop(&mut self, index: u16) {
        let lane = self.lane(index);
        assert_eq!(lane.worker.quiesce(), Progress::Idle);
        self.lanes[usize::from(index)] = None;
    }

    /// Resets the device, and has the driver begin anew.
    fn restart(&mut self, features: u64) {
        self.lanes.iter_mut().for_each(|lane| *lane = None);
        VirtioDevice::<Space>::reset(&mut self.device);
        self.negotiate(features);
        self.start_all();
    }

    fn lane(&mut self, index: u16) -> &mut Lane {
        self.lanes[usize::from(index)].as_mut().expect("a running queue")
    }

    /// Fresh memory, poisoned.
    fn memory(&mut self, len: usize) -> u64 {
        let address = self.next;
        self.next = (self.next + len as u64 + 64).next_multiple_of(16);
        assert!(self.next < MEMORY as u64);
        let ring = &self.lanes.iter().flatten().next().expect("a queue").ring;
        ring.write(address, &vec![POISON; len + 64]);
        address
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        self.lanes.iter().flatten().next().expect("a queue").ring.write(address, bytes);
    }

    fn read(&self, address: u64, len: usize) -> Vec<u8> {
        self.lanes.iter().flatten().next().expect("a queue").ring.read(address, len)
    }

    /// Memory that holds `bytes`, for the device to read.
    fn readable(&mut self, bytes: &[u8]) -> Buffer {
        let address = self.memory(bytes.len());
        self.write(address, bytes);
        Buffer::readable(address, u32::try_from(bytes.len()).unwrap())
    }

    fn writable(&mut self, len: usize) -> Buffer {
        Buffer::writable(self.memory(len), u32::try_from(len).unwrap())
    }

    /// Has all workers work until none has anything to do.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let mut progress = Progress::Idle;
            for lane in self.lanes.iter_mut().flatten() {
                progress = progress.or(match lane.worker.service() {
                    Progress::More => Progress::More,
                    Progress::Idle => lane.worker.prepare_to_wait(),
                });
            }
            if progress == Progress::Idle {
                return;
            }
        }
        panic!("the workers never rest");
    }

    fn header_len(&self) -> usize {
        if self.has(feature::HASH_REPORT) { 20 } else { 12 }
    }

    /// Bytes of a header for a frame to be sent.
    fn header(&self, header: Header) -> Vec<u8> {
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(self.header_len(), 0);
        bytes
    }

    /// Makes a frame available on a pair's transmit queue, in one piece.
    fn queue_frame(&mut self, pair: u16, header: Header, frame: &[u8]) -> u16 {
        let bytes = [&self.header(header)[..], frame].concat();
        let buffer = self.readable(&bytes);
        self.lane(2 * pair + 1).ring.add(&[buffer])
    }

    /// Sends a frame; it must come back.
    fn send(&mut self, header: Header, frame: &[u8]) {
        let head = self.queue_frame(0, header, frame);
        self.run();
        assert_eq!(self.lane(1).ring.used(), Some((head, 0)));
        assert_eq!(self.lane(1).ring.used(), None);
    }

    /// Makes buffers available as one chain on a pair's receive queue.
    fn post_chain(&mut self, pair: u16, lens: &[usize]) -> u16 {
        let buffers: Vec<Buffer> = lens.iter().map(|len| self.writable(*len)).collect();
        let lane = self.lane(2 * pair);
        let head = lane.ring.add(&buffers);
        lane.posted.insert(head, buffers);
        head
    }

    fn post(&mut self, pair: u16, count: usize, len: usize) {
        for _ in 0..count {
            self.post_chain(pair, &[len]);
        }
    }

    /// The next frame that a pair's driver was given. Checks what holds of every frame.
    fn got(&mut self, pair: u16) -> Option<Got> {
        let header_len = self.header_len();
        let mergeable = self.has(feature::MRG_RXBUF);
        let mut bytes = Vec::new();
        let mut parts = Vec::new();
        let mut left = 1;
        while left != 0 {
            let lane = self.lane(2 * pair);
            let used = lane.ring.used();
            if parts.is_empty() && used.is_none() {
                return None;
            }
            // net.rx.4: the whole frame is there, or nothing of it.
            let (head, written) = used.expect("all buffers of the frame");
            let written = usize::try_from(written).unwrap();
            let buffers = lane.posted.remove(&head).expect("a buffer of this driver");
            let len: usize = buffers.iter().map(|buffer| buffer.len as usize).sum();
            let mut part = Vec::new();
            for buffer in &buffers {
                part.extend(lane.ring.read(buffer.address, buffer.len as usize));
                // Behind it nothing was written.
                let behind = lane.ring.read(buffer.address + u64::from(buffer.len), 64);
                assert_eq!(behind, [POISON; 64]);
            }
            assert!(written <= len);
            part.truncate(written);
            if parts.is_empty() {
                let (header, _) = Header::read_from_prefix(&part).unwrap();
                left = header.num_buffers.get();
                // net.rx.1, net.rxbuf.2
                assert!(mergeable || left == 1);
                assert_ne!(left, 0);
            }
            left -= 1;
            // net.rx.3
            assert!(left == 0 || written == len);
            bytes.extend(part);
            parts.push(written);
        }
        let mut header = [0; 20];
        header[..header_len].copy_from_slice(&bytes[..header_len]);
        let header = HashHeader::read_from_bytes(&header).unwrap();
        Some(Got { header, frame: bytes.split_off(header_len), parts })
    }

    /// The only frame that the driver was given, now.
    fn receive(&mut self) -> Option<Got> {
        self.run();
        let got = self.got(0);
        assert_eq!(self.got(0), None);
        got
    }

    /// A command; its answer.
    fn command(&mut self, class: u8, command: u8, data: &[u8]) -> u8 {
        let bytes = [&[class, command][..], data].concat();
        let (said, written) = self.command_in(&[&bytes], &[1]);
        assert_eq!(written, 1);
        said[0]
    }

    /// A command in these pieces, with pieces of these lengths for the answer: what was written, and
    /// how much of it by the device's account.
    fn command_in(&mut self, pieces: &[&[u8]], room: &[usize]) -> (Vec<u8>, u32) {
        let mut buffers: Vec<Buffer> = pieces.iter().map(|piece| self.readable(piece)).collect();
        let answers: Vec<Buffer> = room.iter().map(|len| self.writable(*len)).collect();
        buffers.extend(&answers);
        let index = self.control_index();
        let head = self.lane(index).ring.add(&buffers);
        self.run();
        let (used, written) = self.lane(index).ring.used().expect("an answer");
        assert_eq!(used, head);
        let said = answers.iter().flat_map(|a| self.read(a.address, a.len as usize)).collect();
        (said, written)
    }

    fn statistics(&self) -> NetStatistics {
        self.control.statistics()
    }

    /// What was sent on a queue, without offloads.
    fn sent(&self, queue: u16) -> Vec<Vec<u8>> {
        self.port.take_sent(queue).into_iter().map(|sent| sent.bytes).collect()
    }

    fn interrupts(&mut self, index: u16) -> usize {
        self.lane(index).interrupt.count()
    }

    fn resets(&mut self) -> usize {
        self.lanes.iter().flatten().map(|lane| lane.signals.resets()).sum()
    }
}
