//! virtio-net.

use paraslot_backends::net::NetStatistics;
use paraslot_backends::net::testing::namespace::{Namespace, in_namespace};
use paraslot_drivers::virtio_net::{Layout, Options, VirtioNet};
use paraslot_spec::virtio_net::feature;
use paraslot_vmm::in_process::InProcess;

use super::card::Tally;
use super::guest::Guest;
use super::machine::{self, Host, WORKERS, Workers};
use super::{changes, traffic};

const NO_OFFLOADS: u64 = Options::USUAL_FEATURES & !Options::OFFLOADS;

fn driver(host: &Host, options: Options) -> VirtioNet<'_, InProcess> {
    VirtioNet::new(&host.machine, options).unwrap()
}

/// Whatever happened, nothing was lost or malformed.
pub(super) fn check(seen: &NetStatistics) {
    let lost = [
        seen.received_too_long,
        seen.receive_errors,
        seen.send_no_buffers,
        seen.send_down,
        seen.send_invalid,
        seen.send_errors,
    ];
    assert_eq!(lost, [0; 6], "{seen:?}");
    // 1 MiB by TCP and by UDP.
    assert!(seen.sent_bytes > 2 << 20 && seen.received_bytes > 2 << 20, "{seen:?}");
}

/// Everything, with workers and a driver of one kind.
fn exchange(
    namespace: &Namespace,
    workers: Workers,
    interrupts: bool,
    options: Options,
) -> (Tally, NetStatistics) {
    let host = machine::virtio_net(namespace, workers, options.pairs);
    let mut guest = Guest::new(&host, driver(&host, options), interrupts);
    traffic::everything(&mut guest);
    let tally = guest.tally();
    assert_eq!(tally.interrupts != 0, interrupts);
    let seen = (host.statistics)();
    check(&seen);
    let pairs: Vec<_> = (0..options.pairs).map(host.pair.as_ref().unwrap()).collect();
    assert!(pairs.iter().all(|pair| pair.sent_frames != 0), "{pairs:?}");
    // Which flow comes through which is the kernel's choice, but it does not choose one for all.
    let receiving = pairs.iter().filter(|pair| pair.received_frames != 0).count();
    assert!(receiving >= pairs.len().min(2), "{pairs:?}");
    (tally, seen)
}

#[test]
fn without_offloads_by_polling() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            let options = Options { accept: NO_OFFLOADS, ..Options::new() };
            let (tally, _) = exchange(namespace, workers, false, options);
            let Tally { partial, right, long, checksums, segmented, .. } = tally;
            assert_eq!([partial, right, long, checksums, segmented], [0; 5]);
        }
    });
}

#[test]
fn without_offloads_by_interrupts() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            let options = Options { accept: NO_OFFLOADS, ..Options::new() };
            exchange(namespace, workers, true, options);
        }
    });
}

/// All that was left to the other side, was.
fn check_offloads(tally: Tally) {
    let Tally { partial, long, checksums, segmented, .. } = tally;
    assert!(partial != 0 && long != 0 && checksums != 0 && segmented != 0, "{tally:?}");
}

#[test]
fn with_offloads_by_polling() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            check_offloads(exchange(namespace, workers, false, Options::new()).0);
        }
    });
}

#[test]
fn with_offloads_by_interrupts() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            check_offloads(exchange(namespace, workers, true, Options::new()).0);
        }
    });
}

// Checksums alone, segmentation alone in one direction: what the other side is told must be what was
// negotiated.
#[test]
fn with_some_offloads() {
    in_namespace(|namespace| {
        let with = |some: u64| Options { accept: NO_OFFLOADS | some, ..Options::new() };
        let exchange = |some| exchange(namespace, Workers::Asleep, true, with(some)).0;
        let tally = exchange(feature::CSUM);
        assert!(tally.checksums != 0 && tally.partial + tally.long + tally.segmented == 0);
        let tally = exchange(feature::CSUM | feature::HOST_TSO4);
        assert!(tally.segmented != 0 && tally.partial + tally.long == 0);
        let tally = exchange(feature::GUEST_CSUM);
        assert!(tally.partial != 0 && tally.checksums + tally.long + tally.segmented == 0);
        let tally = exchange(feature::GUEST_CSUM | feature::GUEST_TSO4);
        assert!(tally.long != 0 && tally.checksums + tally.segmented == 0);
    });
}

#[test]
fn in_other_layouts() {
    in_namespace(|namespace| {
        for layout in [Layout::Headroom, Layout::Indirect] {
            // Buffers of which a long frame fills several; and such as hold any.
            for (without, buffer) in [(0, 4096), (feature::MRG_RXBUF, 1536)] {
                let accept = Options::USUAL_FEATURES & !without;
                let options = Options { accept, layout, buffer, ..Options::new() };
                check_offloads(exchange(namespace, Workers::Busy, true, options).0);
            }
            // Of which any frame fills several.
            let accept = NO_OFFLOADS | feature::CSUM | feature::GUEST_CSUM;
            let options = Options { accept, layout, buffer: 128, ..Options::new() };
            exchange(namespace, Workers::Asleep, true, options);
        }
    });
}

#[test]
fn with_several_pairs_of_queues() {
    in_namespace(|namespace| {
        for (workers, interrupts) in
            [(Workers::Stepped, false), (Workers::Asleep, true), (Workers::Busy, false)]
        {
            for accept in [NO_OFFLOADS, Options::USUAL_FEATURES] {
                let options = Options { pairs: 4, accept, ..Options::new() };
                exchange(namespace, workers, interrupts, options);
            }
        }
    });
}

#[test]
fn what_becomes_of_its_interface() {
    in_namespace(|namespace| {
        for workers in WORKERS {
            let host = machine::virtio_net(namespace, workers, 1);
            let guest = Guest::new(&host, driver(&host, Options::new()), false);
            changes::down_and_up_and_gone(&host, guest);
        }
    });
}
