//! What a controller must not say.

use super::*;

#[test]
fn capabilities_that_cannot_be_are_errors() {
    use Error::{Protocol, Unsupported};
    let cap = |clear: u64, set: u64| model::CAP & !clear | set;
    for (cap, error) in [
        (u64::MAX, Protocol("its registers read as ones")),
        (cap(1 << 37, 0), Unsupported("the NVM command set")),
        (cap(0, 1 << 48), Unsupported("pages of 4 KiB")),
        (cap(0, 0xff << 48), Unsupported("pages of 4 KiB")),
        (cap(0xffff, 0), Protocol("its queues have no room")),
        (cap(0, 0xf << 32), Protocol("its doorbells are outside its BAR")),
        (cap(0, 0xb << 32), Protocol("its doorbells are outside its BAR")),
    ] {
        let (fake, model) = usual();
        model.cap.set(cap);
        assert_eq!(failure(&fake, Options::new(1)), error, "{cap:#x}");
    }
    let (fake, model) = usual();
    model.version.set(u32::MAX);
    assert_eq!(failure(&fake, Options::new(1)), Protocol("its registers read as ones"));
    // A namespace whose capacity is what a disk's can be, and a controller that promises everything.
    let (fake, model) = usual();
    model.cap.set(cap(0, 0xff00_ffff));
    model.patch(0, 77, &[0xff]);
    assert!(Nvme::new(&fake, Options::new(256)).is_ok());
}

#[test]
fn identities_that_make_no_sense_are_errors() {
    const CONTROLLER: usize = 0;
    const NAMESPACE: usize = 1;
    const LIST: usize = 2;
    use Error::{NotFound, Protocol, Unsupported};
    let sizes = Protocol("its queues' entries are not those of the NVM command set");
    let format = Protocol("a namespace's format that it does not have");
    let block = Protocol("its block size makes no sense");
    let cases: [(usize, usize, &[u8], Error); 17] = [
        (CONTROLLER, 512, &[0x77], sizes),
        (CONTROLLER, 512, &[0x05], sizes),
        (CONTROLLER, 513, &[0x33], sizes),
        (CONTROLLER, 513, &[0x00], sizes),
        (CONTROLLER, 516, &[0, 0, 0, 0], Protocol("more namespaces than there can be")),
        (LIST, 0, &[1, 1, 0, 0], Protocol("more namespaces than there can be")),
        (LIST, 0, &[0xff; 4], Protocol("an active namespace that cannot be")),
        (LIST, 0, &[0; 4], NotFound),
        (NAMESPACE, 0, &[0; 8], NotFound),
        (NAMESPACE, 0, &[0xff; 8], Protocol("its capacity makes no sense")),
        (NAMESPACE, 26, &[2], format),
        (NAMESPACE, 25, &[15, 0x6f], Protocol("its block size makes no sense")),
        (NAMESPACE, 25, &[16, 0x2f], format),
        (NAMESPACE, 132, &[8, 0], Unsupported("blocks without metadata")),
        (NAMESPACE, 134, &[8], block),
        (NAMESPACE, 134, &[17], block),
        (NAMESPACE, 134, &[255], block),
    ];
    for (which, at, bytes, error) in cases {
        let (fake, model) = usual();
        model.patch(which, at, bytes);
        assert_eq!(failure(&fake, Options::new(1)), error, "{which} {at} {bytes:?}");
        assert_eq!(model.cc.get() & 1, 0, "it is disabled");
    }
    // A block that is larger than what can be moved at once.
    let (fake, model) = usual();
    model.block_shift.set(16);
    model.patch(0, 77, &[1]);
    let error = Error::Protocol("it cannot move a block at once");
    assert_eq!(failure(&fake, Options::new(1)), error);
}

#[test]
fn one_that_does_not_answer_is_given_up() {
    use Error::{Protocol, Timeout};
    for (fault, error) in [
        (Fault::Gone, Protocol("its registers read as ones")),
        (Fault::NeverReady, Timeout("controller ready")),
        (Fault::Fails, Protocol("it says that it has failed")),
        (Fault::StaysReady, Timeout("controller ready")),
        (Fault::Silent, Timeout("admin command")),
        (Fault::WrongId, Protocol("a completion of no command")),
        (Fault::WrongQueue, Protocol("a completion of another queue")),
        (Fault::Refuses(6, 2), Protocol("it does not identify itself")),
        (Fault::Refuses(9, 0x6002), Protocol("it gives no queues")),
        (Fault::Refuses(5, 0x102), Protocol("it refuses a completion queue")),
        (Fault::Refuses(1, 0x101), Protocol("it refuses a submission queue")),
    ] {
        let (fake, model) = usual();
        model.fault.set(fault);
        assert_eq!(failure(&fake, Options::new(1)), error, "{fault:?}");
    }
    for (fault, error) in [
        (Fault::Refuses(4, 0x10c), "it does not give a queue back"),
        (Fault::Refuses(5, 0x102), "it refuses a completion queue"),
        (Fault::Refuses(1, 0x101), "it refuses a submission queue"),
    ] {
        let (fake, model) = usual();
        let mut disk = disk(&fake, &model, Options::new(1));
        model.fault.set(fault);
        assert_eq!(disk.set_interrupts(true), Err(Protocol(error)));
        assert_eq!(disk.submit(0, 0, Op::Flush), Err(Error::Request("the disk is shut down")));
        // It is not asked for queues that it does not have.
        model.administered.borrow_mut().clear();
        disk.shutdown().unwrap();
        assert!(model.administered.borrow().is_empty());
    }
}

/// A disk of two pairs with tag 2, which is of the first, in flight.
fn one_in_flight<'a>(fake: &'a Fake, model: &Model) -> (Nvme<'a, Fake>, Fetched) {
    let mut disk = disk(fake, model, Options { queues: 2, ..Options::new(8) });
    disk.submit(2, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    let command = model.take().unwrap();
    (disk, command)
}

#[test]
fn lies_about_completions_are_errors() {
    let good = Posted { queue: 1, id: 2, head: 1, ..Posted::default() };
    let lies = [
        vec![good, good],
        vec![Posted { id: 0, ..good }],
        vec![Posted { id: 3, ..good }],
        vec![Posted { id: 8, ..good }],
        vec![Posted { id: 256, ..good }],
        vec![Posted { id: 2 | 1 << 8, ..good }],
        vec![Posted { id: u16::MAX, ..good }],
        vec![Posted { queue: 0, ..good }],
        vec![Posted { queue: 2, ..good }],
        vec![Posted { queue: u16::MAX, ..good }],
        vec![Posted { head: 5, ..good }],
        vec![Posted { head: u16::MAX, ..good }],
    ];
    for posts in lies {
        let (fake, model) = usual();
        let (mut disk, _) = one_in_flight(&fake, &model);
        posts.iter().for_each(|posted| model.post(&fake, 1, *posted));
        let result = poll(&mut disk);
        assert!(matches!(result, Err(Error::Protocol(_))), "{posts:?} {result:?}");
        // What was taken before the lie was seen through has given its room back.
        let head = model.completions.borrow()[&1].head;
        assert!(usize::from(head) + 1 >= posts.len(), "{posts:?} {head}");
        disk.shutdown().unwrap();
    }
    // On the other pair's queue, in this one's words and in its own.
    for posted in [good, Posted { queue: 2, ..good }] {
        let (fake, model) = usual();
        let (mut disk, _) = one_in_flight(&fake, &model);
        model.post(&fake, 2, posted);
        assert!(matches!(poll(&mut disk), Err(Error::Protocol(_))));
    }
}

#[test]
fn what_it_was_not_told_of_it_cannot_have_done() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, Options::new(8));
    disk.submit(2, 0, Op::Flush).unwrap();
    model.post(&fake, 1, Posted { queue: 1, id: 2, ..Posted::default() });
    assert_eq!(poll(&mut disk), Err(Error::Protocol("a completion of no command")));
    disk.kick().unwrap();
    model.serve(&fake);
    assert_eq!(poll(&mut disk), Ok(vec![done(2)]));
}

#[test]
fn a_completion_of_the_wrong_phase_is_none() {
    let (fake, model) = usual();
    let (mut disk, command) = one_in_flight(&fake, &model);
    let flip = |model: &Model| {
        let mut completions = model.completions.borrow_mut();
        completions.get_mut(&1).unwrap().flip_phase();
    };
    flip(&model);
    model.complete(&fake, &command, 0, 0);
    assert_eq!(poll(&mut disk), Ok(vec![]));
    // A queue that is full of the right phase from end to end, of what was in flight once.
    flip(&model);
    for _ in 0..5 {
        model.complete(&fake, &command, 0, 0);
    }
    let result = poll(&mut disk);
    assert!(matches!(result, Ok(ref none) if none.is_empty()) || result.is_err());
}

// Whatever is in its memory: an error or completions of what was in flight, and an end.
#[test]
fn no_completion_leads_astray() {
    let mut seed = 0x1234_5678_9abc_def0u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..300 {
        let (fake, model) = usual();
        let mut disk = disk(&fake, &model, Options { queues: 2, ..Options::new(8) });
        for tag in 0..8 {
            disk.submit(tag, 0, Op::Flush).unwrap();
        }
        disk.kick().unwrap();
        let mut ended = 0;
        for _ in 0..20 {
            let word = random();
            // Near the truth, most of the time.
            let small = |shift: u32, mask: u64| u16::try_from(word >> shift & mask).unwrap();
            let posted = Posted {
                id: if word & 7 == 0 { small(16, 0xffff) } else { small(16, 7) },
                queue: if word & 0x38 == 0 { small(32, 0xffff) } else { 1 + small(32, 1) },
                head: if word & 0x1c0 == 0 { small(40, 0xffff) } else { small(40, 3) },
                status: if word & 0x600 == 0 { small(48, 0x7fff) } else { 0 },
                result: 0,
            };
            model.post(&fake, 1 + small(63, 1), posted);
            let mut completions = Completions::new();
            let _ = disk.poll(&mut completions);
            ended += completions.len();
        }
        assert!(ended <= 8);
        model.fetched.borrow_mut().clear();
        disk.shutdown().unwrap();
    }
}
