//! The drivers' platform.

use core::arch::asm;
use core::cell::RefCell;
use core::ops::Range;
use core::ptr::NonNull;

use paraslot_drivers::{Bdf, DmaRegion, MsiMessage, Platform};
use paraslot_protocol::{Phase, port as ports};

use crate::boot;
use crate::interrupts::Interrupts;
use crate::memory::{self, Allocator};
use crate::start_info::StartInfo;
use crate::{clock, pci, port};

/// The machine that the guest found itself on.
pub(crate) struct Machine {
    allocator: RefCell<Allocator>,
    bar_space: Range<u64>,
    interrupts: Interrupts,
    tsc_hz: u64,
}

impl Machine {
    /// Sets it up. `tsc_hz` is the counter's frequency, 0 to find out.
    pub(crate) fn new(info: &StartInfo, tsc_hz: u64) -> Self {
        let map = info.map();
        let tsc_hz = if tsc_hz != 0 { Some(tsc_hz) } else { clock::frequency() };
        Self {
            allocator: RefCell::new(Allocator::new(memory::pool(map, boot::image()))),
            bar_space: memory::bar_space(map),
            interrupts: Interrupts::new(),
            tsc_hz: tsc_hz.expect("nothing tells the time stamp counter's frequency"),
        }
    }
}

/// Maps the GiB that `address` is in, if it is above the 4 GiB that are mapped from the start.
#[inline(always)]
fn reach(address: u64) {
    if address >> 32 != 0 {
        map_high(address);
    }
}

#[cold]
fn map_high(address: u64) {
    const PAGE_1_GIB: u32 = 1 << 26;
    const PRESENT_WRITABLE_USER_ACCESSED_DIRTY_LARGE: u64 = 0xe7;
    let large = core::arch::x86_64::__cpuid(0x8000_0001).edx & PAGE_1_GIB != 0;
    let index = (address >> 30) as usize;
    assert!(large && index < 512, "address {address:#x} cannot be mapped");
    // SAFETY: inside the table. The entry goes from not present to present, so nothing stale is
    // cached of it, and nothing else is mapped there.
    unsafe {
        let entry = (&raw mut boot::pdpt).cast::<u64>().add(index);
        if entry.read_volatile() == 0 {
            let base = (index as u64) << 30;
            entry.write_volatile(base | PRESENT_WRITABLE_USER_ACCESSED_DIRTY_LARGE);
        }
    }
}

// One plain MOV each: hypervisors decode registers accesses, and some know few instructions.
macro_rules! register {
    ($read:ident, $write:ident, $type:ty, $class:ident, $format:literal, $width:literal) => {
        fn $read(&self, address: u64) -> $type {
            reach(address);
            let value: $type;
            // SAFETY: drivers read device registers here; reading anything else does no harm either.
            unsafe {
                asm!(concat!("mov {value", $format, "}, ", $width, " ptr [{address}]"),
                     value = out($class) value, address = in(reg) address,
                     options(nostack, preserves_flags))
            };
            value
        }
        fn $write(&self, address: u64, value: $type) {
            reach(address);
            // SAFETY: drivers write device registers here, at addresses that they gave to BARs.
            unsafe {
                asm!(concat!("mov ", $width, " ptr [{address}], {value", $format, "}"),
                     value = in($class) value, address = in(reg) address,
                     options(nostack, preserves_flags))
            };
        }
    };
}

impl Platform for Machine {
    fn config_read(&self, function: Bdf, offset: u16) -> u32 {
        pci::read(function, offset)
    }
    fn config_write(&self, function: Bdf, offset: u16, value: u32) {
        pci::write(function, offset, value);
    }

    register!(read8, write8, u8, reg_byte, "", "byte");
    register!(read16, write16, u16, reg, ":x", "word");
    register!(read32, write32, u32, reg, ":e", "dword");

    fn bar_space(&self) -> Range<u64> {
        self.bar_space.clone()
    }

    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        let physical = self.allocator.borrow_mut().allocate(len)?;
        let memory = NonNull::new(physical as *mut u8)?;
        // SAFETY: it is memory, mapped at its physical address, and nobody else's for good.
        unsafe {
            memory.write_bytes(0, len);
            Some(DmaRegion::new(memory, physical, len))
        }
    }

    fn tsc(&self) -> u64 {
        clock::tsc()
    }
    fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }

    fn relax(&self) {
        core::hint::spin_loop();
    }

    fn interrupt_message(&self, index: u8) -> MsiMessage {
        self.interrupts.message(index)
    }
    fn connect_pin(&self, function: Bdf, index: u8) -> bool {
        pci::pin(function).is_some_and(|pin| self.interrupts.connect(pin, index))
    }
    fn end_of_interrupt(&self, index: u8) {
        self.interrupts.end(index);
    }
    fn interrupts_taken(&self, index: u8) -> u64 {
        self.interrupts.taken(index)
    }
    fn wait_for_interrupt(&self, index: u8, seen: u64) {
        let start = self.tsc();
        while self.interrupts.taken(index) <= seen && self.tsc() - start < self.tsc_hz {
            self.interrupts.sleep(index, seen);
        }
    }

    fn phase(&self, phase: Phase) {
        port::write32(ports::PHASE, phase as u32);
    }
}
