//! A request queue's part of the saved state.

use paraslot_device::{DmaSpace, StateError};
use paraslot_scsi::{Sense, SenseFormat};
use paraslot_spec::scsi::status;
use paraslot_spec::virtio_scsi::response;
use paraslot_virtio::QueueState;
use serde::{Deserialize, Serialize};

use super::{RequestWorker, Slot};
use crate::request::{Ended, Place, PlaceState};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestState {
    queue: QueueState,
    /// In the order in which the driver is to be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    over: Vec<OverState>,
}

/// A request that is over, of which the driver could not be told because bus mastering was off.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OverState {
    head: u16,
    place: PlaceState,
    response: u8,
    status: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sense: Option<SenseState>,
    moved: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SenseState {
    code: Sense,
    /// In descriptor format.
    descriptor: bool,
}

impl OverState {
    fn new(head: u16, place: &Place, ended: &Ended) -> Self {
        let Ended { response, status, sense, moved } = ended;
        let sense = sense.as_ref().map(|(sense, format)| SenseState {
            code: **sense,
            descriptor: *format == SenseFormat::Descriptor,
        });
        let (response, status, moved) = (*response, *status, *moved);
        Self { head, place: place.save(), response, status, sense, moved }
    }

    /// Where its answer goes and what it is, if a command can have ended like this.
    fn read(&self) -> Result<(Place, Ended), StateError> {
        let Self { head: _, place, response, status, sense, moved } = self;
        let place = Place::restore(place)?;
        let checked = *status == status::CHECK_CONDITION;
        let possible = match *response {
            response::OK => is_status(*status),
            response::OVERRUN | response::ABORTED | response::BAD_TARGET | response::RESET => {
                *status == status::GOOD
            }
            _ => false,
        };
        let sensible = sense.as_ref().is_none_or(|sense| checked && sense.code.is_possible());
        if !possible || !sensible || *moved > place.data() {
            return Err(StateError::impossible("a request that ended as none does"));
        }
        let sense = sense.as_ref().map(|SenseState { code, descriptor }| {
            let format = if *descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed };
            (Box::new(*code), format)
        });
        Ok((place, Ended { response: *response, status: *status, sense, moved: *moved }))
    }
}

fn is_status(code: u8) -> bool {
    matches!(
        code,
        status::GOOD
            | status::CHECK_CONDITION
            | status::CONDITION_MET
            | status::BUSY
            | status::RESERVATION_CONFLICT
            | status::TASK_SET_FULL
            | status::ACA_ACTIVE
            | status::TASK_ABORTED
    )
}

impl<A: DmaSpace> RequestWorker<A> {
    /// What [`restore`](Self::restore) takes, of a worker that is quiet.
    ///
    /// # Errors
    /// When a request is with the lane: a PREEMPT AND ABORT that waits for requests of others to end.
    pub(crate) fn save(&self) -> Result<RequestState, StateError> {
        // Destructured, so that a new field is thought of.
        let Self { queue, lane, shared: _, slots, over, completions: _, segments: _ } = self;
        if lane.in_flight() != 0 {
            return Err(StateError::Busy("a request waits for requests of others"));
        }
        let over = over.iter().filter_map(|(head, ended)| {
            let slot = slots.get(usize::from(*head))?;
            Some(OverState::new(*head, &slot.place, ended))
        });
        Ok(RequestState { queue: queue.save(), over: over.collect() })
    }

    /// Puts a worker that was just made where another was.
    pub(crate) fn restore(&mut self, state: &RequestState) -> Result<(), StateError> {
        let RequestState { queue, over } = state;
        let heads: Vec<u16> = over.iter().map(|over| over.head).collect();
        self.queue.restore(queue, &heads)?;
        for over in over {
            let (place, ended) = over.read()?;
            let Some(slot) = self.slots.get_mut(usize::from(over.head)) else { continue };
            // Its buffers are not in use any more.
            *slot = Slot { place, ..Slot::default() };
            self.over.push((over.head, ended));
        }
        Ok(())
    }
}
