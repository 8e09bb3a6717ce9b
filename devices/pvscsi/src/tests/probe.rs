//! What drivers look at before the first request.

use paraslot_spec::pvscsi::{Config, ConfigController, ConfigHeader, command_status, config};

use super::*;

#[test]
fn configuration_space_is_vmwares() {
    let mut machine = Machine::off(bus());
    let mut header = [0; 64];
    machine.device.config_read(0, &mut header);
    assert_eq!(header[..4], [0xad, 0x15, 0xc0, 0x07]);
    assert_eq!(header[8..12], [2, 0, 0, 1], "revision 2, SCSI controller");
    assert_eq!(header[0x2c..0x30], [0xad, 0x15, 0xc0, 0x07]);
    assert_eq!(header[0x3d], 1, "INTA");
    let layout = machine.device.layout();
    let bar = layout.bars[0].unwrap();
    assert_eq!((bar.size, bar.kind), (0x8000, paraslot_pci::BarKind::Memory32));
    assert_eq!((layout.msix_vectors, layout.msi_vectors, layout.intx), (1, 1, true));
    let kicks: Vec<_> = layout.doorbells.iter().map(|d| (d.bar, d.offset, d.value)).collect();
    assert_eq!(kicks, [(0, 0x3014, None), (0, 0x4018, None)]);
    // The table and the pending bits are where Windows' driver wants them: in the same BAR.
    let at = machine.capability(pci::capability::MSI_X);
    let mut places = [0; 8];
    machine.device.config_read(at + pci::msix::TABLE, &mut places);
    assert_eq!(places, [0, 0x60, 0, 0, 0, 0x70, 0, 0]);
    for id in [pci::capability::PCI_EXPRESS, pci::capability::POWER_MANAGEMENT] {
        machine.capability(id);
    }
}

#[test]
fn linux_probes_it() {
    let bus = bus();
    bus.attach(at(0), unit(numbered())).unwrap();
    let mut machine = Machine::off(bus);
    machine.enable(pci::Command::MEMORY | pci::Command::BUS_MASTER);

    // pvscsi_get_max_targets
    let page = 0x8000;
    let mut header = ConfigHeader::default();
    header.host_status.set(host_status::INVPARAM);
    header.scsi_status.set(CHECK);
    machine.place(page, &header);
    let mut order = Config::default();
    order.address.set(u64::from(config::address::CONTROLLER) << 32);
    order.page.set(config::CONTROLLER);
    order.completion.set(page);
    assert_eq!(machine.order(command::CONFIG, order.as_bytes()), 0);
    let controller: ConfigController = machine.object(page);
    let header = controller.header;
    assert_eq!((header.host_status.get(), header.scsi_status.get()), (0, 0));
    assert_eq!((header.page.get(), header.words.get()), (config::CONTROLLER, 120));
    assert_eq!(controller.phys.get(), 16);

    // ll_adapter_reset, pvscsi_setup_msg_workqueue, pvscsi_setup_all_rings
    assert_eq!(machine.order(command::ADAPTER_RESET, &[]), 0);
    assert_eq!(machine.order(command::SETUP_MSG_RING, &[]), 34);
    machine.set_up_rings(PAGES);
    machine.set_up_messages();
    assert_eq!(machine.state(state::MESSAGE_ENTRIES_LOG2), 5);

    // pvscsi_setup_req_threshold
    assert_eq!(machine.order(command::SETUP_REQCALLTHRESHOLD, &[]), 1);
    machine.use_threshold();
    assert_eq!(machine.state(state::CALL_THRESHOLD), 1);
    machine.enable_interrupts(Mode::Msix);
    machine.write(register::INTR_MASK, Intr::all().bits());

    // scsi_scan_host: INQUIRY of all targets, one of which is there.
    for target in 0..16 {
        let cdb = [opcode::INQUIRY, 0, 0, 0, 36, 0];
        let mut inquiry = with_data(7, &cdb, RequestFlags::DIR_TO_HOST, 36);
        inquiry.target = target;
        let completion = machine.carry_out(&inquiry);
        if target == 0 {
            assert_eq!(completion.host_status.get(), host_status::SUCCESS);
            assert_eq!((completion.scsi_status.get(), completion.data_len.get()), (GOOD, 36));
            assert_eq!(machine.bytes(data_at(7), 1), [0], "a disk");
        } else {
            assert_eq!(completion.host_status.get(), host_status::SELTIMEO);
            assert_eq!(completion.data_len.get(), 0);
        }
    }
    assert_eq!(machine.messages_sent(), 16);
}

// FreeBSD's pvscsi_get_max_targets.
#[test]
fn the_number_of_targets_is_a_commands_status() {
    let mut machine = Machine::off(bus());
    assert_eq!(machine.order(command::GET_MAX_TARGETS, &[]), 16);
}

#[test]
fn what_is_not_there_fails() {
    let mut machine = Machine::new();
    for unknown in
        [command::FIRST, command::ISSUE_SCSI, command::DEVICE_UNPLUG, 12, 0x8000_0000, u32::MAX]
    {
        assert_eq!(machine.order(unknown, &[]), command_status::FAILED, "{unknown}");
    }
    let mut order = Config::default();
    for (page, address) in
        [(config::PHY, config::address::PHY), (config::CONTROLLER, config::address::PHY), (0, 0)]
    {
        order.page.set(page);
        order.address.set(u64::from(address) << 32);
        order.completion.set(0x8000);
        machine.fill(0x8000, &[0; 16]);
        assert_eq!(machine.order(command::CONFIG, order.as_bytes()), command_status::FAILED);
        let header: ConfigHeader = machine.object(0x8000);
        assert_eq!(header.host_status.get(), host_status::INVPARAM);
    }
    assert_eq!(machine.reset_device(3), command_status::FAILED);
    assert_eq!(machine.reset_device(256), command_status::FAILED);
    // It works as before.
    assert_eq!(machine.carry_out(&read10(1, 0, 1)).host_status.get(), host_status::SUCCESS);
}

#[test]
fn registers_answer_accesses_of_any_width() {
    let mut machine = Machine::new();
    machine.write(register::INTR_MASK, u32::MAX);
    assert_eq!(machine.read(register::INTR_MASK), 0xf);
    let mut wide = [0; 8];
    machine.device.bar_read(0, u64::from(register::INTR_MASK) - 1, &mut wide);
    assert_eq!(wide, [0, 0xf, 0, 0, 0, 0, 0, 0]);
    for offset in crate::registers::REGISTERS.iter().map(|register| register.offset) {
        if !matches!(offset, register::INTR_MASK | register::INTR_STATUS) {
            assert_eq!(machine.read(offset), 0, "{offset:#x}");
        }
    }
    // A command and the first word of its descriptor in one access.
    let both = (u64::from(command::RESET_DEVICE) | 3 << 32).to_le_bytes();
    machine.device.bar_write(0, 0, &both);
    assert_eq!(machine.read(register::COMMAND_STATUS), command_status::NOT_ENOUGH_DATA);
    let mut outside = [0; 4];
    machine.device.bar_read(0, 0x8000, &mut outside);
    assert_eq!(outside, [0xff; 4]);
    machine.device.bar_read(1, 0, &mut outside);
    assert_eq!(outside, [0xff; 4]);
}
