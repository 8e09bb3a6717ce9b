//! Setting up.

use super::*;

fn config(machine: &Machine, at: usize, bytes: &[u8]) {
    machine.device.borrow_mut().config[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn it_is_set_up_with_three_queues_and_one_vector() {
    let machine = Machine::usual();
    let options = Options { interrupt: 5, ..Options::new(64) };
    let disk = VirtioScsi::new(&machine, options).unwrap();
    {
        let device = machine.device.borrow();
        assert_eq!((device.status, device.accepted), (RUNNING, ALL));
        let queues: Vec<_> =
            device.queues.iter().map(|queue| (queue.size, queue.vector, queue.enabled)).collect();
        assert_eq!(queues, [(16, 0xffff, true), (8, 0xffff, true), (256, 0, true)]);
        // sense_size and cdb_size.
        assert_eq!(device.config[20..28], [96, 0, 0, 0, 32, 0, 0, 0]);
    }
    assert_eq!(machine.message(0), Some(5));
    assert_eq!((machine.available(EVENTS), machine.available(CONTROL)), (8, 0));
    assert_eq!((disk.capacity(), disk.block_size()), (64 * 512, 512));
    assert_eq!((disk.max_depth(), disk.max_transfer(), disk.interrupt()), (64, 32 * 512, 5));
    assert_eq!(disk.unit().address(), Address::default());
    assert_eq!((disk.features(), disk.uses_indirect()), (ALL, false));
}

// VIRTIO 1.4, 6.1: a device behind an IOMMU may refuse a driver that does not take ACCESS_PLATFORM.
// What changes how rings or notifications look is left alone.
#[test]
fn access_platform_is_accepted_and_nothing_that_is_not_served() {
    for (offered, accepted) in [
        (feature::ACCESS_PLATFORM, feature::ACCESS_PLATFORM),
        (feature::RING_PACKED | feature::NOTIFICATION_DATA | feature::IN_ORDER, 0),
        (!ALL, feature::ACCESS_PLATFORM),
    ] {
        let machine = Machine::new(ALL | offered, Units::one());
        let disk = VirtioScsi::new(&machine, Options::new(1)).unwrap();
        assert_eq!(disk.features(), ALL | accepted);
        let device = machine.device.borrow();
        assert_eq!((device.status, device.accepted), (RUNNING, ALL | accepted));
    }
}

// 4.1.4.1: the first structure that can be used; QEMU offers notification by I/O ports before the one
// by memory if asked to.
#[test]
fn a_structure_in_an_io_bar_is_passed_over() {
    let machine = Machine::usual();
    {
        let mut functions = machine.fake.functions.borrow_mut();
        let words = &mut functions.get_mut(&(2, 0)).unwrap().words;
        words[4 + 5] = 0xc001;
        // A capability like the one for notifications, but in BAR 5, is the first of the list.
        words[0xc0 / 4] = 0x09 | 0x40 << 8 | 20 << 16 | 2 << 24;
        words[0xc0 / 4 + 1] = 5;
        words[0xc0 / 4 + 3] = 4;
        words[0x34 / 4] = 0xc0;
    }
    VirtioScsi::new(&machine, Options::new(1)).unwrap();
    assert_eq!(machine.device.borrow().status, RUNNING);
}

#[test]
fn events_are_not_waited_for_if_there_are_none() {
    let machine = Machine::new(ALL & !(scsi::HOTPLUG | scsi::CHANGE), Units::one());
    let mut disk = disk(&machine, 1);
    assert_eq!(machine.available(EVENTS), 0);
    disk.events(|event| panic!("{event:?}")).unwrap();
    for feature in [scsi::HOTPLUG, scsi::CHANGE] {
        let machine = Machine::new(ALL & !feature, Units::one());
        VirtioScsi::new(&machine, Options::new(1)).unwrap();
        assert_eq!(machine.available(EVENTS), 8);
    }
}

#[test]
fn a_small_queue_does_with_indirect_tables() {
    for (size, depth, indirect) in [(256, 85, false), (256, 86, true), (256, 256, true)] {
        let machine = Machine::usual();
        machine.device.borrow_mut().size = size;
        let disk = VirtioScsi::new(&machine, Options::new(depth)).unwrap();
        assert_eq!(disk.uses_indirect(), indirect, "{size} {depth}");
    }
    let machine = Machine::new(ALL & !feature::INDIRECT_DESC, Units::one());
    let many = Error::Unsupported("so many requests in flight");
    assert_eq!(failure(&machine, Options::new(86)), many);
    let machine = Machine::usual();
    machine.device.borrow_mut().size = 16;
    assert_eq!(failure(&machine, Options::new(17)), many);
    assert!(VirtioScsi::new(&machine, Options::new(16)).is_ok());
}

#[test]
fn limits_of_the_host_are_kept() {
    let machine = Machine::usual();
    // max_sectors, cmd_per_lun.
    config(&machine, 8, &9_u32.to_le_bytes());
    config(&machine, 12, &4_u32.to_le_bytes());
    assert_eq!(VirtioScsi::new(&machine, Options::new(4)).unwrap().max_transfer(), 9 * 512);
    let many = Error::Unsupported("so many requests in flight");
    assert_eq!(failure(&machine, Options::new(5)), many);
    assert_eq!(machine.device.borrow().status & FAILED, FAILED);
    // Those that it does not say.
    config(&machine, 8, &[0; 8]);
    machine.state.borrow_mut().units.disk().pages.clear();
    let disk = VirtioScsi::new(&machine, Options::new(1)).unwrap();
    assert_eq!(disk.max_transfer(), 0xffff * 512);
    assert_eq!(failure(&machine, Options::new(2)), many);
}

#[test]
fn disks_are_looked_for_up_to_the_last_target() {
    let mut units = Units::default();
    units.units.insert((7, 0x123), TestUnit::disk());
    let machine = Machine::new(ALL, units);
    let address = Address { target: 7, lun: 0x123 };
    assert_eq!(VirtioScsi::new(&machine, Options::new(1)).unwrap().unit().address(), address);
    config(&machine, 30, &6_u16.to_le_bytes());
    assert_eq!(failure(&machine, Options::new(1)), Error::NotFound);
    assert_eq!(machine.device.borrow().status & FAILED, FAILED);
    // No more than an address can say.
    config(&machine, 30, &u16::MAX.to_le_bytes());
    machine.state.borrow_mut().units.units.clear();
    machine.state.borrow_mut().units.seen.clear();
    assert_eq!(failure(&machine, Options::new(1)), Error::NotFound);
    let targets: Vec<u8> =
        machine.state.borrow().units.seen.iter().map(|(at, _)| at.target).collect();
    assert_eq!(targets, (0..=255).collect::<Vec<u8>>());
}

#[test]
fn what_cannot_be_set_up_is_refused_and_the_device_told() {
    for depth in [0, 257, u16::MAX] {
        assert_eq!(failure(&Machine::usual(), Options::new(depth)), Error::Request("depth"));
    }
    let machine = Machine::usual();
    config(&machine, 0, &[0; 4]);
    let error = Error::Protocol("it has no request queue");
    assert_eq!(failure(&machine, Options::new(1)), error);
    assert_eq!(machine.device.borrow().status & FAILED, FAILED);
    let machine = Machine::usual();
    machine.state.borrow_mut().idle = true;
    assert_eq!(failure(&machine, Options::new(1)), Error::Timeout("command"));
    let fake = crate::testing::Fake::new();
    assert_eq!(VirtioScsi::new(&fake, Options::new(1)).err(), Some(Error::NotFound));
    // As much memory as it needs, and a little less.
    let machine = Machine::usual();
    let before = machine.fake.memory.get();
    VirtioScsi::new(&machine, Options::new(8)).unwrap();
    let needed = before - machine.fake.memory.get();
    machine.fake.memory.set(needed);
    assert!(VirtioScsi::new(&machine, Options::new(8)).is_ok());
    for memory in (0..needed).step_by(61) {
        machine.fake.memory.set(memory);
        assert_eq!(failure(&machine, Options::new(8)), Error::NoMemory, "{memory}");
    }
}

#[test]
fn without_vectors_it_can_be_polled() {
    let machine = Machine::usual();
    machine.set_vectors(0);
    let mut disk = disk(&machine, 2);
    assert_eq!(machine.device.borrow().queues[REQUESTS].vector, 0xffff);
    assert_eq!(disk.set_interrupts(true), Err(Error::Unsupported("MSI-X")));
    disk.submit(0, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    machine.serve();
    assert_eq!(poll(&mut disk), Ok(vec![done(0)]));
}

#[test]
fn after_a_shutdown_it_is_reset_and_nothing_is_in_flight() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 2);
    disk.submit(1, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    assert_eq!(disk.set_interrupts(false), Err(Error::Busy));
    disk.shutdown().unwrap();
    assert_eq!(machine.device.borrow().status, 0);
    assert_eq!(disk.set_interrupts(false), Ok(()));
}
