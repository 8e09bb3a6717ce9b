//! A driver of virtio-blk behind the PCI transport, on the bench.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use paraslot_backends::block::BlockBackend;
use paraslot_spec::virtio::feature;
use paraslot_spec::virtio_blk::{RangeSegment, RequestHeader, request};
use paraslot_tests::bench::Bench;
use paraslot_virtio::testing::{Buffer, DriverRing};
use paraslot_virtio_blk::{Options, VirtioBlk};
use paraslot_virtio_pci::VirtioPci;
use zerocopy::IntoBytes;

use crate::support::Random;
use crate::virtio::{Space, Virtio};

/// Bytes of guest memory.
pub(crate) const MEMORY: usize = 1 << 20;
/// Where the rings of queue 0 are; those of queue 1 are `RING_LEN` further on.
pub(crate) const RINGS: u64 = 0x1000;
pub(crate) const RING_LEN: u64 = 0x8000;
/// Headers, status bytes and indirect tables: one place for each request.
const PLACES: u64 = 0x4_0000;
const PLACE_LEN: u64 = 0x400;
pub(crate) const DATA: u64 = 0x8_0000;
pub(crate) const DATA_LEN: u64 = 0x4000;
/// What is in a status byte that was not written.
pub(crate) const NO_STATUS: u8 = 0xee;

/// A request that was made available.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) head: u16,
    pub(crate) kind: u32,
    pub(crate) sector: u64,
    pub(crate) status: u64,
    /// Data buffers.
    pub(crate) data: Vec<Buffer>,
}

impl Pending {
    /// Bytes of data.
    pub(crate) fn len(&self) -> u32 {
        self.data.iter().map(|buffer| buffer.len).sum()
    }
}

/// A guest that uses queue 0.
pub(crate) struct Blk {
    pub(crate) virtio: Virtio,
    pub(crate) ring: DriverRing<Space>,
    place: u64,
}

impl Deref for Blk {
    type Target = Virtio;

    fn deref(&self) -> &Virtio {
        &self.virtio
    }
}

impl DerefMut for Blk {
    fn deref_mut(&mut self) -> &mut Virtio {
        &mut self.virtio
    }
}

impl Blk {
    pub(crate) fn new(backend: Arc<dyn BlockBackend>, options: &Options) -> Self {
        let device = VirtioBlk::new(backend, options).expect("options are right");
        let bench = Bench::new(MEMORY, |host| VirtioPci::new(device, host).expect("it fits"));
        let virtio = Virtio::new(bench);
        let ring = virtio.ring(RINGS, options.queue_size);
        let mut this = Self { virtio, ring, place: 0 };
        this.start();
        this
    }

    /// With a queue of 64.
    pub(crate) fn small(backend: Arc<dyn BlockBackend>) -> Self {
        Self::new(backend, &Options { queue_size: 64, ..Options::default() })
    }

    /// Brings the device up with all that it offers, and queue 0 with an empty ring.
    pub(crate) fn start(&mut self) {
        self.bench.enable();
        self.agree();
        self.ring = self.new_ring(RINGS);
        let ring = &self.ring;
        let (table, avail, used) = (ring.descriptor_table(), ring.avail_ring(), ring.used_ring());
        self.enable_queue(0, table, avail, used);
        self.set_status(0xf);
        assert_eq!(self.status().bits(), 0xf);
    }

    /// An empty ring at `base`, as large as the one in use.
    pub(crate) fn new_ring(&self, base: u64) -> DriverRing<Space> {
        self.virtio.ring(base, self.ring.size())
    }

    /// Negotiates everything but EVENT_IDX, so that any completion may interrupt.
    pub(crate) fn agree(&mut self) {
        self.virtio.agree(|offered| offered & !feature::EVENT_IDX);
    }

    /// Sets up a queue, which is as large as `ring`.
    pub(crate) fn enable_queue(&mut self, index: u16, desc: u64, driver: u64, device: u64) {
        let size = self.ring.size();
        self.virtio.enable_queue(index, size, [desc, driver, device]);
    }

    /// Asks for the reset of queue 0.
    pub(crate) fn reset_queue(&mut self) {
        self.virtio.reset_queue(0);
    }

    pub(crate) fn notify(&mut self) {
        self.virtio.notify(0);
    }

    /// The header and the status of a request in their next place, and the place of an indirect
    /// table. There are 64 of them.
    pub(crate) fn frame(&mut self, kind: u32, sector: u64) -> (Buffer, Buffer, u64) {
        let at = PLACES + self.place % 64 * PLACE_LEN;
        self.place += 1;
        self.bench.poke(at, RequestHeader::new(kind, sector).as_bytes());
        self.bench.poke(at + 0x80, &[NO_STATUS]);
        (Buffer::readable(at, 16), Buffer::writable(at + 0x80, 1), at + 0x100)
    }

    /// Where the next request of [`any_request`](Self::any_request) may have its data.
    pub(crate) fn data_place(&self) -> u64 {
        DATA + self.place % 16 * DATA_LEN
    }

    /// Makes a request available, by way of a table if `indirect` says so.
    pub(crate) fn add(
        &mut self,
        kind: u32,
        sector: u64,
        data: &[Buffer],
        indirect: bool,
    ) -> Pending {
        let (header, status, table) = self.frame(kind, sector);
        let mut chain = vec![header];
        chain.extend_from_slice(data);
        chain.push(status);
        let head =
            if indirect { self.ring.add_indirect(table, &chain) } else { self.ring.add(&chain) };
        let data = data.to_vec();
        Pending { head, kind, sector, status: status.address, data }
    }

    /// A request of any kind that is right in all its parts. At most 12 can be pending. Reads are of the first half of the image,
    /// everything that changes it is in the second.
    pub(crate) fn any_request(&mut self, random: &mut Random) -> Pending {
        let at = self.data_place();
        let half = crate::support::SECTORS / 2;
        let sector = random.below(half - 32);
        let kinds = [
            request::IN,
            request::IN,
            request::OUT,
            request::FLUSH,
            request::GET_ID,
            request::DISCARD,
            request::WRITE_ZEROES,
        ];
        let kind = kinds[usize::try_from(random.below(7)).expect("small")];
        let pieces = 1 + random.below(3);
        let mut data = Vec::new();
        let mut address = at;
        for _ in 0..pieces {
            let len = match kind {
                request::IN | request::OUT => 512 * (1 + random.below(4)),
                request::GET_ID => 1 + random.below(30),
                request::DISCARD | request::WRITE_ZEROES => 16,
                _ => break,
            };
            let writable = matches!(kind, request::IN | request::GET_ID);
            let len32 = u32::try_from(len).expect("small");
            if matches!(kind, request::DISCARD | request::WRITE_ZEROES) {
                let range = RangeSegment {
                    sector: (half + random.below(half - 8)).into(),
                    num_sectors: u32::try_from(1 + random.below(8)).expect("small").into(),
                    ..RangeSegment::default()
                };
                self.bench.poke(address, range.as_bytes());
            }
            data.push(Buffer { address, len: len32, writable });
            // A gap after each, to see that it is left alone.
            address += len + random.below(64);
        }
        let sector = if kind == request::OUT { half + sector } else { sector };
        self.add(kind, sector, &data, random.one_in(2))
    }

    /// The next request that was given back, and what was claimed to be written.
    pub(crate) fn used(&mut self) -> Option<(u16, u32)> {
        self.ring.used()
    }

    pub(crate) fn status_of(&self, pending: &Pending) -> u8 {
        let mut status = [0];
        self.bench.peek(pending.status, &mut status);
        status[0]
    }
}
