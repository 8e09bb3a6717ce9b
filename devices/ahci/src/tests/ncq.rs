use paraslot_backends::block::BlockOp;
use paraslot_backends::block::testing::{Event, FaultBackend, GatedBackend, RecordingBackend};
use paraslot_spec::ahci::fis::SetDeviceBits;
use paraslot_spec::ata::error;

use super::*;

/// Prepares reads of one sector each: slot `n` reads sector `n + 10`.
fn prepare_reads(machine: &Machine, slots: u32) {
    for slot in (0..32).filter(|slot| slots & 1 << slot != 0) {
        let fis = queued(command::READ_FPDMA_QUEUED, slot, u64::from(slot) + 10, 1);
        machine.prepare(slot, &fis, &[Prd::new(data_at(slot), 512)], 0);
    }
}

fn read_ncq_error(machine: &mut Machine) -> Vec<u8> {
    let mut fis = RegisterH2d::command(command::READ_LOG_EXT);
    fis.lba = [0x10, 0, 0];
    fis.count = 1.into();
    machine.issue_with(0, &fis, 512);
    machine.expect_done();
    let log = machine.bytes(data_at(0), 512);
    assert_eq!(log.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    log
}

// QEMU 5694c7eacc: the guest must not see the interrupt before PxCI and PxSACT are clear.
#[test]
fn completions_found_together_are_one_fis_and_one_interrupt() {
    let mut machine = Machine::with_msi(numbered());
    prepare_reads(&machine, u32::MAX);
    machine.issue_queued(u32::MAX);
    machine.run();
    assert_eq!((machine.get(port::SACT), machine.get(port::CI)), (0, 0));
    let fis: SetDeviceBits = machine.received(received::SET_DEVICE_BITS);
    assert_eq!((fis.fis_type, fis.flags, fis.status, fis.error), (0xa1, 0x40, 0x50, 0));
    assert_eq!(fis.s_active.get(), u32::MAX);
    let seen = Seen { is: 1, px_is: PortInterrupt::SDBS.bits(), ci: 0, sact: 0 };
    assert_eq!(*machine.interrupts.seen.lock().unwrap(), [seen]);
    assert_eq!(machine.interrupts.messages(), 1);
    for slot in 0..32 {
        assert_eq!(machine.bytes(data_at(slot), 8)[0], slot as u8 + 10);
    }
}

#[test]
fn commands_complete_in_any_order() {
    let backend = GatedBackend::new(numbered());
    let gate = backend.gate();
    let mut machine = Machine::with_msi(backend);
    prepare_reads(&machine, 0b111);
    machine.issue_queued(0b111);
    machine.run();
    // They are accepted, and outstanding.
    assert_eq!((machine.get(port::CI), machine.get(port::SACT)), (0, 0b111));
    assert_eq!(machine.get(port::TFD) & 0x88, 0);
    gate.release_at(1);
    machine.run();
    assert_eq!((machine.get(port::SACT), machine.interrupts.messages()), (0b101, 1));
    machine.acknowledge();
    gate.open();
    machine.run();
    assert_eq!((machine.get(port::SACT), machine.interrupts.messages()), (0, 2));
    // A slot can be used again.
    machine.acknowledge();
    prepare_reads(&machine, 0b10);
    machine.issue_queued(0b10);
    machine.run();
    assert_eq!((machine.get(port::SACT), machine.interrupts.messages()), (0, 3));
}

#[test]
fn writes_are_forced_if_they_ask_for_it() {
    let recording = RecordingBackend::new(numbered());
    let log = recording.log();
    let mut machine = Machine::new(recording);
    for (slot, fua) in [(1, false), (2, true)] {
        let mut fis = queued(command::WRITE_FPDMA_QUEUED, slot, u64::from(slot), 1);
        if fua {
            fis.device |= device::FUA;
        }
        machine.fill(data_at(slot), &[0xc0 + slot as u8; 512]);
        machine.prepare(slot, &fis, &[Prd::new(data_at(slot), 512)], 0);
    }
    machine.issue_queued(0b110);
    machine.run();
    assert_eq!(machine.get(port::SACT), 0);
    let ops: Vec<_> = log
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Submitted { op, offset, .. } => Some((op, offset)),
            _ => None,
        })
        .collect();
    let write = |fua| BlockOp::Write { fua };
    assert_eq!(ops, [(write(false), 512), (write(true), 1024)]);
}

/// Fails the read of sector 12, which is slot 2's.
fn failing() -> FaultBackend<impl BlockBackend> {
    FaultBackend::new(numbered(), |_, request| {
        let error = std::io::Error::from_raw_os_error(libc::EIO);
        (request.offset == 12 * 512 && request.op == BlockOp::Read).then(|| error.into())
    })
}

// AHCI 1.3.1, 6.2.2.2, and ACS-4, NCQ feature set: one fails, all outstanding ones with it.
#[test]
fn an_error_keeps_its_tag_and_the_pending_ones_and_is_told_by_the_log() {
    let backend = GatedBackend::new(failing());
    let gate = backend.gate();
    let mut machine = Machine::new(backend);
    prepare_reads(&machine, 0b1111);
    machine.issue_queued(0b1111);
    machine.run();
    // 0 and 2 end together, 1 and 3 stay outstanding.
    gate.release_at(2);
    gate.release_at(0);
    machine.run();
    assert_eq!(machine.get(port::SACT), 0b1110);
    assert_eq!(machine.get(port::TFD), u32::from(error::UNC) << 8 | 0x51);
    assert_eq!(machine.causes(), PortInterrupt::TFES | PortInterrupt::SDBS);
    let fis: SetDeviceBits = machine.received(received::SET_DEVICE_BITS);
    assert_eq!((fis.status & 1, fis.error, fis.s_active.get()), (1, error::UNC, 0));
    // What ends later ends unseen, and nothing new is taken.
    machine.acknowledge();
    gate.release(1);
    machine.set(port::CI, 1 << 7);
    machine.run();
    assert_eq!((machine.get(port::SACT), machine.get(port::CI)), (0b1110, 1 << 7));
    assert_eq!(machine.causes(), PortInterrupt::empty());
    // Recovery as in 6.2.2.2: clear ST, wait for CR, which waits for the last one in flight.
    machine.command_off(PortCommand::ST);
    assert_eq!((machine.get(port::SACT), machine.get(port::CI)), (0, 0));
    machine.run();
    assert!(machine.has(PortCommand::CR));
    gate.open();
    machine.run();
    assert!(!machine.has(PortCommand::CR));
    machine.command_on(PortCommand::ST);
    // Before the log is read, everything else is aborted.
    machine.issue_with(0, &sectors(command::READ_DMA_EXT, 0, 1), 512);
    machine.expect_error(error::ABRT);
    prepare_reads(&machine, 1);
    machine.issue_queued(1);
    machine.run();
    assert_eq!(machine.get(port::TFD) >> 8, u32::from(error::ABRT));
    machine.recover();
    let log = read_ncq_error(&mut machine);
    assert_eq!((log[0], log[2], log[3]), (2, 0x51, error::UNC));
    assert_eq!(log[4..7], [12, 0, 0]);
    prepare_reads(&machine, 0b11);
    machine.issue_queued(0b11);
    machine.run();
    assert_eq!((machine.get(port::SACT), machine.get(port::TFD)), (0, 0x50));
    // The log has nothing more to tell.
    machine.acknowledge();
    assert_eq!(read_ncq_error(&mut machine)[0], 0x80);
}

// CVE-2016-1568: an invalid queued command leaves no slot behind.
#[test]
fn an_invalid_command_leaves_its_slot_free() {
    let mut machine = Machine::new(numbered());
    let bad_tag = queued(command::READ_FPDMA_QUEUED, 6, 0, 1);
    let outside = queued(command::READ_FPDMA_QUEUED, 5, SECTORS, 1);
    for (fis, wanted) in [
        (bad_tag, error::ABRT),
        (outside, error::IDNF),
        (queued(command::NCQ_NON_DATA, 5, 0, 1), error::ABRT),
        (queued(command::SEND_FPDMA_QUEUED, 5, 0, 1), error::ABRT),
        (queued(command::RECEIVE_FPDMA_QUEUED, 5, 0, 1), error::ABRT),
    ] {
        machine.prepare(5, &fis, &[Prd::new(data_at(5), 512)], 0);
        machine.issue_queued(1 << 5);
        machine.run();
        assert_eq!(machine.get(port::SACT), 1 << 5);
        assert_eq!(machine.get(port::TFD) >> 8, u32::from(wanted));
        assert_eq!(machine.ahci.taken(0), 0);
        machine.recover();
        assert_eq!(read_ncq_error(&mut machine)[0], 5);
        // A reset of the port with nothing in flight is immediate.
        prepare_reads(&machine, 1 << 5);
        machine.issue_queued(1 << 5);
        machine.run();
        assert_eq!(machine.get(port::SACT), 0);
        machine.acknowledge();
    }
}

// QEMU 3bcbe4aa80: a queued command whose PRD table is too short.
#[test]
fn a_short_prd_table_overflows() {
    let mut machine = Machine::new(numbered());
    let fis = queued(command::READ_FPDMA_QUEUED, 0, 0, 2);
    machine.prepare(0, &fis, &[Prd::new(data_at(0), 1022)], 0);
    machine.issue_queued(1);
    machine.run();
    let causes = PortInterrupt::OFS | PortInterrupt::TFES | PortInterrupt::SDBS;
    assert_eq!(machine.causes(), causes);
    assert_eq!((machine.get(port::SACT), machine.bytes(data_at(0), 8)), (1, vec![0; 8]));
    machine.recover();
    assert_eq!(read_ncq_error(&mut machine)[0], 0);
}

#[test]
fn another_command_among_queued_ones_ends_them_all() {
    let backend = GatedBackend::new(numbered());
    let gate = backend.gate();
    let mut machine = Machine::new(backend);
    prepare_reads(&machine, 0b1);
    machine.issue_queued(0b1);
    machine.run();
    let fis = sectors(command::READ_DMA_EXT, 0, 1);
    machine.prepare(1, &fis, &[Prd::new(data_at(1), 512)], 0);
    machine.set(port::CI, 0b10);
    machine.run();
    assert_eq!(machine.get(port::TFD) >> 8, u32::from(error::ABRT));
    assert_eq!((machine.get(port::SACT), machine.get(port::CI)), (1, 0b10));
    gate.open();
    machine.run();
    assert_eq!(machine.get(port::SACT), 1);
    machine.recover();
    assert_eq!(read_ncq_error(&mut machine)[0], 0x80);
}

#[test]
fn many_prd_entries_in_flight_hold_new_commands_back() {
    let backend = GatedBackend::new(numbered());
    let gate = backend.gate();
    let mut machine = Machine::new(backend);
    // 40 sectors in pieces of 8 bytes: 2560 entries a command, so the fourth reaches 8192.
    let prds: Vec<_> = (0..2560).map(|index| Prd::new(data_at(0) + index * 8, 8)).collect();
    for slot in 0..8 {
        let fis = queued(command::READ_FPDMA_QUEUED, slot, u64::from(slot), 40);
        machine.prepare(slot, &fis, &prds, 0);
    }
    machine.issue_queued(0xff);
    machine.run();
    assert_eq!((gate.held(), machine.get(port::CI)), (4, 0xf0));
    gate.release(1);
    machine.run();
    assert_eq!((gate.held(), machine.get(port::CI)), (4, 0xe0));
    gate.open();
    machine.run();
    assert_eq!((machine.get(port::CI), machine.get(port::SACT)), (0, 0));
}
