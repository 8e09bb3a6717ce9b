//! Backends that fail.

use std::sync::atomic::{AtomicUsize, Ordering};

use paraslot_backends::block::testing::FaultBackend;
use paraslot_backends::block::{BlockError, BlockOp};
use paraslot_spec::virtio_blk::request;

use super::*;

/// One request of each kind, all at once; how each ended, and the bytes claimed.
fn one_of_each(disk: &mut Disk) -> Vec<(u8, u32)> {
    disk.ring.write(DATA, &[POISON; 0x1000]);
    let pending = [
        disk.add(request::OUT, 0, &[Buffer::readable(DATA, 512)]),
        disk.add(request::IN, 1, &[Buffer::writable(DATA + 512, 512)]),
        disk.add(request::FLUSH, 0, &[]),
        disk.add_ranges(request::DISCARD, &[(2, 1, 0), (3, 1, 0)]),
        disk.add_ranges(request::WRITE_ZEROES, &[(4, 1, 0), (5, 1, 0)]),
        disk.add_ranges(request::SECURE_ERASE, &[(6, 1, 0), (7, 1, 0)]),
    ];
    disk.run();
    let mut answers = vec![None; pending.len()];
    while let Some((head, written)) = disk.ring.used() {
        let index = pending.iter().position(|pending| pending.head == head).unwrap();
        let answer = (disk.status(pending[index]), written);
        assert!(answers[index].replace(answer).is_none(), "answered twice");
    }
    answers.into_iter().map(|answer| answer.expect("answered")).collect()
}

const OPERATIONS: [(u64, usize); 9] =
    [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 4), (7, 5), (8, 5)];

// Each operation fails in turn: exactly its request fails, with the right status, once; what is
// claimed to be written was.
#[test]
fn each_operation_fails_its_request() {
    for errno in [libc::EIO, libc::ENOSPC, libc::EOPNOTSUPP] {
        for (operation, request) in OPERATIONS {
            let backend = FaultBackend::nth(memory(64), operation, errno);
            let mut disk =
                Disk::new(backend, &Options { queue_size: 32, ..Options::default() }, ALL);
            let answers = one_of_each(&mut disk);
            for (index, answer) in answers.into_iter().enumerate() {
                let read = index == 1;
                let expected = match (index == request, errno) {
                    (false, _) => status::OK,
                    (true, libc::EOPNOTSUPP) => status::UNSUPP,
                    (true, _) => status::IOERR,
                };
                // CVE-2016-6836 and its like: a failed read claims nothing, and shows nothing.
                let written = match (read, expected) {
                    (true, status::OK) => 513,
                    (true, _) => 0,
                    (false, _) => 1,
                };
                assert_eq!(answer, (expected, written), "operation {operation}, request {index}");
            }
            if request == 1 {
                assert_eq!(disk.ring.read(DATA + 512, 512), [POISON; 512]);
            }
            assert_eq!(disk.signals.resets(), 0);
        }
    }
}

// After a flush has failed, none succeeds.
#[test]
fn a_failed_flush_is_not_forgotten() {
    let mut disk = Disk::simple(FaultBackend::nth(memory(64), 1, libc::EIO));
    assert_eq!(disk.write(0, 1, 7), status::OK);
    for _ in 0..3 {
        assert_eq!(disk.request(request::FLUSH, 0, &[]), (status::IOERR, 1));
    }
    assert_eq!(disk.read(0, 1), [7]);
}

// Zeroes that must be stable are not, if the flush after them fails.
#[test]
fn a_flush_that_belongs_to_write_zeroes_fails_them() {
    let flushes = Arc::new(AtomicUsize::new(0));
    let seen = flushes.clone();
    let backend = FaultBackend::new(volatile(64), move |_, request| {
        (request.op == BlockOp::Flush).then(|| {
            seen.fetch_add(1, Ordering::Relaxed);
            BlockError::Io(std::io::Error::from_raw_os_error(libc::EIO))
        })
    });
    let options = Options { queue_size: 16, write_cache: Some(false), ..Options::default() };
    let mut disk = Disk::new(backend, &options, ALL);
    assert_eq!(disk.ranges(request::WRITE_ZEROES, &[(0, 1, 0), (2, 1, 0)]), status::IOERR);
    assert_eq!(flushes.load(Ordering::Relaxed), 1);
    // What is not volatile is not flushed.
    assert_eq!(disk.ranges(request::DISCARD, &[(0, 1, 0)]), status::OK);
    assert_eq!(flushes.load(Ordering::Relaxed), 1);
}

// Of several ranges one fails while the rest is in flight or waits: one answer, when all have ended,
// and nothing more is begun.
#[test]
fn a_failed_range_ends_its_request_once() {
    for (failing, begun) in [(0, 16), (7, 16), (15, 16), (16, 32), (30, 32), (39, 40)] {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = count.clone();
        let backend = FaultBackend::new(memory(64), move |index, _| {
            seen.fetch_add(1, Ordering::Relaxed);
            (index == failing).then(|| BlockError::Io(std::io::Error::from_raw_os_error(libc::EIO)))
        });
        let mut disk = Disk::simple(backend);
        let ranges: Vec<(u64, u32, u32)> = (0..40).map(|sector| (sector, 1, 0)).collect();
        assert_eq!(disk.ranges(request::WRITE_ZEROES, &ranges), status::IOERR);
        assert_eq!(count.load(Ordering::Relaxed), begun, "{failing}");
        assert_eq!(disk.request(request::FLUSH, 0, &[]), (status::OK, 1));
    }
}

#[test]
fn the_first_of_several_errors_counts() {
    let backend = FaultBackend::new(memory(64), |index, _| match index {
        0 => None,
        1 => Some(BlockError::NoSpace),
        _ => Some(BlockError::Unsupported),
    });
    let mut disk = Disk::simple(backend);
    let ranges = [(0, 1, 0), (1, 1, 0), (2, 1, 0)];
    assert_eq!(disk.ranges(request::WRITE_ZEROES, &ranges), status::IOERR);
}
