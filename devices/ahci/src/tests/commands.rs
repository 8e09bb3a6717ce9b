use paraslot_backends::block::BlockOp;
use paraslot_backends::block::testing::{Event, FaultBackend, RecordingBackend};
use paraslot_spec::ahci::fis::PioSetup;
use paraslot_spec::ata::{error, power_mode};

use super::*;

fn sector_numbers(data: &[u8]) -> Vec<u64> {
    data.chunks(512).map(|sector| u64::from_le_bytes(sector[..8].try_into().unwrap())).collect()
}

#[test]
fn every_read_command_reads() {
    let pio = [
        command::READ_SECTORS,
        command::READ_SECTORS_EXT,
        command::READ_MULTIPLE,
        command::READ_MULTIPLE_EXT,
    ];
    for code in pio.into_iter().chain([command::READ_DMA, command::READ_DMA_EXT]) {
        let mut machine = Machine::new(numbered());
        let mut multiple = RegisterH2d::command(command::SET_MULTIPLE_MODE);
        multiple.count = 4.into();
        machine.issue_with(0, &multiple, 0);
        machine.expect_done();
        machine.issue_with(0, &sectors(code, 100, 5), 5 * 512);
        assert_eq!(sector_numbers(&machine.bytes(data_at(0), 5 * 512)), [100, 101, 102, 103, 104]);
        assert_eq!(machine.prdbc(0), 5 * 512);
        if pio.contains(&code) {
            // No D2H FIS: the PIO setup FIS's ending status is the last word (SATA 3.3, 11.9).
            assert_eq!(machine.causes(), PortInterrupt::PSS);
            let fis: PioSetup = machine.received(received::PIO_SETUP);
            assert_eq!((fis.fis_type, fis.flags), (0x5f, 0x60));
            assert_eq!((fis.status, fis.e_status), (0x58, 0x50));
            assert_eq!(fis.transfer_count.get(), 512);
        } else {
            assert_eq!(machine.causes(), PortInterrupt::DHRS);
            assert_eq!((machine.d2h().status, machine.d2h().flags), (0x50, 0x40));
        }
        machine.expect_done();
    }
}

#[test]
fn every_write_command_writes() {
    for (code, fua) in [
        (command::WRITE_DMA, false),
        (command::WRITE_DMA_EXT, false),
        (command::WRITE_DMA_FUA_EXT, true),
        (command::WRITE_SECTORS, false),
        (command::WRITE_SECTORS_EXT, false),
        (command::WRITE_MULTIPLE, false),
        (command::WRITE_MULTIPLE_EXT, false),
        (command::WRITE_MULTIPLE_FUA_EXT, true),
    ] {
        let image = numbered();
        let recording = RecordingBackend::new(image.clone());
        let log = recording.log();
        let mut machine = Machine::new(recording);
        let mut multiple = RegisterH2d::command(command::SET_MULTIPLE_MODE);
        multiple.count = 2.into();
        machine.issue_with(0, &multiple, 0);
        machine.expect_done();
        machine.fill(data_at(0), &[0xab; 1536]);
        machine.issue_with(0, &sectors(code, 7, 3), 1536);
        assert_eq!(machine.causes(), PortInterrupt::DHRS, "{code:#x}");
        machine.expect_done();
        assert_eq!(machine.prdbc(0), 1536);
        let mut data = [0; 2048];
        image.read_at(7 * 512, &mut data).unwrap();
        assert!(data[..1536].iter().all(|byte| *byte == 0xab) && data[1536] == 10);
        assert!(log.events().iter().any(|event| matches!(
            event,
            Event::Submitted { op: BlockOp::Write { fua: forced }, .. } if *forced == fua
        )));
    }
}

#[test]
fn counts_of_zero_mean_the_most() {
    let mut machine = Machine::new(numbered());
    machine.issue(0, &sectors(command::READ_DMA, 1, 0), &[Prd::new(data_at(0), 256 * 512)]);
    assert_eq!(machine.prdbc(0), 256 * 512);
    machine.expect_done();
    // 65536 sectors are more than the image has.
    machine.issue(0, &sectors(command::READ_DMA_EXT, 0, 0), &[Prd::new(data_at(0), 4 << 20)]);
    machine.expect_error(error::IDNF);
}

// CH f7ebb4b87 and its kin: sector range arithmetic.
#[test]
fn addresses_outside_the_medium_are_not_found() {
    let mut machine = Machine::new(numbered());
    for (code, lba, count) in [
        (command::READ_DMA_EXT, SECTORS, 1),
        (command::READ_DMA_EXT, SECTORS - 1, 2),
        (command::READ_DMA_EXT, (1 << 48) - 1, 0xffff),
        (command::WRITE_DMA_EXT, (1 << 48) - 1, 1),
        (command::READ_DMA, 0x00ff_ffff, 1),
        (command::READ_SECTORS_EXT, SECTORS, 1),
        (command::READ_VERIFY_SECTORS_EXT, SECTORS - 7, 8),
        (command::READ_VERIFY_SECTORS, SECTORS - 7, 8),
    ] {
        machine.issue_with(0, &sectors(code, lba, count), 0x1_0000);
        let fis = machine.d2h();
        let [a, b, c] = fis.lba;
        assert_eq!(
            u64::from_le_bytes([a, b, c, fis.lba_exp[0], 0, 0, 0, 0]) & 0xff_ffff,
            lba.max(SECTORS) & 0xff_ffff
        );
        machine.expect_error(error::IDNF);
    }
    let mut chs = sectors(command::READ_DMA_EXT, 0, 1);
    chs.device = 0;
    machine.issue_with(0, &chs, 512);
    machine.expect_error(error::ABRT);
    machine.issue_with(0, &sectors(command::READ_DMA_EXT, SECTORS - 1, 1), 512);
    machine.expect_done();
    machine.issue_with(0, &sectors(command::READ_VERIFY_SECTORS_EXT, SECTORS - 8, 8), 0);
    machine.expect_done();
}

// CVE-2015-6855: a command that the device does not have is refused, whatever it is.
#[test]
fn unknown_commands_are_aborted() {
    let mut machine = Machine::new(numbered());
    for code in [
        command::NOP,
        command::PACKET,
        command::IDENTIFY_PACKET_DEVICE,
        command::DEVICE_RESET,
        command::READ_NATIVE_MAX_ADDRESS,
        command::READ_NATIVE_MAX_ADDRESS_EXT,
        command::SECURITY_FREEZE_LOCK,
        command::WRITE_LOG_EXT,
        // READ MULTIPLE is not possible before SET MULTIPLE MODE.
        command::READ_MULTIPLE,
        command::WRITE_MULTIPLE_FUA_EXT,
        0xff,
    ] {
        machine.issue_with(0, &sectors(code, 0, 1), 512);
        machine.expect_error(error::ABRT);
        assert_eq!(machine.prdbc(0), 0);
    }
}

#[test]
fn a_read_only_disk_aborts_what_changes_it() {
    let options = MemoryOptions { read_only: true, ..Default::default() };
    let recording = RecordingBackend::new(memory_backend(options));
    let log = recording.log();
    let mut machine = Machine::new(recording);
    let mut trim = sectors(command::DATA_SET_MANAGEMENT, 0, 1);
    trim.features = 1;
    for fis in [
        sectors(command::WRITE_DMA_EXT, 0, 1),
        sectors(command::WRITE_SECTORS, 0, 1),
        sectors(command::WRITE_DMA_FUA_EXT, 0, 1),
        trim,
    ] {
        machine.issue_with(0, &fis, 512);
        machine.expect_error(error::ABRT);
    }
    // The backend was not even asked.
    assert!(log.is_empty());
    machine.issue_with(0, &sectors(command::READ_DMA_EXT, 0, 1), 512);
    machine.expect_done();
}

#[test]
fn backend_errors_become_device_errors() {
    for (code, errno, error) in [
        (command::READ_DMA_EXT, libc::EIO, error::UNC),
        (command::READ_SECTORS, libc::EIO, error::UNC),
        (command::WRITE_DMA_EXT, libc::EIO, error::ABRT),
        (command::WRITE_DMA, libc::ENOSPC, error::ABRT),
        (command::FLUSH_CACHE_EXT, libc::EIO, error::ABRT),
    ] {
        let mut machine = Machine::new(FaultBackend::nth(numbered(), 0, errno));
        machine.issue_with(0, &sectors(code, 5, 1), 512);
        machine.expect_error(error);
        assert_eq!(machine.prdbc(0), 0);
        machine.issue_with(0, &sectors(command::READ_DMA_EXT, 5, 1), 512);
        machine.expect_done();
    }
}

#[test]
fn power_modes_follow_the_commands() {
    let mut machine = Machine::new(numbered());
    let mode = |machine: &mut Machine| {
        machine.issue_with(0, &RegisterH2d::command(command::CHECK_POWER_MODE), 0);
        let count = machine.d2h().count.get();
        machine.expect_done();
        count as u8
    };
    let issue = |machine: &mut Machine, code| {
        machine.issue_with(0, &RegisterH2d::command(code), 0);
        machine.expect_done();
    };
    assert_eq!(mode(&mut machine), power_mode::ACTIVE);
    issue(&mut machine, command::IDLE_IMMEDIATE);
    assert_eq!(mode(&mut machine), power_mode::IDLE);
    issue(&mut machine, command::STANDBY_IMMEDIATE);
    assert_eq!(mode(&mut machine), power_mode::STANDBY);
    machine.issue_with(0, &sectors(command::READ_DMA, 0, 1), 512);
    machine.expect_done();
    assert_eq!(mode(&mut machine), power_mode::ACTIVE);
    issue(&mut machine, command::SLEEP);
    // Only a reset wakes it.
    machine.issue_with(0, &RegisterH2d::command(command::CHECK_POWER_MODE), 0);
    machine.expect_error(error::ABRT);
    machine.soft_reset();
    assert_eq!(mode(&mut machine), power_mode::ACTIVE);
}

#[test]
fn a_diagnostic_returns_the_signature() {
    let mut machine = Machine::new(numbered());
    machine.issue_with(0, &RegisterH2d::command(command::EXECUTE_DEVICE_DIAGNOSTIC), 0);
    let fis = machine.d2h();
    assert_eq!((fis.error, fis.count.get(), fis.lba), (1, 1, [1, 0, 0]));
    assert_eq!((machine.get(port::TFD), machine.causes()), (0x150, PortInterrupt::DHRS));
}

#[test]
fn commands_of_several_slots_are_processed_one_by_one() {
    let mut machine = Machine::new(numbered());
    for slot in [3, 9, 31] {
        let fis = sectors(command::READ_DMA_EXT, u64::from(slot), 1);
        machine.prepare(slot, &fis, &[Prd::new(data_at(slot), 512)], 0);
    }
    machine.set(port::CI, 1 << 3 | 1 << 9 | 1 << 31);
    machine.run();
    assert_eq!(machine.get(port::CI), 0);
    for slot in [3, 9, 31] {
        assert_eq!(sector_numbers(&machine.bytes(data_at(slot), 512)), [u64::from(slot)]);
        assert_eq!(machine.prdbc(slot), 512);
    }
}

#[test]
fn an_error_stops_the_list_before_the_next_command() {
    let mut machine = Machine::new(numbered());
    machine.prepare(2, &RegisterH2d::command(0xff), &[], 0);
    let fis = sectors(command::READ_DMA_EXT, 4, 1);
    machine.prepare(4, &fis, &[Prd::new(data_at(4), 512)], 0);
    machine.set(port::CI, 1 << 2 | 1 << 4);
    machine.run();
    assert_eq!(machine.get(port::CI), 1 << 2 | 1 << 4);
    assert_eq!((machine.get(port::CMD) & PortCommand::CCS) >> PortCommand::CCS_SHIFT, 2);
    assert_eq!((machine.prdbc(4), machine.bytes(data_at(4), 2)), (0, vec![0; 2]));
    machine.recover();
    machine.set(port::CI, 1 << 4);
    machine.run();
    assert_eq!((machine.get(port::CI), machine.prdbc(4)), (0, 512));
}

#[test]
fn disks_of_4096_byte_sectors_count_in_them() {
    let image = memory_backend(MemoryOptions { logical_block: 4096, ..Default::default() });
    image.write_at(3 * 4096, &[7; 4096]).unwrap();
    let mut machine = Machine::new(image);
    let words = machine.identify();
    assert_eq!((words[106], words[117], words[118]), (0x5000, 2048, 0));
    assert_eq!(words[60], 1024);
    machine.issue_with(0, &sectors(command::READ_DMA_EXT, 3, 2), 8192);
    let data = machine.bytes(data_at(0), 8192);
    assert!(data[..4096] == [7; 4096] && data[4096..] == [0; 4096]);
    assert_eq!(machine.prdbc(0), 8192);
}
