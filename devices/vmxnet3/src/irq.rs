//! Interrupts: their masks, what is pending, moderation, and the kind that the guest has enabled.

mod policy;
mod saved;

use std::array;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paraslot_device::Clock;
use paraslot_pci::Interrupts;
use paraslot_spec::vmxnet3::MAX_INTRS;

pub(crate) use self::policy::{Policy, Scheme};
pub(crate) use self::saved::IrqState;
use crate::shared::lock;

/// What an interrupt is to tell of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Transmit completions.
    pub(crate) tx: u32,
    /// Received packets.
    pub(crate) rx: u32,
    /// Something that is not to wait.
    pub(crate) urgent: bool,
}

/// All interrupts. Any thread may call any method at any time. Once a write to a mask has returned,
/// no interrupt that it forbids is raised any more.
pub(crate) struct Irq {
    interrupts: Arc<Interrupts>,
    clock: Arc<dyn Clock>,
    vectors: [Mutex<Vector>; MAX_INTRS],
    /// Of INTx: interrupts that hold the line.
    line: AtomicU32,
}

#[derive(Clone)]
struct Vector {
    masked: bool,
    /// Set when it is raised, whatever the driver's setting of the mask, and the mask with it.
    auto_mask: bool,
    /// Raised, and not yet sent.
    pending: bool,
    /// Of INTx: sent, and ICR not read since.
    asserted: bool,
    policy: Policy,
    /// What is pending.
    work: Work,
    /// When it began to be.
    since: Duration,
    /// When it was last sent.
    last: Option<Duration>,
    /// When it is to be sent.
    due: Option<Duration>,
}

impl Vector {
    fn new() -> Self {
        Self {
            masked: true,
            auto_mask: false,
            pending: false,
            asserted: false,
            policy: Policy::None,
            work: Work::default(),
            since: Duration::ZERO,
            last: None,
            due: None,
        }
    }

    /// Forgets what is pending.
    fn quieten(&mut self) {
        self.pending = false;
        self.asserted = false;
        self.work = Work::default();
        self.last = None;
        self.due = None;
    }
}

/// The bit of an interrupt.
pub(crate) fn bit(index: u8) -> u32 {
    1u32.checked_shl(index.into()).unwrap_or(0)
}

impl Irq {
    pub(crate) fn new(interrupts: Arc<Interrupts>, clock: Arc<dyn Clock>) -> Self {
        let vectors = array::from_fn(|_| Mutex::new(Vector::new()));
        Self { interrupts, clock, vectors, line: AtomicU32::new(0) }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    fn change<R>(&self, index: u8, change: impl FnOnce(&mut Vector) -> R) -> Option<R> {
        Some(change(&mut lock(self.vectors.get(usize::from(index))?)))
    }

    fn each(&self, mut change: impl FnMut(u8, &mut Vector)) {
        for (index, vector) in (0..).zip(&self.vectors) {
            change(index, &mut lock(vector));
        }
    }

    /// Raises an interrupt. Says whether it is held back for a while:
    /// [`expire`](Self::expire) is to be called then.
    pub(crate) fn raise(&self, index: u8, work: Work) -> bool {
        let held = self.change(index, |vector| {
            if !vector.pending && vector.policy != Policy::None {
                vector.since = self.clock.now();
            }
            vector.pending = true;
            vector.work.tx = vector.work.tx.saturating_add(work.tx);
            vector.work.rx = vector.work.rx.saturating_add(work.rx);
            vector.work.urgent |= work.urgent;
            self.settle(index, vector)
        });
        held.unwrap_or(false)
    }

    /// Sends what is pending if nothing stands against it. Says whether it is held back for a while.
    fn settle(&self, index: u8, vector: &mut Vector) -> bool {
        vector.due = None;
        if !vector.pending || vector.masked {
            return false;
        }
        let mut now = None;
        if vector.policy != Policy::None {
            let time = self.clock.now();
            now = Some(time);
            if !vector.work.urgent {
                let due = vector.policy.due(&vector.work, vector.since, vector.last);
                vector.due = due.filter(|due| *due > time);
                if vector.due.is_some() {
                    return true;
                }
            }
        }
        vector.pending = false;
        vector.work = Work::default();
        vector.last = now;
        if self.interrupts.msix_enabled() {
            vector.masked |= vector.auto_mask;
            self.interrupts.trigger_msix(index.into());
        } else if self.interrupts.msi_enabled() {
            vector.masked |= vector.auto_mask;
            self.interrupts.trigger_msi();
        } else {
            vector.asserted = true;
            self.drive(index, vector);
        }
        false
    }

    /// Makes the line follow one interrupt.
    fn drive(&self, index: u8, vector: &Vector) {
        if vector.asserted && !vector.masked {
            self.line.fetch_or(bit(index), Ordering::AcqRel);
        } else {
            self.line.fetch_and(!bit(index), Ordering::AcqRel);
        }
        self.interrupts.update_intx(|| self.line.load(Ordering::Acquire) != 0);
    }

    /// Writes IMR. Says whether an interrupt is held back for a while.
    pub(crate) fn set_mask(&self, index: u8, masked: bool) -> bool {
        let held = self.change(index, |vector| {
            vector.masked = masked;
            if vector.asserted {
                self.drive(index, vector);
            }
            self.settle(index, vector)
        });
        held.unwrap_or(false)
    }

    /// Reads IMR.
    pub(crate) fn mask(&self, index: u8) -> bool {
        self.change(index, |vector| vector.masked).unwrap_or(true)
    }

    /// Reads ICR: whether the line is asserted, which it is not any more then.
    pub(crate) fn take(&self) -> bool {
        let mut any = false;
        self.each(|index, vector| {
            if vector.asserted && !vector.masked {
                any = true;
                vector.asserted = false;
                vector.masked |= vector.auto_mask;
                self.drive(index, vector);
            }
        });
        any
    }

    /// Sends those of `held` whose time has come. Says which are still held back, and until when.
    pub(crate) fn expire(&self, held: u32) -> (u32, Option<Duration>) {
        let (mut still, mut next) = (0, None::<Duration>);
        self.each(|index, vector| {
            if held & bit(index) != 0 && vector.due.is_some() && self.settle(index, vector) {
                still |= bit(index);
                next = next.into_iter().chain(vector.due).min();
            }
        });
        (still, next)
    }

    /// Sets how all interrupts are masked and moderated.
    pub(crate) fn configure(&self, auto_mask: bool, policies: &[Policy; MAX_INTRS]) {
        self.each(|index, vector| {
            vector.auto_mask = auto_mask;
            vector.policy = policies.get(usize::from(index)).copied().unwrap_or(Policy::None);
        });
    }

    /// Sets how they are moderated. Returns which are held back for a while.
    pub(crate) fn moderate(&self, policies: &[Policy; MAX_INTRS]) -> u32 {
        let mut held = 0;
        self.each(|index, vector| {
            vector.policy = policies.get(usize::from(index)).copied().unwrap_or(Policy::None);
            if vector.due.is_some() && self.settle(index, vector) {
                held |= bit(index);
            }
        });
        held
    }

    /// Forgets what is pending; masks stay.
    pub(crate) fn quieten(&self) {
        self.each(|index, vector| {
            vector.quieten();
            self.drive(index, vector);
        });
    }

    /// Back to the state after power-on: all masked.
    pub(crate) fn reset(&self) {
        self.each(|index, vector| {
            *vector = Vector::new();
            self.drive(index, vector);
        });
    }
}
