//! Task management and messages.

use super::device::{COMMAND, INTR_MASK, KICK_NON_RW};
use super::*;

#[test]
fn an_abort_names_the_request_after_it_was_told() {
    let mut units = Units::default();
    units.units.insert((4, 0), TestUnit::disk());
    let bench = Bench::new(units);
    let mut disk = disk(&bench, Options::new(8));
    assert_eq!(disk.abort(3), Err(Error::Request("a tag that is not in use")));
    assert_eq!(bench.writes(), []);
    disk.submit(3, 0, Op::Read(&region(&bench, 512))).unwrap();
    disk.abort(3).unwrap();
    assert_eq!(bench.commands(), [(6, vec![4, 0, 4, 0])]);
    assert_eq!(bench.writes()[..2], [(KICK_NON_RW, 0), (COMMAND, 6)]);
    let context = bench.take().expect("it was told").context;
    bench.give(device::Completion { context, host: 0x26, ..device::Completion::default() });
    assert_eq!(poll(&mut disk), Ok(vec![failed(3, Failed::Aborted)]));
    assert!(disk.abort(3).is_err());
}

#[test]
fn resets_are_told_after_all_requests() {
    let mut units = Units::default();
    units.units.insert((4, 9), TestUnit::disk());
    let bench = Bench::new(units);
    let mut disk = disk(&bench, Options::new(8));
    disk.submit(0, 0, Op::Flush).unwrap();
    disk.reset_device();
    // The LUN is in the second byte.
    assert_eq!(bench.commands(), [(5, vec![4, 0x0900, 0])]);
    assert_eq!(bench.writes()[..2], [(KICK_NON_RW, 0), (COMMAND, 5)]);
    assert!(bench.take().is_some());
    disk.submit(1, 0, Op::Flush).unwrap();
    disk.reset_bus();
    assert_eq!(bench.commands(), [(4, vec![])]);
    assert_eq!(bench.writes()[..2], [(KICK_NON_RW, 0), (COMMAND, 4)]);
    assert!(bench.take().is_some());
}

#[test]
fn after_an_adapter_reset_all_is_as_before_but_requests() {
    for interrupts in [false, true] {
        let bench = Bench::usual();
        let mut disk = disk(&bench, Options::new(8));
        disk.set_interrupts(interrupts).unwrap();
        for tag in 0..5 {
            disk.submit(tag, 0, Op::Read(&region(&bench, 512))).unwrap();
        }
        disk.kick().unwrap();
        let taken: Vec<_> = (0..4).map(|_| bench.take().unwrap()).collect();
        bench.complete(&taken[2], &Reply::good(&[0; 512]));
        // What would be issued again has no chance to.
        bench.complete(&taken[0], &Reply::check(6, 0x29, 0));
        bench.commands();
        let mut completions = Completions::new();
        disk.reset_adapter(&mut completions).unwrap();
        let aborted = |tag| failed(tag, Failed::Aborted);
        let expected = [done(2), failed(0, Failed::Io), aborted(1), aborted(3), aborted(4)];
        assert_eq!(completions.as_slice(), expected);
        let codes: Vec<_> = bench.commands().iter().map(|(command, _)| *command).collect();
        assert_eq!(codes, [1, 3, 8, 10, 10]);
        assert_eq!(bench.adapter.borrow().mask, if interrupts { 15 } else { 0 });
        assert_eq!(bench.writes().last().unwrap().0, INTR_MASK);
        for _ in 0..100 {
            disk.submit(7, 0, Op::Read(&region(&bench, 512))).unwrap();
            disk.kick().unwrap();
            bench.serve();
            assert_eq!(poll(&mut disk), Ok(vec![done(7)]));
        }
    }
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options::new(8));
    bench.adapter.borrow_mut().error = 1;
    assert!(disk.reset_adapter(&mut Completions::new()).is_err());
}

fn messages(disk: &mut Pvscsi<'_, Fake>) -> Result<Vec<Message>, Error> {
    let mut messages = Vec::new();
    disk.messages(|message| messages.push(message))?;
    Ok(messages)
}

#[test]
fn messages_are_read_and_their_room_given_back() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options::new(8));
    let lun = |low| [0, low, 0, 0, 0, 0, 0, 0];
    let address = |target, lun| Address { target, lun };
    assert_eq!(messages(&mut disk), Ok(vec![]));
    let before = disk.accesses();
    for round in 0..20 {
        bench.tell(0, 0, 3, lun(round));
        bench.tell(1, 0, 255, lun(0));
        let expected =
            vec![Message::Added(address(3, round.into())), Message::Removed(address(255, 0))];
        assert_eq!(messages(&mut disk), Ok(expected));
        assert_eq!(bench.heard(), 2 * u32::from(round) + 2);
    }
    bench.tell(2, 0, 3, lun(0));
    bench.tell(0, 1, 3, lun(0));
    bench.tell(1, 0, 256, lun(0));
    bench.tell(0, 0, 3, [0xc1; 8]);
    let other = [2, 0, 1, 0].map(Message::Other);
    assert_eq!(messages(&mut disk), Ok(other.to_vec()));
    (0..32).for_each(|_| bench.tell(0, 0, 3, lun(0)));
    assert_eq!(messages(&mut disk).unwrap().len(), 32);
    assert_eq!(disk.accesses(), before);
    bench.claim_messages(76 + 33);
    assert_eq!(bench.heard(), 76);
    let error = Error::Protocol("more on a ring than it has room for");
    assert_eq!(messages(&mut disk), Err(error));
}
