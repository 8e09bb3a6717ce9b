//! The frames and the data around command packets.

use super::*;

#[test]
fn a_packet_without_data_leaves_its_own_pio_setup() {
    let mut machine = machine(disc(0));
    machine.fill(FIS, &[0; 256]);
    machine.packet(&[opcode::TEST_UNIT_READY], 0);
    let fis: PioSetup = machine.received(received::PIO_SETUP);
    assert_eq!((fis.fis_type, fis.flags, fis.status, fis.e_status), (0x5f, 0, 0x58, 0xd0));
    assert_eq!((fis.count.get(), fis.transfer_count.get()), (reason::CD.into(), 12));
}

// QEMU 9ef2e93f9b: a limit of 0 (or 1) ends like any other. CVE-2015-5154: nothing goes beyond the
// data.
#[test]
fn pio_goes_in_blocks_of_the_byte_count_limit() {
    let mut machine = machine(disc(0));
    for (limit, last) in
        [(2048, 2048), (4096, 2048), (5000, 1144), (0, 6144), (0xffff, 6144), (1, 2)]
    {
        machine.fill(data_at(0), &[0xee; 8192]);
        machine.send(&by_pio(limit), &read_10(3, 3), 6144);
        assert_eq!((machine.get(port::CI), machine.get(port::TFD)), (0, 0x50));
        assert_eq!(machine.causes(), PortInterrupt::DHRS | PortInterrupt::PSS);
        let fis: PioSetup = machine.received(received::PIO_SETUP);
        assert_eq!((fis.flags, fis.status, fis.e_status), (0x60, 0x58, 0xd0));
        assert_eq!((fis.count.get(), fis.transfer_count.get()), (reason::IO.into(), last));
        assert_eq!(u16::from_le_bytes([fis.lba[1], fis.lba[2]]), last);
        let end = machine.d2h();
        assert_eq!((end.status, end.flags, end.count.get()), (0x50, 0x40, reason::OVER.into()));
        assert_eq!(machine.prdbc(0), 6144);
        let data: Vec<u8> = [3, 4, 5].into_iter().flat_map(|byte| [byte; 2048]).collect();
        assert_eq!(machine.bytes(data_at(0), 6144), data);
        assert_eq!(machine.bytes(data_at(0) + 6144, 2048), [0xee; 2048]);
        machine.acknowledge();
    }
}

// PRDBC says how much came; what is beyond is as it was.
#[test]
fn less_data_than_there_is_room_for() {
    let mut machine = machine(disc(0));
    machine.fill(data_at(0), &[0xee; 4096]);
    assert_eq!(machine.packet(&read_10(9, 1), 4096), [9; 2048]);
    assert_eq!(machine.bytes(data_at(0) + 2048, 2048), [0xee; 2048]);
    assert_eq!(machine.packet(&[opcode::INQUIRY, 0, 0, 0, 5], 96).len(), 5);
}

// CVE-2014-9718 and its kin: more data than the list has room for goes nowhere, and that is the end.
#[test]
fn more_data_than_there_is_room_for() {
    let mut machine = machine(disc(0));
    for room in [0, 512, 2046] {
        machine.fill(data_at(0), &[0xee; 4096]);
        machine.send(&by_dma(), &read_10(9, 1), room);
        assert!(machine.causes().contains(PortInterrupt::OFS | PortInterrupt::TFES));
        assert_eq!(machine.prdbc(0), 0);
        machine.expect_check();
        assert_eq!(machine.bytes(data_at(0), 4096), [0xee; 4096]);
    }
    // Data that is to go the other way finds no room at all.
    let prds = [Prd::new(data_at(0), 2048)];
    machine.prepare_packet(0, &by_dma(), &read_10(9, 1), &prds);
    let flags = header::ATAPI | header::WRITE;
    machine.prepare(0, &by_dma(), &prds, flags);
    machine.set(port::CI, 1);
    machine.run();
    machine.expect_check();
    assert_eq!(machine.bytes(data_at(0), 4096), [0xee; 4096]);
    assert_eq!(machine.packet(&read_10(9, 1), 2048), [9; 2048]);
}

#[test]
fn the_direction_of_dma_need_not_be_told_but_must_not_be_wrong() {
    let mut machine = machine(disc(0));
    let told = RegisterH2d { features: features::DMA | features::DMADIR, ..by_dma() };
    machine.send(&told, &read_10(9, 1), 2048);
    machine.expect_done();
    machine.prepare_packet(0, &told, &read_10(9, 1), &[Prd::new(data_at(0), 2048)]);
    machine.prepare(0, &told, &[Prd::new(data_at(0), 2048)], header::ATAPI | header::WRITE);
    machine.set(port::CI, 1);
    machine.run();
    machine.expect_error(error::ABRT);
    // Without the A bit the HBA has no packet to send.
    machine.prepare(0, &by_dma(), &[Prd::new(data_at(0), 2048)], 0);
    machine.set(port::CI, 1);
    machine.run();
    machine.expect_error(error::ABRT);
    machine.packet(&[opcode::TEST_UNIT_READY], 0);
}

#[test]
fn a_used_up_prd_interrupts_if_it_is_to() {
    let mut machine = machine(disc(0));
    let prds = |marked: usize| {
        let mut prds =
            [Prd::new(data_at(0), 1024), Prd::new(data_at(1), 1024), Prd::new(data_at(2), 2048)];
        prds[marked].dbc = (prds[marked].dbc.get() | Prd::INTERRUPT).into();
        prds
    };
    for (marked, expected) in [(0, true), (1, true), (2, false)] {
        machine.prepare_packet(0, &by_dma(), &read_10(9, 1), &prds(marked));
        machine.set(port::CI, 1);
        machine.run();
        assert_eq!(machine.causes().contains(PortInterrupt::DPS), expected, "{marked}");
        assert_eq!(machine.prdbc(0), 2048);
        machine.acknowledge();
    }
}

#[test]
fn what_is_not_memory_is_a_host_bus_error() {
    let mut machine = machine(disc(0));
    let end = MEMORY as u64;
    for (prd, cause) in [
        (Prd::new(end - 1024, 2048), PortInterrupt::HBFS),
        (Prd::new(1 << 60, 2048), PortInterrupt::HBFS),
        (Prd::new(data_at(0) + 1, 2048), PortInterrupt::HBDS),
    ] {
        machine.prepare_packet(0, &by_dma(), &read_10(9, 1), &[prd]);
        machine.set(port::CI, 1);
        machine.run();
        assert_eq!((machine.causes(), machine.get(port::CI)), (cause, 1));
        machine.recover();
    }
    // A command table that is not there.
    let header = CommandHeader::new(5 | header::ATAPI, 1 << 60);
    machine.fill(LIST, header.as_bytes());
    machine.set(port::CI, 1);
    machine.run();
    assert_eq!(machine.causes(), PortInterrupt::HBFS);
    machine.recover();
    machine.packet(&[opcode::TEST_UNIT_READY], 0);
}

// A command without data may come with a PRD entry of any kind: SeaBIOS asks for 4 MiB from low memory,
// in which there is the hole for VGA, with TEST UNIT READY. Nor is what data does not need looked at.
#[test]
fn what_data_does_not_need_is_not_looked_at() {
    let mut machine = machine(disc(0));
    let end = MEMORY as u64;
    let bad =
        [Prd::new(end - 1024, 4 << 20), Prd::new(1 << 60, 2048), Prd::new(data_at(0) + 1, 2048)];
    for bad in bad {
        machine.prepare_packet(0, &by_dma(), &[opcode::TEST_UNIT_READY], &[bad]);
        machine.set(port::CI, 1);
        machine.run();
        assert_eq!((machine.get(port::CI), machine.get(port::TFD)), (0, 0x50));
        assert_eq!((machine.causes(), machine.prdbc(0)), (PortInterrupt::DHRS, 0));
        machine.acknowledge();
        let prds = [Prd::new(data_at(0), 2048), bad];
        machine.prepare_packet(0, &by_dma(), &read_10(9, 1), &prds);
        machine.set(port::CI, 1);
        machine.run();
        assert_eq!((machine.get(port::CI), machine.prdbc(0)), (0, 2048));
        assert_eq!(machine.bytes(data_at(0), 2048), [9; 2048]);
        machine.acknowledge();
    }
}

// Double fetches (FreeBSD-SA-24:17 and its kin), with the packet itself as the thing to change.
#[test]
fn a_packet_that_was_taken_cannot_be_changed() {
    use paraslot_backends::block::testing::GatedBackend;
    let backend = GatedBackend::new(disc(0));
    let gate = backend.gate();
    let mut machine = machine(backend);
    machine.send(&by_dma(), &read_10(9, 1), 2048);
    assert_eq!((gate.held(), machine.get(port::TFD), machine.get(port::CI)), (1, 0xd0, 1));
    machine.fill(LIST, &[0xff; 32]);
    machine.fill(table_at(0), &[0xff; 256]);
    gate.open();
    machine.run();
    assert_eq!((machine.get(port::CI), machine.prdbc(0)), (0, 2048));
    assert_eq!(machine.bytes(data_at(0), 2048), [9; 2048]);
}

// The commands of a list are done one after the other, whatever is in it at once.
#[test]
fn packets_wait_for_each_other() {
    let mut machine = machine(disc(0));
    for slot in 0..32 {
        let prds = [Prd::new(data_at(slot), 2048)];
        machine.prepare_packet(slot, &by_dma(), &read_10(slot + 1, 1), &prds);
    }
    machine.set(port::CI, u32::MAX);
    machine.run();
    assert_eq!((machine.get(port::CI), machine.causes()), (0, PortInterrupt::DHRS));
    for slot in 0..32 {
        assert_eq!(machine.bytes(data_at(slot), 2048), [slot as u8 + 1; 2048]);
    }
}
