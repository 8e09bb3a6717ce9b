//! The gate that each message-signalled interrupt passes.
//!
//! Two sides meet here. Workers raise the interrupt, on any thread, at any time. The configuration
//! side, one thread at a time since it has the function's lock, turns the gate when the guest
//! enables, masks or routes the interrupt. Everything they share is one atomic word:
//!
//! | bits | meaning |
//! |---|---|
//! | `OFF` | the capability is disabled: what is raised is dropped |
//! | `MASKED` | enabled, but no message may be sent: what is raised sets `PENDING` |
//! | `PENDING` | the pending bit that the guest can read |
//! | the rest | how many workers are sending a message at this moment |
//!
//! A worker decides what to do and announces it in a single compare-and-swap, so there is no
//! instant between its look at the mask and its act:
//!
//! - It set `PENDING` while `MASKED`: opening the gate takes `PENDING` along in the same operation
//!   that removes `MASKED`, so whoever opens the gate sends the message. None is lost.
//! - It added itself to the senders while open: closing the gate waits for the senders to leave, and
//!   none can come once it is closed, so the wait is for at most one message a worker. When the
//!   guest's write to the mask bit has completed, no message is on its way any more, as on hardware
//!   after the write has been read back.
//!
//! An interrupt that is neither masked nor pending costs a load, two atomic read-modify-writes on a
//! word of its own, and the sending.

use crate::sync::{AtomicU32, Ordering, relax};

const OFF: u32 = 1 << 0;
const MASKED: u32 = 1 << 1;
const PENDING: u32 = 1 << 2;
const SENDER: u32 = 1 << 3;
const SENDERS: u32 = !(SENDER - 1);

/// How a gate is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// What is raised is sent.
    Open,
    /// What is raised becomes pending.
    Masked,
    /// What is raised is dropped.
    Off,
}

/// The gate of one interrupt.
pub(crate) struct Gate(AtomicU32);

impl Gate {
    /// A gate that is off, with nothing pending.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(OFF))
    }

    /// A worker's side: calls `send` if the gate is open, else leaves the pending bit or nothing.
    ///
    /// What the caller wrote before is visible to whoever sends the message in its stead.
    pub(crate) fn raise(&self, send: impl FnOnce()) {
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            let next = match position(state) {
                Position::Off => return,
                // Even if it is pending already: the write publishes what this caller did.
                Position::Masked => state | PENDING,
                Position::Open => state + SENDER,
            };
            match self.0.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        if position(state) == Position::Open {
            let _leave = Leave(&self.0);
            send();
        }
    }

    /// The configuration side: turns the gate. Returns when no message is on its way any more,
    /// unless `to` is [`Position::Open`]; then says whether the caller has a pending message to
    /// send. To be called by one thread at a time.
    #[must_use]
    pub(crate) fn turn(&self, to: Position) -> bool {
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            let bits = match to {
                Position::Open => state & SENDERS,
                Position::Masked => (state & !OFF) | MASKED,
                Position::Off => (state & !MASKED) | OFF,
            };
            match self.0.compare_exchange_weak(state, bits, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        if to == Position::Open {
            return state & PENDING != 0;
        }
        self.wait_for_senders();
        false
    }

    /// Takes the pending bit back, for a reset.
    pub(crate) fn clear_pending(&self) {
        self.0.fetch_and(!PENDING, Ordering::AcqRel);
    }

    /// Sets the pending bit of a gate that is not open, as for a message that was raised before.
    pub(crate) fn set_pending(&self) {
        self.0.fetch_or(PENDING, Ordering::AcqRel);
    }

    /// How the gate is turned.
    pub(crate) fn position(&self) -> Position {
        position(self.0.load(Ordering::Acquire))
    }

    /// The pending bit.
    pub(crate) fn pending(&self) -> bool {
        self.0.load(Ordering::Acquire) & PENDING != 0
    }

    fn wait_for_senders(&self) {
        let mut looks = 0_u64;
        // Acquire: what the host does next, such as giving the route to someone else, comes after
        // the last message.
        while self.0.load(Ordering::Acquire) & SENDERS != 0 {
            relax(looks);
            looks += 1;
        }
    }
}

fn position(state: u32) -> Position {
    if state & OFF != 0 {
        Position::Off
    } else if state & MASKED != 0 {
        Position::Masked
    } else {
        Position::Open
    }
}

/// Leaves the senders, also when sending panics: nobody must wait for a thread that is gone.
struct Leave<'a>(&'a AtomicU32);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(SENDER, Ordering::Release);
    }
}
