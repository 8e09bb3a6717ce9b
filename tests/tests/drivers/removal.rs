//! Functions that are taken from a machine while their drivers use them.

use std::sync::Arc;
use std::thread;

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_drivers::ahci::{Ahci, AhciOptions};
use paraslot_drivers::pvscsi::{self, Pvscsi};
use paraslot_drivers::virtio_blk::{Options, VirtioBlk};
use paraslot_drivers::virtio_scsi::{self, VirtioScsi};
use paraslot_drivers::{Completions, Disk, DmaRegion, Error, Nic, Platform, Task};
use paraslot_drivers::{e1000, virtio_net, vmxnet3};
use paraslot_protocol::Device;
use paraslot_tests::port::{Fate, Port};
use paraslot_vmm::in_process::{InProcess, Machine, Run};

use crate::machine::*;
use crate::net::{INWARD, OUTWARD, adapter, finished, wait_until};
use crate::place::{Place, in_both_places};

fn mark(regions: &[DmaRegion]) {
    regions.iter().for_each(|region| region.fill_pattern(0, 4096, 5, 0));
}

fn untouched(regions: &[DmaRegion]) -> bool {
    regions.iter().all(|region| region.matches_pattern(0, 4096, 5, 0))
}

/// Takes a disk away that has reads in flight. When it is gone, no more data lands, and nobody is told.
fn check_disk<'p, D: Disk>(
    (platform, machine, gate): (&'p InProcess, &Machine, &Gate),
    new: impl Fn(&'p InProcess) -> Result<D, Error>,
) {
    gate.open();
    let mut driver = Driver::new(platform, new(platform), true);
    gate.close();
    let regions = regions(platform, 4);
    driver.start(0, &regions, false);
    wait_until(platform, || gate.held() == 4);
    let function = platform.unplug(SLOT).unwrap();
    thread::scope(|scope| {
        match machine.run {
            Run::Stepped(_) => gate.open(),
            // While it is being waited for.
            Run::Threads(_) => {
                scope.spawn(|| gate.open());
            }
        }
        drop(function);
    });
    let interrupts = platform.interrupts_taken(driver.disk.interrupt());
    mark(&regions);
    platform.settle();
    assert!(untouched(&regions), "data has landed");
    assert_eq!(platform.interrupts_taken(driver.disk.interrupt()), interrupts);
    // What may have ended just before. Then the driver finds nothing, by whatever it tries.
    let _ = driver.disk.poll(&mut Completions::new());
    let mut completions = Completions::new();
    assert!(driver.disk.poll(&mut completions).is_err() || completions.is_empty());
    let _ = driver.disk.kick();
    if matches!(machine.run, Run::Stepped(_)) {
        // On threads it would wait for seconds.
        let _ = driver.disk.shutdown();
    }
    assert!(matches!(new(platform), Err(Error::NotFound)));
    assert!(untouched(&regions));
    assert_eq!(platform.stray_interrupts(), 0);
}

fn disks_are_taken_away(place: Place) {
    for (name, machine) in place.machines() {
        for device in DISKS {
            println!("{name}, {device}");
            let backend = GatedBackend::new(image());
            let gate = backend.gate();
            let platform = plugged(device, &machine, backend);
            let disk = (&platform, &machine, &gate);
            match device {
                Device::VirtioBlk => check_disk(disk, |p| VirtioBlk::new(p, Options::new(8))),
                Device::VirtioScsi => {
                    check_disk(disk, |p| VirtioScsi::new(p, virtio_scsi::Options::new(8)));
                }
                Device::Pvscsi => check_disk(disk, |p| Pvscsi::new(p, pvscsi::Options::new(8))),
                _ => check_disk(disk, |p| Ahci::new(p, AhciOptions::default())),
            }
        }
    }
}

/// Takes an adapter away with frames to be sent and frames that arrive. Then it has let go of the network.
fn check_nic<'p, N: Nic>(
    (platform, port): (&'p InProcess, &Port),
    new: impl Fn(&'p InProcess) -> Result<N, Error>,
) {
    let mut nic = new(platform).unwrap();
    wait_until(platform, || nic.link_up());
    nic.set_interrupts(true).unwrap();
    port.set_fate(Fate::Busy);
    let frame = finished(OUTWARD, 1, 300);
    let region = platform.allocate(nic.headroom() + frame.len()).unwrap();
    region.copy_in(nic.headroom(), &frame);
    for tag in 0..8 {
        nic.transmit(tag, &region, frame.len(), Task::None).unwrap();
    }
    nic.kick().unwrap();
    platform.settle();
    drop(platform.unplug(SLOT).unwrap());
    // A worker may be on its thread yet, but says nothing.
    wait_until(platform, || port.open_halves() == 0);
    // What had arrived by then, or was sent.
    let _ = nic.receive(u16::MAX, |_| ());
    let _ = nic.reclaim(|_| ());
    port.take_sent();
    let interrupts = platform.interrupts_taken(0);
    port.set_fate(Fate::Through);
    (0..8).for_each(|number| port.deliver(&finished(INWARD, number, 300)));
    platform.settle();
    assert!(port.take_sent().is_empty());
    assert!(!matches!(nic.receive(u16::MAX, |_| ()), Ok(1..)));
    let mut reclaimed = 0;
    let _ = nic.reclaim(|_| reclaimed += 1);
    assert_eq!((reclaimed, platform.interrupts_taken(0)), (0, interrupts));
    let _ = nic.kick();
    assert!(matches!(new(platform), Err(Error::NotFound)));
    assert_eq!(platform.stray_interrupts(), 0);
}

fn adapters_are_taken_away(place: Place) {
    for (name, machine) in place.machines() {
        println!("{name}");
        for device in [Device::VirtioNet, Device::E1000, Device::Vmxnet3] {
            println!("{device}");
            let port = Port::new(1);
            let platform = adapter(device, &machine, Arc::new(port.clone()));
            let both = (&platform, &port);
            match device {
                Device::VirtioNet => {
                    let options = virtio_net::Options::new();
                    check_nic(both, |p| virtio_net::VirtioNet::new(p, options));
                }
                Device::E1000 => check_nic(both, |p| e1000::E1000::new(p, Default::default())),
                _ => check_nic(both, |p| vmxnet3::Vmxnet3::new(p, vmxnet3::Options::new())),
            }
        }
    }
}

in_both_places! {
    disks_are_taken_away,
    adapters_are_taken_away,
}
