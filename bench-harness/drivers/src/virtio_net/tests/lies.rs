//! What a device must not say.

use super::*;

/// What a device says of a frame of 100 bytes that it must not.
type Lie = fn(&mut Vec<(u32, u32)>);

#[test]
fn lies_about_received_frames_are_errors() {
    let good: Lie = |_| {};
    let lies: [(u64, Vec<u8>, usize, Lie); 28] = [
        // The used ring.
        (USUAL, plain(1), 100, |used| used[0].0 = 255),
        (USUAL, plain(1), 100, |used| used[0].0 = 256),
        (USUAL, plain(1), 100, |used| used.push(used[0])),
        (USUAL, plain(1), 100, |used| used[0].1 = 0),
        (USUAL, plain(1), 100, |used| used[0].1 = 25),
        (USUAL, plain(1), 100, |used| used[0].1 = 1537),
        (USUAL, plain(1), 100, |used| used[0].1 = u32::MAX),
        // Buffers.
        (USUAL, plain(0), 100, good),
        (USUAL, plain(2), 100, good),
        (USUAL, plain(65), 100, good),
        (USUAL, plain(2), 1524, good),
        (USUAL, plain(3), 2000, |used| used.swap(0, 1)),
        (USUAL, plain(2), 2000, |used| used[0].1 = 1535),
        (USUAL, plain(2), 2000, |used| used[1].1 = 0),
        (USUAL, plain(2), 2000, |used| used[1].0 = used[0].0),
        (USUAL, plain(44), 65_569 + 300, good),
        // Checksums.
        (USUAL, header(1, 0, [0, 0, 98, 1, 1]), 100, good),
        (USUAL, header(1, 0, [0, 0, u16::MAX, u16::MAX, 1]), 100, good),
        (USUAL & !net::GUEST_CSUM, header(1, 0, [0, 0, 34, 6, 1]), 100, good),
        (USUAL & !net::GUEST_CSUM, header(2, 0, [0, 0, 0, 0, 1]), 100, good),
        // Segmentation.
        (USUAL, header(1, 2, [54, 1460, 34, 16, 1]), 100, good),
        (USUAL, header(1, 0x7f, [54, 1460, 34, 16, 1]), 100, good),
        (USUAL, header(0, 1, [54, 1460, 34, 16, 1]), 100, good),
        (USUAL, header(1, 1, [54, 0, 34, 16, 1]), 100, good),
        (USUAL, header(1, 0x83, [54, 1460, 34, 16, 1]), 100, good),
        (USUAL & !net::GUEST_ECN, header(1, 0x81, [54, 1460, 34, 16, 1]), 100, good),
        (USUAL & !net::GUEST_TSO4, header(1, 1, [54, 1460, 34, 16, 1]), 100, good),
        (USUAL & !net::GUEST_UFO, header(1, 3, [54, 1460, 34, 6, 1]), 100, good),
    ];
    for (offered, header, len, lie) in lies {
        let machine = Machine::new(offered, 1);
        let mut adapter = adapter(&machine, OPTIONS);
        let mut bytes = header;
        bytes.extend(frame(len));
        machine.deliver(0, &bytes, lie);
        let result = received(&mut adapter);
        assert!(matches!(result, Err(Error::Protocol(_))), "{:?} {result:?}", &bytes[..12]);
    }
    // A buffer comes back, and again before the device has been given it anew.
    let machine = Machine::new(USUAL, 1);
    let mut adapter = adapter(&machine, OPTIONS);
    let mut bytes = plain(1);
    bytes.extend(frame(60));
    machine.deliver(0, &bytes, |_| {});
    assert_eq!(received(&mut adapter).unwrap().len(), 1);
    machine.give_back(0, &[(0, 72)]);
    assert!(matches!(received(&mut adapter), Err(Error::Protocol(_))));
}

#[test]
fn lies_about_sent_frames_are_errors() {
    let lies: [(Layout, &[(u32, u32)]); 8] = [
        (Layout::Chain, &[(0, 1)]),
        (Layout::Chain, &[(1, 0)]),
        (Layout::Chain, &[(4, 0)]),
        (Layout::Chain, &[(0, 0), (0, 0)]),
        (Layout::Chain, &[(256, 0)]),
        (Layout::Headroom, &[(2, 0)]),
        (Layout::Headroom, &[(0, 0), (1, 0), (1, 0)]),
        (Layout::Indirect, &[(0, 0), (0, 0)]),
    ];
    for (layout, used) in lies {
        let machine = Machine::new(USUAL, 1);
        let mut adapter = adapter(&machine, Options { layout, ..OPTIONS });
        let (region, _) = region(&machine, adapter.headroom(), 60);
        for tag in 0..2 {
            adapter.transmit(tag, &region, 60, Task::None).unwrap();
        }
        adapter.kick().unwrap();
        machine.give_back(1, used);
        let result = reclaimed(&mut adapter);
        assert!(matches!(result, Err(Error::Protocol(_))), "{layout:?} {used:?} {result:?}");
    }
}
