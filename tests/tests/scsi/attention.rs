//! Unit attentions (SAM-5, 5.14), and what resets do (SAM-5, 6.3).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paraslot_backends::block::BlockInfo;
use paraslot_scsi::{Address, Function, Response};

use crate::cdb::{READY, cdb, inquiry, read, request_sense, write};
use crate::initiator::{CONFLICT, Data, End, GOOD, HERE, Initiator, UNKNOWN, out_of_range, sense};
use crate::ways::{Way, on_every_way, one, two};
use crate::world::{BLOCK, Claims, END, disk, fresh, image, on, original};

on_every_way! {
    power_on_is_reported_once,
    a_command_that_reports_is_not_carried_out,
    some_commands_do_not_report,
    request_sense_reports,
    a_change_of_capacity_is_reported,
    a_unit_reset_is_reported_to_all,
    a_bus_reset_is_reported_to_all,
    a_lost_nexus_is_reported_to_its_initiator,
    units_that_come_and_go_are_reported,
    the_most_urgent_comes_first,
    functions_say_who_is_not_there,
}

const LUNS: [u8; 12] = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

fn power_on_is_reported_once<W: Way>() {
    W::with(&[(HERE, disk(image()))], |[one, other]| {
        assert_eq!(one.attentions(), [(0x29, 0)]);
        one.good(&READY);
        assert_eq!(other.attentions(), [(0x29, 0)], "to each initiator");
    });
}

fn a_command_that_reports_is_not_carried_out<W: Way>() {
    let backend = image();
    W::with(&[(HERE, disk(backend.clone()))], |[it]| {
        let attention = sense(6, 0x29, 0);
        it.fails(&write(0, 1), Data::Out(&fresh(1)), attention);
        assert!(on(&backend, 0, 1) == original(0, 1));
        it.output(&write(0, 1), &fresh(1));
    });
    // Whatever else is wrong with it.
    for cdb in [&read(END, 1)[..], &cdb::<10>(0x28, &[(1, 0xe0)]), &[0xff; 16]] {
        W::with(&[(HERE, disk(image()))], |[it]| {
            it.fails(cdb, Data::In(BLOCK), sense(6, 0x29, 0));
            assert_eq!(it.attentions(), []);
        });
    }
}

// What is needed to find a unit is carried out, and leaves the attention where it is.
fn some_commands_do_not_report<W: Way>() {
    W::with(&[(HERE, disk(image()))], |[it]| {
        for _ in 0..2 {
            assert_eq!(it.input(&inquiry(None, 36), 36).len(), 36);
            assert_eq!(it.input(&inquiry(Some(0x83), 255), 255)[1], 0x83);
            assert_eq!(it.input(&LUNS, 256).len(), 16);
        }
        assert_eq!(it.attentions(), [(0x29, 0)]);
    });
}

// SAM-5, 5.14: as data, and with that it has been reported.
fn request_sense_reports<W: Way>() {
    for (descriptor, place) in [(false, (2, 12)), (true, (1, 2))] {
        W::with(&[(HERE, disk(image()))], |[it]| {
            let data = it.input(&request_sense(descriptor, 252), 252);
            let (key, asc) = place;
            assert_eq!((data[key], data[asc], data[asc + 1]), (6, 0x29, 0));
            assert_eq!(it.input(&request_sense(descriptor, 252), 252)[key], 0);
            it.good(&READY);
        });
    }
}

fn a_change_of_capacity_is_reported<W: Way>() {
    let capacity = Arc::new(AtomicU64::new(1 << 20));
    let now = capacity.clone();
    let claims = move |info: &mut BlockInfo| info.capacity = now.load(Ordering::Relaxed);
    let unit = disk(Claims(image(), claims));
    two::<W>(&unit, |one, other| {
        one.fails(&read(2048, 1), Data::In(BLOCK), out_of_range(2048));
        capacity.store(2 << 20, Ordering::Relaxed);
        assert_eq!(unit.resize(), 2 << 20);
        assert_eq!((one.attentions(), other.attentions()), (vec![(0x2a, 9)], vec![(0x2a, 9)]));
        assert!(one.input(&read(2048, 1), BLOCK) == original(2048, 1));
        let last = |it: &mut dyn Initiator| it.input(&cdb::<10>(0x25, &[]), 8)[..4].to_vec();
        assert_eq!(last(other), 4095_u32.to_be_bytes());
        capacity.store(1 << 20, Ordering::Relaxed);
        unit.resize();
        assert_eq!((one.attentions(), other.attentions()), (vec![(0x2a, 9)], vec![(0x2a, 9)]));
        one.fails(&read(2047, 2), Data::In(2 * BLOCK), out_of_range(2048));
        // What is no change is no news.
        unit.resize();
        assert_eq!((one.attentions(), other.attentions()), (vec![], vec![]));
    });
}

/// Has a function carried out for the first of two, while both devices are at work.
#[track_caller]
fn manage(one: &mut dyn Initiator, other: &mut dyn Initiator, function: Function) -> Response {
    let ticket = one.port().manage(function, None);
    other.work();
    one.work();
    other.work();
    ticket.response().expect("there is nothing to wait for")
}

/// Stops the disk, changes its modes and reserves it.
fn disturb(it: &mut dyn Initiator) {
    it.output(&[0x15, 0x10, 0, 0, 16, 0], &[0, 0, 0, 0, 10, 10, 4, 0x10, 8, 0, 0, 0, 0, 0, 0, 0]);
    it.good(&[0x16, 0, 0, 0, 0, 0]);
    it.good(&[0x1b, 0, 0, 0, 0, 0]);
}

/// That it is as it was at first.
fn is_as_new(it: &mut dyn Initiator) {
    it.good(&READY);
    let control = it.input(&[0x1a, 8, 10, 0, 64, 0], 64);
    assert_eq!(control[4..9], [10, 10, 0, 0x10, 0]);
    it.output(&write(0, 1), &fresh(1));
}

fn a_unit_reset_is_reported_to_all<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        disturb(one);
        assert_eq!(other.attentions(), [(0x2a, 1)]);
        assert_eq!(other.end(&READY, Data::None), CONFLICT);
        let done = manage(other, one, Function::LogicalUnitReset(HERE));
        assert_eq!(done, Response::Complete);
        assert_eq!((one.attentions(), other.attentions()), (vec![(0x29, 3)], vec![(0x29, 3)]));
        is_as_new(one);
        is_as_new(other);
    });
}

fn a_bus_reset_is_reported_to_all<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        disturb(one);
        other.attentions();
        assert_eq!(manage(other, one, Function::ResetAll), Response::Complete);
        assert_eq!((one.attentions(), other.attentions()), (vec![(0x29, 2)], vec![(0x29, 2)]));
        is_as_new(one);
        is_as_new(other);
    });
}

fn a_lost_nexus_is_reported_to_its_initiator<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        one.good(&[0x16, 0, 0, 0, 0, 0]);
        assert_eq!(other.end(&READY, Data::None), CONFLICT);
        let lost = Function::NexusReset { target: 1 };
        assert_eq!(manage(one, other, lost), Response::Complete);
        assert_eq!((one.attentions(), other.attentions()), (vec![(0x29, 7)], vec![]));
        // What was reserved in its name is not any more.
        other.good(&READY);
        // The modes are everybody's.
        disturb(one);
        other.attentions();
        assert_eq!(manage(one, other, lost), Response::Complete);
        other.fails(&READY, Data::None, sense(2, 4, 2));
    });
}

fn units_that_come_and_go_are_reported<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let bus = it.port();
        let next = Address { target: 1, lun: 4 };
        bus.attach(next, disk(image())).expect("a free place");
        // REPORTED LUNS DATA HAS CHANGED, to the units that there have been.
        assert_eq!(it.attentions(), [(0x3f, 0x0e)]);
        assert_eq!(it.execute(next, &READY, Data::None).end, End::Check(sense(6, 0x29, 0)));
        let ticket = bus.detach(next).expect("a unit");
        it.work();
        assert_eq!(ticket.response(), Some(Response::Complete));
        // Who has looked knows.
        assert_eq!(it.input(&LUNS, 256).len(), 16);
        it.good(&READY);
        // Another target's are of no concern.
        let far = Address { target: 3, lun: 0 };
        bus.attach(far, disk(image())).expect("a free place");
        it.good(&READY);
        assert_eq!(it.execute(far, &inquiry(None, 36), Data::In(36)).end, GOOD);
        drop(bus.detach(far));
        it.work();
        let gone = it.execute(far, &READY, Data::None).end;
        assert_eq!(gone, End::Absent);
    });
}

fn the_most_urgent_comes_first<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        let set = |it: &mut dyn Initiator, d_sense| {
            let page = [10, 10, d_sense, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
            it.output(&[0x15, 0x10, 0, 0, 16, 0], &[&[0; 4][..], &page].concat());
        };
        set(other, 4);
        one.port().attach(Address { target: 1, lun: 1 }, disk(image())).expect("a free place");
        assert_eq!(manage(other, one, Function::LogicalUnitReset(HERE)), Response::Complete);
        set_again(other);
        assert_eq!(one.attentions(), [(0x29, 3), (0x2a, 1), (0x3f, 0x0e)]);
        one.good(&READY);
    });
}

/// Takes the reset's attention and changes a mode once more.
fn set_again(it: &mut dyn Initiator) {
    it.attentions();
    let page = [10, 10, 0, 0x10, 8, 0, 0, 0, 0, 0, 0, 0];
    it.output(&[0x15, 0x10, 0, 0, 16, 0], &[&[0; 4][..], &page].concat());
}

fn functions_say_who_is_not_there<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        for (address, response) in [
            (HERE, Response::Complete),
            (Address { lun: 9, ..HERE }, Response::IncorrectLun),
            (Address { target: 9, lun: 0 }, Response::NoTarget),
        ] {
            let tag = 1;
            for function in [
                Function::AbortTask { address, tag },
                Function::AbortTaskSet(address),
                Function::ClearTaskSet(address),
                Function::ClearAca(address),
                Function::QueryTask { address, tag },
                Function::QueryTaskSet(address),
                Function::LogicalUnitReset(address),
            ] {
                assert_eq!(manage(one, other, function), response, "{function:?}");
            }
        }
        let absent = Function::NexusReset { target: 9 };
        assert_eq!(manage(one, other, absent), Response::NoTarget);
        assert_eq!(one.attentions(), [(0x29, 3)]);
        one.fails(&[0xff; 10], Data::None, UNKNOWN);
    });
}
