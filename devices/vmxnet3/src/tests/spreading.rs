//! Several queues, and receive-side scaling.

use paraslot_backends::net::hash::Toeplitz;
use paraslot_backends::net::testing::Ip;

use super::*;

const KEY: [u8; 40] = {
    let mut key = [0; 40];
    let mut at = 0;
    while at < 40 {
        key[at] = (at * 37 + 11) as u8;
        at += 1;
    }
    key
};

pub(super) fn conf(queues: usize, types: RssHashType) -> RSSConf {
    let mut conf = RSSConf {
        hash_type: types.bits().into(),
        hash_func: RSS_HASH_FUNC_TOEPLITZ.into(),
        hash_key_size: 40.into(),
        ind_table_size: 32.into(),
        hash_key: KEY,
        ind_table: [0xff; 128],
    };
    for (index, entry) in conf.ind_table[..32].iter_mut().enumerate() {
        *entry = (index * 3 % queues) as u8;
    }
    conf
}

fn machine(setup: Setup, conf: &RSSConf) -> Machine {
    let features = Features::RSS | Features::RXCSUM;
    let mut machine = Machine::off(Setup { features, ..setup });
    machine.fill(RSS, conf.as_bytes());
    machine.start();
    machine
}

/// What is hashed of a packet whose addresses and ports are told by `number`.
pub(super) fn flow(mut packet: Packet, number: u8, ports: bool) -> (Vec<u8>, Vec<u8>) {
    packet.ports = (1000 + u16::from(number), 80);
    let mut input = match &mut packet.ip {
        Ip::V4 { source, destination, .. } => {
            source[3] = number;
            [&source[..], destination].concat()
        }
        Ip::V6 { source, destination, .. } => {
            source[15] = number;
            [&source[..], destination].concat()
        }
    };
    if ports {
        input.extend(packet.ports.0.to_be_bytes());
        input.extend(packet.ports.1.to_be_bytes());
    }
    (for_us(packet.finished()), input)
}

#[test]
fn frames_go_where_their_hash_says_and_the_driver_is_told_of_it() {
    let all = RssHashType::all();
    let conf = conf(4, all);
    let mut machine = machine(Setup { rx: 4, tx: 4, queues: 2, ..Setup::default() }, &conf);
    assert_eq!(machine.host.active(), 2);
    let toeplitz = Toeplitz::new(&KEY);
    let kinds = [
        (Packet::tcp4(&[1; 20]), true, rcd::RSS_TYPE_TCPIPV4),
        (Packet::udp4(&[1; 20]), false, rcd::RSS_TYPE_IPV4),
        (Packet::tcp6(&[1; 20]), true, rcd::RSS_TYPE_TCPIPV6),
        (Packet::udp6(&[1; 20]), false, rcd::RSS_TYPE_IPV6),
    ];
    let mut seen = [0; 4];
    for number in 0..50 {
        for (packet, ports, kind) in &kinds {
            let (frame, input) = flow(packet.clone(), number, *ports);
            let hash = toeplitz.hash(&input);
            let queue = usize::from(conf.ind_table[(hash % 32) as usize]);
            // Whichever of the backend's queues it comes by.
            machine.host.push(u16::from(number % 2), &frame);
            machine.run();
            let got = machine.clean(queue).unwrap();
            assert_eq!((&got.bytes, got.first().rss_hash.get()), (&frame, hash));
            assert_eq!(got.first().index.get() >> rcd::RSS_TYPE_SHIFT & rcd::RSS_TYPE, *kind);
            assert!((0..4).all(|other| machine.clean(other).is_none()));
            assert_eq!(machine.messages(), [4 + queue as u16]);
            machine.write_pt(IMR + STRIDE * (4 + queue as u64), 0);
            seen[queue] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
    // What has no hash goes to the first queue.
    machine.host.push(1, &frame(60));
    machine.run();
    let got = machine.clean(0).unwrap();
    assert_eq!((got.first().rss_hash.get(), got.first().index.get() >> 26 & 15), (0, 0));
}

#[test]
fn only_what_is_asked_for_is_hashed() {
    let conf = conf(2, RssHashType::TCP_IPV4);
    let mut machine = machine(Setup { rx: 2, ..Setup::default() }, &conf);
    let hashed = |machine: &mut Machine, frame: &[u8]| {
        machine.arrive(frame);
        let got = machine.clean(0).or_else(|| machine.clean(1)).unwrap();
        got.first().index.get() >> rcd::RSS_TYPE_SHIFT & rcd::RSS_TYPE
    };
    let tcp = for_us(Packet::tcp4(&[0; 9]).finished());
    assert_eq!(hashed(&mut machine, &tcp), rcd::RSS_TYPE_TCPIPV4);
    for packet in [Packet::udp4(&[0; 9]), Packet::tcp6(&[0; 9])] {
        assert_eq!(hashed(&mut machine, &for_us(packet.finished())), rcd::RSS_TYPE_NONE);
    }
}

#[test]
fn the_table_can_be_changed() {
    let mut conf = conf(4, RssHashType::all());
    let mut machine = machine(Setup { rx: 4, ..Setup::default() }, &conf);
    conf.ind_table[..32].fill(3);
    machine.fill(RSS, conf.as_bytes());
    let frame = for_us(Packet::tcp4(&[0; 9]).finished());
    assert_eq!(machine.order(command::UPDATE_RSSIDT), 0);
    machine.arrive(&frame);
    assert!(machine.clean(3).is_some());
    // A queue that does not exist: the table stays as it was.
    conf.ind_table[31] = 4;
    machine.fill(RSS, conf.as_bytes());
    assert_ne!(machine.order(command::UPDATE_RSSIDT), 0);
    machine.arrive(&frame);
    assert!(machine.clean(3).is_some());
    // Off, and on again.
    let features = offset_of!(DriverShared, dev_read.misc.upt_features);
    machine.set_shared(features, &[0]);
    assert_eq!(machine.order(command::UPDATE_FEATURE), 0);
    machine.arrive(&frame);
    assert!(machine.clean(0).is_some());
    assert_ne!(machine.order(command::UPDATE_RSSIDT), 0);
    machine.set_shared(features, &[2]);
    assert_ne!(machine.order(command::UPDATE_FEATURE), 0);
    conf.ind_table[31] = 3;
    machine.fill(RSS, conf.as_bytes());
    assert_eq!(machine.order(command::UPDATE_FEATURE), 0);
    machine.arrive(&frame);
    assert!(machine.clean(3).is_some());
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let right = conf(2, RssHashType::all());
    let with = |change: fn(&mut RSSConf)| {
        let mut conf = right;
        change(&mut conf);
        conf
    };
    for wrong in [
        with(|conf| conf.hash_func = 2.into()),
        with(|conf| conf.hash_func = 0.into()),
        with(|conf| conf.hash_key_size = 41.into()),
        with(|conf| conf.hash_key_size = 0.into()),
        with(|conf| conf.ind_table_size = 129.into()),
        with(|conf| conf.ind_table_size = 0.into()),
        with(|conf| conf.ind_table_size = u16::MAX.into()),
        with(|conf| conf.ind_table[0] = 2),
    ] {
        let features = Features::RSS;
        let mut machine = Machine::off(Setup { rx: 2, features, ..Setup::default() });
        machine.fill(RSS, wrong.as_bytes());
        let mut shared = machine.prepare();
        assert_eq!(machine.activate(&shared), 7, "{wrong:?}");
        machine.fill(RSS, right.as_bytes());
        assert_eq!(machine.activate(&shared), 0);
        shared.dev_read.rss_conf_desc.conf_len = 175.into();
        assert_eq!(machine.activate(&shared), 7);
        shared.dev_read.rss_conf_desc.conf_len = 176.into();
        shared.dev_read.rss_conf_desc.conf_pa = u64::MAX.into();
        assert_eq!(machine.activate(&shared), 7);
    }
}

// A full queue costs its own frames, not those of others.
#[test]
fn a_queue_without_buffers_does_not_hold_up_others() {
    let mut conf = conf(2, RssHashType::all());
    conf.ind_table[..32].fill(1);
    let mut machine = machine(Setup { rx: 2, ..Setup::default() }, &conf);
    let hashed = for_us(Packet::tcp4(&[0; 9]).finished());
    for _ in 0..40 {
        machine.arrive(&hashed);
    }
    machine.arrive(&frame(60));
    assert!(machine.clean(0).is_some());
    assert_eq!(machine.statistics().no_guest_buffers, 9);
    machine.order(command::GET_STATS);
    assert_eq!(machine.rx_desc(1).stats.pkts_out_of_buf.get(), 9);
    assert_eq!(machine.rx_desc(1).stats.ucast_pkts.get(), 31);
    assert_eq!(machine.rx_desc(0).stats.ucast_pkts.get(), 1);
    assert_eq!(std::iter::from_fn(|| machine.clean(1)).count(), 31);
    machine.arrive(&hashed);
    assert!(machine.clean(1).is_some());
}

// Without a hash each of the backend's queues has a receive queue of its own.
#[test]
fn without_scaling_queues_are_the_backends() {
    let mut machine = Machine::with(Setup { rx: 4, tx: 8, queues: 4, ..Setup::default() });
    assert_eq!((machine.executor.len(), machine.host.active()), (4, 4));
    for queue in 0..4 {
        machine.host.push(queue, &frame(60 + usize::from(queue)));
        machine.run();
        let got = machine.clean(queue.into()).unwrap();
        assert_eq!(got.bytes, frame(60 + usize::from(queue)));
    }
    // Transmit queues share the backend's if there are more of them.
    for queue in 0..8 {
        machine.fill(TX_DATA, &frame(100 + queue));
        machine.put(queue, &[descriptor(TX_DATA, 100 + queue as u32, ALONE)]);
        machine.ring(queue);
        machine.run();
        assert_eq!(machine.host.take_sent(queue as u16 % 4)[0].bytes, frame(100 + queue));
        assert_eq!(machine.completed(queue), Some(0));
        assert_eq!(machine.messages().last(), Some(&(queue as u16)));
    }
}

// More receive queues than the backend has: as many as the driver wants, spread by hash.
#[test]
fn sixteen_queues_over_one() {
    let conf = conf(16, RssHashType::all());
    let mut machine = machine(Setup { rx: 16, tx: 8, ..Setup::default() }, &conf);
    for number in 0..=255 {
        let (frame, _) = flow(Packet::tcp4(&[0; 9]), number, true);
        machine.arrive(&frame);
    }
    let got = (0..16).map(|queue| std::iter::from_fn(|| machine.clean(queue)).count());
    let got: Vec<_> = got.collect();
    assert_eq!(got.iter().sum::<usize>() as u64, machine.statistics().received_frames);
    assert!(got.iter().all(|count| *count > 0), "{got:?}");
}
