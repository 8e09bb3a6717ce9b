//! The INTx pin on a line that cannot be held.

use std::sync::atomic::{AtomicBool, Ordering};

use paraslot_device::IntxLine;

/// An INTx line of a host that can raise an interrupt and not hold it. It is raised again after each access to
/// the function for as long as the function wants it, since each may be the last of an interrupt's handling.
///
/// It serves drivers that make the function let go in their handlers, as all do; to a guest with its interrupt
/// in service another raise is nothing. A host whose line is a level, or that has an eventfd for the end of
/// the interrupt, has no use for this.
pub struct PulsedLine {
    raise: Box<dyn Fn() + Send + Sync>,
    asserted: AtomicBool,
}

impl PulsedLine {
    /// A line that `raise` raises.
    pub fn new(raise: impl Fn() + Send + Sync + 'static) -> Self {
        Self { raise: Box::new(raise), asserted: AtomicBool::new(false) }
    }

    /// The function was accessed.
    pub(crate) fn accessed(&self) {
        if self.asserted.load(Ordering::Acquire) {
            (self.raise)();
        }
    }
}

impl IntxLine for PulsedLine {
    fn set_level(&self, asserted: bool) {
        self.asserted.store(asserted, Ordering::Release);
        self.accessed();
    }
}
