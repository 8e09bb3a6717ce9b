//! What stock drivers do from probe to traffic, register by register.

use super::*;

/// The way of Linux's driver (vmxnet3_probe_device, vmxnet3_open, vmxnet3_activate_dev).
#[test]
fn linux_brings_it_up() {
    let setup =
        Setup { tx: 4, rx: 4, queues: 4, level: IML_ADAPTIVE, data_ring: 128, ..Setup::default() };
    let mut machine = Machine::off(setup);
    assert_eq!(machine.config(0), 0x07b0_15ad);
    assert_eq!(machine.config(pci::header::SUBSYSTEM_VENDOR_ID), 0x07b0_15ad);
    assert_eq!(machine.config(8) >> 8, 0x02_0000);
    // Revisions, the highest first; UPT; the address; interrupts.
    let revisions = machine.read_vd(VRRS);
    assert_eq!(31 - revisions.leading_zeros(), 2);
    machine.write_vd(VRRS, 4);
    assert_eq!(machine.read_vd(UVRS) & 1, 1);
    machine.write_vd(UVRS, 1);
    let entry = machine.order(command::GET_TXDATA_DESC_SIZE) as u16;
    assert_eq!(entry, 256);
    let low = machine.order(command::GET_PERM_MAC_LO).to_le_bytes();
    let high = machine.order(command::GET_PERM_MAC_HI).to_le_bytes();
    assert_eq!([&low[..], &high[..2]].concat(), MAC);
    let interrupts = machine.order(command::GET_CONF_INTR);
    assert_eq!((interrupts & 3, interrupts >> 2 & 3), (0, 0));
    assert_eq!(machine.nic.layout().msix_vectors, 25);
    // Open: the address, the shared memory, activation, buffers, filters last.
    let mut shared = machine.prepare();
    let mode = std::mem::take(&mut shared.dev_read.rx_filter_conf.rx_mode);
    shared.dev_read.rx_filter_conf.vf_table[0] = 1.into();
    machine.write_vd(MACL, 0x3322_1102);
    machine.write_vd(MACH, 0x5544);
    assert_eq!(machine.activate(&shared), 0);
    let info =
        VariableLenConfDesc { conf_ver: 1.into(), conf_len: 16.into(), conf_pa: SPARE.into() };
    machine.set_shared(offset_of!(DriverShared, cmd_info), info.as_bytes());
    assert_eq!(machine.order(command::GET_COALESCE), 0);
    for queue in 0..4u64 {
        machine.give(queue as usize, 0, RING - 1);
        machine.give(queue as usize, 1, RING - 1);
        machine.write_pt(RXPROD + 8 * queue, RING - 1);
        machine.write_pt(RXPROD2 + 8 * queue, RING - 1);
    }
    machine.set_shared(offset_of!(DriverShared, dev_read.rx_filter_conf), mode.as_bytes());
    for command in
        [command::UPDATE_RX_MODE, command::UPDATE_VLAN_FILTERS, command::UPDATE_MAC_FILTERS]
    {
        assert_eq!(machine.order(command), 0);
    }
    assert_eq!(machine.order(command::GET_LINK), 10_000 << 16 | 1);
    for intr in 0..9 {
        machine.write_pt(IMR + 8 * intr, 0);
    }
    // A frame each way, on the third queue.
    machine.run();
    machine.fill(TX_DATA, &frame(70));
    machine.put(2, &[descriptor(TX_DATA, 70, ALONE)]);
    machine.ring(2);
    machine.run();
    assert_eq!(machine.host.take_sent(2)[0].bytes, frame(70));
    assert_eq!((machine.completed(2), machine.messages()), (Some(0), vec![2]));
    machine.host.push(2, &frame(90));
    machine.run();
    assert_eq!(machine.clean(2).unwrap().bytes, frame(90));
    assert_eq!(machine.messages(), [6]);
    // The link goes.
    machine.control.set_link(false);
    machine.run();
    assert_eq!((machine.ecr(), machine.messages()), (Events::LINK, vec![8]));
    machine.write_vd(ECR, Events::LINK.bits());
    assert_eq!((machine.ecr(), machine.order(command::GET_LINK)), (Events::empty(), 0));
    // Close.
    assert_eq!(machine.order(command::QUIESCE_DEV), 0);
    for intr in 0..9 {
        machine.write_pt(IMR + 8 * intr, 1);
    }
    assert_eq!((machine.host.active(), machine.messages()), (1, vec![]));
}

/// The way of a boot ROM: one ring for receiving, no messages, polling.
#[test]
fn a_boot_rom_polls() {
    let setup = Setup { messages: false, revision: REVISION_1, ..Setup::default() };
    let mut machine = Machine::off(setup);
    let shared = machine.prepare();
    let mut desc = machine.rx_desc(0);
    desc.conf.rx_ring_size[1] = 0.into();
    desc.conf.rx_ring_base_pa[1] = 0.into();
    machine.fill(QUEUES + 256, desc.as_bytes());
    assert_eq!(machine.activate(&shared), 0);
    machine.give(0, 0, RING - 1);
    machine.write_pt(RXPROD, RING - 1);
    machine.run();
    for round in 0..100 {
        machine.send(&frame(60 + round), 0, 0);
        assert_eq!(machine.one_sent().bytes, frame(60 + round));
        assert_eq!(machine.completed(0), Some(round as u32 % RING));
        machine.arrive(&frame(200));
        assert_eq!(machine.clean(0).unwrap().bytes, frame(200));
    }
    assert!(!machine.level() && machine.board.rises.load(Ordering::SeqCst) == 0);
}

#[test]
fn the_function_has_what_it_says() {
    let mut machine = Machine::off(Setup::default());
    for id in [
        pci::capability::POWER_MANAGEMENT,
        pci::capability::MSI,
        pci::capability::MSI_X,
        pci::capability::PCI_EXPRESS,
    ] {
        assert!(machine.capability(id).is_some(), "{id:#x}");
    }
    let layout = machine.nic.layout();
    assert_eq!((layout.msix_vectors, layout.msi_vectors, layout.intx), (25, 1, true));
    let sizes = layout.bars.map(|bar| bar.map(|bar| bar.size));
    assert_eq!(sizes, [Some(4096), Some(4096), Some(4096), None, None, None, None]);
    let mut places: Vec<u64> = layout.doorbells.iter().map(|bell| bell.offset).collect();
    places.sort_unstable();
    let expected = (0..8).map(|n| TXPROD + 8 * n);
    let expected =
        expected.chain((0..16).map(|n| RXPROD + 8 * n)).chain((0..16).map(|n| RXPROD2 + 8 * n));
    assert_eq!(places, expected.collect::<Vec<_>>());
    assert!(
        layout.doorbells.iter().all(|bell| (bell.bar, bell.len, bell.value) == (PT_BAR, 4, None))
    );
    let mut plain = Machine::off(Setup { express: false, ..Setup::default() });
    assert_eq!(plain.capability(pci::capability::PCI_EXPRESS), None);
    for options in [
        Options::new([1, 0, 0, 0, 0, 1]),
        Options::new([0; 6]),
        Options { queues: 0, ..Options::default() },
        Options { queues: 9, ..Options::default() },
    ] {
        assert!(options.check().is_err());
    }
    assert!(Options::default().check().is_ok());
}
