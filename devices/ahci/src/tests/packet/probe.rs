//! What drivers do first, and what they see of a disc that comes and goes.

use super::*;

/// A driver that has found the port's device as libata does: COMRESET, its signature, IDENTIFY PACKET
/// DEVICE, SET FEATURES, and the activity LED's bit.
fn libata(unit: Arc<LogicalUnit>) -> Machine {
    let mut machine = Machine::of(options(unit));
    enable(&mut machine.ahci);
    machine.write(host::GHC, (Ghc::AE | Ghc::HR).bits());
    machine.run();
    assert_eq!(machine.read(host::GHC), Ghc::AE.bits());
    machine.start();
    machine.command_off(PortCommand::ST);
    machine.comreset(0x300);
    machine.run();
    assert_eq!((machine.get(port::SSTS), machine.get(port::TFD)), (0x133, 0x100));
    assert_eq!(machine.get(port::SIG), SIGNATURE_ATAPI);
    let fis = machine.d2h();
    assert_eq!((fis.lba, fis.count.get(), fis.error), ([0x01, 0x14, 0xeb], 1, 1));
    machine.set(port::SERR, u32::MAX);
    machine.acknowledge();
    machine.command_on(PortCommand::ST);
    machine.soft_reset_to(0x100, SIGNATURE_ATAPI);
    machine.command_on(PortCommand::ATAPI);
    assert_eq!(machine.identify_packet()[0] & 0xdf00, 0x8500);
    machine.plain(command::SET_FEATURES, 0x03, 0x45);
    machine.expect_done();
    assert_eq!(machine.identify_packet()[88], 0x207f);
    machine
}

#[test]
fn linux_finds_the_drive_and_its_disc() {
    let mut machine = libata(drive(Some(Arc::new(disc(0x40)))));
    // libata clears the attention that a reset leaves; the SCSI layer asks who it is.
    let ready = [opcode::TEST_UNIT_READY];
    machine.expect_sense(&ready, 0, key::UNIT_ATTENTION, code::RESET);
    machine.packet(&ready, 0);
    let inquiry = machine.packet(&[opcode::INQUIRY, 0, 0, 0, 36], 36);
    assert_eq!((inquiry.len(), inquiry[0], inquiry[1] & 0x80), (36, 0x05, 0x80));
    assert_eq!(&inquiry[8..16], b"PARASLOT");
    assert_eq!(inquiry[16..32].trim_ascii_end(), b"CD-ROM");

    // The CD-ROM driver.
    let mut configuration = [0; 10];
    (configuration[0], configuration[8]) = (opcode::GET_CONFIGURATION, 64);
    let features = machine.packet(&configuration, 64);
    assert!(features.len() >= 8);
    let mut event = [0; 10];
    (event[0], event[1], event[4], event[8]) =
        (opcode::GET_EVENT_STATUS_NOTIFICATION, 1, 1 << 4, 8);
    let events = machine.packet(&event, 8);
    assert_eq!((events.len(), events[2] & 7), (8, 4), "the media class: {events:x?}");
    assert_eq!(events[5] & 2, 2, "a disc is there");
    let mut toc = [0; 10];
    (toc[0], toc[8]) = (opcode::READ_TOC_PMA_ATIP, 12);
    let toc = machine.packet(&toc, 12);
    assert_eq!((toc.len(), toc[2], toc[3]), (12, 1, 1), "one track: {toc:x?}");
    assert_eq!(toc[5] & 4, 4, "of data");
    let capacity = machine.packet(&[opcode::READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
    assert_eq!(capacity, [511u32.to_be_bytes(), BLOCK.to_be_bytes()].concat());

    // The page cache, at the end of which there is nothing.
    for block in [0u32, 100, 511] {
        assert_eq!(machine.packet(&read_10(block, 1), 2048), [block as u8 ^ 0x40; 2048]);
    }
    let data = machine.packet(&read_10(16, 32), 32 * 2048);
    assert!(data.chunks(2048).zip(16u8..).all(|(block, n)| block == [n ^ 0x40; 2048]));
    let (illegal, range) = (key::ILLEGAL_REQUEST, code::LBA_OUT_OF_RANGE);
    machine.expect_sense(&read_10(512, 1), 2048, illegal, range);
    machine.expect_sense(&read_10(511, 2), 4096, illegal, range);
    // CVE-2020-29443: the block before the first.
    machine.expect_sense(&read_10(u32::MAX, 1), 2048, illegal, range);
    machine.expect_sense(&[0xd8], 0, illegal, code::INVALID_OPCODE);
    // The error register says so, too.
    machine.send(&by_pio(0), &[0xd8], 0);
    assert_eq!(machine.get(port::TFD), 0x5451);
    machine.expect_check();
    machine.packet(&ready, 0);
}

#[test]
fn a_drive_without_a_disc_is_not_ready() {
    let mut machine = libata(drive(None));
    let ready = [opcode::TEST_UNIT_READY];
    machine.expect_sense(&ready, 0, key::UNIT_ATTENTION, code::RESET);
    machine.send(&by_pio(0), &ready, 0);
    assert_eq!(machine.expect_check(), key::NOT_READY);
    let (key, (asc, _)) = machine.sense();
    assert_eq!((key, asc), (key::NOT_READY, 0x3a));
    machine.send(&by_dma(), &read_10(0, 1), 2048);
    assert_eq!(machine.expect_check(), key::NOT_READY);
    // Who asks nobody but the drive is answered.
    assert_eq!(machine.packet(&[opcode::INQUIRY, 0, 0, 0, 36], 36).len(), 36);
}

// The drive stays where it is: the link knows nothing of discs.
#[test]
fn a_disc_comes_and_goes_at_run_time() {
    let unit = drive(None);
    let mut machine = libata(unit.clone());
    let ready = [opcode::TEST_UNIT_READY];
    machine.expect_sense(&ready, 0, key::UNIT_ATTENTION, code::RESET);
    for round in 1..4u8 {
        unit.change_medium(Some(Arc::new(disc(round)))).unwrap();
        machine.run();
        assert_eq!((machine.get(port::SSTS), machine.get(port::SERR)), (0x133, 0));
        assert_eq!(machine.causes(), PortInterrupt::empty());
        machine.expect_sense(&ready, 0, key::UNIT_ATTENTION, code::MEDIUM_CHANGED);
        machine.packet(&ready, 0);
        assert_eq!(machine.packet(&read_10(7, 1), 2048), [7 ^ round; 2048]);

        unit.change_medium(None).unwrap();
        machine.run();
        assert_eq!((machine.get(port::SSTS), machine.get(port::SERR)), (0x133, 0));
        machine.send(&by_dma(), &read_10(7, 1), 2048);
        assert!([key::UNIT_ATTENTION, key::NOT_READY].contains(&machine.expect_check()));
        machine.send(&by_pio(0), &ready, 0);
        assert_eq!(machine.expect_check(), key::NOT_READY);
        let (key, (asc, _)) = machine.sense();
        assert_eq!((key, asc), (key::NOT_READY, 0x3a));
    }
}

#[test]
fn a_disc_that_cannot_be_read_is_a_medium_error() {
    use paraslot_backends::block::testing::FaultBackend;
    let medium = FaultBackend::nth(disc(0), 0, libc::EIO);
    let mut machine = machine(medium);
    machine.send(&by_dma(), &read_10(9, 1), 2048);
    assert_eq!(machine.expect_check(), key::MEDIUM_ERROR);
    assert_eq!(machine.sense().0, key::MEDIUM_ERROR);
    assert_eq!(machine.packet(&read_10(9, 1), 2048), [9; 2048]);
}

// SeaBIOS: no SET FEATURES, DMA for all packets, also those without data, and the cause that comes
// says which FIS to look at.
#[test]
fn firmware_boots_from_the_disc() {
    let mut machine = Machine::of(options(drive(Some(Arc::new(disc(0x20))))));
    enable(&mut machine.ahci);
    machine.start();
    machine.issue_with(0, &RegisterH2d::command(command::IDENTIFY_PACKET_DEVICE), 512);
    assert_eq!(machine.causes(), PortInterrupt::PSS);
    let fis: PioSetup = machine.received(received::PIO_SETUP);
    assert_eq!((fis.status & 0xe1, fis.error), (0x40, 0));
    machine.acknowledge();
    let mut tries = 0;
    loop {
        machine.send(&by_dma(), &[opcode::TEST_UNIT_READY], 0);
        assert!(machine.causes().contains(PortInterrupt::DHRS));
        if machine.d2h().status & 0xe1 == 0x40 {
            break;
        }
        machine.expect_check();
        machine.sense();
        tries += 1;
        assert!(tries < 3, "it is not ready");
    }
    machine.acknowledge();
    assert_eq!(machine.packet(&[opcode::INQUIRY, 0, 0, 0, 36], 36)[0], 0x05);
    assert_eq!(machine.packet(&[opcode::READ_CAPACITY_10], 8)[4..], BLOCK.to_be_bytes());
    // The volume descriptors.
    assert_eq!(machine.packet(&read_10(16, 1), 2048), [16 ^ 0x20; 2048]);
    assert_eq!(machine.packet(&read_10(17, 1), 2048), [17 ^ 0x20; 2048]);
}
