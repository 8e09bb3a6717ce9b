//! Features, configuration, options and reset.

use paraslot_spec::virtio;
use paraslot_spec::virtio_net::{SPEED_UNKNOWN, class, duplex, mq, rx, status};
use proptest::prelude::*;

use super::*;
use crate::{Duplex, MAX_FILTER_ENTRIES, MAX_QUEUE_PAIRS};

fn offered(device: &VirtioNet) -> u64 {
    VirtioDevice::<Space>::features(device)
}

fn accepts(device: &mut VirtioNet, features: u64) -> bool {
    VirtioDevice::<Space>::accept_features(device, features)
}

fn new(mtu: Option<u16>, options: &Options) -> VirtioNet {
    let (net, _port) = ScriptedNet::with_mtu(options.queue_pairs, mtu);
    VirtioNet::new(Arc::new(net), options).unwrap()
}

const SERVED: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::CTRL_GUEST_OFFLOADS
    | feature::MAC
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_ECN
    | feature::GUEST_UFO
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::HOST_UFO
    | feature::MRG_RXBUF
    | feature::STATUS
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_VLAN
    | feature::CTRL_RX_EXTRA
    | feature::GUEST_ANNOUNCE
    | feature::CTRL_MAC_ADDR
    | feature::VQ_NOTF_COAL
    | feature::NOTF_COAL
    | feature::GUEST_USO4
    | feature::GUEST_USO6
    | feature::HOST_USO
    | feature::HASH_REPORT
    | feature::RSS
    | feature::SPEED_DUPLEX
    | virtio::feature::EVENT_IDX
    | virtio::feature::INDIRECT_DESC;

#[test]
fn what_is_offered() {
    let device = new(None, &options(1));
    assert_eq!(offered(&device), SERVED);
    assert_eq!(VirtioDevice::<Space>::queue_sizes(&device), [64; 3]);
    assert_eq!(VirtioDevice::<Space>::device_type(&device), 1);
    let device = new(Some(1500), &options(2));
    assert_eq!(offered(&device), SERVED | feature::MTU | feature::MQ);
    assert_eq!(VirtioDevice::<Space>::queue_sizes(&device), [64; 5]);
}

// net.config.1, net.config.2, net.config.3, net.config.7, net.config.8, net.config.10, net.config.11
#[test]
fn the_configuration() {
    let device = new(Some(9000), &options(4));
    let shown = config(&device);
    assert_eq!(shown.mac, MAC);
    assert_eq!(shown.status.get(), status::LINK_UP);
    assert_eq!((shown.max_virtqueue_pairs.get(), shown.mtu.get()), (4, 9000));
    assert_eq!((shown.speed.get(), shown.duplex), (SPEED_UNKNOWN, duplex::UNKNOWN));
    assert_eq!((shown.rss_max_key_size, shown.rss_max_indirection_table_length.get()), (40, 128));
    assert_eq!((shown.supported_hash_types.get(), shown.supported_tunnel_types.get()), (0x1ff, 0));
    let options = Options {
        mac: PEER,
        mtu: Some(1280),
        speed: Some(40_000),
        duplex: Some(Duplex::Full),
        link_up: false,
        ..options(1)
    };
    let shown = config(&new(Some(9000), &options));
    assert_eq!((shown.mac, shown.mtu.get(), shown.status.get()), (PEER, 1280, 0));
    assert_eq!((shown.speed.get(), shown.duplex), (40_000, 1));
    let options = Options { duplex: Some(Duplex::Half), ..options };
    assert_eq!(config(&new(None, &options)).duplex, 0);
}

// Fields of features that are not offered are zero.
#[test]
fn what_the_owner_leaves_out_is_not_offered() {
    let device = new(Some(1500), &Options { features: 0, ..options(2) });
    assert_eq!((offered(&device), config(&device)), (0, Config::default()));
    // What needs something else goes with it. net.config.13, net.config.14
    for (left_out, gone) in [
        (
            feature::GUEST_CSUM,
            feature::GUEST_TSO4
                | feature::GUEST_TSO6
                | feature::GUEST_ECN
                | feature::GUEST_UFO
                | feature::GUEST_USO4
                | feature::GUEST_USO6,
        ),
        (feature::GUEST_TSO4 | feature::GUEST_TSO6, feature::GUEST_ECN),
        (
            feature::CSUM,
            feature::HOST_TSO4
                | feature::HOST_TSO6
                | feature::HOST_ECN
                | feature::HOST_UFO
                | feature::HOST_USO,
        ),
        (feature::HOST_TSO4 | feature::HOST_TSO6, feature::HOST_ECN),
        (feature::STATUS, feature::GUEST_ANNOUNCE),
        (
            feature::CTRL_VQ,
            feature::CTRL_RX
                | feature::CTRL_VLAN
                | feature::CTRL_RX_EXTRA
                | feature::GUEST_ANNOUNCE
                | feature::MQ
                | feature::CTRL_MAC_ADDR
                | feature::RSS
                | feature::NOTF_COAL
                | feature::VQ_NOTF_COAL
                | feature::HASH_REPORT
                | feature::CTRL_GUEST_OFFLOADS,
        ),
    ] {
        let all = SERVED | feature::MTU | feature::MQ;
        let device = new(Some(1500), &Options { features: !left_out, ..options(2) });
        assert_eq!(offered(&device), all & !left_out & !gone, "{left_out:#x}");
    }
}

#[test]
fn options_that_cannot_be_served_are_refused_in_one_line() {
    let base = || options(1);
    for (options, expected) in [
        (Options { mac: [1, 0, 0, 0, 0, 1], ..base() }, "choose one of a single station"),
        (Options { mac: [0; 6], ..base() }, "choose one of a single station"),
        (Options { queue_pairs: 0, ..base() }, "choose 1 to 256"),
        (Options { queue_pairs: MAX_QUEUE_PAIRS + 1, ..base() }, "choose 1 to 256"),
        (Options { queue_pairs: 3, ..base() }, "the backend has 2"),
        (Options { queue_size: 100, ..base() }, "choose a power of two"),
        (Options { queue_size: 2, ..base() }, "choose a power of two"),
        (Options { queue_size: 0, ..base() }, "choose a power of two"),
        (Options { mtu: Some(67), ..base() }, "choose 68 to 1500"),
        (Options { mtu: Some(1501), ..base() }, "choose 68 to 1500"),
        (Options { speed: Some(0x8000_0000), ..base() }, "choose up to 2147483647"),
        (Options { max_filter_entries: MAX_FILTER_ENTRIES + 1, ..base() }, "choose up to 1024"),
    ] {
        let (net, _port) = ScriptedNet::with_mtu(2, Some(1500));
        let error = VirtioNet::new(Arc::new(net), &options).err().unwrap().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        assert!(!format!("{options:?}").is_empty());
    }
    // An MTU that may not be told is not.
    assert_eq!(offered(&new(Some(60), &options(1))) & feature::MTU, 0);
}

#[test]
fn sets_of_features_in_which_one_lacks_another_are_refused() {
    let mut device = new(None, &options(2));
    for (alone, with) in [
        (feature::GUEST_TSO4, feature::GUEST_CSUM),
        (feature::GUEST_TSO6, feature::GUEST_CSUM),
        (feature::GUEST_UFO, feature::GUEST_CSUM),
        (feature::GUEST_USO4, feature::GUEST_CSUM),
        (feature::GUEST_USO6, feature::GUEST_CSUM),
        (feature::GUEST_ECN, feature::GUEST_TSO4 | feature::GUEST_CSUM),
        (feature::GUEST_ECN, feature::GUEST_TSO6 | feature::GUEST_CSUM),
        (feature::HOST_TSO4, feature::CSUM),
        (feature::HOST_TSO6, feature::CSUM),
        (feature::HOST_UFO, feature::CSUM),
        (feature::HOST_USO, feature::CSUM),
        (feature::HOST_ECN, feature::HOST_TSO4 | feature::CSUM),
        (feature::HOST_ECN, feature::HOST_TSO6 | feature::CSUM),
        (feature::CTRL_RX, feature::CTRL_VQ),
        (feature::CTRL_VLAN, feature::CTRL_VQ),
        (feature::GUEST_ANNOUNCE, feature::CTRL_VQ),
        (feature::MQ, feature::CTRL_VQ),
        (feature::CTRL_MAC_ADDR, feature::CTRL_VQ),
        (feature::NOTF_COAL, feature::CTRL_VQ),
        (feature::VQ_NOTF_COAL, feature::CTRL_VQ),
        (feature::RSS, feature::CTRL_VQ),
    ] {
        assert!(!accepts(&mut device, alone), "{alone:#x}");
        assert!(accepts(&mut device, alone | with), "{alone:#x} {with:#x}");
    }
    // These should not, but may stand alone.
    for alone in [feature::HASH_REPORT, feature::CTRL_RX_EXTRA, feature::CTRL_GUEST_OFFLOADS, 0] {
        assert!(accepts(&mut device, alone), "{alone:#x}");
    }
    for never in [
        feature::STANDBY,
        feature::RSC_EXT,
        feature::DEVICE_STATS,
        feature::HASH_TUNNEL,
        feature::GUEST_HDRLEN,
        feature::MTU,
        1 << 6,
    ] {
        assert!(!accepts(&mut device, never), "{never:#x}");
    }
    let transport = virtio::feature::VERSION_1 | virtio::feature::RING_RESET;
    assert!(accepts(&mut device, feature::MAC | transport));
}

proptest! {
    /// Whatever the owner leaves out, what is left can be accepted whole.
    #[test]
    fn what_is_offered_is_consistent(features: u64) {
        let mut device = new(Some(1500), &Options { features, ..options(2) });
        let all = offered(&device);
        prop_assert_eq!(all & !features, 0);
        prop_assert!(accepts(&mut device, all));
    }
}

// QEMU f47af0af0d: which queue is for control depends on what was negotiated.
#[test]
fn queues_are_where_the_features_put_them() {
    let several = feature::MQ | feature::CTRL_VQ;
    for (features, queues, control) in [
        (0, 2, None),
        (feature::CTRL_VQ, 2, Some(2)),
        (several, 6, Some(6)),
        (feature::RSS | feature::CTRL_VQ, 6, Some(6)),
    ] {
        let mut device = new(None, &options(3));
        assert!(accepts(&mut device, features));
        for index in 0..8 {
            let ring = DriverRing::new(space(), 0, 16);
            let started = device.start_queue(index, ring.queue(features).queue);
            assert_eq!(started.is_ok(), index < queues || control == Some(index), "{index}");
        }
    }
}

#[test]
fn the_configuration_cannot_be_written() {
    let mut nic = Nic::new(ALL);
    let before = config(&nic.device);
    for (offset, data) in [(0, &[1; 6][..]), (6, &[0, 0]), (u64::MAX, &[1]), (0, &[])] {
        VirtioDevice::<Space>::write_config(&mut nic.device, offset, data);
    }
    assert_eq!(config(&nic.device), before);
}

// net.mac.1, net.mq.1, net.coalesce.9 and the rest: a reset forgets all that was set up.
#[test]
fn a_reset_forgets_what_was_set_up() {
    let mut nic = Nic::with(&options(2), ALL & !feature::HASH_REPORT);
    nic.post(1, 4, 2048);
    let ok = |answer: u8| assert_eq!(answer, 0);
    ok(nic.command(class::RX, rx::PROMISC, &[1]));
    ok(nic.command(class::RX, rx::NOBCAST, &[1]));
    ok(nic.command(class::MAC, 1, &PEER));
    ok(nic.command(class::MAC, 0, &[1, 0, 0, 0, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0]));
    ok(nic.command(class::VLAN, 0, &[5, 0]));
    ok(nic.command(class::MQ, mq::VQ_PAIRS_SET, &[2, 0]));
    ok(nic.command(class::GUEST_OFFLOADS, 0, &[0; 8]));
    ok(nic.command(class::NOTF_COAL, 1, &[9, 0, 0, 0, 9, 0, 0, 0]));
    assert!(nic.control.announce());
    assert_eq!(nic.port.active(), 2);
    assert_eq!(config(&nic.device).mac, PEER);
    assert_eq!(config(&nic.device).status.get(), status::LINK_UP | status::ANNOUNCE);

    nic.lanes.iter_mut().for_each(|lane| *lane = None);
    VirtioDevice::<Space>::reset(&mut nic.device);
    assert_eq!(config(&nic.device).mac, MAC);
    assert_eq!(config(&nic.device).status.get(), status::LINK_UP);
    assert_eq!((nic.port.active(), nic.port.accepted().is_empty()), (1, true));
    assert!(!nic.control.announce());
    let state = format!("{:?}", *nic.device.control().0.state());
    let fresh = VirtioNet::new(Arc::new(ScriptedNet::new(2).0), &options(2)).unwrap();
    assert_eq!(state, format!("{:?}", *fresh.control().0.state()));

    nic.negotiate(ALL);
    nic.start_all();
    nic.post(0, 4, 2048);
    for (destination, passes) in [(MAC, true), (PEER, false), ([2; 6], false), ([0xff; 6], true)] {
        nic.port.push(0, &frame_to(destination, 60));
        assert_eq!(nic.receive().is_some(), passes, "{destination:x?}");
    }
}

// The link is the owner's.
#[test]
fn a_reset_leaves_the_link_as_it_is() {
    let mut nic = Nic::new(ALL);
    nic.control.set_link(false);
    nic.restart(ALL);
    assert!(!nic.control.link());
    assert_eq!(config(&nic.device).status.get(), 0);
}
