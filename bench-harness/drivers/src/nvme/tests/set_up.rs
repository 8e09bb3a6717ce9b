//! Setting up, and shutting down.

use super::*;

#[test]
fn it_is_enabled_identified_and_given_its_queues() {
    let (fake, model) = usual();
    let options = Options { queues: 2, interrupt: 7, ..Options::new(6) };
    let disk = Nvme::new(&fake, options).unwrap();
    assert_eq!((disk.namespace_id(), disk.has_write_cache()), (1, true));
    assert_eq!((disk.capacity(), disk.block_size()), (8 << 20, 512));
    assert_eq!((disk.max_depth(), disk.max_transfer(), disk.interrupt()), (6, 512 << 10, 7));
    let writes = model.take_writes();
    let offsets: Vec<u64> = writes.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets[..6], [0x24, 0x28, 0x2c, 0x30, 0x34, 0x14]);
    assert_eq!((writes[0].1, writes[5].1), (3 << 16 | 3, 0x46_0001));
    assert!(offsets[6..].iter().all(|offset| [0x1000, 0x1004].contains(offset)));
    let commands: Vec<(u8, u32, u32)> = model
        .administered
        .borrow()
        .iter()
        .map(|command| (command.opcode, command.dwords[0], command.dwords[1]))
        .collect();
    let expected = [
        (6, 1, 0),
        (6, 2, 0),
        (6, 0, 0),
        (9, 7, 1 << 16 | 1),
        // Four entries for three tags; no interrupts yet, but vectors of their own.
        (5, 3 << 16 | 1, 1 << 16 | 1),
        (1, 3 << 16 | 1, 1 << 16 | 1),
        (5, 3 << 16 | 2, 2 << 16 | 1),
        (1, 3 << 16 | 2, 2 << 16 | 1),
    ];
    assert_eq!(commands, expected);
    // Vectors 1 and 2 send the message; the admin queue's and the others stay masked.
    let table = model.table.borrow();
    for vector in 0..8 {
        let used = vector == 1 || vector == 2;
        assert_eq!(table.get(&(16 * vector + 12)), Some(&u32::from(!used)), "{vector}");
        assert_eq!(table.get(&(16 * vector + 8)), used.then_some(&7));
    }
}

#[test]
fn pairs_share_vectors_if_there_are_too_few() {
    for (vectors, expected) in [(1, [0, 0, 0]), (2, [1, 1, 1]), (3, [1, 2, 1]), (4, [1, 2, 3])] {
        let (fake, model) = Model::new().plugged(vectors);
        Nvme::new(&fake, Options { queues: 3, ..Options::new(3) }).unwrap();
        let queues = model.completions.borrow();
        assert_eq!([1, 2, 3].map(|id| queues[&id].vector), expected);
    }
}

#[test]
fn a_controller_may_take_as_long_as_it_says() {
    // CAP.TO of 10 s; the clock has 1 MHz.
    let slow = model::CAP & !(0xff << 24) | 20 << 24;
    for (cap, seconds, ok) in [
        (slow, 9, true),
        (slow, 12, false),
        // One that promises nothing gets five seconds.
        (model::CAP & !(0xff << 24), 4, true),
        (model::CAP & !(0xff << 24), 7, false),
    ] {
        let (fake, model) = usual();
        model.cap.set(cap);
        model.delay.set(seconds * 1_000_000);
        let result = Nvme::new(&fake, Options::new(1)).map(|_| ());
        let expected = if ok { Ok(()) } else { Err(Error::Timeout("controller ready")) };
        assert_eq!(result, expected, "{seconds}");
    }
}

#[test]
fn one_that_firmware_left_enabled_is_reset_first() {
    let (fake, model) = usual();
    model.cc.set(0x46_0001);
    model.delay.set(3_000_000);
    Nvme::new(&fake, Options::new(1)).unwrap();
    let writes = model.take_writes();
    assert_eq!(writes[..2].iter().map(|write| write.0).collect::<Vec<_>>(), [0x14, 0x24]);
    assert_eq!(writes[0].1, 0x46_0000);
    // One that has failed besides, which it says for as long as its reset takes.
    let (fake, model) = usual();
    model.cc.set(0x46_0001);
    model.delay.set(3_000_000);
    model.fault.set(Fault::Failed);
    assert_eq!(failure(&fake, Options::new(1)), Error::Protocol("it says that it has failed"));
    assert_eq!(model.take_writes()[..2], [(0x14, 0x46_0000), (0x24, 3 << 16 | 3)]);
}

#[test]
fn the_first_active_namespace_is_used() {
    let (fake, model) = usual();
    model.namespace.set(3);
    let mut first = disk(&fake, &model, Options::new(1));
    assert_eq!(first.namespace_id(), 3);
    first.submit(0, 0, Op::Flush).unwrap();
    first.kick().unwrap();
    model.serve(&fake);
    assert_eq!(poll(&mut first), Ok(vec![done(0)]));
    // Before version 1.1 there is no list of them.
    let (fake, model) = usual();
    model.version.set(0x1_0000);
    assert_eq!(disk(&fake, &model, Options::new(1)).namespace_id(), 1);
    let (fake, model) = usual();
    model.namespace.set(0);
    assert_eq!(failure(&fake, Options::new(1)), Error::NotFound);
}

#[test]
fn limits_are_those_that_it_says() {
    for (power, max) in [(0, 2 << 20), (1, 8 << 10), (5, 128 << 10), (9, 2 << 20), (10, 2 << 20)] {
        let (fake, model) = usual();
        model.patch(0, 77, &[power]);
        assert_eq!(disk(&fake, &model, Options::new(1)).max_transfer(), max, "{power}");
    }
    // A power that no number has.
    for power in [20, 51, 52, 63, 64, 255] {
        let (fake, model) = usual();
        model.patch(0, 77, &[power]);
        assert_eq!(disk(&fake, &model, Options::new(1)).max_transfer(), 2 << 20, "{power}");
    }
    for shift in [9, 12, 16] {
        let (fake, model) = usual();
        model.block_shift.set(shift);
        let disk = disk(&fake, &model, Options::new(1));
        assert_eq!((disk.block_size(), disk.capacity()), (1 << shift, 8 << 20));
    }
    // No more than a transfer of whole blocks.
    let (fake, model) = usual();
    model.block_shift.set(16);
    model.patch(0, 77, &[5]);
    assert_eq!(disk(&fake, &model, Options::new(1)).max_transfer(), 128 << 10);
    let (fake, model) = usual();
    model.block_shift.set(13);
    model.patch(0, 77, &[1]);
    assert_eq!(disk(&fake, &model, Options::new(1)).max_transfer(), 8 << 10);
}

#[test]
fn depths_that_do_not_fit_are_refused() {
    let many = Error::Unsupported("so many requests in flight");
    let cap = |entries: u64| model::CAP & !0xffff | (entries - 1);
    for (entries, depth, queues, ok) in [
        (4, 3, 1, true),
        (4, 4, 1, false),
        (4, 6, 2, true),
        (4, 7, 2, false),
        (2, 1, 1, true),
        (2, 2, 1, false),
        (65536, 256, 1, true),
    ] {
        let (fake, model) = usual();
        model.cap.set(cap(entries));
        let result = Nvme::new(&fake, Options { queues, ..Options::new(depth) }).map(|_| ());
        assert_eq!(result, if ok { Ok(()) } else { Err(many) }, "{entries} {depth}");
    }
    let (fake, model) = usual();
    model.patch(0, 514, &[16, 0]);
    assert_eq!(failure(&fake, Options::new(17)), many);
    assert!(Nvme::new(&fake, Options::new(16)).is_ok());
    let (fake, model) = usual();
    model.queues.set(63 << 16 | 1);
    let queues = |queues| Options { queues, ..Options::new(8) };
    assert_eq!(failure(&fake, queues(3)), Error::Unsupported("so many queues"));
    assert!(Nvme::new(&fake, queues(2)).is_ok());
    for wrong in [Options::new(0), Options::new(257), queues(0), queues(9)] {
        assert_eq!(failure(&fake, wrong), Error::Request("depth or queues"));
    }
}

#[test]
fn doorbells_lie_as_far_apart_as_it_says() {
    let (fake, model) = usual();
    model.cap.set(model::CAP | 4 << 32);
    let mut disk = disk(&fake, &model, Options { queues: 2, ..Options::new(2) });
    for tag in 0..2 {
        disk.submit(tag, 0, Op::Flush).unwrap();
    }
    disk.kick().unwrap();
    model.serve(&fake);
    assert_eq!(poll(&mut disk), Ok(vec![done(0), done(1)]));
    let writes = model.take_writes();
    assert_eq!(writes, [(0x1080, 1), (0x1100, 1), (0x10c0, 1), (0x1140, 1)]);
}

#[test]
fn it_is_shut_down_with_its_queues_given_back() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options::new(4));
    disk.shutdown().unwrap();
    let opcodes: Vec<u8> =
        model.administered.borrow().iter().map(|command| command.opcode).collect();
    assert_eq!(opcodes, [0, 4]);
    let writes = model.take_writes();
    let last: Vec<_> = writes.iter().filter(|write| write.0 == 0x14).copied().collect();
    assert_eq!(last, [(0x14, 0x46_4001), (0x14, 0x46_0000)]);
    assert_eq!(disk.submit(0, 0, Op::Flush), Err(Error::Request("the disk is shut down")));
    // Once more there is nothing to shut down.
    disk.shutdown().unwrap();
    assert_eq!(model.take_writes(), []);
    // With requests in flight it is reset all the same, and can be set up anew.
    let mut disk = super::disk(&fake, &model, Options::new(4));
    disk.submit(0, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    model.serve(&fake);
    disk.submit(1, 0, Op::Flush).unwrap();
    disk.shutdown().unwrap();
    assert!(model.administered.borrow().is_empty());
    assert_eq!(model.cc.get() & 1, 0);
    // What was in flight is lost, whether it was kicked, done, or neither.
    model.take_writes();
    assert_eq!(poll(&mut disk), Ok(vec![]));
    disk.kick().unwrap();
    let down = Error::Request("the disk is shut down");
    assert_eq!((disk.set_interrupts(true), disk.set_interrupts(false)), (Err(down), Err(down)));
    assert_eq!(model.take_writes(), []);
    assert!(Nvme::new(&fake, Options::new(4)).is_ok());
}

#[test]
fn one_that_does_not_shut_down_is_reset_and_that_is_said() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options::new(4));
    // Nothing, that it is at it, and a status that there is not.
    for status in [0b00, 0b01, 0b11] {
        model.fault.set(Fault::NeverShutDown(status));
        assert_eq!(disk.shutdown(), Err(Error::Timeout("shutdown")), "{status}");
        assert_eq!(model.cc.get() & 1, 0);
        disk = super::disk(&fake, &model, Options::new(4));
    }
    model.fault.set(Fault::StaysReady);
    assert_eq!(disk.shutdown(), Err(Error::Timeout("controller ready")));
    model.fault.set(Fault::None);
    let mut disk = super::disk(&fake, &model, Options::new(4));
    model.fault.set(Fault::Gone);
    assert_eq!(disk.shutdown(), Err(Error::Protocol("its registers read as ones")));
}

// 4.2: a command with an ID of all ones could not be told from none in the error log.
#[test]
fn ids_of_admin_commands_start_over_before_all_ones() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options::new(1));
    disk.next_id = 0xfffd;
    disk.set_interrupts(true).unwrap();
    let ids: Vec<u16> = model.administered.borrow().iter().map(|command| command.id).collect();
    assert_eq!(ids, [0xfffd, 0xfffe, 0, 1]);
}
