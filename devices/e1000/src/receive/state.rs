//! What the receiver holds between two rounds of work, saved.

use std::time::Duration;

use paraslot_device::StateError;
use paraslot_spec::e1000::registers::{RCTL, RDBAL, RDH};
use paraslot_spec::e1000::{FCS_LEN, Rctl, SHORTEST, receive};
use paraslot_spec::net::ETHERNET_HEADER;
use serde::{Deserialize, Serialize};

use super::{Held, LONGEST_FRAME, Receive};
use crate::delay::{Delay, DelayState};
use crate::registers::Bank;
use crate::state::{is_default, require};

/// The receiver's state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReceiveState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frame: Option<HeldState>,
    #[serde(default, skip_serializing_if = "is_default")]
    delay: DelayState,
}

/// A frame on its way into the ring. It may have begun to be there, so it must not be lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldState {
    /// What the guest does not have yet.
    #[serde(with = "hex")]
    rest: Vec<u8>,
    status: u8,
    errors: u8,
    special: u16,
    waited: bool,
    #[serde(with = "hex")]
    destination: [u8; 6],
    len: u16,
}

impl Receive {
    pub(crate) fn save(&self, now: Duration) -> ReceiveState {
        // Whether the ring is in memory is seen anew.
        let Self { frame, held, stuck: _, delay } = self;
        let held = held.map(|held| {
            let Held { next, end, status, errors, special, waited, destination, len } = held;
            let rest = frame.get(next..end).unwrap_or_default().to_vec();
            let len = u16::try_from(len).unwrap_or(u16::MAX);
            HeldState { rest, status, errors, special, waited, destination, len }
        });
        ReceiveState { frame: held, delay: delay.save(now) }
    }

    /// Takes over what was saved, after a reset and the registers.
    pub(crate) fn restore(
        &mut self,
        state: &ReceiveState,
        bank: &Bank,
        now: Duration,
    ) -> Result<(), StateError> {
        let ReceiveState { frame, delay } = state;
        self.delay = Delay::restored(delay, now)?;
        let Some(state) = frame else { return Ok(()) };
        // A ring's registers begin it anew when they are written, and so does RCTL.EN.
        let inside = bank.get(RDH) < bank.ring(RDBAL).len();
        let receiving = bank.get(RCTL) & Rctl::EN.bits() != 0;
        require(inside && receiving, "a frame has been begun in no ring")?;
        let held = state.check()?;
        let place = self.frame.get_mut(..held.end);
        let place = place.ok_or_else(|| StateError::impossible("a received frame is too long"))?;
        place.copy_from_slice(&state.rest);
        self.held = Some(held);
        Ok(())
    }
}

impl HeldState {
    fn check(&self) -> Result<Held, StateError> {
        let Self { rest, status, errors, special, waited, destination, len } = self;
        let (len, end) = (usize::from(*len), rest.len());
        let right = (ETHERNET_HEADER..=LONGEST_FRAME).contains(&len)
            && (1..=len.max(SHORTEST) + FCS_LEN).contains(&end);
        require(right, "a received frame of an impossible length")?;
        // As `checksum::check` has it.
        let checks = receive::IPCS | receive::TCPCS | receive::IXSM;
        let known = status & !(checks | receive::PIF | receive::VP) == 0;
        let ignored = status & checks == receive::IXSM;
        let checked = status & receive::IXSM == 0 && status & checks != 0;
        let wrong = |error, check| errors & error != 0 && status & check == 0;
        let right = known
            && (ignored || checked)
            && errors & !(receive::IPE | receive::TCPE | receive::RXE) == 0
            && !wrong(receive::IPE, receive::IPCS)
            && !wrong(receive::TCPE, receive::TCPCS)
            && (status & receive::VP != 0 || *special == 0);
        require(right, "a received frame's descriptor")?;
        Ok(Held {
            next: 0,
            end,
            status: *status,
            errors: *errors,
            special: *special,
            waited: *waited,
            destination: *destination,
            len,
        })
    }
}
