//! Guest memory to try a backend with.

use std::sync::Arc;

use paraslot_device::dma::Direction;
use paraslot_device::{BusMaster, Dma, DmaBuffers};
use vm_memory::bitmap::{AtomicBitmap, Bitmap};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::block::{BlockOp, BlockRequest};

type Map = GuestMemoryMmap<AtomicBitmap>;

/// Some guest memory, which notes what was written, and lists of buffers in it.
pub struct GuestPages {
    map: Arc<Map>,
    dma: Dma<Arc<Map>>,
}

impl GuestPages {
    /// `size` bytes at guest address 0, as two regions that meet in the middle.
    pub fn new(size: usize) -> Self {
        let half = size / 2;
        let regions = [(GuestAddress(0), half), (GuestAddress(half as u64), size - half)];
        let map = Arc::new(Map::from_ranges(&regions).expect("memory"));
        let gate = BusMaster::default();
        gate.set(true);
        Self { dma: Dma::new(map.clone(), gate), map }
    }

    /// The function's way to it.
    pub fn dma(&self) -> &Dma<Arc<GuestMemoryMmap<AtomicBitmap>>> {
        &self.dma
    }

    /// Fills memory.
    pub fn write(&self, address: u64, data: &[u8]) {
        self.map.write_slice(data, GuestAddress(address)).expect("inside memory");
    }

    /// Looks at memory.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.map.read_slice(&mut data, GuestAddress(address)).expect("inside memory");
        data
    }

    /// Whether the page at `address` was written yet, by whomever.
    pub fn is_dirty(&self, address: u64) -> bool {
        let (region, address) =
            self.map.to_region_addr(GuestAddress(address)).expect("inside memory");
        region.bitmap().dirty_at(usize::try_from(address.0).expect("inside memory"))
    }

    /// A list of (address, length).
    pub fn buffers(&self, segments: &[(u64, usize)], direction: Direction) -> DmaBuffers {
        let segments = segments.iter().map(|&(address, len)| (GuestAddress(address), len));
        self.dma.memory().expect("enabled").buffers(segments, direction).expect("inside memory")
    }

    /// A read of the image at `offset` into `segments`.
    pub fn read_request(&self, token: u64, offset: u64, segments: &[(u64, usize)]) -> BlockRequest {
        self.transfer(token, BlockOp::Read, offset, segments)
    }

    /// A write of `segments` to the image at `offset`.
    pub fn write_request(
        &self,
        token: u64,
        offset: u64,
        segments: &[(u64, usize)],
    ) -> BlockRequest {
        self.transfer(token, BlockOp::Write { fua: false }, offset, segments)
    }

    fn transfer(
        &self,
        token: u64,
        op: BlockOp,
        offset: u64,
        segments: &[(u64, usize)],
    ) -> BlockRequest {
        let direction =
            if op == BlockOp::Read { Direction::FromDevice } else { Direction::ToDevice };
        let buffers = self.buffers(segments, direction);
        BlockRequest { token, op, offset, len: buffers.len() as u64, buffers }
    }
}

/// An operation without data.
pub(crate) fn plain(token: u64, op: BlockOp, offset: u64, len: u64) -> BlockRequest {
    BlockRequest { token, op, offset, len, buffers: DmaBuffers::empty(Direction::ToDevice) }
}
