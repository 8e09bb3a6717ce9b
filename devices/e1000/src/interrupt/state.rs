//! ICR, IMS, ITR and what follows from them, saved.

use std::sync::atomic::Ordering;
use std::time::Duration;

use paraslot_device::StateError;
use paraslot_spec::e1000::ITR_UNIT_NS;
use paraslot_spec::e1000::registers::DELAY;
use serde::{Deserialize, Serialize};

use super::{CAUSES, Irq, NEVER};
use crate::state::{is_default, moment, nanoseconds_left, require};

/// The interrupts' state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IrqState {
    /// Causes that the guest has not taken.
    icr: u32,
    ims: u32,
    itr: u32,
    /// The line is asserted. If it is not although it should be, that was put off.
    asserted: bool,
    /// How long it is until the line may rise again, in nanoseconds.
    #[serde(default, skip_serializing_if = "is_default")]
    throttled: u64,
}

fn longest_interval() -> Duration {
    Duration::from_nanos(u64::from(DELAY) * ITR_UNIT_NS)
}

impl Irq {
    pub(crate) fn save(&self, now: Duration) -> IrqState {
        let Self { interrupts: _, clock: _, causes: _, mask: _, interval: _, level, open, due: _ } =
            self;
        let open = Duration::from_nanos(open.load(Ordering::Relaxed));
        IrqState {
            icr: self.causes(),
            ims: self.mask(),
            itr: self.interval(),
            asserted: level.load(Ordering::Relaxed),
            throttled: nanoseconds_left(open, now, longest_interval()),
        }
    }

    /// Takes over what was saved, after a reset; the line follows. No interrupt that was put off is lost:
    /// the worker finds it when it looks what is due.
    pub(crate) fn restore(&self, state: &IrqState, now: Duration) -> Result<(), StateError> {
        let IrqState { icr, ims, itr, asserted, throttled } = *state;
        require((icr | ims) & !CAUSES == 0, "a cause of interrupts that is not there")?;
        require(itr & !DELAY == 0, "ITR holds more than it can")?;
        let wanted = icr & ims != 0;
        require(wanted || !asserted, "the line is asserted without a cause")?;
        require(!wanted || asserted || itr != 0, "an interrupt is put off although none need be")?;
        let open = u64::try_from(moment(throttled, now, longest_interval())?.as_nanos())
            .unwrap_or(NEVER - 1);
        self.causes.store(icr, Ordering::Release);
        self.mask.store(ims, Ordering::Release);
        self.interval.store(itr, Ordering::Release);
        self.interrupts.update_intx(|| {
            self.level.store(asserted, Ordering::Relaxed);
            self.open.store(open, Ordering::Relaxed);
            self.due.store(if wanted && !asserted { open } else { NEVER }, Ordering::Release);
            asserted
        });
        Ok(())
    }
}
