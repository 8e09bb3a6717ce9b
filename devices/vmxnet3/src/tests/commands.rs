//! Commands and registers.

use super::*;

#[test]
fn revisions_are_offered_and_selected() {
    let mut machine = Machine::off(Setup::default());
    assert_eq!(machine.read_vd(VRRS), 7);
    assert_eq!(machine.read_vd(UVRS), 1);
    // Commands of revision 3 are none before.
    let newer = [
        command::GET_TXDATA_DESC_SIZE,
        command::GET_COALESCE,
        command::SET_COALESCE,
        command::REGISTER_MEMREGS,
    ];
    for wrong in [0, 3, 8, 1 << 31] {
        machine.write_vd(VRRS, wrong);
        assert_eq!(newer.map(|command| machine.order(command)), [u32::MAX; 4]);
    }
    machine.write_vd(VRRS, REVISION_3);
    assert_eq!(machine.read_vd(VRRS), 7);
    let size = machine.order(command::GET_TXDATA_DESC_SIZE);
    let range = u32::from(TXDATA_DESC_MIN_SIZE)..=u32::from(TXDATA_DESC_MAX_SIZE);
    assert!(range.contains(&size) && size.is_multiple_of(DATA_DESC_SIZE_ALIGN.into()));
    // Drivers select at probe, and reset the device ever after: for another MTU, or to resume
    // (Linux's vmxnet3_change_mtu and vmxnet3_resume).
    machine.order(command::RESET_DEV);
    assert_eq!(machine.order(command::GET_TXDATA_DESC_SIZE), size);
    machine.nic.reset();
    machine.command(pci::Command::MEMORY | pci::Command::BUS_MASTER);
    assert_eq!(machine.order(command::GET_TXDATA_DESC_SIZE), u32::MAX);
}

#[test]
fn questions_are_answered() {
    let mut machine = Machine::off(Setup::default());
    for (command, answer) in [
        (command::GET_LINK, 10_000 << 16 | 1),
        (command::GET_PERM_MAC_LO, 0x3322_1102),
        (command::GET_PERM_MAC_HI, 0x5544),
        (command::GET_DID_LO, 0x07b0),
        (command::GET_DID_HI, 1),
        (command::GET_DEV_EXTRA_INFO, 0),
        (command::GET_CONF_INTR, interrupt::IT_AUTO),
        (command::GET_ADAPTIVE_RING_INFO, 1),
        // What is refused.
        (command::LOAD_PLUGIN, u32::MAX),
        (command::SET_RSS_FIELDS, u32::MAX),
        (command::GET_RSS_FIELDS, u32::MAX),
        (0, u32::MAX),
        (0xdead_beef, u32::MAX),
    ] {
        assert_eq!(machine.order(command), answer, "{command:#x}");
    }
    machine.control.set_link(false);
    assert_eq!(machine.order(command::GET_LINK), 0);
    assert!(!machine.control.link());
    assert_eq!((machine.read_vd(MACL), machine.read_vd(MACH)), (0x3322_1102, 0x5544));
}

// QEMU eedeeeffd4: before activation there is nothing to be read or written.
#[test]
fn commands_before_activation_touch_no_memory() {
    let mut machine = Machine::off(Setup::default());
    machine.write_vd(VRRS, REVISION_3);
    let before = machine.bytes(0, MEMORY);
    let all = (0..17).map(|number| command::FIRST_SET + number);
    for command in all.chain((0..13).map(|number| command::FIRST_GET + number)) {
        if command != command::ACTIVATE_DEV {
            machine.order(command);
        }
    }
    for command in [command::GET_STATS, command::GET_QUEUE_STATUS, command::UPDATE_RX_MODE] {
        assert_eq!(machine.order(command), u32::MAX);
    }
    machine.write_vd(ECR, u32::MAX);
    assert!(machine.bytes(0, MEMORY) == before);
    // Nor after it is over.
    machine.start();
    machine.order(command::QUIESCE_DEV);
    let before = machine.bytes(0, MEMORY);
    assert_eq!(machine.order(command::GET_STATS), u32::MAX);
    machine.write_vd(ECR, u32::MAX);
    assert!(machine.bytes(0, MEMORY) == before);
}

#[test]
fn registers_are_written_whole() {
    let mut machine = Machine::off(Setup::default());
    machine.write_vd(DSAL, 0x1234_5000);
    for len in 1..4 {
        machine.nic.bar_write(VD_BAR, DSAL, &[0xff; 4][..len]);
        machine.nic.bar_write(VD_BAR, DSAL + 1, &[0xff; 4][..len]);
    }
    assert_eq!(machine.read_vd(DSAL), 0x1234_5000);
    // Reads of any width, and where there is nothing.
    let mut data = [0; 2];
    machine.nic.bar_read(VD_BAR, DSAL + 1, &mut data);
    assert_eq!(data, [0x50, 0x34]);
    assert_eq!(
        (machine.read_vd(0x48), machine.read_vd(0xffc), machine.read_vd(0x1000)),
        (0, 0, u32::MAX)
    );
    assert_eq!(
        (machine.read_pt(TXPROD), machine.read_pt(IMR), machine.read_pt(IMR + 25 * 8)),
        (0, 1, 0)
    );
    assert_eq!((machine.read(3, 0), machine.read(MSIX_BAR, 0xff0)), (u32::MAX, 0));
}

#[test]
fn coalescing_is_set_and_told() {
    let mut machine = Machine::new();
    let scheme = CoalesceScheme {
        mode: COALESCE_RBC.into(),
        tx_depth_or_rate: 10_000.into(),
        ..Default::default()
    };
    let info = offset_of!(DriverShared, cmd_info);
    let mut desc =
        VariableLenConfDesc { conf_ver: 1.into(), conf_len: 16.into(), conf_pa: SPARE.into() };
    machine.fill(SPARE, scheme.as_bytes());
    machine.set_shared(info, desc.as_bytes());
    assert_eq!(machine.order(command::SET_COALESCE), 0);
    machine.fill(SPARE, &[0xff; 16]);
    assert_ne!(machine.order(command::SET_COALESCE), 0);
    assert_eq!(machine.order(command::GET_COALESCE), 0);
    assert_eq!(machine.get::<CoalesceScheme>(SPARE), scheme);
    // It stays over an activation, and goes with a reset.
    machine.start();
    machine.set_shared(info, desc.as_bytes());
    machine.fill(SPARE, &[0xff; 16]);
    machine.order(command::GET_COALESCE);
    assert_eq!(machine.get::<CoalesceScheme>(SPARE), scheme);
    machine.order(command::RESET_DEV);
    machine.start();
    machine.set_shared(info, desc.as_bytes());
    machine.order(command::GET_COALESCE);
    assert_eq!(machine.get::<CoalesceScheme>(SPARE), CoalesceScheme::default());
    for (len, place) in [(15, SPARE), (16, u64::MAX), (16, MEMORY as u64 - 8)] {
        (desc.conf_len, desc.conf_pa) = (len.into(), place.into());
        machine.set_shared(info, desc.as_bytes());
        assert_ne!(machine.order(command::SET_COALESCE), 0);
        assert_ne!(machine.order(command::GET_COALESCE), 0);
    }
}

#[test]
fn memory_may_be_registered() {
    let mut machine = Machine::new();
    let desc = |len: u32| VariableLenConfDesc {
        conf_ver: 1.into(),
        conf_len: len.into(),
        conf_pa: SPARE.into(),
    };
    for (regions, len, result) in
        [(1u16, 24, 0), (256, 4104, 0), (257, 4120, u32::MAX), (1, 7, u32::MAX)]
    {
        machine.fill(SPARE, &regions.to_le_bytes());
        machine.set_shared(offset_of!(DriverShared, cmd_info), desc(len).as_bytes());
        assert_eq!(machine.order(command::REGISTER_MEMREGS), result);
    }
}
