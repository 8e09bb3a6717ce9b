//! Requests and their data.

use paraslot_spec::pvscsi::SG_CHAIN;

use super::*;

fn succeeded(completion: &CompletionDescriptor, len: u64) {
    assert_eq!(completion.host_status.get(), host_status::SUCCESS);
    assert_eq!(completion.scsi_status.get(), GOOD);
    assert_eq!((completion.data_len.get(), completion.sense_len.get()), (len, 0));
}

#[test]
fn data_is_read_and_written() {
    let mut machine = Machine::new();
    succeeded(&machine.carry_out(&read10(1, 17, 4)), 2048);
    for block in 0..4 {
        let data = machine.bytes(data_at(1) + block * 512, 16);
        assert_eq!(data[..8], (17 + block).to_le_bytes());
        assert_eq!(data[8..], [0x5a; 8]);
    }
    machine.fill(data_at(2), &[0xc3; 1024]);
    succeeded(&machine.carry_out(&write10(2, 100, 2)), 1024);
    succeeded(&machine.carry_out(&read10(3, 100, 3)), 1536);
    assert_eq!(machine.bytes(data_at(3), 1024), [0xc3; 1024]);
    assert_eq!(machine.bytes(data_at(3) + 1024, 8), 102u64.to_le_bytes());
}

#[test]
fn rings_wrap_and_indices_too() {
    let mut machine = Machine::new();
    for round in 0..600u32 {
        let completion = machine.carry_out(&read10(u64::from(round), round, 1));
        succeeded(&completion, 512);
        assert_eq!(machine.bytes(data_at(round.into()), 4), round.to_le_bytes());
    }
    assert_eq!(machine.state(state::REQUEST_CONSUMER), machine.produced);
}

/// Reads ten blocks by these elements, and compares what is in the places they name with the disk.
fn gathers(elements: &[(u64, u32)]) {
    let mut machine = Machine::new();
    let mut request = read10(1, 0, 10);
    request.flags.set((RequestFlags::DIR_TO_HOST | RequestFlags::SG_LIST).bits());
    request.data_address.set(list_at(1));
    let list: Vec<_> = elements.iter().map(|&(at, len)| (at, len, 0)).collect();
    machine.elements(list_at(1), &list);
    succeeded(&machine.carry_out(&request), 5120);
    let mut data = Vec::new();
    for &(at, len) in elements {
        data.extend(machine.bytes(at, (len as usize).min(5120 - data.len())));
    }
    let mut expected = vec![0x5a; 5120];
    for (block, bytes) in (0u64..).zip(expected.chunks_mut(512)) {
        bytes[..8].copy_from_slice(&block.to_le_bytes());
    }
    assert!(data == expected);
}

#[test]
fn scatter_gather_lists_of_any_shape() {
    gathers(&[(DATA, 5120)]);
    // Longer than the data: what is beyond is left alone.
    gathers(&[(DATA, 4096), (DATA + 0x10_0000, u32::MAX)]);
    gathers(&[(DATA + 1, 1), (DATA + 0x1003, 4095), (DATA + 0x3000, 1024)]);
    // Empty ones in between (CVE-2016-7156).
    gathers(&[(DATA, 0), (DATA, 512), (u64::MAX, 0), (DATA + 512, 4608)]);
    let many: Vec<_> = (0..128).map(|index| (DATA + index * 0x1000, 40)).collect();
    gathers(&many);
    // Beyond the page, which the header file forbids.
    let more: Vec<_> = (0..512).map(|index| (DATA + index * 0x1000, 10)).collect();
    gathers(&more);
}

#[test]
fn lists_lead_to_lists() {
    let mut machine = Machine::new();
    let mut request = write10(1, 64, 4);
    request.flags.set((RequestFlags::DIR_TO_DEVICE | RequestFlags::SG_LIST).bits());
    request.data_address.set(list_at(1));
    machine.fill(DATA, &[0x11; 1024]);
    machine.fill(DATA + 0x4000, &[0x22; 1024]);
    machine.elements(list_at(1), &[(DATA, 1024, 0), (list_at(9) + 4080, 77, SG_CHAIN)]);
    machine.elements(list_at(9) + 4080, &[(list_at(5), 0, SG_CHAIN)]);
    machine.elements(list_at(5), &[(DATA + 0x4000, 1000, 0), (DATA + 0x43e8, 24, 0)]);
    succeeded(&machine.carry_out(&request), 2048);
    succeeded(&machine.carry_out(&read10(2, 64, 4)), 2048);
    assert_eq!(machine.bytes(data_at(2), 1024), [0x11; 1024]);
    assert_eq!(machine.bytes(data_at(2) + 1024, 1024), [0x22; 1024]);
}

#[test]
fn sense_data_goes_where_it_is_wanted() {
    let mut machine = Machine::new();
    // LBA out of range.
    let beyond = read10(1, u32::MAX, 1);
    machine.fill(sense_at(1), &[0xee; 96]);
    let completion = machine.carry_out(&beyond);
    assert_eq!((completion.host_status.get(), completion.scsi_status.get()), (0, CHECK));
    assert_eq!((completion.sense_len.get(), completion.data_len.get()), (18, 0));
    let sense = machine.bytes(sense_at(1), 20);
    assert_eq!((sense[0] & 0x7f, sense[2], sense[12], sense[13]), (0x70, 5, 0x21, 0));
    assert_eq!(sense[18..], [0xee; 2]);

    // A short buffer, none, and one that is not there.
    for (len, written) in [(8, 8), (0, 0)] {
        let mut request = beyond;
        request.sense_len.set(len);
        machine.fill(sense_at(1), &[0xee; 96]);
        let completion = machine.carry_out(&request);
        assert_eq!((completion.scsi_status.get(), completion.sense_len.get()), (CHECK, written));
        assert_eq!(machine.bytes(sense_at(1) + u64::from(written), 8), [0xee; 8]);
    }
    let mut request = beyond;
    request.sense_address.set(u64::MAX - 3);
    let completion = machine.carry_out(&request);
    assert_eq!(completion.host_status.get(), host_status::SENSFAILED);
    assert_eq!(completion.sense_len.get(), 0);
}

// The control mode page's D_SENSE.
#[test]
fn sense_data_has_the_format_that_the_unit_is_set_to() {
    let mut machine = Machine::new();
    let cdb = [opcode::MODE_SENSE_6, 0x08, 0x0a, 0, 64, 0];
    let completion = machine.carry_out(&with_data(1, &cdb, RequestFlags::DIR_TO_HOST, 64));
    let mut page = machine.bytes(data_at(1), completion.data_len.get() as usize);
    page[..4].fill(0);
    page[4] &= 0x3f;
    page[6] |= 1 << 2;
    machine.fill(data_at(2), &page);
    let cdb = [opcode::MODE_SELECT_6, 0x10, 0, 0, page.len() as u8, 0];
    let len = page.len() as u64;
    let completion = machine.carry_out(&with_data(2, &cdb, RequestFlags::DIR_TO_DEVICE, len));
    succeeded(&completion, len);
    machine.carry_out(&read10(3, u32::MAX, 1));
    assert_eq!(machine.bytes(sense_at(3), 4), [0x72, 5, 0x21, 0]);
}

// What Linux's pvscsi_complete_request makes a residual of.
#[test]
fn less_data_than_asked_for_is_a_success_that_says_so() {
    let mut machine = Machine::new();
    let cdb = [opcode::INQUIRY, 0, 0, 0, 255, 0];
    let completion = machine.carry_out(&with_data(1, &cdb, RequestFlags::DIR_TO_HOST, 255));
    assert_eq!((completion.host_status.get(), completion.scsi_status.get()), (0, GOOD));
    assert!((36..255).contains(&completion.data_len.get()));
    // More data than there is room for.
    let mut short = read10(2, 0, 2);
    short.data_len.set(512);
    let completion = machine.carry_out(&short);
    assert_eq!(completion.host_status.get(), host_status::DATARUN);
    assert_eq!(completion.data_len.get(), 0);
    // No direction, or both, is no room at all.
    for flags in [RequestFlags::empty(), RequestFlags::DIR_TO_HOST | RequestFlags::DIR_TO_DEVICE] {
        let mut request = read10(3, 0, 1);
        request.flags.set(flags.bits());
        let completion = machine.carry_out(&request);
        assert_eq!(completion.host_status.get(), host_status::DATARUN);
    }
    // The wrong one, too.
    let mut wrong = read10(4, 0, 1);
    wrong.flags.set(RequestFlags::DIR_TO_DEVICE.bits());
    assert_eq!(machine.carry_out(&wrong).host_status.get(), host_status::DATARUN);
}

#[test]
fn requests_that_make_no_sense() {
    let mut machine = Machine::new();
    let check =
        |machine: &mut Machine, what: &str, status, change: &dyn Fn(&mut RequestDescriptor)| {
            let mut request = read10(1, 0, 1);
            change(&mut request);
            let completion = machine.carry_out(&request);
            assert_eq!(completion.host_status.get(), status, "{what}");
            assert_eq!((completion.data_len.get(), completion.scsi_status.get()), (0, 0));
        };
    check(&mut machine, "no CDB", host_status::INVPARAM, &|r| r.cdb_len = 0);
    check(&mut machine, "a long CDB", host_status::INVPARAM, &|r| r.cdb_len = 17);
    check(&mut machine, "a CDB elsewhere", host_status::INVPARAM, &|r| {
        r.flags.set((RequestFlags::DIR_TO_HOST | RequestFlags::OUT_OF_BAND_CDB).bits());
    });
    check(&mut machine, "no memory", host_status::INVPARAM, &|r| {
        r.data_address.set(MEMORY as u64 - 511);
    });
    check(&mut machine, "wrapping", host_status::INVPARAM, &|r| {
        r.data_address.set(u64::MAX - 10);
    });
    check(&mut machine, "another bus", host_status::SELTIMEO, &|r| r.bus = 1);
    check(&mut machine, "another target", host_status::SELTIMEO, &|r| r.target = 200);
    check(&mut machine, "no LUN", host_status::SELTIMEO, &|r| r.lun[7] = 1);
}

#[test]
fn a_lun_that_is_not_there_is_the_targets_to_refuse() {
    let mut machine = Machine::new();
    let mut request = read10(1, 0, 1);
    request.lun[1] = 3;
    let completion = machine.carry_out(&request);
    assert_eq!((completion.host_status.get(), completion.scsi_status.get()), (0, CHECK));
    // LOGICAL UNIT NOT SUPPORTED
    assert_eq!(machine.bytes(sense_at(1) + 12, 2), [0x25, 0]);
}

#[test]
fn a_unit_at_another_lun_is_reached() {
    let bus = bus();
    for lun in [0, 3] {
        bus.attach(Address { target: 5, lun }, unit(numbered())).unwrap();
    }
    let mut machine = Machine::off(bus);
    machine.start(Mode::Msix);
    let mut request = read10(1, 9, 1);
    request.target = 5;
    request.lun[1] = 3;
    let statuses: Vec<_> = (0..4).map(|_| machine.carry_out(&request).scsi_status.get()).collect();
    assert_eq!(statuses.last(), Some(&GOOD));
    assert_eq!(machine.bytes(data_at(1), 8), 9u64.to_le_bytes());
}

#[test]
fn a_round_completes_what_it_took_with_one_interrupt() {
    let mut machine = Machine::new();
    for context in 1..=32 {
        machine.put(&read10(context, context as u32, 1));
    }
    machine.run();
    assert_eq!(machine.messages_sent(), 1);
    let ended = machine.ended();
    assert_eq!(ended, (1..=32).map(|context| (context, 0)).collect::<Vec<_>>());
    // More than a batch: one interrupt for each.
    for context in 1..=130 {
        machine.put(&read10(context, context as u32, 1));
    }
    machine.run();
    assert_eq!(machine.messages_sent(), 1 + 3);
    assert_eq!(machine.ended().len(), 130);
}
