//! Rings and descriptors that no driver would make.

use paraslot_spec::pvscsi::{SG_CHAIN, command_status};

use super::*;

// CVE-2016-4952, CVE-2016-7155: page counts are checked before anything is done with them.
#[test]
fn page_counts_are_checked() {
    let mut machine = Machine::new();
    for (requests, completions) in [
        (0, 8),
        (8, 0),
        (33, 8),
        (8, 33),
        (64, 8),
        (8, 64),
        (u32::MAX, 8),
        (8, u32::MAX),
        (3, 8),
        (8, 6),
    ] {
        let mut setup = machine.setup(8);
        setup.request_pages.set(requests);
        setup.completion_pages.set(completions);
        let status = machine.order(command::SETUP_RINGS, setup.as_bytes());
        assert_eq!(status, command_status::FAILED, "{requests} {completions}");
        // There are no rings then.
        machine.put(&read10(1, 0, 1));
        machine.run();
    }
    for pages in [1, 32] {
        machine.set_up_rings(pages);
        assert_eq!(machine.carry_out(&read10(1, 0, 1)).host_status.get(), 0);
    }
}

#[test]
fn rings_that_are_not_in_memory_are_refused() {
    let mut machine = Machine::new();
    let mut setup = machine.setup(8);
    for page in [MEMORY as u64 >> 12, u64::MAX, 1 << 52, u64::MAX >> 12] {
        let good = setup;
        setup.state_page.set(page);
        assert_eq!(machine.order(command::SETUP_RINGS, setup.as_bytes()), command_status::FAILED);
        setup = good;
        setup.request_ring[7].set(page);
        assert_eq!(machine.order(command::SETUP_RINGS, setup.as_bytes()), command_status::FAILED);
        setup = good;
        setup.completion_ring[0].set(page);
        assert_eq!(machine.order(command::SETUP_RINGS, setup.as_bytes()), command_status::FAILED);
        setup = good;
        // Beyond the last page that is used, anything may be.
        setup.request_ring[8].set(page);
        assert_eq!(machine.order(command::SETUP_RINGS, setup.as_bytes()), 0);
        setup = good;
    }
}

// CVE-2017-8112: a message ring of no pages.
#[test]
fn a_message_ring_has_pages() {
    let mut machine = Machine::new();
    for pages in [0, 3, 17, 32, u32::MAX] {
        let mut setup = SetupMsgRing::default();
        setup.pages.set(pages);
        setup.ring[0].set(MESSAGES >> 12);
        let status = machine.order(command::SETUP_MSG_RING, setup.as_bytes());
        assert_eq!(status, command_status::FAILED, "{pages}");
        machine.bus.attach(at(1), unit(numbered())).unwrap();
        machine.run();
        let _ = machine.bus.detach(at(1));
        machine.run();
        assert_eq!(machine.state(state::MESSAGE_PRODUCER), 0);
    }
    machine.order(command::ADAPTER_RESET, &[]);
    // Before the other rings, there is no place to say where it is.
    let mut setup = SetupMsgRing::default();
    setup.pages.set(1);
    let status = machine.order(command::SETUP_MSG_RING, setup.as_bytes());
    assert_eq!(status, command_status::FAILED);
}

// CVE-2016-7156: the length has 64 bits, and a list of empty elements comes to an end.
#[test]
fn lengths_have_64_bits_and_lists_an_end() {
    let mut machine = Machine::new();
    let mut request = read10(1, 0, 1);
    request.data_len.set(1 << 32);
    assert_eq!(machine.carry_out(&request).host_status.get(), host_status::INVPARAM);
    request.data_len.set(u64::MAX);
    assert_eq!(machine.carry_out(&request).host_status.get(), host_status::INVPARAM);

    request.flags.set((RequestFlags::DIR_TO_HOST | RequestFlags::SG_LIST).bits());
    request.data_address.set(list_at(1));
    for len in [512, 1 << 32, u64::MAX] {
        request.data_len.set(len);
        // All of memory from there on is elements that lead to themselves, or are empty.
        machine.elements(list_at(1), &[(list_at(1), 0, SG_CHAIN)]);
        assert_eq!(machine.carry_out(&request).host_status.get(), host_status::INVPARAM);
        machine.elements(list_at(1), &[(0, 0, 0), (list_at(1), 0, SG_CHAIN)]);
        assert_eq!(machine.carry_out(&request).host_status.get(), host_status::INVPARAM);
        machine.fill(list_at(1), &[0; 0x10000]);
        assert_eq!(machine.carry_out(&request).host_status.get(), host_status::INVPARAM);
    }
}

// CVE-2025-41238: more elements than anybody expects.
#[test]
fn lists_are_as_long_as_the_header_file_allows_and_no_longer() {
    let mut machine = Machine::new();
    let mut request = read10(1, 0, 32);
    request.flags.set((RequestFlags::DIR_TO_HOST | RequestFlags::SG_LIST).bits());
    let lists = 0x80_0000;
    request.data_address.set(lists);
    // 16,384 of a byte each.
    let elements: Vec<_> = (0..16384).map(|index| (DATA + index, 1, 0)).collect();
    machine.elements(lists, &elements);
    let completion = machine.carry_out(&request);
    assert_eq!((completion.host_status.get(), completion.data_len.get()), (0, 16384));
    assert_eq!(machine.bytes(DATA + 31 * 512, 8), 31u64.to_le_bytes());
    // One more.
    machine.elements(lists, &[(DATA, 0, 0)]);
    machine.elements(lists + 16 * 16384, &[(DATA, 1, 0)]);
    assert_eq!(machine.carry_out(&request).host_status.get(), host_status::INVPARAM);
}

// A driver can have more data under way than a driver like Linux's ever has; the rest waits.
#[test]
fn what_requests_in_flight_hold_is_bounded() {
    let (mut machine, gate) = Machine::gated();
    let lists = 0x80_0000;
    let elements: Vec<_> = (0..16384).map(|index| (DATA + index, 1, 0)).collect();
    machine.elements(lists, &elements);
    for context in 1..=20 {
        let mut request = read10(context, 0, 32);
        request.flags.set((RequestFlags::DIR_TO_HOST | RequestFlags::SG_LIST).bits());
        request.data_address.set(lists);
        machine.submit(&request);
    }
    machine.run();
    assert_eq!(gate.held(), 8, "131,072 pieces");
    gate.release(1);
    machine.run();
    assert_eq!(machine.ended(), [(1, 0)]);
    assert_eq!(gate.held(), 8);
    gate.open();
    machine.run();
    assert_eq!(machine.ended().len(), 19);
}

// CVE-2016-7421: a producer index that is ahead of the ring.
#[test]
fn an_index_that_makes_no_sense_is_no_work() {
    let mut machine = Machine::new();
    machine.put(&read10(1, 0, 1));
    let good = machine.produced;
    for ahead in [ENTRIES, u32::MAX, 1 << 31, u32::MAX - 1] {
        machine.set_state(state::REQUEST_PRODUCER, good.wrapping_add(ahead));
        machine.run();
        assert!(machine.reap().is_empty());
    }
    // As many as there are places is sense.
    machine.set_state(state::REQUEST_PRODUCER, good);
    machine.run();
    assert_eq!(machine.ended(), [(1, 0)]);
    for context in 0..ENTRIES {
        machine.put(&read10(u64::from(context) + 1, 0, 1));
    }
    machine.run();
    assert_eq!(machine.reap().len(), ENTRIES as usize);
}

#[test]
fn the_completion_ring_is_never_overrun() {
    let mut machine = Machine::new();
    let mut setup = machine.setup(8);
    setup.completion_pages.set(1);
    machine.fill(STATE, &[0; 4096]);
    (machine.produced, machine.consumed) = (0, 0);
    assert_eq!(machine.order(command::SETUP_RINGS, setup.as_bytes()), 0);
    for context in 1..=200 {
        machine.submit(&read10(context, 0, 1));
    }
    machine.run();
    assert_eq!(machine.state(state::COMPLETION_PRODUCER), 128);
    // What has no room for its completion is not taken.
    assert_eq!(machine.state(state::REQUEST_CONSUMER), 128);
    assert_eq!(machine.reap().len(), 128);
    // The handler of a driver with INTx says that it was there, and wakes the worker.
    let rung = |machine: &Machine| machine.device.shared.bell.event().read().is_ok();
    rung(&machine);
    machine.write(register::INTR_STATUS, u32::MAX);
    assert!(rung(&machine));
    machine.run();
    assert_eq!(machine.reap().len(), 72);
    // For which there is no need now.
    machine.write(register::INTR_STATUS, u32::MAX);
    assert!(!rung(&machine));
    // A consumer index that makes no sense is no room.
    machine.set_state(state::COMPLETION_CONSUMER, machine.consumed.wrapping_add(1));
    machine.submit(&read10(1, 0, 1));
    machine.run();
    assert_eq!(machine.state(state::COMPLETION_PRODUCER), 200);
    machine.set_state(state::COMPLETION_CONSUMER, machine.consumed);
    machine.run();
    assert_eq!(machine.ended(), [(1, 0)]);
}

#[test]
fn what_is_in_flight_has_its_place_in_the_completion_ring() {
    let (mut machine, gate) = Machine::gated();
    let mut setup = machine.setup(8);
    setup.completion_pages.set(1);
    (machine.produced, machine.consumed) = (0, 0);
    assert_eq!(machine.order(command::SETUP_RINGS, setup.as_bytes()), 0);
    for context in 1..=200 {
        machine.submit(&read10(context, 0, 1));
    }
    machine.run();
    assert_eq!((gate.held(), machine.state(state::REQUEST_CONSUMER)), (128, 128));
    gate.release(28);
    machine.run();
    assert_eq!((gate.held(), machine.state(state::REQUEST_CONSUMER)), (100, 128));
    assert_eq!(machine.reap().len(), 28);
    gate.open();
    machine.run();
    assert_eq!(machine.state(state::REQUEST_CONSUMER), 156);
    assert_eq!(machine.reap().len(), 128);
    machine.run();
    assert_eq!(machine.reap().len(), 44);
}

// What the device has written to the page is not what it goes by.
#[test]
fn the_devices_own_fields_are_not_read_back() {
    let mut machine = Machine::new();
    for offset in [
        state::REQUEST_CONSUMER,
        state::REQUEST_ENTRIES_LOG2,
        state::COMPLETION_PRODUCER,
        state::COMPLETION_ENTRIES_LOG2,
    ] {
        machine.set_state(offset, 0xdead_beef);
    }
    let at = REQUESTS + u64::from(machine.produced % ENTRIES) * 128;
    machine.place(at, &read10(1, 3, 1));
    machine.produced += 1;
    machine.set_state(state::REQUEST_PRODUCER, machine.produced);
    machine.run();
    assert_eq!(machine.state(state::REQUEST_CONSUMER), machine.produced);
    assert_eq!(machine.state(state::COMPLETION_PRODUCER), machine.consumed + 1);
    assert_eq!(machine.bytes(data_at(1), 8), 3u64.to_le_bytes());
}

// QEMU e7ebf057e6: a kick after an adapter reset.
#[test]
fn a_kick_without_rings_is_ignored() {
    let mut machine = Machine::new();
    machine.order(command::ADAPTER_RESET, &[]);
    machine.put(&read10(1, 0, 1));
    for kick in [register::KICK_RW_IO, register::KICK_NON_RW_IO] {
        machine.write(kick, 0);
        machine.run();
    }
    assert!(machine.reap().is_empty());
    assert_eq!(machine.messages_sent(), 0);
}
