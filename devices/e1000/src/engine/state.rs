//! What the engine holds between two rounds of work, saved.

use std::time::Duration;

use paraslot_device::{DmaSpace, StateError};
use paraslot_spec::net::ETHERNET_HEADER;
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::receive::ReceiveState;
use crate::state::{is_default, require};
use crate::transmit::TransmitState;

/// What is under way.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineState {
    transmit: TransmitState,
    receive: ReceiveState,
    /// Frames on their way back to the receiver, the oldest first.
    #[serde(default, skip_serializing_if = "is_default")]
    looped: Vec<Bytes>,
}

/// Bytes in hexadecimal digits.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Bytes(#[serde(with = "hex")] Vec<u8>);

impl<A: DmaSpace> Engine<A> {
    /// For a worker that is stopped: everything that was counted has been told.
    pub(crate) fn save(&self, now: Duration) -> EngineState {
        let Self {
            shared: _,
            dma: _,
            clock: _,
            timer: _,
            sender: _,
            receiver: _,
            transmit,
            receive,
            looped,
            tally: _,
            copied: _,
            waits: _,
        } = self;
        EngineState {
            transmit: transmit.save(now),
            receive: receive.save(now),
            looped: looped.frames().map(|frame| Bytes(frame.into())).collect(),
        }
    }

    /// Takes over what was saved, after a reset and the registers.
    pub(crate) fn restore(&mut self, state: &EngineState, now: Duration) -> Result<(), StateError> {
        let EngineState { transmit, receive, looped } = state;
        self.transmit.restore(transmit, &self.shared.bank, now)?;
        self.receive.restore(receive, &self.shared.bank, now)?;
        for Bytes(frame) in looped {
            let sent = frame.len() >= ETHERNET_HEADER && self.looped.push(frame);
            require(sent, "more is in loopback than there is room for")?;
        }
        Ok(())
    }
}
