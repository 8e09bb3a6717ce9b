//! Power-on, function level reset, pause, and bus mastering.

use paraslot_spec::pvscsi::command_status;

use super::*;

/// A read that is held back by its backend.
fn held() -> (Machine, Gate) {
    let (mut machine, gate) = Machine::gated();
    machine.submit(&read10(1, 1, 1));
    machine.run();
    assert_eq!(gate.held(), 1);
    (machine, gate)
}

#[test]
fn a_reset_is_as_after_power_on() {
    let (mut machine, gate) = held();
    machine.set_up_messages();
    machine.use_threshold();
    machine.write(register::COMMAND, command::SETUP_RINGS);
    let before = machine.bytes(STATE, 4096);
    machine.device.reset();
    for register in [register::COMMAND_STATUS, register::INTR_STATUS, register::INTR_MASK] {
        assert_eq!(machine.read(register), 0);
    }
    let mut command = [0; 2];
    machine.device.config_read(pci::header::COMMAND, &mut command);
    assert_eq!(command, [0; 2]);
    gate.open();
    machine.run();
    machine.write(register::KICK_RW_IO, 0);
    machine.run();
    assert_eq!(machine.bytes(STATE, 4096), before, "nothing was told");
    assert_eq!(machine.messages_sent(), 0);

    // It works again; the unit tells that power was switched on.
    machine.threshold = false;
    machine.start(Mode::Msix);
    assert_eq!(machine.state(state::CALL_THRESHOLD), 0);
    let completion = machine.carry_out(&request(1, &[opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0]));
    assert_eq!(completion.scsi_status.get(), CHECK);
    assert_eq!(machine.bytes(sense_at(1) + 12, 2), [0x29, 0]);
    machine.wait_ready(0);
    assert_eq!(machine.carry_out(&read10(1, 1, 1)).host_status.get(), 0);
}

#[test]
fn a_function_level_reset_is_one_too() {
    let mut machine = Machine::new();
    let at = machine.capability(pci::capability::PCI_EXPRESS);
    let mut control = [0; 2];
    machine.device.config_read(at + pci::express::DEVICE_CONTROL, &mut control);
    control[1] |= 0x80;
    machine.device.config_write(at + pci::express::DEVICE_CONTROL, &control);
    assert_eq!(machine.read(register::INTR_MASK), 0);
    machine.start(Mode::Intx);
    machine.wait_ready(0);
}

// What the backend does not let go of in time comes back to nobody, and the units hear of the reset
// then.
#[test]
fn a_reset_does_not_wait_for_ever() {
    let (mut machine, gate) = held();
    gate.deafen(true);
    machine.device.reset();
    machine.start(Mode::Msix);
    let before = machine.bytes(STATE, 4096);
    assert_eq!(gate.held(), 1);
    gate.open();
    machine.run();
    assert_eq!(machine.bytes(STATE, 4096), before);
    machine.wait_ready(0);
    assert_eq!(machine.carry_out(&read10(1, 1, 1)).host_status.get(), 0);
}

#[test]
fn a_pause_waits_for_what_is_in_flight() {
    let (mut machine, gate) = held();
    machine.put(&read10(2, 2, 1));
    gate.open();
    gate.close();
    machine.device.pause().unwrap();
    // What nobody had looked at is still there.
    assert_eq!(machine.ended(), [(1, 0)]);
    let before = machine.bytes(0, 0x8_0000);
    machine.write(register::KICK_RW_IO, 0);
    machine.bus.attach(at(1), unit(numbered())).unwrap();
    machine.run();
    // Nor do commands touch memory.
    let setup = machine.setup(8);
    for (command, descriptor) in [
        (command::ADAPTER_RESET, [].as_slice()),
        (command::SETUP_RINGS, setup.as_bytes()),
        (command::RESET_BUS, &[]),
        (command::CONFIG, &[0; 24]),
    ] {
        machine.order(command, descriptor);
        assert_eq!(machine.bytes(0, 0x8_0000), before);
    }
    machine.device.resume().unwrap();
    gate.open();
    machine.run();
    assert!(machine.reap().is_empty(), "there was a reset meanwhile");
    machine.set_up_rings(PAGES);
    machine.wait_ready(0);
}

#[test]
fn a_pause_changes_nothing_for_the_driver() {
    let (mut machine, gate) = held();
    gate.open();
    machine.set_up_messages();
    machine.device.pause().unwrap();
    machine.put(&read10(2, 2, 1));
    machine.write(register::KICK_RW_IO, 0);
    machine.bus.attach(at(1), unit(numbered())).unwrap();
    machine.run();
    assert_eq!(machine.state(state::REQUEST_CONSUMER), machine.produced - 1);
    machine.device.resume().unwrap();
    machine.run();
    assert_eq!(machine.ended(), [(1, 0), (2, 0)]);
    assert_eq!(machine.state(state::MESSAGE_PRODUCER), 1);
}

#[test]
fn a_pause_fails_while_a_backend_holds_on() {
    let (mut machine, gate) = held();
    assert!(machine.device.pause().is_err());
    gate.open();
    machine.run();
    assert_eq!(machine.ended(), [(1, 0)], "it goes on as before");
    assert_eq!(machine.carry_out(&read10(2, 2, 1)).host_status.get(), 0);
}

#[test]
fn a_reset_while_paused() {
    let mut machine = Machine::new();
    machine.device.pause().unwrap();
    machine.device.reset();
    machine.device.resume().unwrap();
    machine.start(Mode::Msix);
    machine.wait_ready(0);
}

#[test]
fn without_bus_mastering_no_memory_is_touched() {
    let (mut machine, gate) = held();
    machine.enable(pci::Command::MEMORY);
    machine.put(&read10(2, 2, 1));
    gate.open();
    let before = machine.bytes(0, 0x8_0000);
    machine.write(register::KICK_RW_IO, 0);
    machine.run();
    let mut config = paraslot_spec::pvscsi::Config::default();
    config.completion.set(0x8000);
    let setup = machine.setup(8);
    assert_eq!(machine.order(command::CONFIG, config.as_bytes()), command_status::FAILED);
    machine.abort(1, 0);
    machine.reset_device(0);
    assert_eq!(machine.bytes(0, 0x8_0000), before);
    // Then all of it is seen.
    machine.enable(pci::Command::MEMORY | pci::Command::BUS_MASTER);
    machine.run();
    let ended = machine.ended();
    assert_eq!(ended.iter().map(|(context, _)| *context).collect::<Vec<_>>(), [1, 2]);
    machine.enable(pci::Command::MEMORY);
    assert_eq!(machine.order(command::SETUP_RINGS, setup.as_bytes()), command_status::FAILED);
}

#[test]
fn a_unit_comes_and_goes_around_a_reset() {
    let (mut machine, gate) = held();
    let ticket = machine.bus.detach(at(0)).unwrap();
    machine.device.reset();
    assert!(ticket.response().is_some());
    machine.bus.attach(at(0), unit(numbered())).unwrap();
    machine.start(Mode::Msix);
    machine.wait_ready(0);
    gate.open();
    machine.run();
    assert_eq!(machine.carry_out(&read10(1, 1, 1)).host_status.get(), 0);
}

#[test]
fn a_device_that_goes_leaves_its_bus() {
    let (machine, gate) = held();
    let Machine { device, memory, executor, interrupts, bus, .. } = machine;
    drop(device);
    let before = interrupts.messages.load(Ordering::SeqCst);
    gate.open();
    assert!(executor.run(100));
    assert!(executor.is_empty());
    assert_eq!(interrupts.messages.load(Ordering::SeqCst), before);
    let at = GuestAddress(STATE + state::COMPLETION_PRODUCER);
    let producer: u32 = memory.read_obj(at).unwrap();
    bus.attach(Address { target: 9, lun: 0 }, unit(numbered())).unwrap();
    // Its bus can have another device.
    let mut machine = Machine::off(bus);
    machine.start(Mode::Msix);
    machine.wait_ready(0);
    assert_ne!(producer, 0);
}
