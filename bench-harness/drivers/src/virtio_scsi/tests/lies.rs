//! What a device must not say.

use super::*;

#[test]
fn lies_about_requests_are_errors() {
    // For a read of 512 bytes with tag 0: the used ring, and the response.
    type Lie = (&'static [(u32, u32)], Vec<u8>);
    let good = || device::response(0, 0, 0);
    let sense = |len: u32| {
        let mut bytes = device::response(0, 2, 0);
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    let lies: [Lie; 14] = [
        // The used ring.
        (&[(0, 620), (0, 620)], good()),
        (&[(1, 620)], good()),
        (&[(3, 620)], good()),
        (&[(24, 620)], good()),
        (&[(256, 620)], good()),
        (&[(u32::MAX, 620)], good()),
        (&[(0, 0)], good()),
        (&[(0, 11)], good()),
        (&[(0, 621)], good()),
        (&[(0, u32::MAX)], good()),
        // The response.
        (&[(0, 620)], device::response(513, 0, 0)),
        (&[(0, 620)], device::response(u32::MAX, 2, 0)),
        (&[(0, 620)], sense(97)),
        (&[(0, 620)], sense(u32::MAX)),
    ];
    for (used, response) in lies {
        let machine = Machine::usual();
        let mut disk = disk(&machine, 8);
        disk.submit(0, 0, Op::Read(&region(&machine, 512))).unwrap();
        disk.kick().unwrap();
        let taken = machine.take().unwrap();
        machine.write(taken.response, &response);
        machine.give_back(REQUESTS, used);
        let result = poll(&mut disk);
        assert!(matches!(result, Err(Error::Protocol(_))), "{used:?} {response:?} {result:?}");
    }
    // A flush has no data.
    let machine = Machine::usual();
    let mut disk = disk(&machine, 8);
    disk.submit(0, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    let taken = machine.take().unwrap();
    machine.respond(&taken, &device::response(0, 0, 0), 109);
    assert!(matches!(poll(&mut disk), Err(Error::Protocol(_))));
}

// QEMU's device says of a write that it has written what it has read.
#[test]
fn the_length_of_a_write_may_count_its_data_and_no_more() {
    for (len, good) in [(108, true), (620, true), (621, false)] {
        let machine = Machine::usual();
        let mut disk = disk(&machine, 8);
        disk.submit(0, 0, Op::Write(&region(&machine, 512))).unwrap();
        disk.kick().unwrap();
        let taken = machine.take().unwrap();
        machine.respond(&taken, &device::response(0, 0, 0), len);
        assert_eq!(poll(&mut disk).is_ok(), good, "{len}");
    }
}

#[test]
fn the_smallest_and_the_largest_response_will_do() {
    for len in [12, 108, 620] {
        let machine = Machine::usual();
        let mut disk = disk(&machine, 8);
        disk.submit(0, 0, Op::Read(&region(&machine, 512))).unwrap();
        disk.kick().unwrap();
        machine.respond(&machine.take().unwrap(), &device::response(0, 0, 0), len);
        assert_eq!(poll(&mut disk), Ok(vec![done(0)]));
    }
}

#[test]
fn a_response_that_was_not_written_is_a_failure() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 8);
    for _ in 0..2 {
        disk.submit(0, 0, Op::Flush).unwrap();
        disk.kick().unwrap();
        machine.respond(&machine.take().unwrap(), &[], 108);
        // What an earlier request left there does not count.
        assert_eq!(poll(&mut disk), Ok(vec![failed(0, Failed::Io)]));
        disk.submit(0, 0, Op::Flush).unwrap();
        disk.kick().unwrap();
        machine.serve();
        assert_eq!(poll(&mut disk), Ok(vec![done(0)]));
    }
}

#[test]
fn a_request_that_came_back_cannot_come_back_again() {
    for depth in [8, 200] {
        let machine = Machine::usual();
        let mut disk = disk(&machine, depth);
        disk.submit(1, 0, Op::Flush).unwrap();
        disk.submit(2, 0, Op::Flush).unwrap();
        disk.kick().unwrap();
        let taken = machine.take().unwrap();
        machine.respond(&taken, &device::response(0, 0, 0), 108);
        assert_eq!(poll(&mut disk), Ok(vec![done(1)]));
        machine.respond(&taken, &device::response(0, 0, 0), 108);
        assert!(matches!(poll(&mut disk), Err(Error::Protocol(_))));
    }
}
