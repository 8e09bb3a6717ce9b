//! Frames on their way in, each into a buffer of its own.

use paraslot_backends::net::Offload;

use super::*;

/// Features without offloads, so that no frame is longer than the network's.
const SIMPLE: u64 = feature::MAC | feature::STATUS;

#[test]
fn frames_come_in_order() {
    for features in [SIMPLE, PLAIN, ALL & !feature::CTRL_RX & !feature::CTRL_VLAN] {
        let mut nic = Nic::new(features);
        nic.post(0, 20, 2048);
        for len in 60..80 {
            nic.port.push(0, &frame(len));
        }
        nic.run();
        for len in 60..80 {
            let got = nic.got(0).unwrap();
            assert_eq!(got.frame, frame(len));
            let expected = Header { num_buffers: 1.into(), ..Header::default() };
            assert_eq!(got.header, HashHeader::new(expected, 0, 0));
            assert_eq!(got.parts, [len + nic.header_len()]);
        }
        let statistics = nic.statistics();
        assert_eq!((statistics.received_frames, statistics.received_bytes), (20, (60..80).sum()));
    }
}

// net.rx.1, net.rxbuf.1; split.framing.1: the header may be cut anywhere.
#[test]
fn any_cut_means_the_same() {
    for features in [SIMPLE, SIMPLE | feature::HASH_REPORT, SIMPLE | feature::MRG_RXBUF] {
        let mut nic = Nic::new(features);
        for first in 1..40 {
            for second in [1, 9, 60] {
                nic.post_chain(0, &[first, second, 200 - first - second]);
                nic.port.push(0, &frame(100));
                assert_eq!(nic.receive().unwrap().frame, frame(100), "{first} {second}");
            }
        }
        let lens = vec![1; 200];
        let buffers: Vec<Buffer> = lens.iter().map(|len| nic.writable(*len)).collect();
        let table = nic.memory(16 * buffers.len());
        if nic.has(paraslot_spec::virtio::feature::INDIRECT_DESC) {
            let head = nic.lane(0).ring.add_indirect(table, &buffers);
            nic.lane(0).posted.insert(head, buffers);
            nic.port.push(0, &frame(100));
            assert_eq!(nic.receive().unwrap().frame, frame(100));
        }
    }
}

#[test]
fn buffers_across_regions_are_filled() {
    let mut nic = Nic::new(SIMPLE);
    for before in [1, 11, 12, 13, 60, 111] {
        let buffer = Buffer::writable(MEMORY as u64 / 2 - before, 112);
        let head = nic.lane(0).ring.add(&[buffer]);
        nic.port.push(0, &frame(100));
        nic.run();
        assert_eq!(nic.lane(0).ring.used(), Some((head, 112)));
        assert_eq!(nic.read(buffer.address + 12, 100), frame(100));
        assert_eq!(nic.read(buffer.address + 10, 2), [1, 0]);
    }
}

// net.rxbuf.2: a frame that needs more than one buffer is lost, and the buffer serves the next.
#[test]
fn a_frame_longer_than_the_buffer_is_lost() {
    for features in [SIMPLE, SIMPLE | feature::HASH_REPORT] {
        let mut nic = Nic::new(features);
        let header_len = nic.header_len();
        nic.post(0, 1, header_len + 100);
        nic.port.push(0, &frame(101));
        nic.port.push(0, &frame(100));
        nic.run();
        assert_eq!(nic.got(0).unwrap().frame, frame(100));
        assert_eq!(nic.statistics().received_too_long, 1);
        assert_eq!(nic.statistics().received_frames, 1);
    }
}

// What a host that cannot be trusted says of a frame.
#[test]
fn runts_are_lost() {
    let mut nic = Nic::new(ALL);
    nic.post(0, 4, 2048);
    for len in 0..14 {
        nic.port.push_raw(0, &frame(14)[..len], Offload::default());
    }
    nic.port.push(0, &frame(14));
    assert_eq!(nic.receive().unwrap().frame, frame(14));
    assert_eq!(nic.statistics().receive_errors, 14);
}

// crosvm 28a9d2b70: without buffers there is nothing to do, and nothing is asked of the backend.
#[test]
fn without_buffers_frames_stay_where_they_are() {
    for features in [SIMPLE, SIMPLE | feature::MRG_RXBUF, ALL] {
        let mut nic = Nic::new(features);
        for len in 60..70 {
            nic.port.push(0, &frame(len));
        }
        // Rests, although frames are there.
        nic.run();
        assert_eq!(nic.port.waiting(0), 10);
        for len in 60..70 {
            nic.post(0, 1, 2048);
            nic.run();
            assert_eq!(nic.got(0).unwrap().frame, frame(len));
        }
        assert_eq!(nic.port.waiting(0), 0);
    }
}

// A chain that has no room for a header cannot be answered in any way.
#[test]
fn a_chain_without_room_for_a_header_breaks_the_queue() {
    for (features, len) in
        [(SIMPLE, 11), (SIMPLE | feature::MRG_RXBUF, 11), (SIMPLE | feature::HASH_REPORT, 19)]
    {
        let mut nic = Nic::new(features);
        nic.post(0, 1, len);
        nic.port.push(0, &frame(60));
        nic.run();
        assert_eq!(nic.resets(), 1);
        assert_eq!((nic.got(0), nic.statistics().received_frames), (None, 0));
        nic.post(0, 1, 2048);
        nic.run();
        assert_eq!(nic.got(0), None);

        // One with room for that alone can, but holds no frame.
        let mut nic = Nic::new(features);
        nic.post(0, 1, len + 1);
        nic.port.push(0, &frame(60));
        nic.run();
        assert_eq!((nic.resets(), nic.statistics().received_frames), (0, 0));
    }
    let mut nic = Nic::new(SIMPLE);
    let buffer = nic.readable(&[0; 64]);
    nic.lane(0).ring.add(&[buffer]);
    nic.run();
    assert_eq!(nic.resets(), 1);
    let mut nic = Nic::new(SIMPLE);
    nic.lane(0).ring.add(&[Buffer::writable(MEMORY as u64 - 1, 100)]);
    nic.run();
    assert_eq!(nic.resets(), 1);
}

// What the driver lets the device read in a receive chain means nothing.
#[test]
fn readable_buffers_are_left_alone() {
    let mut nic = Nic::new(SIMPLE);
    let given = nic.readable(&[9; 32]);
    let room = nic.writable(100);
    let head = nic.lane(0).ring.add(&[given, room]);
    nic.port.push(0, &frame(60));
    nic.run();
    assert_eq!(nic.lane(0).ring.used(), Some((head, 72)));
    assert_eq!(nic.read(given.address, 32), [9; 32]);
    assert_eq!(nic.read(room.address + 12, 60), frame(60));
}

// net.config.5: longer frames than the driver was promised are lost; a VLAN tag is not counted.
#[test]
fn frames_beyond_the_mtu_are_lost() {
    for (features, promised) in [
        (SIMPLE | feature::MTU, true),
        (SIMPLE | feature::MTU | feature::MRG_RXBUF, true),
        (SIMPLE, false),
    ] {
        let (net, port) = ScriptedNet::with_mtu(1, Some(1400));
        let mut nic = Nic::on(Arc::new(net), port, &options(1), features);
        let mut tagged = frame(1418);
        tagged[12..14].copy_from_slice(&[0x81, 0]);
        let mut doubly = frame(1422);
        doubly[12..14].copy_from_slice(&[0x88, 0xa8]);
        doubly[16..18].copy_from_slice(&[0x81, 0]);
        for (frame, fits) in [
            (frame(1414), true),
            (frame(1415), false),
            (tagged.clone(), true),
            ([&tagged[..], &[0]].concat(), false),
            (doubly.clone(), true),
            ([&doubly[..], &[0]].concat(), false),
        ] {
            nic.post(0, 1, 2048);
            nic.port.push(0, &frame);
            let got = nic.receive();
            assert_eq!(got.is_some(), fits || !promised, "{}", frame.len());
        }
        let lost = if promised { 3 } else { 0 };
        assert_eq!(nic.statistics().received_too_long, lost);
    }
}

// CVE-2023-6693, QEMU 17437418c4: every byte of the header is the device's.
#[test]
fn nothing_stale_is_in_the_header() {
    for features in [SIMPLE, SIMPLE | feature::HASH_REPORT] {
        let mut nic = Nic::new(features);
        for round in 0..3 {
            let buffer = nic.writable(200);
            let head = nic.lane(0).ring.add(&[buffer]);
            nic.port.push(0, &frame(60));
            nic.run();
            let header_len = nic.header_len();
            let written = u32::try_from(header_len + 60).unwrap();
            assert_eq!(nic.lane(0).ring.used(), Some((head, written)), "{round}");
            let mut header = vec![0; header_len];
            header[10] = 1;
            assert_eq!(nic.read(buffer.address, header_len), header);
        }
    }
}
