//! A machine for unit tests: configuration spaces of plain words, memory, and a clock that is counted.

#![expect(unsafe_code, reason = "memory is given away by address")]

extern crate std;

use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed};
use std::collections::BTreeMap;
use std::vec::Vec;

use paraslot_protocol::Phase;

use crate::{Bdf, DmaRegion, MsiMessage, Platform};

/// A function's configuration space: words, and which of their bits can be written.
pub(crate) struct Config {
    pub(crate) words: [u32; 64],
    pub(crate) writable: [u32; 64],
}

/// The machine. There is nothing behind its BARs.
pub(crate) struct Fake {
    pub(crate) functions: RefCell<BTreeMap<(u8, u8), Config>>,
    pub(crate) config_accesses: Cell<usize>,
    pub(crate) bar_space: Range<u64>,
    pub(crate) interrupts: Cell<u64>,
    pub(crate) phases: RefCell<Vec<Phase>>,
    /// Bytes that can still be allocated.
    pub(crate) memory: Cell<usize>,
    now: Cell<u64>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            functions: RefCell::default(),
            config_accesses: Cell::new(0),
            bar_space: 0xe000_0000..0xf000_0000,
            interrupts: Cell::new(0),
            phases: RefCell::default(),
            memory: Cell::new(64 << 20),
            now: Cell::new(0),
        }
    }

    /// Adds a function of header type 0 (with bit 7, of a multi-function device).
    pub(crate) fn add(&self, device: u8, function: u8, header_type: u8) {
        let mut config = Config { words: [0; 64], writable: [0; 64] };
        config.words[0] = 0x1234_5678;
        config.words[3] = u32::from(header_type) << 16;
        config.writable[1] = 0xffff;
        self.functions.borrow_mut().insert((device, function), config);
    }

    /// Gives a function a memory BAR.
    pub(crate) fn bar(&self, device: u8, index: usize, size: u64, wide: bool, address: u64) {
        let mut functions = self.functions.borrow_mut();
        let config = functions.get_mut(&(device, 0)).unwrap();
        let mask = !(size - 1);
        let (low, high) = (address & 0xffff_ffff, address >> 32);
        config.words[4 + index] = u32::try_from(low).unwrap() | if wide { 4 } else { 0 };
        config.writable[4 + index] = u32::try_from(mask & 0xffff_fff0).unwrap();
        if wide {
            config.words[5 + index] = u32::try_from(high).unwrap();
            config.writable[5 + index] = u32::try_from(mask >> 32).unwrap();
        }
    }
}

impl Platform for Fake {
    fn config_read(&self, function: Bdf, offset: u16) -> u32 {
        self.config_accesses.set(self.config_accesses.get() + 1);
        let functions = self.functions.borrow();
        let config = functions.get(&(function.device, function.function));
        config.map_or(u32::MAX, |config| config.words[usize::from(offset / 4)])
    }
    fn config_write(&self, function: Bdf, offset: u16, value: u32) {
        self.config_accesses.set(self.config_accesses.get() + 1);
        let mut functions = self.functions.borrow_mut();
        if let Some(config) = functions.get_mut(&(function.device, function.function)) {
            let index = usize::from(offset / 4);
            let writable = config.writable[index];
            config.words[index] = config.words[index] & !writable | value & writable;
        }
    }
    fn read8(&self, _address: u64) -> u8 {
        u8::MAX
    }
    fn read16(&self, _address: u64) -> u16 {
        u16::MAX
    }
    fn read32(&self, _address: u64) -> u32 {
        u32::MAX
    }
    fn write8(&self, _address: u64, _value: u8) {}
    fn write16(&self, _address: u64, _value: u16) {}
    fn write32(&self, _address: u64, _value: u32) {}
    fn bar_space(&self) -> Range<u64> {
        self.bar_space.clone()
    }
    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        self.memory.set(self.memory.get().checked_sub(len)?);
        let layout = Layout::from_size_align(len.max(1), 4096).ok()?;
        // SAFETY: the layout's size is not 0.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: the memory is page-aligned, valid, never freed, and nobody else's.
        Some(unsafe { DmaRegion::new(memory, memory.as_ptr() as u64, len) })
    }
    fn tsc(&self) -> u64 {
        self.now.set(self.now.get() + 1);
        self.now.get()
    }
    fn tsc_hz(&self) -> u64 {
        1_000_000
    }
    fn relax(&self) {
        self.now.set(self.now.get() + 10);
    }
    fn interrupt_message(&self, index: u8) -> MsiMessage {
        MsiMessage { address: 0xfee0_0000, data: u32::from(index) }
    }
    fn interrupts_taken(&self, _index: u8) -> u64 {
        self.interrupts.get()
    }
    fn wait_for_interrupt(&self, _index: u8, _seen: u64) {
        self.now.set(self.now.get() + 1_000_000);
    }
    fn phase(&self, phase: Phase) {
        self.phases.borrow_mut().push(phase);
    }
}
