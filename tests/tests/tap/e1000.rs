//! The 82540EM.

use paraslot_backends::net::testing::namespace::{Namespace, in_namespace};
use paraslot_drivers::e1000::{E1000, Options, Throttle};
use paraslot_vmm::in_process::InProcess;

use super::card::Tally;
use super::guest::Guest;
use super::machine::{self, Host, WORKERS, Workers};
use super::virtio_net::check;
use super::{changes, traffic};

fn driver(host: &Host, options: Options) -> E1000<'_, InProcess> {
    E1000::new(&host.machine, options).unwrap()
}

fn exchange(namespace: &Namespace, workers: Workers, interrupts: bool, options: Options) -> Tally {
    let host = machine::e1000(namespace, workers);
    let mut guest = Guest::new(&host, driver(&host, options), interrupts);
    traffic::everything(&mut guest);
    let tally = guest.tally();
    assert_eq!(tally.interrupts != 0, interrupts);
    check(&(host.statistics)());
    // It always does what is left of a received frame itself.
    assert_eq!((tally.partial, tally.long), (0, 0));
    assert_eq!(tally.segmented != 0, options.segmentation);
    assert_eq!(tally.checksums + tally.right != 0, options.checksum);
    tally
}

const PLAIN: Options = Options {
    interrupt: 0,
    checksum: false,
    segmentation: false,
    throttle: Throttle::Off,
    strip_fcs: true,
};

#[test]
fn by_polling() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            exchange(namespace, workers, false, Options::default());
            exchange(namespace, workers, false, PLAIN);
        }
    });
}

#[test]
fn by_interrupts() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            exchange(namespace, workers, true, Options::default());
            exchange(namespace, workers, true, PLAIN);
        }
    });
}

#[test]
fn what_becomes_of_its_interface() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            let host = machine::e1000(namespace, workers);
            let guest = Guest::new(&host, driver(&host, Options::default()), false);
            changes::down_and_up_and_gone(&host, guest);
        }
    });
}
