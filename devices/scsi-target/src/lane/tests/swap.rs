//! COMPARE AND WRITE, and its turns.

use paraslot_backends::block::testing::{GatedBackend, RecordingBackend};
use paraslot_backends::block::{BlockOp, MemoryBackend};

use super::rig::{GOOD, HERE, Rig, bus, contents, expected, image, outcomes, rounds, unit};
use crate::command::{Outcome, Status};
use crate::lane::Lane;
use crate::plan::Plan;
use crate::{Address, Function, Response};

fn plan(offset: u64, len: u64) -> Plan {
    Plan::CompareAndWrite { offset, len, fua: true }
}

/// The blocks that are there, and then new ones.
fn offer(rig: &Rig, address: u64, offset: usize, len: usize, new: u8) {
    let old: Vec<u8> = (offset..offset + len).map(expected).collect();
    rig.guest.write(address, &old);
    rig.guest.write(address + len as u64, &vec![new; len]);
}

#[test]
fn equal_data_is_replaced() {
    let image = image();
    let recording = RecordingBackend::new(image.clone());
    let log = recording.log();
    let mut rig = Rig::new(recording);
    // More than one area holds.
    for len in [512, 64 * 1024, 200 * 1024] {
        offer(&rig, 7, 1 << 20, len, 0x77);
        let before = log.len();
        let data = rig.output(7, 2 * len);
        assert_eq!(rig.good(data, plan(1 << 20, len as u64)), 2 * len as u64);
        assert_eq!(contents(&image, 1 << 20, len), vec![0x77; len]);
        let restored: Vec<u8> = ((1 << 20)..(1 << 20) + len).map(expected).collect();
        image.write_at(1 << 20, &restored).unwrap();
        let events = log.events().split_off(before);
        let writes = events.iter().filter(|event| {
            use paraslot_backends::block::testing::Event;
            matches!(event, Event::Submitted { op: BlockOp::Write { fua: true }, .. })
        });
        assert_eq!(writes.count(), 1);
    }
}

#[test]
fn other_data_is_left_alone() {
    let image = image();
    let mut rig = Rig::new(image.clone());
    let len = 100 * 1024;
    for at in [0, 511, 512, 65_536, len - 1] {
        offer(&rig, 0, 4096, len, 0x77);
        rig.guest.write(at as u64, &[!expected(4096 + at)]);
        let data = rig.output(0, 2 * len);
        let completion = rig.carry_out(data, plan(4096, len as u64));
        let Outcome::Ended { status: Status::CheckCondition, sense: Some(sense) } =
            completion.outcome
        else {
            panic!("{:?}", completion.outcome)
        };
        assert_eq!((sense.key, sense.asc, sense.information), (0xe, 0x1d, Some(at as u64)));
        assert_eq!(completion.moved, 2 * len as u64);
        assert!(
            contents(&image, 4096, len)
                .iter()
                .enumerate()
                .all(|(at, byte)| { *byte == expected(4096 + at) })
        );
    }
}

/// Two buses that share a unit behind a gate, with a lane each. The second rig's own unit is not used.
struct Pair {
    image: MemoryBackend,
    gate: paraslot_backends::block::testing::Gate,
    one: Rig,
    two: Lane,
    other: crate::Bus,
}

fn pair() -> Pair {
    let image = image();
    let gated = GatedBackend::new(image.clone());
    let gate = gated.gate();
    let one = Rig::new(gated);
    let other = bus("two");
    other.attach(HERE, one.bus.unit(HERE).unwrap()).unwrap();
    let two = other.open_lane(8).unwrap();
    Pair { image, gate, one, two, other }
}

// Of two that expect the same, one wins, whatever lanes and buses they came by.
#[test]
fn one_at_a_time_whatever_the_lane() {
    let Pair { image, gate, mut one, mut two, .. } = pair();
    offer(&one, 0, 0, 512, 0xaa);
    offer(&one, 4096, 0, 512, 0xbb);
    let (first, second) = (one.output(0, 1024), one.output(4096, 1024));
    one.lane.begin_at(HERE, 1, 1, first, plan(0, 512));
    two.begin_at(HERE, 2, 2, second, plan(0, 512));
    assert!(rounds(&mut two).is_empty());
    assert!(rounds(&mut one.lane).is_empty());
    assert_eq!(gate.held(), 1, "the second has not begun");
    assert_eq!(two.in_flight(), 1);
    gate.release(1);
    assert!(rounds(&mut one.lane).is_empty());
    assert_eq!(gate.requests()[0].1, BlockOp::Write { fua: true });
    assert!(rounds(&mut two).is_empty());
    assert_eq!(gate.held(), 1, "still not");
    gate.release(1);
    assert_eq!(outcomes(rounds(&mut one.lane)), [(1, GOOD)]);
    assert!(two.prepare_to_wait() || gate.held() == 1, "it is called");
    assert!(rounds(&mut two).is_empty());
    gate.release(1);
    let completions = rounds(&mut two);
    assert!(matches!(
        &completions[0].outcome,
        Outcome::Ended { status: Status::CheckCondition, .. }
    ));
    assert_eq!(contents(&image, 0, 512), [0xaa; 512]);
}

// Whoever leaves the line without having been served lets the next one in: an aborted command, and a
// lane that is dropped.
#[test]
fn the_line_moves_on_without_those_who_leave() {
    for drop_it in [false, true] {
        let Pair { image, gate, mut one, mut two, other } = pair();
        for (token, address) in [(1, 0), (3, 8192)] {
            offer(&one, address, 0, 512, 0xcc);
            let data = one.output(address, 1024);
            if token == 3 {
                let data = one.output(4096, 1024);
                two.begin_at(HERE, 2, 2, data, plan(0, 512));
            }
            one.lane.begin_at(HERE, token, token, data, plan(0, 512));
        }
        if drop_it {
            drop(two);
        } else {
            let ticket = other.manage(Function::AbortTask { address: HERE, tag: 2 }, None);
            assert_eq!(outcomes(rounds(&mut two)), [(2, Outcome::Aborted)]);
            assert_eq!(ticket.response(), Some(Response::Complete));
        }
        gate.open();
        let ended = outcomes(rounds(&mut one.lane));
        assert_eq!(ended[0], (1, GOOD));
        assert!(matches!(ended[1], (3, Outcome::Ended { status: Status::CheckCondition, .. })));
        assert_eq!(contents(&image, 0, 512), [0xcc; 512]);
    }
}

// Different units have lines of their own.
#[test]
fn units_do_not_wait_for_each_other() {
    let mut rig = {
        let gated = GatedBackend::new(image());
        Rig::new(gated)
    };
    let there = Address { target: 1, lun: 3 };
    rig.bus.attach(there, unit(image())).unwrap();
    offer(&rig, 0, 0, 512, 1);
    offer(&rig, 4096, 0, 512, 1);
    let (first, second) = (rig.output(0, 1024), rig.output(4096, 1024));
    rig.lane.begin_at(HERE, 1, 1, first, plan(0, 512));
    rig.lane.begin_at(there, 2, 2, second, plan(0, 512));
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(2, GOOD)]);
}
