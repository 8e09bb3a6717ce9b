//! One at a time, without blocking.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::mailbox::Mailbox;

/// A line in which the COMPARE AND WRITE commands of one unit stand, whatever lane they are on. The
/// first in line is at work; the lane of the next is called when it is done.
#[derive(Default)]
pub(crate) struct Exclusive(Mutex<Line>);

#[derive(Default)]
struct Line {
    next: u64,
    waiting: VecDeque<(u64, Weak<Mailbox>)>,
}

/// A place in line, given up when it is dropped.
pub(super) struct Turn {
    line: Arc<Exclusive>,
    number: u64,
}

impl Exclusive {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to the end of the line.
    pub(super) fn enter(self: &Arc<Self>, mailbox: &Arc<Mailbox>) -> Turn {
        let mut line = self.lock();
        let number = line.next;
        line.next = number.wrapping_add(1);
        line.waiting.push_back((number, Arc::downgrade(mailbox)));
        Turn { line: self.clone(), number }
    }
}

impl Turn {
    /// Whether it has come.
    pub(super) fn come(&self) -> bool {
        self.line.lock().waiting.front().is_some_and(|(number, _)| *number == self.number)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut line = self.line.lock();
            let first = line.waiting.front().map(|(number, _)| *number);
            line.waiting.retain(|(number, _)| *number != self.number);
            // Who leaves from the middle changes nothing for the first.
            (first == Some(self.number)).then(|| line.waiting.front().cloned()).flatten()
        };
        if let Some(mailbox) = next.and_then(|(_, mailbox)| mailbox.upgrade()) {
            mailbox.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Whoever leaves the head of the line calls the next, and nobody else is called.
    #[test]
    fn turns_come_in_order() {
        let line = Arc::new(Exclusive::default());
        let boxes = [(); 3].map(|()| Arc::new(Mailbox::new().unwrap()));
        let called = || boxes.each_ref().map(|mailbox| mailbox.called());
        let [a, b, c] = boxes.each_ref().map(|mailbox| line.enter(mailbox));
        assert_eq!([a.come(), b.come(), c.come()], [true, false, false]);
        drop(b);
        assert_eq!(called(), [false; 3]);
        drop(a);
        assert_eq!(called(), [false, false, true]);
        assert!(c.come());
        let d = line.enter(&boxes[0]);
        assert!(!d.come());
        drop(c);
        assert!(d.come());
        assert_eq!(called(), [true, false, false]);
    }
}
