use paraslot_spec::ahci::fis;
use paraslot_spec::ata::error;
use proptest::prelude::*;

use super::*;

fn read(count: u16) -> RegisterH2d {
    sectors(command::READ_DMA_EXT, 20, count)
}

// CVE-2014-9718, CVE-2019-20175: tables that are short of the transfer, or that split it anywhere.
#[test]
fn a_table_with_too_little_room_overflows_and_moves_nothing() {
    let mut machine = Machine::new(numbered());
    let short: [&[u32]; 4] = [&[], &[2], &[510], &[512, 510]];
    for lens in short {
        let prds: Vec<_> = lens.iter().map(|len| Prd::new(data_at(0), *len)).collect();
        for fis in [
            read(2),
            sectors(command::READ_SECTORS, 20, 2),
            sectors(command::WRITE_DMA, 20, 2),
            sectors(command::WRITE_SECTORS_EXT, 20, 2),
        ] {
            machine.issue(0, &fis, &prds);
            assert!(machine.causes().contains(PortInterrupt::OFS | PortInterrupt::TFES));
            machine.expect_error(error::ABRT);
            assert_eq!((machine.prdbc(0), machine.bytes(data_at(0), 2)), (0, vec![0; 2]));
        }
    }
    machine.issue(0, &RegisterH2d::command(command::IDENTIFY_DEVICE), &[Prd::new(DATA, 510)]);
    machine.expect_error(error::ABRT);
}

#[test]
fn what_a_table_has_beyond_the_transfer_is_not_touched() {
    let mut machine = Machine::new(numbered());
    machine.fill(data_at(0), &[0xee; 2048]);
    // The second entry is not needed, so that it is nonsense does not matter.
    let prds = [Prd::new(data_at(0), 2048), Prd::new(u64::MAX - 1, 2)];
    machine.issue(0, &read(1), &prds);
    machine.expect_done();
    assert_eq!(machine.prdbc(0), 512);
    let data = machine.bytes(data_at(0), 513);
    assert_eq!((data[0], data[512]), (20, 0xee));
}

#[test]
fn odd_entries_and_memory_that_is_not_there_stop_the_port() {
    let mut machine = Machine::new(numbered());
    let odd_len: Prd = {
        let mut prd = Prd::new(data_at(0), 512);
        prd.dbc = (510).into();
        prd
    };
    for (prd, cause) in [
        (odd_len, PortInterrupt::HBDS),
        (Prd::new(data_at(0) + 1, 512), PortInterrupt::HBDS),
        (Prd::new(MEMORY as u64 - 256, 512), PortInterrupt::HBFS),
        (Prd::new(u64::MAX - 1, 512), PortInterrupt::HBFS),
    ] {
        for fis in [read(1), RegisterH2d::command(command::IDENTIFY_DEVICE)] {
            machine.issue(0, &fis, &[prd]);
            assert_eq!((machine.causes(), machine.get(port::CI)), (cause, 1));
            machine.recover();
        }
    }
    machine.issue_with(0, &read(1), 512);
    machine.expect_done();
}

// CVE-2016-2197: list, table or FIS area outside memory is an error, not the end of the VMM.
#[test]
fn structures_outside_memory_stop_the_port() {
    let mut machine = Machine::new(numbered());
    let far = [0x8000_0000u64, !0x3ff, MEMORY as u64];
    for address in far {
        machine.prepare(0, &read(1), &[Prd::new(data_at(0), 512)], 0);
        // The command list.
        machine.set(port::CLB, address as u32);
        machine.set(port::CLBU, (address >> 32) as u32);
        machine.set(port::CI, 1);
        machine.run();
        assert_eq!((machine.causes(), machine.get(port::CI)), (PortInterrupt::HBFS, 1));
        machine.recover();
        machine.set(port::CLB, LIST as u32);
        machine.set(port::CLBU, 0);
        // The command table.
        let header = CommandHeader::new(5 | 1 << 16, address);
        machine.fill(LIST, header.as_bytes());
        machine.set(port::CI, 1);
        machine.run();
        assert_eq!((machine.causes(), machine.get(port::CI)), (PortInterrupt::HBFS, 1));
        machine.recover();
        // The received FIS area.
        machine.set(port::FB, address as u32);
        machine.set(port::FBU, (address >> 32) as u32);
        machine.issue_with(0, &read(1), 512);
        assert!(machine.causes().contains(PortInterrupt::HBFS));
        assert_eq!(machine.get(port::CI), 1);
        machine.recover();
        let fis = queued(command::READ_FPDMA_QUEUED, 0, 0, 1);
        machine.prepare(0, &fis, &[Prd::new(data_at(0), 512)], 0);
        machine.issue_queued(1);
        machine.run();
        assert_eq!((machine.causes(), machine.get(port::SACT)), (PortInterrupt::HBFS, 1));
        machine.recover();
        machine.set(port::FB, FIS as u32);
        machine.set(port::FBU, 0);
        machine.issue_with(0, &read(1), 512);
        machine.expect_done();
    }
}

#[test]
fn a_table_that_runs_out_of_memory_stops_the_port() {
    let mut machine = Machine::new(numbered());
    // The table's first 32 entries are there, the next ones are not.
    let table = MEMORY as u64 - PRD_TABLE - 32 * 16;
    machine.fill(table, read(1).as_bytes());
    machine.fill(table + PRD_TABLE, [Prd::new(data_at(0), 2); 32].as_bytes());
    machine.fill(LIST, CommandHeader::new(5 | 0xffff << 16, table).as_bytes());
    machine.set(port::CI, 1);
    machine.run();
    assert_eq!(machine.causes(), PortInterrupt::HBFS);
}

#[test]
fn the_longest_table_is_walked_once() {
    let mut machine = Machine::new(numbered());
    // 65,535 entries of two bytes: less than 256 sectors need.
    let prds = vec![Prd::new(data_at(0), 2); 0xffff];
    let table = 0x80_0000;
    machine.fill(table, read(256).as_bytes());
    machine.fill(table + PRD_TABLE, prds.as_bytes());
    machine.fill(LIST, CommandHeader::new(5 | 0xffff << 16, table).as_bytes());
    machine.set(port::CI, 1);
    machine.run();
    assert!(machine.causes().contains(PortInterrupt::OFS));
    machine.expect_error(error::ABRT);
    // Enough for 255 sectors and the rest of them.
    machine.fill(table, read(255).as_bytes());
    machine.set(port::CI, 1);
    machine.run();
    machine.expect_done();
    assert_eq!(machine.prdbc(0), 255 * 512);
}

#[test]
fn an_entry_can_ask_for_an_interrupt_when_it_is_used_up() {
    let mut machine = Machine::new(numbered());
    let with_interrupt = |len| {
        let mut prd = Prd::new(data_at(0), len);
        prd.dbc = (prd.dbc.get() | Prd::INTERRUPT).into();
        prd
    };
    machine.issue(0, &read(2), &[with_interrupt(512), Prd::new(data_at(0), 512)]);
    assert_eq!(machine.causes(), PortInterrupt::DPS | PortInterrupt::DHRS);
    machine.acknowledge();
    // It is not used up.
    machine.issue(0, &read(1), &[with_interrupt(1024)]);
    assert_eq!(machine.causes(), PortInterrupt::DHRS);
    machine.acknowledge();
    machine.prepare(0, &queued(command::READ_FPDMA_QUEUED, 0, 0, 1), &[with_interrupt(512)], 0);
    machine.issue_queued(1);
    machine.run();
    assert_eq!(machine.causes(), PortInterrupt::DPS | PortInterrupt::SDBS);
}

#[test]
fn a_fis_that_is_no_command_fis_is_an_interface_error() {
    let mut machine = Machine::new(numbered());
    for (flags, kind) in [(5, fis::TYPE_REGISTER_D2H), (5, 0), (0, fis::TYPE_REGISTER_H2D)] {
        let mut fis = read(1);
        fis.fis_type = kind;
        machine.prepare(0, &fis, &[Prd::new(data_at(0), 512)], 0);
        // A length of 0 words leaves nothing of the FIS.
        machine.fill(LIST, CommandHeader::new(flags | 1 << 16, table_at(0)).as_bytes());
        machine.set(port::CI, 1);
        machine.run();
        assert_eq!(machine.causes(), PortInterrupt::IFS);
        machine.recover();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the data is cut into pieces, it comes in order and nothing else is written.
    #[test]
    fn any_cut_moves_the_same_bytes(
        cuts in prop::collection::vec((1u32..700, 0u64..300), 1..80),
        count in 1u16..24,
    ) {
        let mut machine = Machine::new(numbered());
        let needed = usize::from(count) * 512;
        let mut address = DATA;
        let mut prds = Vec::new();
        let mut place = Vec::new();
        for (half, gap) in cuts {
            prds.push(Prd::new(address, half * 2));
            place.extend(address..address + u64::from(half) * 2);
            address += u64::from(half) * 2 + gap * 2;
        }
        machine.issue(0, &read(count), &prds);
        let mut image = vec![0; needed];
        numbered().read_at(20 * 512, &mut image).unwrap();
        if place.len() < needed {
            prop_assert!(machine.causes().contains(PortInterrupt::OFS));
            prop_assert!(machine.bytes(DATA, (address - DATA) as usize).iter().all(|b| *b == 0));
        } else {
            machine.expect_done();
            let memory = machine.bytes(DATA, (address - DATA) as usize);
            let mut wanted = vec![0; memory.len()];
            for (byte, at) in image.iter().zip(&place) {
                wanted[(at - DATA) as usize] = *byte;
            }
            prop_assert!(memory == wanted);
            prop_assert_eq!(machine.prdbc(0), needed as u32);
        }
    }
}
