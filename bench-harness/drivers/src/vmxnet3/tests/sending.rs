//! The transmit queue.

use super::*;

/// Flags of a packet's last descriptor.
const END: u32 = txd::EOP | txd::CQ;

/// Where an entry of the data ring is.
fn entry(model: &Model, fake: &Fake, index: u64) -> u64 {
    let conf = model.transmit_conf(fake).conf;
    conf.data_ring_base_pa.get() + index * u64::from(conf.tx_data_ring_desc_size.get())
}

#[test]
fn a_short_frame_is_in_the_data_ring_and_a_batch_one_doorbell() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    model.take_trace();
    let before = nic.accesses();
    let (region, bytes) = traffic_frame(&fake, 128);
    for tag in [5, 0, 510] {
        nic.transmit(tag, &region, 128, Task::None).unwrap();
    }
    nic.kick().unwrap();
    // Nothing new, nothing to say.
    nic.kick().unwrap();
    assert_eq!(model.take_trace(), [WritePt(registers::TXPROD, 3)]);
    let one = Accesses { reads: 0, writes: 1, doorbells: 1 };
    assert_eq!(nic.accesses().since(before), one);

    assert!(reclaimed(&mut nic).is_empty());
    let packet = model.fetch(&fake).unwrap();
    assert_eq!(packet.descriptors, [(entry(&model, &fake, 0), 128, END)]);
    assert_eq!(packet.bytes, bytes);
    let rest = [model.fetch(&fake).unwrap().last, model.fetch(&fake).unwrap().last];
    assert!(rest == [1, 2] && model.fetch(&fake).is_none());
    assert!(reclaimed(&mut nic).is_empty());
    model.report(&fake, 0);
    assert_eq!(reclaimed(&mut nic), [5]);
    model.report(&fake, 1);
    model.report(&fake, 2);
    assert_eq!(reclaimed(&mut nic), [0, 510]);
    assert!(reclaimed(&mut nic).is_empty());
    assert!(model.take_trace().is_empty());
}

#[test]
fn of_a_longer_frame_as_much_as_fits_is_in_the_data_ring() {
    for size in [128, 256] {
        let (fake, model) = machine(Fault::None);
        model.data_size.set(size);
        let mut nic = adapter(&fake, Options::default());
        let (region, bytes) = traffic_frame(&fake, 1518);
        for len in [1518u32, 1514, 257, 129] {
            let length = usize::try_from(len).unwrap();
            nic.transmit(0, &region, length, Task::None).unwrap();
            let packet = model.fetch(&fake).unwrap();
            assert_eq!(packet.bytes, bytes[..length]);
            let lens: Vec<u32> = packet.descriptors.iter().map(|(_, len, _)| *len).collect();
            let expected = if len <= size { vec![len] } else { vec![size, len - size] };
            assert_eq!(lens, expected);
            let (address, _, flags) = *packet.descriptors.last().unwrap();
            assert_eq!(flags, END);
            assert!(len <= size || address == region.physical(usize::try_from(size).unwrap()));
            model.report(&fake, packet.last);
            assert_eq!(reclaimed(&mut nic), [0]);
        }
    }
}

#[test]
fn a_checksum_is_told_with_the_headers_in_the_data_ring() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    // UDP over IPv4, TCP over IPv4 with options, TCP over IPv6, and what is neither.
    let mut udp = pattern(600);
    udp[..traffic::UDP_HEADERS].copy_from_slice(&FLOW.headers(600)[..traffic::UDP_HEADERS]);
    let mut tcp = udp.clone();
    (tcp[23], tcp[34 + 12]) = (6, 0x80);
    let mut six = udp.clone();
    (six[12], six[13], six[20], six[54 + 12]) = (0x86, 0xdd, 6, 0x50);
    let mut arp = udp.clone();
    (arp[12], arp[13]) = (0x08, 0x06);
    // A header that would be longer than an entry.
    let mut far = tcp.clone();
    far[90 + 12] = 0xf0;
    for (tag, (bytes, start, offset, copied)) in (0..).zip([
        (udp, 34u16, 6u16, 42),
        (tcp, 34, 16, 66),
        (six, 54, 16, 74),
        (arp, 34, 16, 34),
        (far, 90, 16, 0),
    ]) {
        let region = frame(&fake, &bytes);
        for len in [600u32, 128] {
            let length = usize::try_from(len).unwrap();
            nic.transmit(tag, &region, length, Task::Checksum { start, offset }).unwrap();
            let packet = model.fetch(&fake).unwrap();
            assert_eq!(packet.bytes, bytes[..length]);
            // All of a short frame, whatever is in it.
            let copied = if len == 128 { 128 } else { copied };
            let place = u32::from(start + offset) << txd::MSSCOF_SHIFT;
            let flags = txd::OM_CSUM | u32::from(start);
            let lens: Vec<_> =
                packet.descriptors.iter().map(|(_, len, flags)| (*len, *flags)).collect();
            let expected = match copied {
                0 => vec![(len | place, flags | END)],
                128 => vec![(128 | place, flags | END)],
                _ => vec![(copied | place, flags), (len - copied, END)],
            };
            assert_eq!(lens, expected, "{start} {len}");
            model.report(&fake, packet.last);
            assert_eq!(reclaimed(&mut nic), [tag]);
        }
    }
    let region = frame(&fake, &pattern(1518));
    for (start, offset) in
        [(1517, 0), (1024, 0), (1000, 25), (1023, 2), (u16::MAX, 1), (0, 1025), (1517, u16::MAX)]
    {
        let refused = Err(Error::Request("the checksum is not where it can be"));
        let task = Task::Checksum { start, offset };
        assert_eq!(nic.transmit(0, &region, 1518, task), refused, "{start} {offset}");
    }
    nic.transmit(0, &region, 1518, Task::Checksum { start: 1023, offset: 1 }).unwrap();
    nic.transmit(1, &region, 80, Task::Checksum { start: 70, offset: 8 }).unwrap();
    let refused = nic.transmit(2, &region, 80, Task::Checksum { start: 70, offset: 9 });
    assert!(matches!(refused, Err(Error::Request(_))));
}

#[test]
fn a_segmented_frame_has_headers_of_its_own() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let (region, bytes) = traffic_frame(&fake, 40_000);
    nic.transmit(7, &region, 40_000, Task::Segment { size: 1460 }).unwrap();
    nic.kick().unwrap();
    let packet = model.fetch(&fake).unwrap();
    let address = |at| region.physical(at);
    let mss = 1460 << txd::MSSCOF_SHIFT;
    assert_eq!(
        packet.descriptors,
        [
            (entry(&model, &fake, 0), 54 | mss, txd::OM_TSO | 54),
            // 16384 bytes are said as none.
            (address(54), 0, 0),
            (address(54 + 16_384), 0, 0),
            (address(54 + 32_768), 40_000 - 54 - 32_768, END),
        ]
    );
    // The IP checksum is the adapter's to fill in; the pseudo header has no length.
    let mut expected = bytes.clone();
    expected[24..26].fill(0);
    let pseudo = traffic::sum(traffic::sum(0, &[0, 6]), &bytes[26..34]);
    expected[50..52].copy_from_slice(&pseudo.to_be_bytes());
    assert!(packet.bytes == expected);
    // The caller's frame is as it was.
    let mut after = vec![0; 40_000];
    region.read_bytes(0, &mut after);
    assert!(after == bytes);
    model.report(&fake, packet.last);
    assert_eq!(reclaimed(&mut nic), [7]);
}

#[test]
fn impossible_frames_are_refused() {
    let (fake, _) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let (region, bytes) = traffic_frame(&fake, 65_549);
    let refused = |result| matches!(result, Err(Error::Request(_)));
    assert!(refused(nic.transmit(511, &region, 64, Task::None)));
    assert!(refused(nic.transmit(u16::MAX, &region, 64, Task::None)));
    for len in [0, 13, 1519, 65_550, usize::MAX] {
        assert!(refused(nic.transmit(0, &region, len, Task::None)), "{len}");
        let checksum = Task::Checksum { start: 0, offset: 0 };
        assert!(refused(nic.transmit(0, &region, len, checksum)), "{len}");
    }
    for (len, size) in [(54, 1460), (10, 1460), (65_550, 1460), (2000, 0), (2000, 0x4000)] {
        assert!(refused(nic.transmit(0, &region, len, Task::Segment { size })), "{len}");
    }
    // Anything but TCP over IPv4, and options.
    for (at, value) in [(12, 0x86), (14, 0x46), (23, 17), (46, 0x60)] {
        let mut other = bytes.clone();
        other[at] = value;
        let other = frame(&fake, &other);
        assert!(refused(nic.transmit(0, &other, 2000, Task::Segment { size: 1460 })), "{at}");
    }
    nic.transmit(0, &region, 65_549, Task::Segment { size: 0x3fff }).unwrap();
    // In use.
    assert!(refused(nic.transmit(0, &region, 64, Task::None)));
    // A larger MTU lets longer frames through.
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options { mtu: 9000, ..Options::default() });
    let (region, bytes) = traffic_frame(&fake, 9019);
    assert!(refused(nic.transmit(0, &region, 9019, Task::None)));
    nic.transmit(0, &region, 9018, Task::None).unwrap();
    assert!(model.fetch(&fake).unwrap().bytes == bytes[..9018]);
}

#[test]
fn the_doorbell_waits_for_as_many_packets_as_the_adapter_wants() {
    let (fake, model) = machine(Fault::None);
    model.threshold.set(8);
    let mut nic = adapter(&fake, Options::default());
    let (region, _) = traffic_frame(&fake, 10_000);
    let (queue, at) = model.transmit_queue(&fake);
    model.take_trace();
    for tag in 0..7 {
        nic.transmit(tag, &region, 64, Task::None).unwrap();
        nic.kick().unwrap();
        assert_eq!(queue.read32(at), u32::from(tag) + 1);
    }
    // It looks for them by itself meanwhile.
    assert!(model.take_trace().is_empty());
    assert_eq!(model.fetch(&fake).unwrap().last, 0);
    model.report(&fake, 0);
    assert_eq!(reclaimed(&mut nic), [0]);
    nic.transmit(7, &region, 64, Task::None).unwrap();
    nic.kick().unwrap();
    assert_eq!(model.take_trace(), [WritePt(registers::TXPROD, 8)]);
    assert_eq!(queue.read32(at), 0);
    // Segments are counted, rather than what they are cut from: 7, that is, and 1.
    nic.transmit(8, &region, 54 + 7 * 1000, Task::Segment { size: 1000 }).unwrap();
    nic.kick().unwrap();
    assert!(model.take_trace().is_empty());
    nic.transmit(9, &region, 54 + 1, Task::Segment { size: 1000 }).unwrap();
    nic.kick().unwrap();
    assert_eq!(model.take_trace(), [WritePt(registers::TXPROD, 12)]);
    // It changes its mind.
    nic.transmit(10, &region, 64, Task::None).unwrap();
    nic.kick().unwrap();
    assert!(model.take_trace().is_empty());
    queue.write32(at + 4, 1);
    nic.kick().unwrap();
    assert_eq!(model.take_trace(), [WritePt(registers::TXPROD, 13)]);
}

/// Frames of all kinds, as many as fit: each leaves whole, in order, and once.
#[test]
fn the_transmit_ring_fills_wraps_and_drains() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let frames = [60, 1514, 1515, 9000, 65_000].map(|size| traffic_frame(&fake, size));
    let task = |kind: usize| match kind {
        0 => Task::None,
        1 => Task::Checksum { start: 34, offset: 6 },
        _ => Task::Segment { size: 1460 },
    };
    let (mut free, mut on_ring): (Vec<u16>, Vec<(u16, usize)>) = ((0..511).collect(), vec![]);
    let (mut busy, mut done) = (0, 0);
    let mut state = 1u32;
    while done < 2000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let kind = usize::try_from(state >> 16).unwrap() % 5;
        let tag = *free.last().unwrap();
        let (region, bytes) = &frames[kind];
        let room = nic.room(bytes.len(), task(kind));
        match nic.transmit(tag, region, bytes.len(), task(kind)) {
            Ok(()) => {
                free.pop();
                on_ring.push((tag, kind));
                if state >> 30 == 0 {
                    nic.kick().unwrap();
                }
                continue;
            }
            Err(error) => assert_eq!((error, room), (Error::Busy, 0)),
        }
        busy += 1;
        nic.kick().unwrap();
        // Some of them are done.
        let some = on_ring.len().div_ceil(2);
        for (tag, kind) in on_ring.drain(..some) {
            let packet = model.fetch(&fake).unwrap();
            let (sent, bytes) = (&packet.bytes, &frames[kind].1);
            assert!(sent.len() == bytes.len() && sent[54..] == bytes[54..]);
            model.report(&fake, packet.last);
            free.insert(0, tag);
            done += 1;
        }
        let tags = reclaimed(&mut nic);
        let expected: Vec<_> = free.iter().take(some).rev().copied().collect();
        assert_eq!(tags, expected);
    }
    assert!(busy > 10, "{busy}");
}

#[test]
fn the_ring_is_full_one_descriptor_early() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let (region, _) = traffic_frame(&fake, 1514);
    assert_eq!((nic.room(64, Task::None), nic.room(1514, Task::None)), (511, 255));
    assert_eq!(nic.room(128, Task::Checksum { start: 34, offset: 6 }), 511);
    assert_eq!(nic.room(129, Task::Checksum { start: 34, offset: 6 }), 255);
    assert_eq!(nic.room(65_000, Task::Segment { size: 1460 }), 511 / 5);
    (0..510).for_each(|tag| nic.transmit(tag, &region, 64, Task::None).unwrap());
    assert_eq!((nic.room(64, Task::None), nic.room(1514, Task::None)), (1, 0));
    assert_eq!(nic.transmit(510, &region, 1514, Task::None), Err(Error::Busy));
    nic.transmit(510, &region, 64, Task::None).unwrap();
    nic.kick().unwrap();
    assert_eq!(model.take_trace().last(), Some(&WritePt(registers::TXPROD, 511)));
    model.report(&fake, model.fetch(&fake).unwrap().last);
    assert_eq!(reclaimed(&mut nic), [0]);
    assert_eq!(nic.transmit(0, &region, 1514, Task::None), Err(Error::Busy));
    nic.transmit(0, &region, 64, Task::None).unwrap();
}
