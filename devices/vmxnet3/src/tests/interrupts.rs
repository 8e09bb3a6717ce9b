//! Interrupts: masks, kinds, moderation.

use super::*;

/// The transmit queue's interrupt has something to tell.
fn send(machine: &mut Machine) {
    machine.send(&frame(60), 0, 0);
}

// With the masks that the device sets itself a driver needs one register write an interrupt, and no read.
#[test]
fn an_interrupt_masks_itself_until_the_driver_lets_it_through() {
    let mut machine = Machine::new();
    send(&mut machine);
    assert_eq!((machine.messages(), machine.read_pt(IMR)), (vec![0], 1));
    send(&mut machine);
    send(&mut machine);
    assert_eq!(machine.messages(), [0; 0]);
    machine.write_pt(IMR, 0);
    assert_eq!((machine.messages(), machine.read_pt(IMR)), (vec![0], 1));
    machine.write_pt(IMR, 0);
    assert_eq!((machine.messages(), machine.read_pt(IMR)), (vec![], 0));
    send(&mut machine);
    assert_eq!(machine.messages(), [0]);
}

#[test]
fn a_driver_may_mask_by_itself() {
    let mut machine = Machine::with(Setup { auto_mask: false, ..Setup::default() });
    send(&mut machine);
    send(&mut machine);
    assert_eq!(machine.messages(), [0, 0]);
    machine.write_pt(IMR, 1);
    send(&mut machine);
    machine.arrive(&frame(60));
    assert_eq!(machine.messages(), [1]);
    machine.write_pt(IMR, 1);
    machine.write_pt(IMR, 0);
    assert_eq!(machine.messages(), [0]);
    machine.write_pt(IMR, 0);
    assert_eq!(machine.messages(), [0; 0]);
}

#[test]
fn at_first_all_are_masked() {
    let mut machine = Machine::new();
    machine.order(command::RESET_DEV);
    let shared = machine.prepare();
    machine.activate(&shared);
    send(&mut machine);
    assert_eq!(machine.messages(), [0; 0]);
    machine.write_pt(IMR, 0);
    assert_eq!(machine.messages(), [0]);
    // What is pending does not outlive an activation; the masks do.
    send(&mut machine);
    machine.write_pt(IMR + 8, 0);
    machine.order(command::QUIESCE_DEV);
    machine.write_pt(IMR, 0);
    assert_eq!((machine.messages(), machine.read_pt(IMR + 8)), (vec![], 0));
}

#[test]
fn the_line_is_held_until_icr_is_read() {
    for auto_mask in [true, false] {
        let mut machine = Machine::with(Setup { messages: false, auto_mask, ..Setup::default() });
        assert_eq!(machine.read_vd(ICR), 0);
        send(&mut machine);
        assert!(machine.level());
        send(&mut machine);
        assert_eq!((machine.read_vd(ICR), machine.level()), (1, false));
        assert_eq!(machine.read_vd(ICR), 0);
        assert_eq!(machine.read_pt(IMR), u32::from(auto_mask));
        send(&mut machine);
        assert_eq!(machine.level(), !auto_mask);
        machine.write_pt(IMR, 0);
        assert!(machine.level());
        // A mask takes it off the line; it is not forgotten.
        machine.write_pt(IMR, 1);
        assert!(!machine.level());
        assert_eq!(machine.read_vd(ICR), 0);
        machine.write_pt(IMR, 0);
        assert_eq!((machine.level(), machine.read_vd(ICR)), (true, 1));
        assert_eq!(machine.messages(), [0; 0]);
        send(&mut machine);
        machine.write_pt(IMR, 0);
        machine.order(command::QUIESCE_DEV);
        assert!(!machine.level());
    }
}

#[test]
fn one_message_for_all() {
    let mut machine = Machine::off(Setup { messages: false, ..Setup::default() });
    let at = machine.capability(pci::capability::MSI).unwrap();
    machine.nic.config_write(at + pci::msi::CONTROL, &pci::msi::ENABLE.to_le_bytes());
    machine.start();
    send(&mut machine);
    machine.arrive(&frame(60));
    assert_eq!((machine.messages(), machine.level()), (vec![0], false));
    machine.write_pt(IMR, 0);
    assert_eq!(machine.messages(), [0]);
}

// With a line or one message FreeBSD's driver gives its transmit queue an interrupt that it never lets
// through, and sees to completions when something is received (vmxnet3_set_interrupt_idx).
#[test]
fn interrupts_without_a_message_of_their_own() {
    for message in [false, true] {
        let mut machine = Machine::off(Setup { messages: false, ..Setup::default() });
        if message {
            let at = machine.capability(pci::capability::MSI).unwrap();
            machine.nic.config_write(at + pci::msi::CONTROL, &pci::msi::ENABLE.to_le_bytes());
        }
        let mut shared = machine.prepare();
        shared.dev_read.intr_conf.num_intrs = 2;
        let place = QUEUES + offset_of!(TxQueueDesc, conf.intr_idx) as u64;
        machine.fill(place, &[1]);
        assert_eq!(machine.activate(&shared), 0);
        machine.give(0, 0, RING - 1);
        machine.write_pt(IMR, 0);
        send(&mut machine);
        assert_eq!((machine.completed(0), machine.level()), (Some(0), false));
        assert_eq!(machine.messages(), [0; 0]);
        machine.arrive(&frame(60));
        let messages: &[u16] = if message { &[0] } else { &[] };
        assert_eq!((machine.level(), machine.messages()), (!message, messages.to_vec()));
        // Were it let through, it would use the same line or message.
        assert_eq!(machine.read_vd(ICR), u32::from(!message));
        machine.write_pt(IMR + STRIDE, 0);
        assert_eq!((machine.level(), machine.messages()), (!message, messages.to_vec()));
    }
}

#[test]
fn moderation_keeps_interrupts_apart() {
    let mut machine = Machine::with(Setup { level: 3, auto_mask: false, ..Setup::default() });
    machine.advance(1000);
    send(&mut machine);
    assert_eq!(machine.messages(), [0]);
    send(&mut machine);
    machine.advance(63);
    assert_eq!(machine.messages(), [0; 0]);
    machine.advance(1);
    assert_eq!(machine.messages(), [0]);
    machine.advance(64);
    send(&mut machine);
    assert_eq!(machine.messages(), [0]);
    // Not events.
    machine.control.set_link(false);
    machine.control.set_link(true);
    machine.run();
    machine.control.set_link(false);
    machine.run();
    assert_eq!(machine.messages(), [2, 2]);
    // One that is let through too early is sent when it is time.
    machine.write_pt(IMR, 1);
    send(&mut machine);
    machine.advance(30);
    machine.write_pt(IMR, 0);
    machine.run();
    assert_eq!(machine.messages(), [0; 0]);
    machine.advance(34);
    assert_eq!(machine.messages(), [0]);
}

#[test]
fn levels_can_be_changed_at_any_time() {
    let mut machine = Machine::with(Setup { level: 7, auto_mask: false, ..Setup::default() });
    machine.advance(5000);
    send(&mut machine);
    send(&mut machine);
    assert_eq!(machine.messages(), [0]);
    let levels = offset_of!(DriverShared, dev_read.intr_conf.mod_levels);
    machine.set_shared(levels, &[1]);
    machine.advance(15);
    assert_eq!(machine.order(command::UPDATE_IML), 0);
    machine.run();
    assert_eq!(machine.messages(), [0; 0]);
    machine.advance(1);
    assert_eq!(machine.messages(), [0]);
    machine.set_shared(levels, &[9]);
    assert_ne!(machine.order(command::UPDATE_IML), 0);
}

fn coalesce(machine: &mut Machine, scheme: [u32; 4]) {
    machine.fill(SPARE, scheme.as_bytes());
    let desc =
        VariableLenConfDesc { conf_ver: 1.into(), conf_len: 16.into(), conf_pa: SPARE.into() };
    machine.set_shared(offset_of!(DriverShared, cmd_info), desc.as_bytes());
    assert_eq!(machine.order(command::SET_COALESCE), 0);
}

#[test]
fn coalescing_by_number_counts_packets() {
    let mut machine = Machine::with(Setup { auto_mask: false, ..Setup::default() });
    coalesce(&mut machine, [COALESCE_STATIC, 0, 4, 3]);
    for _ in 0..8 {
        send(&mut machine);
    }
    assert_eq!(machine.messages(), [0, 0]);
    for _ in 0..7 {
        machine.arrive(&frame(60));
    }
    assert_eq!(machine.messages(), [1, 1]);
    // What is less waits for a while.
    machine.advance(999);
    assert_eq!(machine.messages(), [0; 0]);
    machine.advance(1);
    assert_eq!(machine.messages(), [1]);
}

#[test]
fn coalescing_by_rate_keeps_interrupts_apart() {
    let mut machine = Machine::with(Setup { auto_mask: false, level: 7, ..Setup::default() });
    coalesce(&mut machine, [COALESCE_RBC, 20_000, 0, 0]);
    machine.advance(5000);
    for _ in 0..100 {
        send(&mut machine);
        machine.advance(5);
    }
    // At once, and then each 50 microseconds.
    assert_eq!(machine.messages().len(), 11);
}

// A bulk of packets that came while the guest was looking at others is told of a little later.
#[test]
fn adaptive_moderation_delays_bulk() {
    let setup = Setup { level: IML_ADAPTIVE, auto_mask: false, ..Setup::default() };
    let mut machine = Machine::with(setup);
    machine.advance(1000);
    for round in 0..20 {
        machine.arrive(&frame(60));
        assert_eq!(machine.messages(), [1], "{round}");
        machine.clean(0);
    }
    machine.write_pt(IMR + 8, 1);
    for _ in 0..10 {
        machine.arrive(&frame(60));
    }
    machine.write_pt(IMR + 8, 0);
    machine.run();
    assert_eq!(machine.messages(), [0; 0]);
    machine.advance(16);
    assert_eq!(machine.messages(), [1]);
}
