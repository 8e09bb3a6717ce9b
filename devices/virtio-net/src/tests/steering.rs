//! Several queues, and which of them a frame goes to.

use paraslot_backends::net::testing::{Ip, Packet};
use paraslot_spec::virtio_net::{ack, class, hash_report, hash_type, mq};

use super::*;

/// The key that the vectors of receive-side scaling are published with.
pub(super) const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Several queues, and no filters.
const SEVERAL: u64 = ALL & !(feature::CTRL_RX | feature::CTRL_VLAN);

pub(super) fn rss(
    types: u32,
    table: &[u16],
    unclassified: u16,
    max_tx: u16,
    key: &[u8],
) -> Vec<u8> {
    let mask = u16::try_from(table.len() - 1).unwrap();
    let mut bytes = types.to_le_bytes().to_vec();
    for word in [mask, unclassified].iter().chain(table).chain(&[max_tx]) {
        bytes.extend(word.to_le_bytes());
    }
    bytes.push(u8::try_from(key.len()).unwrap());
    bytes.extend(key);
    bytes
}

fn hash_config(types: u32, key: &[u8]) -> Vec<u8> {
    let mut bytes = types.to_le_bytes().to_vec();
    bytes.extend([0; 8]);
    bytes.push(u8::try_from(key.len()).unwrap());
    bytes.extend(key);
    bytes
}

pub(super) fn set_pairs(nic: &mut Nic, pairs: u16) -> u8 {
    nic.command(class::MQ, mq::VQ_PAIRS_SET, &pairs.to_le_bytes())
}

/// Published vectors: packets over IPv4 and IPv6, and their hashes with and without ports.
fn vectors() -> Vec<(Packet, u32, u32)> {
    let v4 = |source: [u8; 4], destination: [u8; 4], ports, with, without| {
        let mut packet = Packet::tcp4(b"data");
        packet.ports = ports;
        if let Ip::V4 { source: s, destination: d, .. } = &mut packet.ip {
            (*s, *d) = (source, destination);
        }
        (packet, with, without)
    };
    let v6 = |source: &str, destination: &str, ports, with, without| {
        let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let mut packet = Packet::tcp6(b"data");
        packet.ports = ports;
        if let Ip::V6 { source: s, destination: d, .. } = &mut packet.ip {
            (*s, *d) = (octets(source), octets(destination));
        }
        (packet, with, without)
    };
    vec![
        v4([66, 9, 149, 187], [161, 142, 100, 80], (2794, 1766), 0x51cc_c178, 0x323e_8fc2),
        v4([199, 92, 111, 2], [65, 69, 140, 83], (14230, 4739), 0xc626_b0ea, 0xd718_262a),
        v4([24, 19, 198, 95], [12, 22, 207, 184], (12898, 38024), 0x5c2b_394a, 0xd2d0_a5de),
        v4([38, 27, 205, 30], [209, 142, 163, 6], (48228, 2217), 0xafc7_327f, 0x8298_9176),
        v4([153, 39, 163, 191], [202, 188, 127, 2], (44251, 1303), 0x10e8_28a2, 0x5d18_09c5),
        v6("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", (2794, 1766), 0x4020_7d3d, 0x2cc1_8cd5),
        v6("3ffe:501:8::260:97ff:fe40:efab", "ff02::1", (14230, 4739), 0xdde5_1bbf, 0x0f0c_461c),
        v6(
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            "fe80::200:f8ff:fe21:67cf",
            (44251, 38024),
            0x02d1_feef,
            0x4b61_e985,
        ),
    ]
}

// net.mq.1, net.mq.2, inline.net.4, inline.net.5
#[test]
fn the_driver_chooses_how_many_queues_are_used() {
    let mut nic = Nic::with(&options(3), SEVERAL);
    for pair in 0..3 {
        nic.post(pair, 20, 2048);
        nic.port.push(pair, &frame(60 + usize::from(pair)));
    }
    nic.run();
    assert_eq!(nic.port.active(), 1);
    assert!(nic.got(0).is_some() && nic.got(1).is_none() && nic.got(2).is_none());
    assert_eq!(set_pairs(&mut nic, 3), ack::OK);
    assert_eq!(nic.port.active(), 3);
    nic.run();
    // What arrives by a queue of the backend goes to the queue of the same number.
    assert_eq!(nic.got(1).unwrap().frame, frame(61));
    assert_eq!(nic.got(2).unwrap().frame, frame(62));
    assert_eq!(set_pairs(&mut nic, 2), ack::OK);
    nic.port.push(2, &frame(60));
    nic.port.push(1, &frame(60));
    nic.run();
    assert!(nic.got(2).is_none() && nic.got(1).is_some());
    assert_eq!(nic.port.waiting(2), 1);
    for wrong in [0, 4, 0x8000, 0xffff] {
        assert_eq!(set_pairs(&mut nic, wrong), ack::ERR);
    }
    assert_eq!(nic.port.active(), 2);
}

// A driver must not use transmit queues that are not enabled; if it does, they are not looked at.
#[test]
fn transmit_queues_that_are_not_enabled_wait() {
    let mut nic = Nic::with(&options(2), SEVERAL);
    nic.queue_frame(1, Header::default(), &frame(60));
    nic.queue_frame(0, Header::default(), &frame(61));
    nic.run();
    assert_eq!((nic.sent(0), nic.sent(1)), (vec![frame(61)], vec![]));
    assert_eq!(set_pairs(&mut nic, 2), ack::OK);
    assert_eq!(nic.sent(1), [frame(60)]);
    assert_eq!(nic.lane(3).ring.used_idx(), 1);
    assert_eq!(set_pairs(&mut nic, 1), ack::OK);
    nic.queue_frame(1, Header::default(), &frame(60));
    nic.run();
    assert_eq!(nic.lane(3).ring.used_idx(), 1);
    // All, even if max_tx_vq says that one is used: Linux sends an old number.
    let config = rss(0, &[0], 0, 1, &[]);
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &config), ack::OK);
    assert_eq!(nic.sent(1), [frame(60)]);
    nic.queue_frame(1, Header::default(), &frame(62));
    nic.run();
    assert_eq!(nic.sent(1), [frame(62)]);
}

// net.mq.3, net.mq.4: a queue that is being reset gets nothing, others go on; what came when there
// was none is lost.
#[test]
fn queues_that_are_reset_get_nothing() {
    let mut nic = Nic::with(&options(3), SEVERAL);
    assert_eq!(set_pairs(&mut nic, 3), ack::OK);
    nic.stop(2);
    assert_eq!(nic.port.active(), 1);
    nic.start(2);
    assert_eq!(nic.port.active(), 3);
    nic.run();
    nic.post(0, 4, 2048);
    nic.post(1, 4, 2048);
    nic.port.push(1, &frame(60));
    nic.run();
    assert_eq!(nic.got(1).unwrap().frame, frame(60));
    for pair in 0..3 {
        nic.stop(2 * pair);
    }
    assert_eq!(nic.port.active(), 1);
    nic.port.push(0, &frame(60));
    nic.start(0);
    nic.post(0, 4, 2048);
    nic.run();
    assert_eq!((nic.got(0), nic.statistics().receive_errors), (None, 1));
    nic.port.push(0, &frame(61));
    nic.run();
    assert_eq!(nic.got(0).unwrap().frame, frame(61));
}

// net.rss.1a, inline.net.3; the hash is told with HASH_CONFIG alone, for one queue.
#[test]
fn hashes_are_reported() {
    let mut nic = Nic::new(SEVERAL & !feature::RSS);
    nic.post(0, 40, 2048);
    let mut check = |types: u32, tcp: bool, ip: bool| {
        let config = hash_config(types, &KEY);
        assert_eq!(nic.command(class::MQ, mq::HASH_CONFIG, &config), ack::OK);
        for (packet, with, without) in vectors() {
            let v4 = matches!(packet.ip, Ip::V4 { .. });
            nic.post(0, 1, 2048);
            nic.port.push(0, &packet.finished());
            let got = nic.receive().unwrap();
            let expected = match (tcp, ip, v4) {
                (true, _, true) => (with, hash_report::TCPV4),
                (true, _, false) => (with, hash_report::TCPV6),
                (_, true, true) => (without, hash_report::IPV4),
                (_, true, false) => (without, hash_report::IPV6),
                _ => (0, hash_report::NONE),
            };
            assert_eq!(
                (got.header.hash_value.get(), got.header.hash_report.get()),
                expected,
                "{packet:?}"
            );
            assert_eq!(got.frame, packet.finished());
        }
    };
    check(hash_type::ALL, true, true);
    check(hash_type::IPV4 | hash_type::IPV6, false, true);
    check(hash_type::UDPV4 | hash_type::UDPV6, false, false);
    check(0, false, false);
}

// QEMU 17437418c4: without a hash there is none, not the last one's.
#[test]
fn packets_without_a_hash_have_none() {
    let mut nic = Nic::new(SEVERAL);
    nic.post(0, 60, 2048);
    let config = hash_config(hash_type::ALL, &KEY);
    assert_eq!(nic.command(class::MQ, mq::HASH_CONFIG, &config), ack::OK);
    for _ in 0..3 {
        nic.port.push(0, &vectors()[0].0.finished());
        nic.port.push(0, &frame(60));
        nic.run();
        assert_eq!(nic.got(0).unwrap().header.hash_value.get(), 0x51cc_c178);
        let got = nic.got(0).unwrap();
        assert_eq!((got.header.hash_value.get(), got.header.hash_report.get()), (0, 0));
    }
}

// net.rss.1 to net.rss.1c, inline.net.2
#[test]
fn the_hash_chooses_the_queue() {
    for features in [SEVERAL, SEVERAL & !feature::HASH_REPORT, SEVERAL & !feature::MRG_RXBUF] {
        let mut nic = Nic::with(&options(4), features);
        for pair in 0..4 {
            nic.post(pair, 30, 2048);
        }
        let table = [0, 1, 2, 3, 3, 2, 1, 0];
        let config = rss(hash_type::ALL, &table, 2, 4, &KEY);
        assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &config), ack::OK);
        assert_eq!(nic.port.active(), 4);
        // By whichever of the backend's queues it comes.
        for arrival in 0..4 {
            for (packet, hash, _) in vectors() {
                nic.port.push(arrival, &packet.finished());
                nic.run();
                let target = table[usize::try_from(hash & 7).unwrap()];
                for pair in 0..4 {
                    let got = nic.got(pair);
                    assert_eq!(got.is_some(), pair == target, "{arrival} {hash:#x} {pair}");
                    let Some(got) = got else { continue };
                    assert_eq!(got.frame, packet.finished());
                    if nic.has(feature::HASH_REPORT) {
                        assert_eq!(got.header.hash_value.get(), hash);
                    }
                    nic.post(pair, 1, 2048);
                }
            }
            nic.port.push(arrival, &frame(60));
            nic.run();
            assert_eq!(nic.got(2).unwrap().frame, frame(60));
            nic.post(2, 1, 2048);
        }
    }
}

// With one queue to choose from, or one that all go to, nothing is handed over by its own worker.
#[test]
fn one_target_is_served_in_place() {
    let mut nic = Nic::with(&options(2), SEVERAL & !feature::MRG_RXBUF);
    nic.post(0, 8, 2048);
    nic.post(1, 8, 2048);
    for (only, arrival, copies) in [(0, 0, 1), (1, 1, 1), (1, 0, 2)] {
        let config = rss(hash_type::ALL, &[only, only], only, 2, &KEY);
        assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &config), ack::OK);
        let before = nic.statistics().copied_bytes;
        nic.port.push(arrival, &frame(100));
        nic.run();
        assert_eq!(nic.got(only).unwrap().frame, frame(100));
        assert_eq!(nic.got(1 - only), None);
        let copied = nic.statistics().copied_bytes - before;
        // From the backend's memory to the host's is no copy to or from the guest.
        assert!(copied == 100 || copies == 2, "{copied}");
    }
}

// net.rss.2: the target has no worker.
#[test]
fn a_target_that_is_reset_loses_its_frames() {
    let mut nic = Nic::with(&options(2), SEVERAL);
    nic.post(0, 8, 2048);
    let config = rss(hash_type::ALL, &[0, 1], 1, 2, &KEY);
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &config), ack::OK);
    nic.stop(2);
    nic.port.push(0, &frame(60));
    nic.run();
    assert_eq!((nic.got(0), nic.statistics().no_guest_buffers), (None, 1));
    nic.start(2);
    nic.post(1, 8, 2048);
    nic.run();
    assert_eq!(nic.got(1), None);
    nic.port.push(0, &frame(61));
    nic.run();
    assert_eq!(nic.got(1).unwrap().frame, frame(61));
}

// A queue that nobody serves keeps a bounded number of frames, and is served when it has buffers.
#[test]
fn a_target_without_buffers_holds_up_no_other() {
    let mut nic = Nic::with(&options(2), SEVERAL);
    nic.post(0, 60, 2048);
    let config = rss(hash_type::ALL, &[0, 0], 1, 2, &KEY);
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &config), ack::OK);
    for _ in 0..300 {
        nic.port.push(0, &frame(60));
    }
    nic.port.push(0, &vectors()[0].0.finished());
    nic.run();
    assert_eq!(nic.got(0).unwrap().frame, vectors()[0].0.finished());
    assert_eq!(nic.statistics().no_guest_buffers, 300 - 256);
    nic.post(1, 60, 2048);
    nic.run();
    for _ in 0..60 {
        assert_eq!(nic.got(1).unwrap().frame, frame(60));
    }
    // net.mq.2: no more of them once the queue is not in use.
    nic.post(1, 4, 2048);
    assert_eq!(set_pairs(&mut nic, 1), ack::OK);
    while nic.got(1).is_some() {}
    nic.post(1, 4, 2048);
    nic.run();
    assert_eq!(nic.got(1), None);
}

// CVE-2024-6505, QEMU cd76e8fcbe: tables that name queues that do not exist or do not run, or are of
// impossible lengths.
#[test]
fn settings_that_make_no_sense_are_refused() {
    let mut nic = Nic::with(&options(3), SEVERAL);
    nic.stop(4);
    let all = hash_type::ALL;
    let right = rss(all, &[0, 1], 1, 2, &KEY);
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &right), ack::OK);
    let before = format!("{:?}", *nic.control.0.state());
    let mut huge = rss(all, &[0, 1], 1, 2, &KEY);
    huge[4..6].copy_from_slice(&[0xff, 0xff]);
    let mut long_key = rss(all, &[0, 1], 1, 2, &KEY);
    long_key[14] = 41;
    long_key.push(0);
    for (what, wrong) in [
        ("a queue that does not run", rss(all, &[0, 2], 1, 2, &KEY)),
        ("a queue that does not exist", rss(all, &[0, 3], 1, 2, &KEY)),
        ("a reserved bit", rss(all, &[0, 0x8001], 1, 2, &KEY)),
        ("no queue for the unclassified", rss(all, &[0, 1], 2, 2, &KEY)),
        ("likewise", rss(all, &[0, 1], 0xffff, 2, &KEY)),
        ("three entries", rss(all, &[0, 1, 0], 1, 2, &KEY)),
        ("more entries than there may be", rss(all, &[0; 256], 1, 2, &KEY)),
        ("a mask of all ones", huge),
        ("no transmit queue", rss(all, &[0, 1], 1, 0, &KEY)),
        ("more transmit queues than there are", rss(all, &[0, 1], 1, 4, &KEY)),
        ("an unknown hash", rss(1 << 9, &[0, 1], 1, 2, &KEY)),
        ("no key", rss(all, &[0, 1], 1, 2, &[])),
        ("a key that is too long", long_key),
    ] {
        assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &wrong), ack::ERR, "{what}");
        assert_eq!(format!("{:?}", *nic.control.0.state()), before, "{what}");
    }
    let mut long_key = hash_config(all, &KEY);
    long_key[12] = 255;
    long_key.extend([0; 215]);
    for (what, wrong) in [
        ("an unknown hash", hash_config(u32::MAX, &KEY)),
        ("no key", hash_config(1, &[])),
        ("a key that is too long", long_key),
    ] {
        assert_eq!(nic.command(class::MQ, mq::HASH_CONFIG, &wrong), ack::ERR, "{what}");
        assert_eq!(format!("{:?}", *nic.control.0.state()), before, "{what}");
    }
    let full = rss(all, &[0; 128], 0, 3, &KEY);
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &full), ack::OK);
    // A short key goes on with zeroes; nothing to hash needs none.
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &rss(all, &[1], 1, 1, &KEY[..16])), ack::OK);
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &rss(0, &[1], 1, 1, &[])), ack::OK);
}

// The last command decides (5.1.9.5.5).
#[test]
fn the_last_mode_that_was_chosen_is_in_force() {
    let mut nic = Nic::with(&options(2), SEVERAL);
    nic.post(0, 8, 2048);
    nic.post(1, 8, 2048);
    let config = rss(hash_type::ALL, &[1], 1, 2, &KEY);
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &config), ack::OK);
    nic.port.push(0, &frame(60));
    nic.run();
    assert!(nic.got(1).is_some());
    assert_eq!(set_pairs(&mut nic, 2), ack::OK);
    nic.port.push(0, &frame(60));
    nic.run();
    assert!(nic.got(0).is_some() && nic.got(1).is_none());
    // How packets are hashed is not what was chosen.
    nic.port.push(0, &vectors()[0].0.finished());
    nic.run();
    assert_eq!(nic.got(0).unwrap().header.hash_value.get(), 0x51cc_c178);
}

// Filters are for every queue, wherever the frame comes in.
#[test]
fn frames_that_are_not_wanted_are_not_handed_over() {
    let mut nic = Nic::with(&options(2), ALL);
    nic.post(0, 8, 2048);
    nic.post(1, 8, 2048);
    let config = rss(hash_type::ALL, &[1], 1, 2, &KEY);
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &config), ack::OK);
    nic.port.push(0, &frame_to([2; 6], 60));
    nic.port.push_raw(0, &[0; 13], Default::default());
    nic.run();
    assert_eq!((nic.got(1), nic.statistics().filtered), (None, 1));
    assert_eq!(nic.statistics().receive_errors, 1);
    nic.port.push(0, &frame(60));
    nic.run();
    assert!(nic.got(1).is_some());
}
