use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_device::DeviceError;
use paraslot_spec::ahci::fis::CONTROL_SRST;
use paraslot_spec::ahci::{SIGNATURE_ATA, SIGNATURE_NONE, sctl};
use paraslot_spec::ata::error;

use super::*;

impl Machine {
    /// Software reset as libata does it (10.4.1).
    pub(super) fn soft_reset(&mut self) {
        self.soft_reset_to(0x150, SIGNATURE_ATA);
    }

    /// Software reset of a device that has this task file and signature then.
    pub(super) fn soft_reset_to(&mut self, task_file: u32, signature: u32) {
        let mut fis = RegisterH2d { fis_type: 0x27, control: CONTROL_SRST, ..Default::default() };
        self.prepare(0, &fis, &[], header::RESET | header::CLEAR_BUSY);
        self.set(port::CI, 1);
        self.run();
        assert_eq!(self.get(port::CI), 0);
        fis.control = 0;
        self.prepare(0, &fis, &[], 0);
        self.set(port::CI, 1);
        self.run();
        assert_eq!((self.get(port::CI), self.get(port::TFD)), (0, task_file));
        assert_eq!(self.get(port::SIG), signature);
    }

    pub(super) fn comreset(&mut self, control: u32) {
        self.set(port::SCTL, control | sctl::DET_COMRESET);
        assert_eq!(self.get(port::SSTS) & 0xf, 0);
        self.run();
        self.set(port::SCTL, control);
    }

    /// Issues a write of one sector of 0xab to sector 50 that the gate holds back.
    fn held_write(&mut self, gate: &Gate) {
        self.fill(data_at(0), &[0xab; 512]);
        self.prepare(0, &sectors(command::WRITE_DMA_EXT, 50, 1), &[Prd::new(data_at(0), 512)], 0);
        self.set(port::CI, 1);
        self.run();
        assert_eq!(gate.held(), 1);
    }

    /// Issues a read that the gate holds back.
    fn held_read(&mut self, gate: &Gate) {
        self.prepare(0, &sectors(command::READ_DMA_EXT, 50, 1), &[Prd::new(data_at(0), 512)], 0);
        self.set(port::CI, 1);
        self.run();
        assert_eq!(gate.held(), 1);
    }

    pub(super) fn all_memory(&self) -> Vec<u8> {
        self.bytes(0, MEMORY)
    }
}

fn gated() -> (GatedBackend<MemoryBackend>, Gate) {
    let backend = GatedBackend::new(numbered());
    let gate = backend.gate();
    (backend, gate)
}

#[test]
fn a_command_that_is_not_queued_keeps_the_device_busy() {
    let (backend, gate) = gated();
    let mut machine = Machine::new(backend);
    machine.held_read(&gate);
    assert_eq!((machine.get(port::TFD), machine.get(port::CI)), (0xd0, 1));
    // Another one waits for it.
    machine.prepare(1, &sectors(command::READ_DMA_EXT, 1, 1), &[Prd::new(data_at(1), 512)], 0);
    machine.set(port::CI, 2);
    machine.run();
    assert_eq!(gate.held(), 1);
    gate.release(1);
    machine.run();
    assert_eq!((gate.held(), machine.get(port::CI)), (1, 2));
    gate.open();
    machine.run();
    assert_eq!((machine.get(port::TFD), machine.get(port::CI)), (0x50, 0));
}

// Double fetches (FreeBSD-SA-24:17 and its kin): once a command was taken, what the guest writes
// over it changes nothing.
#[test]
fn a_command_that_was_taken_cannot_be_changed() {
    let (backend, gate) = gated();
    let mut machine = Machine::new(backend);
    machine.held_read(&gate);
    machine.fill(LIST, &[0xff; 32]);
    machine.fill(table_at(0), &[0xff; 256]);
    machine.set(port::CLB, 0xffff_fc00);
    gate.open();
    machine.run();
    assert_eq!((machine.get(port::CI), machine.causes()), (0, PortInterrupt::DHRS));
    assert_eq!((machine.prdbc(0), machine.bytes(data_at(0), 1)), (512, vec![50]));
    assert_eq!(machine.d2h().lba, [50, 0, 0]);
}

#[test]
fn a_stopped_port_runs_until_what_is_in_flight_has_come_back() {
    let (backend, gate) = gated();
    let mut machine = Machine::new(backend);
    machine.held_read(&gate);
    machine.command_off(PortCommand::ST);
    assert_eq!(machine.get(port::CI), 0);
    machine.run();
    assert!(machine.has(PortCommand::CR));
    // Started too early, it waits too.
    machine.command_on(PortCommand::ST);
    machine.set(port::CI, 2);
    machine.prepare(1, &sectors(command::READ_DMA_EXT, 60, 1), &[Prd::new(data_at(1), 512)], 0);
    machine.run();
    assert_eq!(gate.held(), 1);
    gate.open();
    machine.run();
    assert_eq!((machine.prdbc(0), machine.prdbc(1)), (0, 512));
    assert_eq!(machine.causes(), PortInterrupt::DHRS);
    machine.acknowledge();
    machine.command_off(PortCommand::ST);
    assert!(!machine.has(PortCommand::CR));
}

// CVE-2016-1568: a slot is not used again while its old command is in flight.
#[test]
fn a_port_that_is_started_too_early_waits_for_queued_commands() {
    let (backend, gate) = gated();
    let mut machine = Machine::new(backend);
    let prepare = |machine: &Machine, slot| {
        let fis = queued(command::READ_FPDMA_QUEUED, slot, 9, 1);
        machine.prepare(slot, &fis, &[Prd::new(data_at(slot), 512)], 0);
    };
    prepare(&machine, 0);
    machine.issue_queued(1);
    machine.run();
    machine.command_off(PortCommand::ST);
    machine.command_on(PortCommand::ST);
    prepare(&machine, 1);
    machine.issue_queued(0b11);
    machine.run();
    assert_eq!((gate.held(), machine.get(port::CI)), (1, 0b11));
    gate.release(1);
    machine.run();
    assert_eq!((gate.held(), machine.get(port::SACT)), (2, 0b11));
    gate.open();
    machine.run();
    assert_eq!((machine.get(port::CI), machine.get(port::SACT)), (0, 0));
}

#[test]
fn of_two_commands_issued_at_once_the_second_waits() {
    let (backend, gate) = gated();
    let mut machine = Machine::new(backend);
    for slot in [0, 1] {
        let fis = sectors(command::READ_DMA_EXT, 5, 1);
        machine.prepare(slot, &fis, &[Prd::new(data_at(slot), 512)], 0);
    }
    machine.set(port::CI, 0b11);
    machine.run();
    assert_eq!((gate.held(), machine.get(port::CI)), (1, 0b11));
    gate.release(1);
    machine.run();
    assert_eq!((gate.held(), machine.get(port::CI)), (1, 0b10));
}

// CVE-2023-5088, QEMU 87ac25fd1f: a reset first waits for what is in flight.
#[test]
fn comreset_keeps_the_device_busy_until_nothing_is_in_flight() {
    let (backend, gate) = gated();
    let mut machine = Machine::new(backend);
    machine.held_read(&gate);
    machine.command_off(PortCommand::ST);
    machine.fill(FIS, &[0; 256]);
    machine.comreset(0x300);
    assert_eq!((machine.get(port::SSTS), machine.get(port::TFD)), (0x133, 0x80));
    assert_eq!(machine.get(port::SIG), SIGNATURE_NONE);
    machine.run();
    assert_eq!((machine.get(port::TFD), machine.d2h().fis_type), (0x80, 0));
    gate.open();
    machine.run();
    assert_eq!((machine.get(port::TFD), machine.get(port::SIG)), (0x150, SIGNATURE_ATA));
    let fis = machine.d2h();
    assert_eq!((fis.fis_type, fis.error), (0x34, 1));
    assert!(!machine.has(PortCommand::CR));
    // Neither the old command's FIS nor its interrupt came.
    let link = PortInterrupt::PCS | PortInterrupt::PRCS;
    assert_eq!((machine.causes(), machine.prdbc(0)), (link, 0));
}

#[test]
fn comreset_negotiates_the_speed_that_is_allowed() {
    let mut machine = Machine::new(numbered());
    for (limit, status) in [(0x10, 0x113), (0x20, 0x123), (0x30, 0x133), (0xf0, 0x133), (0, 0x133)]
    {
        machine.comreset(0x300 | limit);
        machine.run();
        assert_eq!((machine.get(port::SSTS), machine.get(port::SCTL)), (status, 0x300 | limit));
    }
    machine.set(port::SCTL, sctl::DET_OFFLINE);
    assert_eq!((machine.get(port::SSTS), machine.get(port::TFD)), (4, 0x7f));
    machine.set(port::SCTL, 0);
    machine.run();
    assert_eq!((machine.get(port::SSTS), machine.get(port::TFD)), (0x133, 0x150));
    // A port without a device has no link.
    let empty = port_base(3);
    machine.write(empty + port::SCTL, 1);
    machine.write(empty + port::SCTL, 0);
    machine.run();
    assert_eq!(machine.read(empty + port::SSTS), 0);
}

#[test]
fn an_hba_reset_is_over_when_nothing_is_in_flight() {
    let (backend, gate) = gated();
    let mut machine = Machine::new(backend);
    machine.held_read(&gate);
    machine.write(host::GHC, (Ghc::AE | Ghc::HR).bits());
    machine.run();
    assert_eq!(machine.read(host::GHC), (Ghc::AE | Ghc::HR).bits());
    assert_eq!((machine.get(port::CMD), machine.get(port::IE)), (0x4_0006, 0));
    // What the guest does meanwhile waits, or changes nothing.
    machine.write(host::GHC, (Ghc::AE | Ghc::HR | Ghc::IE).bits());
    machine.command_on(PortCommand::FRE);
    machine.run();
    assert_ne!(machine.get(port::TFD), 0x150);
    let before = machine.all_memory();
    gate.open();
    machine.run();
    assert_eq!(machine.read(host::GHC), Ghc::AE.bits());
    // The read's data and the new signature were all that was written; from now on it is quiet.
    let mut after = machine.all_memory();
    let data = data_at(0) as usize..data_at(0) as usize + 512;
    assert_ne!(after[data.clone()], before[data.clone()]);
    after[data.clone()].copy_from_slice(&before[data]);
    let fis = (FIS + received::REGISTER) as usize..(FIS + received::REGISTER) as usize + 20;
    after[fis.clone()].copy_from_slice(&before[fis]);
    assert!(after == before);
    // The list addresses survive (10.4.3).
    assert_eq!((machine.get(port::CLB), machine.get(port::FB)), (LIST as u32, FIS as u32));
    assert_eq!((machine.get(port::TFD), machine.get(port::SSTS)), (0x150, 0x133));
}

#[test]
fn an_hba_reset_with_nothing_in_flight_is_over_soon() {
    let mut machine = Machine::new(numbered());
    machine.issue_with(0, &RegisterH2d::command(command::IDENTIFY_DEVICE), 512);
    assert!(machine.interrupts.level());
    machine.write(host::GHC, Ghc::HR.bits());
    assert!(!machine.interrupts.level());
    machine.run();
    assert_eq!((machine.read(host::GHC), machine.read(host::IS)), (Ghc::AE.bits(), 0));
    machine.start();
    machine.issue_with(0, &RegisterH2d::command(command::IDENTIFY_DEVICE), 512);
    machine.expect_done();
}

// CVE-2023-5088: "reset means quiet", for the whole function.
#[test]
fn a_function_reset_is_silent_whenever_the_backend_comes_back() {
    for release_first in [true, false] {
        let (backend, gate) = gated();
        let mut machine = Machine::new(backend);
        machine.held_write(&gate);
        if release_first {
            gate.open();
        }
        machine.ahci.reset();
        assert_eq!((machine.get(port::CLB), machine.get(port::CMD)), (0, 0x4_0006));
        let seen = machine.interrupts.seen.lock().unwrap().len();
        let before = machine.all_memory();
        gate.open();
        machine.run();
        assert!(machine.all_memory() == before);
        assert_eq!(machine.interrupts.seen.lock().unwrap().len(), seen);
        assert!(!machine.interrupts.level());
        assert_eq!(machine.ahci.taken(0), 0);
        // And works again.
        enable(&mut machine.ahci);
        machine.start();
        machine.issue_with(0, &sectors(command::READ_DMA_EXT, 50, 1), 512);
        machine.expect_done();
        assert_eq!(machine.bytes(data_at(0), 512), [0xab; 512]);
    }
}

#[test]
fn soft_reset_is_two_fises() {
    let mut machine = Machine::new(numbered());
    machine.soft_reset();
    assert_eq!(machine.causes(), PortInterrupt::empty());
    // While SRST is held the device does not react to commands.
    let fis = RegisterH2d { fis_type: 0x27, control: CONTROL_SRST, ..Default::default() };
    machine.issue(0, &fis, &[]);
    machine.issue_with(1, &sectors(command::READ_DMA_EXT, 0, 1), 512);
    assert_eq!((machine.get(port::CI), machine.get(port::TFD) & 0x80), (2, 0x80));
    // Command list override gets the host out of that (3.3.7).
    machine.command_off(PortCommand::ST);
    assert!(!machine.has(PortCommand::CR));
    machine.command_on(PortCommand::CLO);
    assert!(!machine.has(PortCommand::CLO));
    assert_eq!(machine.get(port::TFD) & 0x88, 0);
    machine.command_on(PortCommand::ST);
    machine.soft_reset();
    // A change of device control without SRST is taken without a word.
    let fis = RegisterH2d { fis_type: 0x27, control: 0x02, ..Default::default() };
    machine.issue(0, &fis, &[]);
    assert_eq!((machine.get(port::CI), machine.causes()), (0, PortInterrupt::empty()));
}

#[test]
fn without_bus_mastering_there_is_no_dma() {
    let (backend, gate) = gated();
    let mut machine = Machine::new(backend);
    machine.held_read(&gate);
    write_config(&mut machine.ahci, pci::header::COMMAND, pci::Command::MEMORY.bits());
    gate.open();
    let before = machine.all_memory();
    machine.run();
    // The backend had the buffer already; what the HBA itself would write has to wait.
    assert_eq!((machine.get(port::CI), machine.prdbc(0)), (1, 0));
    let fis = FIS as usize..FIS as usize + 256;
    assert_eq!(machine.all_memory()[fis.clone()], before[fis]);
    machine.prepare(1, &sectors(command::READ_DMA_EXT, 1, 1), &[Prd::new(data_at(1), 512)], 0);
    machine.set(port::CI, 2);
    machine.run();
    assert_eq!(machine.get(port::CI), 3);
    enable(&mut machine.ahci);
    machine.run();
    assert_eq!((machine.get(port::CI), machine.prdbc(0), machine.prdbc(1)), (0, 512, 512));
}

#[test]
fn a_stop_without_bus_mastering_still_ends() {
    let mut machine = Machine::new(numbered());
    let (backend, gate) = gated();
    let mut held = Machine::new(backend);
    held.held_read(&gate);
    write_config(&mut held.ahci, pci::header::COMMAND, pci::Command::MEMORY.bits());
    gate.open();
    held.run();
    held.command_off(PortCommand::ST);
    held.run();
    assert!(!held.has(PortCommand::CR));
    // So does an HBA reset, though the signature cannot be sent.
    write_config(&mut machine.ahci, pci::header::COMMAND, pci::Command::MEMORY.bits());
    machine.write(host::GHC, Ghc::HR.bits());
    machine.command_on(PortCommand::FRE);
    machine.run();
    assert_eq!((machine.read(host::GHC), machine.get(port::TFD)), (Ghc::AE.bits(), 0x7f));
    enable(&mut machine.ahci);
    machine.set(port::FB, FIS as u32);
    machine.run();
    assert_eq!(machine.get(port::TFD), 0x150);
}

// CH 50f2fd369: a pause waits for what is in flight. crosvm 078ef31b7 and its kin: what was issued
// meanwhile is not lost.
#[test]
fn pause_drains_and_resume_sees_what_was_issued_meanwhile() {
    let (backend, gate) = gated();
    let mut machine = Machine::with_msi(backend);
    machine.held_read(&gate);
    assert!(matches!(machine.ahci.pause(), Err(DeviceError::Busy(_))));
    // It goes on as before.
    gate.release(1);
    machine.run();
    assert_eq!((machine.get(port::CI), machine.interrupts.messages()), (0, 1));
    machine.acknowledge();
    machine.held_read(&gate);
    gate.open();
    machine.ahci.pause().unwrap();
    assert_eq!((machine.get(port::CI), machine.interrupts.messages()), (0, 2));
    machine.acknowledge();
    machine.prepare(1, &sectors(command::READ_DMA_EXT, 1, 1), &[Prd::new(data_at(1), 512)], 0);
    machine.set(port::CI, 2);
    let before = machine.all_memory();
    machine.run();
    assert!(machine.all_memory() == before);
    machine.ahci.resume().unwrap();
    machine.run();
    assert_eq!((machine.get(port::CI), machine.interrupts.messages()), (0, 3));
}

#[test]
fn a_reset_while_paused_takes_effect() {
    let mut machine = Machine::new(numbered());
    machine.ahci.pause().unwrap();
    machine.ahci.reset();
    machine.ahci.resume().unwrap();
    enable(&mut machine.ahci);
    machine.start();
    machine.issue_with(0, &sectors(command::READ_DMA_EXT, SECTORS, 1), 512);
    machine.expect_error(error::IDNF);
}
