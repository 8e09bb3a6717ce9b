//! Requests that fail, and devices that do not answer.

use std::collections::BTreeSet;

use paraslot_backends::block::testing::FaultBackend;
use paraslot_backends::block::{BlockError, BlockOp};
use paraslot_drivers::ahci::{Ahci, AhciOptions};
use paraslot_drivers::virtio_blk::{Options, VirtioBlk};
use paraslot_drivers::{Disk, Failed, Op, Platform, pvscsi, virtio_scsi};

use paraslot_protocol::Device;

use crate::machine::*;
use crate::place::{Place, in_both_places};

/// The block whose requests fail, for as long as the test wants.
const BAD: u64 = 5;

fn fails_at_bad() -> FaultBackend<paraslot_backends::block::MemoryBackend> {
    FaultBackend::new(image(), |_, request| {
        let bad = request.offset == BAD * 4096 && !matches!(request.op, BlockOp::Flush);
        bad.then(|| BlockError::Io(std::io::Error::from_raw_os_error(5)))
    })
}

/// Reads blocks 0 to 15, of which one fails, and sees that the others do not.
fn one_fails<D: Disk>(driver: &mut Driver<'_, D>, write: bool) {
    let regions = regions(driver.platform, 16);
    for (block, region) in (0..).zip(&regions) {
        let base = paraslot_protocol::pattern_base(block * 4096, 0);
        region.fill_pattern(0, 4096, if write { base } else { 0 }, paraslot_protocol::PATTERN_STEP);
    }
    driver.start(0, &regions, write);
    let done = driver.wait(16);
    let tags: BTreeSet<u16> = done.iter().map(|done| done.tag).collect();
    assert!(tags.into_iter().eq(0..16), "{done:?}");
    for done in done {
        let block = u64::from(done.tag);
        let expected = if block == BAD { Err(Failed::Io) } else { Ok(()) };
        assert_eq!(done.result, expected, "{done:?}");
        if block != BAD {
            assert!(is_initial(&regions[usize::from(done.tag)], block));
        }
    }
    // As if nothing had happened.
    let region = driver.platform.allocate(4096).unwrap();
    driver.good(4096, Op::Read(&region));
    assert!(is_initial(&region, 1));
    driver.good(0, Op::Flush);
}

fn a_failed_virtio_request_fails_alone(place: Place) {
    for (name, machine) in place.machines() {
        println!("{name}");
        for interrupts in [false, true] {
            let platform = virtio_blk(&machine, fails_at_bad());
            let disk = VirtioBlk::new(&platform, Options::new(16));
            let mut driver = Driver::new(&platform, disk, interrupts);
            one_fails(&mut driver, false);
            one_fails(&mut driver, true);
        }
    }
}

fn a_failed_scsi_request_fails_alone(place: Place) {
    for (name, machine) in place.machines() {
        println!("{name}");
        for interrupts in [false, true] {
            let platform = plugged(Device::VirtioScsi, &machine, fails_at_bad());
            let options = virtio_scsi::Options::new(16);
            let disk = virtio_scsi::VirtioScsi::new(&platform, options);
            let mut driver = Driver::new(&platform, disk, interrupts);
            one_fails(&mut driver, false);
            one_fails(&mut driver, true);
            for signal in SIGNALS {
                let platform = plugged(Device::Pvscsi, &machine, fails_at_bad());
                let options = pvscsi::Options { signal, ..pvscsi::Options::new(16) };
                let disk = pvscsi::Pvscsi::new(&platform, options);
                let mut driver = Driver::new(&platform, disk, interrupts);
                one_fails(&mut driver, false);
                one_fails(&mut driver, true);
            }
        }
    }
}

// A queued command's error stops the port and takes the others down with it (AHCI 6.2.2.2): the
// driver restarts the port, reads the log that names the culprit, and issues the others again.
fn a_failed_queued_command_fails_alone(place: Place) {
    for (name, machine) in place.machines() {
        println!("{name}");
        for interrupts in [false, true] {
            let platform = ahci(&machine, fails_at_bad());
            let disk = Ahci::new(&platform, AhciOptions::default());
            let mut driver = Driver::new(&platform, disk, interrupts);
            for _ in 0..3 {
                one_fails(&mut driver, false);
                one_fails(&mut driver, true);
            }
        }
    }
}

fn a_failed_command_that_is_not_queued_is_reported(place: Place) {
    for machine in [place.stepped(), place.threaded()] {
        for interrupts in [false, true] {
            let platform = ahci(&machine, fails_at_bad());
            let disk =
                Ahci::new(&platform, AhciOptions { queued: false, ..AhciOptions::default() });
            let mut driver = Driver::new(&platform, disk, interrupts);
            let region = platform.allocate(4096).unwrap();
            for _ in 0..3 {
                let done = driver.run(BAD * 4096, Op::Read(&region));
                assert_eq!(done.result, Err(Failed::Io));
                driver.good(4096, Op::Read(&region));
                assert!(is_initial(&region, 1));
                let done = driver.run(BAD * 4096, Op::Write(&region));
                assert_eq!(done.result, Err(Failed::Io));
            }
        }
    }
}

/// Everything but reads and writes.
fn all_fail<D: Disk>(driver: &mut Driver<'_, D>) {
    for op in [Op::Flush, Op::Discard(4096), Op::WriteZeroes(4096)] {
        assert_eq!(driver.run(0, op).result, Err(Failed::Io), "{op:?}");
    }
    let region = driver.platform.allocate(4096).unwrap();
    driver.good(4096, Op::Read(&region));
    assert!(is_initial(&region, 1));
}

fn a_failed_flush_or_discard_is_reported(place: Place) {
    let faulty = || {
        FaultBackend::new(image(), |_, request| {
            // TRIM zeroes where the image can.
            let bad = !matches!(request.op, BlockOp::Read | BlockOp::Write { .. });
            bad.then(|| BlockError::Io(std::io::Error::from_raw_os_error(5)))
        })
    };
    for interrupts in [false, true] {
        let platform = virtio_blk(&place.stepped(), faulty());
        let disk = VirtioBlk::new(&platform, Options::new(1));
        let mut driver = Driver::new(&platform, disk, interrupts);
        assert_eq!(driver.run(0, Op::Flush).result, Err(Failed::Io));
        assert_eq!(driver.run(0, Op::Discard(4096)).result, Err(Failed::Io));
        let platform = plugged(Device::VirtioScsi, &place.stepped(), faulty());
        let disk = virtio_scsi::VirtioScsi::new(&platform, virtio_scsi::Options::new(1));
        all_fail(&mut Driver::new(&platform, disk, interrupts));
        let platform = plugged(Device::Pvscsi, &place.stepped(), faulty());
        let disk = pvscsi::Pvscsi::new(&platform, pvscsi::Options::new(1));
        all_fail(&mut Driver::new(&platform, disk, interrupts));
        let platform = ahci(&place.stepped(), faulty());
        let disk = Ahci::new(&platform, AhciOptions::default());
        let mut driver = Driver::new(&platform, disk, interrupts);
        assert_eq!(driver.run(0, Op::Flush).result, Err(Failed::Io));
        assert_eq!(driver.run(0, Op::Discard(4096)).result, Err(Failed::Io));
    }
}

in_both_places! {
    a_failed_virtio_request_fails_alone,
    a_failed_scsi_request_fails_alone,
    a_failed_queued_command_fails_alone,
    a_failed_command_that_is_not_queued_is_reported,
    a_failed_flush_or_discard_is_reported,
}
