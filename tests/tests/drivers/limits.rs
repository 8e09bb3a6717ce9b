//! Disks and networks that keep to a limit, which no device knows of.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::block::LimitedBackend;
use paraslot_backends::limit::{Limiter, Rate, Rates};
use paraslot_backends::net::LimitedNet;
use paraslot_device::ManualClock;
use paraslot_drivers::ahci::{Ahci, AhciOptions};
use paraslot_drivers::pvscsi::{self, Pvscsi};
use paraslot_drivers::virtio_blk::{Options, VirtioBlk};
use paraslot_drivers::virtio_scsi::{self, VirtioScsi};
use paraslot_drivers::{Completions, Disk, Error, Nic, Platform, Task};
use paraslot_drivers::{e1000, virtio_net, vmxnet3};
use paraslot_protocol::Device;
use paraslot_tests::port::Port;
use paraslot_vmm::in_process::{InProcess, Machine, Run};

use crate::machine::*;
use crate::net::{INWARD, OUTWARD, adapter, finished, wait_until};
use crate::place::{Place, in_both_places};

const SECOND: Duration = Duration::from_secs(1);

struct Limited {
    platform: InProcess,
    limiter: Arc<Limiter>,
    clock: ManualClock,
}

/// Of eight reads two go at once, then one each second. Shutting the device down does not wait for the
/// limit: of the three that are left, so many go then and are paid for by what comes after.
fn check<'p, D: Disk>(
    limited: &'p Limited,
    hurried: usize,
    new: impl Fn(&'p InProcess) -> Result<D, Error>,
) {
    let Limited { platform, limiter, clock } = limited;
    let mut driver = Driver::new(platform, new(platform), false);
    limiter.set(slow());
    let idle = |driver: &mut Driver<'_, D>| {
        platform.settle();
        let mut completions = Completions::new();
        driver.disk.poll(&mut completions).unwrap();
        assert!(completions.is_empty(), "{completions:?}");
    };

    let regions = regions(platform, 8);
    driver.start(0, &regions, false);
    driver.wait(2);
    for _ in 0..3 {
        idle(&mut driver);
        clock.advance(SECOND);
        driver.wait(1);
    }
    idle(&mut driver);
    let delayed = limiter.delayed();
    assert_eq!(delayed, 6);
    driver.disk.shutdown().unwrap();

    // They are paid for, and one more must be in the bucket.
    let mut driver = Driver::new(platform, new(platform), false);
    driver.start(0, &regions[..1], false);
    for _ in 0..hurried {
        idle(&mut driver);
        clock.advance(SECOND);
    }
    idle(&mut driver);
    clock.advance(SECOND);
    driver.wait(1);
    assert!(is_initial(&regions[0], 0));
    assert_eq!(limiter.delayed(), delayed + 1);
    limiter.set(Rates::default());
    driver.good(4096, paraslot_drivers::Op::Read(&regions[1]));
}

/// One in a second, two at once after a pause.
fn slow() -> Rates {
    let number = |value| NonZeroU64::new(value).unwrap();
    let operations = Some(Rate { per_second: number(1), burst: number(2) });
    Rates { operations, ..Rates::default() }
}

/// Machines whose workers have their turn only when the test says so: a thread may look at the clock before
/// or after it is moved.
fn stepped_machines(place: Place) -> impl Iterator<Item = (&'static str, Machine)> {
    place.machines().into_iter().filter(|(_, machine)| matches!(machine.run, Run::Stepped(_)))
}

fn limits_hold_requests_back_but_no_reset(place: Place) {
    for (name, machine) in stepped_machines(place) {
        println!("{name}");
        for device in DISKS {
            println!("{device}");
            let clock = ManualClock::new();
            let limiter = Arc::new(Limiter::new(Arc::new(clock.clone()), Rates::default()));
            let backend = LimitedBackend::new(image(), limiter.clone());
            let platform = plugged(device, &machine, backend);
            let limited = Limited { platform, limiter, clock };
            match device {
                Device::VirtioBlk => check(&limited, 3, |p| VirtioBlk::new(p, Options::new(8))),
                Device::VirtioScsi => {
                    check(&limited, 3, |p| VirtioScsi::new(p, virtio_scsi::Options::new(8)));
                }
                // Its reset aborts commands, and what is held then never goes.
                Device::Pvscsi => check(&limited, 0, |p| Pvscsi::new(p, pvscsi::Options::new(8))),
                _ => check(&limited, 3, |p| Ahci::new(p, AhciOptions::default())),
            }
        }
    }
}

/// Of the frames of each way two go at once, then one each second, until the limit is lifted.
fn check_nic<'p, N: Nic>(
    (platform, port): (&'p InProcess, &Port),
    limits: &[Arc<Limiter>; 2],
    clock: &ManualClock,
    new: impl Fn(&'p InProcess) -> Result<N, Error>,
) {
    let mut nic = new(platform).unwrap();
    wait_until(platform, || nic.link_up());
    limits.iter().for_each(|limit| limit.set(slow()));
    let frame = finished(OUTWARD, 1, 300);
    let region = platform.allocate(nic.headroom() + frame.len()).unwrap();
    region.copy_in(nic.headroom(), &frame);
    for tag in 0..7 {
        nic.transmit(tag, &region, frame.len(), Task::None).unwrap();
        port.deliver(&finished(INWARD, tag.into(), 300));
    }
    nic.kick().unwrap();
    let mut moved = || {
        let mut received = 0;
        // Time passes for the driver, but not for the limits.
        for _ in 0..20 {
            platform.relax();
            received += nic.receive(u16::MAX, |_| ()).unwrap();
        }
        (port.take_sent().len(), received)
    };
    assert_eq!(moved(), (2, 2));
    for _ in 0..2 {
        assert_eq!(moved(), (0, 0));
        clock.advance(SECOND);
        assert_eq!(moved(), (1, 1));
    }
    limits[0].set(Rates::default());
    assert_eq!(moved(), (3, 0));
    limits[1].set(Rates::default());
    assert_eq!(moved(), (0, 3));
    assert!(limits.iter().all(|limit| limit.delayed() != 0));
}

fn limits_hold_frames_back(place: Place) {
    for (name, machine) in stepped_machines(place) {
        println!("{name}");
        for device in [Device::VirtioNet, Device::E1000, Device::Vmxnet3] {
            println!("{device}");
            let clock = ManualClock::new();
            let limits =
                [(); 2].map(|()| Arc::new(Limiter::new(Arc::new(clock.clone()), Rates::default())));
            let [sent, received] = limits.clone();
            let port = Port::new(1);
            let limited = LimitedNet::new(port.clone(), sent, received);
            let platform = adapter(device, &machine, Arc::new(limited));
            let both = (&platform, &port);
            match device {
                Device::VirtioNet => {
                    let options = virtio_net::Options::new();
                    check_nic(both, &limits, &clock, |p| virtio_net::VirtioNet::new(p, options));
                }
                Device::E1000 => {
                    let options = e1000::Options::default();
                    check_nic(both, &limits, &clock, |p| e1000::E1000::new(p, options));
                }
                _ => {
                    let options = vmxnet3::Options::new();
                    check_nic(both, &limits, &clock, |p| vmxnet3::Vmxnet3::new(p, options));
                }
            }
        }
    }
}

in_both_places! {
    limits_hold_requests_back_but_no_reset,
    limits_hold_frames_back,
}
