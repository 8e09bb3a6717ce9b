//! What vmxnet3 may hold: a frame in each direction, and what the driver has set up.

use paraslot_spec::vmxnet3::registers::{RXPROD, TXPROD};
use paraslot_spec::vmxnet3::{Features, command};
use paraslot_tests::frames::Shape;
use paraslot_tests::port::{Fate, Port};
use paraslot_tests::targets;

use super::networks::{PORT, drop_loaded, uncut};
use super::{BENCH, measure, scripts};
use crate::net::frame;
use crate::nic::Adapter;
use crate::support::Random;
use crate::vmxnet3::{PLACES, RECEIVE_RINGS, Setup, Vmx, descriptor};

/// Bytes of the longest frame.
const FRAME: i64 = 65_557;
/// What a lane holds: a frame that waits for buffers, the headers of one that is sent, and the pieces of
/// both.
const LANE: i64 = FRAME + 2 * 24 * 64 + 16 * 1024;
/// What the queues hold that a driver sets up: 8 and 16 of them, each with the buffers of a packet;
/// the table of addresses, while it is read, and its counterpart; and what is counted of them.
const QUEUES: i64 = 24 * (512 + 64 * 48) + 2 * 65_535 + 16 * 1024;

#[test]
fn vmxnet3_is_bounded_under_random_scripts() {
    scripts(targets::vmxnet3, 2 * LANE + QUEUES + PORT + BENCH, 4 * 1024);
}

/// As much as a driver can set up.
fn most() -> Setup {
    let mut setup = Setup::default();
    let read = &mut setup.shared.dev_read;
    read.misc.upt_features = (Features::RXCSUM | Features::RXVLAN | Features::LRO).bits().into();
    read.misc.mtu = 9000.into();
    read.misc.max_num_rx_sg = 0xffff.into();
    read.rx_filter_conf.mf_table_len = 0xffff.into();
    read.rx_filter_conf.mf_table_pa = PLACES.into();
    read.rx_filter_conf.vf_table = [u32::MAX.into(); 128];
    setup
}

// CVE-2015-8567 and CVE-2015-8568: what an activation takes is given back by the next one, and by
// whatever else ends it.
#[test]
fn activating_vmxnet3_again_and_again_takes_nothing_more() {
    let mut guest = Vmx::on(Port::forgetful(1));
    let setup = most();
    let once = |guest: &mut Vmx, round: u32| {
        guest.prepare(&setup);
        assert_eq!(guest.order(command::ACTIVATE_DEV), 0);
        guest.send(&frame(100));
        guest.kick();
        guest.port.deliver(&frame(200));
        guest.run();
        match round % 4 {
            0 => drop(guest.order(command::QUIESCE_DEV)),
            1 => drop(guest.order(command::RESET_DEV)),
            // Again, while it is active.
            _ => {}
        }
    };
    let (peak, _, ()) = measure(|| (0..4).for_each(|round| once(&mut guest, round)));
    assert!(peak <= LANE + QUEUES, "{peak}");
    let (peak, left, ()) = measure(|| (0..1000).for_each(|round| once(&mut guest, round)));
    assert!(peak <= LANE + QUEUES, "{peak}");
    assert!(left <= 0, "{left} bytes are kept");
    // So does an activation that is refused.
    let mut wrong = most();
    wrong.rx.conf.comp_ring_size = 33.into();
    let (_, left, ()) = measure(|| {
        for _ in 0..1000 {
            guest.prepare(&wrong);
            assert_ne!(guest.order(command::ACTIVATE_DEV), 0);
        }
    });
    assert!(left <= 0, "{left} bytes are kept");
    guest.start();
    guest.works();
}

// The longest packets, which their port does not take, and the longest frames, for which there are no
// buffers.
#[test]
fn a_vmxnet3_holds_a_frame_in_each_direction_at_most() {
    let mut guest = Vmx::on(Port::forgetful(1));
    assert_eq!(guest.start_with(&most()), 0);
    for ring in RECEIVE_RINGS {
        guest.bench.poke(ring, &[0; 1024]);
    }
    let shape = Shape { tcp: true, payload: 65_000, ..Shape::default() };
    let bytes = shape.frame(true);
    guest.bench.poke(PLACES, &bytes);
    guest.port.set_fate(Fate::Busy);
    let (peak, held, ()) = measure(|| {
        for round in 0..200u32 {
            if round < 10 {
                let pieces: Vec<_> = (0..5u32)
                    .map(|index| descriptor(PLACES + u64::from(index) * 13_000, 13_000, 0))
                    .collect();
                guest.put(&pieces);
            }
            guest.port.deliver_to(0, uncut(60_000));
            guest.pt(TXPROD, round % 64);
            guest.pt(RXPROD, round % 64);
            guest.run();
            guest.port.drain();
        }
    });
    assert!(peak <= LANE + 3 * FRAME + BENCH, "{peak}");
    assert!(held <= LANE, "{held}");
    guest.start();
    guest.works();
}

// Plugged in, loaded, unplugged.
#[test]
fn a_vmxnet3_that_goes_leaves_nothing_behind() {
    let load = |seed: u64| {
        let mut random = Random::new(seed);
        let port = Port::forgetful(1);
        let mut guest = Vmx::on(port.clone());
        for _ in 0..random.below(12) {
            match random.below(5) {
                0 => port.deliver(&frame(100)),
                1 => port.set_fate(if random.one_in(2) { Fate::Busy } else { Fate::Down }),
                2 => port.fail_receive(0, Fate::Failed),
                3 => drop(guest.order(command::ACTIVATE_DEV)),
                _ => drop(guest.ask(&frame(100))),
            }
            guest.run();
        }
        drop_loaded(guest.bench, &port);
    };
    load(0);
    for seed in 0..100 {
        let (_, left, ()) = measure(|| load(seed));
        assert_eq!(left, 0, "seed {seed}");
    }
}
