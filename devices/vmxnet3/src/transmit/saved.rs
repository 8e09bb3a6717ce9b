//! A transmit queue, saved. Packets are taken whole, so nothing is under way between two rounds of work.

use paraslot_device::StateError;
use paraslot_spec::vmxnet3::{TC_RING_MAX_SIZE, TX_RING_MAX_SIZE, queue_error};
use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use super::TxQueue;
use crate::ring::{Ring, RingState};
use crate::save::{is_default, require};

/// A transmit queue's state. Where its descriptor is follows from its number.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TxState {
    ring: RingState,
    comp: RingState,
    intr: u8,
    /// The driver has been told that it need not ring.
    #[serde(default, skip_serializing_if = "is_default")]
    silenced: bool,
    /// Why it has stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped: Option<u32>,
}

/// Why a transmit queue stops.
const ERRORS: [u32; 4] =
    [queue_error::NOEOP, queue_error::BIG_PKT, queue_error::DESC_NOT_SPT, queue_error::TXD_INVALID];

impl TxQueue {
    pub(crate) fn save(&self) -> TxState {
        let Self { ring, comp, intr, threshold: _, silenced, stopped } = self;
        let (ring, comp) = (ring.save(), comp.save());
        TxState { ring, comp, intr: *intr, silenced: *silenced, stopped: *stopped }
    }

    /// A queue as it was saved. Whether there is such an interrupt is for the caller to see.
    pub(crate) fn restored(state: &TxState, threshold: GuestAddress) -> Result<Self, StateError> {
        let TxState { ring, comp, intr, silenced, stopped } = state;
        let ring = Ring::restored(ring, TX_RING_MAX_SIZE)?;
        let comp = Ring::restored(comp, TC_RING_MAX_SIZE)?;
        let known = stopped.is_none_or(|error| ERRORS.contains(&error));
        require(known, "a transmit queue has stopped for no reason that there is")?;
        let queue = Self::new(ring, comp, *intr, threshold);
        Ok(Self { silenced: *silenced, stopped: *stopped, ..queue })
    }
}

impl TxState {
    pub(crate) fn intr(&self) -> u8 {
        self.intr
    }
}
