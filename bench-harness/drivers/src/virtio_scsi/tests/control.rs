//! Task management.

use super::*;

// inline.scsi.10 and 11.
#[test]
fn functions_are_laid_out_as_the_specification_says() {
    let mut units = Units::default();
    units.units.insert((6, 0x2ff), TestUnit::disk());
    let machine = Machine::new(ALL, units);
    let mut disk = disk(&machine, 16);
    let functions = [
        (Function::AbortTask(9), 0, 9),
        (Function::AbortTaskSet, 1, 0),
        (Function::ClearAca, 2, 0),
        (Function::ClearTaskSet, 3, 0),
        (Function::NexusReset, 4, 0),
        (Function::LogicalUnitReset, 5, 0),
        (Function::QueryTask(15), 6, 15),
        (Function::QueryTaskSet, 7, 0),
    ];
    for (function, subtype, id) in functions {
        assert_eq!(disk.manage(function), Ok(Response::Complete));
        let mut expected = vec![0, 0, 0, 0, subtype, 0, 0, 0, 1, 6, 0x42, 0xff, 0, 0, 0, 0];
        expected.extend(u64::to_le_bytes(id));
        assert_eq!(machine.state.borrow_mut().managed.drain(..).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn what_was_submitted_is_told_before_and_what_was_ended_is_found_after() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 4);
    disk.submit(2, 0, Op::Flush).unwrap();
    let before = machine.available(REQUESTS);
    disk.manage(Function::AbortTask(2)).unwrap();
    assert_eq!(machine.available(REQUESTS), before + 1);
    let taken = machine.take().expect("it is there before the function is");
    assert_eq!(taken.id, 2);
    machine.respond(&taken, &device::response(0, 0, 2), 108);
    assert_eq!(poll(&mut disk), Ok(vec![failed(2, Failed::Aborted)]));
}

#[test]
fn responses_are_told_apart() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 4);
    let invalid = Err(Error::Protocol("a response that there is not"));
    let length = Err(Error::Protocol("a response of a length that it cannot have"));
    for (response, more, expected) in [
        (0, 0, Ok(Response::Complete)),
        (3, 0, Ok(Response::BadTarget)),
        (5, 0, Ok(Response::Busy)),
        (6, 0, Ok(Response::Failed)),
        (7, 0, Ok(Response::Failed)),
        (8, 0, Ok(Response::Failed)),
        (9, 0, Ok(Response::Failed)),
        (10, 0, Ok(Response::Succeeded)),
        (11, 0, Ok(Response::Rejected)),
        (12, 0, Ok(Response::IncorrectLun)),
        (1, 0, invalid),
        (4, 0, invalid),
        (13, 0, invalid),
        (255, 0, invalid),
        (0, 1, length),
    ] {
        machine.state.borrow_mut().response = Some(response);
        machine.state.borrow_mut().more = more;
        assert_eq!(disk.manage(Function::AbortTaskSet), expected, "{response} {more}");
    }
}

#[test]
fn a_function_that_is_not_answered_is_the_last() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 4);
    machine.state.borrow_mut().response = None;
    let result = disk.manage(Function::LogicalUnitReset);
    assert_eq!(result, Err(Error::Timeout("task management")));
    machine.state.borrow_mut().response = Some(0);
    assert_eq!(disk.manage(Function::LogicalUnitReset), Err(Error::Busy));
    // Requests go on.
    disk.submit(0, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    machine.serve();
    assert_eq!(poll(&mut disk), Ok(vec![done(0)]));
}
