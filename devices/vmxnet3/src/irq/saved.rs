//! The interrupts, saved.
//!
//! When an interrupt that is held back is due follows from its policy. Which worker sends it then does
//! not matter: after a restoration it is the first.

use std::collections::BTreeMap;
use std::time::Duration;

use paraslot_device::StateError;
use paraslot_spec::vmxnet3::MAX_INTRS;
use serde::{Deserialize, Serialize};

use super::policy::{MOST_APART, STATIC_LIMIT};
use super::{Irq, Policy, Vector, Work, bit};
use crate::clock::WHILE;
use crate::save::{elapsed, is_default, require};
use crate::shared::lock;

/// The interrupts' state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IrqState {
    /// Those that are masked, a bit each.
    masked: u32,
    auto_mask: bool,
    /// Those of which there is more to be told, by their numbers.
    vectors: BTreeMap<u8, VectorState>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorState {
    /// Of INTx: sent, and ICR not read since.
    #[serde(default, skip_serializing_if = "is_default")]
    asserted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<PendingState>,
    /// How long ago it was last sent, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PendingState {
    tx: u32,
    rx: u32,
    urgent: bool,
    /// For how long it has been pending, in nanoseconds.
    since: u64,
}

/// All interrupts of the device.
const ALL: u32 = (1 << MAX_INTRS) - 1;

impl Irq {
    pub(crate) fn save(&self, now: Duration) -> IrqState {
        let mut state = IrqState { masked: 0, auto_mask: false, vectors: BTreeMap::new() };
        self.each(|index, vector| {
            // The policy follows from what the driver has set up, which is saved elsewhere.
            let Vector {
                masked,
                auto_mask,
                pending,
                asserted,
                policy: _,
                work,
                since,
                last,
                due: _,
            } = *vector;
            // It is the same for all.
            state.auto_mask = auto_mask;
            state.masked |= if masked { bit(index) } else { 0 };
            let Work { tx, rx, urgent } = work;
            let since = elapsed(since, now, STATIC_LIMIT);
            let pending = pending.then_some(PendingState { tx, rx, urgent, since });
            let last = last.map(|last| elapsed(last, now, MOST_APART));
            let vector = VectorState { asserted, pending, last };
            if vector != VectorState::default() {
                state.vectors.insert(index, vector);
            }
        });
        state
    }

    /// Takes over what was saved, and checked, after a reset, with the policies that belong to it. Returns
    /// which interrupts are held back.
    pub(crate) fn restore(&self, state: &CheckedIrq) -> u32 {
        let CheckedIrq(vectors) = state;
        let mut held = 0;
        for ((index, place), vector) in (0..).zip(&self.vectors).zip(vectors) {
            let mut place = lock(place);
            held |= if vector.due.is_some() { bit(index) } else { 0 };
            *place = vector.clone();
            self.drive(index, &place);
        }
        held
    }
}

/// Interrupts that can be like that.
pub(crate) struct CheckedIrq([Vector; MAX_INTRS]);

impl IrqState {
    /// The interrupts of a device that is active with `policies`, or of one that is not.
    pub(crate) fn check(
        &self,
        policies: Option<&[Policy; MAX_INTRS]>,
        now: Duration,
    ) -> Result<CheckedIrq, StateError> {
        let Self { masked, auto_mask, vectors } = self;
        require(masked & !ALL == 0, "an interrupt is masked that is not there")?;
        // CVE-2013-4544: an index from a state.
        let there = vectors.keys().all(|index| usize::from(*index) < MAX_INTRS);
        require(there, "an interrupt that is not there")?;
        require(policies.is_some() || vectors.is_empty(), "an interrupt of an inactive device")?;
        let mut checked = std::array::from_fn(|_| Vector::new());
        for (index, vector) in (0..).zip(&mut checked) {
            vector.auto_mask = *auto_mask;
            vector.masked = masked & bit(index) != 0;
            let policy = policies.and_then(|policies| policies.get(usize::from(index)));
            vector.policy = policy.copied().unwrap_or(Policy::None);
            if let Some(state) = vectors.get(&index) {
                state.apply(vector, now)?;
            }
        }
        Ok(CheckedIrq(checked))
    }
}

impl VectorState {
    fn apply(&self, vector: &mut Vector, now: Duration) -> Result<(), StateError> {
        let Self { asserted, pending, last } = self;
        vector.asserted = *asserted;
        let before = |nanoseconds: u64, most: Duration| {
            let elapsed = Duration::from_nanos(nanoseconds);
            require(elapsed <= most, "an interrupt is of longer ago than matters")?;
            const { assert!(MOST_APART.as_nanos() <= WHILE.as_nanos()) };
            const { assert!(STATIC_LIMIT.as_nanos() <= WHILE.as_nanos()) };
            Ok::<_, StateError>(now.saturating_sub(elapsed))
        };
        vector.last = last.map(|last| before(last, MOST_APART)).transpose()?;
        let Some(PendingState { tx, rx, urgent, since }) = *pending else { return Ok(()) };
        require(urgent || tx != 0 || rx != 0, "an interrupt tells of nothing")?;
        vector.pending = true;
        vector.work = Work { tx, rx, urgent };
        vector.since = before(since, STATIC_LIMIT)?;
        if !vector.masked {
            // What need not wait was sent at once.
            let due = vector.policy.due(&vector.work, vector.since, vector.last);
            let due = due.filter(|_| !urgent);
            let due =
                due.ok_or_else(|| StateError::impossible("an interrupt waits for nothing"))?;
            vector.due = Some(due.max(now));
        }
        Ok(())
    }
}
