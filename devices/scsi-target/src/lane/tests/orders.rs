//! Task management.

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::block::BlockOp;
use paraslot_backends::block::testing::{Gate, GatedBackend, GuestPages};
use paraslot_device::dma::Direction;
use paraslot_device::{Bell, DmaBuffers};

use super::rig::{BLOCK, GOOD, HERE, Rig, bus, command, image, outcomes, round, rounds, unit};
use crate::command::{Completion, Outcome, Status};
use crate::lane::Lane;
use crate::plan::Plan;
use crate::{Address, Bus, Function, Response};

const ELSEWHERE: Address = Address { target: 0, lun: 5 };

fn gated() -> (Rig, Gate) {
    let gated = GatedBackend::new(image());
    let gate = gated.gate();
    (Rig::new(gated), gate)
}

/// Another bus and lane with the unit of `rig`.
fn second(rig: &Rig) -> (Bus, Lane) {
    let other = bus("two");
    other.attach(HERE, rig.bus.unit(HERE).unwrap()).unwrap();
    other.power_on();
    let lane = other.open_lane(8).unwrap();
    (other, lane)
}

/// An additional sense code and its qualifier, if there is an attention.
type Attention = Option<(u8, u8)>;

/// What TEST UNIT READY says: the attention, if there is one.
fn attention(lane: &mut Lane, address: Address) -> Attention {
    let data = DmaBuffers::empty(Direction::ToDevice);
    lane.submit(command(99, address, &[0; 6], data));
    match rounds(lane).remove(0).outcome {
        Outcome::Ended { status: Status::CheckCondition, sense: Some(sense) } => {
            assert_eq!(sense.key, 6);
            Some((sense.asc, sense.ascq))
        }
        Outcome::Ended { status: Status::Good, sense: None } => None,
        other => panic!("{other:?}"),
    }
}

/// Has everyone forget the attentions that they start with.
fn calm(lane: &mut Lane, address: Address) {
    for _ in 0..4 {
        if attention(lane, address).is_none() {
            return;
        }
    }
    panic!("attentions without end");
}

// inline.scsi.12/13: the response of a task management function comes after the completions of the
// commands that it has ended have been told.
#[test]
fn an_aborted_command_ends_before_the_function_does() {
    let (mut rig, gate) = gated();
    for token in 0..3 {
        rig.lane.read_block(&rig.guest, token, 10 + token, token);
    }
    rig.lane.commit();
    assert!(!rig.lane.ordered());
    let ticket = rig.bus.manage(Function::AbortTask { address: HERE, tag: 11 }, None);
    assert!(rig.lane.ordered());
    let mut completions = Vec::new();
    rig.lane.complete(&mut completions);
    rig.lane.settle();
    assert!(completions.is_empty(), "not before `obey`");
    rig.lane.obey();
    assert!(!rig.lane.ordered());
    rig.lane.settle();
    assert_eq!(ticket.response(), None, "the guest cannot have been told");
    rig.lane.commit();
    rig.lane.complete(&mut completions);
    assert_eq!(outcomes(completions), [(1, Outcome::Aborted)]);
    assert_eq!(ticket.response(), None, "the guest may not have been told");
    rig.lane.settle();
    assert_eq!(ticket.response(), Some(Response::Complete));
    assert_eq!(rig.lane.in_flight(), 2);
    gate.open();
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(0, GOOD), (2, GOOD)]);
}

// QEMU 6910f04aa6: a backend that cannot cancel is waited for, and no guest byte changes
// after the command has been reported.
#[test]
fn nothing_is_written_once_a_command_is_reported_aborted() {
    let (mut rig, gate) = gated();
    gate.deafen(true);
    rig.guest.write(0, &[0xee; 4096]);
    rig.lane.read_block(&rig.guest, 1, 1, 1);
    rig.lane.read_block(&rig.guest, 2, 2, 2);
    let ticket = rig.bus.manage(Function::LogicalUnitReset(HERE), None);
    assert!(rounds(&mut rig.lane).is_empty(), "the backend has it still");
    assert_eq!(ticket.response(), None);
    gate.release(1);
    let completions = rounds(&mut rig.lane);
    assert_eq!(outcomes(completions), [(1, Outcome::Reset)]);
    assert_eq!(ticket.response(), None, "the other is there still");
    rig.guest.write(0, &[0xdd; 4096]);
    gate.deafen(false);
    let ticket = rig.bus.manage(Function::AbortTaskSet(HERE), None);
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(2, Outcome::Reset)], "the first order has it");
    assert_eq!(ticket.response(), Some(Response::Complete));
    gate.open();
    assert!(rounds(&mut rig.lane).is_empty());
    assert_eq!(rig.guest.read(0, 4096), [0xdd; 4096]);
}

#[test]
fn what_has_not_gone_to_the_backend_is_dropped() {
    let gated = GatedBackend::new(image());
    let gate = gated.gate();
    let mut rig = Rig::with_depth(gated, 4);
    // Fills the queue, so that the rest waits.
    let none = || DmaBuffers::empty(Direction::ToDevice);
    let ranges = (0..8).map(|number| (number * 512, 512)).collect();
    rig.lane.begin_at(HERE, 1, 1, none(), Plan::Unmap { ranges, zero: false });
    rig.lane.read_block(&rig.guest, 2, 2, 1);
    rig.lane.begin_at(
        HERE,
        3,
        3,
        none(),
        Plan::WriteZeroes { offset: 0, len: 512, unmap: false, fua: true },
    );
    assert_eq!(gate.held(), 4);
    rig.bus.manage(Function::AbortTask { address: HERE, tag: 2 }, None);
    rig.bus.manage(Function::AbortTask { address: HERE, tag: 3 }, None);
    let ended = outcomes(rounds(&mut rig.lane));
    assert_eq!(ended, [(2, Outcome::Aborted), (3, Outcome::Aborted)]);
    rig.bus.manage(Function::AbortTask { address: HERE, tag: 1 }, None);
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(1, Outcome::Aborted)]);
    assert_eq!(gate.held(), 0, "all four were cancelled, and no fifth came");
    // All of it can be used again.
    gate.open();
    for token in 0..4 {
        rig.lane.read_block(&rig.guest, token, token, token);
    }
    assert_eq!(rounds(&mut rig.lane).len(), 4);
}

#[test]
fn functions_reach_those_they_name() {
    let (mut rig, gate) = gated();
    rig.bus.attach(ELSEWHERE, unit(GatedBackend::new(image()))).unwrap();
    let (other, mut two) = second(&rig);
    let start = |rig: &mut Rig, two: &mut Lane| {
        rig.lane.read_block(&rig.guest, 1, 1, 1);
        rig.lane.read_block(&rig.guest, 2, 2, 1);
        let data = rig.input(0, BLOCK);
        rig.lane.begin_at(ELSEWHERE, 3, 1, data, Plan::Read { offset: 0, len: 512 });
        two.read_block(&rig.guest, 4, 1, 1);
    };
    let cases: [(Function, &[u64], &[u64], Outcome); 7] = [
        (Function::AbortTask { address: HERE, tag: 1 }, &[1], &[], Outcome::Aborted),
        (Function::AbortTask { address: ELSEWHERE, tag: 1 }, &[3], &[], Outcome::Aborted),
        (Function::AbortTaskSet(HERE), &[1, 2], &[], Outcome::Aborted),
        (Function::ClearTaskSet(HERE), &[1, 2], &[4], Outcome::Aborted),
        (Function::LogicalUnitReset(HERE), &[1, 2], &[4], Outcome::Reset),
        (Function::NexusReset { target: 0 }, &[1, 2, 3], &[], Outcome::Reset),
        (Function::ResetAll, &[1, 2, 3], &[4], Outcome::Reset),
    ];
    for (function, mine, others, outcome) in cases {
        start(&mut rig, &mut two);
        let ticket = rig.bus.manage(function, None);
        let all = |tokens: &[u64]| {
            tokens.iter().map(|token| (*token, outcome.clone())).collect::<Vec<_>>()
        };
        assert_eq!(outcomes(rounds(&mut rig.lane)), all(mine), "{function:?}");
        let done = ticket.response();
        assert_eq!(done.is_none(), !others.is_empty() || two.ordered(), "{function:?}");
        assert_eq!(outcomes(rounds(&mut two)), all(others), "{function:?}");
        assert_eq!(ticket.response(), Some(Response::Complete));
        // Away with the rest.
        rig.bus.manage(Function::ResetAll, None);
        let left = rounds(&mut rig.lane).len() + rounds(&mut two).len();
        assert_eq!(left, 4 - mine.len() - others.len());
    }
    assert_eq!(gate.held(), 0);
    drop(other);
}

#[test]
fn queries_find_what_is_there() {
    let (mut rig, gate) = gated();
    rig.lane.read_block(&rig.guest, 1, 0xabc, 1);
    let cases = [
        (Function::QueryTask { address: HERE, tag: 0xabc }, Response::Succeeded),
        (Function::QueryTask { address: HERE, tag: 1 }, Response::Complete),
        (Function::QueryTaskSet(HERE), Response::Succeeded),
    ];
    for (function, response) in cases {
        let ticket = rig.bus.manage(function, None);
        assert!(rounds(&mut rig.lane).is_empty());
        assert_eq!(ticket.response(), Some(response), "{function:?}");
    }
    gate.open();
    assert_eq!(rounds(&mut rig.lane).len(), 1);
    let ticket = rig.bus.manage(Function::QueryTaskSet(HERE), None);
    assert!(rounds(&mut rig.lane).is_empty());
    assert_eq!(ticket.response(), Some(Response::Complete));
}

#[test]
fn what_is_not_there_is_answered_at_once() {
    let (mut rig, _gate) = gated();
    let bell = Arc::new(Bell::new().unwrap());
    bell.answer();
    let lun = Address { target: 0, lun: 1 };
    let target = Address { target: 1, lun: 0 };
    let cases = [
        (Function::AbortTask { address: lun, tag: 1 }, Response::IncorrectLun),
        (Function::AbortTask { address: target, tag: 1 }, Response::NoTarget),
        (Function::AbortTaskSet(lun), Response::IncorrectLun),
        (Function::ClearTaskSet(target), Response::NoTarget),
        (Function::LogicalUnitReset(lun), Response::IncorrectLun),
        (Function::NexusReset { target: 1 }, Response::NoTarget),
        (Function::QueryTask { address: lun, tag: 1 }, Response::IncorrectLun),
        (Function::QueryTaskSet(target), Response::NoTarget),
        (Function::ClearAca(target), Response::NoTarget),
        (Function::ClearAca(HERE), Response::Complete),
    ];
    for (function, response) in cases {
        let ticket = rig.bus.manage(function, Some(bell.clone()));
        assert_eq!(ticket.response(), Some(response), "{function:?}");
        assert!(bell.answer(), "{function:?}");
        assert!(!rig.lane.ordered());
    }
    assert!(!rig.lane.prepare_to_wait());
}

// What is asked for while the worker takes what was available may be about a command that came too
// late for that: it is carried out after the worker has looked again.
#[test]
fn an_order_finds_what_was_available_before_it_was_given() {
    let (mut rig, gate) = gated();
    let abort = |tag| Function::AbortTask { address: HERE, tag };
    let first = rig.bus.manage(abort(1), None);
    assert!(rig.lane.ordered());
    // The worker has looked, and found nothing.
    let second = rig.bus.manage(abort(2), None);
    rig.lane.obey();
    rig.lane.complete(&mut Vec::new());
    rig.lane.settle();
    assert_eq!((first.response(), second.response()), (Some(Response::Complete), None));
    assert!(rig.lane.prepare_to_wait());
    assert!(rig.lane.ordered());
    rig.lane.read_block(&rig.guest, 7, 2, 0);
    rig.lane.obey();
    let mut completions = Vec::new();
    rig.lane.commit();
    rig.lane.complete(&mut completions);
    rig.lane.settle();
    assert_eq!(outcomes(completions), [(7, Outcome::Aborted)]);
    assert_eq!((second.response(), gate.held()), (Some(Response::Complete), 0));
    assert!(!rig.lane.ordered());
}

#[test]
fn the_bell_rings_and_waiters_wake_when_it_is_done() {
    let (mut rig, _gate) = gated();
    let bell = Arc::new(Bell::new().unwrap());
    bell.answer();
    rig.lane.read_block(&rig.guest, 1, 1, 1);
    let ticket = rig.bus.manage(Function::AbortTaskSet(HERE), Some(bell.clone()));
    assert_eq!(ticket.wait(Duration::ZERO), None);
    let waiter = {
        let ticket = ticket.clone();
        std::thread::spawn(move || ticket.wait(Duration::from_secs(60)))
    };
    rig.lane.obey();
    rig.lane.complete(&mut Vec::new());
    assert!(!bell.answer());
    rig.lane.settle();
    assert!(bell.answer());
    assert_eq!(waiter.join().unwrap(), Some(Response::Complete));
}

#[test]
fn without_lanes_there_is_nothing_to_wait_for() {
    let bus = bus("one");
    bus.attach(HERE, unit(image())).unwrap();
    let ticket = bus.manage(Function::LogicalUnitReset(HERE), None);
    assert_eq!(ticket.response(), Some(Response::Complete));
    let lane = bus.open_lane(1).unwrap();
    let ticket = bus.manage(Function::AbortTaskSet(HERE), None);
    assert_eq!(ticket.response(), None, "a lane that does not run may have commands");
    drop(lane);
    assert_eq!(ticket.response(), Some(Response::Complete));
}

// A lane that is dropped with an order half done, or not begun, holds nothing up.
#[test]
fn a_dropped_lane_counts_as_done() {
    for obey in [false, true] {
        let (mut rig, gate) = gated();
        gate.deafen(true);
        rig.lane.read_block(&rig.guest, 1, 1, 1);
        let ticket = rig.bus.manage(Function::LogicalUnitReset(HERE), None);
        if obey {
            assert!(round(&mut rig.lane).is_empty());
        }
        assert_eq!(ticket.response(), None);
        drop(rig.lane);
        assert_eq!(ticket.response(), Some(Response::Complete));
        assert_eq!(gate.held(), 0);
    }
}

#[test]
fn resets_leave_their_attentions() {
    let cases: [(Function, Attention, Attention); 6] = [
        (Function::AbortTaskSet(HERE), None, None),
        (Function::ClearTaskSet(HERE), None, Some((0x2f, 0))),
        (Function::LogicalUnitReset(HERE), Some((0x29, 3)), Some((0x29, 3))),
        (Function::NexusReset { target: 0 }, Some((0x29, 7)), None),
        (Function::ResetAll, Some((0x29, 2)), Some((0x29, 2))),
        (Function::ClearAca(HERE), None, None),
    ];
    for (function, mine, others) in cases {
        let (mut rig, _gate) = gated();
        let (_other, mut two) = second(&rig);
        calm(&mut rig.lane, HERE);
        calm(&mut two, HERE);
        two.read_block(&rig.guest, 4, 1, 1);
        let ticket = rig.bus.manage(function, None);
        rounds(&mut rig.lane);
        rounds(&mut two);
        assert_eq!(ticket.response(), Some(Response::Complete));
        assert_eq!(attention(&mut rig.lane, HERE), mine, "{function:?}");
        rig.bus.manage(Function::AbortTaskSet(HERE), None);
        assert_eq!(attention(&mut two, HERE), others, "{function:?}");
    }
}

// Whose commands were not ended has nothing to hear of.
#[test]
fn clear_task_set_tells_only_those_it_concerned() {
    let (mut rig, _gate) = gated();
    let (_other, mut two) = second(&rig);
    calm(&mut rig.lane, HERE);
    calm(&mut two, HERE);
    rig.lane.read_block(&rig.guest, 1, 1, 1);
    rig.bus.manage(Function::ClearTaskSet(HERE), None);
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(1, Outcome::Aborted)]);
    assert_eq!(attention(&mut two, HERE), None);
    assert_eq!(attention(&mut rig.lane, HERE), None);
}

// PREEMPT AND ABORT: the command that asks for it is not over before theirs are, and is not ended by
// its own doing.
#[test]
fn a_preempting_command_waits_for_those_it_preempts() {
    let (mut rig, gate) = gated();
    gate.deafen(true);
    let (_other, mut two) = second(&rig);
    two.read_block(&rig.guest, 1, 1, 1);
    rig.lane.read_block(&rig.guest, 2, 2, 1);
    let none = DmaBuffers::empty(Direction::ToDevice);
    let nexuses = rig.bus.unit(HERE).unwrap().nexuses();
    assert_eq!(nexuses.len(), 2);
    rig.lane.begin_at(HERE, 3, 3, none, Plan::Abort(nexuses));
    assert!(rounds(&mut rig.lane).is_empty());
    assert!(!rig.lane.is_quiet());
    gate.release_at(1);
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(2, Outcome::Aborted)]);
    // What it waits for may have been stopped as well, so it may be stopped while it waits.
    assert_eq!((rig.lane.in_flight(), rig.lane.is_quiet()), (1, true));
    assert!(!two.is_quiet());
    assert!(rounds(&mut two).is_empty());
    gate.release(1);
    assert_eq!(outcomes(rounds(&mut two)), [(1, Outcome::Aborted)]);
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(3, GOOD)]);
}

#[test]
fn a_preempting_command_can_be_aborted() {
    let (mut rig, gate) = gated();
    gate.deafen(true);
    let (_other, mut two) = second(&rig);
    two.read_block(&rig.guest, 1, 1, 1);
    let none = DmaBuffers::empty(Direction::ToDevice);
    let nexuses = rig.bus.unit(HERE).unwrap().nexuses();
    rig.lane.begin_at(HERE, 3, 3, none, Plan::Abort(nexuses));
    let ticket = rig.bus.manage(Function::AbortTask { address: HERE, tag: 3 }, None);
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(3, Outcome::Aborted)]);
    assert_eq!(ticket.response(), Some(Response::Complete));
    gate.open();
    assert_eq!(outcomes(rounds(&mut two)), [(1, Outcome::Aborted)]);
    assert!(rounds(&mut rig.lane).is_empty());
}

// Of a command of many steps, no further step is taken.
#[test]
fn long_commands_stop_where_they_are() {
    let (mut rig, gate) = gated();
    rig.guest.write(0, &[1; 1024]);
    let plans = [
        Plan::WriteSame { offset: 0, len: 1 << 20, fua: true },
        Plan::Verify { offset: 0, len: 1 << 20, compare: crate::plan::Compare::OneBlock },
        Plan::CompareAndWrite { offset: 0, len: 512, fua: false },
        Plan::WriteVerify { offset: 0, len: 512, compare: crate::plan::Compare::Blocks },
    ];
    for plan in plans {
        let data = rig.output(0, 1024);
        rig.lane.begin_at(HERE, 1, 1, data, plan);
        assert!(rounds(&mut rig.lane).is_empty());
        gate.deafen(true);
        rig.bus.manage(Function::AbortTaskSet(HERE), None);
        assert!(rounds(&mut rig.lane).is_empty());
        let count = gate.held();
        assert!(count != 0);
        gate.release(count);
        let mut completions: Vec<Completion> = rounds(&mut rig.lane);
        assert_eq!(gate.held(), 0, "nothing new");
        assert_eq!(completions.len(), 1);
        let completion = completions.remove(0);
        assert_eq!((completion.outcome, completion.moved), (Outcome::Aborted, 0));
        gate.deafen(false);
    }
    // Neither scratch memory nor a turn is lost.
    gate.open();
    for token in 0..9 {
        let data = rig.output(0, 1024);
        rig.lane.begin_at(
            HERE,
            token,
            token,
            data,
            Plan::CompareAndWrite { offset: 0, len: 512, fua: false },
        );
    }
    assert_eq!(rounds(&mut rig.lane).len(), 9);
}

#[test]
fn a_write_that_is_aborted_may_have_been_done_or_not_but_ends_once() {
    let (mut rig, gate) = gated();
    let guest = GuestPages::new(8192);
    let data = guest.buffers(&[(0, 512)], Direction::ToDevice);
    rig.lane.begin_at(HERE, 1, 1, data, Plan::Write { offset: 0, len: 512, fua: false });
    rig.lane.commit();
    assert_eq!(gate.requests()[0].1, BlockOp::Write { fua: false });
    rig.bus.manage(Function::AbortTask { address: HERE, tag: 1 }, None);
    // It was let go before the lane obeys.
    gate.release(1);
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(1, Outcome::Aborted)]);
    assert_eq!(rig.lane.in_flight(), 0);
}

// A command of a unit that has just been taken away is found at its address all the same: nobody may
// be told that it is over before it is.
#[test]
fn a_unit_that_is_leaving_is_waited_for() {
    let cases = [
        Function::AbortTask { address: HERE, tag: 1 },
        Function::AbortTaskSet(HERE),
        Function::ClearTaskSet(HERE),
        Function::LogicalUnitReset(HERE),
        Function::NexusReset { target: 0 },
        Function::ResetAll,
    ];
    for function in cases {
        for back in [false, true] {
            let (mut rig, gate) = gated();
            gate.deafen(true);
            rig.lane.read_block(&rig.guest, 1, 1, 1);
            rig.bus.detach(HERE).unwrap();
            if back {
                rig.bus.attach(HERE, unit(image())).unwrap();
            }
            let ticket = rig.bus.manage(function, None);
            assert!(rounds(&mut rig.lane).is_empty());
            assert_eq!(ticket.response(), None, "{function:?}");
            gate.release(1);
            assert_eq!(outcomes(rounds(&mut rig.lane)), [(1, Outcome::Reset)]);
            let all = matches!(function, Function::ResetAll);
            let response = if back || all { Response::Complete } else { Response::NoTarget };
            assert_eq!(ticket.response(), Some(response), "{function:?}");
            // It is quite gone now.
            let ticket = rig.bus.manage(function, None);
            rounds(&mut rig.lane);
            assert_eq!(ticket.response(), Some(response), "{function:?}");
        }
    }
}

// CVE-2016-5403's lesson: what waits is forgotten with its command, so that no list grows while a
// backend that does not answer holds everything up.
#[test]
fn lists_do_not_grow_by_commands_that_have_ended() {
    let gated = GatedBackend::new(image());
    gated.gate().deafen(true);
    let mut rig = Rig::with_depth(gated, 12);
    let none = || DmaBuffers::empty(Direction::ToDevice);
    let verify = || Plan::Verify { offset: 0, len: 512, compare: crate::plan::Compare::Nothing };
    for token in 0..8 {
        rig.lane.begin_at(HERE, token, 1000, none(), verify());
    }
    // Leaves room for one in the queue and makes the rest wait for it.
    let ranges = (0..8).map(|number| (number * 512, 512)).collect();
    rig.lane.begin_at(HERE, 8, 1000, none(), Plan::Unmap { ranges, zero: false });
    let data = rig.output(0, 1024);
    let swap = |data| (data, Plan::CompareAndWrite { offset: 0, len: 512, fua: false });
    let (data, plan) = swap(data);
    rig.lane.begin_at(HERE, 9, 1000, data, plan);
    for _ in 0..50 {
        rig.lane.begin_at(HERE, 10, 1, none(), verify());
        let (data, plan) = swap(rig.output(0, 1024));
        rig.lane.begin_at(HERE, 11, 1, data, plan);
        rig.bus.manage(Function::AbortTask { address: HERE, tag: 1 }, None);
        assert_eq!(rounds(&mut rig.lane).len(), 2);
        rig.lane.read_block(&rig.guest, 10, 1, 1);
        rig.bus.manage(Function::AbortTask { address: HERE, tag: 1 }, None);
        assert_eq!(rounds(&mut rig.lane).len(), 1);
    }
    assert!(rig.lane.for_area.len() <= 1);
    assert!(rig.lane.for_call.len() <= 1);
    assert!(rig.lane.queues.get_mut(0).unwrap().waiting.len() <= 1);
}
