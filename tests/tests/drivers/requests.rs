//! Every kind of request, on every kind of machine: the data ends up where it belongs.

use paraslot_backends::block::{BlockBackend, MemoryBackend};
use paraslot_drivers::ahci::{Ahci, AhciOptions};
use paraslot_drivers::pci::Signal;
use paraslot_drivers::virtio_blk::{MAX_QUEUES, Options, VirtioBlk};
use paraslot_drivers::{Disk, Error, Op, Platform, pvscsi, virtio_scsi};
use paraslot_protocol::Device;
use paraslot_spec::virtio::feature;
use paraslot_vmm::in_process::{ConfigAccess, InProcess, Machine};

use crate::machine::*;
use crate::place::{Place, in_both_places};

/// Reads, writes, flushes and discards at this depth, and checks each on the image.
fn exercise<D: Disk>(driver: &mut Driver<'_, D>, image: &MemoryBackend, depth: u16) {
    assert_eq!((driver.disk.capacity(), driver.disk.block_size()), (CAPACITY, 512));
    let regions = regions(driver.platform, depth.into());
    driver.start(8, &regions, false);
    let mut tags: Vec<u16> = driver.wait(regions.len()).iter().map(|done| done.tag).collect();
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..depth));
    for (block, region) in (8..).zip(&regions) {
        assert!(is_initial(region, block), "block {block}");
    }
    for round in 0..3_u8 {
        for (index, region) in (0..).zip(&regions) {
            region.fill_pattern(0, 4096, u64::from(round) << 32 | index << 8, 3);
        }
        driver.start(100, &regions, true);
        let done = driver.wait(regions.len());
        assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
        driver.good(0, Op::Flush);
        for (index, region) in regions.iter().enumerate() {
            let mut written = vec![0; 4096];
            region.read_bytes(0, &mut written);
            assert!(on_image(image, (100 + index as u64) * 4096, 4096) == written);
        }
        driver.start(100, &regions, false);
        assert_eq!(driver.wait(regions.len()).len(), regions.len());
        for (index, region) in (0..).zip(&regions) {
            assert!(region.matches_pattern(0, 4096, u64::from(round) << 32 | index << 8, 3));
        }
    }
    // Neighbours were left alone, and one sector is one sector.
    assert!(on_image(image, 99 * 4096, 4096) != on_image(image, 100 * 4096, 4096));
    driver.good(99 * 4096, Op::Read(&regions[0]));
    assert!(is_initial(&regions[0], 99));
    let sector = regions[0].part(512, 512);
    sector.write_bytes(0, &[0xa5; 512]);
    driver.good(300 * 4096 + 1024, Op::Write(&sector));
    driver.good(300 * 4096, Op::Read(&regions[0]));
    let mut read = vec![0; 4096];
    regions[0].read_bytes(0, &mut read);
    assert!(read[1024..1536].iter().all(|byte| *byte == 0xa5));
    assert!(read == on_image(image, 300 * 4096, 4096));
    // Memory images give discarded pages back, and read as zeroes there.
    driver.good(100 * 4096, Op::Discard(8192));
    assert!(on_image(image, 100 * 4096, 8192).iter().all(|byte| *byte == 0));
    driver.good(102 * 4096, Op::Read(&regions[0]));
    let kept = on_image(image, 102 * 4096, 4096);
    regions[0].read_bytes(0, &mut read);
    assert!(read == kept && (depth < 3 || kept.iter().any(|byte| *byte != 0)));
}

fn refuses_nonsense<D: Disk>(driver: &mut Driver<'_, D>) {
    let region = driver.platform.allocate(4096).unwrap();
    let depth = driver.disk.max_depth();
    let disk = &mut driver.disk;
    for (tag, offset, op) in [
        (depth, 0, Op::Read(&region)),
        (u16::MAX, 0, Op::Flush),
        (0, 1, Op::Read(&region)),
        (0, CAPACITY, Op::Read(&region)),
        (0, u64::MAX - 511, Op::Write(&region)),
        (0, 0, Op::Read(&region.part(0, 0))),
        (0, 0, Op::Discard(CAPACITY + 512)),
        (0, 512, Op::Discard(0)),
    ] {
        let result = disk.submit(tag, offset, op);
        assert!(matches!(result, Err(Error::Request(_))), "{op:?} at {offset}: {result:?}");
    }
    disk.submit(0, 0, Op::Read(&region)).unwrap();
    assert!(disk.submit(0, 0, Op::Read(&region)).is_err(), "the tag is in use");
    disk.kick().unwrap();
    assert_eq!(driver.wait(1)[0].result, Ok(()));
}

fn no_strays(platform: &InProcess) {
    assert_eq!(platform.stray_interrupts(), 0);
    assert_eq!(platform.counts().nowhere, 0);
}

fn virtio_blk_moves_data_on_every_machine(place: Place) {
    for (name, machine) in place.machines() {
        for interrupts in [false, true] {
            for depth in [1, 32] {
                println!("{name}, interrupts {interrupts}, depth {depth}");
                let image = image();
                let platform = virtio_blk(&machine, image.clone());
                let disk = VirtioBlk::new(&platform, Options::new(depth));
                let mut driver = Driver::new(&platform, disk, interrupts);
                exercise(&mut driver, &image, depth);
                driver.good(200 * 4096, Op::WriteZeroes(4096));
                assert!(on_image(&image, 200 * 4096, 4096).iter().all(|byte| *byte == 0));
                refuses_nonsense(&mut driver);
                assert_eq!(driver.disk.id().unwrap(), *b"memory\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
                no_strays(&platform);
            }
        }
    }
}

/// The same, and blocks are zeroed and nonsense is refused.
fn exercise_scsi<D: Disk>(
    platform: &InProcess,
    disk: Result<D, Error>,
    interrupts: bool,
    image: &MemoryBackend,
) {
    let mut driver = Driver::new(platform, disk, interrupts);
    let depth = driver.disk.max_depth();
    exercise(&mut driver, image, depth);
    driver.good(200 * 4096, Op::WriteZeroes(4096));
    assert!(on_image(image, 200 * 4096, 4096).iter().all(|byte| *byte == 0));
    refuses_nonsense(&mut driver);
    no_strays(platform);
}

fn virtio_scsi_moves_data_on_every_machine(place: Place) {
    let every = virtio_scsi::Options::ALL_FEATURES;
    for (name, machine) in place.machines() {
        for interrupts in [false, true] {
            for (depth, accept) in [(1, every), (32, every), (128, every), (8, 0)] {
                println!("{name}, interrupts {interrupts}, depth {depth}, {accept:#x}");
                let image = image();
                let platform = plugged(Device::VirtioScsi, &machine, image.clone());
                let options = virtio_scsi::Options { accept, ..virtio_scsi::Options::new(depth) };
                let disk = virtio_scsi::VirtioScsi::new(&platform, options);
                exercise_scsi(&platform, disk, interrupts, &image);
            }
        }
    }
}

fn pvscsi_moves_data_on_every_machine(place: Place) {
    for (name, machine) in place.machines() {
        for signal in SIGNALS {
            for (interrupts, threshold) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                // In pieces, and the most that there are.
                for (depth, segment) in [(1, u32::MAX), (32, 1024), (250, u32::MAX)] {
                    println!("{name}, {signal:?}, {interrupts}, {threshold}, depth {depth}");
                    let image = image();
                    let platform = plugged(Device::Pvscsi, &machine, image.clone());
                    let options = pvscsi::Options {
                        signal,
                        threshold,
                        segment,
                        ..pvscsi::Options::new(depth)
                    };
                    let disk = pvscsi::Pvscsi::new(&platform, options);
                    exercise_scsi(&platform, disk, interrupts, &image);
                }
            }
        }
    }
}

fn ahci_moves_data_on_every_machine(place: Place) {
    for (name, machine) in place.machines() {
        let ways = [None, Some(Signal::Best), Some(Signal::Msi), Some(Signal::Pin)];
        for way in ways {
            for queued in [false, true] {
                println!("{name}, {way:?}, queued {queued}");
                let image = image();
                let platform = ahci(&machine, image.clone());
                let signal = way.unwrap_or_default();
                let options = AhciOptions { queued, signal, ..AhciOptions::default() };
                let (disk, interrupts) = (Ahci::new(&platform, options), way.is_some());
                let mut driver = Driver::new(&platform, disk, interrupts);
                let depth = driver.disk.max_depth();
                assert_eq!((driver.disk.is_queued(), depth), (queued, if queued { 32 } else { 1 }));
                exercise(&mut driver, &image, depth);
                refuses_nonsense(&mut driver);
                let unsupported = driver.disk.submit(0, 0, Op::WriteZeroes(4096));
                assert!(matches!(unsupported, Err(Error::Unsupported(_))));
                no_strays(&platform);
            }
        }
    }
}

fn ahci_does_not_mix_queued_commands_with_others(place: Place) {
    let platform = ahci(&place.stepped(), image());
    let disk = Ahci::new(&platform, AhciOptions::default());
    let mut driver = Driver::new(&platform, disk, false);
    let region = platform.allocate(4096).unwrap();
    driver.disk.submit(4, 0, Op::Read(&region)).unwrap();
    assert_eq!(driver.disk.submit(5, 0, Op::Flush), Err(Error::Busy));
    assert_eq!(driver.disk.submit(5, 0, Op::Discard(4096)), Err(Error::Busy));
    driver.disk.kick().unwrap();
    assert_eq!(driver.disk.set_interrupts(true), Err(Error::Busy));
    assert_eq!(driver.wait(1)[0].tag, 4);
    driver.disk.submit(5, 0, Op::Flush).unwrap();
    assert_eq!(driver.disk.submit(4, 0, Op::Read(&region)), Err(Error::Busy));
    driver.disk.kick().unwrap();
    assert_eq!(driver.wait(1)[0].tag, 5);
}

// Transfers of more than one PRD, and of the most that the disks can do at once here.
fn long_transfers_are_whole(place: Place) {
    fn exercise<D: Disk>(platform: &InProcess, disk: Result<D, Error>, image: &MemoryBackend) {
        let mut driver = Driver::new(platform, disk, false);
        let len = usize::try_from(CAPACITY).unwrap();
        let region = platform.allocate(len).unwrap();
        region.fill_pattern(0, len, 7, 11);
        driver.good(0, Op::Write(&region));
        let mut written = vec![0; len];
        region.read_bytes(0, &mut written);
        assert!(on_image(image, 0, len) == written);
        region.fill_pattern(0, len, 0, 0);
        driver.good(0, Op::Read(&region));
        assert!(region.matches_pattern(0, len, 7, 11));
    }
    for machine in [place.stepped(), place.threaded()] {
        let image = image();
        let platform = virtio_blk(&machine, image.clone());
        exercise(&platform, VirtioBlk::new(&platform, Options::new(1)), &image);
        let platform = ahci(&machine, image.clone());
        exercise(&platform, Ahci::new(&platform, AhciOptions::default()), &image);
        let platform = ahci(&machine, image.clone());
        let options = AhciOptions { queued: false, ..AhciOptions::default() };
        exercise(&platform, Ahci::new(&platform, options), &image);
        let platform = plugged(Device::VirtioScsi, &machine, image.clone());
        let options = virtio_scsi::Options::new(1);
        exercise(&platform, virtio_scsi::VirtioScsi::new(&platform, options), &image);
        // A list of 128 pieces is the longest that there is.
        for segment in [u32::MAX, 16 << 10] {
            let platform = plugged(Device::Pvscsi, &machine, image.clone());
            let options = pvscsi::Options { segment, ..pvscsi::Options::new(1) };
            exercise(&platform, pvscsi::Pvscsi::new(&platform, options), &image);
        }
    }
}

fn virtio_blk_works_with_any_features_queues_and_sizes(place: Place) {
    let every = Options::ALL_FEATURES;
    for (queues, queue_size, depth, accept, indirect) in [
        (1, 256, 85, every, false),
        (1, 256, 86, every, true),
        (1, 256, 256, every, true),
        (1, 4, 4, every, true),
        (1, 4, 1, every & !feature::INDIRECT_DESC, false),
        (1, 256, 32, 0, false),
        (1, 256, 32, feature::EVENT_IDX, false),
        (4, 128, 32, every, false),
        (4, 128, 256, every, true),
        (16, 64, 33, every, false),
    ] {
        for interrupts in [false, true] {
            for machine in [place.stepped(), place.threaded()] {
                let device =
                    paraslot_virtio_blk::Options { queues, queue_size, ..Default::default() };
                let platform = virtio_blk_with(&machine, image(), &device);
                let options = Options { queues, accept, ..Options::new(depth) };
                let mut driver =
                    Driver::new(&platform, VirtioBlk::new(&platform, options), interrupts);
                assert_eq!(driver.disk.uses_indirect(), indirect, "{options:?}");
                let regions = regions(&platform, depth.into());
                for start in [0, 200] {
                    driver.start(start, &regions, false);
                    let done = driver.wait(regions.len());
                    assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
                    for (block, region) in (start..).zip(&regions) {
                        assert!(is_initial(region, block), "{options:?}, block {block}");
                    }
                }
                no_strays(&platform);
            }
        }
    }
}

fn what_the_device_is_too_small_for_is_refused(place: Place) {
    let device = paraslot_virtio_blk::Options { queue_size: 16, ..Default::default() };
    let platform = virtio_blk_with(&place.stepped(), image(), &device);
    let new = |options| VirtioBlk::new(&platform, options).map(|_| ());
    assert_eq!(new(Options::new(16)), Ok(()));
    assert_eq!(new(Options::new(17)), Err(Error::Unsupported("so many requests in flight")));
    let no_tables = Options::ALL_FEATURES & !feature::INDIRECT_DESC;
    let direct = |depth| Options { accept: no_tables, ..Options::new(depth) };
    assert_eq!(new(direct(5)), Ok(()));
    assert_eq!(new(direct(6)), Err(Error::Unsupported("so many requests in flight")));
    let queues = Options { queues: 2, ..Options::new(2) };
    assert_eq!(new(queues), Err(Error::Unsupported("so many queues")));
    let queues = Options { queues: u16::try_from(MAX_QUEUES).unwrap() + 1, ..Options::new(1) };
    assert!(matches!(new(queues), Err(Error::Request(_))));
    assert!(matches!(new(Options::new(0)), Err(Error::Request(_))));
    assert!(matches!(new(Options::new(257)), Err(Error::Request(_))));
    assert_eq!(Ahci::new(&platform, AhciOptions::default()).err(), Some(Error::NotFound));
}

fn both_configuration_mechanisms_lead_to_the_disk(place: Place) {
    let machine = Machine { config: ConfigAccess::Mechanism1, ..place.stepped() };
    let image = image();
    let platform = virtio_blk(&machine, image.clone());
    let mut driver = Driver::new(&platform, VirtioBlk::new(&platform, Options::new(4)), true);
    exercise(&mut driver, &image, 4);
    let platform = ahci(&machine, image.clone());
    let mut driver = Driver::new(&platform, Ahci::new(&platform, AhciOptions::default()), true);
    exercise(&mut driver, &image, 4);
    assert_eq!(image.info().capacity, CAPACITY);
}

in_both_places! {
    virtio_blk_moves_data_on_every_machine,
    virtio_scsi_moves_data_on_every_machine,
    pvscsi_moves_data_on_every_machine,
    ahci_moves_data_on_every_machine,
    ahci_does_not_mix_queued_commands_with_others,
    long_transfers_are_whole,
    virtio_blk_works_with_any_features_queues_and_sizes,
    what_the_device_is_too_small_for_is_refused,
    both_configuration_mechanisms_lead_to_the_disk,
}
