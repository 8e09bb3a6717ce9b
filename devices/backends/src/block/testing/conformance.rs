//! What every backend must do.

mod cancelling;

use std::collections::BTreeSet;

use paraslot_device::Source;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::{GuestPages, plain};
use crate::block::{BlockBackend, BlockCompletion, BlockError, BlockOp, BlockQueue, BlockRequest};

/// A queue's source, to be slept on.
struct Bell(Epoll);

impl Bell {
    fn new(queue: &dyn BlockQueue) -> Self {
        let epoll = Epoll::new().expect("epoll");
        for Source::Event(fd) | Source::Readable(fd) in queue.sources() {
            // Edge-triggered, so that nobody need read it.
            let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
            epoll.ctl(ControlOperation::Add, fd, event).expect("a descriptor to wait for");
        }
        Self(epoll)
    }

    /// A minute without a ring is a lost wake-up, and a panic.
    fn wait(&self) {
        let rung = loop {
            match self.0.wait(60_000, &mut [EpollEvent::default()]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => break result.expect("epoll"),
            }
        };
        assert!(rung >= 1, "operations in flight and no wake-up");
    }
}

/// Starts what was submitted and waits for all of it, sleeping on the queue's source; in the order of
/// completion. A minute without a ring is a lost wake-up, and a panic.
pub fn finish(queue: &mut dyn BlockQueue) -> Vec<BlockCompletion> {
    let bell = Bell::new(queue);
    let mut completions = Vec::new();
    queue.commit();
    queue.complete(&mut completions);
    while queue.in_flight() != 0 {
        bell.wait();
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
    let mut data = vec![0; len];
    for chunk in data.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    data
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
        dirty_pages(backend);
        ranges(backend, &guest);
        queues_at_once(backend);
    }
    depth(backend, &guest);
    wake_ups(backend, &guest);
    refusals(backend, &guest);
    cancelling::try_all(backend, &guest, stores);
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

// What a read has written is noted for migration, aligned or not; a write notes nothing.
fn dirty_pages(backend: &dyn BlockBackend) {
    let block = backend.info().logical_block as usize;
    let mut queue = backend.open_queue(1).expect("a queue");
    for shift in [0, 5] {
        let segments = [(0x2000 + shift, block), (0x8000 + shift, 3 * block)];
        let guest = GuestPages::new(1 << 17);
        one(&mut *queue, guest.write_request(1, 0, &segments)).expect("write");
        let dirty = |pages: &[u64]| pages.iter().map(|page| guest.is_dirty(*page)).collect();
        let seen: Vec<bool> = dirty(&[0x1000, 0x2000, 0x8000]);
        assert_eq!(seen, [false, false, false]);
        one(&mut *queue, guest.read_request(1, 0, &segments)).expect("read");
        let seen: Vec<bool> = dirty(&[0x1000, 0x2000, 0x7000, 0x8000, 0xc000]);
        assert_eq!(seen, [false, true, false, true, false]);
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

// Whoever commits and then sleeps is woken, also for what fails at once; and what has completed takes
// up room until it is collected.
fn wake_ups(backend: &dyn BlockBackend, guest: &GuestPages) {
    let info = backend.info();
    let size = usize::try_from(info.logical_block).expect("small");
    for offset in [0, info.capacity] {
        let mut queue = backend.open_queue(2).expect("a queue");
        let bell = Bell::new(&*queue);
        let mut completions = Vec::new();
        for round in 0..3 {
            for token in 0..2 {
                let request = guest.read_request(token, offset, &[(0, size)]);
                assert!(queue.submit(request).is_ok(), "round {round}");
            }
            queue.commit();
            while queue.in_flight() != 0 {
                if !queue.sources().is_empty() {
                    bell.wait();
                }
                if queue.in_flight() == 2 {
                    let refused = queue.submit(plain(9, BlockOp::Flush, 0, 0));
                    assert!(refused.is_err(), "more than the depth");
                }
                queue.complete(&mut completions);
            }
            assert_eq!(completions.len(), 2);
            completions.clear();
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
