//! The transmit ring.

use super::*;

#[test]
fn a_plain_frame_is_one_legacy_descriptor_and_a_batch_one_doorbell() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    model.take_trace();
    let before = nic.accesses();
    let (region, bytes) = traffic_frame(&fake, 60 + 4);
    for tag in [5, 0, 253] {
        nic.transmit(tag, &region, 60, Task::None).unwrap();
    }
    nic.kick().unwrap();
    // Nothing new, nothing to say.
    nic.kick().unwrap();
    assert_eq!(model.take_trace(), [Write(registers::TDT, 3)]);
    let one = Accesses { reads: 0, writes: 1, doorbells: 1 };
    assert_eq!(nic.accesses().since(before), one);

    model.fetch(&fake);
    assert!(reclaimed(&mut nic).is_empty());
    let packet = model.report(&fake).unwrap();
    let end = transmit::EOP | transmit::IFCS | transmit::RS | transmit::IDE;
    assert_eq!(packet.descriptors, [TransmitDescriptor::legacy(region.physical(0), 60, end)]);
    assert_eq!(packet.bytes, bytes[..60]);
    assert_eq!(reclaimed(&mut nic), [5]);
    model.report(&fake);
    model.report(&fake);
    assert_eq!(reclaimed(&mut nic), [0, 253]);
    assert!(reclaimed(&mut nic).is_empty());
    assert!(model.take_trace().is_empty());
}

#[test]
fn a_checksum_takes_a_context() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    // UDP over IPv4, TCP over IPv4, TCP over IPv6, and what is neither.
    let mut udp = vec![0; 80];
    udp[..traffic::UDP_HEADERS].copy_from_slice(&FLOW.headers(80)[..traffic::UDP_HEADERS]);
    let mut tcp = udp.clone();
    tcp[23] = 6;
    let mut six = tcp.clone();
    (six[12], six[13], six[20]) = (0x86, 0xdd, 6);
    let mut arp = tcp.clone();
    (arp[12], arp[13]) = (0x08, 0x06);
    for (tag, (bytes, start, offset, kind)) in (0..).zip([
        (udp, 34, 6, 0),
        (tcp, 34, 16, transmit::TCP),
        (six, 54, 16, transmit::TCP),
        (arp, 34, 16, 0),
    ]) {
        let region = frame(&fake, &bytes);
        nic.transmit(tag, &region, 80, Task::Checksum { start, offset }).unwrap();
        nic.kick().unwrap();
        model.fetch(&fake);
        let packet = model.report(&fake).unwrap();
        let (tucss, tucso) = (u8::try_from(start).unwrap(), u8::try_from(start + offset).unwrap());
        let context = Context { tucss, tucso, ..Context::default() };
        let end = transmit::EOP | transmit::IFCS | transmit::RS | transmit::IDE;
        let data = TransmitDescriptor::data(region.physical(0), 80, end, transmit::TXSM);
        assert_eq!(packet.descriptors, [TransmitDescriptor::context(&context, kind), data]);
        assert_eq!(packet.bytes, bytes);
    }
    assert_eq!(reclaimed(&mut nic), [0, 1, 2, 3]);
    let (region, _) = traffic_frame(&fake, 80);
    for (start, offset) in [(74, 5), (79, 0), (250, 6), (256, 0), (u16::MAX, 1)] {
        let refused = Err(Error::Request("the checksum is not where it can be"));
        assert_eq!(nic.transmit(4, &region, 80, Task::Checksum { start, offset }), refused);
    }
    assert_eq!(nic.transmit(4, &region, 80, Task::Checksum { start: 74, offset: 4 }), Ok(()));
}

#[test]
fn a_segmented_frame_has_headers_of_its_own() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let (region, bytes) = traffic_frame(&fake, 10_000);
    nic.transmit(7, &region, 10_000, Task::Segment { size: 1460 }).unwrap();
    nic.kick().unwrap();
    model.fetch(&fake);
    let packet = model.report(&fake).unwrap();

    let context = Context {
        ipcss: 14,
        ipcso: 24,
        ipcse: 33,
        tucss: 34,
        tucso: 50,
        tucse: 0,
        paylen: 9946,
        hdrlen: 54,
        mss: 1460,
    };
    let kind = transmit::TSE | transmit::TCP | transmit::IP;
    assert_eq!(packet.descriptors[0], TransmitDescriptor::context(&context, kind));
    let options = transmit::TXSM | transmit::IXSM;
    let flags = transmit::TSE | transmit::IFCS;
    let end = flags | transmit::EOP | transmit::RS | transmit::IDE;
    let address = |at| region.physical(0) + at;
    // Four bytes are left for a descriptor that tells the end.
    let data = [
        TransmitDescriptor::data(address(54), 4096, flags, options),
        TransmitDescriptor::data(address(4150), 4096, flags, options),
        TransmitDescriptor::data(address(8246), 1750, flags, options),
        TransmitDescriptor::data(address(9996), 4, end, options),
    ];
    assert_eq!(packet.descriptors[2..], data);
    // The lengths and the IP checksum are the controller's to fill in; the pseudo header has none.
    let mut expected = bytes.clone();
    expected[16..18].fill(0);
    expected[24..26].fill(0);
    let pseudo = traffic::sum(traffic::sum(0, &[0, 6]), &bytes[26..34]);
    expected[50..52].copy_from_slice(&pseudo.to_be_bytes());
    assert!(packet.bytes == expected);
    // The caller's frame is as it was.
    let mut after = vec![0; 10_000];
    region.read_bytes(0, &mut after);
    assert!(after == bytes);

    // The next frame that is not segmented is cut; the one after is not.
    let (region, bytes) = traffic_frame(&fake, 64);
    for (tag, pieces) in [(8, vec![60, 4]), (9, vec![64])] {
        nic.transmit(tag, &region, 64, Task::None).unwrap();
        nic.kick().unwrap();
        model.fetch(&fake);
        let packet = model.report(&fake).unwrap();
        let lengths = packet.descriptors.iter().map(|descriptor| descriptor.command.get() & 0xffff);
        assert_eq!(lengths.collect::<Vec<_>>(), pieces);
        assert_eq!(packet.bytes, bytes);
    }
    assert_eq!(reclaimed(&mut nic), [7, 8, 9]);
}

#[test]
fn pieces_of_small_segments_are_small() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let (region, _) = traffic_frame(&fake, 4054);
    let lengths = |model: &Model| {
        let packet = model.report(&fake).unwrap();
        let data = packet.descriptors.into_iter().skip(2);
        data.map(|descriptor| descriptor.command.get() & transmit::DTALEN).collect::<Vec<_>>()
    };
    nic.transmit(0, &region, 4054, Task::Segment { size: 250 }).unwrap();
    // A remainder that is short already is not cut again.
    nic.transmit(1, &region, 2062, Task::Segment { size: 250 }).unwrap();
    nic.transmit(2, &region, 2063, Task::Segment { size: 250 }).unwrap();
    nic.kick().unwrap();
    model.fetch(&fake);
    assert_eq!(lengths(&model), [1000, 1000, 1000, 996, 4]);
    assert_eq!(lengths(&model), [1000, 1000, 8]);
    assert_eq!(lengths(&model), [1000, 1000, 5, 4]);
    let refused = Err(Error::Request("too many segments"));
    assert_eq!(nic.transmit(3, &region, 4054, Task::Segment { size: 3 }), refused);
}

#[test]
fn impossible_frames_are_refused() {
    let (fake, _) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let (region, bytes) = traffic_frame(&fake, 65_536);
    let refused = |result| matches!(result, Err(Error::Request(_)));
    assert!(refused(nic.transmit(254, &region, 64, Task::None)));
    assert!(refused(nic.transmit(u16::MAX, &region, 64, Task::None)));
    for len in [0, 13, 1519, 65_537, usize::MAX] {
        assert!(refused(nic.transmit(0, &region, len, Task::None)), "{len}");
        let checksum = Task::Checksum { start: 0, offset: 0 };
        assert!(refused(nic.transmit(0, &region, len, checksum)), "{len}");
    }
    for (len, size) in [(54, 1460), (10, 1460), (65_550, 1460), (2000, 0)] {
        assert!(refused(nic.transmit(0, &region, len, Task::Segment { size })), "{len}");
    }
    // Anything but TCP over IPv4, and options.
    for (at, value) in [(12, 0x86), (14, 0x46), (23, 17), (46, 0x60)] {
        let mut other = bytes.clone();
        other[at] = value;
        let other = frame(&fake, &other);
        assert!(refused(nic.transmit(0, &other, 2000, Task::Segment { size: 1460 })), "{at}");
    }
    nic.transmit(0, &region, 65_536, Task::Segment { size: 1460 }).unwrap();
    assert!(refused(nic.transmit(0, &region, 64, Task::None)));
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
    let (mut free, mut on_ring): (Vec<u16>, Vec<(u16, usize)>) = ((0..254).collect(), vec![]);
    let (mut busy, mut done) = (0, 0);
    let mut state = 1u32;
    while done < 2000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let kind = usize::try_from(state >> 16).unwrap() % 5;
        let tag = *free.last().unwrap();
        let (region, bytes) = &frames[kind];
        match nic.transmit(tag, region, bytes.len(), task(kind)) {
            Ok(()) => {
                free.pop();
                on_ring.push((tag, kind));
                if state >> 30 == 0 {
                    nic.kick().unwrap();
                }
                continue;
            }
            Err(error) => assert_eq!(error, Error::Busy),
        }
        busy += 1;
        nic.kick().unwrap();
        model.fetch(&fake);
        // Some of them are reported.
        let some = on_ring.len().div_ceil(2);
        for (tag, kind) in on_ring.drain(..some) {
            let packet = model.report(&fake).unwrap();
            let (sent, bytes) = (&packet.bytes, &frames[kind].1);
            assert!(sent.len() == bytes.len() && sent[54..] == bytes[54..]);
            assert_eq!(packet.descriptors[0].is_context(), kind != 0);
            free.insert(0, tag);
            done += 1;
        }
        let tags = reclaimed(&mut nic);
        let expected: Vec<_> = free.iter().take(some).rev().copied().collect();
        assert_eq!(tags, expected);
    }
    assert!(busy > 50, "{busy}");
}

#[test]
fn the_ring_is_full_two_descriptors_early() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let (region, _) = traffic_frame(&fake, 64);
    (0..253).for_each(|tag| nic.transmit(tag, &region, 64, Task::None).unwrap());
    let checksum = Task::Checksum { start: 34, offset: 6 };
    assert_eq!(nic.transmit(253, &region, 64, checksum), Err(Error::Busy));
    nic.transmit(253, &region, 64, Task::None).unwrap();
    nic.kick().unwrap();
    assert_eq!(model.get(registers::TDT), 254);
    model.fetch(&fake);
    model.report(&fake);
    assert_eq!(reclaimed(&mut nic), [0]);
    assert_eq!(nic.transmit(0, &region, 64, checksum), Err(Error::Busy));
    nic.transmit(0, &region, 64, Task::None).unwrap();
}
