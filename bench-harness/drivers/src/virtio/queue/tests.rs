extern crate std;

use std::vec::Vec;

use super::*;
use crate::testing::Fake;

const SIZE: u16 = 8;

fn queue(event_idx: bool) -> SplitQueue {
    SplitQueue::new(&Fake::new(), SIZE, event_idx).unwrap()
}

/// The device's side.
impl SplitQueue {
    fn give_back(&self, index: u16, id: u32, len: u32) {
        let entry = self.used + ENTRIES + 8 * usize::from(index % self.size);
        self.memory.write32(entry, id);
        self.memory.write32(entry + 4, len);
        self.memory.store16(self.used + INDEX, index.wrapping_add(1));
    }
    fn set_avail_event(&self, event: u16) {
        self.memory.write16(self.used + ENTRIES + 8 * usize::from(self.size), event);
    }
    fn used_event(&self) -> u16 {
        self.memory.read16(self.avail + ENTRIES + 2 * usize::from(self.size))
    }
    fn avail_index(&self) -> u16 {
        self.memory.load16(self.avail + INDEX)
    }
}

#[test]
fn an_event_is_passed_exactly_when_it_lies_between_the_indices() {
    for old in [0, 1, 0x7fff, 0xfff0, 0xffff] {
        for count in 0..20_u16 {
            let new = u16::wrapping_add(old, count);
            let passes: Vec<u16> =
                (0..=u16::MAX).filter(|event| passed(*event, old, new)).collect();
            let mut steps: Vec<u16> = (0..count).map(|step| u16::wrapping_add(old, step)).collect();
            steps.sort_unstable();
            assert_eq!(passes, steps, "{old} to {new}");
        }
    }
}

#[test]
fn the_rings_lie_apart_and_are_aligned() {
    for size in [1, 2, 8, 256, 1024, 16384] {
        let layout = SplitQueue::new(&Fake::new(), size, true).unwrap().layout();
        assert!(layout.descriptors.is_multiple_of(4096));
        assert!(layout.avail >= layout.descriptors + 16 * u64::from(size));
        assert!(layout.used >= layout.avail + 6 + 2 * u64::from(size));
        assert!(layout.avail.is_multiple_of(128) && layout.used.is_multiple_of(128));
    }
    for size in [0, 3, 32768] {
        assert!(SplitQueue::new(&Fake::new(), size, true).is_err());
    }
}

#[test]
fn a_batch_is_published_at_once_and_notified_when_asked_for() {
    let mut queue = queue(true);
    queue.set_avail_event(0);
    queue.push(5);
    queue.push(3);
    assert_eq!(queue.avail_index(), 0);
    assert!(queue.publish());
    assert_eq!(queue.avail_index(), 2);
    assert!(!queue.publish(), "nothing new");
    queue.push(1);
    assert!(!queue.publish(), "the event is behind");
    queue.set_avail_event(3);
    queue.push(2);
    assert!(queue.publish());
    let ring: Vec<u16> =
        (0..4).map(|entry| queue.memory.read16(queue.avail + ENTRIES + 2 * entry)).collect();
    assert_eq!(ring, [5, 3, 1, 2]);
}

#[test]
fn without_event_idx_flags_suppress() {
    let mut queue = queue(false);
    assert_eq!(queue.memory.read16(queue.avail), AVAIL_F_NO_INTERRUPT);
    queue.push(0);
    assert!(queue.publish());
    queue.memory.write16(queue.used, USED_F_NO_NOTIFY);
    queue.push(1);
    assert!(!queue.publish());
    assert!(!queue.request_interrupt());
    assert_eq!(queue.memory.read16(queue.avail), 0);
    queue.give_back(0, 0, 1);
    assert!(queue.request_interrupt());
    queue.suppress_interrupts();
    assert_eq!(queue.memory.read16(queue.avail), AVAIL_F_NO_INTERRUPT);
}

#[test]
fn interrupts_stay_suppressed_however_long_the_driver_polls() {
    let mut queue = queue(true);
    let mut index = 0_u16;
    for _ in 0..200_000 {
        queue.push(7);
        queue.publish();
        let event = queue.used_event();
        assert!(!passed(event, index, index.wrapping_add(1)), "at {index}");
        queue.give_back(index, 7, 1);
        index = index.wrapping_add(1);
        assert_eq!(queue.pop(), Ok(Some(Used { head: 7, len: 1 })));
    }
    queue.push(7);
    queue.publish();
    assert!(!queue.request_interrupt());
    assert_eq!(queue.used_event(), index);
}

#[test]
fn a_late_interrupt_is_asked_for_after_three_quarters() {
    for (given, after) in [(1, 0), (2, 1), (3, 2), (4, 3), (8, 6)] {
        for start in [0_u16, 0xfffd] {
            let mut queue = queue(true);
            for index in 0..start {
                queue.push(0);
                queue.publish();
                queue.give_back(index, 0, 0);
                queue.pop().unwrap();
            }
            (0..given).for_each(|head| queue.push(head));
            assert!(!queue.request_late_interrupt(), "they are not with the device yet");
            queue.publish();
            assert_eq!(queue.given(), given);
            for used in 0..given {
                let come = queue.request_late_interrupt();
                assert_eq!(queue.used_event(), start.wrapping_add(after));
                assert_eq!(come, used > after, "{used} of {given}");
                queue.give_back(start.wrapping_add(used), used.into(), 0);
            }
            assert!(queue.request_late_interrupt());
        }
    }
    let mut queue = queue(false);
    (0..8).for_each(|head| queue.push(head));
    queue.publish();
    assert!(!queue.request_late_interrupt());
    queue.give_back(0, 0, 0);
    assert!(queue.request_late_interrupt(), "one is as good as all");
}

#[test]
fn the_used_index_is_read_again_when_all_was_taken() {
    let mut queue = queue(true);
    (0..8).for_each(|head| queue.push(head));
    queue.publish();
    (0..3).for_each(|head| queue.give_back(head, head.into(), 0));
    for head in 0..3 {
        assert_eq!(queue.pop(), Ok(Some(Used { head, len: 0 })));
        // It is not looked at in between, whatever it says.
        queue.memory.store16(queue.used + INDEX, 0x1234);
    }
    assert!(queue.pop().is_err());
    queue.memory.store16(queue.used + INDEX, 3);
    assert_eq!(queue.pop(), Ok(None));
    assert_eq!((queue.given(), queue.request_interrupt()), (5, false));
    queue.clear();
    assert_eq!((queue.given(), queue.pop()), (0, Ok(None)));
}

// A device that is hostile or broken: an index that jumps ahead, an ID outside the queue.
#[test]
fn what_was_not_given_cannot_come_back() {
    let mut queue = queue(true);
    assert_eq!(queue.pop(), Ok(None));
    queue.give_back(0, 0, 1);
    assert!(queue.pop().is_err());
    queue.clear();
    queue.push(0);
    assert!(matches!(queue.pop(), Ok(None)));
    queue.give_back(0, 0, 1);
    assert!(queue.pop().is_err(), "pushed, but not published");
    queue.publish();
    queue.give_back(0, u32::from(SIZE), 1);
    assert!(queue.pop().is_err());
    queue.give_back(0, 0x1_0000, 1);
    assert!(queue.pop().is_err());
    queue.memory.store16(queue.used + INDEX, 0xffff);
    assert!(queue.pop().is_err());
    queue.give_back(0, 0, 9);
    assert_eq!(queue.pop(), Ok(Some(Used { head: 0, len: 9 })));
}
