//! What is checked when the device is activated.

use super::*;

/// All but buffers.
const RINGS_END: usize = 0x10_0000;

/// Activates with `change` made to what the driver says; returns how that ended.
fn attempt(setup: &Setup, change: impl FnOnce(&mut Machine, &mut DriverShared)) -> u32 {
    let mut machine = Machine::off(setup.clone());
    let mut shared = machine.prepare();
    change(&mut machine, &mut shared);
    let result = machine.activate(&shared);
    // A device that was not activated does nothing.
    if result != 0 {
        machine.host.push(0, &frame(60));
        let before = machine.bytes(0, RINGS_END);
        for register in [TXPROD, RXPROD, RXPROD2] {
            machine.write_pt(register, 1);
        }
        machine.run();
        assert_eq!((machine.sent(), machine.messages()), (vec![], vec![]));
        assert!(machine.bytes(0, RINGS_END) == before);
        // And can be, after all.
        let shared = machine.prepare();
        assert_eq!(machine.activate(&shared), 0);
    }
    result
}

fn refused(setup: &Setup, change: impl FnOnce(&mut DriverShared)) -> u32 {
    attempt(setup, |_, shared| change(shared))
}

#[test]
fn the_driver_and_its_revisions() {
    let setup = Setup::default();
    assert_eq!(refused(&setup, |_| ()), 0);
    assert_eq!(refused(&setup, |shared| shared.magic = 0xbabe_fee2.into()), 2);
    assert_eq!(
        refused(&setup, |shared| shared.dev_read.misc.driver_info.vmxnet3_rev_spt = 2.into()),
        2
    );
    assert_eq!(
        refused(&setup, |shared| shared.dev_read.misc.driver_info.upt_ver_spt = 0.into()),
        2
    );
}

// QEMU 90a0778421: an MTU that is not possible is no reason to stop the host.
#[test]
fn the_mtu() {
    for (mtu, result) in [(0, 3), (59, 3), (60, 0), (9000, 0), (9001, 3), (u32::MAX, 3)] {
        assert_eq!(
            refused(&Setup::default(), |s| s.dev_read.misc.mtu = mtu.into()),
            result,
            "{mtu}"
        );
    }
}

// QEMU 9010b0c7a9, 6a932c4ed8: numbers of queues.
#[test]
fn the_queues() {
    let setup = Setup { tx: 2, rx: 3, ..Setup::default() };
    for (tx, result) in [(0, 4), (1, 0), (3, 4), (9, 4), (255, 4)] {
        assert_eq!(refused(&setup, |s| s.dev_read.misc.num_tx_queues = tx), result, "{tx}");
    }
    for (rx, result) in [(0, 4), (1, 0), (4, 4), (17, 4), (255, 4)] {
        assert_eq!(refused(&setup, |s| s.dev_read.misc.num_rx_queues = rx), result, "{rx}");
    }
    for (place, result) in
        [(QUEUES + 64, 4), (u64::MAX - 127, 4), (MEMORY as u64, 1), (MEMORY as u64 - 128, 1)]
    {
        let result_now = refused(&setup, |s| s.dev_read.misc.queue_desc_pa = place.into());
        assert_eq!(result_now, result, "{place:#x}");
    }
    let all = Setup { tx: 8, rx: 16, ..Setup::default() };
    assert_eq!(refused(&all, |_| ()), 0);
    assert_eq!(refused(&all, |s| s.dev_read.misc.queue_desc_len = (24 * 256 - 1).into()), 4);
}

// CVE-2021-20203: sizes of rings. CVE-2016-6888, CVE-2025-41236: so that nothing overflows that is made
// of them.
#[test]
fn the_rings() {
    let sizes = [0, 31, 33, 8224, 4128, 1 << 28, u32::MAX, !31];
    let bases = [0x1_0100, u64::MAX - 511, MEMORY as u64, MEMORY as u64 - 256, 1 << 63];
    for size in sizes {
        for field in 0..2 {
            let result = attempt(&Setup::default(), |machine, _| {
                let mut desc = machine.tx_desc(0);
                let conf = &mut desc.conf;
                *[&mut conf.tx_ring_size, &mut conf.comp_ring_size][field] = size.into();
                machine.fill(QUEUES, desc.as_bytes());
            });
            assert_eq!(result, 5, "{size} {field}");
        }
        for field in 0..3 {
            let result = attempt(&Setup::default(), |machine, _| {
                let mut desc = machine.rx_desc(0);
                let conf = &mut desc.conf;
                let [first, second] = &mut conf.rx_ring_size;
                *[first, second, &mut conf.comp_ring_size][field] = size.into();
                machine.fill(QUEUES + 256, desc.as_bytes());
            });
            // There need not be a second ring, and completions are twice as many.
            let right = matches!((field, size), (1, 0) | (2, 4128));
            assert_eq!(result, if right { 0 } else { 5 }, "{size} {field}");
        }
    }
    for base in bases {
        for field in 0..5 {
            let result = attempt(&Setup::default(), |machine, _| {
                let (mut tx, mut rx) = (machine.tx_desc(0), machine.rx_desc(0));
                let [first, second] = &mut rx.conf.rx_ring_base_pa;
                let fields = [
                    &mut tx.conf.tx_ring_base_pa,
                    &mut tx.conf.comp_ring_base_pa,
                    first,
                    second,
                    &mut rx.conf.comp_ring_base_pa,
                ];
                *fields.into_iter().nth(field).unwrap() = base.into();
                machine.fill(QUEUES, tx.as_bytes());
                machine.fill(QUEUES + 256, rx.as_bytes());
            });
            assert!([1, 5].contains(&result), "{base:#x} {field}: {result}");
        }
    }
}

#[test]
fn the_data_ring() {
    let setup = Setup { data_ring: 128, ..Setup::default() };
    for (entry, base, result) in [
        (64, data_ring(0), 0),
        (2048, data_ring(0), 0),
        (100, data_ring(0), 5),
        (2112, data_ring(0), 5),
        (u16::MAX, data_ring(0), 5),
        (128, u64::MAX, 5),
        (128, MEMORY as u64, 1),
        (0, u64::MAX, 0),
        (100, 0, 0),
    ] {
        let change = |machine: &mut Machine, _: &mut DriverShared| {
            let mut desc = machine.rx_desc(0);
            desc.conf.rx_data_ring_desc_size = entry.into();
            desc.conf.rx_data_ring_base_pa = base.into();
            machine.fill(QUEUES + 256, desc.as_bytes());
        };
        assert_eq!(attempt(&setup, change), result, "{entry} {base:#x}");
        let older = Setup { revision: REVISION_2, ..setup.clone() };
        assert_eq!(attempt(&older, change), 0);
    }
}

// CVE-2013-4544: indices of interrupts, of events and of each queue.
#[test]
fn the_interrupts() {
    let setup = Setup { tx: 2, rx: 2, ..Setup::default() };
    for (number, result) in [(0, 6), (4, 6), (5, 0), (25, 0), (26, 6), (255, 6)] {
        assert_eq!(
            refused(&setup, |s| s.dev_read.intr_conf.num_intrs = number),
            result,
            "{number}"
        );
    }
    for (index, result) in [(0, 0), (4, 0), (5, 6), (25, 6), (255, 6)] {
        let event = refused(&setup, |s| s.dev_read.intr_conf.event_intr_idx = index);
        assert_eq!(event, result, "{index}");
        for queue in 0..4u64 {
            let place = QUEUES + 256 * queue + offset_of!(TxQueueDesc, conf.intr_idx) as u64;
            const {
                assert!(
                    offset_of!(TxQueueDesc, conf.intr_idx)
                        == offset_of!(RxQueueDesc, conf.intr_idx)
                )
            };
            assert_eq!(attempt(&setup, |machine, _| machine.fill(place, &[index])), result);
        }
    }
    // It is the same without a message for each: there are as many as the driver says.
    let line = Setup { messages: false, ..setup };
    assert_eq!(refused(&line, |s| s.dev_read.intr_conf.num_intrs = 5), 0);
    assert_eq!(refused(&line, |s| s.dev_read.intr_conf.event_intr_idx = 1), 6);
    let place = QUEUES + offset_of!(TxQueueDesc, conf.intr_idx) as u64;
    for (number, result) in [(1, 6), (2, 0)] {
        let ended = attempt(&line, |machine, shared| {
            machine.fill(place, &[1]);
            shared.dev_read.intr_conf.num_intrs = number;
        });
        assert_eq!(ended, result, "{number}");
    }
    // Moderation levels of those that are used.
    assert_eq!(refused(&line, |s| s.dev_read.intr_conf.mod_levels[0] = 9), 6);
    assert_eq!(refused(&line, |s| s.dev_read.intr_conf.mod_levels[1] = 9), 0);
}

#[test]
fn shared_memory_that_is_none() {
    let mut machine = Machine::off(Setup::default());
    let shared = machine.prepare();
    machine.fill(SHARED, shared.as_bytes());
    for (low, high) in [
        (0, 0),
        (MEMORY as u32, 0),
        (SHARED as u32, 1),
        (u32::MAX, u32::MAX),
        (MEMORY as u32 - 719, 0),
    ] {
        machine.write_vd(DSAL, low);
        machine.write_vd(DSAH, high);
        assert_ne!(machine.order(command::ACTIVATE_DEV), 0, "{high:#x} {low:#x}");
    }
    machine.write_vd(DSAL, SHARED as u32);
    machine.write_vd(DSAH, 0);
    assert_eq!((machine.read_vd(DSAL), machine.read_vd(DSAH)), (SHARED as u32, 0));
    machine.command(pci::Command::MEMORY);
    assert_eq!(machine.order(command::ACTIVATE_DEV), 1);
    machine.command(pci::Command::MEMORY | pci::Command::BUS_MASTER);
    assert_eq!(machine.order(command::ACTIVATE_DEV), 0);
}

// CVE-2015-8567, CVE-2015-8568: activated again and again, it is as if for the first time.
#[test]
fn a_device_can_be_activated_again() {
    let mut machine = Machine::new();
    for round in 0..50 {
        machine.arrive(&frame(60));
        machine.send(&frame(60), 0, 0);
        assert_eq!((machine.sent().len(), machine.completed(0)), (1, Some(0)));
        assert!(machine.clean(0).is_some());
        if round % 2 == 0 {
            assert_eq!(machine.order(command::QUIESCE_DEV), 0);
        }
        machine.start();
    }
    // One that fails leaves it as if it had been stopped.
    machine.set_shared(0, &[0]);
    assert_ne!(machine.order(command::ACTIVATE_DEV), 0);
    machine.put(0, &[descriptor(TX_DATA, 60, ALONE)]);
    machine.ring(0);
    machine.run();
    assert_eq!(machine.sent(), []);
}

#[test]
fn thresholds_are_the_devices_to_set() {
    let mut machine = Machine::off(Setup::default());
    let mut shared = machine.prepare();
    let mut desc = machine.tx_desc(0);
    desc.ctrl.tx_threshold = 1000.into();
    machine.fill(QUEUES, desc.as_bytes());
    machine.fill(QUEUES + 256, &[1]);
    shared.dev_read.misc.max_num_rx_sg = u16::MAX.into();
    assert_eq!(machine.activate(&shared), 0);
    assert_eq!(machine.tx_desc(0).ctrl.tx_threshold.get(), 1);
    assert_eq!(machine.rx_desc(0).ctrl.update_rx_prod, 0);
}
