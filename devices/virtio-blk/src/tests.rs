//! The device driven through a ring in guest memory. Tests name the clauses that they hold it to.

mod device;
mod durability;
mod faults;
mod flow;
mod framing;
mod requests;
mod state;

use std::sync::Arc;

use paraslot_backends::block::{BlockBackend, MemoryBackend, MemoryOptions};
use paraslot_device::{BusMaster, Progress, Worker};
use paraslot_spec::virtio_blk::{RangeSegment, RequestHeader, status};
use paraslot_virtio::VirtioDevice;
use paraslot_virtio::testing::{Buffer, CountingInterrupt, CountingSignals, DriverRing};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

use crate::{Options, VirtioBlk};

type Space = Arc<GuestMemoryMmap>;

const MEMORY: usize = 1 << 20;
/// Headers, 16 bytes for each request; ranges follow from `RANGES`.
const HEADERS: u64 = 0x1_0000;
/// Statuses, one byte for each request.
const STATUSES: u64 = 0x1_8000;
const RANGES: u64 = 0x2_0000;
/// Data.
const DATA: u64 = 0x4_0000;
/// What no device writes.
const POISON: u8 = 0xc5;
/// What stands where a status will be.
const NO_STATUS: u8 = 0xff;
/// All that may be accepted.
const ALL: u64 = u64::MAX;

/// A device with one queue, and its driver.
struct Disk {
    device: VirtioBlk,
    worker: Box<dyn Worker>,
    ring: DriverRing<Space>,
    interrupt: Arc<CountingInterrupt>,
    signals: Arc<CountingSignals>,
    bus_master: BusMaster,
    requests: u64,
}

/// A request that has been made available.
#[derive(Clone, Copy, Debug)]
struct Pending {
    head: u16,
    status: u64,
}

fn memory(sectors: u64) -> MemoryBackend {
    MemoryBackend::new(sectors * 512, MemoryOptions::default()).unwrap()
}

/// An image with a cache that loses what is not flushed, by its own account.
fn volatile(sectors: u64) -> MemoryBackend {
    let options = MemoryOptions { volatile_cache: true, ..MemoryOptions::default() };
    MemoryBackend::new(sectors * 512, options).unwrap()
}

impl Disk {
    /// `features` is cut down to what is offered.
    fn new(backend: impl BlockBackend + 'static, options: &Options, features: u64) -> Self {
        let mut device = VirtioBlk::new(Arc::new(backend), options).unwrap();
        let regions =
            [(GuestAddress(0), MEMORY / 2), (GuestAddress(MEMORY as u64 / 2), MEMORY / 2)];
        let space: Space = Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap());
        let ring = DriverRing::new(space, 0, options.queue_size);
        assert!(ring.end() <= HEADERS);
        let features = features & VirtioDevice::<Space>::features(&device);
        let queue = ring.queue(features);
        VirtioDevice::<Space>::attach(&mut device, queue.signals.clone());
        assert!(VirtioDevice::<Space>::accept_features(&mut device, features));
        let worker = device.start_queue(0, queue.queue).unwrap();
        let (interrupt, signals, bus_master) = (queue.interrupt, queue.signals, queue.bus_master);
        Self { device, worker, ring, interrupt, signals, bus_master, requests: 0 }
    }

    fn simple(backend: impl BlockBackend + 'static) -> Self {
        Self::new(backend, &Options { queue_size: 16, ..Options::default() }, ALL)
    }

    /// A header and a place for the status of the next request.
    fn frame(&mut self, kind: u32, sector: u64) -> (Buffer, Buffer) {
        let index = self.requests % 0x400;
        self.requests += 1;
        let (header, status) = (HEADERS + 16 * index, STATUSES + index);
        self.ring.write(header, RequestHeader::new(kind, sector).as_bytes());
        self.ring.write(status, &[NO_STATUS]);
        (Buffer::readable(header, 16), Buffer::writable(status, 1))
    }

    /// Makes a request with `data` available.
    fn add(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> Pending {
        let (header, status) = self.frame(kind, sector);
        let chain: Vec<Buffer> = [&[header], data, &[status]].concat();
        Pending { head: self.ring.add(&chain), status: status.address }
    }

    /// Makes a request over ranges (sector, sectors, flags) available.
    fn add_ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> Pending {
        let bytes: Vec<u8> = ranges
            .iter()
            .flat_map(|&(sector, sectors, flags)| {
                let range = RangeSegment {
                    sector: sector.into(),
                    num_sectors: sectors.into(),
                    flags: flags.into(),
                };
                range.as_bytes().to_vec()
            })
            .collect();
        let address = RANGES + self.requests % 16 * 0x1000;
        self.ring.write(address, &bytes);
        let data = Buffer::readable(address, u32::try_from(bytes.len()).unwrap());
        self.add(kind, 0, &[data])
    }

    /// Has the worker work until it has nothing to do.
    fn run(&mut self) {
        for _ in 0..10_000 {
            if self.worker.service() == Progress::Idle
                && self.worker.prepare_to_wait() == Progress::Idle
            {
                return;
            }
        }
        panic!("the worker never rests");
    }

    fn status(&self, pending: Pending) -> u8 {
        self.ring.read(pending.status, 1)[0]
    }

    /// The only request that has been given back, now: its status and the bytes written.
    fn finish(&mut self, pending: Pending) -> (u8, u32) {
        self.run();
        let (head, written) = self.ring.used().expect("a used chain");
        assert_eq!(head, pending.head);
        assert_eq!(self.ring.used(), None);
        (self.status(pending), written)
    }

    fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        let pending = self.add(kind, sector, data);
        self.finish(pending)
    }

    fn ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        let pending = self.add_ranges(kind, ranges);
        let (status, written) = self.finish(pending);
        assert_eq!(written, 1);
        status
    }

    /// Writes whole sectors of one byte.
    fn write(&mut self, sector: u64, sectors: u32, byte: u8) -> u8 {
        self.ring.write(DATA, &vec![byte; sectors as usize * 512]);
        let data = Buffer::readable(DATA, sectors * 512);
        self.request(paraslot_spec::virtio_blk::request::OUT, sector, &[data]).0
    }

    /// Reads whole sectors; returns the first byte of each.
    fn read(&mut self, sector: u64, sectors: u32) -> Vec<u8> {
        let len = sectors as usize * 512;
        self.ring.write(DATA, &vec![POISON; len]);
        let data = Buffer::writable(DATA, sectors * 512);
        let answer = self.request(paraslot_spec::virtio_blk::request::IN, sector, &[data]);
        assert_eq!(answer, (status::OK, sectors * 512 + 1));
        let data = self.ring.read(DATA, len);
        data.chunks(512)
            .map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
                sector[0]
            })
            .collect()
    }
}
