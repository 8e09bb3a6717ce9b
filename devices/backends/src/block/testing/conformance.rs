//! What every backend must do, and the guest memory to try it with.

use std::collections::BTreeSet;
use std::sync::Arc;

use paraslot_device::dma::Direction;
use paraslot_device::{BusMaster, Dma, DmaBuffers, Source};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::block::{BlockBackend, BlockCompletion, BlockError, BlockOp, BlockQueue, BlockRequest};

/// Some guest memory, and lists of buffers in it.
pub struct GuestPages {
    map: Arc<GuestMemoryMmap>,
    dma: Dma<Arc<GuestMemoryMmap>>,
}

impl GuestPages {
    /// `size` bytes at guest address 0, as two regions that meet in the middle.
    pub fn new(size: usize) -> Self {
        let half = size / 2;
        let regions = [(GuestAddress(0), half), (GuestAddress(half as u64), size - half)];
        let map = Arc::new(GuestMemoryMmap::from_ranges(&regions).expect("memory"));
        let gate = BusMaster::default();
        gate.set(true);
        Self { dma: Dma::new(map.clone(), gate), map }
    }

    /// The function's way to it.
    pub fn dma(&self) -> &Dma<Arc<GuestMemoryMmap>> {
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

/// Starts what was submitted and waits for all of it, sleeping on the queue's source; in the order of
/// completion. A minute without a ring is a lost wake-up, and a panic.
pub fn finish(queue: &mut dyn BlockQueue) -> Vec<BlockCompletion> {
    let epoll = Epoll::new().expect("epoll");
    if let Some(Source::Event(fd) | Source::Readable(fd)) = queue.source() {
        // Edge-triggered, so that nobody need read it.
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        epoll.ctl(ControlOperation::Add, fd, event).expect("a descriptor to wait for");
    }
    let mut completions = Vec::new();
    queue.commit();
    queue.complete(&mut completions);
    while queue.in_flight() != 0 {
        let rung = loop {
            match epoll.wait(60_000, &mut [EpollEvent::default()]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => break result.expect("epoll"),
            }
        };
        assert!(rung == 1, "{} in flight and no wake-up", queue.in_flight());
        queue.complete(&mut completions);
    }
    completions
}

fn one(queue: &mut dyn BlockQueue, request: BlockRequest) -> Result<(), BlockError> {
    let token = request.token;
    queue.submit(request).expect("an empty queue has room");
    let mut completions = finish(queue);
    assert_eq!(completions.len(), 1);
    let completion = completions.remove(0);
    assert_eq!(completion.token, token);
    completion.result
}

/// Bytes that differ from place to place and from seed to seed.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

const MEMORY: usize = 4 << 20;
/// Where reads go; writes come from 0.
const INPUT: u64 = 2 << 20;
const CANARY: u8 = 0xc5;

/// Tries `backend` against the contract, and overwrites it. `stores` is false for one that forgets
/// what was written. It needs an image of at least 1 MiB that can be written.
///
/// # Panics
/// Where it falls short of the contract.
pub fn conformance(backend: &dyn BlockBackend, stores: bool) {
    let info = backend.info();
    assert!(info.capacity >= 1 << 20 && !info.read_only, "not an image to try: {info:?}");
    assert!(info.physical_block >= info.logical_block && info.physical_block.is_power_of_two());
    let guest = GuestPages::new(MEMORY);
    if stores {
        scatter_lists(backend, &guest);
        ranges(backend, &guest);
        queues_at_once(backend);
    }
    depth(backend, &guest);
    refusals(backend, &guest);
    dropping(backend, &guest);
}

/// Splits `len` bytes from `base` into pieces of the given sizes, in turn, with a gap after each.
fn split(base: u64, len: usize, sizes: &[usize]) -> Vec<(u64, usize)> {
    let mut list = Vec::new();
    let (mut address, mut left) = (base, len);
    for &size in sizes.iter().cycle() {
        let size = size.min(left);
        list.push((address, size));
        left -= size;
        address += size as u64 + 3;
        if left == 0 {
            break;
        }
    }
    list
}

fn scatter_lists(backend: &dyn BlockBackend, guest: &GuestPages) {
    let block = backend.info().logical_block as usize;
    let mut queue = backend.open_queue(4).expect("a queue");
    // One piece, aligned and not; pieces of odd sizes; more pieces than one system call takes; a
    // piece across two memory regions; and more than a bounce buffer holds, both ways.
    let cases: [(u64, usize, Vec<usize>); 7] = [
        (0x1000, 8 * block, vec![8 * block]),
        (0x1001, 8 * block, vec![8 * block]),
        (0x2000, 4 * block, vec![1, 511, 3, 509]),
        (0x3003, 16 * block, vec![7, 1, 2]),
        (0x1000, 512 * 1024, vec![4096]),
        (0x1003, 512 * 1024, vec![65_537, 13]),
        (MEMORY as u64 / 2 - 1000, 4 * block, vec![4 * block]),
    ];
    let offset = 3 * block as u64;
    let mut seed = 0;
    for (index, (base, len, sizes)) in cases.iter().enumerate() {
        for (other, _, shape) in cases.iter().cycle().skip(index).take(2) {
            seed += 1;
            let data = pattern(seed, *len);
            let source = split(*base, *len, sizes);
            let mut rest = &data[..];
            for &(address, count) in &source {
                guest.write(address, &rest[..count]);
                rest = &rest[count..];
            }
            one(&mut *queue, guest.write_request(seed, offset, &source)).expect("write");
            guest.write(0, &vec![CANARY; MEMORY]);
            let target = split(*other, *len, shape);
            one(&mut *queue, guest.read_request(seed, offset, &target)).expect("read");
            let mut memory = guest.read(0, MEMORY);
            let mut read = Vec::new();
            for &(address, count) in &target {
                let start = usize::try_from(address).expect("small");
                read.extend_from_slice(&memory[start..start + count]);
                memory[start..start + count].fill(CANARY);
            }
            assert!(read == data, "case {seed}: other data came back");
            assert!(memory == vec![CANARY; MEMORY], "case {seed}: more was written");
        }
    }
}

fn ranges(backend: &dyn BlockBackend, guest: &GuestPages) {
    let info = backend.info();
    let block = u64::from(info.logical_block);
    let area = usize::try_from(64 * block).expect("small");
    let mut queue = backend.open_queue(4).expect("a queue");
    let mut clearing = vec![(BlockOp::Discard, false)];
    if info.write_zeroes {
        clearing.push((BlockOp::WriteZeroes { unmap: false }, true));
        clearing.push((BlockOp::WriteZeroes { unmap: true }, true));
    }
    if info.secure_erase {
        clearing.push((BlockOp::SecureErase, true));
    }
    for (seed, (op, zeroes)) in clearing.into_iter().enumerate() {
        for (first, count) in [(0, 1), (1, 17), (8, 32), (3, 61), (0, 64)] {
            let mut data = pattern(seed as u64 + 77, area);
            guest.write(0, &data);
            one(&mut *queue, guest.write_request(1, 0, &[(0, area)])).expect("write");
            one(&mut *queue, plain(2, op, first * block, count * block)).expect("clear");
            one(&mut *queue, guest.read_request(4, 0, &[(INPUT, area)])).expect("read");
            let mut read = guest.read(INPUT, area);
            let start = usize::try_from(first * block).expect("small");
            let end = start + usize::try_from(count * block).expect("small");
            if zeroes {
                data[start..end].fill(0);
            } else {
                data[start..end].fill(1);
                read[start..end].fill(1);
            }
            assert!(read == data, "{op:?} of {count} blocks at {first}");
        }
    }
}

fn depth(backend: &dyn BlockBackend, guest: &GuestPages) {
    let block = u64::from(backend.info().logical_block);
    let size = usize::try_from(block).expect("small");
    for depth in [1, 3, 32] {
        let mut queue = backend.open_queue(depth).expect("a queue");
        for round in 0..2 {
            for index in 0..u64::from(depth) {
                let segment = [(index * block, size)];
                let request = match (index + round) % 3 {
                    0 => guest.read_request(index << 40, index * block, &segment),
                    1 => guest.write_request(index << 40, index * block, &segment),
                    _ => plain(index << 40, BlockOp::Flush, 0, 0),
                };
                assert!(queue.submit(request).is_ok(), "{index} of {depth}");
                assert_eq!(queue.in_flight() as u64, index + 1);
            }
            let back = queue.submit(plain(99, BlockOp::Flush, 0, 0)).expect_err("full");
            assert_eq!((back.token, back.op), (99, BlockOp::Flush));
            let completions = finish(&mut *queue);
            assert!(completions.iter().all(|completion| completion.result.is_ok()));
            let tokens: BTreeSet<u64> = completions.iter().map(|c| c.token).collect();
            assert_eq!(completions.len() as u64, u64::from(depth), "each completes once");
            assert!(tokens.into_iter().eq((0..u64::from(depth)).map(|index| index << 40)));
            let mut more = Vec::new();
            queue.complete(&mut more);
            assert!(more.is_empty() && queue.in_flight() == 0);
        }
    }
}

// The device checks ranges; a backend does not rely on it.
fn refusals(backend: &dyn BlockBackend, guest: &GuestPages) {
    let info = backend.info();
    let block = u64::from(info.logical_block);
    let size = usize::try_from(block).expect("small");
    let mut queue = backend.open_queue(4).expect("a queue");
    guest.write(0, &vec![CANARY; size]);
    for offset in [info.capacity, u64::MAX - block + 1, u64::MAX] {
        let segment = [(0, size)];
        for request in [
            guest.read_request(1, offset, &segment),
            guest.write_request(2, offset, &segment),
            plain(3, BlockOp::Discard, offset, block),
            plain(4, BlockOp::WriteZeroes { unmap: false }, offset, block),
            plain(5, BlockOp::SecureErase, offset, block),
            plain(6, BlockOp::WriteZeroes { unmap: true }, 0, u64::MAX),
        ] {
            let op = request.op;
            let error = one(&mut *queue, request).expect_err("outside the image");
            assert!(matches!(error, BlockError::OutOfRange), "{op:?} at {offset:#x}: {error}");
        }
    }
    let mut backwards = guest.write_request(7, 0, &[(0, size)]);
    backwards.op = BlockOp::Read;
    assert!(one(&mut *queue, backwards).is_err(), "a read into memory that is not for writing");
    assert_eq!(guest.read(0, size), vec![CANARY; size]);
}

// CH 7e2e7a164: buffers still written after their queue was gone.
fn dropping(backend: &dyn BlockBackend, guest: &GuestPages) {
    const LEN: usize = 64 << 10;
    for (depth, committed) in [(1, false), (8, false), (1, true), (8, true)] {
        let mut queue = backend.open_queue(depth).expect("a queue");
        guest.write(INPUT, &vec![CANARY; LEN * 8]);
        for index in 0..u64::from(depth) {
            let segment = [(INPUT + index * LEN as u64, LEN)];
            assert!(queue.submit(guest.read_request(index, 0, &segment)).is_ok());
        }
        if committed {
            queue.commit();
        }
        drop(queue);
        let after = guest.read(INPUT, LEN * 8);
        let mut queue = backend.open_queue(1).expect("a queue");
        for token in 0..8 {
            one(&mut *queue, guest.read_request(token, 0, &[(0, LEN)])).expect("read");
        }
        assert!(guest.read(INPUT, LEN * 8) == after, "written after the queue was dropped");
    }
}

fn queues_at_once(backend: &dyn BlockBackend) {
    const LEN: usize = 64 << 10;
    std::thread::scope(|scope| {
        for index in 0..3 {
            scope.spawn(move || {
                let guest = GuestPages::new(MEMORY);
                let mut queue = backend.open_queue(2).expect("a queue");
                let offset = index * LEN as u64;
                for round in 0..3 {
                    let data = pattern(index * 100 + round, LEN);
                    guest.write(0, &data);
                    one(&mut *queue, guest.write_request(1, offset, &[(0, LEN)])).expect("write");
                    one(&mut *queue, plain(2, BlockOp::Flush, 0, 0)).expect("flush");
                    let read = guest.read_request(3, offset, &[(INPUT, LEN)]);
                    one(&mut *queue, read).expect("read");
                    assert!(guest.read(INPUT, LEN) == data, "queue {index}, round {round}");
                }
            });
        }
    });
}
