//! Resets: of the driver, the queue, the machine.

use paraslot_backends::block::testing::GatedBackend;
use paraslot_drivers::ahci::{Ahci, AhciOptions};
use paraslot_drivers::pvscsi::{self, Pvscsi};
use paraslot_drivers::virtio_blk::{Options, VirtioBlk};
use paraslot_drivers::virtio_scsi::{self, VirtioScsi};
use paraslot_drivers::{Completions, Disk, DmaRegion, Error, Op, Platform};
use paraslot_protocol::Device;
use paraslot_vmm::in_process::InProcess;

use crate::machine::*;
use crate::place::{Place, in_both_places};

fn reads_right<D: Disk>(driver: &mut Driver<'_, D>, block: u64) {
    let region = driver.platform.allocate(4096).unwrap();
    driver.good(block * 4096, Op::Read(&region));
    assert!(is_initial(&region, block));
}

fn starts_anew<'p, D: Disk>(
    platform: &'p InProcess,
    new: impl Fn(&'p InProcess) -> Result<D, Error>,
) {
    for (round, interrupts) in [(1, false), (2, true), (3, true), (4, false)] {
        // Over a device that was left running, or shut down, or whose machine was reset.
        let mut driver = Driver::new(platform, new(platform), interrupts);
        reads_right(&mut driver, round);
        match round {
            1 => {}
            2 => driver.disk.shutdown().unwrap(),
            _ => platform.reset(),
        }
    }
    assert_eq!(platform.stray_interrupts(), 0);
}

fn drivers_start_anew_over_anything(place: Place) {
    for (name, machine) in place.machines() {
        println!("{name}");
        let platform = virtio_blk(&machine, image());
        starts_anew(&platform, |platform| VirtioBlk::new(platform, Options::new(8)));
        let platform = ahci(&machine, image());
        starts_anew(&platform, |platform| Ahci::new(platform, AhciOptions::default()));
        let platform = plugged(Device::VirtioScsi, &machine, image());
        let options = virtio_scsi::Options::new(8);
        starts_anew(&platform, |platform| VirtioScsi::new(platform, options));
        for signal in SIGNALS {
            println!("{signal:?}");
            let platform = plugged(Device::Pvscsi, &machine, image());
            let options = pvscsi::Options { signal, ..pvscsi::Options::new(8) };
            starts_anew(&platform, |platform| Pvscsi::new(platform, options));
        }
    }
}

/// Starts reads that the backend holds back, and marks their memory.
fn held<D: Disk>(driver: &mut Driver<'_, D>, regions: &[DmaRegion]) {
    for region in regions {
        region.fill_pattern(0, 4096, 5, 0);
    }
    driver.start(0, regions, false);
    driver.platform.settle();
}

fn untouched(regions: &[DmaRegion]) -> bool {
    regions.iter().all(|region| region.matches_pattern(0, 4096, 5, 0))
}

// CVE-2023-5088 and its like: a reset that is acknowledged while requests still move data. Here the
// backend does not give them back, so the reset must not be acknowledged; once it does, the data
// must not have landed anywhere.
fn a_reset_waits_for_what_is_in_flight(place: Place) {
    fn check<'p, D: Disk>(
        platform: &'p InProcess,
        new: impl Fn(&'p InProcess) -> Result<D, Error>,
        gate: &paraslot_backends::block::testing::Gate,
    ) {
        gate.open();
        let mut driver = Driver::new(platform, new(platform), false);
        gate.close();
        let regions = regions(platform, 4);
        held(&mut driver, &regions);
        assert_eq!(gate.held(), 4);
        assert!(matches!(driver.disk.shutdown(), Err(Error::Timeout(_))));
        assert!(untouched(&regions));
        gate.open();
        platform.settle();
        driver.disk.shutdown().unwrap();
        for region in &regions {
            region.fill_pattern(0, 4096, 5, 0);
        }
        platform.settle();
        assert!(untouched(&regions));
        let mut driver = Driver::new(platform, new(platform), true);
        reads_right(&mut driver, 7);
    }
    let backend = GatedBackend::new(image());
    let gate = backend.gate();
    let platform = virtio_blk(&place.stepped(), backend);
    check(&platform, |platform| VirtioBlk::new(platform, Options::new(4)), &gate);
    let backend = GatedBackend::new(image());
    let gate = backend.gate();
    let platform = ahci(&place.stepped(), backend);
    check(&platform, |platform| Ahci::new(platform, AhciOptions::default()), &gate);
    let backend = GatedBackend::new(image());
    let gate = backend.gate();
    let platform = plugged(Device::VirtioScsi, &place.stepped(), backend);
    let options = virtio_scsi::Options::new(4);
    check(&platform, |platform| VirtioScsi::new(platform, options), &gate);
}

// pvscsi has what is in flight cancelled, and its reset is over when that is.
fn a_reset_takes_back_what_is_in_flight(place: Place) {
    for (name, machine) in place.machines() {
        println!("{name}");
        let backend = GatedBackend::new(image());
        let gate = backend.gate();
        let platform = plugged(Device::Pvscsi, &machine, backend);
        let new = || Pvscsi::new(&platform, pvscsi::Options::new(4));
        for round in 0..3 {
            gate.open();
            let mut driver = Driver::new(&platform, new(), round % 2 == 0);
            gate.close();
            let regions = regions(&platform, 4);
            held(&mut driver, &regions);
            crate::net::wait_until(&platform, || gate.held() == 4);
            match round {
                // Without the driver's doing.
                2 => platform.reset(),
                _ => driver.disk.shutdown().unwrap(),
            }
            assert_eq!(gate.held(), 0);
            gate.open();
            platform.settle();
            assert!(untouched(&regions));
            let mut driver = Driver::new(&platform, new(), true);
            reads_right(&mut driver, 7);
        }
        assert_eq!(platform.stray_interrupts(), 0);
    }
}

/// A pause keeps requests where they are, and none is lost or done twice.
fn a_pause_is_not_noticed(place: Place) {
    fn check<D: Disk>(platform: &InProcess, disk: Result<D, Error>, interrupts: bool) {
        let mut driver = Driver::new(platform, disk, interrupts);
        let function = platform.function(SLOT).unwrap();
        let regions = regions(platform, 16);
        for round in 0..6 {
            let block = round * 16;
            for (tag, region) in (0..8).zip(&regions) {
                region.fill_pattern(0, 4096, 5, 0);
                let offset = (block + u64::from(tag)) * 4096;
                driver.disk.submit(tag, offset, Op::Read(region)).unwrap();
            }
            driver.disk.kick().unwrap();
            if round % 2 == 1 {
                platform.relax();
            }
            function.lock().unwrap().pause().unwrap();
            let mut completions = Completions::new();
            driver.disk.poll(&mut completions).unwrap();
            let early = completions.len();
            // As long as it lasts nothing happens, whatever the driver does.
            for (tag, region) in (8..16).zip(&regions[8..]) {
                region.fill_pattern(0, 4096, 5, 0);
                let offset = (block + u64::from(tag)) * 4096;
                driver.disk.submit(tag, offset, Op::Read(region)).unwrap();
            }
            driver.disk.kick().unwrap();
            platform.settle();
            driver.disk.poll(&mut completions).unwrap();
            assert!(completions.len() == early && untouched(&regions[8..]));
            function.lock().unwrap().resume().unwrap();
            crate::net::wait_until(platform, || {
                driver.disk.poll(&mut completions).unwrap();
                completions.len() == 16
            });
            let mut tags: Vec<u16> = completions.as_slice().iter().map(|done| done.tag).collect();
            tags.sort_unstable();
            assert!(tags.into_iter().eq(0..16));
            assert!(completions.as_slice().iter().all(|done| done.result.is_ok()));
            for (block, region) in (block..).zip(&regions) {
                assert!(is_initial(region, block));
            }
            // Interrupts and all.
            driver.catch_up();
            reads_right(&mut driver, round);
        }
        assert_eq!(platform.stray_interrupts(), 0);
    }
    for (name, machine) in place.machines() {
        for interrupts in [false, true] {
            println!("{name}, {interrupts}");
            let platform = virtio_blk(&machine, image());
            check(&platform, VirtioBlk::new(&platform, Options::new(16)), interrupts);
            let platform = ahci(&machine, image());
            check(&platform, Ahci::new(&platform, AhciOptions::default()), interrupts);
            let platform = plugged(Device::VirtioScsi, &machine, image());
            let options = virtio_scsi::Options::new(16);
            check(&platform, VirtioScsi::new(&platform, options), interrupts);
            for signal in SIGNALS {
                let platform = plugged(Device::Pvscsi, &machine, image());
                let options = pvscsi::Options { signal, ..pvscsi::Options::new(16) };
                check(&platform, Pvscsi::new(&platform, options), interrupts);
            }
        }
    }
}

fn a_queue_is_reset_alone(place: Place) {
    for machine in [place.stepped(), place.threaded()] {
        let platform = virtio_blk(&machine, image());
        let disk = VirtioBlk::new(&platform, Options::new(8));
        let mut driver = Driver::new(&platform, disk, false);
        for round in 0..3 {
            reads_right(&mut driver, round);
            driver.disk.reset_queues().unwrap();
        }
        // With requests in flight, whose tags are free again afterwards.
        let regions = regions(&platform, 8);
        driver.start(0, &regions, false);
        driver.disk.reset_queues().unwrap();
        driver.start(16, &regions, false);
        driver.wait(8);
        assert!((16..).zip(&regions).all(|(block, region)| is_initial(region, block)));
        // The device was not reset: its features are as they were.
        driver.disk.set_interrupts(true).unwrap();
        assert!(driver.disk.interrupt() == 0 && platform.interrupts_taken(0) == 0);
    }
    let platform = virtio_blk(&place.stepped(), image());
    let mut disk = VirtioBlk::new(&platform, Options { accept: 0, ..Options::new(1) }).unwrap();
    assert_eq!(disk.reset_queues(), Err(Error::Unsupported("VIRTIO_F_RING_RESET")));
}

in_both_places! {
    drivers_start_anew_over_anything,
    a_reset_waits_for_what_is_in_flight,
    a_reset_takes_back_what_is_in_flight,
    a_pause_is_not_noticed,
    a_queue_is_reset_alone,
}
