//! Frames both ways, and interrupts.

use super::*;

#[test]
fn frames_are_described_as_the_layout_says_and_told_apart_by_their_tasks() {
    let tasks = [
        (Task::None, header(0, 0, [0; 5])),
        (Task::Checksum { start: 34, offset: 6 }, header(1, 0, [0, 0, 34, 6, 0])),
        (Task::Segment { size: 1460 }, header(1, 1, [54, 1460, 34, 16, 0])),
        (Task::None, header(0, 0, [0; 5])),
    ];
    let layouts = [(Layout::Headroom, 256), (Layout::Chain, 128), (Layout::Indirect, 256)];
    for (offered, header_len) in [(USUAL, 12), (ALL, 20)] {
        for (layout, depth) in layouts {
            let machine = Machine::new(offered, 1);
            let options = Options { layout, accept: u64::MAX, ..OPTIONS };
            let mut adapter = adapter(&machine, Options { accept: offered, ..options });
            let headroom = if layout == Layout::Headroom { header_len } else { 0 };
            assert_eq!((adapter.depth(), adapter.headroom()), (depth, headroom));
            let (region, bytes) = region(&machine, headroom, 2000);
            for tag in [0, depth - 1] {
                for (len, (task, header)) in (60..).zip(&tasks) {
                    machine.wish_notification(1);
                    adapter.transmit(tag, &region, len, *task).unwrap();
                    assert!(machine.next(1).is_none(), "it was not told yet");
                    adapter.kick().unwrap();
                    assert_eq!(machine.doorbells(), [1]);
                    adapter.kick().unwrap();
                    assert_eq!(machine.doorbells(), []);
                    let frames = machine.take_frames(1);
                    let [(chain, sent)] = &frames[..] else { panic!("{frames:?}") };
                    let mut expected = header.clone();
                    expected.resize(header_len, 0);
                    expected.extend(&bytes[..len]);
                    assert_eq!(*sent, expected, "{layout:?} {task:?}");
                    let parts = if layout == Layout::Headroom { 1 } else { 2 };
                    assert_eq!(chain.buffers.len(), parts);
                    assert_eq!(chain.indirect, layout == Layout::Indirect);
                    assert_eq!(reclaimed(&mut adapter).unwrap(), []);
                    let again = adapter.transmit(tag, &region, len, *task);
                    assert!(matches!(again, Err(Error::Request(_))), "it is in use");
                    machine.give_back(1, &[(chain.head.into(), 0)]);
                    assert_eq!(reclaimed(&mut adapter).unwrap(), [tag]);
                }
            }
        }
    }
}

#[test]
fn a_group_of_frames_costs_one_doorbell_and_comes_back_in_any_order() {
    for layout in [Layout::Headroom, Layout::Chain, Layout::Indirect] {
        let machine = Machine::new(USUAL, 1);
        let mut adapter = adapter(&machine, Options { layout, size: 8, ..OPTIONS });
        let depth = adapter.depth();
        let (region, _) = region(&machine, adapter.headroom(), 60);
        for round in 0..50 {
            machine.wish_notification(1);
            for tag in 0..depth {
                adapter.transmit(tag, &region, 60, Task::None).unwrap();
            }
            adapter.kick().unwrap();
            assert_eq!(machine.doorbells(), [1]);
            let mut chains: Vec<(u32, u32)> =
                machine.take_frames(1).iter().map(|(chain, _)| (chain.head.into(), 0)).collect();
            assert_eq!(chains.len(), usize::from(depth));
            chains.rotate_left(round % usize::from(depth));
            machine.give_back(1, &chains[..1]);
            machine.give_back(1, &chains[1..]);
            let mut tags = reclaimed(&mut adapter).unwrap();
            tags.sort_unstable();
            assert!(tags.into_iter().eq(0..depth));
        }
        // A device that is at work is not notified.
        adapter.transmit(0, &region, 60, Task::None).unwrap();
        adapter.kick().unwrap();
        assert_eq!(machine.doorbells(), []);
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let machine = Machine::new(USUAL, 1);
    let options = Options { layout: Layout::Headroom, ..OPTIONS };
    let mut adapter = adapter(&machine, options);
    let (small, _) = region(&machine, 12, 100);
    let (large, _) = region(&machine, 12, 66_000);
    for (tag, region, len, task) in [
        (256, &small, 60, Task::None),
        (0, &small, 13, Task::None),
        (0, &small, 101, Task::None),
        (0, &large, 65_558, Task::None),
        (0, &small, 60, Task::Checksum { start: 53, offset: 6 }),
        (0, &small, 60, Task::Checksum { start: u16::MAX, offset: u16::MAX }),
        (0, &small, 54, Task::Segment { size: 1 }),
        (0, &small, 60, Task::Segment { size: 0 }),
    ] {
        let result = adapter.transmit(tag, region, len, task);
        assert!(matches!(result, Err(Error::Request(_))), "{tag} {len} {task:?}");
    }
    adapter.transmit(255, &small, 60, Task::Checksum { start: 52, offset: 6 }).unwrap();
    adapter.transmit(0, &large, 65_557, Task::Segment { size: 1 }).unwrap();
    let machine = Machine::new(USUAL & !Options::OFFLOADS, 1);
    let mut adapter = self::adapter(&machine, OPTIONS);
    for task in [Task::Checksum { start: 34, offset: 6 }, Task::Segment { size: 1460 }] {
        let (region, _) = region(&machine, 0, 2000);
        let result = adapter.transmit(0, &region, 2000, task);
        assert!(matches!(result, Err(Error::Unsupported(_))));
    }
}

#[test]
fn frames_are_received_in_one_buffer_or_several() {
    for (offered, header_len, size) in
        [(USUAL, 12, 1536), (ALL, 20, 1536), (USUAL & !net::MRG_RXBUF, 12, 65_569)]
    {
        let machine = Machine::new(offered, 1);
        let mut adapter = adapter(&machine, Options { accept: offered, ..OPTIONS });
        for len in [14, 60, 1536 - header_len, 1537 - header_len, 9000, 65_557] {
            let pieces = usize::div_ceil(len + header_len, size);
            let mut bytes = plain(u16::try_from(pieces).unwrap());
            bytes.resize(header_len, 0x55);
            bytes.extend(frame(len));
            machine.deliver(0, &bytes, |_| {});
            let frames = received(&mut adapter).unwrap();
            assert!(frames == [(frame(len), Known::Nothing, pieces)], "{len}");
        }
        let hash = adapter.last_header(0);
        assert_eq!(hash.hash_report.get() == hash_report::NONE, header_len == 12);
        assert_eq!(hash.hash_value.get(), if header_len == 12 { 0 } else { 0x5555_5555 });
    }
    // Buffers that are smaller than any frame.
    let offered = USUAL & !Options::OFFLOADS;
    let machine = Machine::new(offered, 1);
    let mut adapter = adapter(&machine, Options { buffer: 128, ..OPTIONS });
    let mut bytes = plain(12);
    bytes.extend(frame(1514));
    machine.deliver(0, &bytes, |_| {});
    assert!(received(&mut adapter).unwrap() == [(frame(1514), Known::Nothing, 12)]);
}

#[test]
fn buffers_go_back_in_batches_with_one_doorbell_each() {
    for (refill, batch) in [(16, 16), (1, 1), (5, 5), (1000, 64), (0, 1)] {
        let machine = Machine::new(USUAL, 1);
        let mut adapter = adapter(&machine, OPTIONS);
        adapter.set_refill(refill);
        let mut bytes = plain(1);
        bytes.extend(frame(60));
        for count in 1..=200 {
            machine.wish_notification(0);
            machine.deliver(0, &bytes, |_| {});
            assert_eq!(received(&mut adapter).unwrap().len(), 1);
            assert_eq!(machine.available(0) - 256, count / batch * batch);
            assert_eq!(machine.doorbells().len(), usize::from(count % batch == 0));
        }
        // A device that has enough is not told at all, after it was once more.
        for _ in 0..2 {
            machine.doorbells();
            for _ in 0..batch {
                machine.deliver(0, &bytes, |_| {});
            }
            received(&mut adapter).unwrap();
        }
        assert_eq!(machine.doorbells(), []);
    }
}

// A queue has fewer buffers than entries where each holds the longest frame.
#[test]
fn large_buffers_go_back_before_all_are_used_up() {
    let machine = Machine::new(USUAL & !net::MRG_RXBUF, 1);
    let mut adapter = adapter(&machine, OPTIONS);
    let count = machine.available(0);
    assert!((32..128).contains(&count), "{count}");
    adapter.set_refill(1000);
    let mut bytes = plain(1);
    bytes.extend(frame(60));
    for _ in 0..5 * count {
        machine.deliver(0, &bytes, |_| {});
        assert_eq!(received(&mut adapter).unwrap().len(), 1);
    }
}

#[test]
fn no_more_frames_are_handed_over_than_asked_for() {
    let machine = Machine::new(USUAL, 2);
    let mut adapter = adapter(&machine, Options { pairs: 2, ..OPTIONS });
    let mut bytes = plain(1);
    bytes.extend(frame(60));
    for _ in 0..5 {
        machine.deliver(0, &bytes, |_| {});
        machine.deliver(2, &bytes, |_| {});
    }
    for expected in [0, 3, 3, 4, 0] {
        let limit = if expected == 4 { 10 } else { expected };
        assert_eq!(adapter.receive(limit, |_| {}), Ok(expected));
    }
}

#[test]
fn checksums_are_what_the_header_says() {
    let machine = Machine::new(USUAL, 1);
    let mut adapter = adapter(&machine, OPTIONS);
    for (header, known) in [
        (plain(1), Known::Nothing),
        (header(2, 0, [0, 0, 0, 0, 1]), Known::Right),
        (header(1, 0, [0, 0, 34, 6, 1]), Known::Partial),
        (header(1, 0, [0, 0, 98, 0, 1]), Known::Partial),
        // Flags that nobody knows have no meaning.
        (header(0x82, 0, [0, 0, 0, 0, 1]), Known::Right),
        (header(0x80, 0, [0, 0, 0, 0, 1]), Known::Nothing),
        (header(1, 1, [54, 1460, 34, 16, 1]), Known::Partial),
        (header(1, 0x81, [54, 1460, 34, 16, 1]), Known::Partial),
        (header(1, 3, [54, 1460, 34, 6, 1]), Known::Partial),
        (header(1, 4, [54, 1460, 34, 16, 1]), Known::Partial),
        (header(1, 5, [42, 256, 34, 6, 1]), Known::Partial),
    ] {
        let mut bytes = header;
        bytes.extend(frame(100));
        machine.deliver(0, &bytes, |_| {});
        assert_eq!(received(&mut adapter).unwrap(), [(frame(100), known, 1)], "{bytes:?}");
    }
}

// "Every value read from the device is checked."
#[test]
fn interrupts_come_when_they_were_asked_for_and_only_then() {
    for offered in [USUAL, USUAL & !feature::EVENT_IDX] {
        let machine = Machine::new(offered, 1);
        let mut adapter = adapter(&machine, OPTIONS);
        let (region, _) = region(&machine, 0, 60);
        let mut bytes = plain(1);
        bytes.extend(frame(60));
        let deliver = || {
            let before = machine.fake.interrupts.get();
            machine.deliver(0, &bytes, |_| {});
            machine.fake.interrupts.get() - before
        };
        let send = |adapter: &mut VirtioNet<'_, Machine>, count: u16| {
            for tag in 0..count {
                adapter.transmit(tag, &region, 60, Task::None).unwrap();
            }
            adapter.kick().unwrap();
            let before = machine.fake.interrupts.get();
            let mut raised = Vec::new();
            for (chain, _) in machine.take_frames(1) {
                machine.give_back(1, &[(chain.head.into(), 0)]);
                raised.push(machine.fake.interrupts.get() - before);
            }
            raised
        };
        assert_eq!(deliver(), 0, "they are off");
        assert_eq!(adapter.end(), Ok(false), "without effect");
        assert_eq!(deliver(), 0);
        assert_eq!(received(&mut adapter).unwrap().len(), 2);

        adapter.set_interrupts(true).unwrap();
        assert_eq!(deliver(), 1);
        assert_eq!(adapter.begin(), Ok(true));
        assert_eq!(deliver(), 0);
        assert_eq!(received(&mut adapter).unwrap().len(), 2);
        assert_eq!(deliver(), 0, "not before the end");
        assert_eq!(adapter.end(), Ok(true), "something is there already");
        assert_eq!(deliver(), 0, "and it is not over");
        assert_eq!(received(&mut adapter).unwrap().len(), 2);
        assert_eq!(adapter.end(), Ok(false));
        assert_eq!(deliver(), 1);
        adapter.begin().unwrap();
        received(&mut adapter).unwrap();
        assert_eq!(adapter.end(), Ok(false));

        assert!(send(&mut adapter, 8).iter().all(|raised| *raised == 0), "of no interest");
        assert_eq!(reclaimed(&mut adapter).unwrap().len(), 8);
        adapter.set_transmit_interrupts(true);
        for tag in 0..8 {
            adapter.transmit(tag, &region, 60, Task::None).unwrap();
        }
        adapter.kick().unwrap();
        assert_eq!(adapter.end(), Ok(false));
        let before = machine.fake.interrupts.get();
        let raised: Vec<u64> = machine
            .take_frames(1)
            .into_iter()
            .map(|(chain, _)| {
                machine.give_back(1, &[(chain.head.into(), 0)]);
                machine.fake.interrupts.get() - before
            })
            .collect();
        // Once three quarters are done, or at each one.
        match offered & feature::EVENT_IDX {
            0 => assert_eq!(raised, [1, 2, 3, 4, 5, 6, 7, 8]),
            _ => assert_eq!(raised, [0, 0, 0, 0, 0, 0, 1, 1]),
        }
        adapter.begin().unwrap();
        assert_eq!(adapter.end(), Ok(true));
        assert_eq!(reclaimed(&mut adapter).unwrap().len(), 8);
        assert_eq!(adapter.end(), Ok(false));
        assert_eq!(send(&mut adapter, 1), [1]);
        adapter.begin().unwrap();
        reclaimed(&mut adapter).unwrap();
        assert_eq!(adapter.end(), Ok(false));
        adapter.set_transmit_interrupts(false);
        assert_eq!(send(&mut adapter, 1), [0]);
        reclaimed(&mut adapter).unwrap();

        adapter.set_interrupts(false).unwrap();
        assert_eq!(deliver(), 0);
    }
}

#[test]
fn several_pairs_share_tags_and_are_all_received_from() {
    let machine = Machine::new(USUAL, 4);
    let mut adapter = adapter(&machine, Options { pairs: 3, ..OPTIONS });
    assert_eq!(machine.state.borrow().commands, [(vec![4, 0, 3, 0], 0)]);
    // What the tags' table holds, not what the queues would.
    assert_eq!(adapter.depth(), 256);
    let (region, _) = region(&machine, 0, 60);
    for queue in [1, 3, 5] {
        machine.wish_notification(queue);
    }
    for tag in 0..8 {
        adapter.transmit(tag, &region, 60, Task::None).unwrap();
    }
    adapter.kick().unwrap();
    assert_eq!(machine.doorbells(), [1, 3, 5]);
    for (queue, count) in [(1, 3), (3, 3), (5, 2)] {
        let frames = machine.take_frames(queue);
        assert_eq!(frames.len(), count);
        for (chain, _) in frames.into_iter().rev() {
            machine.give_back(queue, &[(chain.head.into(), 0)]);
        }
    }
    assert_eq!(reclaimed(&mut adapter).unwrap(), [6, 3, 0, 7, 4, 1, 5, 2]);
    let mut bytes = plain(1);
    for (queue, len) in [(0, 60), (2, 61), (4, 62)] {
        bytes.truncate(12);
        bytes.extend(frame(len));
        machine.deliver(queue, &bytes, |_| {});
    }
    assert_eq!(adapter.receive_from(1, 9, |arrival| assert_eq!(arrival.len, 61)), Ok(1));
    let lengths: Vec<usize> =
        received(&mut adapter).unwrap().iter().map(|(frame, ..)| frame.len()).collect();
    assert_eq!(lengths, [60, 62]);
    assert!(matches!(adapter.receive_from(3, 9, |_| {}), Err(Error::Request(_))));
    for pairs in [0, 4] {
        assert!(matches!(adapter.set_pairs(pairs), Err(Error::Request(_))));
    }
}
