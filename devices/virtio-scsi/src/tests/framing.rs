//! Chains cut up in any way, and chains that make no sense.

use paraslot_spec::virtio_scsi::{AnResponse, tmf};
use proptest::prelude::*;

use super::*;

const UNIT: Address = Address { target: 0, lun: 0 };

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
        writes: bool,
        indirect: bool,
        sizes in prop::sample::select(vec![(96, 32), (252, 260), (20, 10)]),
    ) {
        let mut host = Host::simple(memory(64));
        host.store(UNIT, 8, 4, 7);
        let (sense_size, cdb_size) = sizes;
        host.set_sizes(sense_size, cdb_size);
        // What is read in one stretch of memory, what is written in another.
        let (front, back) = (DATA, DATA + 0x4000);
        let cdb = if writes { write_10(9, 2) } else { read_10(7, 3) };
        let header = RequestHeader { lun: Lun::new(0, 0), ..RequestHeader::default() };
        let mut bytes = [header.as_bytes(), &cdb].concat();
        bytes.resize(19 + cdb_size as usize, 0);
        let (out, into) = if writes { (1024, 0) } else { (0, 1536) };
        bytes.resize(bytes.len() + out as usize, 9);
        host.write(front, &bytes);
        host.write(back, &[POISON; 0x1000]);
        let mut chain = cut(Buffer::readable(front, 19 + cdb_size + out), &cuts);
        chain.extend(cut(Buffer::writable(back, 12 + sense_size + into), &cuts));
        let head = if indirect {
            host.first().ring.add_indirect(0x1_8000, &chain)
        } else {
            host.first().ring.add(&chain)
        };
        let queue = usize::from(FIRST_REQUEST_QUEUE);
        let answer = host.finish(Pending { queue, head, back, id: 0 });
        prop_assert!(answer.is_good(), "{answer:?}");
        prop_assert_eq!((answer.written, answer.residual), (12 + sense_size + into, 0));
        let data = host.read(back + 12 + u64::from(sense_size), 1537);
        if writes {
            prop_assert!(data.iter().all(|byte| *byte == POISON));
        } else {
            let expected = [&[0; 512][..], &[7; 1024], &[POISON]].concat();
            prop_assert_eq!(data, expected);
        }
        host.set_sizes(96, 32);
        let expected = if writes { [7, 9, 9, 7] } else { [7; 4] };
        prop_assert_eq!(host.load(UNIT, 8, 4), expected);
    }
}

// CH e1a63b41f: a malformed chain is either given back or breaks the queue, never silently kept.
// scsi.requestq.2j: what lacks a part of its header, or of the place for sense data, has failed.
#[test]
fn a_frame_that_is_not_whole_fails() {
    let mut host = Host::simple(memory(8));
    for (front_len, back_len) in [(0, 108), (18, 108), (50, 108), (51, 12), (51, 107), (0, 12)] {
        let (front, back, _) = host.frame(Lun::new(0, 0), &TEST_UNIT_READY);
        let front = Buffer { len: front_len, ..front };
        let head = host.first().ring.add(&[front, Buffer { len: back_len, ..back }]);
        host.run();
        assert_eq!(host.first().ring.used(), Some((head, back_len)), "{front_len} {back_len}");
        let bytes = host.read(back.address, 109);
        let (header, rest) = ResponseHeader::read_from_prefix(&bytes).unwrap();
        assert_eq!((header.response, header.status), (response::FAILURE, 0));
        assert_eq!((header.sense_len.get(), header.residual.get()), (0, 0));
        let len = back_len as usize - 12;
        assert!(rest[..len].iter().all(|byte| *byte == 0));
        assert!(rest[len..].iter().all(|byte| *byte == POISON));
    }
    assert_eq!(host.resets(), 0);
    assert_eq!(host.load(UNIT, 0, 1), [0]);
}

// CH e1a63b41f. Without a place for the response only a reset helps (basic.status.2).
#[test]
fn a_chain_that_cannot_be_answered_breaks_the_queue() {
    let nowhere = Buffer::writable(1 << 40, 108);
    let half = [Buffer::writable(BACKS, 50), Buffer::writable(MEMORY as u64 - 10, 58)];
    for back in [&[][..], &[Buffer::writable(BACKS, 11)], &[nowhere], &half] {
        let mut host = Host::simple(memory(8));
        let before = host.read(MEMORY as u64 - 16, 16);
        let (front, _, _) = host.frame(Lun::new(0, 0), &TEST_UNIT_READY);
        host.first().ring.add(&[&[front], back].concat());
        host.run();
        assert_eq!(host.first().signals.resets(), 1);
        assert_eq!(host.first().ring.used(), None);
        host.add(UNIT, &TEST_UNIT_READY, &[]);
        host.run();
        assert_eq!((host.first().ring.used(), host.first().signals.resets()), (None, 1));
        assert_eq!(host.first().worker.quiesce(), Progress::Idle);
        assert_eq!(host.read(MEMORY as u64 - 16, 16), before);
    }
}

// CVE-2019-18960: buffers in no memory, and across two regions of it.
#[test]
fn data_is_where_memory_is() {
    let mut host = Host::simple(memory(8));
    for address in [MEMORY as u64, MEMORY as u64 - 256, 1 << 40, u64::MAX - 511] {
        let answer = host.request(UNIT, &read_10(0, 1), &[Buffer::writable(address, 512)]);
        assert_eq!((answer.response, answer.residual), (response::FAILURE, 512));
        assert_eq!(answer.written, BACK);
        let answer = host.request(UNIT, &write_10(0, 1), &[Buffer::readable(address, 512)]);
        assert_eq!((answer.response, answer.residual), (response::FAILURE, 512));
    }
    host.store(UNIT, 0, 1, 7);
    let middle = MEMORY as u64 / 2 - 100;
    let answer = host.request(UNIT, &read_10(0, 1), &[Buffer::writable(middle, 512)]);
    assert!(answer.is_good(), "{answer:?}");
    assert_eq!(host.read(middle - 1, 514), [&[0][..], &[7; 512], &[0]].concat());
    // A header that is not memory.
    let (_, back, id) = host.frame(Lun::new(0, 0), &TEST_UNIT_READY);
    let head = host.first().ring.add(&[Buffer::readable(1 << 40, 51), back]);
    let queue = usize::from(FIRST_REQUEST_QUEUE);
    let answer = host.finish(Pending { queue, head, back: back.address, id });
    assert_eq!(answer.response, response::FAILURE);
    // The response across two regions.
    let middle = MEMORY as u64 / 2 - 50;
    let (front, _, id) = host.frame(Lun::new(0, 0), &[0xff]);
    let head = host.first().ring.add(&[front, Buffer::writable(middle, 108)]);
    let answer = host.finish(Pending { queue, head, back: middle, id });
    assert_eq!(answer.code(), (5, 0x20, 0));
}

// What cannot be answered on the control queue, and what can be although it makes no sense.
#[test]
fn control_requests_that_make_no_sense() {
    let an = control::AN_QUERY.to_le_bytes();
    let tmf = control::TMF.to_le_bytes();
    for (request, room) in [
        (&tmf[..], 0),
        (&[0xff; 4], 0),
        (&[], 0),
        (&[&an[..], &[0; 12]].concat(), 0),
        (&[&an[..], &[0; 12]].concat(), 4),
    ] {
        let mut host = Host::simple(memory(8));
        host.add_control(request, room);
        host.run();
        assert_eq!(host.control().signals.resets(), 1, "{request:?}");
        assert_eq!(host.control().ring.used(), None);
    }
    let mut host = Host::simple(memory(8));
    for (request, room, place, written) in [
        // A function without its end.
        (&tmf[..], 1, 0, 1),
        (&[&tmf[..], &[0; 19]].concat(), 1, 0, 1),
        (&[&tmf[..], &[0; 19]].concat(), 8, 0, 1),
        // A question without its end.
        (&[&an[..], &[0; 11]].concat(), 5, 4, 5),
        (&[&an[..], &[0; 11]].concat(), 9, 4, 5),
        // Kinds that there are not, and none at all.
        (&[3, 0, 0, 0], 1, 0, 1),
        (&[0xff; 64], 7, 6, 0),
        (&[0, 0, 0], 1, 0, 1),
        (&[], 5, 4, 0),
    ] {
        let pending = host.add_control(request, room);
        host.run();
        assert_eq!(host.control().ring.used(), Some((pending.head, written)), "{request:?}");
        let bytes = host.read(pending.back, 16);
        assert_eq!(bytes[place], response::FAILURE, "{request:?}");
        assert!(bytes[place + 1..].iter().all(|byte| *byte == POISON));
    }
    assert_eq!(host.resets(), 0);
}

// split.framing.1, for the control queue.
#[test]
fn control_requests_in_pieces() {
    let mut host = Host::simple(memory(8));
    let request = TmfRequest {
        kind: control::TMF.into(),
        subtype: tmf::QUERY_TASK_SET.into(),
        lun: Lun::new(0, 0),
        id: 0.into(),
    };
    host.write(FRONTS, request.as_bytes());
    host.write(BACKS, &[POISON; 16]);
    let mut chain = cut(Buffer::readable(FRONTS, 24), &[1, 5, 9]);
    chain.extend([Buffer::writable(BACKS, 0), Buffer::writable(BACKS, 1)]);
    let head = host.control().ring.add(&chain);
    host.run();
    assert_eq!(host.control().ring.used(), Some((head, 1)));
    assert_eq!(host.read(BACKS, 2), [response::FUNCTION_COMPLETE, POISON]);

    let request = AnRequest {
        kind: control::AN_SUBSCRIBE.into(),
        lun: Lun::new(0, 0),
        event_requested: u32::MAX.into(),
    };
    host.write(FRONTS, request.as_bytes());
    let mut chain = cut(Buffer::readable(FRONTS, 16), &[3, 4]);
    chain.extend(cut(Buffer::writable(BACKS, 5), &[0, 1]));
    let head = host.control().ring.add(&chain);
    host.run();
    assert_eq!(host.control().ring.used(), Some((head, 5)));
    let expected = AnResponse { event_actual: 0.into(), response: response::OK };
    assert_eq!(host.read(BACKS, 6), [expected.as_bytes(), &[POISON]].concat());
}

fn any_buffer() -> impl Strategy<Value = Buffer> {
    let address = prop_oneof![
        8 => DATA..DATA + 0x8000,
        1 => MEMORY as u64 - 0x400..MEMORY as u64 + 0x10,
        1 => any::<u64>(),
    ];
    let len = prop_oneof![4 => 0u32..120, 4 => (0u32..9).prop_map(|n| n * 512), 1 => any::<u32>()];
    (address, len, any::<bool>()).prop_map(|(address, len, writable)| Buffer {
        address,
        len,
        writable,
    })
}

fn any_cdb() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop::sample::select(vec![
        opcode::READ_10,
        opcode::WRITE_10,
        opcode::READ_16,
        opcode::INQUIRY,
        opcode::MODE_SENSE_6,
        opcode::MODE_SELECT_6,
        opcode::UNMAP,
        opcode::WRITE_SAME_16,
        opcode::COMPARE_AND_WRITE,
        opcode::REPORT_LUNS,
        opcode::PERSISTENT_RESERVE_OUT,
    ]);
    let small = proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => 0u8..9], 31);
    let known = (opcode, small).prop_map(|(opcode, rest)| [&[opcode][..], &rest].concat());
    prop_oneof![3 => known, 1 => proptest::collection::vec(any::<u8>(), 32)]
}

fn any_lun() -> impl Strategy<Value = Lun> {
    prop_oneof![
        4 => Just(Lun::new(0, 0)),
        1 => Just(Lun::new(0, 1)),
        1 => Just(Lun::REPORT_LUNS),
        1 => any::<[u8; 8]>().prop_map(Lun),
    ]
}

// P: hostile chains cost an answer or a reset, each is given back at most once, and nothing is written
// but what may be.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn any_chain_is_survived(
        chains in proptest::collection::vec(
            (
                proptest::collection::vec(any_buffer(), 0..5),
                any_lun(),
                any_cdb(),
                prop::sample::select(vec![0u16, 2, 2, 2, 2]),
                any::<bool>(),
                0u32..6,
            ),
            1..8,
        ),
        sizes in prop::sample::select(vec![(96, 32), (96, 32), (252, 260), (0, 0)]),
        moves: bool,
    ) {
        let mut host = Host::simple(memory(64));
        host.set_sizes(sizes.0, sizes.1);
        host.write(DATA, &[POISON; 0x1_0000]);
        let mut heads = Vec::new();
        let mut writable = vec![];
        for (mut buffers, lun, cdb, queue, framed, subtype) in chains {
            if framed {
                buffers.sort_by_key(|buffer| buffer.writable);
                if queue == CONTROL_QUEUE {
                    let request = TmfRequest {
                        kind: (subtype % 4).into(),
                        subtype: subtype.into(),
                        lun,
                        id: u64::from(subtype).into(),
                    };
                    let (front, back, _) = host.frame(lun, &[]);
                    host.write(front.address, request.as_bytes());
                    buffers.insert(0, Buffer { len: 24, ..front });
                    buffers.push(Buffer { len: 5, ..back });
                } else {
                    let (front, back, _) = host.frame(lun, &cdb);
                    let at = buffers.iter().filter(|buffer| !buffer.writable).count();
                    buffers.insert(at, back);
                    buffers.insert(0, front);
                }
            }
            if buffers.is_empty() {
                continue;
            }
            writable.extend(buffers.iter().copied().filter(|buffer| buffer.writable));
            let total: u64 =
                buffers.iter().filter(|buffer| buffer.writable).map(|b| u64::from(b.len)).sum();
            let queue = usize::from(queue);
            heads.push((queue, host.ports[queue].ring.add(&buffers), total));
        }
        host.run();
        let broken: Vec<bool> = host.ports.iter().map(|port| port.signals.resets() == 1).collect();
        if moves {
            host.move_house();
            host.run();
        }
        for (queue, broken) in broken.into_iter().enumerate() {
            while let Some((head, written)) = host.ports[queue].ring.used() {
                let index = heads.iter().position(|one| (one.0, one.1) == (queue, head));
                let (_, _, total) = heads.remove(index.expect("given back once"));
                prop_assert!(u64::from(written) <= total);
            }
            let kept = heads.iter().any(|one| one.0 == queue);
            prop_assert_eq!(kept, broken);
        }
        let memory = host.read(DATA, 0x1_0000);
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
