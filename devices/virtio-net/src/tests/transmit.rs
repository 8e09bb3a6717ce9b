//! Frames on their way out.

use paraslot_backends::net::MAX_FRAME;
use paraslot_spec::virtio_net::{gso, header_flag};

use super::*;

#[test]
fn frames_go_out_in_order_and_come_back() {
    for features in [0, PLAIN, ALL] {
        let mut nic = Nic::new(features);
        let frames: Vec<_> = (14..40).map(frame).collect();
        let heads: Vec<u16> =
            frames.iter().map(|frame| nic.queue_frame(0, Header::default(), frame)).collect();
        nic.run();
        assert_eq!(nic.sent(0), frames);
        for head in heads {
            assert_eq!(nic.lane(1).ring.used(), Some((head, 0)));
        }
        let sum: usize = frames.iter().map(Vec::len).sum();
        let statistics = nic.statistics();
        assert_eq!((statistics.sent_frames, statistics.sent_bytes), (26, sum as u64));
        assert_eq!(statistics.copied_bytes, sum as u64);
        assert_eq!(nic.control.queue_statistics(0), Some(statistics));
        assert_eq!(nic.control.queue_statistics(1), None);
        assert_eq!(nic.control.queue_statistics(u16::MAX), None);
    }
}

// split.framing.1: a header and a frame are bytes, wherever the descriptors cut them up.
#[test]
fn any_cut_means_the_same() {
    for features in [PLAIN, PLAIN | feature::HASH_REPORT] {
        let mut nic = Nic::new(features);
        let frame = frame(50);
        let bytes = [&nic.header(Header::default())[..], &frame].concat();
        for first in 0..=bytes.len() {
            for second in [first, (first + bytes.len()) / 2, bytes.len()] {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let buffers: Vec<Buffer> = pieces.iter().map(|piece| nic.readable(piece)).collect();
                nic.lane(1).ring.add(&buffers);
                nic.run();
                assert!(nic.lane(1).ring.used().is_some());
                assert_eq!(nic.sent(0), std::slice::from_ref(&frame), "{first} {second}");
            }
        }
        // One byte each, and by way of a table.
        let buffer = nic.readable(&bytes);
        let single = |index: usize| Buffer::readable(buffer.address + index as u64, 1);
        let buffers: Vec<Buffer> = (0..bytes.len()).map(single).collect();
        let table = nic.memory(16 * bytes.len());
        nic.lane(1).ring.add_indirect(table, &buffers);
        nic.run();
        assert_eq!(nic.sent(0), [frame]);
        assert_eq!(nic.statistics().send_invalid, 0);
    }
}

// A frame may lie across two regions of guest memory.
#[test]
fn frames_across_regions_are_whole() {
    let mut nic = Nic::new(PLAIN);
    let bytes = [&nic.header(Header::default())[..], &frame(100)].concat();
    for before in [1, 6, 12, 13, 50, 111] {
        let address = MEMORY as u64 / 2 - before;
        nic.write(address, &bytes);
        nic.lane(1).ring.add(&[Buffer::readable(address, 112)]);
        nic.run();
        assert_eq!(nic.sent(0), [frame(100)]);
    }
}

// QEMU d4f471eb7e, CH 559faa272: what is not a frame is lost and its chain comes back; the queue goes
// on.
#[test]
fn what_is_not_a_frame_is_lost_and_comes_back() {
    for features in [PLAIN, PLAIN | feature::HASH_REPORT] {
        let mut nic = Nic::new(features);
        let header = nic.header(Header::default());
        let frame = frame(60);
        let mut invalid = 0;
        let mut lose = |nic: &mut Nic, buffers: &[Buffer]| {
            let head = nic.lane(1).ring.add(buffers);
            nic.run();
            assert_eq!(nic.lane(1).ring.used(), Some((head, 0)));
            invalid += 1;
            assert_eq!(nic.statistics().send_invalid, invalid);
            assert!(nic.sent(0).is_empty());
        };
        for len in 0..header.len() + 14 {
            let bytes = [&header[..], &frame[..14]].concat();
            let buffer = nic.readable(&bytes[..len]);
            lose(&mut nic, &[buffer]);
        }
        let whole = nic.readable(&[&header[..], &frame].concat());
        let room = nic.writable(64);
        lose(&mut nic, &[whole, room]);
        lose(&mut nic, &[room]);
        let long = nic.readable(&vec![0; header.len() + MAX_FRAME + 1]);
        lose(&mut nic, &[long]);
        let huge = Buffer::readable(DATA, u32::MAX);
        lose(&mut nic, &[huge]);
        // Not memory.
        let nowhere = Buffer::readable(MEMORY as u64 - 10, 100);
        lose(&mut nic, &[nowhere]);
        lose(&mut nic, &[whole, nowhere]);
        assert_eq!(nic.resets(), 0);
        nic.send(Header::default(), &frame);
        assert_eq!(nic.sent(0), [frame]);
        // The longest there is.
        let longest = vec![7; MAX_FRAME];
        nic.send(Header::default(), &longest);
        assert_eq!(nic.sent(0), [longest]);
    }
}

// net.tx.1, net.tx.2, net.tx.4, net.tx.7, net.tx.9, net.tx.13: what has no meaning has no effect.
#[test]
fn fields_without_meaning_are_ignored() {
    let mut nic = Nic::new(PLAIN);
    let plain = Header {
        flags: !(header_flag::NEEDS_CSUM | header_flag::UDP_TUNNEL_CSUM),
        gso_type: gso::NONE,
        hdr_len: 0xffff.into(),
        gso_size: 0xffff.into(),
        csum_start: 0xffff.into(),
        csum_offset: 0xffff.into(),
        num_buffers: 0xffff.into(),
    };
    for header in [plain, Header { gso_type: gso::ECN, ..plain }] {
        nic.send(header, &frame(60));
        let sent = nic.port.take_sent(0);
        assert_eq!(sent.len(), 1);
        assert_eq!((&sent[0].bytes, sent[0].offload), (&frame(60), Default::default()));
    }
}

// net.tx.8, net.tx.10, net.tx.11: nothing that has to do with tunnels is accepted.
#[test]
fn tunnels_are_refused() {
    let mut nic = Nic::new(PLAIN);
    let checksum = Header {
        flags: header_flag::NEEDS_CSUM,
        csum_start: 34.into(),
        csum_offset: 16.into(),
        gso_size: 100.into(),
        ..Header::default()
    };
    let mut invalid = 0;
    for tunnel in [gso::UDP_TUNNEL_IPV4, gso::UDP_TUNNEL_IPV6, 0x60, 0xe0] {
        for inner in [gso::NONE, gso::TCPV4, gso::TCPV6, gso::UDP_L4, gso::UDP] {
            nic.send(Header { gso_type: tunnel | inner, ..checksum }, &frame(200));
            invalid += 1;
        }
    }
    nic.send(Header { flags: header_flag::UDP_TUNNEL_CSUM, ..Header::default() }, &frame(200));
    assert_eq!(nic.statistics().send_invalid, invalid + 1);
    assert!(nic.sent(0).is_empty());
}

// net.config.6, net.tx.12: nothing is cut that the driver did not ask to be cut, nothing is summed.
#[test]
fn frames_up_to_the_mtu_go_out_as_they_are() {
    let (net, port) = ScriptedNet::with_mtu(1, Some(9000));
    let mut nic = Nic::on(Arc::new(net), port, &options(1), PLAIN);
    assert!(nic.has(feature::MTU));
    for len in [1514, 9014, 9018] {
        nic.send(Header::default(), &frame(len));
        assert_eq!(nic.sent(0), [frame(len)]);
    }
}

// split.desc.1, split.desc.2: nothing but the used ring is written.
#[test]
fn the_driver_s_buffers_are_not_written() {
    let mut nic = Nic::new(PLAIN);
    nic.queue_frame(0, Header::default(), &frame(700));
    nic.queue_frame(0, Header::default(), &frame(5));
    let before = nic.read(DATA, 0x2000);
    nic.run();
    assert_eq!(nic.read(DATA, 0x2000), before);
    assert_eq!(nic.lane(1).ring.used_idx(), 2);
}
