//! vmxnet3.

use paraslot_backends::net::testing::namespace::{Namespace, in_namespace};
use paraslot_drivers::vmxnet3::{Options, Signalling, Vmxnet3};
use paraslot_vmm::in_process::InProcess;

use super::card::Tally;
use super::guest::Guest;
use super::machine::{self, Host, WORKERS, Workers};
use super::virtio_net::check;
use super::{changes, traffic};

fn driver(host: &Host, options: Options) -> Vmxnet3<'_, InProcess> {
    Vmxnet3::new(&host.machine, options).unwrap()
}

fn exchange(namespace: &Namespace, workers: Workers, interrupts: bool, options: Options) -> Tally {
    let host = machine::vmxnet3(namespace, workers, options.receive_queues.into());
    let mut guest = Guest::new(&host, driver(&host, options), interrupts);
    traffic::everything(&mut guest);
    let tally = guest.tally();
    assert_eq!(tally.interrupts != 0, interrupts);
    check(&(host.statistics)());
    assert_eq!(tally.segmented != 0, options.segmentation);
    assert_eq!(tally.checksums + tally.right + tally.partial != 0, options.checksum);
    tally
}

const PLAIN: Options =
    Options { checksum: false, segmentation: false, large_receive: false, ..Options::new() };

#[test]
fn by_polling() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            exchange(namespace, workers, false, Options::new());
            exchange(namespace, workers, false, PLAIN);
        }
    });
}

#[test]
fn by_interrupts() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            let tally = exchange(namespace, workers, true, Options::new());
            assert!(tally.long != 0, "{tally:?}");
            exchange(namespace, workers, true, PLAIN);
        }
    });
}

// Older revisions have no receive data ring; MSI has one vector.
#[test]
fn in_older_ways() {
    in_namespace(|namespace| {
        for (revision, signalling) in [(1, Signalling::Msi), (2, Signalling::MsiX)] {
            let options = Options { revision, signalling, ..Options::new() };
            exchange(namespace, Workers::Asleep, true, options);
        }
    });
}

#[test]
fn with_several_receive_queues() {
    in_namespace(|namespace| {
        for (workers, interrupts) in [(Workers::Stepped, false), (Workers::Asleep, true)] {
            let options = Options { receive_queues: 4, ..Options::new() };
            exchange(namespace, workers, interrupts, options);
        }
    });
}

#[test]
fn what_becomes_of_its_interface() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            let host = machine::vmxnet3(namespace, workers, 1);
            let guest = Guest::new(&host, driver(&host, Options::new()), false);
            changes::down_and_up_and_gone(&host, guest);
        }
    });
}
