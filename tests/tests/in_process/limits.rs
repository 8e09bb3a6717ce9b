//! Disks whose backend keeps to a limit, which no device knows of.

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::block::LimitedBackend;
use paraslot_backends::limit::{Limiter, Rate, Rates};
use paraslot_device::ManualClock;
use paraslot_drivers::ahci::{Ahci, AhciOptions};
use paraslot_drivers::pvscsi::{self, Pvscsi};
use paraslot_drivers::virtio_blk::{Options, VirtioBlk};
use paraslot_drivers::virtio_scsi::{self, VirtioScsi};
use paraslot_drivers::{Completions, Disk, Error};
use paraslot_protocol::Device;
use paraslot_vmm::in_process::{InProcess, Machine, Run};

use crate::machine::*;

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
    let number = |value| std::num::NonZeroU64::new(value).unwrap();
    let rate = Some(Rate { per_second: number(1), burst: number(2) });
    limiter.set(Rates { operations: rate, ..Rates::default() });
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

#[test]
fn limits_hold_requests_back_but_no_reset() {
    // A thread may look at the clock before or after it is moved.
    let stepped = |(_, machine): &(_, Machine)| matches!(machine.run, Run::Stepped(_));
    for (name, machine) in machines().into_iter().filter(stepped) {
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
