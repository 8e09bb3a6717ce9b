//! A queue's saved state.

use std::num::Wrapping;

use paraslot_device::{DmaSpace, StateError};
use serde::{Deserialize, Serialize};

use super::{InFlight, Queue, State};

/// Where a queue is that its worker has left alone. Its registers are the transport's to save, and its
/// rings are guest memory.
///
/// There is nothing in it that a driver could not have brought about: positions are good whatever they
/// are, since the driver's own are checked against them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueState {
    /// The next entry of the available ring.
    next_avail: u16,
    /// The next entry of the used ring.
    next_used: u16,
    /// Chains that the driver is still to be told of.
    pushed: u32,
    /// The driver has been asked to notify.
    asked: bool,
    /// Heads of chains that the device has, in rising order.
    in_flight: Vec<u16>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    New,
    Running,
    Broken,
}

impl QueueState {
    /// Whether the chains that the device has are `heads` and no others, each once. A broken queue may have
    /// lost chains that nobody will ever give back, such as the one that broke it.
    fn is_held_as(&self, heads: &[u16]) -> bool {
        let mut heads = heads.to_vec();
        heads.sort_unstable();
        if self.stage != Stage::Broken {
            return heads == self.in_flight;
        }
        let mut all = self.in_flight.iter();
        heads.iter().all(|head| all.any(|one| one == head))
    }
}

impl<A: DmaSpace> Queue<A> {
    /// What [`restore`](Self::restore) takes.
    pub fn save(&self) -> QueueState {
        let Self {
            config: _,
            rings,
            // Read again.
            seen_avail: _,
            in_flight,
            pushed,
            asked,
            state,
            dma: _,
            interrupt: _,
            doorbell: _,
            signals: _,
        } = self;
        let position = |of: fn(&virtio_queue::Queue) -> u16| rings.as_ref().map_or(0, of);
        QueueState {
            next_avail: position(virtio_queue::QueueT::next_avail),
            next_used: position(virtio_queue::QueueT::next_used),
            pushed: *pushed,
            asked: *asked,
            in_flight: in_flight.heads().collect(),
            stage: match state {
                State::New => Stage::New,
                // The rings are looked at when they are used.
                State::Restored | State::Running => Stage::Running,
                State::Broken => Stage::Broken,
            },
        }
    }

    /// Puts a queue that was just made where another was, of which the worker has the chains `heads`, in
    /// any order. Its rings are checked when they are first used, as ever; what is in them stays.
    ///
    /// # Errors
    /// When the worker has chains that are not the queue's, or not all that are in flight. The queue is not
    /// to be used then.
    pub fn restore(&mut self, state: &QueueState, heads: &[u16]) -> Result<(), StateError> {
        if !state.is_held_as(heads) {
            return Err(StateError::impossible("chains in flight that nobody has"));
        }
        let QueueState { next_avail, next_used, pushed, asked, in_flight, stage } = state;
        self.in_flight = InFlight::new(self.in_flight.capacity());
        for head in in_flight {
            if *head >= self.config.size || !self.in_flight.insert(*head) {
                return Err(StateError::impossible(format!("chain {head} is in flight")));
            }
        }
        if let Some(rings) = &mut self.rings {
            use virtio_queue::QueueT;
            rings.set_next_avail(*next_avail);
            rings.set_next_used(*next_used);
        }
        self.seen_avail = Wrapping(*next_avail);
        self.pushed = *pushed;
        self.asked = *asked;
        self.state = match stage {
            Stage::New => State::New,
            Stage::Running => State::Restored,
            Stage::Broken => State::Broken,
        };
        Ok(())
    }
}
