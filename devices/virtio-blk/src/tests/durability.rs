//! What survives a power failure at any moment.

use std::mem::offset_of;

use paraslot_backends::block::BlockOp;
use paraslot_backends::block::testing::{Event, GatedBackend, RecordingBackend};
use paraslot_spec::virtio_blk::{Config, feature, request};
use proptest::prelude::*;

use super::*;

/// Whether the write that was asked for reached the backend as a forced unit access.
fn write_is_stable(write_cache: bool, features: u64, writeback: Option<u8>) -> bool {
    let backend = RecordingBackend::new(volatile(8));
    let log = backend.log();
    let options = Options { queue_size: 16, write_cache: Some(write_cache), ..Options::default() };
    let mut disk = Disk::new(backend, &options, features);
    if let Some(value) = writeback {
        let offset = offset_of!(Config, writeback) as u64;
        VirtioDevice::<Space>::write_config(&mut disk.device, offset, &[value]);
    }
    assert_eq!(disk.write(0, 1, 7), status::OK);
    assert_eq!(disk.ranges(request::WRITE_ZEROES, &[(1, 1, 0)]), status::OK);
    let operations: Vec<BlockOp> = log
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Submitted { op, .. } => Some(op),
            Event::Completed { .. } => None,
        })
        .collect();
    let zeroes = BlockOp::WriteZeroes { unmap: false };
    match operations[..] {
        [BlockOp::Write { fua: true }, op, BlockOp::Flush] if op == zeroes => true,
        [BlockOp::Write { fua: false }, op] if op == zeroes => false,
        _ => panic!("{operations:?}"),
    }
}

// blk.op.13, blk.init.3, CH 5ae329305: the conditions of 5.2.6.2 under which a completed write is
// stable.
#[test]
fn writes_are_stable_when_they_must_be() {
    let (flush, wce) = (feature::FLUSH, feature::CONFIG_WCE);
    let zeroes = feature::WRITE_ZEROES;
    for (write_cache, features, writeback, expected) in [
        (true, flush, None, false),
        (true, 0, None, true),
        (true, wce, None, true),
        (true, wce, Some(1), false),
        (true, wce | flush, None, false),
        (true, wce | flush, Some(0), true),
        (false, wce | flush, None, true),
        (false, wce | flush, Some(1), false),
        (false, flush, None, true),
        (false, 0, None, true),
    ] {
        let stable = write_is_stable(write_cache, features | zeroes, writeback);
        assert_eq!(stable, expected, "{write_cache} {features:#x} {writeback:?}");
    }
}

/// One step of a driver and its disk.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Write the next sector.
    Write,
    /// Write zeroes to the next sector, which is not zero before.
    Zero,
    Flush,
    /// Let the backend go on with one of its operations, this one of those held.
    Release(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Write),
        1 => Just(Step::Zero),
        2 => Just(Step::Flush),
        6 => any::<prop::sample::Index>().prop_map(Step::Release),
    ]
}

/// A sector that the driver may rely on after a cut at or after this event.
struct Promise {
    since: usize,
    sector: usize,
    byte: u8,
}

const SECTORS: usize = 64;
const BEFORE: u8 = 0x55;

// blk.op.13 at every cut point: what the driver was told is stable survives, whatever else is lost.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_was_promised_survives(
        steps in proptest::collection::vec(step(), 1..60),
        write_cache: bool,
    ) {
        let image = volatile(SECTORS as u64);
        image.write_at(0, &[BEFORE; SECTORS * 512]).unwrap();
        let recording = RecordingBackend::new(image);
        let log = recording.log();
        let backend = GatedBackend::new(recording);
        let gate = backend.gate();
        let options =
            Options { queue_size: 256, write_cache: Some(write_cache), ..Options::default() };
        let mut disk = Disk::new(backend, &options, ALL);
        let mut promises: Vec<Promise> = Vec::new();
        // By head: the sector and byte of a write, or what was completed when a flush was sent.
        let mut writes = std::collections::HashMap::new();
        let mut flushes = std::collections::HashMap::new();
        let mut completed: Vec<(usize, u8)> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Write | Step::Zero if next == SECTORS => {}
                Step::Write => {
                    let byte = u8::try_from(next + 1).unwrap();
                    let address = DATA + next as u64 * 512;
                    disk.ring.write(address, &[byte; 512]);
                    let data = [Buffer::readable(address, 512)];
                    let pending = disk.add(request::OUT, next as u64, &data);
                    writes.insert(pending.head, (next, byte));
                    next += 1;
                }
                Step::Zero => {
                    let pending =
                        disk.add_ranges(request::WRITE_ZEROES, &[(next as u64, 1, 0)]);
                    writes.insert(pending.head, (next, 0));
                    next += 1;
                }
                Step::Flush => {
                    let pending = disk.add(request::FLUSH, 0, &[]);
                    flushes.insert(pending.head, completed.clone());
                }
                Step::Release(index) => {
                    if gate.held() != 0 {
                        gate.release_at(index.index(gate.held()));
                    }
                }
            }
            disk.run();
            let since = log.len();
            while let Some((head, _)) = disk.ring.used() {
                if let Some((sector, byte)) = writes.remove(&head) {
                    completed.push((sector, byte));
                    if !write_cache {
                        promises.push(Promise { since, sector, byte });
                    }
                }
                for (sector, byte) in flushes.remove(&head).into_iter().flatten() {
                    promises.push(Promise { since, sector, byte });
                }
            }
        }
        for cut in 0..=log.len() {
            let mut after = vec![BEFORE; SECTORS * 512];
            log.after_power_cut(cut, &mut after, |operation| operation % 3 == cut % 3);
            let mut least = vec![BEFORE; SECTORS * 512];
            log.after_power_cut(cut, &mut least, |_| false);
            for promise in promises.iter().filter(|promise| promise.since <= cut) {
                for image in [&after, &least] {
                    let range = promise.sector * 512..(promise.sector + 1) * 512;
                    prop_assert!(
                        image[range].iter().all(|byte| *byte == promise.byte),
                        "sector {} lost at {cut}", promise.sector
                    );
                }
            }
        }
    }
}
