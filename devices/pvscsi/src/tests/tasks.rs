//! Aborts and resets: what they end is on the completion ring when the register write is over.

use paraslot_spec::pvscsi::command_status;

use super::*;

/// Three reads, held back by their backend.
fn held() -> (Machine, Gate) {
    let (mut machine, gate) = Machine::gated();
    for context in 1..=3 {
        machine.submit(&read10(context, context as u32, 1));
    }
    machine.run();
    assert_eq!(gate.held(), 3);
    (machine, gate)
}

#[test]
fn an_abort_ends_one_request() {
    let (mut machine, gate) = held();
    assert_eq!(machine.abort(2, 0), 0);
    assert_eq!(machine.ended(), [(2, host_status::ABORTQUEUE)]);
    assert_eq!(machine.messages_sent(), 1);
    gate.open();
    machine.run();
    assert_eq!(machine.ended(), [(1, 0), (3, 0)]);
    assert_eq!(machine.bytes(data_at(2), 8), [0; 8], "nothing was read");
}

#[test]
fn a_request_that_nobody_has_looked_at_yet_is_aborted() {
    let (mut machine, gate) = held();
    machine.put(&read10(4, 4, 1));
    machine.put(&read10(5, 5, 1));
    assert_eq!(machine.abort(4, 0), 0);
    assert_eq!(machine.ended(), [(4, host_status::ABORTQUEUE)]);
    gate.open();
    machine.run();
    assert_eq!(machine.ended(), [(1, 0), (2, 0), (3, 0), (5, 0)]);
}

// More than a round of the worker's takes.
#[test]
fn a_reset_reaches_the_whole_ring() {
    let (mut machine, gate) = held();
    for context in 4..=240 {
        machine.put(&read10(context, context as u32, 1));
    }
    assert_eq!(machine.reset_device(0), 0);
    let all: Vec<_> = (1..=240).map(|context| (context, host_status::BUSRESET)).collect();
    assert_eq!(machine.ended(), all);
    gate.open();
    machine.wait_ready(0);
    gate.close();
    for context in 1..=240 {
        machine.put(&read10(context, context as u32, 1));
    }
    assert_eq!(machine.abort(239, 0), 0);
    assert_eq!(machine.ended(), [(239, host_status::ABORTQUEUE)]);
    gate.open();
    machine.run();
    assert_eq!(machine.ended().len(), 239);
}

#[test]
fn an_abort_of_what_is_not_there_is_a_success() {
    let (mut machine, gate) = held();
    assert_eq!(machine.abort(77, 0), 0);
    // Another target's.
    assert_eq!(machine.abort(1, 1), 0);
    assert_eq!(machine.abort(1, 1 << 8), command_status::FAILED);
    assert!(machine.reap().is_empty());
    // One that has ended, but is not seen yet.
    gate.release(1);
    assert_eq!(machine.abort(1, 0), 0);
    let ended = machine.ended();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].0, 1);
}

#[test]
fn a_device_reset_ends_the_requests_of_a_device() {
    let (mut machine, gate) = Machine::gated();
    machine.bus.attach(at(1), unit(numbered())).unwrap();
    machine.wait_ready(1);
    for context in 1..=3 {
        machine.submit(&read10(context, context as u32, 1));
    }
    machine.run();
    // Nobody has looked at this one.
    machine.put(&write10(4, 9, 1));
    assert_eq!(machine.reset_device(0), 0);
    let reset = host_status::BUSRESET;
    assert_eq!(machine.ended(), [(1, reset), (2, reset), (3, reset), (4, reset)]);
    gate.open();
    machine.run();
    assert!(machine.reap().is_empty());
    // The device tells, the other does not.
    let ready = |context, target| {
        let mut request = request(context, &[opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0]);
        request.target = target;
        request
    };
    assert_eq!(machine.carry_out(&ready(6, 1)).scsi_status.get(), GOOD);
    assert_eq!(machine.carry_out(&ready(5, 0)).scsi_status.get(), CHECK);
    assert_eq!(machine.bytes(sense_at(5) + 2, 1), [6]);
    assert_eq!(machine.bytes(sense_at(5) + 12, 1), [0x29]);
    assert_eq!(machine.carry_out(&read10(7, 9, 1)).scsi_status.get(), GOOD);
    assert_eq!(machine.bytes(data_at(7), 8), 9u64.to_le_bytes(), "nothing was written");
}

#[test]
fn a_bus_reset_ends_all_requests() {
    let (mut machine, gate) = held();
    machine.put(&request(9, &[opcode::SYNCHRONIZE_CACHE_10, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(machine.order(command::RESET_BUS, &[]), 0);
    let ended = machine.ended();
    assert_eq!(ended.len(), 4);
    assert!(ended[..3].iter().all(|(_, status)| *status == host_status::BUSRESET));
    gate.open();
    machine.run();
    assert!(machine.reap().is_empty());
    machine.wait_ready(0);
}

// Linux's pvscsi_host_reset takes what is on the ring after the reset, ends the rest itself, and sets
// up the rings anew.
#[test]
fn an_adapter_reset_ends_all_and_forgets_the_rings() {
    let (mut machine, gate) = held();
    machine.put(&read10(4, 4, 1));
    machine.write(register::KICK_NON_RW_IO, 0);
    assert_eq!(machine.order(command::ADAPTER_RESET, &[]), 0);
    let reset = host_status::BUSRESET;
    assert_eq!(machine.ended(), [(1, reset), (2, reset), (3, reset), (4, reset)]);
    // Nobody was interrupted.
    assert_eq!(machine.messages_sent(), 0);
    assert_eq!(machine.read(register::INTR_STATUS), 0);
    machine.set_up_rings(PAGES);
    gate.open();
    machine.run();
    assert!(machine.reap().is_empty());
    machine.wait_ready(0);
    assert_eq!(machine.carry_out(&read10(1, 5, 1)).host_status.get(), 0);
}

// The backend cannot stop what it has begun.
#[test]
fn what_an_abort_does_not_end_in_time_is_told_later() {
    let (mut machine, gate) = held();
    gate.deafen(true);
    assert_eq!(machine.abort(2, 0), command_status::FAILED);
    assert!(machine.reap().is_empty());
    gate.release_at(1);
    machine.run();
    assert_eq!(machine.ended(), [(2, host_status::ABORTQUEUE)]);
}

// Linux's driver requeues what a reset has not completed by the time that it is over: told later, it
// would end the request that has taken its place.
#[test]
fn what_a_reset_does_not_end_in_time_is_told_at_once_and_no_more() {
    for bus in [false, true] {
        let (mut machine, gate) = held();
        gate.deafen(true);
        let status =
            if bus { machine.order(command::RESET_BUS, &[]) } else { machine.reset_device(0) };
        assert_eq!(status, command_status::FAILED);
        let reset = host_status::BUSRESET;
        assert_eq!(machine.ended(), [(1, reset), (2, reset), (3, reset)]);
        gate.open();
        machine.run();
        assert!(machine.reap().is_empty(), "each ends once");
        machine.wait_ready(0);
        for context in 1..=3 {
            assert_eq!(machine.carry_out(&read10(context, 5, 1)).host_status.get(), 0);
        }
    }
}

#[test]
fn what_is_late_after_an_adapter_reset_is_silent() {
    let (mut machine, gate) = held();
    gate.deafen(true);
    assert_eq!(machine.order(command::ADAPTER_RESET, &[]), command_status::FAILED);
    assert!(machine.reap().is_empty());
    machine.set_up_rings(PAGES);
    let before = machine.bytes(STATE, 4096);
    gate.open();
    machine.run();
    assert_eq!(machine.bytes(STATE, 4096), before);
    assert_eq!(machine.messages_sent(), 0);
    machine.wait_ready(0);
    for context in 1..=3 {
        assert_eq!(machine.carry_out(&read10(context, 5, 1)).host_status.get(), 0);
    }
}

// New rings without a reset: what was in flight for those of before is not told in these.
#[test]
fn new_rings_know_nothing_of_old_requests() {
    let (mut machine, gate) = held();
    machine.set_up_rings(PAGES);
    gate.open();
    machine.run();
    assert!(machine.reap().is_empty());
    assert_eq!(machine.carry_out(&read10(1, 5, 1)).host_status.get(), 0);
}
