//! The device driven through rings in guest memory. Tests name the clauses that they hold it to.

mod device;
mod events;
mod flow;
mod framing;
mod management;
mod requests;
mod state;
mod well_known;

use std::sync::Arc;

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_backends::block::{BlockBackend, MemoryBackend, MemoryOptions};
use paraslot_device::{BusMaster, Progress, Worker};
use paraslot_scsi::{Address, Bus, BusOptions, DiskOptions, Initiator, LogicalUnit};
use paraslot_spec::scsi::{opcode, status};
use paraslot_spec::virtio_scsi::{
    AnRequest, CONTROL_QUEUE, EVENT_QUEUE, FIRST_REQUEST_QUEUE, Lun, RequestHeader, ResponseHeader,
    TmfRequest, control, response,
};
use paraslot_virtio::VirtioDevice;
use paraslot_virtio::testing::{Buffer, CountingInterrupt, CountingSignals, DriverRing};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

use crate::{Options, VirtioScsi};

type Space = Arc<GuestMemoryMmap>;

const MEMORY: usize = 1 << 20;
/// Bytes between two rings.
const RING: u64 = 0x4000;
/// What the device reads of each request, and what it writes, 512 bytes each.
const FRONTS: u64 = 0x2_0000;
const BACKS: u64 = 0x3_0000;
/// Requests at once.
const FRAMES: u64 = 0x80;
/// Data.
const DATA: u64 = 0x4_0000;
/// What no device writes.
const POISON: u8 = 0xc5;
/// All that may be accepted.
const ALL: u64 = u64::MAX;
/// Bytes before data.
const BACK: u32 = 12 + 96;

/// One queue: its worker and its driver.
struct Port {
    worker: Box<dyn Worker>,
    ring: DriverRing<Space>,
    interrupt: Arc<CountingInterrupt>,
    signals: Arc<CountingSignals>,
    bus_master: BusMaster,
}

/// A device with all its queues, and its driver.
struct Host {
    bus: Bus,
    device: VirtioScsi,
    space: Space,
    features: u64,
    /// Control, event and request queues.
    ports: Vec<Port>,
    frames: u64,
    /// As the driver has set them.
    sense_size: u32,
    cdb_size: u32,
}

/// A request that has been made available.
#[derive(Clone, Copy, Debug)]
struct Pending {
    queue: usize,
    head: u16,
    /// Where the response is.
    back: u64,
    id: u64,
}

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    response: u8,
    status: u8,
    residual: u32,
    sense: Vec<u8>,
    /// The used length.
    written: u32,
}

impl Answer {
    /// Key, additional code and qualifier of sense data in fixed format.
    fn code(&self) -> (u8, u8, u8) {
        assert_eq!((self.response, self.status), (response::OK, status::CHECK_CONDITION));
        assert_eq!((self.sense[0] & 0x7f, self.sense.len()), (0x70, 18));
        (self.sense[2], self.sense[12], self.sense[13])
    }

    fn is_good(&self) -> bool {
        (self.response, self.status) == (response::OK, status::GOOD)
    }
}

fn memory(sectors: u64) -> MemoryBackend {
    MemoryBackend::new(sectors * 512, MemoryOptions::default()).unwrap()
}

fn disk(backend: impl BlockBackend + 'static) -> Arc<LogicalUnit> {
    LogicalUnit::disk(DiskOptions::new(Arc::new(backend))).unwrap()
}

/// A disk whose operations are held.
fn gated(sectors: u64) -> (Arc<LogicalUnit>, Gate) {
    let backend = GatedBackend::new(memory(sectors));
    let gate = backend.gate();
    (disk(backend), gate)
}

fn bus() -> Bus {
    Bus::new(BusOptions {
        initiator: Initiator("test".into()),
        max_target: 255,
        max_lun: 16383,
        autosense: true,
    })
}

fn at(target: u8, lun: u16) -> Address {
    Address { target, lun }
}

fn options() -> Options {
    Options { queue_size: 64, ..Options::default() }
}

fn read_10(block: u32, count: u16) -> Vec<u8> {
    let ([a, b, c, d], [e, f]) = (block.to_be_bytes(), count.to_be_bytes());
    vec![opcode::READ_10, 0, a, b, c, d, 0, e, f, 0]
}

fn write_10(block: u32, count: u16) -> Vec<u8> {
    let mut cdb = read_10(block, count);
    cdb[0] = opcode::WRITE_10;
    cdb
}

const TEST_UNIT_READY: [u8; 6] = [opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0];

fn inquiry(len: u8) -> [u8; 6] {
    [opcode::INQUIRY, 0, 0, 0, len, 0]
}

impl Host {
    /// `features` is cut down to what is offered.
    fn new(bus: Bus, options: &Options, features: u64) -> Self {
        let device = VirtioScsi::new(bus.clone(), options).unwrap();
        let regions =
            [(GuestAddress(0), MEMORY / 2), (GuestAddress(MEMORY as u64 / 2), MEMORY / 2)];
        let space: Space = Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap());
        let features = features & VirtioDevice::<Space>::features(&device);
        let mut host = Self {
            bus,
            device,
            space,
            features,
            ports: Vec::new(),
            frames: 0,
            sense_size: 96,
            cdb_size: 32,
        };
        assert!(VirtioDevice::<Space>::accept_features(&mut host.device, features));
        host.start();
        host
    }

    /// With one disk, at target 0, whose attentions have been seen.
    fn simple(backend: impl BlockBackend + 'static) -> Self {
        let bus = bus();
        bus.attach(at(0, 0), disk(backend)).unwrap();
        let mut host = Self::new(bus, &options(), ALL);
        host.ready(at(0, 0));
        host
    }

    /// With one disk whose operations are held.
    fn held() -> (Self, Gate) {
        let backend = GatedBackend::new(memory(64));
        let gate = backend.gate();
        (Self::simple(backend), gate)
    }

    /// Starts all queues.
    fn start(&mut self) {
        let sizes = VirtioDevice::<Space>::queue_sizes(&self.device).to_vec();
        for (index, size) in sizes.into_iter().enumerate() {
            let port = self.port(index, size);
            self.ports.push(port);
        }
    }

    fn port(&mut self, index: usize, size: u16) -> Port {
        let ring = DriverRing::new(self.space.clone(), index as u64 * RING, size);
        assert!(ring.end() <= (index as u64 + 1) * RING && ring.end() <= FRONTS);
        let queue = ring.queue(self.features);
        let worker = self.device.start_queue(u16::try_from(index).unwrap(), queue.queue).unwrap();
        let (interrupt, signals, bus_master) = (queue.interrupt, queue.signals, queue.bus_master);
        Port { worker, ring, interrupt, signals, bus_master }
    }

    /// The device is reset, and the driver starts anew.
    fn reset(&mut self) {
        self.ports.clear();
        VirtioDevice::<Space>::reset(&mut self.device);
        assert!(VirtioDevice::<Space>::accept_features(&mut self.device, self.features));
        (self.sense_size, self.cdb_size) = (96, 32);
        self.start();
    }

    fn control(&mut self) -> &mut Port {
        &mut self.ports[usize::from(CONTROL_QUEUE)]
    }

    fn events(&mut self) -> &mut Port {
        &mut self.ports[usize::from(EVENT_QUEUE)]
    }

    /// The first request queue.
    fn first(&mut self) -> &mut Port {
        &mut self.ports[usize::from(FIRST_REQUEST_QUEUE)]
    }

    fn resets(&self) -> usize {
        self.ports.iter().map(|port| port.signals.resets()).sum()
    }

    fn write(&self, address: u64, data: &[u8]) {
        self.ports[0].ring.write(address, data);
    }

    fn read(&self, address: u64, len: usize) -> Vec<u8> {
        self.ports[0].ring.read(address, len)
    }

    /// Places for the next request: what the device reads before data, and what it writes.
    fn frame(&mut self, lun: Lun, cdb: &[u8]) -> (Buffer, Buffer, u64) {
        let index = self.frames % FRAMES;
        let id = self.frames + 0x1_0000_0000;
        self.frames += 1;
        let (front, back) = (FRONTS + 0x200 * index, BACKS + 0x200 * index);
        let header = RequestHeader { lun, id: id.into(), ..RequestHeader::default() };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(cdb);
        bytes.resize(19 + self.cdb_size as usize, 0);
        self.write(front, &bytes);
        self.write(back, &[POISON; 0x200]);
        let front = Buffer::readable(front, 19 + self.cdb_size);
        (front, Buffer::writable(back, 12 + self.sense_size), id)
    }

    /// Makes a request available on a request queue, from 0.
    fn add_on(
        &mut self,
        queue: usize,
        lun: Lun,
        cdb: &[u8],
        out: &[Buffer],
        into: &[Buffer],
    ) -> Pending {
        let (front, back, id) = self.frame(lun, cdb);
        let chain = [&[front], out, &[back], into].concat();
        let queue = queue + usize::from(FIRST_REQUEST_QUEUE);
        let head = self.ports[queue].ring.add(&chain);
        Pending { queue, head, back: back.address, id }
    }

    /// Makes a request for a unit available on the first queue; `data` says which way it goes.
    fn add(&mut self, unit: Address, cdb: &[u8], data: &[Buffer]) -> Pending {
        let (into, out): (Vec<Buffer>, Vec<Buffer>) =
            data.iter().partition(|buffer| buffer.writable);
        self.add_on(0, Lun::new(unit.target, unit.lun), cdb, &out, &into)
    }

    /// Makes a task management function available.
    fn add_tmf(&mut self, subtype: u32, lun: Lun, id: u64) -> Pending {
        let request =
            TmfRequest { kind: control::TMF.into(), subtype: subtype.into(), lun, id: id.into() };
        self.add_control(request.as_bytes(), 1)
    }

    /// Makes a control request available, with `room` bytes for the answer.
    fn add_control(&mut self, request: &[u8], room: u32) -> Pending {
        let index = self.frames % FRAMES;
        self.frames += 1;
        let (front, back) = (FRONTS + 0x200 * index, BACKS + 0x200 * index);
        self.write(front, request);
        self.write(back, &[POISON; 16]);
        let front = Buffer::readable(front, u32::try_from(request.len()).unwrap());
        let head = self.control().ring.add(&[front, Buffer::writable(back, room)]);
        Pending { queue: CONTROL_QUEUE.into(), head, back, id: 0 }
    }

    /// Has all workers work until they have nothing to do.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let mut progress = Progress::Idle;
            for port in &mut self.ports {
                progress = progress.or(port.worker.service());
                progress = progress.or(port.worker.prepare_to_wait());
            }
            if progress == Progress::Idle {
                return;
            }
        }
        panic!("the workers never rest");
    }

    /// How a request was answered whose chain came back with this used length.
    fn answer(&self, pending: Pending, written: u32) -> Answer {
        let bytes = self.read(pending.back, 12 + self.sense_size as usize);
        let (header, sense) = ResponseHeader::read_from_prefix(&bytes).unwrap();
        assert_eq!(header.status_qualifier.get(), 0);
        let len = header.sense_len.get() as usize;
        assert!(sense[len..].iter().all(|byte| *byte == 0), "the rest of the field is filled");
        Answer {
            response: header.response,
            status: header.status,
            residual: header.residual.get(),
            sense: sense[..len].to_vec(),
            written,
        }
    }

    /// The next chain that has been given back on the queue of `pending`, which is it.
    fn take(&mut self, pending: Pending) -> Answer {
        let (head, written) = self.ports[pending.queue].ring.used().expect("a used chain");
        assert_eq!(head, pending.head);
        self.answer(pending, written)
    }

    /// Whether nothing has been given back on a request queue.
    fn quiet(&mut self, queue: usize) -> bool {
        self.ports[queue + usize::from(FIRST_REQUEST_QUEUE)].ring.used().is_none()
    }

    /// The only request that is given back, now.
    fn finish(&mut self, pending: Pending) -> Answer {
        self.run();
        let answer = self.take(pending);
        assert_eq!(self.ports[pending.queue].ring.used(), None);
        answer
    }

    fn request(&mut self, unit: Address, cdb: &[u8], data: &[Buffer]) -> Answer {
        let pending = self.add(unit, cdb, data);
        self.finish(pending)
    }

    /// The response to a task management function that is over, if it is.
    fn tmf_response(&mut self, pending: Pending) -> Option<u8> {
        let (head, written) = self.control().ring.used()?;
        assert_eq!((head, written), (pending.head, 1));
        Some(self.read(pending.back, 1)[0])
    }

    fn tmf(&mut self, subtype: u32, lun: Lun, id: u64) -> u8 {
        let pending = self.add_tmf(subtype, lun, id);
        self.run();
        self.tmf_response(pending).expect("an answer")
    }

    /// Asks about notifications: what there is, and the response.
    fn notifications(&mut self, kind: u32, lun: Lun) -> (u32, u8) {
        let request = AnRequest { kind: kind.into(), lun, event_requested: u32::MAX.into() };
        let pending = self.add_control(request.as_bytes(), 5);
        self.run();
        assert_eq!(self.control().ring.used(), Some((pending.head, 5)));
        let bytes = self.read(pending.back, 5);
        (u32::from_le_bytes(bytes[..4].try_into().unwrap()), bytes[4])
    }

    /// Has a unit say all that it has to.
    fn ready(&mut self, unit: Address) {
        for _ in 0..8 {
            if self.request(unit, &TEST_UNIT_READY, &[]).is_good() {
                return;
            }
        }
        panic!("never ready");
    }

    /// Writes whole blocks of one byte.
    fn store(&mut self, unit: Address, block: u32, count: u16, byte: u8) {
        let len = u32::from(count) * 512;
        self.write(DATA, &vec![byte; len as usize]);
        let answer = self.request(unit, &write_10(block, count), &[Buffer::readable(DATA, len)]);
        assert!(answer.is_good(), "{answer:?}");
        assert_eq!((answer.written, answer.residual), (12 + self.sense_size, 0));
    }

    /// Reads whole blocks; returns the first byte of each.
    fn load(&mut self, unit: Address, block: u32, count: u16) -> Vec<u8> {
        let len = u32::from(count) * 512;
        self.write(DATA, &vec![POISON; len as usize]);
        let answer = self.request(unit, &read_10(block, count), &[Buffer::writable(DATA, len)]);
        assert!(answer.is_good(), "{answer:?}");
        assert_eq!((answer.written, answer.residual), (12 + self.sense_size + len, 0));
        let data = self.read(DATA, len as usize);
        data.chunks(512)
            .map(|block| {
                assert!(block.iter().all(|byte| *byte == block[0]));
                block[0]
            })
            .collect()
    }

    /// The driver sets a size.
    fn set_sizes(&mut self, sense_size: u32, cdb_size: u32) {
        for (offset, size) in [(20, sense_size), (24, cdb_size)] {
            VirtioDevice::<Space>::write_config(&mut self.device, offset, &size.to_le_bytes());
        }
        (self.sense_size, self.cdb_size) = (sense_size, cdb_size);
    }
}
