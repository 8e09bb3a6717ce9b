//! A machine for unit tests: configuration spaces of plain words, memory, and a clock that is counted.

#![expect(unsafe_code, reason = "memory is given away by address")]

extern crate std;

use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use paraslot_protocol::Phase;

use crate::{Bdf, Completion, Completions, Disk, DmaRegion, Error, Failed, MsiMessage, Platform};

/// A function's configuration space: words, and which of their bits can be written.
pub(crate) struct Config {
    pub(crate) words: [u32; 64],
    pub(crate) writable: [u32; 64],
}

/// A device's registers, of 32 bits.
pub(crate) trait Registers {
    fn read(&self, fake: &Fake, offset: u64) -> u32;
    fn write(&self, fake: &Fake, offset: u64, value: u32);
}

type Attached = (Range<u64>, Rc<dyn Registers>);

/// The machine. There is nothing behind its BARs but what [`Fake::attach`] puts there.
pub(crate) struct Fake {
    pub(crate) functions: RefCell<BTreeMap<(u8, u8), Config>>,
    pub(crate) config_accesses: Cell<usize>,
    pub(crate) bar_space: Range<u64>,
    pub(crate) interrupts: Cell<u64>,
    pub(crate) phases: RefCell<Vec<Phase>>,
    /// Bytes that can still be allocated.
    pub(crate) memory: Cell<usize>,
    /// The interrupts that devices' pins were connected to, and how often handling was ended.
    pub(crate) pins: RefCell<BTreeMap<u8, u8>>,
    pub(crate) ended: Cell<u64>,
    now: Cell<u64>,
    regions: RefCell<Vec<DmaRegion>>,
    devices: RefCell<Vec<Attached>>,
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
            pins: RefCell::default(),
            ended: Cell::new(0),
            now: Cell::new(0),
            regions: RefCell::default(),
            devices: RefCell::default(),
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, cycles: u64) {
        self.now.set(self.now.get() + cycles);
    }

    /// Puts registers where a BAR has been placed by [`bar`](Self::bar).
    pub(crate) fn attach(&self, address: u64, len: u64, device: Rc<dyn Registers>) {
        self.devices.borrow_mut().push((address..address + len, device));
    }

    fn device(&self, address: u64) -> Option<(Rc<dyn Registers>, u64)> {
        let devices = self.devices.borrow();
        let (range, device) = devices.iter().find(|(range, _)| range.contains(&address))?;
        Some((device.clone(), address - range.start))
    }

    /// The memory that a device reaches at `physical`, and the offset in it. What was never allocated
    /// is none of a device's business.
    pub(crate) fn at(&self, physical: u64) -> (DmaRegion, usize) {
        let regions = self.regions.borrow();
        let inside = |region: &&DmaRegion| {
            (region.physical(0)..region.physical(region.len())).contains(&physical)
        };
        let region = regions.iter().find(inside).expect("a device is given memory");
        (region.clone(), usize::try_from(physical - region.physical(0)).unwrap())
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
    fn read32(&self, address: u64) -> u32 {
        let device = self.device(address);
        device.map_or(u32::MAX, |(device, offset)| device.read(self, offset))
    }
    fn write8(&self, _address: u64, _value: u8) {}
    fn write16(&self, _address: u64, _value: u16) {}
    fn write32(&self, address: u64, value: u32) {
        if let Some((device, offset)) = self.device(address) {
            device.write(self, offset, value);
        }
    }
    fn bar_space(&self) -> Range<u64> {
        self.bar_space.clone()
    }
    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        self.memory.set(self.memory.get().checked_sub(len)?);
        let layout = Layout::from_size_align(len.max(1), 4096).ok()?;
        // SAFETY: the layout's size is not 0.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: the memory is page-aligned, valid, never freed, and nobody else's.
        let region = unsafe { DmaRegion::new(memory, memory.as_ptr() as u64, len) };
        self.regions.borrow_mut().push(region.clone());
        Some(region)
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
    fn connect_pin(&self, function: Bdf, index: u8) -> bool {
        self.pins.borrow_mut().insert(function.device, index);
        index < 16
    }
    fn end_of_interrupt(&self, _index: u8) {
        self.ended.set(self.ended.get() + 1);
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

/// What a disk has completed, when it is asked.
pub(crate) fn poll(disk: &mut impl Disk) -> Result<Vec<Completion>, Error> {
    let mut completions = Completions::new();
    disk.poll(&mut completions)?;
    Ok(completions.as_slice().to_vec())
}

/// What a disk has completed, when it has interrupted.
pub(crate) fn handle(disk: &mut impl Disk) -> Result<Vec<Completion>, Error> {
    let mut completions = Completions::new();
    disk.handle(&mut completions)?;
    Ok(completions.as_slice().to_vec())
}

/// A request that went well.
pub(crate) const fn done(tag: u16) -> Completion {
    Completion { tag, result: Ok(()) }
}

/// A request that did not.
pub(crate) const fn failed(tag: u16, failed: Failed) -> Completion {
    Completion { tag, result: Err(failed) }
}
