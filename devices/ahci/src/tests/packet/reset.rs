//! Resets, while a command packet is in flight above all: once one is acknowledged, nothing lands in
//! guest memory any more (CVE-2023-5088 and its kin).

use paraslot_backends::block::testing::{Gate, GatedBackend};

use super::*;

/// A machine with a read of block 9 in flight that the gate holds back.
fn reading() -> (Machine, Gate) {
    let backend = GatedBackend::new(disc(0));
    let gate = backend.gate();
    let mut machine = machine(backend);
    machine.fill(data_at(0), &[0xee; 2048]);
    machine.send(&by_dma(), &read_10(9, 1), 2048);
    assert_eq!((gate.held(), machine.get(port::TFD)), (1, 0xd0));
    (machine, gate)
}

/// Nothing comes any more, whatever the backend does.
fn expect_silence(machine: &Machine, gate: &Gate) {
    let before = machine.all_memory();
    let interrupts = machine.interrupts.seen.lock().unwrap().len();
    gate.open();
    machine.run();
    assert!(machine.all_memory() == before);
    assert_eq!(machine.interrupts.seen.lock().unwrap().len(), interrupts);
    assert_eq!(machine.ahci.taken(0), 0);
}

fn expect_reading(machine: &mut Machine) {
    assert_eq!(machine.packet(&read_10(9, 1), 2048), [9; 2048]);
}

// A stop has the backend let go of what nobody waits for.
#[test]
fn a_stopped_port_need_not_wait_for_a_backend_that_can_cancel() {
    let (mut machine, gate) = reading();
    machine.command_off(PortCommand::ST);
    assert_eq!(machine.get(port::CI), 0);
    machine.run();
    assert_eq!((gate.held(), machine.has(PortCommand::CR)), (0, false));
    assert_eq!((machine.get(port::TFD), machine.causes()), (0x50, PortInterrupt::empty()));
    expect_silence(&machine, &gate);
    assert_eq!(machine.bytes(data_at(0), 2048), [0xee; 2048]);
    machine.command_on(PortCommand::ST);
    expect_reading(&mut machine);
}

#[test]
fn a_stopped_port_runs_until_a_backend_that_cannot_has_come_back() {
    let (mut machine, gate) = reading();
    gate.deafen(true);
    machine.command_off(PortCommand::ST);
    machine.run();
    assert!(machine.has(PortCommand::CR));
    // Started too early, it waits too.
    machine.command_on(PortCommand::ST);
    machine.prepare_packet(
        1,
        &by_dma(),
        &[opcode::INQUIRY, 0, 0, 0, 36],
        &[Prd::new(data_at(1), 36)],
    );
    machine.set(port::CI, 2);
    machine.run();
    assert_eq!((machine.get(port::CI), machine.prdbc(1)), (2, 0));
    gate.open();
    machine.run();
    assert_eq!((machine.get(port::CI), machine.prdbc(0), machine.prdbc(1)), (0, 0, 36));
}

#[test]
fn comreset_ends_what_is_in_flight() {
    for deaf in [false, true] {
        let (mut machine, gate) = reading();
        gate.deafen(deaf);
        machine.command_off(PortCommand::ST);
        machine.comreset(0x300);
        machine.run();
        if deaf {
            assert_eq!(machine.get(port::TFD), 0x80, "busy until it has come back");
            gate.open();
            machine.run();
        }
        assert_eq!((machine.get(port::TFD), machine.get(port::SIG)), (0x100, SIGNATURE_ATAPI));
        assert!(!machine.has(PortCommand::CR));
        assert_eq!(machine.prdbc(0), 0);
        expect_silence(&machine, &gate);
        machine.recover();
        // The unit says so.
        machine.expect_sense(&[opcode::TEST_UNIT_READY], 0, key::UNIT_ATTENTION, code::RESET);
        expect_reading(&mut machine);
    }
}

#[test]
fn an_hba_reset_ends_what_is_in_flight() {
    for deaf in [false, true] {
        let (mut machine, gate) = reading();
        gate.deafen(deaf);
        machine.write(host::GHC, (Ghc::AE | Ghc::HR).bits());
        machine.run();
        if deaf {
            assert_eq!(machine.read(host::GHC), (Ghc::AE | Ghc::HR).bits());
            gate.open();
            machine.run();
        }
        assert_eq!(machine.read(host::GHC), Ghc::AE.bits());
        expect_silence(&machine, &gate);
        machine.start();
        machine.expect_sense(&[opcode::TEST_UNIT_READY], 0, key::UNIT_ATTENTION, code::RESET);
        expect_reading(&mut machine);
    }
}

#[test]
fn a_function_reset_is_silent_whenever_the_backend_comes_back() {
    for deaf in [false, true] {
        let (mut machine, gate) = reading();
        gate.deafen(deaf);
        machine.ahci.reset();
        // A read that could not be stopped may still land; nothing else may.
        gate.open();
        machine.run();
        expect_silence(&machine, &gate);
        enable(&mut machine.ahci);
        machine.start();
        machine.expect_sense(&[opcode::TEST_UNIT_READY], 0, key::UNIT_ATTENTION, code::RESET);
        expect_reading(&mut machine);
    }
}

// Neither leaves an attention, and settings of the transfer go unless they are to be kept.
#[test]
fn soft_resets_are_the_ata_side_s() {
    let mut machine = machine(disc(0));
    for keep in [false, true] {
        for soft in [false, true] {
            machine.plain(command::SET_FEATURES, if keep { 0x66 } else { 0xcc }, 0);
            machine.expect_done();
            machine.plain(command::SET_FEATURES, 0x03, 0x42);
            machine.expect_done();
            if soft {
                machine.soft_reset_to(0x100, SIGNATURE_ATAPI);
            } else {
                machine.plain(command::DEVICE_RESET, 0, 0);
                assert_eq!((machine.get(port::CI), machine.get(port::TFD)), (0, 0x100));
            }
            assert_eq!(machine.causes(), PortInterrupt::empty());
            assert_eq!(machine.identify_packet()[88], if keep { 0x047f } else { 0x407f });
            machine.packet(&[opcode::TEST_UNIT_READY], 0);
        }
    }
}

// As libata does it after a timeout: stop, command list override, start, and a reset of the device.
#[test]
fn a_device_that_hangs_can_be_reset() {
    for soft in [false, true] {
        let (mut machine, gate) = reading();
        machine.command_off(PortCommand::ST);
        machine.run();
        assert!(!machine.has(PortCommand::CR));
        machine.command_on(PortCommand::CLO);
        machine.command_on(PortCommand::ST);
        if soft {
            machine.soft_reset_to(0x100, SIGNATURE_ATAPI);
        } else {
            machine.plain(command::DEVICE_RESET, 0, 0);
            assert_eq!((machine.get(port::CI), machine.get(port::TFD)), (0, 0x100));
        }
        expect_silence(&machine, &gate);
        assert_eq!(machine.bytes(data_at(0), 2048), [0xee; 2048]);
        expect_reading(&mut machine);
    }
}

// While SRST is held the device does not react.
#[test]
fn a_held_soft_reset_holds() {
    let mut machine = machine(disc(0));
    let fis = RegisterH2d { fis_type: 0x27, control: 0x04, ..Default::default() };
    machine.issue(0, &fis, &[]);
    machine.plain(command::DEVICE_RESET, 0, 0);
    assert_eq!((machine.get(port::CI), machine.get(port::TFD) & 0x80), (1, 0x80));
    machine.command_off(PortCommand::ST);
    machine.command_on(PortCommand::CLO);
    machine.command_on(PortCommand::ST);
    machine.soft_reset_to(0x100, SIGNATURE_ATAPI);
    machine.packet(&[opcode::TEST_UNIT_READY], 0);
}

#[test]
fn without_bus_mastering_nothing_is_told() {
    let (mut machine, gate) = reading();
    write_config(&mut machine.ahci, pci::header::COMMAND, pci::Command::MEMORY.bits());
    gate.open();
    machine.run();
    assert_eq!((machine.get(port::CI), machine.prdbc(0)), (1, 0));
    enable(&mut machine.ahci);
    machine.run();
    assert_eq!((machine.get(port::CI), machine.prdbc(0)), (0, 2048));
}

#[test]
fn a_pause_waits_for_the_packet_in_flight() {
    let (mut machine, gate) = reading();
    assert!(machine.ahci.pause().is_err());
    gate.release(1);
    machine.run();
    assert_eq!((machine.get(port::CI), machine.prdbc(0)), (0, 2048));
    machine.acknowledge();
    machine.send(&by_dma(), &read_10(9, 1), 2048);
    gate.open();
    machine.ahci.pause().unwrap();
    assert_eq!((machine.get(port::CI), machine.prdbc(0)), (0, 2048));
    machine.acknowledge();
    machine.ahci.resume().unwrap();
    expect_reading(&mut machine);
}

// Another port that shares the drive resets it: the packet here is over, and the host is told.
#[test]
fn another_s_reset_of_the_unit_ends_the_packet() {
    use paraslot_scsi::{Address, Bus, BusOptions, Function, Initiator};
    let backend = GatedBackend::new(disc(0));
    let gate = backend.gate();
    let unit = drive(Some(Arc::new(backend)));
    let mut machine = Machine::of(options(unit.clone()));
    enable(&mut machine.ahci);
    machine.start();
    machine.expect_sense(&[opcode::TEST_UNIT_READY], 0, key::UNIT_ATTENTION, code::RESET);
    let other = Bus::new(BusOptions {
        initiator: Initiator("other".into()),
        max_target: 0,
        max_lun: 0,
        autosense: true,
    });
    other.attach(Address::default(), unit).unwrap();
    for (in_flight, mastering) in [(true, true), (true, false), (false, true)] {
        if in_flight {
            machine.send(&by_dma(), &read_10(9, 1), 2048);
            assert_eq!(gate.held(), 1);
        }
        if !mastering {
            write_config(&mut machine.ahci, pci::header::COMMAND, pci::Command::MEMORY.bits());
        }
        let ticket = other.manage(Function::LogicalUnitReset(Address::default()), None);
        assert!(ticket.response().is_none(), "the lane here has a say");
        machine.run();
        if !mastering {
            // The worker can sleep until it can tell.
            assert_eq!((gate.held(), machine.get(port::CI)), (0, 1));
            assert!(ticket.response().is_none());
            enable(&mut machine.ahci);
            machine.run();
        }
        if in_flight {
            assert_eq!(machine.expect_check(), key::ABORTED_COMMAND);
        }
        machine.run();
        assert!(ticket.response().is_some());
        machine.send(&by_pio(0), &[opcode::TEST_UNIT_READY], 0);
        assert_eq!(machine.expect_check(), key::UNIT_ATTENTION);
        machine.packet(&[opcode::TEST_UNIT_READY], 0);
    }
}
