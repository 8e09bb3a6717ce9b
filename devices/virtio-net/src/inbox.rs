//! Frames on their way to a receive queue.
//!
//! A frame waits here if another queue's worker has received it (receive-side scaling), or if the
//! driver has made fewer buffers available than the frame needs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use paraslot_backends::net::hash::HashKind;
use paraslot_backends::net::{MAX_FRAME, Offload};

/// Most frames that wait.
const MOST_FRAMES: usize = 256;
/// Most bytes that wait. More than a frame can have.
const MOST_BYTES: usize = 256 * 1024;

const _: () = assert!(MOST_BYTES >= MAX_FRAME);

/// A packet's hash, as it is reported: value and kind, both 0 if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hash {
    pub(crate) value: u32,
    pub(crate) report: u16,
}

impl Hash {
    /// Whether a packet can have this hash.
    pub(crate) fn is_possible(self) -> bool {
        self.report <= HashKind::UdpV6Ex as u16 && (self.report != 0 || self.value == 0)
    }
}

/// What belongs to the bytes of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) len: usize,
    pub(crate) offload: Offload,
    pub(crate) hash: Hash,
}

/// There is no room, or nobody takes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// What becomes of the first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes.
    Gone,
    /// It stays.
    Waits,
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Frames that wait; kept beside the lock so that looking for none costs little.
    waiting: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    open: bool,
    /// Whoever takes frames sleeps, and is to be woken once.
    armed: bool,
    arrivals: VecDeque<Arrival>,
    bytes: VecDeque<u8>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets frames in, from now on.
    pub(crate) fn open(&self) {
        self.lock().open = true;
    }

    /// Lets none in, and forgets those that wait.
    pub(crate) fn close(&self) {
        self.clear();
        self.lock().open = false;
    }

    /// Forgets all that wait; returns how many that were.
    pub(crate) fn clear(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut inner = self.lock();
        inner.bytes.clear();
        let count = inner.arrivals.len();
        inner.arrivals.clear();
        self.waiting.store(0, Ordering::Release);
        count
    }

    /// Whether none wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Puts a frame at the end. `true`: whoever takes frames is to be woken.
    pub(crate) fn put(&self, arrival: Arrival, frame: &[u8]) -> Result<bool, Refused> {
        let mut inner = self.lock();
        let full = inner.arrivals.len() >= MOST_FRAMES
            || frame.len() > MOST_BYTES.saturating_sub(inner.bytes.len());
        if !inner.open || full {
            return Err(Refused);
        }
        inner.arrivals.push_back(Arrival { len: frame.len(), ..arrival });
        inner.bytes.extend(frame);
        self.waiting.store(inner.arrivals.len(), Ordering::Release);
        Ok(std::mem::take(&mut inner.armed))
    }

    /// Shows the first frame to `take`, which decides about it. `None` if there is none.
    pub(crate) fn first(&self, take: impl FnOnce(&Arrival, &[u8]) -> Fate) -> Option<Fate> {
        if self.is_empty() {
            return None;
        }
        let mut inner = self.lock();
        let arrival = *inner.arrivals.front()?;
        // Moves bytes once each time that they have wrapped around the end of their ring.
        let frame = inner.bytes.make_contiguous().get(..arrival.len)?;
        let fate = take(&arrival, frame);
        if fate == Fate::Gone {
            inner.arrivals.pop_front();
            inner.bytes.drain(..arrival.len);
            self.waiting.store(inner.arrivals.len(), Ordering::Release);
        }
        Some(fate)
    }

    /// All that wait, in order.
    pub(crate) fn frames(&self) -> Vec<(Arrival, Vec<u8>)> {
        let mut inner = self.lock();
        let Inner { open: _, armed: _, arrivals, bytes } = &mut *inner;
        let mut rest = &*bytes.make_contiguous();
        let frames = arrivals.iter().map(|arrival| {
            let (frame, later) = rest.split_at(arrival.len.min(rest.len()));
            rest = later;
            (*arrival, frame.to_vec())
        });
        frames.collect()
    }

    /// Asks for a wake-up when a frame comes; `true`, and nothing asked, if there is one.
    pub(crate) fn arm(&self) -> bool {
        let mut inner = self.lock();
        let waiting = !inner.arrivals.is_empty();
        inner.armed = !waiting;
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(inbox: &Inbox) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        inbox.first(|arrival, frame| {
            bytes = frame.to_vec();
            assert_eq!(arrival.len, bytes.len());
            Fate::Gone
        })?;
        Some(bytes)
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let inbox = Inbox::default();
        let arrival = Arrival::default();
        assert_eq!(inbox.put(arrival, &[1; 20]), Err(Refused));
        inbox.open();
        // Often enough to go round the ring at every place.
        for round in 0u8..=255 {
            for len in [14usize, 1000, 65_000] {
                assert_eq!(inbox.put(arrival, &vec![round; len]), Ok(false));
            }
            assert_eq!(inbox.first(|_, _| Fate::Waits), Some(Fate::Waits));
            for len in [14usize, 1000, 65_000] {
                assert_eq!(take(&inbox), Some(vec![round; len]));
            }
            assert_eq!(take(&inbox), None);
        }
    }

    #[test]
    fn it_is_bounded_both_ways() {
        let inbox = Inbox::default();
        inbox.open();
        let arrival = Arrival::default();
        for _ in 0..MOST_FRAMES {
            assert!(inbox.put(arrival, &[0; 14]).is_ok());
        }
        assert_eq!(inbox.put(arrival, &[0; 14]), Err(Refused));
        assert_eq!(inbox.clear(), MOST_FRAMES);
        let large = vec![0; MAX_FRAME];
        let fit = MOST_BYTES / MAX_FRAME;
        for _ in 0..fit {
            assert!(inbox.put(arrival, &large).is_ok());
        }
        assert_eq!(inbox.put(arrival, &large), Err(Refused));
        inbox.close();
        assert!(inbox.is_empty());
        assert_eq!(inbox.put(arrival, &[0; 14]), Err(Refused));
    }

    #[test]
    fn a_wake_up_is_asked_for_once() {
        let inbox = Inbox::default();
        inbox.open();
        assert!(!inbox.arm());
        assert_eq!(inbox.put(Arrival::default(), &[0; 14]), Ok(true));
        assert_eq!(inbox.put(Arrival::default(), &[0; 14]), Ok(false));
        assert!(inbox.arm());
        assert_eq!(inbox.put(Arrival::default(), &[0; 14]), Ok(false));
    }
}
