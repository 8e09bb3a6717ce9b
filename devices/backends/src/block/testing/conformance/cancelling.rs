//! The contract of [`BlockQueue::cancel`].

use std::collections::BTreeMap;

use super::{CANARY, INPUT, finish, one};
use crate::block::testing::{GuestPages, plain};
use crate::block::{BlockBackend, BlockCompletion, BlockError, BlockOp, BlockQueue};

/// Bytes of an operation here, several system calls' worth for a bounce buffer.
const LEN: usize = 192 << 10;

pub(super) fn try_all(backend: &dyn BlockBackend, guest: &GuestPages, stores: bool) {
    strangers(backend, guest, stores);
    for when in [When::Held, When::Committed, When::Both] {
        each_ends_once(backend, guest, stores, when);
    }
    it_is_quiet_afterwards(backend, guest);
    alike(backend, guest);
}

// A token that is not known, not any more, or another queue's, is nothing to cancel: neither now nor
// when it is used (again).
fn strangers(backend: &dyn BlockBackend, guest: &GuestPages, stores: bool) {
    let mut queue = backend.open_queue(2).expect("a queue");
    let mut other = backend.open_queue(2).expect("a queue");
    let data = vec![42; LEN];
    for token in [0, 7, u64::MAX] {
        queue.cancel(token);
        guest.write(0, &data);
        one(&mut *queue, guest.write_request(token, 0, &[(0, LEN)])).expect("not cancelled");
        queue.cancel(token);
        queue.cancel(token);
        guest.write(INPUT, &vec![CANARY; LEN]);
        assert!(queue.submit(guest.read_request(token, 0, &[(INPUT, LEN)])).is_ok());
        other.cancel(token);
        queue.commit();
        other.cancel(token);
        other.commit();
        let completions = finish(&mut *queue);
        assert_eq!((completions.len(), completions[0].token), (1, token));
        assert!(completions[0].result.is_ok(), "cancelled in vain: {completions:?}");
        assert!(!stores || guest.read(INPUT, LEN) == data);
        let mut more = Vec::new();
        other.complete(&mut more);
        queue.complete(&mut more);
        assert!(more.is_empty() && queue.in_flight() == 0 && other.in_flight() == 0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Held,
    Committed,
    Both,
}

/// What became of each operation: every one of `count` tokens once, done or, if it is in
/// `cancelled`, cancelled.
fn outcomes(
    completions: Vec<BlockCompletion>,
    count: u64,
    cancelled: &dyn Fn(u64) -> bool,
) -> BTreeMap<u64, bool> {
    assert_eq!(completions.len() as u64, count, "each completes once");
    let mut outcomes = BTreeMap::new();
    for BlockCompletion { token, result } in completions {
        match &result {
            Ok(()) => {}
            Err(BlockError::Cancelled) if cancelled(token) => {}
            Err(error) => panic!("operation {token}: {error}"),
        }
        assert!(token < count && outcomes.insert(token, result.is_ok()).is_none(), "{token} twice");
    }
    outcomes
}

fn each_ends_once(backend: &dyn BlockBackend, guest: &GuestPages, stores: bool, when: When) {
    // Three kinds in turn: a read, a write, a flush; of each kind every other one is cancelled.
    const COUNT: u64 = 9;
    let place = |token: u64| (token % 3) * LEN as u64;
    let memory = |token: u64| token * LEN as u64;
    let cancelled = |token: u64| token.is_multiple_of(2);
    let mut queue = backend.open_queue(16).expect("a queue");
    for round in 0..4 {
        let content = |token: u64| vec![round * 16 + u8::try_from(token).expect("few") + 1; LEN];
        guest.write(0, &vec![round * 16; 3 * LEN]);
        one(&mut *queue, guest.write_request(0, 0, &[(0, 3 * LEN)])).expect("write");
        for token in 0..COUNT {
            guest.write(memory(token), &content(token));
            let segment = [(memory(token), LEN)];
            let request = match token / 3 {
                0 => guest.read_request(token, place(token), &segment),
                1 => plain(token, BlockOp::Flush, 0, 0),
                _ => guest.write_request(token, place(token), &segment),
            };
            assert!(queue.submit(request).is_ok());
        }
        let cancel = |queue: &mut dyn BlockQueue| {
            for token in (0..COUNT).filter(|token| cancelled(*token)) {
                queue.cancel(token);
                queue.cancel(token);
            }
        };
        if when != When::Committed {
            cancel(&mut *queue);
        }
        if when != When::Held {
            queue.commit();
            cancel(&mut *queue);
        }
        assert_eq!(queue.in_flight() as u64, COUNT, "room is given back with the completion");
        let done = outcomes(finish(&mut *queue), COUNT, &cancelled);
        assert!((0..COUNT).all(|token| done[&token] || cancelled(token)));
        if !stores {
            continue;
        }
        // What is said to be done was done, and what was not cancelled, whatever happened beside it. A
        // read and a write of the same place were in flight together here, so only writes can tell.
        one(&mut *queue, guest.read_request(0, 0, &[(INPUT, 3 * LEN)])).expect("read");
        let image = guest.read(INPUT, 3 * LEN);
        for token in (6..COUNT).filter(|token| done[token]) {
            let start = usize::try_from(place(token)).expect("small");
            assert!(image[start..start + LEN] == content(token), "write {token}");
        }
    }
}

// The buffers are given up with the completion, also if the operation was cancelled.
fn it_is_quiet_afterwards(backend: &dyn BlockBackend, guest: &GuestPages) {
    for _ in 0..8 {
        let mut queue = backend.open_queue(4).expect("a queue");
        for token in 0..4 {
            let segment = [(INPUT + token * LEN as u64, LEN)];
            assert!(queue.submit(guest.read_request(token, 0, &segment)).is_ok());
        }
        queue.commit();
        for token in 0..4 {
            queue.cancel(token);
        }
        outcomes(finish(&mut *queue), 4, &|_| true);
        guest.write(INPUT, &vec![CANARY; 4 * LEN]);
        for token in 0..4 {
            one(&mut *queue, plain(token, BlockOp::Flush, 0, 0)).expect("flush");
        }
        assert!(guest.read(INPUT, 4 * LEN) == vec![CANARY; 4 * LEN], "written after its end");
        // One that is cancelled, and then dropped.
        assert!(queue.submit(guest.read_request(9, 0, &[(INPUT, LEN)])).is_ok());
        queue.commit();
        queue.cancel(9);
        drop(queue);
        let after = guest.read(INPUT, LEN);
        let mut queue = backend.open_queue(1).expect("a queue");
        one(&mut *queue, plain(1, BlockOp::Flush, 0, 0)).expect("flush");
        assert!(guest.read(INPUT, LEN) == after, "written after the queue was dropped");
    }
}

// Operations of one token are cancelled together, and there is room for others afterwards.
fn alike(backend: &dyn BlockBackend, guest: &GuestPages) {
    let mut queue = backend.open_queue(3).expect("a queue");
    for committed in [false, true] {
        for index in 0..3 {
            let segment = [(INPUT + index * LEN as u64, LEN)];
            assert!(queue.submit(guest.read_request(5, 0, &segment)).is_ok());
        }
        if committed {
            queue.commit();
        }
        queue.cancel(5);
        let completions = finish(&mut *queue);
        assert_eq!(completions.len(), 3);
        for BlockCompletion { token, result } in completions {
            assert_eq!(token, 5);
            assert!(matches!(result, Ok(()) | Err(BlockError::Cancelled)), "{result:?}");
        }
        for token in 0..3 {
            assert!(queue.submit(plain(token, BlockOp::Flush, 0, 0)).is_ok(), "room for {token}");
        }
        outcomes(finish(&mut *queue), 3, &|_| false);
    }
}
