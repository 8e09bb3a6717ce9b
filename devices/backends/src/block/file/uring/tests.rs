//! Cancelling what certainly runs, or waits: a pipe in the image's place has nothing to read until a
//! test writes to it, and a gate that a test has entered lets no flush through.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use super::*;
use crate::block::file::tests::{cancelled, flush};
use crate::block::testing::{GuestPages, finish};

const MIB: u64 = 1 << 20;

/// An image that is the reading end of a pipe, and the other end.
fn pipe() -> (Arc<Image>, File) {
    let (reader, writer) = io::pipe().unwrap();
    (Arc::new(Image::of(OwnedFd::from(reader).into(), MIB)), OwnedFd::from(writer).into())
}

fn uring(image: &Arc<Image>, depth: u32) -> Option<UringQueue> {
    if let Err(error) = available() {
        println!("skipped: {error}");
        return None;
    }
    Some(UringQueue::new(image.clone(), depth).unwrap())
}

#[test]
fn it_stops_what_runs() {
    let (image, mut writer) = pipe();
    let guest = GuestPages::new(0x4000);
    let Some(mut queue) = uring(&image, 4) else { return };
    for token in 0..4 {
        queue.submit(guest.read_request(token, 0, &[(token * 512, 512)])).unwrap();
    }
    queue.commit();
    let mut completions = Vec::new();
    queue.complete(&mut completions);
    assert!(completions.is_empty(), "a pipe has nothing to read");
    assert_eq!(queue.running, 4);
    for token in [1, 3, 1] {
        queue.cancel(token);
    }
    while completions.len() < 2 {
        queue.complete(&mut completions);
    }
    assert_eq!(cancelled(&completions), [(1, true), (3, true)]);
    assert_eq!((queue.in_flight(), queue.running), (2, 2));
    // The others go on, and new ones are not hit.
    completions.clear();
    queue.submit(guest.read_request(1, 0, &[(512, 512)])).unwrap();
    queue.submit(guest.read_request(3, 0, &[(1536, 512)])).unwrap();
    queue.commit();
    writer.write_all(&[7; 2048]).unwrap();
    while queue.in_flight() != 0 {
        queue.complete(&mut completions);
    }
    assert_eq!(cancelled(&completions), [(0, false), (1, false), (2, false), (3, false)]);
    assert_eq!(guest.read(0, 2048), [7; 2048]);
    assert!(queue.slots.iter().all(|slot| !slot.active && !slot.cancelling));
}

// The rest of a short transfer is not carried on, and what it has done is done.
#[test]
fn it_does_not_carry_on_what_was_cancelled() {
    let (image, mut writer) = pipe();
    let guest = GuestPages::new(0x4000);
    let Some(mut queue) = uring(&image, 1) else { return };
    writer.write_all(&[7; 100]).unwrap();
    queue.submit(guest.read_request(1, 0, &[(0x1000, 512)])).unwrap();
    queue.commit();
    let mut completions = Vec::new();
    while guest.read(0x1000, 1) != [7] {
        queue.complete(&mut completions);
    }
    // Here the result of the first part may wait to be taken, or the rest be under way.
    queue.complete(&mut completions);
    assert!(completions.is_empty());
    queue.cancel(1);
    while completions.is_empty() {
        queue.complete(&mut completions);
    }
    assert_eq!(cancelled(&completions), [(1, true)]);
    assert_eq!(guest.read(0x1000, 101), [[7; 100].as_slice(), &[0]].concat());
    assert!(guest.is_dirty(0x1000));
    // Nobody reads the pipe any more.
    writer.write_all(&[9; 512]).unwrap();
    queue.submit(guest.read_request(2, 0, &[(0x2000, 512)])).unwrap();
    assert!(finish(&mut queue).remove(0).result.is_ok());
    assert_eq!(guest.read(0x2000, 512), [9; 512]);
    assert_eq!(guest.read(0x1064, 1), [0]);
}

// It had ended, and the queue had not noticed yet: it ends as it would have.
#[test]
fn it_is_too_late_for_what_has_ended() {
    let (image, mut writer) = pipe();
    let guest = GuestPages::new(0x4000);
    let Some(mut queue) = uring(&image, 2) else { return };
    for round in 0..20 {
        queue.submit(guest.read_request(1, 0, &[(0, 512)])).unwrap();
        queue.submit(guest.read_request(2, 0, &[(512, 512)])).unwrap();
        queue.commit();
        writer.write_all(&[7; 512]).unwrap();
        // One of the two has it, and is as good as over.
        while guest.read(0, 1) != [7] && guest.read(512, 1) != [7] {
            // Lets the kernel do what waits for this thread to come by.
            let _ = queue.ring.submitter().submit();
        }
        queue.cancel(1);
        queue.cancel(2);
        let completions = finish(&mut queue);
        let outcome = cancelled(&completions);
        assert_eq!(outcome.len(), 2, "round {round}");
        assert_eq!(outcome.iter().filter(|(_, cancelled)| *cancelled).count(), 1, "{outcome:?}");
        guest.write(0, &[0; 1024]);
    }
    assert_eq!(queue.running, 0);
}

// Dropped while operations and their cancellation are under way.
#[test]
fn it_is_dropped_with_its_cancellations() {
    let guest = GuestPages::new(0x4000);
    for reaped in [false, true] {
        let (image, mut writer) = pipe();
        let Some(mut queue) = uring(&image, 8) else { return };
        for token in 0..8 {
            queue.submit(guest.read_request(token, 0, &[(token * 512, 512)])).unwrap();
        }
        queue.commit();
        for token in 0..8 {
            queue.cancel(token);
        }
        if reaped {
            queue.complete(&mut Vec::new());
        }
        drop(queue);
        writer.write_all(&[7; 512]).unwrap();
        assert_eq!(guest.read(0, 0x1000), [0; 0x1000]);
    }
}

// A flush that waits for another to end leaves the line, and lets those behind it pass.
#[test]
fn it_takes_a_flush_out_of_the_line() {
    let image = Arc::new(Image::of(tempfile::tempfile().unwrap(), MIB));
    let Some(mut queue) = uring(&image, 4) else { return };
    image.sync.enter(Entry::Shared);
    queue.submit(flush(1)).unwrap();
    queue.commit();
    let mut completions = Vec::new();
    queue.complete(&mut completions);
    assert!(completions.is_empty() && queue.running == 0);
    let bell = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    assert!(!image.sync.try_enter(Entry::Shared, false, &bell), "the flush goes first");
    queue.cancel(1);
    assert_eq!(bell.read().unwrap(), 1);
    assert!(image.sync.try_enter(Entry::Shared, true, &bell));
    assert_eq!(cancelled(&finish(&mut queue)), [(1, true)]);
    image.sync.leave(Entry::Shared);
    image.sync.leave(Entry::Shared);
    queue.submit(flush(2)).unwrap();
    assert_eq!(cancelled(&finish(&mut queue)), [(2, false)]);
}

// A slot whose cancellation the kernel has not taken yet must not go to another operation, which the
// cancellation could hit.
#[test]
fn a_slot_is_kept_until_its_cancellation_has_ended() {
    let (image, mut writer) = pipe();
    let guest = GuestPages::new(0x4000);
    let Some(mut queue) = uring(&image, 1) else { return };
    writer.write_all(&[7; 512]).unwrap();
    queue.submit(guest.read_request(1, 0, &[(0, 512)])).unwrap();
    queue.commit();
    // As if the kernel had no room for the entry that cancels it.
    queue.slots[0].cancelling = true;
    let mut completions = Vec::new();
    while queue.slots[0].active {
        queue.complete(&mut completions);
    }
    queue.complete(&mut completions);
    assert_eq!((completions.len(), queue.in_flight()), (0, 1));
    assert!(queue.submit(flush(2)).is_err(), "there is no other slot");
    queue.give_up(CANCEL);
    queue.complete(&mut completions);
    assert_eq!(cancelled(&completions), [(1, false)]);
    assert_eq!(queue.in_flight(), 0);
}

// One that the kernel has not taken yet is cancelled as soon as it has.
#[test]
fn what_is_staged_is_cancelled_when_it_runs() {
    let (image, _writer) = pipe();
    let guest = GuestPages::new(0x4000);
    let Some(mut queue) = uring(&image, 2) else { return };
    queue.submit(guest.read_request(1, 0, &[(0, 512)])).unwrap();
    queue.submit(guest.read_request(2, 0, &[(512, 512)])).unwrap();
    // A commit without the system call.
    while let Some(index) = queue.held.pop_front() {
        queue.proceed(index);
    }
    assert_eq!((queue.staged.len(), queue.running), (2, 0));
    queue.cancel(2);
    queue.cancel(2);
    let mut completions = Vec::new();
    while completions.is_empty() {
        queue.complete(&mut completions);
    }
    assert_eq!(cancelled(&completions), [(2, true)]);
    assert_eq!((queue.late, queue.in_flight(), queue.running), (0, 1, 1));
    queue.cancel(1);
    assert_eq!(cancelled(&finish(&mut queue)), [(1, true)]);
}
