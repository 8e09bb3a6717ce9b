//! Interrupt causes, their mask, the pin, and throttling (13.4.17 to 13.4.21).

mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use paraslot_device::Clock;
use paraslot_pci::Interrupts;
use paraslot_spec::e1000::ITR_UNIT_NS;

pub(crate) use self::state::IrqState;

/// Causes that ICR, ICS, IMS and IMC have: all bits up to SRPD. Some of them are reserved, and can
/// be set all the same, as Linux's self test expects.
const CAUSES: u32 = 0x1_ffff;
/// No time.
const NEVER: u64 = u64::MAX;

/// ICR, IMS, ITR and what follows from them. Any thread may call any method at any time.
pub(crate) struct Irq {
    interrupts: Arc<Interrupts>,
    clock: Arc<dyn Clock>,
    causes: AtomicU32,
    mask: AtomicU32,
    interval: AtomicU32,
    // The rest is touched by the closure in `update` alone, of which only one runs at a time.
    level: AtomicBool,
    /// The time, in nanoseconds, from which on the line may rise again.
    open: AtomicU64,
    /// The time for which a rise is put off.
    due: AtomicU64,
}

impl Irq {
    pub(crate) fn new(interrupts: Arc<Interrupts>, clock: Arc<dyn Clock>) -> Self {
        Self {
            interrupts,
            clock,
            causes: AtomicU32::new(0),
            mask: AtomicU32::new(0),
            interval: AtomicU32::new(0),
            level: AtomicBool::new(false),
            open: AtomicU64::new(0),
            due: AtomicU64::new(NEVER),
        }
    }

    /// ICR without reading it.
    pub(crate) fn causes(&self) -> u32 {
        self.causes.load(Ordering::Acquire)
    }

    /// Sets causes. Says whether a timer is needed: the line is to rise at [`due`](Self::due).
    pub(crate) fn raise(&self, causes: u32) -> bool {
        let causes = causes & CAUSES;
        if causes == 0 {
            return false;
        }
        self.causes.fetch_or(causes, Ordering::AcqRel);
        self.update()
    }

    /// Reads ICR, which clears it.
    pub(crate) fn take(&self) -> u32 {
        let causes = self.causes.swap(0, Ordering::AcqRel);
        if causes != 0 {
            self.update();
        }
        causes
    }

    /// Writes ICR: clears the causes.
    pub(crate) fn clear(&self, causes: u32) {
        self.causes.fetch_and(!causes, Ordering::AcqRel);
        self.update();
    }

    /// IMS.
    pub(crate) fn mask(&self) -> u32 {
        self.mask.load(Ordering::Acquire)
    }

    /// Writes IMS. Says whether a timer is needed.
    pub(crate) fn unmask(&self, causes: u32) -> bool {
        self.mask.fetch_or(causes & CAUSES, Ordering::AcqRel);
        self.update()
    }

    /// Writes IMC.
    pub(crate) fn mask_out(&self, causes: u32) {
        self.mask.fetch_and(!causes, Ordering::AcqRel);
        self.update();
    }

    /// ITR.
    pub(crate) fn interval(&self) -> u32 {
        self.interval.load(Ordering::Acquire)
    }

    /// Writes ITR. It holds from the next rise on; zero holds at once. Says whether a timer is needed.
    pub(crate) fn set_interval(&self, interval: u32) -> bool {
        self.interval.store(interval, Ordering::Release);
        self.update()
    }

    /// When the line is to rise, if that was put off.
    pub(crate) fn due(&self) -> Option<Duration> {
        let due = self.due.load(Ordering::Acquire);
        (due != NEVER).then(|| Duration::from_nanos(due))
    }

    /// Makes the line follow the registers. Says whether its rise was put off.
    pub(crate) fn update(&self) -> bool {
        let mut due = NEVER;
        self.interrupts.update_intx(|| {
            let wanted = self.causes() & self.mask() != 0;
            let level = wanted && (self.level.load(Ordering::Relaxed) || self.may_rise(&mut due));
            self.level.store(level, Ordering::Relaxed);
            self.due.store(due, Ordering::Release);
            level
        });
        due != NEVER
    }

    fn may_rise(&self, due: &mut u64) -> bool {
        let interval = u64::from(self.interval());
        if interval == 0 {
            return true;
        }
        let now = u64::try_from(self.clock.now().as_nanos()).unwrap_or(NEVER);
        let open = self.open.load(Ordering::Relaxed);
        if now < open {
            *due = open;
            return false;
        }
        let next = now.saturating_add(interval.saturating_mul(ITR_UNIT_NS));
        self.open.store(next, Ordering::Relaxed);
        true
    }

    /// Back to the state after power-on.
    pub(crate) fn reset(&self) {
        self.mask.store(0, Ordering::Release);
        self.causes.store(0, Ordering::Release);
        self.interval.store(0, Ordering::Release);
        self.interrupts.update_intx(|| {
            self.level.store(false, Ordering::Relaxed);
            self.open.store(0, Ordering::Relaxed);
            self.due.store(NEVER, Ordering::Release);
            false
        });
    }
}
