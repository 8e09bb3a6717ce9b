//! Requests.

use super::*;

/// Runs one request.
fn run(
    fake: &Fake,
    model: &Model,
    disk: &mut Nvme<'_, Fake>,
    offset: u64,
    op: Op<'_>,
) -> Result<(), Error> {
    disk.submit(0, offset, op)?;
    disk.kick()?;
    model.serve(fake);
    assert_eq!(poll(disk)?, [done(0)]);
    Ok(())
}

#[test]
fn data_gets_where_it_belongs_however_it_lies_in_its_pages() {
    for shift in [9, 12] {
        let model = Model::new();
        model.block_shift.set(shift);
        model.patch(0, 77, &[0]);
        let (fake, model) = model.plugged(8);
        let mut disk = disk(&fake, &model, Options::new(1));
        let memory = fake.allocate((2 << 20) + 8192).unwrap();
        let block = 1usize << shift;
        for len in [block, 4096, 8192, 12 << 10, 128 << 10, 132 << 10, 1 << 20, 2 << 20] {
            // Long ones are slow to check.
            let starts = if len > 1 << 18 { &[0, 4092][..] } else { &[0, 4, 512, 4092, 4096] };
            for &start in starts {
                let data = memory.part(start, len);
                fill(&data, len + start);
                let offset = 64 * block;
                let at = u64::try_from(offset).unwrap();
                run(&fake, &model, &mut disk, at, Op::Write(&data)).unwrap();
                let right = |contents: &[u8]| {
                    contents.iter().enumerate().all(|(at, found)| *found == byte(len + start + at))
                };
                assert!(right(&model.contents.borrow()[offset..offset + len]), "{len} {start}");
                fill(&data, 0);
                run(&fake, &model, &mut disk, at, Op::Read(&data)).unwrap();
                let mut found = vec![0; len];
                data.read_bytes(0, &mut found);
                assert!(right(&found), "{len} {start}");
            }
        }
    }
}

#[test]
fn what_is_not_on_the_disk_or_too_long_is_refused() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options::new(2));
    let data = |len| region(&fake, len, 0);
    let long = Error::Request("too long");
    assert_eq!(disk.submit(0, 0, Op::Read(&data(513 << 10))), Err(long));
    assert_eq!(
        disk.submit(0, 0, Op::WriteZeroes(65537 * 512)),
        Err(Error::Request("outside the disk"))
    );
    let blocks = Error::Request("not a multiple of the block size");
    assert_eq!(disk.submit(0, 0, Op::Read(&data(100))), Err(blocks));
    assert_eq!(disk.submit(0, 1, Op::Write(&data(512))), Err(blocks));
    assert_eq!(disk.submit(0, 0, Op::Discard(0)), Err(blocks));
    let outside = Error::Request("outside the disk");
    assert_eq!(disk.submit(0, 8 << 20, Op::Read(&data(512))), Err(outside));
    assert_eq!(disk.submit(0, u64::MAX - 511, Op::Read(&data(512))), Err(outside));
    assert_eq!(disk.submit(0, 0, Op::Discard((8 << 20) + 512)), Err(outside));
    let odd = data(1024).part(2, 512);
    let aligned = Error::Request("data that does not start at a multiple of 4");
    assert_eq!(disk.submit(0, 0, Op::Read(&odd)), Err(aligned));
    let tag = Error::Request("the tag is too high or in use");
    assert_eq!(disk.submit(2, 0, Op::Flush), Err(tag));
    assert_eq!(disk.submit(u16::MAX, 0, Op::Flush), Err(tag));
    disk.submit(1, 0, Op::Flush).unwrap();
    assert_eq!(disk.submit(1, 0, Op::Flush), Err(tag));
    disk.kick().unwrap();
    assert_eq!(model.take().map(|command| command.id), Some(1));
    assert_eq!(model.take(), None, "what was refused is not issued");
}

#[test]
fn discarding_and_zeroing_need_no_data() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options::new(1));
    run(&fake, &model, &mut disk, 1024, Op::Discard(4096)).unwrap();
    assert!(model.contents.borrow()[1024..5120].iter().all(|byte| *byte == 0xdd));
    run(&fake, &model, &mut disk, 2048, Op::WriteZeroes(1024)).unwrap();
    assert!(model.contents.borrow()[2048..3072].iter().all(|byte| *byte == 0));
    assert_eq!(model.contents.borrow()[3072], 0xdd);
    run(&fake, &model, &mut disk, 0, Op::Flush).unwrap();
    let (fake, model) = usual();
    model.patch(0, 520, &[0, 0]);
    let mut disk = super::disk(&fake, &model, Options::new(1));
    assert_eq!(disk.submit(0, 0, Op::Discard(512)), Err(Error::Unsupported("discard")));
    assert_eq!(disk.submit(0, 0, Op::WriteZeroes(512)), Err(Error::Unsupported("write zeroes")));
    disk.submit(0, 0, Op::Flush).unwrap();
}

#[test]
fn what_no_range_can_say_is_said_by_several() {
    let (fake, model) = usual();
    // A namespace of 2^41 blocks.
    model.patch(1, 0, &(1u64 << 41).to_le_bytes());
    let mut disk = disk(&fake, &model, Options::new(1));
    disk.submit(0, 512, Op::Discard(((1 << 33) + 5) * 512)).unwrap();
    disk.kick().unwrap();
    let command = model.take().unwrap();
    assert_eq!(command.dwords[..2], [2, 4]);
    let (memory, at) = fake.at(command.prp[0]);
    let range = |index: usize| {
        let at = at + 16 * index;
        (memory.read32(at), memory.read32(at + 4), memory.read64(at + 8))
    };
    let most = u64::from(u32::MAX);
    assert_eq!(range(0), (0, u32::MAX, 1));
    assert_eq!(range(1), (0, u32::MAX, 1 + most));
    assert_eq!(range(2), (0, 7, 1 + 2 * most));
    model.complete(&fake, &command, 0, 0);
    assert_eq!(poll(&mut disk), Ok(vec![done(0)]));
    assert_eq!(disk.submit(0, 0, Op::Discard(512 << 41)), Err(Error::Request("too long")));
    let zeroes = |blocks: u64| Op::WriteZeroes(512 * blocks);
    assert_eq!(disk.submit(0, 0, zeroes(65537)), Err(Error::Request("too long")));
    disk.submit(0, 512, zeroes(65536)).unwrap();
    disk.kick().unwrap();
    assert_eq!(model.take().unwrap().dwords[..3], [1, 0, 0xffff]);
}

#[test]
fn failures_are_told_apart() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options::new(1));
    for (status, reason) in [
        (0x01, Failed::Unsupported),
        (0x02, Failed::Unsupported),
        (0x04, Failed::Io),
        (0x07, Failed::Aborted),
        (0x08, Failed::Aborted),
        (0x80, Failed::Io),
        (0x281, Failed::Io),
        // Success has no type but the generic one.
        (0x100, Failed::Io),
        (0x700, Failed::Io),
        // More information, and that it is of no use to try again.
        (0x6001, Failed::Unsupported),
        (0x7fff, Failed::Io),
    ] {
        disk.submit(0, 0, Op::Flush).unwrap();
        disk.kick().unwrap();
        model.complete(&fake, &model.take().unwrap(), status, 0);
        assert_eq!(poll(&mut disk), Ok(vec![failed(0, reason)]), "{status:#x}");
    }
}

#[test]
fn a_batch_costs_a_doorbell_and_so_does_its_completion() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options::new(8));
    let data = region(&fake, 4096, 0);
    for round in 0u32..5 {
        let before = disk.accesses();
        for tag in 0..8 {
            disk.submit(tag, u64::from(tag) * 4096, Op::Read(&data)).unwrap();
        }
        disk.kick().unwrap();
        disk.kick().unwrap();
        assert_eq!(poll(&mut disk), Ok(vec![]));
        model.serve(&fake);
        assert_eq!(poll(&mut disk).unwrap().len(), 8);
        assert_eq!(poll(&mut disk), Ok(vec![]));
        // Nine entries.
        let place = 8 * (round + 1) % 9;
        assert_eq!(model.reads.get(), 0);
        assert_eq!(model.take_writes(), [(0x1008, place), (0x100c, place)]);
        let accesses = disk.accesses().since(before);
        assert_eq!((accesses.reads, accesses.writes, accesses.doorbells), (0, 2, 2));
    }
}

// Each command's list is its own until it has completed.
#[test]
fn lists_of_commands_in_flight_are_apart() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options { queues: 2, ..Options::new(4) });
    let len = 64 << 10;
    let regions: Vec<_> = (0..4).map(|tag| region(&fake, len, tag * 1000)).collect();
    for (tag, region) in (0..).zip(&regions) {
        disk.submit(tag, u64::from(tag) << 16, Op::Write(region)).unwrap();
    }
    disk.kick().unwrap();
    model.serve(&fake);
    assert_eq!(poll(&mut disk).unwrap().len(), 4);
    for (tag, written) in model.contents.borrow().chunks(len).take(4).enumerate() {
        let right = written.iter().enumerate().all(|(at, found)| *found == byte(tag * 1000 + at));
        assert!(right, "{tag}");
    }
}

// The phase tag turns over with every round of the queue; commands end in any order.
#[test]
fn many_rounds_of_the_queues_in_any_order() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options { queues: 3, ..Options::new(10) });
    let data = region(&fake, 512, 7);
    let mut seed = 1u32;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(seed >> 8).unwrap() % below
    };
    let mut free: Vec<u16> = (0..10).collect();
    let mut ended = 0;
    while ended < 2000 {
        for _ in 0..random(4) {
            if free.is_empty() {
                break;
            }
            let tag = free.swap_remove(random(free.len()));
            disk.submit(tag, 512 * u64::from(tag), Op::Write(&data)).unwrap();
        }
        disk.kick().unwrap();
        for _ in 0..random(4) {
            let mut fetched = model.fetched.borrow_mut();
            if fetched.is_empty() {
                break;
            }
            let index = random(fetched.len());
            let command = fetched.remove(index).unwrap();
            drop(fetched);
            assert_eq!(command.queue, 1 + command.id % 3);
            model.serve_one(&fake, &command);
        }
        for completion in poll(&mut disk).unwrap() {
            assert_eq!(completion.result, Ok(()));
            free.push(completion.tag);
            ended += 1;
        }
    }
}
