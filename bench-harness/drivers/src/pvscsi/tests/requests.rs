//! Requests.

use super::device::{KICK_NON_RW, KICK_RW};
use super::*;

#[test]
fn requests_are_laid_out_as_vmwares_header_has_them() {
    let mut units = Units::default();
    units.units.insert((5, 7), TestUnit::disk());
    let bench = Bench::new(units);
    let mut disk = disk(&bench, Options::new(40));
    let data = region(&bench, 1024);
    disk.submit(38, 1024, Op::Read(&data)).unwrap();
    disk.submit(39, 512, Op::Write(&data)).unwrap();
    disk.submit(0, 0, Op::Flush).unwrap();
    assert!(bench.take().is_none(), "nothing is told before the kick");
    disk.kick().unwrap();
    let taken: Vec<_> = (0..3).map(|_| bench.take().unwrap()).collect();
    let [read, write, flush] = &taken[..] else { panic!() };
    let data = data.physical(0);
    assert_eq!((read.context, read.data, read.len, read.flags), (39, data, 1024, 8));
    assert_eq!((write.context, write.data, write.len, write.flags), (40, data, 1024, 16));
    assert_eq!((flush.context, flush.data, flush.len, flush.flags), (1, 0, 0, 4));
    assert_eq!(read.cdb, [0x28, 0, 0, 0, 0, 2, 0, 0, 2, 0]);
    assert_eq!(write.cdb, [0x2a, 0, 0, 0, 0, 1, 0, 0, 2, 0]);
    assert_eq!(flush.cdb, [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for taken in &taken {
        assert_eq!(taken.bytes[57..65], [0, 7, 0, 0, 0, 0, 0, 0]);
        assert_eq!(taken.address, Address { target: 5, lun: 7 });
        bench.complete(taken, &Reply::good(&[0; 1024]));
    }
    assert_eq!(poll(&mut disk), Ok(vec![done(38), done(39), done(0)]));
}

#[test]
fn a_tag_is_used_for_one_thing_after_the_other() {
    for segment in [u32::MAX, 512, 700] {
        let bench = Bench::usual();
        let mut disk = disk(&bench, Options { segment, ..Options::new(4) });
        let data = region(&bench, 2048);
        let run = |disk: &mut Pvscsi<'_, _>, offset, op: Op<'_>| {
            disk.submit(3, offset, op).unwrap();
            disk.kick().unwrap();
            bench.serve();
            assert_eq!(poll(disk), Ok(vec![done(3)]));
        };
        let part = data.part(0, 1024);
        run(&mut disk, 512, Op::Write(&part));
        run(&mut disk, 1536, Op::WriteZeroes(1024));
        run(&mut disk, 0, Op::Flush);
        run(&mut disk, 4096, Op::Discard(512));
        run(&mut disk, 512, Op::Read(&data));
        let mut bytes = [0; 2048];
        data.read_bytes(0, &mut bytes);
        assert_eq!(bytes[..1024], core::array::from_fn::<u8, 1024, _>(|at| at.to_le_bytes()[0]));
        assert_eq!(bytes[1024..], [0; 1024]);
        run(&mut disk, 4096, Op::Read(&part));
        assert_eq!(part.read8(511), 0xdd);
    }
}

#[test]
fn long_data_is_described_piece_by_piece() {
    let bench = Bench::usual();
    bench.adapter.borrow_mut().units.disk().last = Some(1 << 20);
    bench.adapter.borrow_mut().units.disk().pages.clear();
    let mut disk = disk(&bench, Options { segment: 1000, ..Options::new(3) });
    let data = region(&bench, 1536);
    let start = data.physical(0);
    disk.submit(2, 0, Op::Read(&data)).unwrap();
    disk.submit(0, 0, Op::Write(&data.part(0, 512))).unwrap();
    // All that there is room for.
    assert_eq!(disk.max_transfer(), 250 * 512);
    let all = region(&bench, 250 * 512);
    disk.submit(1, 0, Op::Read(&all)).unwrap();
    disk.kick().unwrap();
    let read = bench.take().unwrap();
    assert_eq!((read.flags, read.len), (9, 1536));
    assert_eq!(bench.pieces(&read), [(start, 1000), (start + 1000, 536)]);
    let write = bench.take().unwrap();
    assert_eq!((write.flags, write.data, write.len), (16, start, 512));
    let pieces = bench.pieces(&bench.take().unwrap());
    assert_eq!(pieces.len(), 128);
    assert_eq!(pieces.iter().map(|(_, len)| len).sum::<u32>(), 250 * 512);
    assert_eq!(pieces.last(), Some(&(all.physical(127_000), 1000)));
}

#[test]
fn all_tags_are_in_flight_at_once_and_come_back_in_any_order() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options::new(256));
    let data = region(&bench, 512);
    for round in 0..20_u32 {
        for tag in 0..256 {
            disk.submit(tag, 0, Op::Read(&data)).unwrap();
        }
        let used = Err(Error::Request("the tag is too high or in use"));
        assert_eq!(disk.submit(255, 0, Op::Read(&data)), used);
        assert_eq!(disk.submit(256, 0, Op::Read(&data)), used);
        disk.kick().unwrap();
        let mut taken: Vec<_> = (0..256).map(|_| bench.take().unwrap()).collect();
        taken.rotate_left(7 * round as usize % 256);
        let mut expected = Vec::new();
        for request in &taken {
            bench.complete(request, &Reply::good(&[0; 512]));
            expected.push(done(u16::try_from(request.context - 1).unwrap()));
        }
        assert_eq!(poll(&mut disk).as_ref(), Ok(&expected));
    }
    assert_eq!(poll(&mut disk), Ok(vec![]));
}

#[test]
fn a_kick_costs_one_write_and_polling_nothing() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options { threshold: false, ..Options::new(8) });
    let data = region(&bench, 512);
    let mut cost = |work: &dyn Fn(&mut Pvscsi<'_, Fake>)| bench.accesses(&mut disk, work);
    let nothing = (vec![], vec![]);
    let submitted = cost(&|disk| {
        disk.submit(0, 0, Op::Read(&data)).unwrap();
        disk.submit(1, 0, Op::Write(&data)).unwrap();
    });
    assert_eq!(submitted, nothing);
    assert_eq!(cost(&|disk| disk.kick().unwrap()), (vec![], vec![KICK_RW]));
    assert_eq!(cost(&|disk| disk.kick().unwrap()), nothing);
    // With anything else among them it is the other register, once.
    let mixed = cost(&|disk| {
        disk.submit(2, 0, Op::Read(&data)).unwrap();
        disk.submit(3, 0, Op::Flush).unwrap();
        disk.submit(4, 0, Op::Read(&data)).unwrap();
        disk.kick().unwrap();
    });
    assert_eq!(mixed, (vec![], vec![KICK_NON_RW]));
    let again = cost(&|disk| {
        disk.submit(5, 0, Op::Read(&data)).unwrap();
        disk.kick().unwrap();
    });
    assert_eq!(again, (vec![], vec![KICK_RW]));
    bench.serve();
    assert_eq!(cost(&|disk| assert_eq!(poll(disk).unwrap().len(), 6)), nothing);
    assert_eq!(cost(&|disk| assert_eq!(poll(disk), Ok(vec![]))), nothing);
}

#[test]
fn the_adapters_threshold_spares_kicks_of_reads_and_writes_alone() {
    let kicks = |threshold: u32, op: Op<'_>, bench: &Bench| -> Vec<Vec<u64>> {
        bench.adapter.borrow_mut().threshold = Some(threshold);
        let mut disk = disk(bench, Options::new(8));
        (0..4)
            .map(|tag| {
                let work = |disk: &mut Pvscsi<'_, _>| {
                    disk.submit(tag, 0, op).unwrap();
                    disk.kick().unwrap();
                };
                bench.accesses(&mut disk, work).1
            })
            .collect()
    };
    let bench = Bench::usual();
    let data = region(&bench, 512);
    let kick = vec![KICK_RW];
    assert_eq!(kicks(0, Op::Read(&data), &bench), vec![kick.clone(); 4]);
    bench.adapter.borrow_mut().idle = false;
    assert_eq!(kicks(1, Op::Read(&data), &bench), vec![kick.clone(); 4]);
    bench.adapter.borrow_mut().idle = false;
    assert_eq!(kicks(3, Op::Write(&data), &bench), [vec![], vec![], kick.clone(), kick.clone()]);
    bench.adapter.borrow_mut().idle = false;
    assert_eq!(kicks(100, Op::Read(&data), &bench), vec![vec![]; 4]);
    bench.adapter.borrow_mut().idle = false;
    assert_eq!(kicks(100, Op::Flush, &bench), vec![vec![KICK_NON_RW]; 4]);
}

#[test]
fn endings_are_told_apart() {
    let given = |host, status, len| device::Completion { context: 0, len, sense: 0, host, status };
    let cases = [
        (given(0, 0, 512), Ok(())),
        (given(0, 0, 511), Err(Failed::Short)),
        // Adapters that do not say how much was moved.
        (given(0, 0, 0), Ok(())),
        (given(0x0a, 0, 512), Ok(())),
        (given(0x0b, 0, 512), Ok(())),
        (given(0, 0x18, 0), Err(Failed::Io)),
        (given(0, 0x40, 0), Err(Failed::Aborted)),
        (given(0x0c, 0, 512), Ok(())),
        (given(0x0c, 0, 100), Err(Failed::Short)),
        (given(0x0c, 0, 0), Err(Failed::Short)),
        (given(0x11, 0, 0), Err(Failed::Io)),
        (given(0x12, 0, 512), Err(Failed::Io)),
        (given(0x1a, 0, 0), Err(Failed::Io)),
        (given(0x20, 0, 512), Err(Failed::Io)),
        (given(0x22, 0, 0), Err(Failed::Aborted)),
        (given(0x23, 0, 0), Err(Failed::Aborted)),
        (given(0x25, 0, 0), Err(Failed::Aborted)),
        (given(0x26, 0, 0), Err(Failed::Aborted)),
        (given(0x34, 0, 0), Err(Failed::Io)),
        (given(0xffff, 0, 512), Err(Failed::Io)),
        (given(0x1a, 0xffff, 0), Err(Failed::Io)),
    ];
    for (completion, result) in cases {
        let bench = Bench::usual();
        let mut disk = disk(&bench, Options::new(8));
        disk.submit(6, 0, Op::Read(&region(&bench, 512))).unwrap();
        disk.kick().unwrap();
        bench.give(device::Completion { context: bench.take().unwrap().context, ..completion });
        assert_eq!(poll(&mut disk), Ok(vec![Completion { tag: 6, result }]), "{completion:?}");
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
        let bench = Bench::usual();
        let mut disk = disk(&bench, Options::new(8));
        disk.submit(7, 0, Op::Read(&region(&bench, 512))).unwrap();
        disk.kick().unwrap();
        let reply = Reply { data: vec![0; 512], ..reply };
        bench.complete(&bench.take().unwrap(), &reply);
        assert_eq!(poll(&mut disk), Ok(vec![Completion { tag: 7, result }]));
    }
}

#[test]
fn a_request_that_meets_a_unit_attention_is_issued_again() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options { segment: 512, ..Options::new(8) });
    let data = region(&bench, 1024);
    disk.submit(2, 512, Op::Write(&data)).unwrap();
    disk.submit(3, 512, Op::Read(&data)).unwrap();
    disk.kick().unwrap();
    let (write, read) = (bench.take().unwrap(), bench.take().unwrap());
    bench.complete(&write, &Reply::check(6, 0x29, 3));
    bench.complete(&read, &Reply::good(&[0; 1024]));
    let work = |disk: &mut Pvscsi<'_, _>| assert_eq!(poll(disk), Ok(vec![done(3)]));
    assert_eq!(bench.accesses(&mut disk, work), (vec![], vec![KICK_RW]));
    let again = bench.take().unwrap();
    assert_eq!(again.bytes, write.bytes);
    bench.complete(&again, &Reply::good(&[]));
    assert_eq!(poll(&mut disk), Ok(vec![done(2)]));
    // Not for ever.
    disk.submit(2, 512, Op::Flush).unwrap();
    disk.kick().unwrap();
    for _ in 0..MAX_RETRIES {
        bench.complete(&bench.take().unwrap(), &Reply::status(8));
        assert_eq!(poll(&mut disk), Ok(vec![]));
    }
    bench.complete(&bench.take().unwrap(), &Reply::status(8));
    assert_eq!(poll(&mut disk), Ok(vec![failed(2, Failed::Io)]));
}

#[test]
fn any_command_can_be_carried_out_while_nothing_is_in_flight() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options::new(8));
    bench.adapter.borrow_mut().idle = false;
    let data = region(&bench, 64);
    let cdb = Cdb::new(&[0x12, 0, 0, 0, 64, 0]).unwrap();
    let ended = disk.execute(Address { target: 0, lun: 9 }, &cdb, Data::In(&data)).unwrap();
    assert_eq!((ended.outcome, ended.moved, data.read8(0)), (Outcome::Status(0), 36, 0x7f));
    let ended = disk.execute(Address { target: 5, lun: 0 }, &cdb, Data::In(&data)).unwrap();
    assert_eq!(ended.outcome, Outcome::Absent);
    bench.rest();
    disk.submit(1, 0, Op::Flush).unwrap();
    let cdb = Cdb::new(&[0; 6]).unwrap();
    assert_eq!(disk.execute(Address::default(), &cdb, Data::None), Err(Error::Busy));
    disk.kick().unwrap();
    bench.serve();
    assert_eq!(poll(&mut disk), Ok(vec![done(1)]));
    // The disk's requests are still for the disk.
    disk.submit(0, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    assert_eq!(bench.take().unwrap().address, Address::default());
}
