//! Interrupt causes, their mask, and what follows from them.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use paraslot_device::SharedPage;
use paraslot_pci::Interrupts;
use paraslot_spec::pvscsi::{Intr, PAGE_SIZE, register};

use crate::registers::find;
use crate::shared::lock;

/// The page of the BAR with INTR_STATUS, which has it to itself.
pub(crate) const STATUS_PAGE: u32 = 0x1000;
const _: () = assert!(register::INTR_STATUS / STATUS_PAGE == 1 && STATUS_PAGE as u64 == PAGE_SIZE);

/// INTR_STATUS, INTR_MASK and the interrupt. Any thread may call any method at any time.
pub(crate) struct Irq {
    interrupts: Arc<Interrupts>,
    /// What the guest reads.
    page: Arc<SharedPage>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    status: u32,
    mask: u32,
    line: bool,
}

impl Irq {
    pub(crate) fn new(interrupts: Arc<Interrupts>) -> io::Result<Self> {
        let page = Arc::new(SharedPage::in_bar(STATUS_PAGE, STATUS_PAGE as usize)?);
        Ok(Self { interrupts, page, state: Mutex::default() })
    }

    /// INTR_STATUS as the guest reads it, for a host that maps it.
    pub(crate) fn page(&self) -> &Arc<SharedPage> {
        &self.page
    }

    /// INTR_STATUS.
    pub(crate) fn status(&self) -> u32 {
        lock(&self.state).status
    }

    /// INTR_MASK.
    pub(crate) fn mask(&self) -> u32 {
        lock(&self.state).mask
    }

    /// There is news. A message is sent for all of it, even if its causes were set already: drivers do
    /// not clear them when they use messages.
    pub(crate) fn raise(&self, causes: Intr) {
        if causes.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        state.status |= causes.bits();
        let send = state.mask & causes.bits() != 0;
        self.follow(&mut state, send);
    }

    /// Writes the lanes `lanes` of INTR_STATUS.
    pub(crate) fn clear(&self, value: u32, lanes: u32) {
        let mut state = lock(&self.state);
        state.status = written(register::INTR_STATUS, state.status, value, lanes);
        self.follow(&mut state, false);
    }

    /// Writes the lanes `lanes` of INTR_MASK.
    pub(crate) fn set_mask(&self, value: u32, lanes: u32) {
        let mut state = lock(&self.state);
        let old = state.mask;
        state.mask = written(register::INTR_MASK, old, value, lanes);
        let news = state.mask & !old & state.status;
        self.follow(&mut state, news != 0);
    }

    /// Nothing is there any more that would interrupt; the mask stays, unless it goes too.
    pub(crate) fn forget(&self, and_mask: bool) {
        let mut state = lock(&self.state);
        state.status = 0;
        if and_mask {
            state.mask = 0;
        }
        self.follow(&mut state, false);
    }

    /// INTR_STATUS and INTR_MASK as they were, after a reset. What was to be sent has been.
    pub(crate) fn restore(&self, status: Intr, mask: Intr) {
        let mut state = lock(&self.state);
        (state.status, state.mask) = (status.bits(), mask.bits());
        self.follow(&mut state, false);
    }

    /// Makes the page and the line follow the registers, and sends a message if `send` says so.
    fn follow(&self, state: &mut State, send: bool) {
        let index = (register::INTR_STATUS - STATUS_PAGE) / 4;
        if let Some(word) = self.page.words().get(index as usize) {
            word.store(state.status.to_le(), Ordering::Release);
        }
        let level = state.status & state.mask != 0;
        if state.line != level {
            state.line = level;
            self.interrupts.set_intx(level);
        }
        if send {
            if self.interrupts.msix_enabled() {
                self.interrupts.trigger_msix(0);
            } else {
                self.interrupts.trigger_msi();
            }
        }
    }
}

fn written(offset: u32, old: u32, value: u32, lanes: u32) -> u32 {
    find(offset).map_or(old, |register| register.written(old, value, lanes))
}
