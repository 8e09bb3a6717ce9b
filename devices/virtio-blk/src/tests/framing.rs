//! Chains cut up in any way, and chains that make no sense.

use paraslot_spec::virtio_blk::request;
use proptest::prelude::*;

use super::*;

/// The bytes of `buffer`, cut at the given places (modulo what is left), with a zero-length buffer
/// thrown in at each cut.
fn cut(buffer: Buffer, cuts: &[u32]) -> Vec<Buffer> {
    let mut pieces = Vec::new();
    let Buffer { mut address, mut len, writable } = buffer;
    for cut in cuts {
        if len < 2 {
            break;
        }
        let count = 1 + cut % (len - 1);
        pieces.push(Buffer { address, len: count, writable });
        pieces.push(Buffer { address: 0, len: 0, writable });
        address += u64::from(count);
        len -= count;
    }
    pieces.push(Buffer { address, len, writable });
    pieces
}

// split.framing.1
proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_cut_means_the_same(
        cuts in proptest::collection::vec(any::<u32>(), 0..5),
        kind in prop::sample::select(vec![request::IN, request::OUT, request::WRITE_ZEROES]),
        indirect: bool,
        together: bool,
    ) {
        let options = Options { queue_size: 128, ..Options::default() };
        let mut disk = Disk::new(memory(64), &options, ALL);
        prop_assert_eq!(disk.write(8, 4, 7), status::OK);
        // Header and data to write in one stretch of memory, data to read and status in another.
        let header = HEADERS + 0x4000;
        disk.ring.write(header, RequestHeader::new(kind, 8).as_bytes());
        disk.ring.write(DATA, &[POISON; 2049]);
        let (out, room) = match kind {
            request::IN => (0, 2048),
            request::OUT => {
                disk.ring.write(header + 16, &[9; 2048]);
                (2048, 0)
            }
            _ => {
                let range =
                    RangeSegment { sector: 9.into(), num_sectors: 2.into(), ..RangeSegment::default() };
                disk.ring.write(header + 16, range.as_bytes());
                (16, 0)
            }
        };
        let chain = if together {
            let mut chain = cut(Buffer::readable(header, 16 + out), &cuts);
            chain.extend(cut(Buffer::writable(DATA, room + 1), &cuts));
            chain
        } else {
            let mut chain = cut(Buffer::readable(header, 16), &cuts);
            chain.extend(cut(Buffer::readable(header + 16, out), &cuts));
            chain.extend(cut(Buffer::writable(DATA, room), &cuts));
            chain.push(Buffer::writable(DATA + u64::from(room), 1));
            chain
        };
        let head = if indirect {
            disk.ring.add_indirect(0x3_8000, &chain)
        } else {
            disk.ring.add(&chain)
        };
        disk.run();
        prop_assert_eq!(disk.ring.used(), Some((head, room + 1)));
        let answer = disk.ring.read(DATA, 2049);
        let room = usize::try_from(room).unwrap();
        prop_assert_eq!(answer[room], status::OK);
        prop_assert!(answer[..room].iter().all(|byte| *byte == 7));
        prop_assert!(answer[room + 1..].iter().all(|byte| *byte == POISON));
        let expected = match kind {
            request::IN => [7, 7, 7, 7],
            request::OUT => [9, 9, 9, 9],
            _ => [7, 0, 0, 7],
        };
        prop_assert_eq!(disk.read(8, 4), expected);
    }
}

// CH e1a63b41f: a malformed chain is either given back or breaks the queue, never silently kept.
#[test]
fn a_header_too_short_is_an_error() {
    let mut disk = Disk::simple(memory(8));
    for len in [1, 15] {
        let (header, status) = disk.frame(request::FLUSH, 0);
        let header = Buffer::readable(header.address, len);
        let head = disk.ring.add(&[header, status]);
        let pending = Pending { head, status: status.address };
        assert_eq!(disk.finish(pending), (status::IOERR, 1));
    }
    let (_, status) = disk.frame(request::FLUSH, 0);
    let head = disk.ring.add(&[status]);
    assert_eq!(disk.finish(Pending { head, status: status.address }), (status::IOERR, 1));
    assert_eq!(disk.signals.resets(), 0);
}

// CH e1a63b41f. Without a place for the status only a reset helps (basic.status.2).
#[test]
fn a_chain_that_cannot_be_answered_breaks_the_queue() {
    for status in [None, Some(Buffer::writable(DATA, 0)), Some(Buffer::writable(1 << 40, 1))] {
        let mut disk = Disk::simple(memory(8));
        let (header, _) = disk.frame(request::FLUSH, 0);
        let chain: Vec<Buffer> = [header].into_iter().chain(status).collect();
        disk.ring.add(&chain);
        disk.run();
        assert_eq!(disk.signals.resets(), 1);
        assert_eq!(disk.ring.used(), None);
        disk.add(request::FLUSH, 0, &[]);
        disk.run();
        assert_eq!((disk.ring.used(), disk.signals.resets()), (None, 1));
        assert_eq!(disk.worker.quiesce(), Progress::Idle);
    }
}

// CVE-2019-18960: buffers in no memory, and across two regions of it.
#[test]
fn data_is_where_memory_is() {
    let mut disk = Disk::simple(memory(8));
    for address in [MEMORY as u64, MEMORY as u64 - 256, 1 << 40, u64::MAX - 511] {
        let read = disk.request(request::IN, 0, &[Buffer::writable(address, 512)]);
        assert_eq!(read, (status::IOERR, 0));
        let write = disk.request(request::OUT, 0, &[Buffer::readable(address, 512)]);
        assert_eq!(write, (status::IOERR, 1));
    }
    assert_eq!(disk.write(0, 1, 7), status::OK);
    let middle = MEMORY as u64 / 2 - 100;
    let read = disk.request(request::IN, 0, &[Buffer::writable(middle, 512)]);
    assert_eq!(read, (status::OK, 513));
    assert_eq!(disk.ring.read(middle - 1, 514), [&[0][..], &[7; 512], &[0]].concat());
}

// split.desc.1: what the device may only read is never written; data beyond a read's needs is ignored.
#[test]
fn data_in_the_wrong_direction_is_left_alone() {
    let mut disk = Disk::simple(memory(8));
    disk.ring.write(DATA, &[POISON; 1024]);
    let data = [Buffer::readable(DATA, 512), Buffer::writable(DATA + 512, 512)];
    assert_eq!(disk.request(request::IN, 0, &data), (status::OK, 513));
    assert_eq!(disk.ring.read(DATA, 1024), [[POISON; 512], [0; 512]].concat());
    disk.ring.write(DATA, &[POISON; 1024]);
    // The status comes last; what lies before it was not filled, so it is not claimed.
    assert_eq!(disk.request(request::OUT, 0, &data), (status::OK, 0));
    assert_eq!(disk.ring.read(DATA, 1024), [POISON; 1024]);
}

fn any_buffer() -> impl Strategy<Value = Buffer> {
    let address = prop_oneof![
        8 => DATA..DATA + 0x8000,
        1 => MEMORY as u64 - 0x400..MEMORY as u64 + 0x10,
        1 => any::<u64>(),
    ];
    let len = prop_oneof![4 => 0u32..40, 4 => (0u32..9).prop_map(|n| n * 512), 1 => any::<u32>()];
    (address, len, any::<bool>()).prop_map(|(address, len, writable)| Buffer {
        address,
        len,
        writable,
    })
}

// P: hostile chains cost an error or a reset, each is given back at most once, and nothing is written
// but what may be.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_chain_is_survived(
        chains in proptest::collection::vec(
            (proptest::collection::vec(any_buffer(), 0..5), 0u32..30, 0u64..70, any::<bool>()),
            1..8,
        ),
    ) {
        let options = Options { queue_size: 64, ..Options::default() };
        let mut disk = Disk::new(memory(64), &options, ALL);
        disk.ring.write(DATA, &[POISON; 0x1_0000]);
        let mut heads = Vec::new();
        let mut writable = vec![];
        for (mut buffers, kind, sector, framed) in chains {
            if framed {
                buffers.sort_by_key(|buffer| buffer.writable);
                let (header, status) = disk.frame(kind, sector);
                buffers.insert(0, header);
                buffers.push(status);
            }
            if buffers.is_empty() {
                continue;
            }
            writable.extend(buffers.iter().copied().filter(|buffer| buffer.writable));
            let total: u64 =
                buffers.iter().filter(|buffer| buffer.writable).map(|b| u64::from(b.len)).sum();
            heads.push((disk.ring.add(&buffers), total));
        }
        disk.run();
        let mut used = 0;
        while let Some((head, written)) = disk.ring.used() {
            used += 1;
            let index = heads.iter().position(|(other, _)| *other == head);
            let (_, total) = heads.remove(index.expect("given back once"));
            prop_assert!(u64::from(written) <= total);
        }
        prop_assert!(heads.is_empty() || disk.signals.resets() == 1, "{used} used, rest kept");
        let memory = disk.ring.read(DATA, 0x1_0000);
        let may = |address: u64| {
            writable.iter().any(|buffer| {
                address.checked_sub(buffer.address).is_some_and(|at| at < u64::from(buffer.len))
            })
        };
        for (address, byte) in (DATA..).zip(memory) {
            prop_assert!(byte == POISON || may(address), "{address:#x} was written");
        }
    }
}
