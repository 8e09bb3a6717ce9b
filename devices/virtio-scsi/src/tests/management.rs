//! Task management: what it ends, what it says, and in which order the driver sees that.

use paraslot_spec::virtio_scsi::tmf;

use super::*;

const UNIT: Address = Address { target: 0, lun: 0 };
const LUN: Lun = Lun::new(0, 0);

fn read(host: &mut Host, unit: Address) -> Pending {
    host.write(DATA, &[POISON; 512]);
    host.add(unit, &read_10(0, 1), &[Buffer::writable(DATA, 512)])
}

// inline.scsi.11, inline.scsi.12, scsi.requestq.2c: the command that is named is ended, and no other;
// the driver hears of it before it hears of the function.
#[test]
fn a_command_is_aborted() {
    let (mut host, gate) = Host::held();
    let first = read(&mut host, UNIT);
    let second = read(&mut host, UNIT);
    host.run();
    assert_eq!(gate.held(), 2);
    assert_eq!(host.tmf(tmf::ABORT_TASK, LUN, second.id), response::FUNCTION_COMPLETE);
    assert_eq!(gate.held(), 1);
    let answer = host.take(second);
    assert_eq!((answer.response, answer.residual), (response::ABORTED, 512));
    assert_eq!((answer.status, answer.written), (0, BACK));
    assert!(host.quiet(0));
    assert_eq!(host.read(DATA, 512), [POISON; 512]);
    gate.open();
    assert!(host.finish(first).is_good());
    // What is over, or was never there, is not found, and that is all right.
    assert_eq!(host.tmf(tmf::ABORT_TASK, LUN, first.id), response::FUNCTION_COMPLETE);
    assert_eq!(host.tmf(tmf::ABORT_TASK, LUN, 0), response::FUNCTION_COMPLETE);
}

// inline.scsi.12: while the backend does not let go, neither is over.
#[test]
fn a_function_waits_for_what_it_ends() {
    let (mut host, gate) = Host::held();
    gate.deafen(true);
    let command = read(&mut host, UNIT);
    host.run();
    let abort = host.add_tmf(tmf::ABORT_TASK, LUN, command.id);
    host.run();
    assert_eq!(host.tmf_response(abort), None);
    assert!(host.quiet(0));
    // Others are not held up by it.
    assert_eq!(host.tmf_after(abort, tmf::QUERY_TASK_SET), response::FUNCTION_SUCCEEDED);
    gate.release(1);
    // The request queue's worker has told the driver before the control queue's has anything to tell.
    let before = host.first().ring.used_idx();
    while host.first().ring.used_idx() == before {
        let _ = host.control().worker.service();
        assert_eq!(host.tmf_response(abort), None);
        let _ = host.first().worker.service();
    }
    assert_eq!(host.tmf_response(abort), None);
    let answer = host.take(command);
    assert_eq!(answer.response, response::ABORTED);
    host.run();
    assert_eq!(host.tmf_response(abort), Some(response::FUNCTION_COMPLETE));
}

impl Host {
    /// A function that overtakes `earlier`, which is under way.
    fn tmf_after(&mut self, earlier: Pending, subtype: u32) -> u8 {
        let pending = self.add_tmf(subtype, LUN, 0);
        self.run();
        let (head, _) = self.control().ring.used().expect("an answer");
        assert!(head == pending.head && head != earlier.head);
        self.read(pending.back, 1)[0]
    }
}

// inline.scsi.12: what was made available before the function was is found, however much it is, and
// although no worker had looked at it yet.
#[test]
fn commands_that_were_not_taken_yet_are_found() {
    let backend = GatedBackend::new(memory(64));
    let gate = backend.gate();
    let bus = bus();
    bus.attach(UNIT, disk(backend)).unwrap();
    let options = Options { queue_size: 256, request_queues: 2, ..Options::default() };
    let mut host = Host::new(bus, &options, ALL);
    gate.open();
    host.ready(UNIT);
    gate.close();
    let commands: Vec<Pending> = (0..100)
        .map(|index| {
            let data = [Buffer::writable(DATA, 512)];
            host.add_on(index % 2, LUN, &read_10(0, 1), &[], &data)
        })
        .collect();
    let abort = host.add_tmf(tmf::ABORT_TASK_SET, LUN, 0);
    assert_eq!(host.control().worker.service(), Progress::More);
    host.run();
    assert_eq!(host.tmf_response(abort), Some(response::FUNCTION_COMPLETE));
    assert_eq!(gate.held(), 0);
    let mut ended = 0;
    for queue in [2, 3] {
        while let Some((head, written)) = host.ports[queue].ring.used() {
            let of_head = |one: &&Pending| (one.queue, one.head) == (queue, head);
            let pending = *commands.iter().find(of_head).unwrap();
            assert_eq!(host.answer(pending, written).response, response::ABORTED);
            ended += 1;
        }
    }
    assert_eq!(ended, 100);
}

// inline.scsi.10, scsi.requestq.2e
#[test]
fn resets_end_all_commands_there() {
    for (subtype, lun) in [
        (tmf::LOGICAL_UNIT_RESET, LUN),
        (tmf::I_T_NEXUS_RESET, LUN),
        // The unit does not matter to a function for a whole target.
        (tmf::I_T_NEXUS_RESET, Lun([1, 0, 0xff, 0xff, 1, 2, 3, 4])),
    ] {
        let (mut host, gate) = Host::held();
        let (other, other_gate) = gated(64);
        host.bus.attach(at(1, 0), other).unwrap();
        other_gate.open();
        host.ready(at(1, 0));
        other_gate.close();
        let commands = [read(&mut host, UNIT), read(&mut host, UNIT)];
        let elsewhere = read(&mut host, at(1, 0));
        host.run();
        assert_eq!((gate.held(), other_gate.held()), (2, 1));
        assert_eq!(host.tmf(subtype, lun, 0), response::FUNCTION_COMPLETE);
        assert_eq!((gate.held(), other_gate.held()), (0, 1));
        for _ in &commands {
            let (head, written) = host.first().ring.used().unwrap();
            let pending = *commands.iter().find(|one| one.head == head).unwrap();
            let answer = host.answer(pending, written);
            assert_eq!((answer.response, answer.residual), (response::RESET, 512));
        }
        assert!(host.quiet(0));
        other_gate.open();
        assert!(host.finish(elsewhere).is_good());
        // The unit says that it was reset.
        gate.open();
        assert_eq!(host.request(UNIT, &TEST_UNIT_READY, &[]).code().1, 0x29);
    }
}

// inline.scsi.11
#[test]
fn task_sets_are_aborted_and_cleared() {
    for subtype in [tmf::ABORT_TASK_SET, tmf::CLEAR_TASK_SET] {
        let (mut host, gate) = Host::held();
        let commands = [read(&mut host, UNIT), read(&mut host, UNIT)];
        host.run();
        assert_eq!(host.tmf(subtype, LUN, 0), response::FUNCTION_COMPLETE);
        assert_eq!(gate.held(), 0);
        for _ in &commands {
            let (head, written) = host.first().ring.used().unwrap();
            let pending = *commands.iter().find(|one| one.head == head).unwrap();
            assert_eq!(host.answer(pending, written).response, response::ABORTED);
        }
        assert!(host.quiet(0));
    }
}

#[test]
fn queries_find_what_is_there() {
    let (mut host, gate) = Host::held();
    assert_eq!(host.tmf(tmf::QUERY_TASK_SET, LUN, 0), response::FUNCTION_COMPLETE);
    let command = read(&mut host, UNIT);
    host.run();
    assert_eq!(host.tmf(tmf::QUERY_TASK, LUN, command.id), response::FUNCTION_SUCCEEDED);
    assert_eq!(host.tmf(tmf::QUERY_TASK, LUN, command.id + 1), response::FUNCTION_COMPLETE);
    assert_eq!(host.tmf(tmf::QUERY_TASK_SET, LUN, 0), response::FUNCTION_SUCCEEDED);
    assert_eq!(gate.held(), 1);
    gate.open();
    assert!(host.finish(command).is_good());
    assert_eq!(host.tmf(tmf::QUERY_TASK, LUN, command.id), response::FUNCTION_COMPLETE);
    assert_eq!(host.tmf(tmf::CLEAR_ACA, LUN, 0), response::FUNCTION_COMPLETE);
}

#[test]
fn functions_that_concern_nobody() {
    let mut host = Host::simple(memory(8));
    for subtype in 0..8 {
        let nexus = subtype == tmf::I_T_NEXUS_RESET;
        let elsewhere = if nexus { response::FUNCTION_COMPLETE } else { response::INCORRECT_LUN };
        assert_eq!(host.tmf(subtype, Lun::new(0, 1), 0), elsewhere, "{subtype}");
        assert_eq!(host.tmf(subtype, Lun::new(9, 0), 0), response::BAD_TARGET, "{subtype}");
        assert_eq!(host.tmf(subtype, Lun([0; 8]), 0), response::BAD_TARGET, "{subtype}");
        let well_known = if nexus { response::BAD_TARGET } else { response::FUNCTION_REJECTED };
        assert_eq!(host.tmf(subtype, Lun::REPORT_LUNS, 0), well_known, "{subtype}");
    }
    for subtype in [8, 100, u32::MAX] {
        assert_eq!(host.tmf(subtype, LUN, 0), response::FUNCTION_REJECTED);
    }
}

// There are no asynchronous notifications.
#[test]
fn there_is_nothing_to_be_notified_of() {
    let mut host = Host::simple(memory(8));
    for kind in [control::AN_QUERY, control::AN_SUBSCRIBE] {
        assert_eq!(host.notifications(kind, LUN), (0, response::OK));
        assert_eq!(host.notifications(kind, Lun::REPORT_LUNS), (0, response::OK));
        assert_eq!(host.notifications(kind, Lun::new(0, 1)), (0, response::INCORRECT_LUN));
        assert_eq!(host.notifications(kind, Lun::new(9, 0)), (0, response::BAD_TARGET));
        assert_eq!(host.notifications(kind, Lun([0; 8])), (0, response::BAD_TARGET));
    }
}

// QEMU 6910f04aa6, be2c42b97c: many functions at once, answered in any order, each once.
#[test]
fn many_functions_at_once() {
    let (mut host, gate) = Host::held();
    gate.deafen(true);
    let commands: Vec<Pending> = (0..20).map(|_| read(&mut host, UNIT)).collect();
    host.run();
    let aborts: Vec<Pending> =
        commands.iter().map(|one| host.add_tmf(tmf::ABORT_TASK, LUN, one.id)).collect();
    host.run();
    assert_eq!(host.control().ring.used(), None);
    for left in (0..20).rev() {
        gate.release_at(left);
        host.run();
        let answer = host.take(commands[left]);
        assert_eq!(answer.response, response::ABORTED);
        assert_eq!(host.tmf_response(aborts[left]), Some(response::FUNCTION_COMPLETE));
    }
    assert_eq!(host.control().ring.used(), None);
}

// QEMU 4382f167cf, 1604c04931, cfd4e36352: a unit that is taken away ends its commands; those that
// come later find nobody.
#[test]
fn a_unit_is_taken_away_from_its_commands() {
    let (mut host, gate) = Host::held();
    let command = read(&mut host, UNIT);
    host.run();
    let ticket = host.bus.detach(UNIT).unwrap();
    assert_eq!(ticket.response(), None);
    let late = read(&mut host, UNIT);
    host.run();
    assert!(ticket.response().is_some());
    assert_eq!(gate.held(), 0);
    let mut answers = Vec::new();
    while let Some((head, written)) = host.first().ring.used() {
        let pending = if head == command.head { command } else { late };
        answers.push((head, host.answer(pending, written).response));
    }
    assert!(answers.contains(&(command.head, response::RESET)), "{answers:?}");
    assert!(answers.contains(&(late.head, response::BAD_TARGET)), "{answers:?}");
    assert_eq!(answers.len(), 2);
    assert_eq!(host.tmf(tmf::ABORT_TASK_SET, LUN, 0), response::BAD_TARGET);
}

// Beyond the buffers that may be in flight, commands are told to try again: a function must see every
// command, and may not have the device hold whatever a driver makes available.
#[test]
fn task_management_is_not_held_up_by_back_pressure() {
    let backend = GatedBackend::new(memory(4096));
    let gate = backend.gate();
    let bus = bus();
    bus.attach(UNIT, disk(backend)).unwrap();
    let options = Options { queue_size: 64, ..Options::default() };
    let mut host = Host::new(bus, &options, ALL);
    gate.open();
    host.ready(UNIT);
    gate.close();
    // Each with a thousand buffers, by a table of its own.
    let commands: Vec<Pending> = (0..20)
        .map(|index| {
            let (front, back, id) = host.frame(LUN, &read_10(0, 1000));
            let mut chain = vec![front, back];
            chain.extend((0..1000).map(|_| Buffer::writable(DATA, 512)));
            let head = host.first().ring.add_indirect(0x8_0000 + index * 0x4000, &chain);
            Pending { queue: usize::from(FIRST_REQUEST_QUEUE), head, back: back.address, id }
        })
        .collect();
    host.run();
    // 1002 buffers each: the 17th was taken when there were 16032.
    assert_eq!((gate.held(), host.quiet(0)), (17, true));
    let abort = host.add_tmf(tmf::ABORT_TASK_SET, LUN, 0);
    host.run();
    assert_eq!(host.tmf_response(abort), Some(response::FUNCTION_COMPLETE));
    assert_eq!(gate.held(), 0);
    let mut answers = Vec::new();
    while let Some((head, written)) = host.first().ring.used() {
        let pending = *commands.iter().find(|one| one.head == head).unwrap();
        assert_eq!(written, BACK);
        answers.push(host.answer(pending, written).response);
    }
    assert_eq!(answers, [[response::BUSY; 3].as_slice(), &[response::ABORTED; 17]].concat());
    assert_eq!(host.resets(), 0);
    // There is room again.
    gate.open();
    assert_eq!(host.load(UNIT, 0, 1), [0]);
}

// CVE-2026-45782, and the same name for several commands.
#[test]
fn names_need_not_be_different() {
    let (mut host, gate) = Host::held();
    let commands: Vec<Pending> = (0..3).map(|_| read(&mut host, UNIT)).collect();
    for one in &commands {
        let front = one.back - BACKS + FRONTS;
        host.write(front + 8, &77u64.to_le_bytes());
    }
    host.run();
    assert_eq!(host.tmf(tmf::QUERY_TASK, LUN, 77), response::FUNCTION_SUCCEEDED);
    assert_eq!(host.tmf(tmf::ABORT_TASK, LUN, 77), response::FUNCTION_COMPLETE);
    let mut ended = 0;
    while host.first().ring.used().is_some() {
        ended += 1;
    }
    assert_eq!((ended + gate.held(), ended >= 1), (3, true));
}
