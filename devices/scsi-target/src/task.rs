//! Task management functions (SAM-5, 7).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use paraslot_device::Bell;

use crate::bus::Address;
use crate::lane::Mailbox;
use crate::nexus::Nexus;

/// What to do to commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Ends the command with this tag (7.2).
    AbortTask {
        /// The unit.
        address: Address,
        /// The initiator's name for the command.
        tag: u64,
    },
    /// Ends all of this initiator's commands at a unit (7.3).
    AbortTaskSet(Address),
    /// Ends everybody's commands at a unit (7.5).
    ClearTaskSet(Address),
    /// There is no auto contingent allegiance to be cleared (7.4).
    ClearAca(Address),
    /// Ends everybody's commands at a unit and resets it (7.7).
    LogicalUnitReset(Address),
    /// Does so to all units of a target, for this initiator (7.6).
    NexusReset {
        /// The target.
        target: u8,
    },
    /// Resets all units of all targets, as a bus or adapter reset does.
    ResetAll,
    /// Whether a command is there (7.8).
    QueryTask {
        /// The unit.
        address: Address,
        /// The initiator's name for the command.
        tag: u64,
    },
    /// Whether this initiator has any command at a unit (7.10).
    QueryTaskSet(Address),
}

/// A service response (SAM-5, 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// FUNCTION COMPLETE; of a query: there is none.
    Complete,
    /// FUNCTION SUCCEEDED: of a query: there is one.
    Succeeded,
    /// FUNCTION REJECTED.
    Rejected,
    /// INCORRECT LOGICAL UNIT NUMBER.
    IncorrectLun,
    /// There is no such target.
    NoTarget,
}

/// A task management function under way.
#[derive(Clone, Debug)]
pub struct Ticket(Arc<Answer>);

#[derive(Debug, Default)]
struct Answer {
    response: Mutex<Option<Response>>,
    given: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ticket {
    /// Of a function that is over.
    pub(crate) fn done(response: Response, caller: &Caller) -> Self {
        let this = Self(Arc::default());
        this.give(response, caller);
        this
    }

    fn give(&self, response: Response, caller: &Caller) {
        *lock(&self.0.response) = Some(response);
        self.0.given.notify_all();
        match caller {
            Caller::None => {}
            Caller::Bell(bell) => bell.ring(),
            Caller::Lane(mailbox) => {
                if let Some(mailbox) = mailbox.upgrade() {
                    mailbox.call();
                }
            }
        }
    }

    /// Its response, once there is one: when every command that it ended has been reported (see
    /// [`Lane::settle`](crate::Lane::settle)), and no guest memory is touched for any of them any more.
    pub fn response(&self) -> Option<Response> {
        *lock(&self.0.response)
    }

    /// Waits up to `limit` for the response. Not for workers: lanes must be serviced meanwhile.
    pub fn wait(&self, limit: Duration) -> Option<Response> {
        let start = Instant::now();
        let mut response = lock(&self.0.response);
        while response.is_none() {
            let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            let waited = self.0.given.wait_timeout(response, left);
            response = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *response
    }
}

/// Who is to be called when a function is over.
pub(crate) enum Caller {
    None,
    Bell(Arc<Bell>),
    Lane(Weak<Mailbox>),
}

impl From<Option<Arc<Bell>>> for Caller {
    fn from(bell: Option<Arc<Bell>>) -> Self {
        bell.map_or(Self::None, Self::Bell)
    }
}

/// What a function does to units when the commands that it ends have ended.
pub(crate) enum Effect {
    None,
    /// Resets the unit of each of these, with this qualifier of 29h for the attention.
    Reset(Vec<Arc<Nexus>>, u8),
    /// These nexuses are lost.
    Lost(Vec<Arc<Nexus>>),
    /// This unit has been taken from its bus.
    Detach(Arc<Nexus>),
}

/// A function that lanes have to carry out. They share it; it is over when the last lets go of it,
/// for which a lane that is dropped need do nothing.
pub(crate) struct Work {
    ticket: Ticket,
    /// Unless something was found.
    response: Response,
    found: AtomicBool,
    effect: Effect,
    caller: Caller,
}

impl Work {
    pub(crate) fn new(response: Response, effect: Effect, caller: Caller) -> Arc<Self> {
        let ticket = Ticket(Arc::default());
        Arc::new(Self { ticket, response, found: AtomicBool::new(false), effect, caller })
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// Whether `ticket` is its.
    pub(crate) fn has(&self, ticket: &Ticket) -> bool {
        Arc::ptr_eq(&self.ticket.0, &ticket.0)
    }

    /// What a query looks for is there.
    pub(crate) fn found(&self) {
        self.found.store(true, Ordering::Relaxed);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        match &self.effect {
            Effect::None => {}
            Effect::Reset(nexuses, ascq) => nexuses.iter().for_each(|nexus| nexus.reset(*ascq)),
            Effect::Lost(nexuses) => nexuses.iter().for_each(|nexus| nexus.lost()),
            Effect::Detach(nexus) => nexus.detach(),
        }
        // `Arc` has every lane's `found` happen before this.
        let found = *self.found.get_mut();
        let response = if found { Response::Succeeded } else { self.response };
        self.ticket.give(response, &self.caller);
    }
}

/// What an order is about.
#[derive(Clone)]
pub(crate) enum Kind {
    /// Say whether there is such a command.
    Query,
    /// End them: [`Outcome::Aborted`](crate::Outcome::Aborted).
    Abort,
    /// So too, and other initiators than this one hear of it.
    Clear(Arc<Nexus>),
    /// End them: [`Outcome::Reset`](crate::Outcome::Reset).
    Reset,
}

/// One lane's part of a function.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) kind: Kind,
    /// Whose commands, of those on the lane's bus.
    pub(crate) nexuses: Arc<[Arc<Nexus>]>,
    /// The only one, if it is about one.
    pub(crate) tag: Option<u64>,
    pub(crate) work: Arc<Work>,
}

impl Order {
    /// Whether it is about the command `tag` of `nexus`.
    pub(crate) fn concerns(&self, nexus: &Arc<Nexus>, tag: u64) -> bool {
        self.tag.is_none_or(|only| only == tag)
            && self.nexuses.iter().any(|one| Arc::ptr_eq(one, nexus))
    }
}
