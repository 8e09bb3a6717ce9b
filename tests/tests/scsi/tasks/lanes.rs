//! Several initiators at one unit, each with its lane, step by step.

use std::sync::Arc;

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_backends::block::{MemoryBackend, MemoryOptions};
use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;
use paraslot_scsi::{Function, Response, Ticket};

use super::by_lane::LaneTasks;
use super::{Fate, THERE, Tasks, all, four_reads, is_quiet};
use crate::initiator::{Data, Initiator};
use crate::ways::bus;
use crate::world::{BLOCK, disk, drive, fresh, image};

/// Two initiators that share a disk whose backend holds back, each with four reads under way.
fn two(test: impl FnOnce(&mut LaneTasks, &mut LaneTasks, &Gate)) {
    let backend = GatedBackend::new(image());
    let gate = backend.gate();
    let units = [(THERE, disk(backend))];
    let [mut one, mut other] = [0, 1].map(|index| LaneTasks::new(bus(index, &units)));
    four_reads(&mut one, &gate);
    for tag in 0..4 {
        other.begin(tag, 100, false);
    }
    assert_eq!(gate.held(), 8);
    test(&mut one, &mut other, &gate);
}

/// The attentions that a command without data reports.
fn attentions(it: &mut LaneTasks) -> Vec<(u8, u8)> {
    let all = (0..8).map_while(|_| {
        let end = it.on.execute(THERE, &[0; 6], Data::None).end;
        let crate::initiator::End::Check(sense) = end else { return None };
        assert_eq!(sense.key, 6);
        Some((sense.asc, sense.ascq))
    });
    all.collect()
}

fn response(ticket: &Ticket) -> Option<Response> {
    ticket.response()
}

#[test]
fn clear_task_set_ends_everybodys_commands() {
    two(|one, other, gate| {
        let ticket = one.port.manage(Function::ClearTaskSet(THERE), None);
        one.work();
        all(one.told(), 0..4, Fate::Aborted);
        assert_eq!(response(&ticket), None, "the other has not been told");
        other.work();
        all(other.told(), 0..4, Fate::Aborted);
        assert_eq!(response(&ticket), Some(Response::Complete));
        is_quiet(one, gate, 0..4);
        is_quiet(other, gate, 0..4);
        // COMMANDS CLEARED BY ANOTHER INITIATOR, to those whose they were.
        assert_eq!((attentions(one), attentions(other)), (vec![], vec![(0x2f, 0)]));
    });
}

#[test]
fn abort_task_set_ends_ones_own_commands_alone() {
    two(|one, other, gate| {
        let ticket = one.port.manage(Function::AbortTaskSet(THERE), None);
        other.work();
        one.work();
        all(one.told(), 0..4, Fate::Aborted);
        assert_eq!(response(&ticket), Some(Response::Complete));
        assert_eq!((other.told(), gate.held()), (vec![], 4));
        gate.open();
        other.work();
        all(other.told(), 0..4, Fate::Done);
        assert_eq!((attentions(one), attentions(other)), (vec![], vec![]));
    });
}

#[test]
fn an_abort_is_about_ones_own_tag() {
    two(|one, other, gate| {
        let ticket = one.port.manage(Function::AbortTask { address: THERE, tag: 2 }, None);
        one.work();
        other.work();
        assert_eq!((one.told(), other.told()), (vec![(2, Fate::Aborted)], vec![]));
        assert_eq!(response(&ticket), Some(Response::Complete));
        assert_eq!(gate.held(), 7);
    });
}

#[test]
fn a_reset_of_the_unit_waits_for_everybody() {
    for bus_reset in [false, true] {
        two(|one, other, gate| {
            let function =
                if bus_reset { Function::ResetAll } else { Function::LogicalUnitReset(THERE) };
            gate.deafen(true);
            let ticket = one.port.manage(function, None);
            one.work();
            other.work();
            assert_eq!((one.told(), other.told(), response(&ticket)), (vec![], vec![], None));
            // The unit is not reset before its commands have ended.
            let end = one.on.execute(THERE, &[0x12, 0, 0, 0, 36, 0], Data::In(36)).end;
            assert_eq!(end, crate::initiator::GOOD);
            gate.release(4);
            one.work();
            all(one.told(), 0..4, Fate::Aborted);
            assert_eq!(response(&ticket), None);
            gate.release(4);
            other.work();
            all(other.told(), 0..4, Fate::Aborted);
            assert_eq!(response(&ticket), Some(Response::Complete));
            let code = (0x29, if bus_reset { 2 } else { 3 });
            assert_eq!((attentions(one), attentions(other)), (vec![code], vec![code]));
            is_quiet(one, gate, 0..4);
            is_quiet(other, gate, 0..4);
        });
    }
}

#[test]
fn a_lost_nexus_is_no_matter_of_others() {
    two(|one, other, gate| {
        let ticket = one.port.manage(Function::NexusReset { target: 0 }, None);
        one.work();
        other.work();
        all(one.told(), 0..4, Fate::Aborted);
        assert_eq!((response(&ticket), gate.held()), (Some(Response::Complete), 4));
        gate.open();
        other.work();
        all(other.told(), 0..4, Fate::Done);
        assert_eq!((attentions(one), attentions(other)), (vec![(0x29, 7)], vec![]));
    });
}

/// PERSISTENT RESERVE OUT.
fn reserve_out(it: &mut LaneTasks, action: u8, keys: (u64, u64)) {
    let list = [&keys.0.to_be_bytes()[..], &keys.1.to_be_bytes(), &[0; 8]].concat();
    it.on.guest.write(0, &list);
    let data = it.on.guest.buffers(&[(0, 24)], Direction::ToDevice);
    it.on.submit(9, THERE, &[0x5f, action, 3, 0, 0, 0, 0, 0, 24, 0], data);
    it.work();
}

// PREEMPT AND ABORT ends when the commands of who is preempted have ended, and not before (SPC-4,
// 5.12.11.2.6).
#[test]
fn preempt_and_abort_waits_for_what_it_aborts() {
    for deaf in [false, true] {
        two(|one, other, gate| {
            gate.deafen(deaf);
            reserve_out(one, 6, (0, 11));
            reserve_out(other, 6, (0, 22));
            reserve_out(other, 1, (22, 0));
            assert_eq!((one.told(), other.told().len()), (vec![(9, Fate::Done)], 2));
            reserve_out(one, 5, (11, 22));
            assert_eq!(one.told(), [], "their commands are under way");
            other.work();
            if deaf {
                one.work();
                assert_eq!((one.told(), other.told()), (vec![], vec![]));
                gate.deafen(false);
                // Those of the other, which came later.
                (0..4).for_each(|_| gate.release_at(4));
                other.work();
            }
            all(other.told(), 0..4, Fate::Aborted);
            one.work();
            assert_eq!(one.told(), [(9, Fate::Done)]);
            assert_eq!(gate.held(), 4, "its own go on");
            is_quiet(other, gate, 0..4);
            one.work();
            all(one.told(), 0..4, Fate::Done);
            assert_eq!(attentions(other), [(0x2a, 5)]);
        });
    }
}

// QEMU 4382f167cf, 1604c04931, cfd4e36352: a unit that is taken away while its commands are under way.
#[test]
fn a_unit_that_is_taken_away_ends_its_commands() {
    for deaf in [false, true] {
        two(|one, other, gate| {
            gate.deafen(deaf);
            let ticket = one.port.detach(THERE).expect("a unit");
            one.work();
            if deaf {
                assert_eq!((one.told(), response(&ticket)), (vec![], None));
                // What is asked about it meanwhile has to wait for the same commands.
                let abort = one.port.manage(Function::AbortTaskSet(THERE), None);
                one.work();
                assert_eq!(response(&abort), None);
                gate.release(4);
                one.work();
                assert_eq!(response(&abort), Some(Response::NoTarget));
            }
            all(one.told(), 0..4, Fate::Aborted);
            assert_eq!(response(&ticket), Some(Response::Complete));
            let end = one.on.execute(THERE, &[0; 6], Data::None).end;
            assert_eq!(end, crate::initiator::End::Absent);
            // The other initiator has it as before.
            assert_eq!(gate.held(), 4);
            gate.open();
            other.work();
            all(other.told(), 0..4, Fate::Done);
            is_quiet(one, gate, 0..4);
        });
    }
}

// A command of several operations: none is begun after it was aborted.
#[test]
fn a_command_in_parts_begins_no_more_of_them() {
    two(|one, _, gate| {
        one.on.guest.write(0, &fresh(1));
        let data = one.on.guest.buffers(&[(0, BLOCK)], Direction::ToDevice);
        // WRITE SAME, VERIFY and UNMAP would take many.
        one.on.submit(5, THERE, &[0x41, 0, 0, 0, 0, 0, 0, 0x0f, 0, 0], data);
        let none = DmaBuffers::empty(Direction::ToDevice);
        one.on.submit(6, THERE, &[0x2f, 0, 0, 0, 0, 0, 0, 0x10, 0, 0], none);
        one.work();
        let before = gate.held();
        assert!(before > 8);
        let ticket = one.port.manage(Function::AbortTaskSet(THERE), None);
        one.work();
        all(one.told(), (0..4).chain([5, 6]), Fate::Aborted);
        assert_eq!((response(&ticket), gate.held()), (Some(Response::Complete), 4));
        gate.open();
        one.work();
        assert_eq!(one.told(), []);
    });
}

// What was begun on one disc is carried to its end there, and nothing meant for it reaches the next.
#[test]
fn a_disc_is_changed_under_a_command() {
    let image = |byte: u8| {
        let options = MemoryOptions::default();
        MemoryBackend::from_contents(&[byte; 64 << 10], options).expect("memory")
    };
    let backend = GatedBackend::new(image(1));
    let gate = backend.gate();
    let unit = drive(Some(Arc::new(backend)));
    let mut it = LaneTasks::new(bus(0, &[(THERE, unit.clone())]));
    let read = |it: &mut LaneTasks, tag: u16| {
        let data = it.on.guest.buffers(&[(4096 * u64::from(tag), 2048)], Direction::FromDevice);
        it.on.submit(tag.into(), THERE, &crate::cdb::read(0, 1), data);
        it.work();
    };
    read(&mut it, 1);
    assert_eq!((it.told(), gate.held()), (vec![], 1));
    unit.change_medium(Some(Arc::new(image(2)))).expect("a disc");
    read(&mut it, 2);
    assert_eq!(it.told(), [(2, Fate::Failed)], "it reports the change");
    read(&mut it, 3);
    assert_eq!(it.told(), [(3, Fate::Done)]);
    gate.open();
    it.work();
    assert_eq!(it.told(), [(1, Fate::Done)]);
    assert!(it.on.guest.read(4096, 2048) == [1; 2048]);
    assert!(it.on.guest.read(3 * 4096, 2048) == [2; 2048]);
}
