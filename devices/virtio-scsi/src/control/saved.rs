//! The control queue's part of the saved state.

use paraslot_device::{DmaSpace, StateError};
use paraslot_spec::virtio_scsi::{Lun, TmfRequest, control, response};
use paraslot_virtio::QueueState;
use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use super::{Asked, ControlWorker, Stage, UnderWay, understand};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlState {
    queue: QueueState,
    /// In the order in which they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    under_way: Vec<UnderWayState>,
}

/// A task management function under way.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnderWayState {
    head: u16,
    /// Guest address of its response.
    address: u64,
    subtype: u32,
    #[serde(with = "hex")]
    lun: [u8; 8],
    id: u64,
    /// Of one that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<u8>,
}

impl UnderWayState {
    fn new(one: &UnderWay) -> Self {
        let UnderWay { head, place, request, stage: _ } = one;
        let TmfRequest { kind: _, subtype, lun, id } = *request;
        Self {
            head: *head,
            address: place.0,
            subtype: subtype.get(),
            lun: lun.0,
            id: id.get(),
            response: one.response(),
        }
    }

    fn read(&self) -> Result<UnderWay, StateError> {
        let Self { head, address, subtype, lun, id, response } = *self;
        let request = TmfRequest {
            kind: control::TMF.into(),
            subtype: subtype.into(),
            lun: Lun(lun),
            id: id.into(),
        };
        // What is answered at once is never under way.
        let Asked::Manage(function) = understand(&request) else {
            return Err(StateError::impossible("a task management function that there is not"));
        };
        let stage = match response {
            None => Stage::Again(function),
            Some(
                response @ (response::FUNCTION_COMPLETE
                | response::FUNCTION_SUCCEEDED
                | response::FUNCTION_REJECTED
                | response::INCORRECT_LUN
                | response::BAD_TARGET),
            ) => Stage::Over(response),
            Some(response) => {
                let what = format!("task management that ended with response {response}");
                return Err(StateError::impossible(what));
            }
        };
        Ok(UnderWay { head, place: GuestAddress(address), request, stage })
    }
}

impl<A: DmaSpace> ControlWorker<A> {
    /// What [`restore`](Self::restore) takes, of a worker that is quiet.
    pub(crate) fn save(&self) -> ControlState {
        let Self { shared: _, queue, bell: _, under_way } = self;
        let under_way = under_way.iter().map(UnderWayState::new).collect();
        ControlState { queue: queue.save(), under_way }
    }

    /// Puts a worker that was just made where another was.
    pub(crate) fn restore(&mut self, state: &ControlState) -> Result<(), StateError> {
        let ControlState { queue, under_way } = state;
        let heads: Vec<u16> = under_way.iter().map(|one| one.head).collect();
        self.queue.restore(queue, &heads)?;
        self.under_way = under_way.iter().map(UnderWayState::read).collect::<Result<_, _>>()?;
        Ok(())
    }
}
