//! Requests.

use super::*;
use crate::virtio::testing::Buffer;

#[test]
fn chains_are_laid_out_as_the_specification_says() {
    for depth in [85, 86] {
        let mut units = Units::default();
        units.units.insert((3, 0x102), TestUnit::disk());
        let machine = Machine::new(ALL, units);
        let mut disk = disk(&machine, depth);
        let data = region(&machine, 1024);
        disk.submit(5, 1024, Op::Read(&data)).unwrap();
        disk.submit(84, 512, Op::Write(&data)).unwrap();
        disk.submit(0, 0, Op::Flush).unwrap();
        assert!(machine.take().is_none(), "nothing is told before the kick");
        disk.kick().unwrap();
        let (address, len) = (data.physical(0), 1024);
        let taken: Vec<_> = (0..3).map(|_| machine.take().unwrap()).collect();
        for (taken, id) in taken.iter().zip([5, 84, 0]) {
            assert_eq!((taken.address, taken.id), (Address { target: 3, lun: 0x102 }, id));
            assert_eq!(taken.chain.indirect, depth == 86);
        }
        let [read, write, flush] = &taken[..] else { panic!() };
        assert_eq!(read.cdb[..10], [0x28, 0, 0, 0, 0, 2, 0, 0, 2, 0]);
        assert_eq!(read.chain.buffers[2], Buffer { address, len, write: true });
        assert_eq!(write.cdb[..10], [0x2a, 0, 0, 0, 0, 1, 0, 0, 2, 0]);
        assert_eq!(write.chain.buffers[1], Buffer { address, len, write: false });
        assert_eq!((flush.cdb[0], flush.chain.buffers.len()), (0x35, 2));
        assert!(taken.iter().all(|taken| taken.cdb[16..] == [0; 16]));
    }
}

#[test]
fn a_tag_is_used_for_one_thing_after_the_other() {
    for depth in [4, 100] {
        let machine = Machine::usual();
        let mut disk = disk(&machine, depth);
        let data = region(&machine, 1024);
        let run = |disk: &mut VirtioScsi<'_, _>, offset, op: Op<'_>| {
            disk.submit(3, offset, op).unwrap();
            disk.kick().unwrap();
            machine.serve();
            assert_eq!(poll(disk), Ok(vec![done(3)]));
        };
        let half = data.part(0, 512);
        run(&mut disk, 512, Op::Write(&half));
        run(&mut disk, 1024, Op::WriteZeroes(1024));
        run(&mut disk, 0, Op::Flush);
        run(&mut disk, 2048, Op::Discard(512));
        run(&mut disk, 512, Op::Read(&data));
        let mut bytes = [0; 1024];
        data.read_bytes(0, &mut bytes);
        assert_eq!(bytes[..512], core::array::from_fn::<u8, 512, _>(|at| at.to_le_bytes()[0]));
        assert_eq!(bytes[512..], [0; 512]);
        run(&mut disk, 2048, Op::Read(&half));
        assert_eq!(half.read8(511), 0xdd);
    }
}

#[test]
fn all_tags_are_in_flight_at_once_and_come_back_in_any_order() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 256);
    let data = region(&machine, 512);
    for round in 0..20_u32 {
        for tag in 0..256 {
            disk.submit(tag, 0, Op::Read(&data)).unwrap();
        }
        let used = Err(Error::Request("the tag is too high or in use"));
        assert_eq!(disk.submit(255, 0, Op::Read(&data)), used);
        assert_eq!(disk.submit(256, 0, Op::Read(&data)), used);
        disk.kick().unwrap();
        let mut taken: Vec<_> = (0..256).map(|_| machine.take().unwrap()).collect();
        taken.rotate_left(round as usize % 256);
        let mut expected = Vec::new();
        for request in &taken {
            machine.complete(request, &Reply::good(&[0; 512]));
            expected.push(done(u16::try_from(request.id).unwrap()));
        }
        assert_eq!(poll(&mut disk).as_ref(), Ok(&expected));
    }
    assert_eq!(poll(&mut disk), Ok(vec![]));
}

#[test]
fn a_kick_costs_one_register_access_or_none() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 8);
    let data = region(&machine, 512);
    machine.wish_notification(REQUESTS);
    let before = disk.accesses();
    for tag in 0..4 {
        disk.submit(tag, 0, Op::Read(&data)).unwrap();
    }
    assert_eq!(disk.accesses().since(before).total(), 0);
    disk.kick().unwrap();
    disk.kick().unwrap();
    let cost = disk.accesses().since(before);
    assert_eq!((cost.reads, cost.writes, cost.doorbells), (0, 1, 1));
    assert_eq!(machine.doorbells(), [2]);
    // The device looks by itself.
    disk.submit(4, 0, Op::Read(&data)).unwrap();
    disk.kick().unwrap();
    machine.serve();
    assert_eq!(poll(&mut disk).unwrap().len(), 5);
    assert_eq!(disk.accesses().since(before), cost);
    assert_eq!(machine.doorbells(), []);
}

#[test]
fn an_interrupt_costs_no_register_access_and_is_asked_for_anew() {
    for offered in [ALL, ALL & !feature::EVENT_IDX] {
        let machine = Machine::new(offered, Units::one());
        let mut disk = disk(&machine, 8);
        let data = region(&machine, 512);
        let interrupts = || machine.fake.interrupts.replace(0);
        let round = |disk: &mut VirtioScsi<'_, _>| {
            for tag in 0..3 {
                disk.submit(tag, 0, Op::Read(&data)).unwrap();
            }
            disk.kick().unwrap();
            let before = disk.accesses();
            machine.serve();
            let mut completions = Completions::new();
            disk.handle(&mut completions).unwrap();
            assert_eq!(completions.len(), 3);
            assert_eq!(disk.accesses(), before);
        };
        interrupts();
        disk.submit(0, 0, Op::Read(&data)).unwrap();
        disk.kick().unwrap();
        machine.serve();
        poll(&mut disk).unwrap();
        assert_eq!(interrupts(), 0, "they are off");
        disk.set_interrupts(true).unwrap();
        for _ in 0..3 {
            round(&mut disk);
            assert_eq!(interrupts(), if offered == ALL { 1 } else { 3 });
        }
        disk.set_interrupts(false).unwrap();
        for _ in 0..3 {
            disk.submit(0, 0, Op::Read(&data)).unwrap();
            disk.kick().unwrap();
            machine.serve();
            assert_eq!(poll(&mut disk).unwrap().len(), 1);
        }
        assert_eq!(interrupts(), 0);
    }
}

// scsi.requestq.2a to 2j.
#[test]
fn responses_are_told_apart() {
    let cases = [
        ((0, 0, 0), Ok(())),
        ((1, 0, 0), Err(Failed::Short)),
        ((0, 0x18, 0), Err(Failed::Io)),
        ((512, 0x40, 0), Err(Failed::Aborted)),
        ((0, 0, 1), Err(Failed::Io)),
        ((0, 0, 2), Err(Failed::Aborted)),
        ((0, 0, 3), Err(Failed::Io)),
        ((0, 0, 4), Err(Failed::Aborted)),
        ((0, 0, 6), Err(Failed::Io)),
        ((0, 0, 7), Err(Failed::Io)),
        ((0, 0, 8), Err(Failed::Io)),
        ((0, 0, 9), Err(Failed::Io)),
        ((0, 0, 10), Err(Failed::Io)),
        ((0, 0, 255), Err(Failed::Io)),
        // What is left does not count if the status is not valid.
        ((u32::MAX, 0, 9), Err(Failed::Io)),
    ];
    for ((residual, status, response), result) in cases {
        let machine = Machine::usual();
        let mut disk = disk(&machine, 8);
        disk.submit(6, 0, Op::Read(&region(&machine, 512))).unwrap();
        disk.kick().unwrap();
        let taken = machine.take().unwrap();
        machine.respond(&taken, &device::response(residual, status, response), 620);
        let completion = Completion { tag: 6, result };
        assert_eq!(poll(&mut disk), Ok(vec![completion]), "{residual} {status} {response}");
    }
}

#[test]
fn sense_data_is_looked_at() {
    for (reply, result) in [
        (Reply::check(1, 0x17, 0), Ok(())),
        (Reply::check(5, 0x20, 0), Err(Failed::Unsupported)),
        (Reply::check(3, 0x11, 0), Err(Failed::Io)),
        (Reply { sense: vec![], ..Reply::status(2) }, Err(Failed::Io)),
    ] {
        let machine = Machine::usual();
        let mut disk = disk(&machine, 8);
        disk.submit(7, 0, Op::Read(&region(&machine, 512))).unwrap();
        disk.kick().unwrap();
        let reply = Reply { data: vec![0; 512], ..reply };
        machine.complete(&machine.take().unwrap(), &reply);
        assert_eq!(poll(&mut disk), Ok(vec![Completion { tag: 7, result }]));
    }
}

#[test]
fn a_request_that_meets_a_unit_attention_is_issued_again() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 8);
    let data = region(&machine, 512);
    disk.submit(2, 512, Op::Write(&data)).unwrap();
    disk.submit(3, 512, Op::Read(&data)).unwrap();
    disk.kick().unwrap();
    let (write, read) = (machine.take().unwrap(), machine.take().unwrap());
    machine.wish_notification(REQUESTS);
    machine.complete(&write, &Reply::check(6, 0x29, 3));
    machine.complete(&read, &Reply::good(&[0; 512]));
    let before = disk.accesses();
    assert_eq!(poll(&mut disk), Ok(vec![done(3)]));
    assert_eq!(disk.accesses().since(before).doorbells, 1);
    let again = machine.take().unwrap();
    assert_eq!((again.id, &again.cdb, &again.chain), (2, &write.cdb, &write.chain));
    machine.complete(&again, &Reply::good(&[]));
    assert_eq!(poll(&mut disk), Ok(vec![done(2)]));
    // Not for ever.
    disk.submit(2, 512, Op::Write(&data)).unwrap();
    disk.kick().unwrap();
    for _ in 0..MAX_RETRIES {
        machine.complete(&machine.take().unwrap(), &Reply::status(8));
        assert_eq!(poll(&mut disk), Ok(vec![]));
    }
    machine.complete(&machine.take().unwrap(), &Reply::status(8));
    assert_eq!(poll(&mut disk), Ok(vec![failed(2, Failed::Io)]));
}

#[test]
fn any_command_can_be_carried_out_while_nothing_is_in_flight() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 8);
    machine.state.borrow_mut().idle = false;
    let data = region(&machine, 64);
    let cdb = Cdb::new(&[0x12, 0, 0, 0, 64, 0]).unwrap();
    let ended = disk.execute(Address { target: 0, lun: 9 }, &cdb, Data::In(&data)).unwrap();
    assert_eq!((ended.outcome, ended.moved, data.read8(0)), (Outcome::Status(0), 36, 0x7f));
    let ended = disk.execute(Address { target: 5, lun: 0 }, &cdb, Data::In(&data)).unwrap();
    assert_eq!(ended.outcome, Outcome::Absent);
    let cdb = Cdb::new(&[0xff; 16]);
    assert!(cdb.is_ok());
    disk.submit(1, 0, Op::Flush).unwrap();
    let cdb = Cdb::new(&[0; 6]).unwrap();
    assert_eq!(disk.execute(Address::default(), &cdb, Data::None), Err(Error::Busy));
    disk.kick().unwrap();
    machine.serve();
    assert_eq!(poll(&mut disk), Ok(vec![done(1)]));
    // The disk's requests are still for the disk.
    disk.submit(0, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    assert_eq!(machine.take().unwrap().address, Address::default());
}
